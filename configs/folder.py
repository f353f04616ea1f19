"""Your own images at 64 x 64: one sub-folder per class.

    biggan prepare --source folder:PATH --resolution 64 --out data/mine
    biggan train --config folder --workdir runs/mine \\
        --config.data.source=records:data/mine

`folder:PATH` works without `prepare` as well and decodes the images at every step. Hardware: one
GPU, or a patient CPU with --config.model.ch=16. Small data sets overfit: watch `d_real` climb away
from `d_fake`.
"""

from biggan_jax.config import default_config


def get_config():
    c = default_config()
    c.batch_size = 64
    c.num_steps = 50_000
    c.log_every_steps = 50
    c.sample_every_steps = 500
    c.model.resolution = 64
    c.model.ch = 32
    c.model.dim_z = 100
    c.model.shared_dim = 64
    c.model.g_attention = (32,)
    c.model.d_attention = (32,)
    c.optimizer.g_lr = 1e-4
    c.optimizer.d_lr = 4e-4
    c.ema.decay = 0.999
    c.ema.start_step = 1000
    c.data.source = "folder:data"
    c.data.flip = True
    return c


def get_test_config():
    c = get_config()
    c.batch_size = 8
    c.num_d_steps = 1
    c.num_steps = 1
    c.log_every_steps = 1
    c.checkpoint_every_steps = 1
    c.sample_every_steps = 1
    c.model.resolution = 32
    c.model.ch = 4
    c.model.dim_z = 12
    c.model.g_attention = c.model.d_attention = (16,)
    c.model.shared_dim = 8
    c.data.source = "digits"
    c.writers = ("jsonl",)
    c.report = False
    return c
