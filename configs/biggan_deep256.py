"""BigGAN-deep on ImageNet at 256 x 256, Brock et al. 2019: batch 2048, ch 128, two D steps.

    biggan train --config biggan_deep256 --workdir runs/biggan_deep256

Hardware of the paper: 256 cores of a TPU v3 pod, 24 to 48 hours (appendix C). Published scores
(table 2): FID 6.9, IS 171.4 without truncation. Not reproduced here yet.

The whole of z enters every block; four times as many layers have fewer parameters than BigGAN's.
The learning rates are those of appendix C for this size.
"""

from biggan_jax.config import default_config


def get_config():
    c = default_config()  # the defaults are those of BigGAN at 128 pixels
    c.model.name = "biggan_deep"
    c.model.resolution = 256
    c.model.ch = 128
    c.model.dim_z = 128
    c.optimizer.g_lr = 2.5e-5
    c.optimizer.d_lr = 2.5e-5
    c.model.num_classes = 1000
    c.compute_dtype = "bfloat16"  # activations and convolutions; the rest stays in float32
    c.data.source = "tfds:imagenet2012"
    c.data.flip = True
    return c


def get_test_config():
    c = get_config()
    c.compute_dtype = "float32"
    c.batch_size = 4
    c.num_d_steps = 1
    c.num_steps = 1
    c.log_every_steps = 1
    c.checkpoint_every_steps = 1
    c.sample_every_steps = 1
    c.model.num_classes = 10
    c.model.resolution = 16  # the plan of full size takes a minute to compile
    c.model.ch = 4
    c.model.dim_z = 8
    c.model.g_attention = c.model.d_attention = (8,)
    c.model.shared_dim = 8
    c.data.source = "digits"
    c.writers = ("jsonl",)
    c.report = False
    return c
