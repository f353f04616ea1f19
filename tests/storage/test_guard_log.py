"""guard.jsonl: every line seals itself and those before it."""

import json

import numpy as np
import pytest

from biggan_jax.storage import guard_log


def event(step, state="warning", attempt=0, **more):
    numbers = {"signal": "gap", "value": 1.5, "limit": 1.0}
    return {"step": step, "state": state} | numbers | {"attempt": attempt, "text": "é"} | more


@pytest.fixture
def written(tmp_path):
    """(workdir, the events in its guard.jsonl)."""
    events = []
    for new in (
        event(5),
        event(7, "rolled_back", to_step=4, changes={"optimizer.d_lr": [2e-4, 5e-5]}),
        event(5, attempt=1),
        event(9, "healthy", attempt=1, value=None),
    ):
        events = guard_log.append(tmp_path, events, new)
    return tmp_path, events


def test_what_is_read_was_written(written, tmp_path):
    workdir, events = written
    assert guard_log.read(workdir) == (events, None)
    assert guard_log.attempt(events) == 1
    lines = (workdir / guard_log.FILE).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [5, 7, 5, 9]
    assert guard_log.read(tmp_path / "nowhere") == ([], None)
    guard_log.write(workdir, events[:1])
    assert guard_log.read(workdir) == (events[:1], None)
    guard_log.write(tmp_path / "new", [])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("step", "kept"), [(9, 4), (8, 3), (4, 2)])
def test_a_run_that_goes_on_writes_later_events_again(written, step, kept):
    """Those of earlier attempts stay, however far these had come."""
    events = written[1]
    assert guard_log.up_to(events, step) == events[:kept]


def test_any_changed_byte_is_seen(written):
    """200 changes: what is read is the beginning of the truth, and the first false line is told."""
    workdir, events = written
    path, random = workdir / guard_log.FILE, np.random.default_rng(0)
    whole = path.read_bytes()
    for i in range(200):
        data, at = bytearray(whole), int(random.integers(len(whole)))
        if i % 4 == 0:
            data[at] ^= 1 << int(random.integers(8))
        elif i % 4 == 1:
            del data[at]
        elif i % 4 == 2:
            data.insert(at, int(random.integers(256)))
        else:
            del data[at:]
        path.write_bytes(bytes(data))
        found, line = guard_log.read(workdir)
        assert found == events[: len(found)]
        if bytes(data) != whole and not (i % 4 == 3 and whole[at - 1 : at] in (b"\n", b"")):
            assert line == len(found) + 1 == whole[:at].count(b"\n") + 1


def test_lines_in_another_order(written):
    workdir, events = written
    path = workdir / guard_log.FILE
    lines = path.read_text().splitlines(keepends=True)
    for changed in ([0, 2, 3], [0, 0, 1, 2, 3], [1, 0, 2, 3]):
        path.write_text("".join(lines[i] for i in changed))
        found, line = guard_log.read(workdir)
        assert line == len(found) + 1 and found == events[: len(found)]
    path.unlink()
    path.mkdir()
    assert guard_log.read(workdir) == ([], 1)
