"""Every setting once, with its unit or source, and the checks that need no data and no device.

A config file is a Python file with `get_config()` that starts from `default_config()` and changes
the lines that differ. Values are overridden on the command line by `--config.key=value`. Lists and
None cannot be overridden there, so sequences are tuples and unset values are typed placeholders.
"""

import math
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from biggan_jax.errors import UserError

# A resumed run may change these: they alter how long, how often or where, never what is computed.
RESUMABLE = frozenset(
    {
        "num_steps",
        "log_every_steps",
        "checkpoint_every_steps",
        "sample_every_steps",
        "eval_every_steps",
        "eval_samples",
        "eval_features",
        "keep_checkpoints",
        "mesh",
        "remat",
        "tensorboard",
        "data.source",
        "data.on_bad_record",
    }
)


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
    # Scores of the averaged weights every so many steps; such a step is saved too, and the one with
    # the best FID is kept. Unset: never.
    c.eval_every_steps = placeholder(int)
    c.eval_samples = 2500  # of one such evaluation; more than the feature dimensions (64 or 2048)
    c.eval_features = placeholder(str)  # inception | classifier; unset: as `biggan evaluate`
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
    c.loss = "hinge"  # hinge | non_saturating | wasserstein | least_squares
    # A workdir or model directory whose weights a fresh run starts with; unset: random ones. A run
    # that goes on from its own checkpoints does not read it again.
    c.init_from = placeholder(str)
    c.tensorboard = True  # event files beside metrics.jsonl (loads TensorFlow: 3 s, 600 MB)

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
    m.width_table = "biggan_pytorch"  # biggan_pytorch | studiogan: other widths at 32 (D), 64 (G)
    m.d_thin = False  # hidden width of D's blocks: input's (SNGAN) instead of the output's
    m.attention_kind = "attention"  # attention | residual (SAGAN's control of the same place)
    m.attention_reduction = 8  # k: queries and keys have C / k channels
    m.init = "orthogonal"  # orthogonal | xavier | normal (0.02) | glorot_relu (SNGAN)
    m.rgb_width = placeholder(int)  # output channels of the last convolution; unset: channels
    m.bn_eps = 1e-5
    m.bn_momentum = 0.9  # weight of the old running statistics
    m.bn_variance = "unbiased"  # unbiased (torch) | biased (TensorFlow, --mybn): what is stored
    m.sn_eps = 1e-6
    m.sn_iterations = 1  # power iterations of a training forward
    m.sn_eval = "iterate"  # iterate (BigGAN-PyTorch) | stored (torch.nn.utils.spectral_norm)

    c.optimizer = o = ConfigDict()
    o.g_lr = 5e-5  # TTUR: separate learning rates (Heusel et al. 2017)
    o.d_lr = 2e-4
    o.beta1 = 0.0
    o.beta2 = 0.999
    o.eps = 1e-8
    # Both rates fall linearly from their values to 0 between these generator updates; unset: never.
    o.decay_start_step = placeholder(int)
    o.decay_end_step = placeholder(int)

    c.regularizer = r = ConfigDict()
    r.g_orthogonal = 1e-4  # beta of Brock et al., equation 3; 0 is off
    r.d_orthogonal = 0.0
    r.orthogonal_form = "off_diagonal"  # off_diagonal (1 - I) | full

    c.finetune = f = ConfigDict()  # how a run with init_from starts
    f.new_classes = "fresh"  # fresh | mean (of the old rows): class tables of another class count
    f.freeze_d = 0  # D's first blocks, those nearest the image, that are never updated
    f.keep_optimizer = False  # take over Adam's moments of kept weights (from a workdir only)

    c.ema = e = ConfigDict()
    e.decay = 0.9999  # of G's parameters and statistics, per generator update
    e.start_step = 20_000  # until then the average is a copy of G

    c.data = d = ConfigDict()
    # digits | tfds:NAME[:SPLIT] | folder:PATH | fashion_mnist:FOLDER[:SPLIT] | records:DIR
    d.source = placeholder(str)
    d.flip = False  # random horizontal flips
    d.on_bad_record = "error"  # error | skip: the next good record takes its place
    return c


