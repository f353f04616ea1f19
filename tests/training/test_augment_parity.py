"""DiffAugment and ADA against the authors' code: values and gradients on given parameters.

`fixtures/augment.npz` was made by running DiffAugment_pytorch.py of mit-han-lab/data-efficient-gans
(its draws replaced by given ones) and `AugmentPipe` of NVlabs/stylegan2-ada-pytorch (at four values
of its `debug_percentile`) in torch on two random images of 24 pixels: the first is augmented, the
second is what the sum is weighted with whose gradient is taken. Every fifth pixel is kept.
"""

import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erfinv

from biggan_jax.training import ada, diffaugment

FIXTURE = np.load(Path(__file__).parent.parent / "fixtures" / "augment.npz")
IMAGE, WEIGHTS = (FIXTURE["images"].astype(np.float64) / 127.5 - 1).astype(np.float32)
N = len(FIXTURE["percentiles"])


def check(name, channels, transform, draws):
    """Every fifth pixel of the images, and of the gradient, to 1e-5."""
    images = jnp.asarray(np.repeat(IMAGE[None, ..., :channels], N, 0))

    def weighted(images):
        augmented = transform(images, draws)
        return (augmented * WEIGHTS[None, ..., :channels]).sum(), augmented

    gradient, augmented = jax.jit(jax.grad(weighted, has_aux=True))(images)
    for kind, found in (("y", augmented), ("g", gradient)):
        expected = FIXTURE[f"{name}{channels}/{kind}"]
        np.testing.assert_allclose(found[:, 1::5, 2::5], expected, atol=1e-5, err_msg=kind)


def at_percentiles():
    """What `AugmentPipe` draws at these percentiles of its distributions."""
    q = FIXTURE["percentiles"].astype(np.float64)
    normal, angle, zero = erfinv(2 * q - 1), (2 * q - 1) * math.pi, np.zeros(N)
    shares = {"shift": (2 * q - 1) * ada.MAX_SHIFT, "move": normal * ada.MOVE_STD, "centre": q}
    draws = {name: np.stack([x, x], axis=1) for name, x in shares.items()}
    draws |= {"flip": np.floor(2 * q), "quarters": np.floor(4 * q), "rotation": angle}
    draws |= {"scale": 2 ** (normal * ada.SCALE_STD), "last_rotation": zero}
    draws |= {"stretch": 2 ** (normal * ada.STRETCH_STD), "brightness": 0.2 * normal}
    draws |= {"contrast": 2 ** (0.5 * normal), "luma_flip": np.floor(2 * q), "hue": angle}
    draws |= {"saturation": 2**normal, "gains": np.repeat(2 ** normal[:, None], 4, 1)}
    draws["cutout"] = zero + ada.CUTOUT_SIZE
    return {name: jnp.asarray(x, jnp.float32) for name, x in draws.items()}


OF_GROUP = {
    "blit": ("flip", "quarters", "shift"),
    "geometric": ("scale", "rotation", "stretch", "last_rotation", "move"),
    "colour": ("brightness", "contrast", "luma_flip", "hue", "saturation"),
    "filter": ("gains",),
    "cutout": ("cutout", "centre"),
}


@pytest.mark.parametrize(
    ("group", "channels"),
    [*((g, 3) for g in OF_GROUP), ("colour", 1), ("all", 3), ("all", 1)],
)
def test_ada(group, channels):
    draws = at_percentiles()
    if group != "all":
        draws = {name: draws[name] for name in OF_GROUP[group]}
    check(group, channels, ada.transform, draws)


def test_products_in_place_of_gathers():
    """The form for TPUs, where gathers are slow."""
    draws = {name: at_percentiles()[name] for name in OF_GROUP["geometric"]}
    check("geometric", 3, functools.partial(ada.transform, on_tpu=True), draws)


@pytest.mark.parametrize("channels", [1, 3])
def test_diffaugment(channels):
    brightness, saturation, contrast = FIXTURE["uniforms"]
    draws = {"brightness": brightness - 0.5, "saturation": 2 * saturation}
    draws |= {"contrast": contrast + 0.5, "shift": -FIXTURE["translation"]}  # theirs: where from
    draws |= {"cutout": FIXTURE["cutout"], "is_cut": np.ones(N, bool)}
    draws = {name: jnp.asarray(x) for name, x in draws.items()}
    check("diffaugment", channels, diffaugment.transform, draws)
