"""Weights of a model directory: round trips, damage, failed overwrites."""

import errno

import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax.errors import UserError
from biggan_jax.storage import replacement, weights
from biggan_jax.storage.weights import load_weights, save_weights, saved_names
from tests import killing
from tests.small_state import (
    assert_same,
    make_state,
    on_mesh,
    remove_record,
    spoil_index,
    target_of,
    truncate,
)


def test_round_trip(tmp_path):
    params = on_mesh(make_state(3).params, 1)
    save_weights(tmp_path, "g", params)
    assert_same(load_weights(tmp_path, "g"), make_state(3).params)
    target = target_of(on_mesh(params, 2))
    loaded = load_weights(tmp_path, "g", target)
    assert_same(loaded, make_state(3).params)
    assert loaded["conv"]["kernel"].sharding == target["conv"]["kernel"].sharding


def test_overwrites_and_names_what_is_there(tmp_path):
    save_weights(tmp_path, "g_ema", {"w": jnp.zeros(3)})
    save_weights(tmp_path, "g_ema", {"w": jnp.ones(4)})
    np.testing.assert_array_equal(load_weights(tmp_path, "g_ema")["w"], np.ones(4))
    assert [p.name for p in (tmp_path / "weights").iterdir()] == ["g_ema"]
    with pytest.raises(UserError, match="no weights 'd' in .*: it has g_ema"):
        load_weights(tmp_path, "d")
    with pytest.raises(UserError, match="no weights 'd' in .*: it has none"):
        load_weights(tmp_path / "elsewhere", "d")


@pytest.mark.parametrize(
    "damage",
    [truncate, *(pytest.param(x, marks=pytest.mark.full) for x in (spoil_index, remove_record))],
)
def test_corrupt(tmp_path, damage):
    params = make_state(3).params
    save_weights(tmp_path, "g", params)
    damage(tmp_path / "weights" / "g")
    for target in (None, target_of(params)):
        with pytest.raises(UserError, match="weights/g is corrupt, import or copy it again"):
            load_weights(tmp_path, "g", target)


def test_a_failed_overwrite_keeps_the_old(tmp_path, monkeypatch):
    save_weights(tmp_path, "g", {"w": jnp.zeros(3)})

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(weights.ocp.Checkpointer, "save", full)
        with pytest.raises(OSError, match="weights 'g' were not saved"):
            save_weights(tmp_path, "g", {"w": jnp.ones(3)})
    np.testing.assert_array_equal(load_weights(tmp_path, "g")["w"], np.zeros(3))


def test_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="weights 'g' were not saved"):
        save_weights(tmp_path / "file", "g", {"w": jnp.zeros(3)})


@pytest.mark.parametrize("remote", [False, True])
def test_a_kill_at_any_instant_leaves_whole_weights(tmp_path, monkeypatch, remote):
    """Each change of the disk in a replacement is once the one that does not come."""
    if remote:
        monkeypatch.setattr(replacement, "paths", killing.BUCKET)
    old, new = {"w": jnp.zeros(3)}, {"w": jnp.ones(3)}
    save_weights(tmp_path, "g", old)
    found = []
    for number in killing.instants():
        with killing.killed_at(number, monkeypatch, replacement, "prepare", "commit") as changes:
            save_weights(tmp_path, "g", new)
        found.append(float(load_weights(tmp_path, "g")["w"][0]))  # reading repairs nothing
        assert saved_names(tmp_path) == ["g"]
        if len(changes) < number:
            break
        save_weights(tmp_path, "g", old)  # what a kill left behind disturbs nothing
        assert sorted(p.name for p in (tmp_path / "weights").iterdir()) == ["g"]
    assert set(found) == {0.0, 1.0} and found[-1] == 1.0 and len(found) > 6