def validate(config: ConfigDict, num_devices: int) -> None:
    """Checks what can be known without data: domains and the arithmetic of the batch.

    Args:
      config: a full config.
      num_devices: devices of the mesh, over all processes.

    Raises:
      UserError: one line with both numbers and the setting to change.
    """
    for key in (
        "batch_size",
        "num_d_steps",
        "accumulation_steps",
        "num_steps",
        "log_every_steps",
        "checkpoint_every_steps",
        "sample_every_steps",
        "eval_every_steps",
        "eval_samples",
        "keep_checkpoints",
    ):
        if config[key] is not None and config[key] < 1:
            raise UserError(f"{key} is {config[key]}; set --config.{key} to 1 or more")
    if not 0 <= config.seed < 2**32:
        raise UserError(f"seed is {config.seed}; set --config.seed to a number in [0, 2**32)")
    micro = num_devices * config.accumulation_steps
    if config.batch_size % micro:
        lower = max(config.batch_size // micro, 1) * micro
        raise UserError(
            f"batch_size {config.batch_size} is not divisible by {num_devices} devices x "
            f"{config.accumulation_steps} accumulation steps = {micro}: set "
            f"--config.batch_size={lower} or change --config.accumulation_steps"
        )
    group, part = config.bn_group_size, config.batch_size // config.accumulation_steps
    if group is not None and (group < 2 or part % group):
        raise UserError(
            f"bn_group_size {group} does not divide the {part} examples of a forward (batch_size "
            f"{config.batch_size} / {config.accumulation_steps} accumulation steps) into groups of "
            "2 or more: set --config.bn_group_size to a divisor"
        )
    if config.compute_dtype not in ("float32", "bfloat16"):
        raise UserError(
            f"compute_dtype is {config.compute_dtype!r}: set --config.compute_dtype to float32 or "
            "bfloat16"
        )
    if config.regularizer.orthogonal_form not in ("off_diagonal", "full"):
        raise UserError(
            f"regularizer.orthogonal_form is {config.regularizer.orthogonal_form!r}: set it to "
            "off_diagonal or full"
        )
    if config.data.on_bad_record not in ("error", "skip"):
        raise UserError(
            f"data.on_bad_record is {config.data.on_bad_record!r}: set it to error or skip"
        )
    if config.eval_features not in (None, "inception", "classifier"):
        raise UserError(
            f"eval_features is {config.eval_features!r}: set --config.eval_features to inception "
            "or classifier"
        )
    if config.ema.start_step < 0:
        raise UserError(
            f"ema.start_step is {config.ema.start_step}; set --config.ema.start_step to 0 or more"
        )
    _check_decay(config.optimizer)
    _check_ranges(config)


def _check_decay(optimizer: ConfigDict) -> None:
    """The learning rates' decay: both steps or neither, in order."""
    start, end = optimizer.decay_start_step, optimizer.decay_end_step
    if (start is None) != (end is None):
        unset = "start" if start is None else "end"
        raise UserError(
            f"optimizer.decay_start_step is {start} and optimizer.decay_end_step is {end}: set "
            f"--config.optimizer.decay_{unset}_step too, or neither"
        )
    if start is not None and not 0 <= start < end:
        raise UserError(
            f"optimizer.decay_start_step is {start} and optimizer.decay_end_step is {end}: set "
            "--config.optimizer.decay_end_step to more than the start, and the start to 0 or more"
        )


def _check_ranges(config: ConfigDict) -> None:
    """Real-valued settings: (section, key, lowest, highest), both included unless open."""
    for section, key, low, high in (
        ("optimizer", "g_lr", 0, math.inf),
        ("optimizer", "d_lr", 0, math.inf),
        ("optimizer", "eps", 0, math.inf),
        ("optimizer", "beta1", 0, 1),
        ("optimizer", "beta2", 0, 1),
        ("regularizer", "g_orthogonal", 0, math.inf),
        ("regularizer", "d_orthogonal", 0, math.inf),
        ("ema", "decay", 0, 1),
        ("model", "bn_momentum", 0, 1),
    ):
        value = config[section][key]
        # `beta = 1` divides by zero in Adam's bias correction.
        if not low <= value < high and not (key in ("decay", "bn_momentum") and value == high):
            raise UserError(
                f"{section}.{key} is {value}; set --config.{section}.{key} to a value from {low} "
                f"to below {high}"
            )


def flatten(config: ConfigDict | dict, prefix: str = "") -> dict[str, Any]:
    """{'model.ch': 96, ...} with lists as tuples, so that a config and its JSON compare equal."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict | dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = tuple(value) if isinstance(value, list) else value
    return flat


def from_saved(saved: dict[str, Any]) -> ConfigDict:
    """The config of a `config.json`: the defaults, overwritten by the saved values.

    A model directory may hold the `model` section alone.

    Raises:
      UserError: for a key that this version does not know.
    """
    config = default_config().lock()
    try:
        config.update_from_flattened_dict(flatten(saved))
    except (KeyError, AttributeError, TypeError) as e:
        raise UserError(f"the saved config does not fit this version: {first_line(e)}") from e
    return config


def check_resume(saved: ConfigDict | dict[str, Any], config: ConfigDict) -> None:
    """Raises UserError, naming the keys, when `config` cannot continue a run made with `saved`."""
    old, new = flatten(saved), flatten(config)
    changed = [
        f"{key} {old.get(key)} -> {new.get(key)}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key not in RESUMABLE
    ]
    if changed:
        raise UserError(
            f"this workdir holds a run of another config ({'; '.join(changed)}): restore these "
            "values or choose another --workdir"
        )


def first_line(error: BaseException) -> str:
    """What an error of ml_collections says, in one line."""
    text = str(error.args[0] if error.args else error)
    lines = text.strip().splitlines() or [""]
    # For a config file that fails ml_collections gives a whole traceback.
    return lines[-1] if "Traceback" in text else lines[0]
