"""CIFAR-10 at 32 x 32: SNGAN with a projection discriminator and a linearly decaying rate.

    biggan train --config sngan_cifar10 --workdir runs/sngan_cifar10

Hardware: one GPU (the authors' code trains on one); 50,000 updates of G and 250,000 of D. Published
for the unconditional form of these networks (--config.model.num_classes=1): IS 8.22, FID 21.7
(Miyato et al. 2018, table 2); not reproduced here yet.

Settings of pfnet-research/sngan_projection, configs/sn_cifar10.yml. Deliberate differences: the D
updates come before the G update, not after; G is updated on a batch of 64, not 128; D judges real
and fake images in one call; running variances start at 1, not 0, and G's last convolution has the
gain of the others at init.
"""

from biggan_jax.config import default_config


def get_config():
    c = default_config()
    c.batch_size = 64
    c.num_d_steps = 5
    c.num_steps = 50_000
    c.checkpoint_every_steps = 5000
    c.sample_every_steps = 2500
    c.model.name = "sngan"
    c.model.resolution = 32
    c.model.num_classes = 10
    c.model.ch = 64  # G has 4 ch = 256 channels throughout, D 2 ch = 128
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
    c.optimizer.decay_start_step = 0
    c.optimizer.decay_end_step = 50_000
    c.regularizer.g_orthogonal = 0.0
    c.ema.decay = 0.0  # no average: it is a copy of G
    c.ema.start_step = 0
    c.data.source = "tfds:cifar10"
    c.data.flip = True
    return c


def get_test_config():
    c = get_config()
    c.batch_size = 8
    c.num_d_steps = 2
    c.num_steps = 2
    c.log_every_steps = 1
    c.checkpoint_every_steps = 2
    c.sample_every_steps = 2
    c.model.ch = 4
    c.model.dim_z = 8
    c.data.source = "digits"
    c.writers = ("jsonl",)
    c.report = False
    return c
