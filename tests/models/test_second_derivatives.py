"""Gradient penalties: the gradient in the weights of a squared gradient in the images.

A penalty is half the squared norm of the gradient of a weighted sum of a function's results in its
input. Its own gradient, reverse mode over reverse mode, is compared with central differences of the
penalty, or with that of another form of the same function.

Central differences need the spectral vectors to be constants: `sn_eval='stored'` keeps them. With
'iterate' they follow the weights, and the gradient by definition does not see that.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from biggan_jax import models
from biggan_jax.models import attention, cpu_forms, dcgan, layers, winograd
from biggan_jax.models.settings import LayerSettings
from tests.models.test_biggan import section

# Of central differences in float64. At a kink of a ReLU the penalty jumps: the less far they reach,
# the fewer kinks lie between. They round to 1e-9 of the penalty.
STEP = 1e-7
LABELS = np.array([1, 0])


def wide_settings(**changes):
    wide = jnp.dtype("float64")
    return LayerSettings(dtype=wide, param_dtype=wide, sn_eval="stored", **changes)


def filled(shapes, seed=0):
    """Variables of these shapes: random weights, and the true singular vectors beside them."""
    rng = np.random.default_rng(seed)
    flat = traverse_util.flatten_dict(dict(shapes))
    out = {}
    for path, leaf in flat.items():
        if path[0] == "params":
            scale = 1 / math.sqrt(math.prod(leaf.shape[:-1]) or 1) if leaf.ndim > 1 else 0.5
            out[path] = (scale * rng.standard_normal(leaf.shape)).astype(leaf.dtype)
    for path, leaf in flat.items():
        if path[0] == "batch_stats":
            out[path] = np.full(leaf.shape, float(path[-1] == "var"), leaf.dtype)
        if path[0] == "spectral":
            where = ("params", *path[1:-1])
            table = out.get((*where, "embedding"))
            if table is None:
                kernel = out[*where, "kernel"]
                table = kernel.reshape(-1, kernel.shape[-1]).T
            u, _, v = np.linalg.svd(table, full_matrices=False)
            out[path] = (u[:, 0] if path[-1] == "u" else v[0]).astype(leaf.dtype)
    return traverse_util.unflatten_dict(out)


def penalty_of(function, weights, x):
    """Half the squared norm of the gradient in x of a weighted sum of function(weights, x)."""

    def score(x):
        y = function(weights, x)
        return (y * jnp.cos(0.37 * jnp.arange(1, y.size + 1, dtype=y.dtype)).reshape(y.shape)).sum()

    return 0.5 * jnp.square(jax.grad(score)(x)).sum()


def slopes(function, weights, x):
    """(penalty, its gradient in the weights) as one compiled function of the weights."""
    f = jax.jit(jax.value_and_grad(lambda w: penalty_of(function, w, jnp.asarray(x))))
    return lambda w: jax.tree.map(np.asarray, f(w))


def assert_central_differences(function, weights, x, rtol=1e-6):
    """Compares along three random directions; to be called under x64."""
    f = slopes(function, weights, x)
    penalty, grads = f(weights)
    assert penalty > 0 and any(np.any(g) for g in jax.tree.leaves(grads))
    rng = np.random.default_rng(0)
    for _ in range(3):
        direction = jax.tree.map(lambda w: rng.standard_normal(w.shape), weights)
        ends = (
            jax.tree.map(lambda w, d, step=step: w + step * d, weights, direction)
            for step in (STEP, -STEP)
        )
        high, low = (f(end)[0] for end in ends)
        expected = (high - low) / (2 * STEP)
        terms = jax.tree.map(lambda g, d: (g * d).sum(), grads, direction)
        found = sum(jax.tree.leaves(terms))
        assert found == pytest.approx(expected, rel=rtol, abs=rtol * float(penalty))


def assert_same(grads, expected, tolerance):
    """Every leaf agrees within `tolerance` of the largest entry of the whole gradient."""
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    assert largest > 0
    for path, leaf in jax.tree.leaves_with_path(expected):
        where = jax.tree_util.keystr(path)
        found = functools.reduce(lambda tree, key: tree[key.key], path, grads)
        np.testing.assert_allclose(found, leaf, atol=tolerance * largest, err_msg=where)


LAYERS = {
    "dense": lambda s: layers.Dense(s, features=5),
    "conv1": lambda s: layers.Conv(s, features=5, kernel_size=1),
    "conv3": lambda s: layers.Conv(s, features=5),
    "to_image": lambda s: layers.Conv(s, features=3),
    "up": lambda s: layers.Conv(s, features=5, resample="up"),
    "down": lambda s: layers.Conv(s, features=5, resample="down"),
    "strided": lambda s: dcgan.StridedConv(s, features=5),
    "transposed": lambda s: dcgan.StridedConv(s, features=5, transposed=True),
    "published": attention.SelfAttention,
    "paper": attention.SelfAttention,
    "control": attention.ResidualControl,
    "batch_norm": layers.AffineBatchNorm,
}


def layer_case(name, **changes):
    """(function of weights and input, weights, input) of a layer after a curved function."""
    if name == "paper":
        changes["attention_form"] = "paper"
    module = LAYERS[name](wide_settings(attention_reduction=2, **changes))
    shape = (2, 12) if name == "dense" else (2, 4, 4, 6)
    x = np.random.default_rng(1).standard_normal(shape)
    train = name == "batch_norm"  # by the statistics of the batch, through which it curves
    init = functools.partial(module.init, jax.random.key(0))
    shapes = jax.eval_shape(lambda x: init(x, train), jnp.asarray(x))
    variables = filled(shapes)
    rest = {name: tree for name, tree in variables.items() if name != "params"}

    def function(weights, x):
        # A layer alone may be linear in x: its gradient would not depend on x at all.
        return jnp.tanh(module.apply({"params": weights, **rest}, jnp.sin(x), train, mutable=[])[0])

    if train:
        rest["batch_stats"] = jax.tree.map(jnp.asarray, rest["batch_stats"])

        def function(weights, x):
            y, _ = module.apply(
                {"params": weights, **rest}, jnp.sin(x), train, mutable=["batch_stats"]
            )
            return jnp.tanh(y)

    return function, variables["params"], x


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    with jax.enable_x64(True):
        assert_central_differences(*layer_case(name))


@pytest.mark.parametrize("name", ["up", "down", "transposed"])
def test_fused_resampling_is_the_textbook_form(name):
    with jax.enable_x64(True):
        fused, textbook = (
            slopes(*layer_case(name, fused=fused))(layer_case(name)[1]) for fused in (True, False)
        )
        assert fused[0] == pytest.approx(textbook[0], rel=1e-12)
        assert_same(fused[1], textbook[1], 1e-11)


@pytest.mark.parametrize("name", ["conv3", "up", "down"])
def test_minimal_filtering_is_the_convolution(name, monkeypatch):
    with jax.enable_x64(True):
        case = layer_case(name)
        expected = slopes(*case)(case[1])
        used = []
        plain = winograd.apply
        monkeypatch.setattr(winograd, "apply", lambda *a: used.append(a[0]) or plain(*a))
        take_minimal_filtering(monkeypatch)
        found = slopes(*case)(case[1])
        assert used, "no layer took minimal filtering"
        assert found[0] == pytest.approx(expected[0], rel=1e-12)
        assert_same(found[1], expected[1], 1e-11)


def take_minimal_filtering(monkeypatch):
    """Lowers its thresholds to 5 channels, more than an image has."""
    for kind in cpu_forms.ALWAYS:
        wide = cpu_forms.MINIMAL if kind == "up" else cpu_forms.WIDE
        monkeypatch.setitem(cpu_forms.ALWAYS, kind, (cpu_forms.Range(cpu_forms.MINIMAL, 5, 1),))
        monkeypatch.setitem(cpu_forms.IN_TRAINING, kind, (cpu_forms.Range(wide, 5, 1),))


def test_iterated_spectral_vectors_are_constants_of_the_gradient():
    """'iterate' is 'stored' at the vectors of its own iteration, second derivatives included."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        kernel, u = rng.standard_normal((12, 5)), rng.standard_normal(5)
        x = rng.standard_normal((2, 12))
        _, new_u, new_v = layers.power_iteration(jnp.asarray(kernel.T), jnp.asarray(u), 1, 1e-6)
        weights = {"kernel": kernel, "bias": rng.standard_normal(5)}
        found = {}
        for mode, vectors in (("iterate", {"u": u}), ("stored", {"u": new_u, "v": new_v})):
            s = LayerSettings(dtype=x.dtype, param_dtype=x.dtype, sn_eval=mode)
            module = layers.Dense(s, features=5)

            def function(weights, x, module=module, vectors=vectors):
                y = module.apply({"params": weights, "spectral": vectors}, jnp.sin(x), False)
                return jnp.tanh(y)

            found[mode] = slopes(function, weights, x)(weights)
        assert_same(found["iterate"][1], found["stored"][1], 1e-12)


