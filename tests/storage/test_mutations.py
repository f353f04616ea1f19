"""Damaged JSON of a run: refused in one line, the same as before, or said. Never a traceback."""

import collections
import json
import os
import shlex
import shutil
import subprocess

import numpy as np
import pytest

from biggan_jax import cli
from biggan_jax import config as config_lib
from biggan_jax.config import resume
from biggan_jax.errors import UserError
from biggan_jax.evaluation import follow
from biggan_jax.sampling import load, spectra
from biggan_jax.storage import (
    best,
    directory,
    guard_log,
    json_file,
    json_lines,
    lock,
    running,
    steps,
)
from biggan_jax.storage.weights import save_weights
from biggan_jax.storage.writers import Writers
from biggan_jax.sweep import results
from tests import mutations, runs


@pytest.fixture
def model_directory(trained, tmp_path):
    """What an import writes: config.json, and the weights with a copy of it."""
    config = json.loads((trained / "config.json").read_text())
    saved = {"model": config["model"], "class_names": config["class_names"]}
    save_weights(
        tmp_path / "model", "g_ema", {"params": {"w": np.ones(2, np.float32)}}, {"config": saved}
    )
    (tmp_path / "model" / "config.json").write_text(json.dumps(saved))
    return tmp_path / "model"


@pytest.mark.parametrize("kind", ["run_copy", "model_directory"])
def test_200_mutations_of_a_config(kind, request):
    folder = request.getfixturevalue(kind)
    path, seen = folder / "config.json", collections.Counter()
    data = path.read_bytes()
    whole = config_lib.flatten(directory.read_config(folder)[1])
    for seed in range(mutations.COUNT):
        path.write_bytes(mutations.mutated("config", data, seed))
        try:
            _, config, beside = directory.read_config(folder)
        except UserError as error:
            assert "\n" not in str(error) and str(path) in str(error), seed
            seen["refused"] += 1
            continue
        found = config_lib.flatten(config)
        differing = [key for key in whole if found[key] != whole[key]]
        remark = beside.remark
        if remark is not None:
            assert str(path) in remark and all(key in remark for key in differing[:3]), seed
        elif differing:  # what a person may have written there
            assert all(map(resume.may_change, differing)), (seed, differing)
        seen["warned" if remark else "legal" if differing else "equal"] += 1
    assert seen["refused"] > 160 and seen["legal"] < 10, seen


