"""Attention in blocks, which CPUs train with, against the textbook in float64."""

import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from biggan_jax.models import attention, blocked_attention
from biggan_jax.models.settings import LayerSettings
from biggan_jax.parallel import sharding
from tests.models.test_flash_attention import (
    errors,
    in_float64,
    penalty,
    textbook,
    with_gradients,
)

N, Q, K, D, V = 6, 48, 12, 3, 5
# (most numbers of a block of one image, of several): what happens to the queries and images.
CUTS = {
    "an image a block": (Q * K, Q * K),
    "three images a block": (Q * K, 4 * Q * K),
    "an image in four parts": (Q * K // 4, Q * K // 4),
    "a query a block": (1, 1),
    "all in one block": (Q * K, N * Q * K),
}


@pytest.fixture
def mesh(monkeypatch):
    """Of two devices, for which every map is large and a block holds half an image."""
    monkeypatch.setattr(blocked_attention, "_MAP", 1)
    monkeypatch.setattr(blocked_attention, "_OF_ONE", Q * K // 2)
    return sharding.make_mesh((2, 1), jax.devices()[:2])


def arrays(scale=1.0):
    """Queries, keys, values and the gradient of the result."""
    rng = np.random.default_rng(0)
    shapes = ((N, Q, D), (N, K, D), (N, K, V), (N, Q, V))
    scales = (scale, scale, 1.0, 1.0)
    return [
        jnp.asarray(rng.normal(size=x) * s, "float32") for x, s in zip(shapes, scales, strict=True)
    ]


@pytest.mark.parametrize("cut", CUTS)
def test_values_and_gradients(monkeypatch, cut):
    """At scale 8 some logits reach 200, whose exponential overflows float32."""
    one, several = CUTS[cut]
    monkeypatch.setattr(blocked_attention, "_OF_ONE", one)
    monkeypatch.setattr(blocked_attention, "_OF_SEVERAL", several)
    one_device = sharding.make_mesh((1, 1), jax.devices()[:1])
    for scale, tolerance in ((1.0, 1e-6), (8.0, 1e-5)):
        operands = arrays(scale)
        call = jax.jit(with_gradients(lambda *x: blocked_attention.attend(*x, one_device)))
        expected = in_float64(with_gradients(textbook), *operands)
        assert max(errors(call(*operands), expected)) < tolerance


def test_examples_on_several_devices_stay_there(mesh):
    operands = sharding.constrain_batch(arrays(), mesh)
    call = jax.jit(with_gradients(lambda *x: blocked_attention.attend(*x, mesh)))
    compiled = call.lower(*operands).compile().as_text()
    assert not re.search(r"all-(gather|reduce|to-all)|collective-permute", compiled)
    found = call(*operands)
    assert max(errors(found, in_float64(with_gradients(textbook), *operands))) < 1e-6


def test_inside_shard_map(mesh):
    operands = arrays()[:3]
    specs = P(sharding.AXES)
    apart = jax.shard_map(
        lambda *x: blocked_attention.attend(*x, mesh), mesh=mesh, in_specs=specs, out_specs=specs
    )
    assert max(errors([jax.jit(apart)(*operands)], [in_float64(textbook, *operands)])) < 1e-6


def test_a_penalty_on_the_gradient_has_its_gradients(mesh):
    """As R1 takes them: of the squared gradient of queries, through forward and backward."""
    operands = arrays()

    found = jax.jit(penalty(lambda *x: blocked_attention.attend(*x, mesh)))(*operands)
    assert max(errors(found, in_float64(penalty(textbook), *operands))) < 1e-5


@pytest.mark.parametrize("form", attention.FORMS)
def test_the_layer_trains_without_a_map(mesh, form):
    """The same result and gradients as with a map, which no instruction of the program holds."""
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 16))
    plain = attention.SelfAttention(LayerSettings(attention_form=form))
    blocked = attention.SelfAttention(LayerSettings(attention_form=form, mesh=mesh))
    variables = jax.jit(plain.init, static_argnums=2)(jax.random.key(1), x, False)
    variables["params"]["gamma"] = jnp.asarray(0.7)

    def program(module, train):
        def loss(params, x):
            changed = {**variables, "params": params}
            out, new = module.apply(changed, x, train, mutable=["spectral"])
            return (out * jnp.cos(jnp.arange(out.size)).reshape(out.shape)).sum(), (out, new)

        return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))

    found, expected = (program(m, True)(variables["params"], x) for m in (blocked, plain))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)

    keys = 64 if form == "paper" else 16
    for module, train, stored in (
        (blocked, True, False),
        (blocked, False, True),
        (plain, True, True),
    ):
        text = program(module, train).lower(variables["params"], x).compile().as_text()
        assert bool(re.search(rf"f32\[[12],(64,{keys}|{keys},64)\]", text)) == stored


@pytest.mark.parametrize(
    ("n", "queries", "keys", "platform", "expected"),
    [
        (32, 32 * 32, 16 * 16, "cpu", True),
        (1, 64 * 64, 32 * 32, "cpu", True),
        (32, 14 * 14, 7 * 7, "cpu", False),  # the map stays in the caches
        (33, 32 * 32, 16 * 16, "cpu", False),  # two devices cannot share it
        (32, 32 * 32, 16 * 16, "gpu", False),
        (32, 32 * 32, 16 * 16, "tpu", False),
    ],
)
def test_where_it_fits(n, queries, keys, platform, expected):
    mesh = types.SimpleNamespace(
        devices=np.array([types.SimpleNamespace(platform=platform)]), size=1 if n == 1 else 2
    )
    theta, phi = (jax.ShapeDtypeStruct((n, x, 4), jnp.float32) for x in (queries, keys))
    assert blocked_attention.fits(theta, phi, mesh) == expected


def test_an_exported_program_of_any_batch_keeps_the_map(mesh):
    (n,) = jax.export.symbolic_shape("n")
    theta, phi = (jax.ShapeDtypeStruct((n, x, 4), jnp.float32) for x in (32 * 32, 16 * 16))
    assert not blocked_attention.fits(theta, phi, mesh)