def discriminator_case(name, form="published", dtype="float64", **options):
    """(D as a function of weights and images, weights, images) of a small model of a family."""
    places = () if name == "dcgan" else (8,)
    m = section(
        name=name,
        ch=4 if name == "dcgan" else 2,
        num_classes=2,
        d_attention=places,
        attention_form=form,
        attention_reduction=2,
        sn_eval="stored",
        d_thin=name == "sngan",
    )
    param_dtype = "float32" if dtype == "bfloat16" else dtype
    _, d = models.build(m, dtype=dtype, param_dtype=param_dtype, **options)
    images = np.random.default_rng(1).standard_normal((2, 16, 16, 3)).astype(param_dtype)
    variables = filled(jax.eval_shape(d.init, jax.random.key(0), images, LABELS))

    def function(weights, x):
        rest = {"spectral": variables["spectral"]}
        return d.apply({"params": weights, **rest}, x, jnp.asarray(LABELS), False)

    return function, variables["params"], images


@pytest.mark.parametrize(
    ("name", "form"),
    [(name, "published") for name in models.REGISTRY]
    + [pytest.param("sagan", "paper", marks=pytest.mark.full)],
)
def test_discriminators(name, form):
    with jax.enable_x64(True):
        assert_central_differences(*discriminator_case(name, form))


