"""What is stored is checked: damage, mismatch and unreadable files are told apart."""

import dataclasses
import json
import os

import jax.numpy as jnp
import pytest

from biggan_jax.errors import UserError
from biggan_jax.storage import integrity
from biggan_jax.storage.digest import digests
from tests.small_state import (
    assert_same,
    make_state,
    remove_record,
    save_two_steps,
    spoil_index,
    spoil_record,
    target_of,
    truncate,
    zero_64_bytes,
)


@pytest.fixture
def two_steps(tmp_path):
    return save_two_steps(tmp_path / "checkpoints")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, ""),
        (zero_64_bytes, "bits differ from those saved in ema/params/noise, params/noise"),
        pytest.param(spoil_index, "JSONDecodeError", marks=pytest.mark.full),
        (spoil_record, "its record does not match its seal"),
        pytest.param(remove_record, "its record is unreadable", marks=pytest.mark.full),
    ],
)
def test_damage_falls_back_to_the_step_before(two_steps, damage, reason):
    damage(two_steps.directory / "2")
    before = sorted(os.walk(two_steps.directory))
    warnings = []
    state, meta, step = two_steps.restore(target_of(make_state()), on_warning=warnings.append)
    assert step == 1 and meta == {"images": 1}
    assert_same(state, make_state(1))
    assert len(warnings) == 1 and "\n" not in warnings[0]
    assert f"checkpoint 2 in {two_steps.directory} is corrupt: {reason}" in warnings[0]
    assert sorted(os.walk(two_steps.directory)) == before  # reading changes nothing
    with pytest.raises(UserError, match=r"no intact checkpoint in .* \(corrupt: 2\)"):
        two_steps.restore(target_of(make_state()), step=2, on_warning=warnings.append)


def test_all_corrupt_is_a_user_error(two_steps, capsys):
    for step in ("1", "2"):
        truncate(two_steps.directory / step)
    with pytest.raises(UserError, match=r"no intact checkpoint in .* \(corrupt: 2, 1\)") as error:
        two_steps.restore(target_of(make_state()))
    assert "\n" not in str(error.value)
    assert capsys.readouterr().err.count("warning: checkpoint") == 2
    assert two_steps.all_steps() == [1, 2]  # nothing is set aside without something to go back to


def test_partial_restore_checks_what_it_reads(two_steps, monkeypatch):
    """A flipped bit of the EMA makes it fall back; one of another part does not concern it."""
    target = {"ema": target_of(make_state().ema)}

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
            r"params/flags is bool\[16\] there and missing here \(also params/half, params/noise\)",
        ),
    ],
)
def test_mismatch_is_not_corruption(two_steps, change, message):
    state = make_state()
    target = target_of(dataclasses.replace(state, params=change(state.params)))
    with pytest.raises(UserError, match=message) as error:
        two_steps.restore(target, on_warning=pytest.fail)
    assert "\n" not in str(error.value) and "checkpoints/2 does not fit" in str(error.value)


def test_what_one_side_may_lack(two_steps):
    """Left out, or zeros; anything else is as strict as ever."""
    optional = lambda name: name.split("/")[-1] in ("noise", "new")
    state = make_state()
    params = {name: x for name, x in state.params.items() if name != "noise"}
    less = dataclasses.replace(state, params=params)
    more = dataclasses.replace(state, params=state.params | {"new": jnp.ones(3)})
    found, _, step = two_steps.restore(target_of(less), optional=optional)
    assert step == 2
    saved = make_state(2)
    assert_same(found, dataclasses.replace(saved, params={n: saved.params[n] for n in params}))
    found = two_steps.restore(target_of(more), optional=optional)[0]
    zeros = saved.params | {"new": jnp.zeros(3)}
    assert_same(found, dataclasses.replace(saved, params=zeros))
    for target in (less, more):
        with pytest.raises(UserError, match="does not fit"):
            two_steps.restore(target_of(target))
    params = {n: x for n, x in params.items() if n != "half"}
    with pytest.raises(UserError, match="params/half is .* missing here; use"):
        less = dataclasses.replace(state, params=params)
        two_steps.restore(target_of(less), optional=optional)


def test_unreadable_is_not_corrupt(two_steps, monkeypatch):
    def refuse(*_):
        cause = ValueError("PERMISSION_DENIED: Error opening file [os_error_code='13']")
        raise Exception("Encountered error while reading array index") from cause

    monkeypatch.setattr(integrity, "_restore", refuse)
    with pytest.raises(PermissionError, match="cannot be read.*/2"):
        two_steps.restore(target_of(make_state()), on_warning=pytest.fail)
    assert two_steps.all_steps() == [1, 2]


def test_record_is_readable_json(two_steps):
    record = json.loads((two_steps.directory / "2" / "meta" / "metadata").read_text())
    want = digests(make_state(2))
    assert record["meta"] == {"images": 2}
    assert {name: a["digest"] for name, a in record["arrays"].items()} == want
    assert record["arrays"]["params/half"]["shape"] == [8, 8]
    assert record["arrays"]["params/half"]["dtype"] == "bfloat16"
