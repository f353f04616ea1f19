"""SNGAN with a projection discriminator on ImageNet at 128 x 128, Miyato and Koyama 2018.

    biggan train --config sngan128 --workdir runs/sngan128

Hardware of the paper: 4 GPUs, 16 images on each. Published: IS 29.7 after 450,000 updates of G, and
36.8 after 850,000 (authors' README), at FID 27.62 (Zhang et al. 2019, table 2); for the longer run
override num_steps, optimizer.decay_start_step and optimizer.decay_end_step together. Not reproduced
here yet.

Settings of pfnet-research/sngan_projection, configs/sn_projection.yml. Deliberate differences: the
D updates come before the G update, not after; G is updated on a batch of 64, not 32 on each GPU; D
judges real and fake images in one call; batch norm sees the whole batch, not one GPU's; running
variances start at 1, not 0, and G's last convolution has the gain of the others at init.
"""

from biggan_jax.config import default_config


def get_config():
    c = default_config()
    c.batch_size = 64
    c.num_d_steps = 5
    c.num_steps = 450_000
    c.checkpoint_every_steps = 5000
    c.sample_every_steps = 5000
    c.model.name = "sngan"
    c.model.num_classes = 1000
    c.model.ch = 64
    c.model.dim_z = 128
    c.model.g_attention = ()
    c.model.d_attention = ()
    c.model.shared_embedding = False
    c.model.hierarchical_z = False
    c.model.g_spectral_norm = False
    c.model.d_thin = True
    c.model.init = "glorot_relu"
    c.model.bn_eps = 2e-5
    c.model.sn_eps = 1e-12
    c.optimizer.g_lr = 2e-4
    c.optimizer.d_lr = 2e-4
    c.optimizer.beta2 = 0.9
    c.optimizer.decay_start_step = 400_000
    c.optimizer.decay_end_step = 450_000
    c.regularizer.g_orthogonal = 0.0
    c.ema.decay = 0.0  # no average: it is a copy of G
    c.ema.start_step = 0
    c.data.source = "tfds:imagenet2012"
    return c


def get_test_config():
    c = get_config()
    c.batch_size = 4
    c.num_d_steps = 1
    c.num_steps = 1
    c.log_every_steps = 1
    c.checkpoint_every_steps = 1
    c.sample_every_steps = 1
    c.model.num_classes = 10
    c.model.ch = 2
    c.model.dim_z = 8
    c.data.source = "digits"
    c.writers = ("jsonl",)
    c.report = False
    return c
