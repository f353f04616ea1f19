"""CIFAR-10 at 32 x 32: the small SN-DCGAN baseline, unconditional, Miyato et al. 2018.

    biggan train --config dcgan_cifar10 --workdir runs/dcgan_cifar10

Hardware: one GPU. Published: IS 7.42, FID 29.3 (Miyato et al. 2018, table 2, "SN-GANs" with the
standard CNN, the best of six settings of Adam); not reproduced here yet. Adam is that paper's
setting C (table 1), Radford et al.'s. With --config.model.num_classes=10 G's batch norms and D's
projection know the class.
"""

from biggan_jax.config import default_config


def get_config():
    c = default_config()
    c.batch_size = 64
    c.num_d_steps = 1
    c.num_steps = 100_000
    c.checkpoint_every_steps = 5000
    c.sample_every_steps = 2500
    c.loss = "non_saturating"
    c.model.name = "dcgan"
    c.model.resolution = 32
    c.model.num_classes = 1
    c.model.ch = 64
    c.model.dim_z = 128
    c.model.g_attention = ()
    c.model.d_attention = ()
    c.model.shared_embedding = False
    c.model.hierarchical_z = False
    c.model.g_spectral_norm = False
    c.model.init = "normal"
    c.model.sn_eps = 1e-12
    c.optimizer.g_lr = 2e-4
    c.optimizer.d_lr = 2e-4
    c.optimizer.beta1 = 0.5
    c.regularizer.g_orthogonal = 0.0
    c.ema.decay = 0.0  # no average: it is a copy of G
    c.ema.start_step = 0
    c.data.source = "tfds:cifar10"
    return c


def get_test_config():
    c = get_config()
    c.batch_size = 8
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
