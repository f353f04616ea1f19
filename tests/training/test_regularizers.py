"""The orthogonal regularizer against the peer's added gradients (f08), numpy and autodiff."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax.training import matrices, regularizers

FIXTURE = Path(__file__).parent.parent / "fixtures" / "f08_ortho.npz"
STRENGTH = 1e-4
FORMS = ("off_diagonal", "full")


def to_flax(torch_tree: dict[str, np.ndarray]) -> dict:
    """The peer's weights in our layouts: OIHW -> HWIO, (out, in) -> (in, out), embeddings as is."""
    tree = {"gamma": torch_tree["gamma"]}
    for name in ("conv", "conv1", "lin"):
        kernel = torch_tree[f"{name}.weight"]
        order = (2, 3, 1, 0) if kernel.ndim == 4 else (1, 0)
        tree[name] = {"kernel": kernel.transpose(order), "bias": torch_tree[f"{name}.bias"]}
    for name in ("emb", "shared"):
        tree[name] = {"embedding": torch_tree[f"{name}.weight"]}
    return tree


@pytest.fixture(scope="module")
def peer():
    with np.load(FIXTURE) as file:
        groups = {
            "weights": "w/",
            "off_diagonal": "ortho_masked/grad_strength1e-4/",
            "full": "ortho_full/grad_strength1e-4/",
        }
        return {
            group: to_flax({k.removeprefix(p): file[k] for k in file if k.startswith(p)})
            for group, p in groups.items()
        }


@pytest.mark.parametrize(("form", "exempt"), [("off_diagonal", ("shared",)), ("full", ())])
def test_matches_peer(peer, form, exempt):
    """The peer's numbers are stored rounded to float32, hence 2e-10 of values around 1e-3."""
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, peer["weights"])
        grads = regularizers.orthogonal_gradient(params, STRENGTH, form, exempt)
        assert jax.tree.structure(grads) == jax.tree.structure(params)
        assert all(g.dtype == jnp.float64 for g in jax.tree.leaves(grads))
        jax.tree.map(
            lambda got, want: np.testing.assert_allclose(got, want, rtol=0, atol=2e-10),
            grads,
            peer[form],
        )
        for name, bias in [("conv", "bias"), ("conv1", "bias"), ("lin", "bias")]:
            assert not np.any(grads[name][bias])
        assert np.any(grads["shared"]["embedding"]) == ("shared" not in exempt)


def slow_residual(rows, form):
    """W W^T less its diagonal or the identity, entry by entry."""
    out = np.zeros((len(rows), len(rows)))
    for i, row in enumerate(rows):
        for j, other in enumerate(rows):
            if form == "off_diagonal":
                out[i, j] = 0.0 if i == j else row @ other
            else:
                out[i, j] = row @ other - (i == j)
    return out


# More inputs than outputs, as many, and fewer: W wide, square and tall.
KERNELS = [(3, 3, 2, 5), (2, 2, 3, 12), (1, 1, 2, 7), (3, 40), (30, 4)]
EMBEDDINGS = [(6, 3), (3, 3), (2, 9)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["kernel", "embedding"])
def test_gradient_and_penalty_are_exact_in_float64(name, form):
    """The definition by explicit loops over the rows of W, at 1e-13 of the largest number."""
    rng = np.random.default_rng(0)
    for shape in KERNELS if name == "kernel" else EMBEDDINGS:
        weight = rng.normal(size=shape)
        rows = weight if name == "embedding" else weight.reshape(-1, shape[-1]).T
        residual = slow_residual(rows, form)
        want = 2 * STRENGTH * residual @ rows
        want = want if name == "embedding" else want.T.reshape(shape)
        with jax.enable_x64(True):
            params = {"layer": {name: jnp.asarray(weight)}}
            got = regularizers.orthogonal_gradient(params, STRENGTH, form)["layer"][name]
            penalty = regularizers.orthogonal_penalty(params, STRENGTH, form)
            auto = jax.grad(regularizers.orthogonal_penalty)(params, STRENGTH, form)
        atol = 1e-13 * np.abs(want).max()
        np.testing.assert_allclose(got, want, rtol=0, atol=atol, err_msg=shape)
        np.testing.assert_allclose(auto["layer"][name], want, rtol=0, atol=atol, err_msg=shape)
        assert penalty == pytest.approx(STRENGTH / 2 * np.sum(residual**2), rel=1e-13)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(8, 4096), (4096, 8)])
def test_no_array_is_larger_than_the_weight(shape, form):
    """W W^T of the first one would be 2,048 times as large."""
    params = {"linear": {"kernel": jax.ShapeDtypeStruct(shape, jnp.float32)}}
    functions = (
        regularizers.orthogonal_gradient,
        regularizers.orthogonal_penalty,
        jax.grad(regularizers.orthogonal_penalty),
    )
    for function in functions:
        sizes = [
            v.aval.size
            for equation in equations(jax.make_jaxpr(partial(function, form=form))(params, 1.0))
            for v in equation.outvars
        ]
        assert 8 * 8 in sizes and max(sizes) == 8 * 4096


