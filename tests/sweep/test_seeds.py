"""`biggan train --seeds K`: as many runs as seeds, each as if it had been trained alone."""

import csv
import json
import math
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax import errors
from biggan_jax.errors import UserError
from biggan_jax.parallel import memory
from biggan_jax.sampling import load
from biggan_jax.storage import checkpoint
from biggan_jax.sweep import seed_results, spread
from biggan_jax.training import hooks, seed_forms, step
from biggan_jax.training.progress import TrainLog
from tests import runs


@pytest.fixture(scope="module", autouse=True)
def scored():
    """Scores in place of a classifier, which would take longer than all else here."""

    def during_training(config, source, digest, workdir):
        def scores(variables, done):
            total = sum(float(np.abs(x).sum()) for x in jax.tree.leaves(jax.device_get(variables)))
            return {"scores": {"fid": total, "is_mean": 1.0}, "protocol": {"workdir": str(workdir)}}

        return scores

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hooks.evaluate, "during_training", during_training)
        yield


@pytest.fixture(scope="module")
def group(tmp_path_factory, programs, scored):
    """The seeds 0 and 1, four steps; a test changes a copy only."""
    folder = tmp_path_factory.mktemp("seeds") / "group"
    assert runs.train(folder, "--seeds=2") == 0
    return folder


@pytest.fixture
def copied(group, tmp_path):
    return shutil.copytree(group, tmp_path / "group")


def steps(workdir):
    return checkpoint.Checkpoints(workdir / "checkpoints").all_steps()


def test_every_seed_is_a_run_of_its_own(group, trained, tmp_path):
    """The bits of runs that were trained alone, and all that they leave."""
    alone = tmp_path / "alone"
    assert runs.train(alone, "--config.seed=1") == 0
    for own, other in ((group / "seed_0", trained), (group / "seed_1", alone)):
        assert steps(own) == [2, 4]
        runs.assert_same_state(own, other, 4)
        *lines, scores = runs.metric_lines(own)
        assert lines == runs.metric_lines(other) and scores["eval/is_mean"] == 1
        assert json.loads((own / "config.json").read_text()) == json.loads(
            (other / "config.json").read_text()
        )
        for name in ("step_00000004.png", "real.png"):
            picture = f"samples/{name}"
            assert (own / picture).read_bytes() == (other / picture).read_bytes()
    images = [
        load.load_generator(path)(np.ones((1, 12), np.float32), [3])
        for path in (group / "seed_1", alone)
    ]
    assert np.array_equal(*images)


def test_scores_are_means_and_deviations(group):
    found = json.loads((group / "seeds.json").read_text())
    values = [row["metrics"]["eval/fid"] for row in found["seeds"]]
    assert values[0] != values[1]
    fid = found["scores"]["eval/fid"]
    assert fid["mean"] == pytest.approx(sum(values) / 2) and fid["count"] == 2
    assert fid["deviation"] == pytest.approx(abs(values[0] - values[1]) / math.sqrt(2))
    assert found["metrics"]["d_loss"]["deviation"] > 0
    rows = list(csv.DictReader((group / "seeds.csv").open()))
    assert [row["seed"] for row in rows] == ["0", "1", "mean", "deviation", "count"]
    assert float(rows[2]["eval/fid"]) == pytest.approx(fid["mean"])
    text = seed_results.table(found)
    assert spread.text_of(fid) in text and " ± " in text
    shown = [errors.spread(*pair) for pair in ((23.084, 6.97), (1.0, 0.0), (2e9, 3e7), (0.5, None))]
    assert shown == ["23.1 ± 7.0", "1 ± 0", "2e+09 ± 3e+07", "0.5"]
    one = spread.over([{"a": 2.0, "eval/step": 4}, {"a": None}])
    assert one == {"a": {"mean": 2.0, "deviation": None, "count": 1}}


def assert_close(one, many) -> None:
    """The states of a run, as it was trained alone and as one of several by `vmap`."""
    pairs = zip(*(jax.tree.leaves(s.replace(key=None)) for s in (one, many)), strict=True)
    for a, b in pairs:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        # A bias in front of batch norm has no gradient but rounding, which Adam makes steps of.
        if a.ndim > 1:
            assert np.linalg.norm(a - b) <= 1e-2 * np.linalg.norm(a)  # squares of gradients too
    assert np.array_equal(*(jax.random.key_data(state.key) for state in (one, many)))


