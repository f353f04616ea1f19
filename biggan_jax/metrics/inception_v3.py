"""The Inception-v3 network of the Frechet Inception distance.

It is the network that TensorFlow published on 2015-12-05, as torch-fidelity and pytorch-fid carry
it: torchvision's Inception-v3 differs from it (1008 classes here, average pools that leave out the
padding, a max pool in the last block), and gives other features.

References:
  Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision", table 1.
  Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule", section 4 (FID).
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

FEATURES = 2048
CLASSES = 1008
BN_EPS = 1e-3

# Per branch: (name, output channels, kernel height x width), 'SAME' padding, one after the other.
Branch = tuple[tuple[str, int, tuple[int, int]], ...]


class Conv(nn.Module):
    """Convolution, batch norm on stored statistics, ReLU.

    Attributes:
      features: output channels.
      kernel: height and width in pixels.
      stride: of both axes.
      padding: 'SAME' or 'VALID'.
      pooled: average the 3x3 neighbourhood of the input first.
      dtype: of the convolution.
    """

    features: int
    kernel: tuple[int, int]
    stride: int = 1
    padding: str = "SAME"
    pooled: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        shape = (*self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        scale = self.param("scale", ones, (self.features,))
        bias = self.param("bias", zeros, (self.features,))
        mean = self.param("mean", zeros, (self.features,))
        var = self.param("var", ones, (self.features,))
        # Batch norm folded into the convolution: the statistics never move.
        scale = scale * lax.rsqrt(var + BN_EPS)
        shift = (bias - mean * scale).astype(self.dtype)
        kernel = (kernel * scale[None, None, None, :]).astype(self.dtype)
        # Without it accelerators round float32 factors to bfloat16 or TF32.
        exact = lax.Precision.HIGHEST if self.dtype == jnp.float32 else None
        if self.kernel == (1, 1):
            x = jnp.dot(x, kernel[0, 0], precision=exact)  # 3 times faster on a CPU
        else:
            x = lax.conv_general_dilated(
                x,
                kernel,
                (self.stride, self.stride),
                self.padding,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                precision=exact,
            )
        if self.pooled:
            # An average over pixels commutes with a 1x1 convolution: it is taken where there are
            # fewer channels.
            assert self.kernel == (1, 1)
            x = average_pool(x)
        return nn.relu(x + shift[None, None, None, :])


def average_pool(x: jax.Array) -> jax.Array:
    """3x3 average pool of stride 1 over [N, H, W, C]; pixels outside do not count."""
    window, padding = (1, 3, 3, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    total = lax.reduce_window(x, np.zeros((), x.dtype), lax.add, window, (1, 1, 1, 1), padding)
    along = [np.convolve(np.ones(size), np.ones(3), "same") for size in x.shape[1:3]]
    inverse = 1 / np.outer(*along)[None, :, :, None]
    return total * jnp.asarray(inverse, x.dtype)


def max_pool(x: jax.Array, stride: int = 2) -> jax.Array:
    """3x3 max pool over [N, H, W, C]: unpadded at stride 2, padded to the same size at stride 1."""
    return nn.max_pool(x, (3, 3), (stride, stride), "VALID" if stride == 2 else "SAME")


def block_a(pool: int) -> tuple[Branch, ...]:
    """Branches at 35x35, besides the pooled one of `pool` channels."""
    return (
        (("branch1x1", 64, (1, 1)),),
        (("branch5x5_1", 48, (1, 1)), ("branch5x5_2", 64, (5, 5))),
        (
            ("branch3x3dbl_1", 64, (1, 1)),
            ("branch3x3dbl_2", 96, (3, 3)),
            ("branch3x3dbl_3", 96, (3, 3)),
        ),
        (("branch_pool", pool, (1, 1)),),
    )


def block_c(width: int) -> tuple[Branch, ...]:
    """Branches at 17x17, with `width` channels inside the factorised 7x7 convolutions."""
    return (
        (("branch1x1", 192, (1, 1)),),
        (
            ("branch7x7_1", width, (1, 1)),
            ("branch7x7_2", width, (1, 7)),
            ("branch7x7_3", 192, (7, 1)),
        ),
        (
            ("branch7x7dbl_1", width, (1, 1)),
            ("branch7x7dbl_2", width, (7, 1)),
            ("branch7x7dbl_3", width, (1, 7)),
            ("branch7x7dbl_4", width, (7, 1)),
            ("branch7x7dbl_5", 192, (1, 7)),
        ),
        (("branch_pool", 192, (1, 1)),),
    )


# Blocks that halve the resolution: the last convolution of a branch is unpadded and of stride 2.
REDUCE_6A: tuple[Branch, ...] = (
    (("branch3x3", 384, (3, 3)),),
    (
        ("branch3x3dbl_1", 64, (1, 1)),
        ("branch3x3dbl_2", 96, (3, 3)),
        ("branch3x3dbl_3", 96, (3, 3)),
    ),
)
REDUCE_7A: tuple[Branch, ...] = (
    (("branch3x3_1", 192, (1, 1)), ("branch3x3_2", 320, (3, 3))),
    (
        ("branch7x7x3_1", 192, (1, 1)),
        ("branch7x7x3_2", 192, (1, 7)),
        ("branch7x7x3_3", 192, (7, 1)),
        ("branch7x7x3_4", 192, (3, 3)),
    ),
)
MIXED = {
    "Mixed_5b": block_a(32),
    "Mixed_5c": block_a(64),
    "Mixed_5d": block_a(64),
    "Mixed_6a": REDUCE_6A,
    "Mixed_6b": block_c(128),
    "Mixed_6c": block_c(160),
    "Mixed_6d": block_c(160),
    "Mixed_6e": block_c(192),
    "Mixed_7a": REDUCE_7A,
}


class Mixed(nn.Module):
    """A block of parallel branches, concatenated; `reduce` adds a max pool and halves the size."""

    branches: tuple[Branch, ...]
    reduce: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):
        out = []
        for branch in self.branches:
            h = x
            for name, features, kernel in branch:
                shrink = self.reduce and name == branch[-1][0]
                stride, padding = (2, "VALID") if shrink else (1, "SAME")
                pooled = name == "branch_pool"
                h = Conv(features, kernel, stride, padding, pooled, self.dtype, name=name)(h)
            out.append(h)
        return jnp.concatenate([*out, max_pool(x)] if self.reduce else out, axis=-1)


class MixedSplit(nn.Module):
    """A block at 8x8, whose 3x3 branches end in a 1x3 and a 3x1 convolution side by side."""

    pool: str
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):
        conv = functools.partial(Conv, dtype=self.dtype)
        h = conv(384, (1, 1), name="branch3x3_1")(x)
        g = conv(448, (1, 1), name="branch3x3dbl_1")(x)
        g = conv(384, (3, 3), name="branch3x3dbl_2")(g)
        of_max = self.pool == "max"
        pooled = max_pool(x, stride=1) if of_max else x
        out = [
            conv(320, (1, 1), name="branch1x1")(x),
            conv(384, (1, 3), name="branch3x3_2a")(h),
            conv(384, (3, 1), name="branch3x3_2b")(h),
            conv(384, (1, 3), name="branch3x3dbl_3a")(g),
            conv(384, (3, 1), name="branch3x3dbl_3b")(g),
            conv(192, (1, 1), pooled=not of_max, name="branch_pool")(pooled),
        ]
        return jnp.concatenate(out, axis=-1)


class InceptionV3(nn.Module):
    """Images in about [-1, 1], float [N, 299, 299, 3] -> features and logits, float32.

    Returns `features` [N, 2048], `logits` [N, 1008], and `logits_unbiased` [N, 1008] without the
    last layer's bias, of which the Inception score of the original code is made (Salimans et al.
    2016, and torch-fidelity after it).
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):
        conv = functools.partial(Conv, padding="VALID", dtype=self.dtype)
        x = conv(32, (3, 3), stride=2, name="Conv2d_1a_3x3")(x.astype(self.dtype))
        x = conv(32, (3, 3), name="Conv2d_2a_3x3")(x)
        x = max_pool(conv(64, (3, 3), padding="SAME", name="Conv2d_2b_3x3")(x))
        x = conv(80, (1, 1), name="Conv2d_3b_1x1")(x)
        x = max_pool(conv(192, (3, 3), name="Conv2d_4a_3x3")(x))
        for name, branches in MIXED.items():
            x = Mixed(branches, name in ("Mixed_6a", "Mixed_7a"), self.dtype, name=name)(x)
        x = MixedSplit("average", self.dtype, name="Mixed_7b")(x)
        # Max where every other block takes the average: an oddity of the published graph.
        x = MixedSplit("max", self.dtype, name="Mixed_7c")(x)
        features = x.astype(jnp.float32).mean((1, 2))
        fc = nn.Dense(CLASSES, use_bias=False, precision=lax.Precision.HIGHEST, name="fc")
        unbiased = fc(features)
        bias = self.param("fc_bias", nn.initializers.zeros, (CLASSES,))
        logits = unbiased + bias[None, :]
        return {"features": features, "logits": logits, "logits_unbiased": unbiased}
