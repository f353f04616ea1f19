"""Every setting once, with its unit or source; `domains` says what each may be.

A config file is a Python file with `get_config()` that starts from `default_config()` and changes
the lines that differ. Values are overridden on the command line by `--config.key=value`. Lists and
None cannot be overridden there, so sequences are tuples and unset values are typed placeholders.
"""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from biggan_jax.config import domains
from biggan_jax.config.flat import first_line, flatten
from biggan_jax.config.resume import check_resume
from biggan_jax.config.validation import validate
from biggan_jax.errors import UserError, did_you_mean

__all__ = ["check_resume", "default_config", "flatten", "from_saved", "validate"]

DOES_NOT_FIT = "the saved config does not fit this version"  # begins what `from_saved` refuses


def default_config() -> ConfigDict:
    """BigGAN at 128 pixels with the hyperparameters of Brock et al. 2019, appendix C."""
    c = ConfigDict()
    c.seed = 0  # of parameters, latents and data order
    c.batch_size = 2048  # real images of one update of one player, over all devices
    c.num_d_steps = 2  # discriminator updates for one of the generator (Brock et al., appendix C)
    c.accumulation_steps = 1  # microbatches of one update, each with its own batch statistics
    c.num_steps = 150_000  # generator updates of the whole run
    c.log_every_steps = 100
    c.checkpoint_every_steps = 1000
    c.sample_every_steps = 1000
    # Singular values of all weights, gains, and D's judgement of held-out images every so many
    # steps, to metrics.jsonl (`training/monitors.py`, docs/stability.md). Unset: never.
    c.monitor_every_steps = placeholder(int)
    # Scores of the averaged weights every so many steps; such a step is saved too, and the state
    # with the best FID copied aside to best/. Unset: never.
    c.eval_every_steps = placeholder(int)
    c.eval_samples = 2500  # of one such evaluation; more than the feature dimensions (64 or 2048)
    c.eval_features = placeholder(str)  # inception | dinov2 | classifier; unset: as `evaluate`
    c.keep_checkpoints = 2  # newest ones
    c.compute_dtype = "float32"  # float32 | bfloat16: activations and convolutions
    # Devices along ('data', 'fsdp'); -1 takes what is left. The batch is split over both; over fsdp
    # also parameters, optimizer and average, which each step gathers.
    c.mesh = (-1, 1)
    # Resolutions (pixels) of blocks that are recomputed in the backward pass, to save memory, such
    # as (64, 128), or all.
    c.remat = ()
    # Examples of one group of G's batch statistics (ghost batch norm); unset: the whole batch, or
    # microbatch, over all devices.
    c.bn_group_size = placeholder(int)
    c.loss = "hinge"  # hinge | non_saturating | wasserstein | least_squares | relativistic
    # A workdir or model directory whose weights a fresh run starts with, DIR@STEP or DIR@best for
    # another step than the newest; unset: random ones. A run that goes on from its own checkpoints
    # does not read it again.
    c.init_from = placeholder(str)
    # Where metrics go: jsonl (metrics.jsonl, always), tensorboard (event files), wandb (extra).
    c.writers = ("jsonl", "tensorboard")
    # As earlier versions have it: True takes tensorboard into `writers`, False leaves it out.
    c.tensorboard = placeholder(bool)
    c.report = True  # report/index.html at the end of the run, as `biggan report` writes it

    c.class_names = ()  # one per class; `train` fills them from the data

    c.model = m = ConfigDict()
    m.name = "biggan"  # biggan | biggan_deep | sagan | sngan | dcgan
    m.resolution = 128  # pixels
    m.channels = 3  # 1 grey, 3 RGB
    m.ch = 96  # channel multiplier of both players
    m.num_classes = placeholder(int)  # `train` fills it from the data; 1 is unconditional
    m.dim_z = 120  # 20 for each chunk at 128 pixels
    m.shared_dim = 128  # width of the shared class embedding
    m.g_attention = (64,)  # resolutions (pixels) after whose block self-attention stands
    m.d_attention = (64,)
    m.z_distribution = "normal"  # a name of latents.DISTRIBUTIONS (Brock et al., appendix E)
    m.cond_order = "embedding_z"  # embedding_z (BigGAN-PyTorch) | z_embedding (TF-Hub)
    m.shared_embedding = True  # False: per-class gains and biases in every batch norm
    m.hierarchical_z = True  # a chunk of z for every block; False: the first layer sees all of z
    m.g_spectral_norm = True
    m.d_spectral_norm = True
    # biggan_pytorch | studiogan: other widths at 32 (D) and 64 pixels (G); biggan_deep has a third,
    # studiogan_legacy: at 64 pixels alone.
    m.width_table = "biggan_pytorch"
    m.d_thin = False  # hidden width of D's blocks: input's (SNGAN) instead of the output's
    # What the skips of D's blocks take, before or after the ReLU; StudioGAN's ReLU is in place.
    m.d_skip = "input"  # input | activated
    # The blocks of biggan_deep: skips drop and add channels (Brock et al. 2019), or are 1x1
    # convolutions, and D pools before its last ReLU.
    m.deep_blocks = "paper"  # paper | studiogan
    m.attention_kind = "attention"  # attention | residual (SAGAN's control of the same place)
    # published (keys and values max-pooled, C / 2 values) | paper (equations 1 to 3: neither)
    m.attention_form = "published"
    m.attention_reduction = 8  # k: queries and keys have C / k channels
    m.init = "orthogonal"  # orthogonal | xavier | normal (0.02) | glorot_relu (SNGAN)
    m.rgb_width = placeholder(int)  # output channels of the last convolution; unset: channels
    m.bn_eps = 1e-5
    m.bn_momentum = 0.9  # weight of the old running statistics
    m.bn_variance = "unbiased"  # unbiased (torch) | biased (TensorFlow, --mybn): what is stored
    m.sn_eps = 1e-6
    m.sn_iterations = 1  # power iterations of a training forward
    m.d_dropout = 0.0  # share of the features before D's last layer that a training forward drops
    # san: normalised direction and scale, trained apart (Takida et al. 2024); no spectral norm and
    # no bias in that layer.
    m.d_head = "linear"  # linear | san
    m.sn_eval = "iterate"  # iterate (BigGAN-PyTorch) | stored (torch.nn.utils.spectral_norm)

    c.optimizer = o = ConfigDict()
    o.g_lr = 5e-5  # TTUR: separate learning rates (Heusel et al. 2017)
    o.d_lr = 2e-4
    o.beta1 = 0.0
    o.beta2 = 0.999
    o.eps = 1e-8
    # Both rates fall from their values to 0 between these generator updates; unset: never.
    o.decay_start_step = placeholder(int)
    o.decay_end_step = placeholder(int)
    o.schedule = placeholder(str)  # constant | linear | cosine: how they fall; unset: linear
    o.warmup_steps = 0  # generator updates in which both rates rise linearly from 0
    # Global norm of a player's gradients above which they are scaled down to it; unset: never.
    o.clip_norm = placeholder(float)

    c.regularizer = r = ConfigDict()
    r.g_orthogonal = 1e-4  # beta of Brock et al., equation 3; 0 is off
    r.d_orthogonal = 0.0
    # gSR: times the mean over G's batch norms and classes of the squared spectral norms of a
    # class's gains and biases, as matrices of so many rows (Rangwani et al. 2022: 0.5 on CIFAR); 0
    # is off.
    r.g_group_spectral = 0.0
    r.g_spectral_groups = placeholder(int)  # unset: the divisor nearest to the square root
    # Of the effective number of images by which rare classes weigh more (Rangwani et al. on CIFAR:
    # 0.99); 0: all classes alike.
    r.g_spectral_beta = 0.0
    r.orthogonal_form = "off_diagonal"  # off_diagonal (1 - I) | full
    # After every update of G (of D) the largest singular values of its raw weights are lowered to
    # this value, or the largest to this multiple of the second (Brock et al., equation 4); unset:
    # never.
    r.g_sigma_clamp = placeholder(float)
    r.d_sigma_clamp = placeholder(float)
    r.sigma_clamp_form = "value"  # value (sigma_reg) | ratio (r: of the second, 1 or more)
    # gamma: half of it times the squared norm of D's gradient at real (R1) or generated images (R2)
    # is added to D's loss (Mescheder et al. 2018; R3GAN); 0 is off.
    r.r1 = 0.0
    r.r2 = 0.0
    # lambda: this times the mean of (|gradient of D| - 1)^2 is added to D's loss, at points between
    # real and generated images (WGAN-GP: 10), or at real images with noise (DRAGAN: 10); 0 is off.
    r.wgan_gp = 0.0
    r.dragan = 0.0
    # bCR: lambda_real, times the mean squared change of D's logits when an image is flipped and
    # shifted (or, with `augment`, augmented anew), and lambda_fake (unset: the same); Zhao et al.
    # 2021: 10. Without the flip where mirrored images are no images, as of digits.
    r.consistency = 0.0
    r.consistency_fake = placeholder(float)
    r.consistency_flip = True
    # zCR: lambda_dis and lambda_gen of the change under noise sigma on z (StudioGAN: 20, 0.5).
    r.zcr_d = 0.0
    r.zcr_g = 0.0
    r.zcr_sigma = 0.05
    # LeCam: lambda of Tseng et al. 2021 (0.3), decay of the averages of D's logits that it pulls
    # towards, and the generator update after which it is on.
    r.lecam = 0.0
    r.lecam_decay = 0.99
    r.lecam_start_step = 1000
    r.every_steps = 1  # of so many D updates one has the penalties, multiplied by this number

    c.augment = a = ConfigDict()  # of what D sees, real and generated (`training/augment.py`)
    a.policy = "none"  # none | diffaugment (Zhao et al. 2020) | ada (Karras et al. 2020)
    a.ops = ("colour", "translation", "cutout")  # of diffaugment
    a.groups = ("blit", "geometric", "colour")  # of ada; also filter, noise, cutout
    # Of every transform for every image. Unset: 1 (diffaugment), from 0 held by a target (ada).
    a.probability = placeholder(float)  # 0 to 1; with a target it is where it starts
    # How far D overfits: r_t, E[sign(D(real))], or r_v, where D sees the images of data.holdout
    # between training and generated ones (Karras et al. 2020, equation 1).
    a.heuristic = "signs"  # signs (r_t) | held_out (r_v)
    # Of that, where the probability is held, -1 to 1; unset: none (a fixed probability),
    # or where ada has no probability either 0.6 (signs) or 0.5 (held_out).
    a.target = placeholder(float)
    a.every_steps = 4  # D updates between two adjustments of the probability
    a.ramp_images = 500_000  # real images in which it can go from 0 to 1

    c.finetune = f = ConfigDict()  # how a run with init_from starts
    f.new_classes = "fresh"  # fresh | mean (of the old rows): class tables of another class count
    f.freeze_d = 0  # D's first blocks, those nearest the image, that are never updated
    f.keep_optimizer = False  # take over Adam's moments of kept weights (from a workdir only)

    c.guard = u = ConfigDict()  # which sees a collapse coming (`training/guard.py`)
    u.action = "warn"  # off | warn | stop | rollback: to the last healthy checkpoint
    u.every_steps = 5  # between two looks at the losses and the norms of the gradients
    u.diversity_every_steps = 50  # between two looks at the samples, in D's features
    u.max_rollbacks = 3  # of one run; the next collapse stops it
    u.on_rollback = w = ConfigDict()  # what is changed, each time
    w.lr_factor = 0.25  # by which both learning rates are multiplied
    w.r1 = placeholder(float)  # regularizer.r1 from then on; unset: as it is
    w.new_draw = True  # of the latents and the data order

    c.ema = e = ConfigDict()
    e.decay = 0.9999  # of G's parameters and statistics, per generator update
    e.start_step = 20_000  # until then the average is a copy of G
    # More averages beside that one, to be chosen from afterwards (`biggan evaluate --sweep-ema`):
    # of these decays, and of power-function profiles of these relative widths sigma_rel (Karras et
    # al. 2024, section 3.1), such as (0.05, 0.1). Each takes the memory of G's weights once more.
    e.decays = ()
    e.profiles = ()

    c.data = d = ConfigDict()
    d.source = placeholder(str)  # KIND[:...], such as folder:PATH; `data.kinds` lists them
    d.flip = False  # random horizontal flips
    # 0: every image once an epoch; 1: every class as often as any other; in between classes come in
    # proportion to (their images) ** (1 - balance).
    d.balance = 0.0  # 0 to 1
    d.fake_labels = "uniform"  # uniform | data: classes of the fakes, data: as often as in a batch
    d.class_counts = ()  # training images of each class; `train` fills them where they count
    # A folder of a local disk, to which each process copies the shards that it reads: needed where
    # data.source is in a bucket. Unset or empty: read in place.
    d.stage = placeholder(str)
    d.stage_gb = placeholder(float)  # 10**9 bytes that a process may take there; unset: all free
    # Share of the images that is kept out of training, chosen by a hash of their indices, so that
    # the monitors show D's judgement of them beside that of training images.
    d.holdout = 0.0  # 0 to 0.5
    d.on_bad_record = "error"  # error | skip: the next good record of its class takes its place
    # How the names of class folders are sorted, which numbers the classes: 'class 9' before
    # 'class 10', or by code points as in older versions.
    d.class_order = "natural"  # natural | text
    d.max_pixels = placeholder(int)  # of the largest picture that is decoded; unset: Pillow's limit
    return c