@functools.cache
def plain_float32():
    function, weights, images = discriminator_case("biggan", dtype="float32")
    return slopes(function, weights, images)(weights)


PARTS = ("textbook", "recomputed", "minimal filtering")
FORMS = ["both", *(pytest.param(form, marks=pytest.mark.full) for form in PARTS)]


@pytest.mark.parametrize("form", FORMS)
def test_the_same_discriminator_by_other_means(form, monkeypatch):
    expected = plain_float32()
    if form in ("minimal filtering", "both"):
        take_minimal_filtering(monkeypatch)
    options = {"fused": form != "textbook"}
    if form in ("recomputed", "both"):
        options["remat"] = ("all",)
    function, weights, images = discriminator_case("biggan", dtype="float32", **options)
    found = slopes(function, weights, images)(weights)
    assert found[0] == pytest.approx(expected[0], rel=1e-4)
    assert_same(found[1], expected[1], 1e-4)


@pytest.mark.full
def test_bfloat16():
    expected = plain_float32()
    function, weights, images = discriminator_case("biggan", dtype="bfloat16")
    found = slopes(function, weights, images)(weights)
    assert found[0] == pytest.approx(expected[0], rel=0.05)
    flat = [np.concatenate([g.ravel() for g in jax.tree.leaves(x[1])]) for x in (found, expected)]
    assert np.linalg.norm(flat[0] - flat[1]) < 0.05 * np.linalg.norm(flat[1])
