"""metrics.jsonl and TensorBoard event files, read back."""

import errno
import importlib.machinery
import importlib.util
import inspect
import json
import logging
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import clu
import numpy as np
import pytest

from biggan_jax import cli
from biggan_jax.errors import UserError
from biggan_jax.storage import events, metric_writer, wandb_run, writers
from biggan_jax.storage.writers import Writers
from tests import runs


def read(workdir):
    text = (workdir / "metrics.jsonl").read_text()
    assert not text or text.endswith("\n")
    refuse = lambda name: pytest.fail(f"{name} is not JSON")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


@pytest.fixture
def plain(tmp_path):
    writer = Writers(tmp_path / "run", ("jsonl",))
    yield writer, tmp_path / "run"
    writer.close()


def test_one_line_a_write_at_once(plain):
    writer, workdir = plain
    writer.write(1, 64, {"d_loss": np.float32(0.5), "g_loss": 2})
    assert read(workdir) == [{"step": 1, "images_seen": 64, "d_loss": 0.5, "g_loss": 2.0}]
    writer.write(np.int64(2), np.int64(128), {"d_loss": np.asarray(1.5)})
    assert read(workdir)[1] == {"step": 2, "images_seen": 128, "d_loss": 1.5}


def test_not_a_number_is_null(plain):
    writer, workdir = plain
    writer.write(1, 64, {"a": float("nan"), "b": np.float32("inf"), "c": float("-inf"), "d": 1.0})
    assert read(workdir) == [
        {"step": 1, "images_seen": 64, "a": None, "b": None, "c": None, "d": 1}
    ]


def test_appends_to_an_earlier_run(tmp_path):
    for step in (1, 2):
        writer = Writers(tmp_path, ("jsonl",))
        writer.write(step, step, {})
        writer.close()
        writer.close()
        writer.write(9, 9, {})  # closed: nothing
    assert [line["step"] for line in read(tmp_path)] == [1, 2]


def test_cut_after_drops_later_and_torn_lines(plain):
    writer, workdir = plain
    for step in range(1, 6):
        writer.write(step, 10 * step, {"x": step})
    with open(workdir / "metrics.jsonl", "a") as file:
        file.write('{"step": 3, "images_se')
    writer.cut_after(3)
    assert [line["step"] for line in read(workdir)] == [1, 2, 3]
    writer.write(4, 40, {"x": -4})
    assert read(workdir)[3:] == [{"step": 4, "images_seen": 40, "x": -4.0}]
    assert os.listdir(workdir) == ["metrics.jsonl"]
    writer.cut_after(0)
    assert read(workdir) == []


def test_cut_after_completes_a_line_without_its_end(plain):
    writer, workdir = plain
    (workdir / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}')
    writer.cut_after(2)
    writer.write(3, 3, {})
    assert [line["step"] for line in read(workdir)] == [1, 2, 3]


def test_cut_after_is_atomic(plain, monkeypatch):
    writer, workdir = plain
    for step in (1, 2):
        writer.write(step, step, {})
    before = (workdir / "metrics.jsonl").read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        writer.cut_after(1)
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_cut_after_leaves_a_whole_file_alone(plain):
    writer, workdir = plain
    writer.write(1, 1, {})
    before = os.stat(workdir / "metrics.jsonl")
    writer.cut_after(1)
    assert os.stat(workdir / "metrics.jsonl").st_ino == before.st_ino


def test_inactive_process_writes_nothing(tmp_path):
    writer = Writers(tmp_path / "run", active=False)
    writer.write(1, 1, {"x": 1.0})
    writer.write_images(1, {"x": np.zeros((2, 2, 3), np.uint8)})
    writer.cut_after(0)
    writer.flush()
    writer.close()
    assert not (tmp_path / "run").exists()


def test_unwritable_workdir_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        Writers(tmp_path / "file" / "run", ("jsonl",))


