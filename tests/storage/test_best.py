"""The best scored state of a run: which one is kept, and that no kill loses it."""

import json
import math
import os
import shutil
import subprocess
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax import cli
from biggan_jax.storage import best, replacement
from biggan_jax.storage.directory import open_directory
from biggan_jax.storage.weights import load_weights, saved_names
from tests import killing, runs
from tests.small_state import on_mesh

CONFIG = runs.tiny_config().to_dict()


def state_of(value: float):
    """A training state as far as `best` looks at it; D has no batch statistics."""
    network = lambda x, stats: types.SimpleNamespace(
        variables={"params": {"w": jnp.full((8, 2), x)}, "spectral": {}, "batch_stats": stats}
    )
    return types.SimpleNamespace(
        generator=network(value, {"mean": jnp.full(2, value)}),
        ema=network(value + 0.25, {"mean": jnp.full(2, value)}),
        discriminator=network(value + 0.5, {}),
        averages={},
    )


def keep(workdir, step, fid, protocol=None, **scores):
    scores = scores if fid is None else {"fid": fid} | scores
    return best.keep(workdir, step, state_of(step), CONFIG, scores, protocol=protocol)


def values(folder) -> list[float]:
    """The first weight of all three networks, every one checked against its digest."""
    trees = [load_weights(folder, name) for name in ("g", "g_ema", "d")]
    return [float(tree["params"]["w"][0, 0]) for tree in trees]


def test_the_best_one_is_a_model_directory_with_its_score(tmp_path):
    assert best.read(tmp_path) is None
    assert keep(tmp_path, 3, np.float32(7.5), {"samples": 70}, kid=math.nan)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best"]
    folder, config = open_directory(tmp_path / "best")
    assert config.to_dict() == CONFIG
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "score.json", "weights"]
    assert saved_names(folder) == ["d", "g", "g_ema"] and values(folder) == [3, 3.25, 3.5]
    assert set(load_weights(folder, "d")) == {"params"}
    assert best.read(tmp_path) == {
        "step": 3,
        "metric": "fid",
        "score": 7.5,
        "scores": {"fid": 7.5, "kid": None},
        "protocol": {"samples": 70},
    }


@pytest.mark.parametrize("fid", [None, math.nan, math.inf, -math.inf, 20.0, 20.5])
def test_missing_wrong_equal_and_worse_scores_keep_the_old(tmp_path, fid):
    assert not keep(tmp_path, 1, None, kid=0.1) and not keep(tmp_path, 1, math.nan)
    assert not (tmp_path / "best").exists()
    assert keep(tmp_path, 2, 20.0)
    before = (tmp_path / "best" / "score.json").read_bytes()
    assert not keep(tmp_path, 3, fid)
    assert (tmp_path / "best" / "score.json").read_bytes() == before
    assert values(tmp_path / "best")[0] == 2
    assert keep(tmp_path, 4, 19.5) and best.read(tmp_path)["step"] == 4
    assert values(tmp_path / "best") == [4, 4.25, 4.5]


def test_scores_of_other_protocols_are_not_compared(tmp_path):
    first = {"samples": 70, "step": 1, "fingerprint": "a"}
    assert keep(tmp_path, 1, 10.0, first)
    assert not keep(tmp_path, 2, 11.0, first | {"step": 2})
    other = {"samples": 99, "step": 3, "fingerprint": "b"}
    assert keep(tmp_path, 3, 12.0, other) and best.read(tmp_path)["step"] == 3
    assert values(tmp_path / "best.earlier") == [1, 1.25, 1.5]  # and nothing is lost
    assert not keep(tmp_path, 4, 13.0, other)
    (tmp_path / "best" / "score.json").write_text("{")
    assert keep(tmp_path, 5, 14.0, other) and values(tmp_path / "best.earlier-2")[0] == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best", "best.earlier", "best.earlier-2"]


def test_arrays_on_eight_devices(tmp_path):
    state = state_of(1.0)
    state.ema.variables = on_mesh(state.ema.variables, 2)
    assert best.keep(tmp_path, 1, state, CONFIG, {"fid": 1.0})
    assert values(tmp_path / "best") == [1, 1.25, 1.5]


