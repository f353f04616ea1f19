"""The kernels of attention, interpreted on the CPU, against the textbook in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from biggan_jax.models import attention, flash_attention, layout
from biggan_jax.models.settings import LayerSettings
from biggan_jax.parallel import sharding
from biggan_jax.planning import chips, compiler, costs, hlo

# Three blocks of queries, so that gradients of keys and values are summed over them.
N, Q, K, D, V = 2, 384, 128, 12, 24


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh((2, 1), jax.devices()[:2])


def arrays(dtype, scale=1.0):
    """Queries, keys, values and the gradient of the result."""
    rng = np.random.default_rng(0)
    shapes = ((N, Q, D), (N, K, D), (N, K, V), (N, Q, V))
    scales = (scale, scale, 1.0, 1.0)
    return [jnp.asarray(rng.normal(size=x) * s, dtype) for x, s in zip(shapes, scales, strict=True)]


def textbook(theta, phi, g):
    beta = jax.nn.softmax(jnp.einsum("nqd,nkd->nqk", theta, phi), axis=-1)
    return jnp.einsum("nqk,nkd->nqd", beta, g)


def in_float64(f, *operands):
    with jax.enable_x64(True):
        out = jax.jit(f)(*(jnp.asarray(np.asarray(x, np.float64)) for x in operands))
        return jax.tree.map(np.asarray, out)


def errors(found, expected):
    return [
        np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b)
        for a, b in zip(found, expected, strict=True)
    ]


def with_gradients(f):
    def call(theta, phi, g, gradient):
        out, back = jax.vjp(f, theta, phi, g)
        return out, *back(gradient)

    return call


def penalty(f):
    """Gradients of the squared gradient of queries, as R1 takes them."""

    def of(theta, phi, g, gradient):
        def gradient_of(theta):
            return jax.grad(lambda t: (f(t, phi, g) * gradient).sum())(theta)

        return jnp.square(gradient_of(theta)).sum()

    return jax.grad(of, argnums=(0, 1, 2, 3))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("bfloat16", 4e-3)])
def test_values_and_gradients(mesh, dtype, tolerance):
    """At scale 2 some logits reach 30, which bfloat16 has only to 1/8."""
    assert flash_attention.block_of_queries((N, Q, D), (N, K, D), (N, K, V)) == 128
    operands = arrays(dtype, scale=2.0)
    kernel = with_gradients(lambda *x: flash_attention.attend(*x, mesh, True))
    found = jax.jit(kernel)(*sharding.constrain_batch(operands, mesh))
    assert all(x.dtype == jnp.dtype(dtype) for x in found)
    assert max(errors(found, in_float64(with_gradients(textbook), *operands))) < tolerance


def test_a_penalty_on_the_gradient_has_its_gradients(mesh):
    """As R1 takes them: of the squared gradient of queries, through forward and backward."""
    operands = arrays("float32")

    found = jax.jit(penalty(lambda *x: flash_attention.attend(*x, mesh, True)))(*operands)
    assert max(errors(found, in_float64(penalty(textbook), *operands))) < 1e-5


def test_one_devices_own_examples_inside_shard_map(mesh):
    """As with microbatches, where each device applies the player to its own part."""
    operands = arrays("float32")[:3]

    def own(*x):
        assert flash_attention.fits(*x, mesh)
        return flash_attention.attend(*x, mesh, True)

    specs = P(sharding.AXES)
    apart = jax.shard_map(own, mesh=mesh, in_specs=specs, out_specs=specs, check_vma=False)
    found = jax.jit(apart)(*operands)
    assert max(errors([found], [in_float64(textbook, *operands)])) < 2e-6


@pytest.mark.parametrize(
    ("queries", "keys", "channels", "block"),
    [
        (64 * 64, 32 * 32, 12 + 48, 512),  # D of BigGAN-128
        (64 * 64, 32 * 32, 64 + 256, 512),
        (64 * 64, 64 * 64, 32 + 32, 128),  # the paper's form
        (32 * 32, 16 * 16, 64 + 256, 1024),
        (16 * 16, 8 * 8, 16 + 64, None),  # a map of 32 kB
        (64 * 64, 64 * 64, 128 + 128, None),  # gradients of keys and values alone take 16 MB
    ],
)
def test_blocks_fit_into_on_chip_memory(queries, keys, channels, block):
    d = channels // 5
    shapes = (1, queries, d), (1, keys, d), (1, keys, channels - d)
    assert flash_attention.block_of_queries(*shapes) == block


def layer_on_paper(mesh, batch=2, side=32):
    """(loss of a bfloat16 attention layer, abstract parameters and input)."""
    s = LayerSettings(dtype=jnp.dtype("bfloat16"), spectral_norm=False, mesh=mesh)
    module = attention.SelfAttention(s)
    x = jax.ShapeDtypeStruct((batch, side, side, 32), jnp.bfloat16)
    variables = jax.eval_shape(lambda k, x: module.init(k, x, False), jax.random.key(0), x)

    def loss(params, x):
        return module.apply({"params": params}, x, False).astype(np.float32).sum()

    return jax.grad(loss, argnums=(0, 1)), variables["params"], x


def test_the_layer_takes_the_kernels_on_tpus_alone(mesh, monkeypatch):
    def program():
        f, *operands = layer_on_paper(mesh)
        return jax.jit(f).trace(*operands).lower(lowering_platforms=("tpu",)).as_text()

    stored = "x1024x256x"  # a map
    on_cpus = program()
    assert "tpu_custom_call" not in on_cpus and stored in on_cpus
    assert "LayoutConstraint" not in on_cpus
    monkeypatch.setattr(layout, "platform", lambda mesh: "tpu")
    on_tpus = program()
    assert on_tpus.count("stablehlo.custom_call @tpu_custom_call") == 2  # forward and backward
    assert stored not in on_tpus
    # Gradients of the four kernels lie as their parameters do.
    assert on_tpus.count("@LayoutConstraint") == 4
    f, *operands = layer_on_paper(mesh, batch=1)  # less than the devices
    assert "tpu_custom_call" not in str(jax.make_jaxpr(f)(*operands))


@pytest.mark.parametrize("topology", ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
def test_the_tpu_compiler_takes_it(topology):
    pytest.importorskip("libtpu")
    mesh = sharding.make_mesh((-1, 1), compiler.devices(chips.parse(topology)))
    f, params, x = layer_on_paper(mesh, batch=mesh.size)
    params, x = (
        jax.tree.map(lambda a, p=place: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=p), tree)
        for tree, place in ((params, sharding.replicated(mesh)), (x, sharding.over_batch(mesh)))
    )
    module = hlo.Module(jax.jit(f).lower(params, x).compile().as_text())
    kernels = [i for _, i, _ in module.instructions() if "tpu_custom_call" in i.attributes]
    assert len(kernels) == 2
    assert set(costs.collectives(module)) == {"all-reduce"}  # of the parameters' gradients
    # Logits twice and their gradients' two products over 4 channels, the rest over 16.
    products = 2 * 1024 * 256 * (4 * 4 + 3 * 16)
    assert costs.flops(module) > products
