"""Checkpoints: round trips over shardings, retention, repair, errors of the disk."""

import errno

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest

from biggan_jax.errors import UserError
from biggan_jax.storage import integrity
from biggan_jax.storage.checkpoint import Checkpoints
from biggan_jax.storage.digest import digests
from tests.small_state import (
    assert_same,
    make_state,
    on_mesh,
    save_two_steps,
    target_of,
    zero_64_bytes,
)


@pytest.fixture
def two_steps(tmp_path):
    return save_two_steps(tmp_path / "checkpoints")


@pytest.mark.parametrize(("saved_axis", "read_axis"), [(1, 2), (1, "one"), ("one", 1)])
def test_round_trip_over_shardings(tmp_path, saved_axis, read_axis):
    place = lambda s, axis: s if axis == "one" else on_mesh(s, axis)
    state, like = place(make_state(5), saved_axis), place(make_state(0), read_axis)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, state, {"images": 640, "shape": (1, 2), "score": 0.1})
    restored, meta, step = checkpoints.restore(target_of(like))
    checkpoints.close()
    assert_same(restored, state)
    assert (meta, step) == ({"images": 640, "shape": [1, 2], "score": 0.1}, 5)
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


@pytest.mark.parametrize("async_save", [True, False])
def test_donated_state_is_saved_as_it_was(tmp_path, async_save):
    checkpoints = Checkpoints(tmp_path, async_save=async_save)
    state = on_mesh({"w": jnp.arange(2.0**20).reshape(1024, 1024)}, 1)
    want = digests(state)
    overwrite = jax.jit(lambda s: {"w": s["w"] + 1.0}, donate_argnums=0)
    for step in (1, 2):
        checkpoints.save(step, state, {})
        kept, state = state, jax.block_until_ready(overwrite(state))
        # On the CPU an asynchronous save reads the buffer itself: XLA copies, and donates nothing.
        assert kept["w"].is_deleted() or async_save
        assert digests(checkpoints.restore(target_of(state))[0]) == want
        want = digests(state)
    checkpoints.close()


def test_empty_directory(tmp_path):
    checkpoints = Checkpoints(tmp_path / "none")
    assert checkpoints.latest_step() is None
    with pytest.raises(UserError, match="no checkpoint in .*none: train first"):
        checkpoints.restore(target_of(make_state()))
    assert not (tmp_path / "none").exists()


def test_save_again_after_falling_back(two_steps):
    zero_64_bytes(two_steps.directory / "2")
    target = target_of(make_state())
    _, _, step = two_steps.restore(target, on_warning=lambda _: None)
    assert step == 1 and two_steps.discard_after(1) == [2]
    assert two_steps.all_steps() == [1]
    assert (two_steps.directory / "2.discarded" / "state").is_dir()
    assert two_steps.save(2, make_state(9), {"images": 9})
    state, meta, step = two_steps.restore(target)
    assert (meta, step) == ({"images": 9}, 2)
    assert_same(state, make_state(9))
    assert two_steps.discard_after(1) == [2]
    assert (two_steps.directory / "2.discarded-2").is_dir()


def test_saving_a_step_twice_and_an_older_one(two_steps):
    assert two_steps.save(2, make_state(7), {}) is False
    assert two_steps.restore(target_of(make_state()), step=2)[1] == {"images": 2}
    with pytest.raises(UserError, match="checkpoint 2 in .* is newer than step 0: move it away"):
        two_steps.save(0, make_state(), {})
    assert two_steps.save(3, make_state(), {}) is True
    assert two_steps.save(3, make_state(), {}) is False  # also while it is being written
    two_steps.close()
    assert two_steps.all_steps() == [2, 3]


def save_as_before(directory, keep_latest=1, scores=(10, 50, 30)):
    """Writes checkpoints with scores as versions did that kept the best one among them."""
    policies = ocp.checkpoint_managers
    best_fn = lambda metrics: metrics["fid"]
    keep = [policies.LatestN(keep_latest), policies.BestN(get_metric_fn=best_fn, reverse=True, n=1)]
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(keep), best_fn=best_fn, best_mode="min"
    )
    with ocp.CheckpointManager(directory, options=options) as manager:
        for step, score in enumerate(scores, start=1):
            args = integrity.save_args({"w": jnp.full(4, float(step))}, {"images": step})
            manager.save(step, args=args, metrics={"fid": score}, force=True)


def test_a_run_of_an_earlier_version_goes_on_and_keeps_its_best(tmp_path):
    save_as_before(tmp_path)
    target = {"w": jax.ShapeDtypeStruct((4,), jnp.float32)}
    for step in (4, 5):
        # A fresh object each time, as after a restart.
        checkpoints = Checkpoints(tmp_path, keep_latest=1)
        before = checkpoints.latest_step()
        state, meta, found = checkpoints.restore(target)
        assert found == before and state["w"][0] == found
        assert checkpoints.save(step, state | {"w": jnp.full(4, float(step))}, {})
        checkpoints.close()
    assert checkpoints.all_steps() == [1, 5]
    assert checkpoints.restore(target, step=1)[1] == {"images": 1}


def test_torn_metrics_file_of_an_earlier_version_deletes_nothing(tmp_path):
    save_as_before(tmp_path)
    checkpoints = Checkpoints(tmp_path, keep_latest=1)
    assert checkpoints.all_steps() == [1, 3]
    (tmp_path / "1" / "metrics" / "metrics").write_text('{"fid"')
    target = {"w": jax.ShapeDtypeStruct((4,), jnp.float32)}
    assert checkpoints.restore(target, step=1)[2] == 1
    assert checkpoints.save(4, {"w": jnp.ones(4)}, {})
    checkpoints.close()
    assert checkpoints.all_steps() == [1, 3, 4]


def test_latest_only(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_latest=2, async_save=False)
    for step in (10, 20, 30):
        checkpoints.save(step, {"w": jnp.ones(4)}, {})
    assert checkpoints.all_steps() == [20, 30]


def test_leftover_of_a_killed_save(two_steps):
    leftover = two_steps.directory / "3.orbax-checkpoint-tmp"
    leftover.mkdir()
    assert two_steps.all_steps() == [1, 2]
    assert two_steps.restore(target_of(make_state()))[2] == 2 and leftover.exists()
    assert two_steps.save(4, make_state(4), {})
    two_steps.close()
    assert two_steps.all_steps() == [2, 4] and not leftover.exists()


def test_partial_restore(two_steps):
    target = {"ema": target_of(on_mesh(make_state().ema, 1))}
    part, meta, step = two_steps.restore_partial(target)
    assert_same(part, {"ema": make_state(2).ema})
    assert (meta, step) == ({"images": 2}, 2)
    with pytest.raises(UserError, match="emma/params/conv/bias is missing there and float32"):
        two_steps.restore_partial({"emma": target["ema"]})


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
    assert checkpoints.restore(target_of(make_state()))[2] == 1
    assert checkpoints.save(2, make_state(2), {})
    checkpoints.close()
    assert checkpoints.all_steps() == [2]