def edited(folder, **changes):
    """Writes other values of settings into a config.json."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        *section, name = key.split("__")
        (config[section[0]] if section else config)[name] = value
    path.write_text(json.dumps(config))


def test_another_model_is_refused_and_the_advice_works(run_copy, tmp_path, capsys):
    """Its weights would not fit, or worse they would, and draw other images."""
    before = json.loads((run_copy / "config.json").read_text())
    edited(run_copy, model__z_distribution="uniform", model__bn_eps=0.5)
    out = tmp_path / "x.png"
    source = f"--from={run_copy}"
    train = ["train", *runs.TINY, f"--workdir={run_copy}"]
    for command in (["sample", source, f"--out={out}"], ["inspect", source], train):
        assert cli.main(command) == 2
        words = "config.json has model.*bn_eps 0.5, not 1e-05.* as checkpoint 4 was saved with"
        captured = capsys.readouterr()
        runs.assert_one_error(captured, words, "z_distribution uniform, not normal")
    advice = captured.err.partition("by `")[2].rpartition("`")[0]
    subprocess.run(shlex.split(advice), check=True)
    assert json.loads((run_copy / "config.json").read_text()) == before
    assert not out.exists()


def test_what_no_run_changes_is_said_once(run_copy, tmp_path, capsys):
    """And the images are the same; what a person may change by hand is taken without a word."""
    argv = ["sample", f"--from={run_copy}", "--per-class=1", "--classes=0"]
    assert cli.main([*argv, f"--out={tmp_path}/a.npz"]) == 0
    edited(run_copy, num_steps=9, tensorboard=True, optimizer__g_lr=0.5)
    capsys.readouterr()
    assert cli.main([*argv, f"--out={tmp_path}/b.npz"]) == 0
    assert "warning" not in capsys.readouterr().err
    edited(run_copy, batch_size=32)
    assert cli.main([*argv, f"--out={tmp_path}/c.npz"]) == 0
    err = capsys.readouterr().err
    assert err.count("has batch_size 32, not 16 as checkpoint 4 was saved with") == 1
    a, b, c = (np.load(tmp_path / f"{name}.npz")["images"] for name in "abc")
    assert (a == b).all() and (a == c).all()
    # train is refused, with the file named.
    assert runs.train(run_copy) == 2
    runs.assert_one_error(capsys.readouterr(), f"{run_copy}/config.json has batch_size 32")
    edited(run_copy, batch_size=16)
    assert runs.train(run_copy) == 2
    words = f"{run_copy}/config.json: .*optimizer.g_lr 0.5 -> 0.0004.*--allow-change"
    runs.assert_one_error(capsys.readouterr(), words)


def commands(folder, out):
    """Command lines that read a directory."""

    def init_from():
        shutil.rmtree(out, ignore_errors=True)  # a run that goes on does not read it again
        return runs.train(out, f"--config.init_from={folder}")

    return {
        "sample": lambda: cli.main(
            ["sample", f"--from={folder}", "--classes=0", "--per-class=1", f"--out={out}.npz"]
        ),
        "inspect": lambda: cli.main(["inspect", f"--from={folder}"]),
        "export": lambda: cli.main(["export", f"--from={folder}", f"--out={out}.safetensors"]),
        "look": lambda: cli.main(["look", "spectra", f"--from={folder}", f"--out={out}.png"]),
        "train": lambda: runs.train(folder),
        "init_from": init_from,
        "evaluate": lambda: cli.main(["evaluate", f"--from={folder}", "--samples=3"]),
    }


def through_commands(folder, out, seeds, capsys, names):
    """Counts of {refused, warned, as before} over mutations of config.json and commands."""
    path, seen = folder / "config.json", collections.Counter()
    data = path.read_bytes()
    for seed in seeds:
        for name in names:
            path.write_bytes(mutations.mutated("config", data, seed))
            code = commands(folder, out)[name]()
            captured = capsys.readouterr()
            assert "Traceback" not in captured.err, (seed, name)
            if code != 0:
                *before, last = captured.err.splitlines()
                assert last.startswith("biggan: "), (seed, name, captured.err)
                assert all(line.startswith("warning: ") for line in before), (seed, name)
            refused = code != 0 and str(path) in captured.err
            warned = str(path) in captured.err
            outcome = "refused" if refused else "warned" if warned else "as before"
            seen[outcome] += 1
            seen[f"{name} {outcome}"] += 1
    path.write_bytes(data)
    return seen


@pytest.mark.full
def test_mutations_through_commands(run_copy, tmp_path, capsys):
    names = ("sample", "inspect", "train", "evaluate", "export")
    seen = through_commands(run_copy, tmp_path / "out", range(5), capsys, names)
    assert seen["refused"] > 15, seen


@pytest.mark.full
def test_200_mutations_through_every_command(run_copy, tmp_path, capsys):
    names = commands(run_copy, tmp_path)
    seen = through_commands(run_copy, tmp_path / "out", range(mutations.COUNT), capsys, names)
    print(seen)
    assert seen["refused"] > 0.7 * mutations.COUNT * len(names), seen


def test_a_folder_or_a_pipe_in_the_place_of_a_config(run_copy, tmp_path, capsys):
    path = run_copy / "config.json"
    for make in (path.mkdir, lambda: os.mkfifo(path), lambda: path.write_bytes(b"")):
        path.unlink() if path.is_file() or path.is_fifo() else shutil.rmtree(path, True)
        make()
        with pytest.raises(UserError, match=f"{path} cannot be read: .*put a copy of it back"):
            directory.open_directory(run_copy)
        with pytest.raises(UserError, match="config.json cannot be read"):
            load.load_generator(run_copy)


LINES = [
    {"step": s, "images_seen": 16 * s, "monitor/g/raw_sigma0/a": 1.5, "x": None}
    for s in range(1, 9)
]
SCORED = [
    {"step": s, "scores": {"fid": 9.0 - s}, "protocol": {"real": "digits"}} for s in range(1, 5)
]


def written(records) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def test_200_mutations_of_metrics(trained, tmp_path, capsys):
    """A resume keeps every line that can be read, and says which cannot."""
    shutil.copy(trained / "config.json", tmp_path)
    path, data, seen = tmp_path / "metrics.jsonl", written(LINES), collections.Counter()
    for seed in range(mutations.COUNT):
        mutated = mutations.mutated("lines", data, seed)
        path.write_bytes(mutated)
        found = results.last_metrics(tmp_path)
        assert isinstance(found["step"], int)
        try:
            curves = spectra.read(tmp_path)
            assert all(np.isreal(v).all() for _, v in curves["g"].values())
        except UserError as error:
            assert "\n" not in str(error) and str(tmp_path) in str(error), seed
        capsys.readouterr()
        writer = Writers(tmp_path, ("jsonl",))
        writer.cut_after(6)
        writer.close()
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [json.loads(line) for line in lines]
        assert all(line["step"] <= 6 for line in kept)
        told = "left out" in capsys.readouterr().err
        parts = json_lines.split(mutated)
        assert told or not parts.damaged, seed
        steps_of = [r["step"] for r in parts.records if type(r.get("step")) is int]
        assert [line["step"] for line in kept] == [s for s in steps_of if 0 <= s <= 6], seed
        whole = lines == written(LINES[:6]).splitlines(keepends=True)
        seen["said" if told else "equal" if whole else "shorter"] += 1
    assert seen["said"] > 60 and seen["equal"] > 20, seen


def test_a_damaged_line_of_metrics_is_said_and_a_torn_one_is_not(tmp_path, capsys):
    lines = written(LINES[:4]).splitlines(keepends=True)
    for damage, words in (
        (b'{"step": 2, "ima\n', "metrics.jsonl: line 2 cannot be read, or not in order"),
        (lines[1].replace(b'"step": 2', b'"step": 7'), "line 2 cannot be read, or not in order"),
        (b"[" * 9999 + b"\n", "line 2 cannot be read"),
    ):
        (tmp_path / "metrics.jsonl").write_bytes(b"".join([lines[0], damage, *lines[2:], b'{"st']))
        writer = Writers(tmp_path, ("jsonl",))
        writer.cut_after(4)
        writer.close()
        err = capsys.readouterr().err
        assert words in err and err.count("\n") == 1
        assert (tmp_path / "metrics.jsonl").read_bytes() == lines[0] + b"".join(lines[2:])
    (tmp_path / "metrics.jsonl").write_bytes(b"".join([*lines, b'{"step": 5, "ima']))
    writer = Writers(tmp_path, ("jsonl",))
    writer.cut_after(4)
    writer.close()
    assert capsys.readouterr().err == ""


def test_200_mutations_of_the_scores_of_a_follower(tmp_path, capsys):
    path, data, seen = tmp_path / "evaluations.jsonl", written(SCORED), collections.Counter()
    for seed in range(mutations.COUNT):
        path.write_bytes(mutations.mutated("lines", data, seed))
        log = follow.Log(tmp_path, tensorboard=False)
        log.begin(SCORED[0]["protocol"])
        assert all(type(step) is int for step in log.scored)
        log.is_best(SCORED[-1])
        assert log.result().keys() == {"evaluations", "best"}
        seen["said" if "scored anew" in capsys.readouterr().err else "read"] += 1
    assert seen["said"] > 60, seen


def test_200_mutations_of_a_score_and_of_a_lock(tmp_path):
    record = {"step": 4, "metric": "fid", "score": 2.5, "scores": {"fid": 2.5}, "protocol": None}
    claim = running.this_process() | {"host": "away", "beat": "000000000001"}
    (tmp_path / "best").mkdir()
    for seed in range(mutations.COUNT):
        (tmp_path / "best" / "score.json").write_bytes(
            mutations.mutated("config", json.dumps(record).encode(), seed)
        )
        found = best.read(tmp_path)
        assert found is None or (type(found["step"]) is int and np.isfinite(found["score"])), seed
        best._is_better(found, record)
        assert steps._step_of(tmp_path / "best") is None or found is not False
        owner = lock._parsed(mutations.mutated("config", json.dumps(claim).encode(), seed))
        assert isinstance(owner, dict) and isinstance(lock._age(owner), str)
        lock._lives(owner, "x.json")


@pytest.mark.parametrize(
    "text",
    ['{"a": 1, "a": 2}', "NaN", "[1e999]", "[" * 70 + "]" * 70, "[" * 10**5, '"\\ud800"', "",
     "{", b"\xff", "1" * 5000, b'\xef\xbb\xbf{"a" 1}'],
)  # fmt: skip
def test_what_json_must_not_hold(text):
    with pytest.raises(ValueError) as error:
        json_file.parse(text)
    assert "\n" not in str(error.value)
    text = text if isinstance(text, bytes) else text.encode()
    assert json_lines.split(b"{}\n" + text + b"\n{}\n").numbers == [1, 3]


def test_what_json_may_hold():
    """A name of a file that is no UTF-8, an editor's mark, and a torn end."""
    assert json_file.parse('"\\udcff"') == "\udcff"
    assert json_file.parse(b'\xef\xbb\xbf{"a": [1.5]}') == {"a": [1.5]}
    found = json_lines.split(b'{"a": 1}\n\n{"a": 2}\n{"a"')
    assert found.records == [{"a": 1}, {"a": 2}] and found.numbers == [1, 3]
    assert found.damaged == [] and found.unended
    assert json_lines.split(b'{"a": 1}').records == [{"a": 1}]