@pytest.mark.full
def test_vmap_is_the_same_to_rounding():
    """All seeds in one step, three times; each draws latents and labels of its own."""
    config = runs.tiny_config(
        *("--config.model.ch=2", "--config.model.g_attention=()", "--config.batch_size=4"),
        "--config.model.num_classes=10",
    )
    train_step = runs.build_lib.train_step(config, runs.sharding.make_mesh((1,)))
    init, single = jax.jit(train_step.init), step.jit_train_step(train_step)
    states = [init(jax.random.key(seed)) for seed in range(2)]
    vmap = seed_forms.Vmap(train_step)
    many = vmap.stack(states)
    rng = np.random.default_rng(0)
    for _ in range(3):
        batches = [
            {
                "image": rng.integers(0, 256, (1, 4, 16, 16, 1)).astype(np.uint8),
                "label": rng.integers(0, 10, (1, 4)).astype(np.int32),
            }
            for _ in states
        ]
        found = [single(state, batch) for state, batch in zip(states, batches, strict=True)]
        states = [state for state, _ in found]
        many, metrics = vmap(many, batches, [True, True])
        for (_, own), other in zip(found, vmap.metrics(metrics), strict=True):
            assert own.keys() == other.keys()
            assert all(other[name] == pytest.approx(float(own[name]), 1e-3) for name in own)
    for i, state in enumerate(states):
        assert_close(state, vmap.state(many, i))
    used = seed_forms.bytes_of_state(train_step)
    fits = [
        seed_forms.fitting(train_step, config, form, 2, int(share * used))
        for form, share in ((seed_forms.TURNS, 2.5), (seed_forms.VMAP, 1000))
    ]
    assert fits == [1, 2]


@pytest.mark.full
def test_a_run_by_vmap(group, tmp_path, capsys):
    assert runs.train(tmp_path / "vmap", "--seeds=2", "--seeds-form=vmap", "--json") == 0
    assert json.loads(capsys.readouterr().out)["step"] == 4
    for name in ("seed_0", "seed_1"):
        assert_close(*(runs.load_state(folder / name)[0] for folder in (group, tmp_path / "vmap")))


@pytest.mark.full
def test_continues_where_each_seed_is(copied, group, capsys):
    """A kill between two saves, a new seed, and a finished one."""
    shutil.rmtree(copied / "seed_1" / "checkpoints" / "4")
    shutil.rmtree(copied / "seed_0")
    assert runs.train(copied, "--seeds=2", "--json") == 0
    captured = capsys.readouterr()
    assert "seed_1 after step 2 of 4" in captured.err
    result = json.loads(captured.out)
    assert result["finished"] and [row["step"] for row in result["seeds"]] == [4, 4]
    for name in ("seed_0", "seed_1"):
        runs.assert_same_state(copied / name, group / name, 4)
        assert runs.metric_lines(copied / name) == runs.metric_lines(group / name)
    # One of them goes on as a run of its own.
    assert runs.train(copied / "seed_1", "--config.seed=1", "--config.num_steps=5") == 0
    assert steps(copied / "seed_1")[-1] == 5


@pytest.mark.full
def test_a_signal_saves_all_seeds(tmp_path, group, monkeypatch, capfd):
    folder, jit = tmp_path / "group", step.jit_train_step

    def signalled(train_step):
        jitted, calls = jit(train_step), []

        def call(state, batch):
            calls.append(1)
            if len(calls) == 5:  # in the middle of step 3
                signal.raise_signal(signal.SIGTERM)
            return jitted(state, batch)

        return call

    monkeypatch.setattr(step, "jit_train_step", signalled)
    assert runs.train(folder, "--seeds=2") == 75
    assert "stopped after step 3; the same command continues" in capfd.readouterr().err
    assert [steps(folder / f"seed_{i}")[-1] for i in range(2)] == [3, 3]
    found = json.loads((folder / "seeds.json").read_text())
    assert [row["state"] for row in found["seeds"]] == ["unfinished"] * 2
    monkeypatch.undo()
    assert runs.train(folder, "--seeds=2") == 0
    runs.assert_same_state(folder / "seed_1", group / "seed_1", 4)


