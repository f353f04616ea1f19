"""A few hundred images of your own at 64 x 64: DiffAugment and LeCam against a D that learns them
by heart.

    biggan prepare --source folder:PATH --resolution 64 --out data/mine
    biggan train --config small_data --workdir runs/mine \\
        --config.data.source=records:data/mine

Zhao et al. 2020 (all three ops) and Tseng et al. 2021 (lambda 0.3). With fewer than 100 images, or
where mirrored ones are no images, see docs/recipes.md. Hardware: one GPU, or a patient CPU with
--config.model.ch=16 --config.model.resolution=32. No score is known of it: look at the samples, at
D's judgement of held-out images and at what the report says of copies and leaks.
"""

from biggan_jax.config import default_config


def get_config():
    c = default_config()
    c.batch_size = 64
    c.num_d_steps = 1
    c.num_steps = 20_000
    c.log_every_steps = 50
    c.sample_every_steps = 500
    c.monitor_every_steps = 500  # D's judgement of the images that are held out
    c.model.resolution = 64
    c.model.ch = 32
    c.model.dim_z = 100
    c.model.shared_dim = 64
    c.model.g_attention = ()
    c.model.d_attention = ()
    c.optimizer.g_lr = 2e-4
    c.optimizer.d_lr = 4e-4
    c.regularizer.lecam = 0.3
    c.augment.policy = "diffaugment"
    c.ema.decay = 0.999
    c.ema.start_step = 1000
    c.data.source = "folder:data"
    c.data.flip = True
    c.data.holdout = 0.1
    return c


def get_test_config():
    c = get_config()
    c.batch_size = 8
    c.num_steps = 1
    c.log_every_steps = 1
    c.checkpoint_every_steps = 1
    c.sample_every_steps = 1
    c.model.resolution = 32
    c.model.ch = 4
    c.model.dim_z = 12
    c.model.shared_dim = 8
    c.data.source = "digits"
    c.writers = ("jsonl",)
    c.report = False
    return c
