"""What stands around cuDNN's attention, with plain JAX in its place, against the textbook."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from biggan_jax.models import attention, cudnn_attention, dot_product_attention
from biggan_jax.parallel import sharding
from tests.models.test_flash_attention import (
    errors,
    in_float64,
    penalty,
    textbook,
    with_gradients,
)

N, Q, K, D, V = 2, 256, 64, 12, 20  # V is no multiple of 8


@pytest.fixture
def mesh(monkeypatch):
    """Of two devices that say they were Hopper GPUs, where plain JAX stands for cuDNN."""

    def plain(*heads):
        return dot_product_attention.attend(*(x[:, :, 0] for x in heads))[:, :, None]

    monkeypatch.setattr(cudnn_attention, "_cudnn", plain)
    monkeypatch.setattr(cudnn_attention, "_capability", lambda mesh: 9)
    return sharding.make_mesh((2, 1), jax.devices()[:2])


def arrays(dtype=jnp.bfloat16):
    rng = np.random.default_rng(0)
    shapes = ((N, Q, D), (N, K, D), (N, K, V), (N, Q, V))
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("bfloat16", 8e-3)])
def test_values_and_gradients(mesh, dtype, tolerance):
    operands = arrays(dtype)
    call = with_gradients(lambda *x: cudnn_attention.attend(*x, mesh))
    found = jax.jit(call)(*sharding.constrain_batch(operands, mesh))
    assert all(x.dtype == jnp.dtype(dtype) for x in found)
    assert max(errors(found, in_float64(with_gradients(textbook), *operands))) < tolerance


def test_a_penalty_on_the_gradient_has_its_gradients(mesh):
    operands = arrays("float32")

    found = jax.jit(penalty(lambda *x: cudnn_attention.attend(*x, mesh)))(*operands)
    assert max(errors(found, in_float64(penalty(textbook), *operands))) < 1e-5


def test_the_layer_takes_it_under_jit_and_inside_shard_map(mesh, monkeypatch):
    operands, calls = arrays()[:3], []
    kernel = cudnn_attention._kernel  # noqa: SLF001
    monkeypatch.setattr(cudnn_attention, "_kernel", lambda *x: calls.append(0) or kernel(*x))

    def call(*x):
        return attention.attend_in_bfloat16(*x, mesh)

    specs = P(sharding.AXES)
    apart = jax.shard_map(call, mesh=mesh, in_specs=specs, out_specs=specs, check_vma=False)
    for f in (call, apart):
        found = jax.jit(f)(*operands)
        assert max(errors([found], [in_float64(textbook, *operands)])) < 8e-3
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("queries", "values", "capability", "expected"),
    [
        (64 * 64, 96, "9.0", True),
        (64 * 64, 96, "8.0", True),
        (64 * 64, 96, "7.5", False),
        (64 * 64, 96, "gfx942", False),  # AMD's
        (64 * 64, 96, None, False),
        (64 * 64, 136, "9.0", False),  # more channels than a head has
        (8 * 8, 96, "9.0", False),  # the map costs little
    ],
)
def test_where_it_fits(queries, values, capability, expected):
    device = types.SimpleNamespace(compute_capability=capability)
    mesh = types.SimpleNamespace(devices=np.array([device]), size=1)
    theta, phi, g = (
        jax.ShapeDtypeStruct((2, *shape), jnp.bfloat16)
        for shape in ((queries, 24), (queries // 4, 24), (queries // 4, values))
    )
    assert cudnn_attention.fits(theta, phi, g, mesh) == expected
