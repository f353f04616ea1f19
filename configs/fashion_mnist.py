"""Fashion-MNIST at 32 x 32 from the four idx files (Debian: apt-get install dataset-fashion-mnist).

    biggan train --config fashion_mnist --workdir runs/fashion \\
        --config.data.source=fashion_mnist:/usr/share/datasets/fashion-mnist

Hardware: 2 CPU cores, 10 to 29 minutes. See README.md for its samples and their class accuracy.
"""

from biggan_jax.config import default_config


def get_config():
    c = default_config()
    c.batch_size = 32
    c.num_d_steps = 1
    c.num_steps = 3500
    c.checkpoint_every_steps = 500
    c.sample_every_steps = 500
    c.model.resolution = 32
    c.model.channels = 1
    c.model.num_classes = 10
    c.model.ch = 16
    c.model.dim_z = 80
    c.model.shared_dim = 32
    c.model.g_attention = ()
    c.model.d_attention = ()
    c.optimizer.g_lr = 4e-4
    c.optimizer.d_lr = 8e-4
    c.regularizer.g_orthogonal = 0.0
    c.ema.decay = 0.99  # of 100 steps: one of 1,000 lags behind a run of minutes
    c.ema.start_step = 200
    c.data.source = "fashion_mnist:/usr/share/datasets/fashion-mnist"
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
