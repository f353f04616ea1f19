"""The clamp of singular values, against numpy's decomposition in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax.training import matrices, sigma_clamp

clamp_matrix = jax.jit(sigma_clamp.clamp_matrix, static_argnums=(1, 2))


def decomposed(matrix):
    return np.linalg.svd(np.asarray(matrix, np.float64), full_matrices=False)


def sigmas(matrix):
    return np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)


@pytest.mark.parametrize(
    ("shape", "form", "limit"),
    [
        ((5, 9), "value", 2.0),
        ((9, 5), "ratio", 1.1),
        ((9, 5), "value", 100.0),
        ((5, 9), "ratio", 100.0),
        ((1, 7), "value", 1.0),
        ((1, 7), "ratio", 1.0),
        ((70, 90), "value", 16.5),  # more rows than are looked at
        ((90, 70), "ratio", 1.0),
    ],
)
def test_against_the_svd(shape, form, limit):
    matrix = np.random.default_rng(0).standard_normal(shape)
    u, sigma, v = decomposed(matrix)
    expected = sigma.copy()
    if form == "value":
        expected = np.minimum(sigma, limit)
    elif len(sigma) > 1:
        expected[0] = min(sigma[0], limit * sigma[1])
    assert limit == 100 or shape[0] == 1 or not np.allclose(expected, sigma)
    got = clamp_matrix(jnp.asarray(matrix, jnp.float32), limit, form)
    np.testing.assert_allclose(got, (u * expected) @ v, atol=3e-5)


def test_it_holds_over_a_hundred_updates():
    """Within 1%, and no other singular value moves by more than the update."""
    rng = np.random.default_rng(0)
    matrix = (rng.standard_normal((70, 90)) / 20).astype(np.float32)
    direction = np.outer(rng.standard_normal(70), rng.standard_normal(90)) / 400
    free, most = matrix.copy(), 0.0
    for _ in range(100):
        update = (direction + rng.standard_normal((70, 90)) / 1000).astype(np.float32)
        before, moved = sigmas(matrix), matrix + update
        matrix = np.asarray(clamp_matrix(jnp.asarray(moved), 1.0, "value"))
        free, after = free + update, sigmas(matrix)
        norm = sigmas(update)[0]
        assert (np.abs(after - before)[1:] <= norm * 1.001).all()
        assert (after <= sigmas(moved) + 1e-5).all()
        most = max(most, after[0])
    assert after[0] > 0.99 and most < 1.01 and sigmas(free)[0] > 5


def test_the_search_starts_with_the_vector_of_spectral_norm(monkeypatch):
    """Found in the collection by the weight's path; without iterations it decides alone."""
    monkeypatch.setattr(sigma_clamp, "BLOCK", 1)
    monkeypatch.setattr(sigma_clamp, "ROUNDS", 0)
    kernel = np.random.default_rng(0).standard_normal((3, 3, 4, 20)).astype(np.float32)
    matrix = kernel.reshape(-1, 20).T
    u, sigma, _ = decomposed(matrix)
    params = {"block": {"conv": {"kernel": jnp.asarray(kernel), "bias": jnp.full(20, 9.0)}}}
    spectral = {"block": {"conv": {"u": jnp.asarray(u[:, 0], jnp.float32)}}}
    run = functools.partial(sigma_clamp.clamp, params, 1.5, "value")
    first = lambda tree: sigmas(tree["block"]["conv"]["kernel"].reshape(-1, 20))
    np.testing.assert_allclose(first(run(spectral))[0], sigma[1], rtol=1e-5)
    assert first(run(None))[0] > sigma[1] + 0.1
    np.testing.assert_array_equal(run(spectral)["block"]["conv"]["bias"], 9.0)
    np.testing.assert_array_equal(run(spectral, frozenset({"block"}))["block"]["conv"]["kernel"],
                                  kernel)  # fmt: skip


def test_embeddings_dtypes_and_weights_of_zeros():
    table = np.random.default_rng(0).standard_normal((6, 4))
    params = {"embed": {"embedding": table}, "zeros": {"kernel": np.zeros((3, 4))}}
    with jax.enable_x64(True):
        got = sigma_clamp.clamp(jax.tree.map(jnp.asarray, params), 1.0, "ratio")
        assert {x.dtype for x in jax.tree.leaves(got)} == {jnp.dtype("float64")}
    sigma = sigmas(got["embed"]["embedding"])
    np.testing.assert_allclose(sigma, sigmas(table)[[1, 1, 2, 3]], rtol=1e-12)
    np.testing.assert_array_equal(got["zeros"]["kernel"], 0)
    path = (jax.tree_util.DictKey("embed"), jax.tree_util.DictKey("embedding"))
    np.testing.assert_array_equal(matrices.as_matrix(path, table), table)