def test_a_run_that_takes_its_settings_from_its_config_says_what_is_new_there(run_copy, capsys):
    edited(run_copy, optimizer__g_lr=0.5, num_steps=4)
    assert cli.main(["train", f"--workdir={run_copy}"]) == 0
    err = capsys.readouterr().err
    assert "by config.json, from step 4 on: optimizer.g_lr 0.0004 -> 0.5" in err
    assert cli.main(["train", f"--workdir={run_copy}", "--config.optimizer.g_lr=0.0004"]) == 2


def test_200_mutations_of_a_guard_log(tmp_path):
    """What is read is the beginning of the truth, and the first line that is not is named."""
    events = []
    for number in range(6):
        event = {"step": number, "state": "warning", "signal": "gap", "value": 1.5, "limit": 1.0}
        event |= {"action": "warn", "attempt": 0, "text": "é"}
        events = guard_log.append(tmp_path, events, event)
    path, seen = tmp_path / guard_log.FILE, collections.Counter()
    data = path.read_bytes()
    for seed in range(mutations.COUNT):
        mutated = mutations.mutated("lines", data, seed)
        path.write_bytes(mutated)
        found, line = guard_log.read(tmp_path)
        assert found == events[: len(found)], seed
        # Whole lines that are missing at the end are what a run has not written yet: checkpoints
        # hold the events up to their step.
        cut = data.startswith(mutated) and mutated.endswith((b"\n", b""))
        assert line is not None or found == events or cut, seed
        seen["refused" if line is not None else "equal" if found == events else "shorter"] += 1
    assert seen["refused"] > 150, seen