def test_importing_loads_no_tensorflow():
    code = (
        "import sys, tempfile, biggan_jax.storage.writers as w\n"
        "w.Writers(tempfile.mkdtemp(), ['jsonl']).write(1, 1, {'x': 1})\n"
        "print([m for m in ('tensorboard', 'wandb', 'clu') if m in sys.modules])\n"
        "w.Writers(tempfile.mkdtemp()).write(1, 1, {'x': 1})\n"
        "print([m for m in ('tensorflow', 'wandb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "[]"]


WRITE_AND_READ = """
import json, sys
import numpy as np
from biggan_jax.storage.writers import Writers

writer = Writers(sys.argv[1])
for step in (1, 2):
    writer.write(step, 64 * step, {"d_loss": step / 4, "bad": float("nan")})
grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
writer.write_images(2, {"samples": np.stack([grey] * 3, axis=-1), "grey": grey})
writer.close()
print("written", file=sys.stderr, flush=True)

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

events = EventAccumulator(sys.argv[1])
events.Reload()
read = {
    tag: [(e.step, tensor_util.make_ndarray(e.tensor_proto).tolist()) for e in events.Tensors(tag)]
    for tag in events.Tags()["tensors"]
}
print(json.dumps(read, default=lambda b: b.decode("latin1")))
"""


def test_event_files_read_back(tmp_path):
    """In a process of its own: TensorFlow stays out of this one, and stderr is its too."""
    command = [sys.executable, "-c", WRITE_AND_READ, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = done.stderr.splitlines()
    assert said[0] == "written"  # what reads loads TensorFlow where it is installed, and that talks
    assert [line["d_loss"] for line in read(tmp_path)] == [0.25, 0.5]
    names = sorted(os.listdir(tmp_path))
    assert len(names) == 2 and names[0].startswith("events.out.tfevents.")

    events = json.loads(done.stdout)
    assert events["d_loss"] == [[1, 0.25], [2, 0.5]]
    assert events["images_seen"] == [[1, 64.0], [2, 128.0]]
    assert np.isnan(events["bad"][0][1])
    for tag in ("samples", "grey"):
        ((step, (width, height, png)),) = events[tag]
        assert (step, width, height, png[:4]) == (2, "4", "3", "\x89PNG")


RESUMED = """
import json, logging, sys
from biggan_jax.storage.writers import Writers
import numpy as np

def run(start, end, value):
    writer = Writers(sys.argv[1])
    writer.cut_after(start)
    for step in range(start + 1, end + 1):
        writer.write(step, step, {"loss": value})
        writer.write_images(step, {"grey": np.zeros((2, 2), np.uint8)})
    writer.close()

run(0, 6, 1.0)  # killed after step 6, saved at step 4
run(4, 8, 2.0)
run(4, 5, 3.0)  # and again
from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator
from tensorboard.util import tensor_util

def read(events):
    events.Reload()
    value = lambda event: float(tensor_util.make_ndarray(event.tensor_proto))
    loss = [(event.step, value(event)) for event in events.Tensors("loss")]
    return [loss, [e.step for e in events.Tensors("grey")]]

found = read(event_accumulator.EventAccumulator(sys.argv[1]))
# The one of a TensorBoard that runs meanwhile.
running = plugin_event_accumulator.EventAccumulator(sys.argv[1])
assert read(running) == found
logging.disable(logging.WARNING)  # it says what it drops
run(4, 6, 4.0)
print(json.dumps([*found, *read(running)]))
"""


@pytest.mark.full
def test_no_step_of_a_resumed_run_is_twice_in_tensorboard(tmp_path):
    command = [sys.executable, "-c", RESUMED, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    loss, grey, later_loss, later_grey = json.loads(done.stdout)
    assert loss == [[1, 1.0], [2, 1.0], [3, 1.0], [4, 1.0], [5, 3.0]]
    assert grey == [1, 2, 3, 4, 5]
    assert later_loss == [*loss[:4], [5, 4.0], [6, 4.0]] and later_grey == [*grey, 6]
    assert [line["loss"] for line in read(tmp_path)] == [1.0, 1.0, 1.0, 1.0, 4.0, 4.0]
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_failed_event_file_is_an_os_error(tmp_path, monkeypatch):
    """The thread's error surfaces as one line at the next call; the JSON lines go on."""

    def full(self, step, scalars):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(events.EventFiles, "write_scalars", full)
    filters = list(logging.getLogger("absl").filters)
    writer = Writers(tmp_path)
    writer.write(1, 1, {"x": 1.0})
    with pytest.raises(OSError, match=f"event files in {tmp_path} were .*: No space left") as error:
        writer.flush()
    assert "\n" not in str(error.value)
    writer.write(2, 2, {"x": 1.0})
    assert len(logging.getLogger("absl").filters) == len(filters) + 1
    writer.close()
    assert logging.getLogger("absl").filters == filters
    assert [line["step"] for line in read(tmp_path)] == [1, 2]


def test_torn_and_foreign_event_files(tmp_path):
    """A torn record is left out, a file without later steps is not touched, others are cut."""
    board = events.EventFiles(tmp_path)
    for step in (1, 2, 3):
        board.write_scalars(step, {"x": step})
    board.close()
    (path,) = tmp_path.glob(events.NAMES)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[-40:-7])
    foreign = tmp_path / "events.out.tfevents.1.other"
    foreign.write_bytes(b"no records")
    before = os.stat(path).st_ino
    events.cut_after(tmp_path, 3).close()
    assert os.stat(path).st_ino == before and foreign.read_bytes() == b"no records"
    events.cut_after(tmp_path, 2).close()
    kept = path.read_bytes()
    assert whole.startswith(kept) and 0 < len(kept) < len(whole)


def test_the_interface_is_clus():
    """clu's file by itself: its package would load TensorFlow."""
    place = Path(clu.__file__).parent / "metric_writers" / "interface.py"
    spec = importlib.util.spec_from_file_location("clu_interface", place)
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    methods = dict(inspect.getmembers(theirs.MetricWriter, inspect.isfunction))
    assert theirs.MetricWriter.__abstractmethods__ <= methods.keys()
    for name, method in methods.items():
        ours = inspect.signature(getattr(metric_writer.MetricWriter, name)).parameters
        expected = inspect.signature(method).parameters
        assert [(p.name, p.kind, p.default) for p in ours.values()] == [
            (p.name, p.kind, p.default) for p in expected.values()
        ], name


def test_writers_of_configs():
    config = runs.tiny_config()
    assert "tensorboard" not in writers.of(config)  # tests say tensorboard=False
    with config.unlocked():
        config.tensorboard = None
        config.writers = ("jsonl", "tensorboard", "wandb")
        assert writers.of(config) == config.writers
        config.tensorboard = False  # as earlier versions say it
        assert writers.of(config) == ("jsonl", "wandb")
        config.writers, config.tensorboard = ("jsonl",), True
        assert writers.of(config) == ("jsonl", "tensorboard")
        del config["writers"]
        assert writers.of(config) == ("jsonl", "tensorboard")


@pytest.mark.parametrize("value", ["tensorboard", "jsonl,jsonl", "jsonl,board"])
def test_writers_that_are_none(value, tmp_path, capsys):
    command = ["train", "--config=digits", f"--workdir={tmp_path}", f"--config.writers={value}"]
    assert cli.main(command) == 2
    runs.assert_one_error(capsys.readouterr(), "writers")


def test_wandb_that_is_not_installed(tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "wandb" else find(n))
    command = ["train", "--config=digits", f"--workdir={tmp_path}", "--config.writers=jsonl,wandb"]
    assert cli.main(command) == 2
    runs.assert_one_error(capsys.readouterr(), r"pip install 'biggan_jax\[wandb\]'")
    assert not list(tmp_path.iterdir())


def test_a_variable_that_wandb_does_not_take(tmp_path, monkeypatch):
    """It is named in one line: wandb has pydantic's error of several, no error of its own."""

    class Refused(ValueError):
        def errors(self):
            return [{"loc": ("mode",), "msg": "Input should be 'online' or 'offline'"}]

    def init(**settings):
        raise Refused("1 validation error for Settings\nmode\n  Input should be ...")

    fake = types.ModuleType("wandb")
    fake.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    fake.errors = types.SimpleNamespace(Error=type("Error", (Exception,), {}))
    fake.Settings, fake.init = dict, init
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with pytest.raises(UserError, match="WANDB_MODE cannot be used .Input .*: correct or unset"):
        wandb_run.WandbRun(tmp_path)
    fake.init = lambda **settings: (_ for _ in ()).throw(fake.errors.Error("No API key.\nUse"))
    with pytest.raises(UserError, match="^wandb: No API key: run `wandb login`, set WANDB_MODE"):
        wandb_run.WandbRun(tmp_path)


def test_offline_run_of_wandb(tmp_path, monkeypatch, capfd):
    """wandb's own reader finds what was written, in a run that goes on with the same name."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for start in (0, 2):
        writer = Writers(tmp_path / "mine", ("jsonl", "wandb"), config=runs.tiny_config())
        writer.cut_after(start)
        for step in (start + 1, start + 2):
            writer.write(step, 8 * step, {"loss": step / 4})
        writer.write_images(start + 2, {"samples": np.zeros((2, 2, 3), np.uint8)})
        writer.close()
    assert capfd.readouterr().out == ""
    folders = sorted((tmp_path / "mine" / "wandb").glob("offline-run-*"))
    identity = (tmp_path / "mine" / wandb_run.ID).read_text()
    assert folders and all(folder.name.endswith(identity) for folder in folders)
    rows = lambda: [row for folder in folders for row in history(folder)]
    deadline = time.monotonic() + 20
    while len(rows()) < 4 and time.monotonic() < deadline:  # its service writes a moment later
        time.sleep(0.1)
    found = [(row["_step"], row["loss"], row["images_seen"]) for row in rows()]
    assert found == [(step, step / 4, 8 * step) for step in (1, 2, 3, 4)]
    assert [row["_step"] for row in rows() if "samples.path" in row] == [2, 4]


def history(folder):
    """The rows that an offline run of wandb holds: records in LevelDB's form of a log."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("*.wandb")
    data, at, parts = path.read_bytes(), 7, []
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # the rest of a block is empty
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts.append(data[at + 7 : at + 7 + size])
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record.FromString(b"".join(parts))
            parts = []
            if record.HasField("history"):
                items = record.history.item
                yield {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items}
