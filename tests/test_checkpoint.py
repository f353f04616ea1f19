"""Checkpoints: round trips over shardings, damage, retention, repair, errors of the disk."""

import dataclasses
import errno
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from biggan_jax import checkpoint, integrity
from biggan_jax.checkpoint import Checkpoints, abstract, digests, load_weights, save_weights
from biggan_jax.errors import UserError


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    step: jax.Array
    key: jax.Array
    params: dict
    opt_state: Any
    ema: dict
    images_seen: int


def make_state(seed: int = 0) -> State:
    key = jax.random.key(seed)
    params = {
        "conv": {"kernel": jax.random.normal(key, (3, 3, 16, 32)), "bias": jnp.zeros(32)},
        "half": jax.random.normal(key, (8, 8)).astype(jnp.bfloat16),
        "flags": jnp.arange(16) % 3 == 0,
        "noise": jax.random.bits(key, (32, 32)),  # incompressible: lies on the disk as it is
    }
    ema = {"params": jax.tree.map(jnp.copy, params), "empty": {}, "none": None}
    opt_state = optax.adam(1e-3).init(params["conv"])
    return State(jnp.asarray(seed, jnp.int32), key, params, opt_state, ema, 10_000_000_000 + seed)


def on_mesh(state: Any, axis: int | None) -> Any:
    """Puts a state on 8 devices, its axis `axis` (counted from the end) split where it divides."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def put(x):
        if not isinstance(x, jax.Array):
            return x
        spec = [None] * x.ndim
        if axis is not None and x.ndim >= axis and x.shape[-axis] % 8 == 0:
            spec[-axis] = "data"
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))

    return jax.tree.map(put, state)


def assert_same(got: Any, want: Any) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    assert digests(got) == digests(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        if isinstance(a, jax.Array) and jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


def data_file(step: Path) -> Path:
    """The largest file of arrays of a checkpoint."""
    files = [p for p in Path(step, "state").rglob("d/*") if p.is_file()]
    return max(files, key=lambda p: p.stat().st_size)


def truncate(step: Path) -> None:
    path = data_file(step)
    os.truncate(path, path.stat().st_size // 2)


def zero_64_bytes(step: Path) -> None:
    """Zeroes a piece of `params/noise`, which Orbax restores without a word."""
    noise = np.asarray(make_state(int(step.name)).params["noise"]).tobytes()
    for path in Path(step, "state").rglob("d/*"):
        data = path.read_bytes()
        while (at := data.find(noise[1024:1088])) >= 0:
            data = data[:at] + bytes(64) + data[at + 64 :]
            path.write_bytes(data)


def spoil_index(step: Path) -> None:
    (step / "state" / "_METADATA").write_text("{")


def spoil_record(step: Path) -> None:
    path = step / "meta" / "metadata"
    path.write_text(path.read_text().replace('"images": 2', '"images": 3'))


def remove_record(step: Path) -> None:
    (step / "meta" / "metadata").unlink()


@pytest.fixture
def two_steps(tmp_path):
    """A run with checkpoints 1 and 2."""
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in (1, 2):
        assert checkpoints.save(step, make_state(step), {"images": step})
    checkpoints.close()
    return checkpoints


class TestDigest:
    def test_same_on_any_sharding(self):
        state = make_state()
        want = digests(state)
        assert "ema/params/conv/kernel" in want and "key" in want and "opt_state/0/mu/bias" in want
        for axis in (None, 1, 2):
            assert digests(on_mesh(state, axis)) == want

    @pytest.mark.parametrize(
        "dtype", ["float32", "bfloat16", "float16", "int32", "uint32", "uint8", "bool"]
    )
    def test_sees_every_kind_of_damage(self, dtype):
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

    def test_one_flipped_bit(self):
        words = np.arange(64, dtype=np.uint32)
        values = set()
        for place in (0, 31, 63):
            for bit in range(32):
                flipped = words.copy()
                flipped[place] ^= np.uint32(1 << bit)
                x = jax.lax.bitcast_convert_type(jnp.asarray(flipped), jnp.float32)
                values.add(tuple(digests([x])["0"]))
        assert len(values) == 96

    def test_64_bit_arrays_and_keys(self):
        wide = np.array([1, 2**40], np.int64)
        assert digests({"n": wide}) != digests({"n": wide + 2**41})
        assert digests({"n": 3 + 2**40}) != digests({"n": 3})
        assert digests({"x": -0.0}) != digests({"x": 0.0})
        assert digests({"k": jax.random.key(0)}) != digests({"k": jax.random.key(1)})
        host = np.random.default_rng(0).normal(size=(4, 3))
        with jax.enable_x64(True):
            assert digests({"x": jnp.asarray(host)}) == digests({"x": host})


@pytest.mark.parametrize(("saved_axis", "read_axis"), [(1, 2), (1, "one"), ("one", 1)])
def test_round_trip_over_shardings(tmp_path, saved_axis, read_axis):
    place = lambda s, axis: s if axis == "one" else on_mesh(s, axis)
    state, like = place(make_state(5), saved_axis), place(make_state(0), read_axis)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, state, {"images": 640, "shape": (1, 2), "score": 0.1})
    restored, meta, step = checkpoints.restore(abstract(like))
    checkpoints.close()
    assert_same(restored, state)
    assert (meta, step) == ({"images": 640, "shape": [1, 2], "score": 0.1}, 5)
    assert checkpoints.read_meta(5) == meta
    kernel = restored.params["conv"]["kernel"]
    assert kernel.sharding == like.params["conv"]["kernel"].sharding
    assert restored.images_seen == 10_000_000_005


def test_target_without_sharding_goes_to_one_device(tmp_path):
    state = on_mesh(make_state(), 1)
    Checkpoints(tmp_path, async_save=False).save(1, state, {})
    target = jax.eval_shape(lambda: {"ema": make_state().ema})
    restored, _, _ = Checkpoints(tmp_path).restore_partial(target)
    assert_same(restored, {"ema": make_state().ema})
    assert len(restored["ema"]["params"]["half"].devices()) == 1


def test_donated_state_is_saved_as_it_was(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    state = on_mesh({"w": jnp.arange(2.0**20).reshape(1024, 1024)}, 1)
    want = digests(state)
    overwrite = jax.jit(lambda s: {"w": s["w"] + 1.0}, donate_argnums=0)
    for step in (1, 2):
        checkpoints.save(step, state, {})
        kept = state
        state = overwrite(state)
        assert kept["w"].is_deleted()
        jax.block_until_ready(state)
        assert digests(checkpoints.restore(abstract(state))[0]) == want
        want = digests(state)
    checkpoints.close()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, ""),
        (zero_64_bytes, "bits differ from those saved in ema/params/noise, params/noise"),
        (spoil_index, "JSONDecodeError"),
        (spoil_record, "its record does not match its seal"),
        (remove_record, "its record is unreadable"),
    ],
)
def test_damage_falls_back_to_the_step_before(two_steps, damage, reason):
    damage(two_steps.directory / "2")
    before = sorted(os.walk(two_steps.directory))
    warnings = []
    state, meta, step = two_steps.restore(abstract(make_state()), on_warning=warnings.append)
    assert step == 1 and meta == {"images": 1}
    assert_same(state, make_state(1))
    assert len(warnings) == 1 and "\n" not in warnings[0]
    assert f"checkpoint 2 in {two_steps.directory} is corrupt: {reason}" in warnings[0]
    assert sorted(os.walk(two_steps.directory)) == before  # reading changes nothing
    with pytest.raises(UserError, match=r"no intact checkpoint in .* \(corrupt: 2\)"):
        two_steps.restore(abstract(make_state()), step=2, on_warning=warnings.append)


def test_all_corrupt_is_a_user_error(two_steps, capsys):
    for step in ("1", "2"):
        truncate(two_steps.directory / step)
    with pytest.raises(UserError, match=r"no intact checkpoint in .* \(corrupt: 2, 1\)") as error:
        two_steps.restore(abstract(make_state()), repair=True)
    assert "\n" not in str(error.value)
    assert capsys.readouterr().err.count("warning: checkpoint") == 2
    assert two_steps.all_steps() == [1, 2]  # nothing is set aside without something to go back to


def test_empty_directory(tmp_path):
    checkpoints = Checkpoints(tmp_path / "none")
    assert checkpoints.latest_step() is None
    with pytest.raises(UserError, match="no checkpoint in .*none: train first"):
        checkpoints.restore(abstract(make_state()))
    assert not (tmp_path / "none").exists()
    with pytest.raises(UserError, match="no readable checkpoint at .*/none/7"):
        checkpoints.read_meta(7)


def test_save_again_after_falling_back(two_steps):
    zero_64_bytes(two_steps.directory / "2")
    target = abstract(make_state())
    _, _, step = two_steps.restore(target, on_warning=lambda _: None, repair=True)
    assert step == 1 and two_steps.all_steps() == [1]
    assert (two_steps.directory / "2.discarded" / "state").is_dir()
    assert two_steps.save(2, make_state(9), {"images": 9})
    state, meta, step = two_steps.restore(target)
    assert (meta, step) == ({"images": 9}, 2)
    assert_same(state, make_state(9))
    assert two_steps.discard_after(1) == [2]
    assert (two_steps.directory / "2.discarded-2").is_dir()


def test_saving_a_step_twice_and_an_older_one(two_steps):
    assert two_steps.save(2, make_state(7), {}) is False
    assert two_steps.read_meta(2) == {"images": 2}
    with pytest.raises(UserError, match="checkpoint 2 in .* is newer than step 0: move it away"):
        two_steps.save(0, make_state(), {})
    assert two_steps.save(3, make_state(), {}) is True
    assert two_steps.save(3, make_state(), {}) is False  # also while it is being written
    two_steps.close()
    assert two_steps.all_steps() == [2, 3]


@pytest.mark.parametrize(("mode", "sign"), [("min", 1), ("max", -1)])
def test_retention_keeps_the_latest_and_the_best(tmp_path, mode, sign):
    state = {"w": jnp.ones(4)}
    scores = [50, 10, 30, float("nan"), 40, None, 60]
    for step, score in enumerate(scores, start=1):
        # A fresh object each time, as after a restart: the scores are read back from the disk.
        checkpoints = Checkpoints(tmp_path, keep_latest=2, best_metric="fid", best_mode=mode)
        metrics = None if score is None else {"fid": np.float32(sign * score), "other": 1.0}
        assert checkpoints.save(step, state, {}, metrics)
        checkpoints.close()
        assert step in checkpoints.all_steps()  # the newest stays, however bad
    assert checkpoints.all_steps() == [2, 6, 7]


def test_torn_metrics_file_deletes_nothing(tmp_path):
    state = {"w": jnp.ones(4)}
    for step, score in enumerate([10, 50, 30], start=1):
        checkpoints = Checkpoints(tmp_path, keep_latest=1, best_metric="fid")
        checkpoints.save(step, state, {}, {"fid": score})
        checkpoints.close()
    assert checkpoints.all_steps() == [1, 3]
    (tmp_path / "1" / "metrics" / "metrics").write_text('{"fid"')
    assert checkpoints.restore(abstract(state), step=1)[2] == 1
    assert checkpoints.save(4, state, {}, {"fid": 20.0})
    checkpoints.close()
    assert checkpoints.all_steps() == [1, 3, 4]


def test_latest_only(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_latest=2, async_save=False)
    for step in (10, 20, 30):
        checkpoints.save(step, {"w": jnp.ones(4)}, {}, {"fid": step})
    assert checkpoints.all_steps() == [20, 30]


def test_leftover_of_a_killed_save(two_steps):
    leftover = two_steps.directory / "3.orbax-checkpoint-tmp"
    leftover.mkdir()
    assert two_steps.all_steps() == [1, 2]
    assert two_steps.restore(abstract(make_state()))[2] == 2 and leftover.exists()
    assert two_steps.save(4, make_state(4), {})
    two_steps.close()
    assert two_steps.all_steps() == [2, 4] and not leftover.exists()


def test_partial_restore(two_steps):
    target = {"ema": abstract(on_mesh(make_state().ema, 1))}
    part, meta, step = two_steps.restore_partial(target)
    assert_same(part, {"ema": make_state(2).ema})
    assert (meta, step) == ({"images": 2}, 2)
    with pytest.raises(UserError, match="emma/params/conv/bias is missing there and float32"):
        two_steps.restore_partial({"emma": target["ema"]})


def test_partial_restore_checks_what_it_reads(two_steps, monkeypatch):
    """A flipped bit of the EMA makes it fall back; one of another part does not concern it."""
    target = {"ema": abstract(make_state().ema)}

    def damage(name):
        real = integrity._restore

        def flipped(path, tree):
            tree = real(path, tree)
            if path.parent.name == "2" and name in tree:
                leaf = tree[name]["params"]["conv"]["bias"]
                tree[name]["params"]["conv"]["bias"] = leaf.at[0].add(1e-30)
            return tree

        return flipped

    warnings = []
    with monkeypatch.context() as patch:
        patch.setattr(integrity, "_restore", damage("ema"))
        part, _, step = two_steps.restore_partial(target, on_warning=warnings.append)
    assert step == 1 and "ema/params/conv/bias" in warnings[0]
    assert_same(part, {"ema": make_state(1).ema})
    with monkeypatch.context() as patch:
        patch.setattr(integrity, "_restore", damage("opt_state"))
        assert two_steps.restore_partial(target)[2] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda p: p | {"half": jnp.zeros((8, 4), jnp.bfloat16)},
            r"half is bfloat16\[8, 8\] there and bfloat16\[8, 4\] here; use the config",
        ),
        (lambda p: p | {"half": jnp.zeros((8, 8))}, r"half is bfloat16\[8, 8\] there and float32"),
        (lambda p: p | {"new": jnp.zeros(3)}, r"params/new is missing there and float32\[3\] here"),
        (
            lambda p: {"conv": p["conv"]},
            r"params/flags is bool\[16\] there and missing here \(also params/half\)",
        ),
    ],
)
def test_mismatch_is_not_corruption(two_steps, change, message):
    state = make_state()
    target = abstract(dataclasses.replace(state, params=change(state.params)))
    with pytest.raises(UserError, match=message) as error:
        two_steps.restore(target, on_warning=pytest.fail)
    assert "\n" not in str(error.value) and "checkpoints/2 does not fit" in str(error.value)


@pytest.mark.parametrize("async_save", [True, False])
def test_directory_below_a_file(tmp_path, async_save):
    (tmp_path / "file").write_text("")
    checkpoints = Checkpoints(tmp_path / "file" / "checkpoints", async_save=async_save)
    with pytest.raises(NotADirectoryError, match="checkpoint 1 was not saved.*file/checkpoints"):
        checkpoints.save(1, make_state(), {})
        checkpoints.wait()


@pytest.mark.parametrize("async_save", [True, False])
def test_full_disk_is_an_os_error_and_loses_nothing(tmp_path, monkeypatch, async_save):
    """tensorstore's words for a full disk, raised where the arrays are written."""
    from orbax.checkpoint._src.serialization import serialization

    checkpoints = Checkpoints(tmp_path, keep_latest=1, async_save=async_save)
    checkpoints.save(1, make_state(1), {})
    checkpoints.wait()

    async def full(*_, **__):
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device [os_error_code='28']")

    with monkeypatch.context() as patch:
        patch.setattr(serialization, "async_serialize_from_host", full)
        with pytest.raises(OSError, match="checkpoint 2 was not saved") as error:
            checkpoints.save(2, make_state(2), {})
            # Asynchronous: the next call tells, before it saves anything.
            checkpoints.save(3, make_state(3), {})
    assert error.value.errno == errno.ENOSPC and error.value.filename == str(tmp_path)
    assert "\n" not in str(error.value) and error.value.__cause__ is not None
    checkpoints.wait()  # told once
    assert checkpoints.restore(abstract(make_state()))[2] == 1
    assert checkpoints.save(2, make_state(2), {})
    checkpoints.close()
    assert checkpoints.all_steps() == [2]


