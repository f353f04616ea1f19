"""Digests: equal on any sharding, different after any damage."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax.storage import digest
from biggan_jax.storage.digest import digests
from tests.small_state import make_state, on_mesh


def test_same_on_any_sharding():
    state = make_state()
    want = digests(state)
    assert "ema/params/conv/kernel" in want and "key" in want and "opt_state/0/mu/bias" in want
    for axis in (None, 1, 2):
        assert digests(on_mesh(state, axis)) == want


@pytest.mark.parametrize(
    "dtype", ["float32", "bfloat16", "float16", "int32", "uint32", "uint8", "bool"]
)
def test_sees_every_kind_of_damage(dtype):
    flat = np.random.default_rng(0).integers(0, 2, 384).astype(jnp.dtype(dtype))
    flat[[50, 51, 77]] = np.array([0, 1, 1], flat.dtype)
    swapped, flipped, zeroed = flat.copy(), flat.copy(), flat.copy()
    swapped[[50, 51]] = flat[[51, 50]]
    flipped[77] = 0
    zeroed[100:164] = 0
    arrays = [flat, swapped, flipped, zeroed, np.roll(flat, 1)]
    seen = [digests([jnp.asarray(x.reshape(16, 24))])["0"] for x in arrays]
    for column in range(2):  # each of the two hashes notices by itself
        assert len({s[column] for s in seen}) == len(seen)


def test_place_counts_along_every_axis():
    x = jnp.arange(27.0).reshape(3, 3, 3)
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)]
    assert len({tuple(digests([x.transpose(order)])["0"]) for order in orders}) == 6


def test_one_flipped_bit():
    words = np.arange(64, dtype=np.uint32)
    values = set()
    for place in (0, 31, 63):
        for bit in range(32):
            flipped = words.copy()
            flipped[place] ^= np.uint32(1 << bit)
            x = jax.lax.bitcast_convert_type(jnp.asarray(flipped), jnp.float32)
            values.add(tuple(digests([x])["0"]))
    assert len(values) == 96


def test_64_bit_arrays_and_keys():
    wide = np.array([1, 2**40], np.int64)
    assert digests({"n": wide}) != digests({"n": wide + 2**41})
    assert digests({"n": 3 + 2**40}) != digests({"n": 3})
    assert digests({"x": -0.0}) != digests({"x": 0.0})
    assert digests({"k": jax.random.key(0)}) != digests({"k": jax.random.key(1)})
    host = np.random.default_rng(0).normal(size=(4, 3))
    with jax.enable_x64(True):
        assert digests({"x": jnp.asarray(host)}) == digests({"x": host})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "bool", "float64"])
@pytest.mark.parametrize("count", [0, 1, 300])
def test_what_the_host_can_read_by_parts(dtype, count, monkeypatch):
    """The same numbers as one pass over the array where it lies, over several parts too."""
    monkeypatch.setattr(digest, "_PARTS", (8, 128))
    x = np.random.default_rng(count).normal(size=count).astype(jnp.dtype(dtype)).reshape(-1, 1)
    if dtype == "float32" and count:
        x[-1] = np.nan
    with jax.enable_x64(True):
        a, b, finite = digest._digest(digest._sized(x))
    assert digest._by_parts(x) == (int(a), int(b), bool(finite))
    assert finite == bool(np.isfinite(x.astype(np.float64)).all())