@pytest.mark.parametrize(
    "case",
    [
        "better",
        *(pytest.param(case, marks=pytest.mark.full) for case in ("first", "another protocol")),
        "bucket",
    ],
)
def test_a_kill_at_any_instant_leaves_the_old_or_the_new_one(tmp_path, monkeypatch, case):
    """Each change of the disk behind the arrays is once the one that does not come."""
    if case == "bucket":
        monkeypatch.setattr(replacement, "paths", killing.BUCKET)
    weight = lambda folder: load_weights(folder, "g_ema")["params"]["w"][0, 0]

    def keep(workdir, step, fid, protocol):
        network = {"g_ema": state_of(step).generator.variables}
        return best.keep_networks(workdir, step, network, CONFIG, {"fid": fid}, protocol=protocol)

    start = tmp_path / "start"
    start.mkdir()
    if case != "first":
        assert keep(start, 1, 30.0, {"samples": 1})
    protocol = {"samples": 2 if case == "another protocol" else 1}
    steps = set()
    for number in killing.instants():
        workdir = tmp_path / str(number)
        shutil.copytree(start, workdir)
        with killing.killed_at(
            number, monkeypatch, replacement, "prepare", "commit", "copy"
        ) as changes:
            keep(workdir, 2, 20.0, protocol)
        found = best.read(workdir)
        if found is None:
            assert case == "first"
            steps.add(None)
        else:
            folder, _ = open_directory(workdir / "best")
            assert weight(folder) == found["step"]
            steps.add(found["step"])
        if len(changes) < number:
            break
        # The run goes on from its last checkpoint and scores again.
        assert keep(workdir, 2, 20.0, protocol) == (found is None or found["step"] == 1)
        assert not keep(workdir, 3, 21.0, protocol)
        assert weight(workdir / "best") == 2
        names = sorted(p.name for p in workdir.iterdir())
        assert names[0] == "best" and not {"best.new", "best.old", "best.copying"} & set(names)
        shutil.rmtree(workdir)
    assert number > 2 and steps == {None if case == "first" else 1, 2}


@pytest.mark.full
def test_arrays_on_two_processes(tmp_path):
    command = [sys.executable, "-m", "tests.storage.keep_best", str(runs.free_port())]
    flags = os.environ["XLA_FLAGS"].replace("count=8", "count=4")
    started = [
        subprocess.Popen(
            [*command, str(process), str(tmp_path)],
            cwd=runs.ROOT,
            env=os.environ | {"XLA_FLAGS": flags},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    outputs = runs.read_all(started, timeout=120)
    assert all(out.endswith("done\n") for out, _ in outputs), outputs
    assert values(tmp_path / "best") == [3, 3, 3] and best.read(tmp_path)["score"] == 8
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best"]


@pytest.mark.full
def test_commands_take_it(run_copy, tmp_path, capsys):
    state, step = runs.load_state(run_copy)
    config = json.loads((run_copy / "config.json").read_text())
    assert best.keep(run_copy, step, state, config, {"fid": 1.0})
    folder = run_copy / "best"
    for source in (run_copy, folder):
        out = tmp_path / f"{source.name}.npz"
        assert cli.main(["sample", f"--from={source}", f"--out={out}", "--per-class=1"]) == 0
    with np.load(tmp_path / "run.npz") as a, np.load(tmp_path / "best.npz") as b:
        np.testing.assert_array_equal(a["images"], b["images"])
    whole = [f"--from={folder}", f"--out={tmp_path / 'best.safetensors'}", "--json"]
    capsys.readouterr()
    assert cli.main(["export", "--format=safetensors", *whole]) == 0
    assert json.loads(capsys.readouterr().out)["networks"].keys() == {"g", "g_ema", "d"}
    assert cli.main(["inspect", f"--from={folder}"]) == 0
    more = ("--config.num_steps=1", f"--config.init_from={folder}")
    assert runs.train(tmp_path / "finetuned", *more) == 0
