"""CIFAR-10 at 32 x 32: BigGAN with a shared embedding and hierarchical z, no attention.

    biggan train --config cifar10 --workdir runs/cifar10

Hardware: one GPU or one TPU chip. BigGAN-PyTorch's CIFAR recipe (its launch script: batch 50, 4 D
steps, both learning rates 2e-4) with the shared + hierarchical generator; that script's own model
has neither. The recipe's published scores are IS 8.22 and FID 14.73 for BigGAN (Zhao et al. 2020,
"Differentiable Augmentation", table 2, the baseline without augmentation: IS 9.06, FID 9.59); not
reproduced here yet.
"""

from biggan_jax.config import default_config


def get_config():
    c = default_config()
    c.batch_size = 50
    c.num_d_steps = 4
    c.num_steps = 125_000  # 500 epochs of 50,000 images at 4 x 50 an update
    c.checkpoint_every_steps = 5000
    c.sample_every_steps = 2500
    c.model.resolution = 32
    c.model.num_classes = 10
    c.model.ch = 64
    c.model.dim_z = 80
    c.model.g_attention = ()
    c.model.d_attention = ()
    c.optimizer.g_lr = 2e-4
    c.optimizer.d_lr = 2e-4
    c.regularizer.g_orthogonal = 0.0
    c.ema.start_step = 1000
    c.data.source = "tfds:cifar10"
    c.data.flip = True
    return c


def get_test_config():
    c = get_config()
    c.batch_size = 16
    c.num_d_steps = 2
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