def from_saved(saved: dict[str, Any]) -> ConfigDict:
    """The config of a `config.json`: the defaults, overwritten by the saved values.

    A model directory may hold the `model` section alone.

    Raises:
      UserError: for a key that this version does not know.
    """
    config = default_config()
    config.data.class_order = "text"  # of a run that was made before there was another
    config.lock()
    if not isinstance(saved, dict):
        raise UserError(f"{DOES_NOT_FIT}: it is no object of settings")
    known, given = flatten(config), flatten(saved)
    for key, value in given.items():
        if key not in known:
            raise UserError(f"{DOES_NOT_FIT}: unknown key {key!r}{did_you_mean(key, known)}")
        if value is None and known[key] is not None:
            raise UserError(f"{DOES_NOT_FIT}: {key} is null")
        if not _is_like(key, value, known[key]):
            raise UserError(f"{DOES_NOT_FIT}: {key} is {value!r:.60}")
    try:
        config.update_from_flattened_dict(given)
    except (KeyError, AttributeError, TypeError, OverflowError) as e:
        raise UserError(f"{DOES_NOT_FIT}: {first_line(e)}") from e
    return config


def _is_like(key: str, value: Any, default: Any) -> bool:
    """What `ConfigDict` does not look at: truth in the place of a number, and parts of a tuple."""
    if isinstance(value, tuple):
        words = ("class_names", "augment.ops", "augment.groups", "writers")
        kind = str if key in words else (int, str) if key == "remat" else domains.kind_of_parts(key)
        kinds = (int, float) if kind is float else kind
        return all(isinstance(x, kinds) and not isinstance(x, bool) for x in value)
    switch = isinstance(default, bool) or key == "tensorboard"  # a switch that may be unset
    return value is None or isinstance(value, bool) == switch
