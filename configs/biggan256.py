"""BigGAN on ImageNet at 256 x 256, Brock et al. 2019: batch 2048, ch 96, two D steps.

    biggan train --config biggan256 --workdir runs/biggan256

Hardware of the paper: 256 cores of a TPU v3 pod, 24 to 48 hours (appendix C). Published scores
(table 2): FID 8.7, IS 142.3 without truncation. Not reproduced here yet.

G's attention moves to 128 pixels, where it has 2 ch channels as at 64 pixels in the 128-pixel
model; D's stays at 64. BigGAN-PyTorch has no script of this size.
"""

from biggan_jax.config import default_config


def get_config():
    c = default_config()  # the defaults are those of BigGAN at 128 pixels
    c.model.resolution = 256
    c.model.dim_z = 140  # 20 for each of 7 chunks
    c.model.g_attention = (128,)
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