def test_unreadable_is_not_corrupt(two_steps, monkeypatch):
    def refuse(*_):
        raise ValueError("PERMISSION_DENIED: Error opening file [os_error_code='13']")

    monkeypatch.setattr(integrity, "_restore", refuse)
    with pytest.raises(PermissionError, match="cannot be read.*/2"):
        two_steps.restore(abstract(make_state()), on_warning=pytest.fail, repair=True)
    assert two_steps.all_steps() == [1, 2]


def test_record_is_readable_json(two_steps):
    record = json.loads((two_steps.directory / "2" / "meta" / "metadata").read_text())
    want = digests(make_state(2))
    assert record["meta"] == {"images": 2}
    assert {name: a["digest"] for name, a in record["arrays"].items()} == want
    assert record["arrays"]["params/half"]["shape"] == [8, 8]
    assert record["arrays"]["params/half"]["dtype"] == "bfloat16"


class TestWeights:
    def test_round_trip(self, tmp_path):
        params = on_mesh(make_state(3).params, 1)
        save_weights(tmp_path, "g", params)
        assert_same(load_weights(tmp_path, "g"), make_state(3).params)
        target = abstract(on_mesh(params, 2))
        loaded = load_weights(tmp_path, "g", target)
        assert_same(loaded, make_state(3).params)
        assert loaded["conv"]["kernel"].sharding == target["conv"]["kernel"].sharding

    def test_overwrites_and_names_what_is_there(self, tmp_path):
        save_weights(tmp_path, "g_ema", {"w": jnp.zeros(3)})
        save_weights(tmp_path, "g_ema", {"w": jnp.ones(4)})
        np.testing.assert_array_equal(load_weights(tmp_path, "g_ema")["w"], np.ones(4))
        assert [p.name for p in (tmp_path / "weights").iterdir()] == ["g_ema"]
        with pytest.raises(UserError, match="no weights 'd' in .*: it has g_ema"):
            load_weights(tmp_path, "d")
        with pytest.raises(UserError, match="no weights 'd' in .*: it has none"):
            load_weights(tmp_path / "elsewhere", "d")

    @pytest.mark.parametrize("damage", [truncate, spoil_index, remove_record])
    def test_corrupt(self, tmp_path, damage):
        params = make_state(3).params
        save_weights(tmp_path, "g", params)
        damage(tmp_path / "weights" / "g")
        for target in (None, abstract(params)):
            with pytest.raises(UserError, match="weights/g is corrupt, import or copy it again"):
                load_weights(tmp_path, "g", target)

    def test_a_failed_overwrite_keeps_the_old(self, tmp_path, monkeypatch):
        save_weights(tmp_path, "g", {"w": jnp.zeros(3)})

        def full(*_, **__):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint.ocp.Checkpointer, "save", full)
            with pytest.raises(OSError, match="weights 'g' were not saved"):
                save_weights(tmp_path, "g", {"w": jnp.ones(3)})
        np.testing.assert_array_equal(load_weights(tmp_path, "g")["w"], np.zeros(3))

    def test_below_a_file(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(NotADirectoryError, match="weights 'g' were not saved"):
            save_weights(tmp_path / "file", "g", {"w": jnp.zeros(3)})