def test_a_seed_that_fails_leaves_the_others_alone(tmp_path, group, monkeypatch, capsys):
    folder, read, logs = tmp_path / "group", TrainLog.read, []

    def poisoned(log, pending):
        if pending is not None and pending[0] == 2:
            logs.append(log)
            if len(logs) == 2:  # that of the second seed
                pending = 2, pending[1] | {"g_loss": jnp.nan}
        read(log, pending)

    monkeypatch.setattr(TrainLog, "read", poisoned)
    assert runs.train(folder, "--seeds=2", "--json") == 1
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert [row["state"] for row in result["seeds"]] == ["finished", "failed"]
    assert "g_loss is nan at step 2" in result["seeds"][1]["error"]
    assert result["scores"]["eval/fid"]["count"] == 1 and not result["finished"]
    assert steps(folder / "seed_1") == []
    runs.assert_same_state(folder / "seed_0", group / "seed_0", 4)


def test_without_scores_where_there_can_be_none(tmp_path, monkeypatch, capsys):
    def refused(config, *rest):
        if config.eval_every_steps is not None:
            raise UserError("a single class has no classifier")

    monkeypatch.setattr(hooks.evaluate, "during_training", refused)
    given = ("--seeds=1", "--config.num_steps=1")
    assert runs.train(tmp_path / "group", *given) == 0
    assert "no scores at the end: a single class" in capsys.readouterr().err
    asked = "--config.eval_every_steps=1"
    assert runs.train(tmp_path / "asked", *given, asked) == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--seeds=0"], ["--seeds 0", "1 or more"]),
        (["--seeds=-3"], ["1 or more"]),
        (["--seeds=two"], ["no whole number"]),
        (["--seeds=3", "--config.seed=4294967294"], ["4294967295", "give 2 at most"]),
        (["--seeds=1e12"], ["give 4294967296 at most"]),
        (["--seeds=2", "--fork=elsewhere"], ["leave --fork or --seeds out"]),
        (["--seeds=2", "--config.guard.action=rollback"], ["guard.action=stop"]),
        (["--seeds-form=vmap"], ["give the number of seeds by --seeds K"]),
        (["--seeds=2", "--seeds-form=vmap", "--config.mesh=2"], ["--config.mesh=1"]),
        (["--seeds=2", "--seeds-form=vmpa"], ["did you mean 'vmap'"]),
        (["--seeds=2", "--config.data.source=folder:nowhere"], ["nowhere"]),
    ],
)
def test_bad_options(tmp_path, capsys, given, words):
    assert runs.train(tmp_path / "group", *given) == 2
    runs.assert_one_error(capsys.readouterr(), *words)
    assert not (tmp_path / "group").exists()


def test_more_than_the_memory_holds(tmp_path, capsys, monkeypatch):
    """How many fit; as many are taken."""
    size = seed_forms.bytes_of_state(runs.build_lib.train_step(
        runs.tiny_config("--config.model.num_classes=10"), runs.sharding.make_mesh((1,))
    ))  # fmt: skip
    monkeypatch.setattr(memory, "available", lambda: 5 * size)
    given = (tmp_path / "group", "--config.num_steps=1")
    assert runs.train(*given, "--seeds=3") == 2
    runs.assert_one_error(capsys.readouterr(), "--seeds 3: 2 fit into", "give --seeds 2 at most")
    assert not (tmp_path / "group").exists()
    assert runs.train(*given, "--seeds=2") == 0
    monkeypatch.setattr(memory, "available", lambda: size)
    capsys.readouterr()
    assert runs.train(tmp_path / "none", "--seeds=1") == 2
    runs.assert_one_error(capsys.readouterr(), "0 fit", "lower --config.model.ch")


@pytest.mark.parametrize("what", ["config", "run", "foreign", "file"])
def test_a_folder_of_something_else(copied, trained, capsys, what):
    """One line, and nothing is changed."""
    place, given = copied, ["--seeds=2"]
    if what == "config":  # the second run, and the first one is not there: it is not begun
        shutil.rmtree(copied / "seed_0")
        given.append("--config.optimizer.g_lr=0.001")
    elif what == "run":
        place = trained
    elif what == "foreign":
        (copied / "thesis.tex").write_text("years of work")
    else:
        place = copied / "seeds.csv"
    before = sorted(path.relative_to(copied) for path in copied.rglob("*"))
    assert runs.train(place, *given) == 2
    words = {"config": ["seed_1", "optimizer.g_lr"], "run": ["holds one run", "leave --seeds out"]}
    words |= {"foreign": ["thesis.tex"], "file": ["is a file"]}
    runs.assert_one_error(capsys.readouterr(), *words[what])
    assert before == sorted(path.relative_to(copied) for path in copied.rglob("*"))
    if what == "config":  # and the other way round: a folder of seeds is no workdir
        assert runs.train(copied) == 2
        runs.assert_one_error(capsys.readouterr(), "holds other things", "seed_1")
