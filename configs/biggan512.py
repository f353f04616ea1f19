"""BigGAN on ImageNet at 512 x 512, Brock et al. 2019: batch 2048, ch 96, two D steps.

    biggan train --config biggan512 --workdir runs/biggan512

Hardware of the paper: 512 cores of a TPU v3 pod, 24 to 48 hours (appendix C). Published scores
(table 2): FID 8.1, IS 144.2 without truncation. Not reproduced here yet.

z has 160 numbers, 20 for each chunk; the released TF-Hub weights have 128, which is
--config.model.dim_z=128.
"""

from biggan_jax.config import default_config


def get_config():
    c = default_config()  # the defaults are those of BigGAN at 128 pixels
    c.model.resolution = 512
    c.model.dim_z = 160  # 20 for each of 8 chunks
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
    c.model.dim_z = 12
    c.model.g_attention = c.model.d_attention = (8,)
    c.model.shared_dim = 8
    c.data.source = "digits"
    c.writers = ("jsonl",)
    c.report = False
    return c
