"""Handwritten digits (scikit-learn's 1,797 real ones) at 16 x 16: the demo.

    biggan train --config digits --workdir runs/digits

Hardware: 2 CPU cores, no download. See README.md for the time and the class accuracy it reaches.
"""

from biggan_jax.config import default_config


def get_config():
    c = default_config()
    c.batch_size = 32
    c.num_d_steps = 1
    c.num_steps = 1200
    c.checkpoint_every_steps = 600
    c.sample_every_steps = 600
    c.model.resolution = 16
    c.model.channels = 1
    c.model.num_classes = 10
    c.model.ch = 16
    c.model.dim_z = 60
    c.model.shared_dim = 32
    c.model.g_attention = ()
    c.model.d_attention = ()
    c.optimizer.g_lr = 4e-4
    c.optimizer.d_lr = 8e-4
    c.regularizer.g_orthogonal = 0.0
    c.ema.decay = 0.98  # of 50 steps: a longer one narrows the spread within a class
    c.ema.start_step = 0
    c.data.source = "digits"
    return c


def get_test_config():
    c = get_config()
    c.batch_size = 16
    c.num_steps = 4
    c.log_every_steps = 1
    c.checkpoint_every_steps = 2
    c.sample_every_steps = 4
    c.model.ch = 4
    c.model.dim_z = 12
    c.model.shared_dim = 8
    c.writers = ("jsonl",)
    c.report = False
    return c
