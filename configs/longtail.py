"""Few images of very unequal classes at 32 x 32, grey: rare classes as often as common ones.

    biggan train --config longtail --workdir runs/longtail --config.data.source=folder:PATH

with one folder a class, such as 1,000 images of the first and 2 of the last. See docs/recipes.md
for what each remedy does and for measurements. Hardware: 2 CPU cores.
"""

from biggan_jax.config import default_config


def get_config():
    c = default_config()
    c.batch_size = 32
    c.num_d_steps = 1
    c.num_steps = 3000
    c.checkpoint_every_steps = 500
    c.sample_every_steps = 500
    c.model.resolution = 32
    c.model.channels = 1
    c.model.ch = 16
    c.model.dim_z = 80
    c.model.shared_dim = 32
    c.model.g_attention = ()
    c.model.d_attention = ()
    c.optimizer.g_lr = 4e-4
    c.optimizer.d_lr = 8e-4
    c.regularizer.g_orthogonal = 0.0
    c.regularizer.g_group_spectral = 0.5  # Rangwani et al. 2022, for CIFAR
    c.augment.policy = "diffaugment"
    c.augment.ops = ("translation", "cutout")
    c.ema.decay = 0.99  # of 100 steps: one of 1,000 lags behind a run of minutes
    c.ema.start_step = 200
    c.data.source = "folder:images"
    c.data.balance = 1.0  # fakes ask for all classes equally often, and so does the stream
    return c


def get_test_config():
    c = get_config()
    c.batch_size = 16
    c.num_steps = 2
    c.log_every_steps = 1
    c.checkpoint_every_steps = 2
    c.sample_every_steps = 2
    c.model.ch = 4
    c.model.dim_z = 16
    c.model.shared_dim = 8
    c.data.source = "digits"
    c.writers = ("jsonl",)
    c.report = False
    return c
