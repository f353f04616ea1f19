"""SAGAN on ImageNet at 128 x 128, Zhang et al. 2019: attention at 32 in both players, TTUR.

    biggan train --config sagan128 --workdir runs/sagan128

Hardware of the authors' code: 4 GPUs, 64 images on each. Published: IS 52.52, FID 18.65 (Zhang et
al. 2019, table 2). Not reproduced here yet.

The paper's ablations (table 1, figure 3) are overrides:

    --config.model.g_attention="(8,)" --config.model.d_attention="(8,)"   # or 16, 64
    --config.model.attention_kind=residual      # a residual block of the same size in its place
    --config.model.g_spectral_norm=False        # spectral norm in D only
    --config.optimizer.g_lr=2e-4 --config.optimizer.d_lr=2e-4 --config.num_d_steps=5    # no TTUR

The paper states Adam's beta2 as 0.9; its code leaves TensorFlow's default, which is
--config.optimizer.beta2=0.999. Deliberate differences from that code: batch norm sees the whole
batch, not one GPU's; D judges real and fake images in one call; no gradient flows through the power
iteration; the last batch norm's momentum is 0.999 as that of all others, not 0.9999.
"""

from biggan_jax.config import default_config


def get_config():
    c = default_config()
    c.batch_size = 256
    c.num_d_steps = 1
    c.num_steps = 1_000_000  # as far as the paper's training curves go
    c.checkpoint_every_steps = 5000
    c.sample_every_steps = 5000
    c.model.name = "sagan"
    c.model.num_classes = 1000
    c.model.ch = 64
    c.model.dim_z = 128
    c.model.g_attention = (32,)
    c.model.d_attention = (32,)
    c.model.shared_embedding = False
    c.model.hierarchical_z = False
    c.model.init = "xavier"
    c.model.bn_momentum = 0.999
    c.model.bn_variance = "biased"
    c.model.sn_eps = 1e-12
    c.optimizer.g_lr = 1e-4
    c.optimizer.d_lr = 4e-4
    c.optimizer.beta2 = 0.9
    c.regularizer.g_orthogonal = 0.0
    c.ema.decay = 0.0  # no average: it is a copy of G
    c.ema.start_step = 0
    c.data.source = "tfds:imagenet2012"
    return c


def get_test_config():
    c = get_config()
    c.batch_size = 4
    c.num_steps = 1
    c.log_every_steps = 1
    c.checkpoint_every_steps = 1
    c.sample_every_steps = 1
    c.model.num_classes = 10
    c.model.resolution = 32  # the plan of full size takes half a minute to compile
    c.model.ch = 4
    c.model.g_attention = c.model.d_attention = (16,)
    c.model.dim_z = 8
    c.data.source = "digits"
    c.writers = ("jsonl",)
    c.report = False
    return c