def equations(jaxpr):
    """All equations of a program, those of inner functions included."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "eqns")):
            if hasattr(inner, "eqns"):
                yield from equations(inner)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(8, 4096), (148, 384), (3, 3, 16, 12)])
def test_float32_differs_from_float64_by_rounding(shape, form):
    """The norm of the difference beside that of the gradient."""
    # On CPUs jax 0.12 adds a product's 4,096 terms one after the other: 1.5e-6, before 2.5e-7.
    bound = 1e-6 if jax.__version__.startswith("0.10.") else 2e-6
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=shape, scale=0.1).astype(np.float32)
    rows = kernel.astype(np.float64).reshape(-1, shape[-1]).T
    gram = rows @ rows.T
    diagonal = np.diag(np.diag(gram)) if form == "off_diagonal" else np.eye(len(gram))
    want = (gram - diagonal) @ rows
    got = regularizers.orthogonal_gradient({"d": {"kernel": kernel}}, 0.5, form)["d"]["kernel"]
    error = np.linalg.norm(np.reshape(got, (-1, shape[-1])).T - want)
    assert got.dtype == np.float32 and error < bound * np.linalg.norm(want)


@pytest.mark.parametrize("form", FORMS)
def test_penalty_differentiates_to_the_gradient(peer, form):
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, peer["weights"])
        want = regularizers.orthogonal_gradient(params, STRENGTH, form)
        got = jax.grad(regularizers.orthogonal_penalty)(params, STRENGTH, form)
        assert regularizers.orthogonal_penalty(params, STRENGTH, form).dtype == jnp.float64
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-15), got, want)


def test_orthogonal_weights_are_at_rest():
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))
    scaled = {"dense": {"kernel": jnp.asarray(3 * q, jnp.float32)}}
    unit = {"dense": {"kernel": jnp.asarray(q, jnp.float32)}}
    for params, form in [(scaled, "off_diagonal"), (unit, "off_diagonal"), (unit, "full")]:
        grads = regularizers.orthogonal_gradient(params, 1.0, form)
        np.testing.assert_allclose(grads["dense"]["kernel"], 0.0, atol=1e-4)
    grads = regularizers.orthogonal_gradient(scaled, 1.0, "full")
    assert np.abs(grads["dense"]["kernel"]).max() > 1


def test_exempt_is_a_module_name_at_any_depth():
    kernel = jnp.arange(6.0).reshape(3, 2)
    params = {"block": {"shared": {"dense": {"kernel": kernel}}}, "shared_not": {"kernel": kernel}}
    grads = regularizers.orthogonal_gradient(params, 1.0)
    assert not np.any(grads["block"]["shared"]["dense"]["kernel"])
    assert np.any(grads["shared_not"]["kernel"])
    alone = regularizers.orthogonal_penalty({"shared_not": params["shared_not"]}, 1.0)
    assert regularizers.orthogonal_penalty(params, 1.0) == alone > 0


def test_bfloat16_weights_are_multiplied_in_float32():
    kernel = jax.random.normal(jax.random.key(0), (64, 8)).astype(jnp.bfloat16)
    narrow = regularizers.orthogonal_gradient({"d": {"kernel": kernel}}, STRENGTH)["d"]["kernel"]
    wide = {"d": {"kernel": kernel.astype(jnp.float32)}}
    want = regularizers.orthogonal_gradient(wide, STRENGTH)["d"]["kernel"]
    assert narrow.dtype == jnp.bfloat16
    np.testing.assert_array_equal(narrow, want.astype(jnp.bfloat16))


def test_matmuls_ask_for_the_highest_precision():
    params = {"dense": {"kernel": jnp.ones((3, 2))}}
    for function in (regularizers.orthogonal_gradient, regularizers.orthogonal_penalty):
        traced = jax.jit(lambda p, f=function: f(p, 1.0)).trace(params)
        text = traced.lower(lowering_platforms=("tpu",)).as_text()
        assert text.count("dot_general") == text.count("[HIGHEST, HIGHEST]") > 0


def test_unknown_form_is_refused():
    with pytest.raises(ValueError, match="'diagonal'.*off_diagonal"):
        regularizers.orthogonal_gradient({"dense": {"kernel": jnp.ones((2, 2))}}, 1.0, "diagonal")


@pytest.mark.parametrize("shape", [(16, 96), (96, 16)])
def test_factors_of_16_bits_as_nvidia_gpus_take_them(monkeypatch, shape):
    """Against float64: within 2^-16 of the norms, and far from what bfloat16 factors would give."""
    monkeypatch.setattr(matrices, "_by_platform", lambda default, in_parts, *x: in_parts(*x))
    rng = np.random.default_rng(0)
    a = rng.standard_normal(shape).astype(np.float32)
    b = rng.standard_normal(shape[::-1]).astype(np.float32)
    pairs = [(jax.jit(matrices.gram)(a), a, a.T), (jax.jit(matrices.product)(a, b), a, b)]
    for found, left, right in pairs:
        wide = left.astype(np.float64) @ right.astype(np.float64)
        assert np.linalg.norm(found - wide) < 2**-15 * np.linalg.norm(wide)
