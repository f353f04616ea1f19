"""The vision transformer of DINOv2, without registers: ViT-S/14, B/14 and L/14.

References:
  Oquab et al. 2024, "DINOv2: Learning Robust Visual Features without Supervision", section 4 and
    table 16.
  Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", eq. 1 to 4.
  Touvron et al. 2021, "Going deeper with Image Transformers", eq. 4 (LayerScale).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

PATCH = 14  # pixels
HEAD = 64  # dimensions of a head of attention, in all published sizes
MLP_RATIO = 4
NAMES = {384: "ViT-S/14", 768: "ViT-B/14", 1024: "ViT-L/14"}  # by the width of the tokens
_EPS = 1e-6
_CUBIC = -0.75  # of Keys' cubic convolution, as PyTorch has it; Pillow takes -0.5
# Without it accelerators round float32 factors to bfloat16 or TF32.
_EXACT = lax.Precision.HIGHEST
# How the published codes place new positions among the old ones: `offset` is facebookresearch's,
# which scales by (new + 0.1) / old; `size` is that of transformers, which scales by new / old.
POSITIONS = ("offset", "size")
_OFFSET = 0.1


def _norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=_EPS, use_fast_variance=False, name=name)


def _dense(features: int, name: str) -> nn.Dense:
    return nn.Dense(features, precision=_EXACT, name=name)


class Block(nn.Module):
    """One layer: attention, then an MLP, each on normalised tokens and scaled by channel."""

    @nn.compact
    def __call__(self, x):
        n, tokens, width = x.shape
        ones = nn.initializers.ones
        qkv = _dense(3 * width, "qkv")(_norm("norm1")(x))
        q, k, v = jnp.moveaxis(qkv.reshape(n, tokens, 3, width // HEAD, HEAD), 2, 0)
        logits = jnp.einsum("nqhd,nkhd->nhqk", q / np.sqrt(HEAD), k, precision=_EXACT)
        beta = nn.softmax(logits, axis=-1)
        out = jnp.einsum("nhqk,nkhd->nqhd", beta, v, precision=_EXACT).reshape(x.shape)
        gamma = self.param("gamma1", ones, (width,))
        x = x + gamma[None, None, :] * _dense(width, "proj")(out)
        h = nn.gelu(_dense(MLP_RATIO * width, "fc1")(_norm("norm2")(x)), approximate=False)
        gamma = self.param("gamma2", ones, (width,))
        return x + gamma[None, None, :] * _dense(width, "fc2")(h)


class VisionTransformer(nn.Module):
    """Normalised images, float32 [N, S, S, 3] -> the normalised class token, float32 [N, width].

    Attributes:
      width: dimensions of a token, a multiple of 64.
      depth: layers.
    """

    width: int
    depth: int

    @nn.compact
    def __call__(self, x):
        n, side, _, channels = x.shape
        grid = side // PATCH
        # A convolution of stride 14 with 14 x 14 kernels is one product a patch.
        x = x.reshape(n, grid, PATCH, grid, PATCH, channels).swapaxes(2, 3)
        x = _dense(self.width, "patch")(x.reshape(n, grid**2, PATCH**2 * channels))
        normal = nn.initializers.normal(0.02)
        token = self.param("cls", normal, (self.width,))
        first = jnp.broadcast_to(token, (n, 1, self.width))
        x = jnp.concatenate([first, x], axis=1)
        x = x + self.param("positions", normal, (1 + grid**2, self.width))[None]
        for i in range(self.depth):
            x = Block(name=f"block{i}")(x)
        return _norm("norm")(x[:, 0])


def interpolate(positions: np.ndarray, grid: int, rule: str) -> np.ndarray:
    """Position embeddings of another number of patches, by bicubic interpolation.

    Args:
      positions: [1 + old * old, width]; the first is the class token's, which stays.
      grid: new patches along a side.
      rule: of `POSITIONS`.

    Returns:
      float32 [1 + grid * grid, width]; as they are where the number is the same.
    """
    assert rule in POSITIONS, rule
    old = round((len(positions) - 1) ** 0.5)
    if old == grid:
        return np.asarray(positions, np.float32)
    scale = (grid + (_OFFSET if rule == "offset" else 0.0)) / old
    weights = _bicubic(old, grid, scale)
    patches = np.asarray(positions[1:], np.float64).reshape(old, old, -1)
    new = np.einsum("pi,qj,ijd->pqd", weights, weights, patches, optimize=True)
    both = np.concatenate([positions[:1], new.reshape(grid**2, -1)])
    return both.astype(np.float32)


def _bicubic(size: int, new_size: int, scale: float) -> np.ndarray:
    """PyTorch's `interpolate(mode='bicubic')`, without antialiasing, as a matrix [new, old]."""
    at = (np.arange(new_size) + 0.5) / scale - 0.5
    low = np.floor(at).astype(int)
    a, rows = _CUBIC, np.arange(new_size)
    weights = np.zeros((new_size, size))
    for tap in (-1, 0, 1, 2):
        x = np.abs(at - (low + tap))
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = (((x - 5) * x + 8) * x - 4) * a
        pixel = np.clip(low + tap, 0, size - 1)  # the edge is repeated
        np.add.at(weights, (rows, pixel), np.where(x <= 1, near, far))
    return weights


def shapes(width: int, depth: int, side: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of the parameters for images of `side` pixels, a nested dict."""
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    network = VisionTransformer(width, depth)
    return jax.eval_shape(network.init, jax.random.key(0), images)["params"]
