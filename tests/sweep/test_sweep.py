"""launch/sweep.py: which runs a sweep has, what it does when they fail or stop, its results."""

import csv
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from biggan_jax.sweep import results as results_lib
from biggan_jax.sweep import runs as sweep_runs
from tests import runs

SCRIPT = runs.ROOT / "launch" / "sweep.py"
TABLE_1 = runs.ROOT / "launch" / "biggan_table1.txt"
TINY = [x for x in runs.TINY if not x.startswith("--config.num_steps")]
FAKE = runs.ROOT / "tests" / "fake_train.py"  # stands for `biggan train`


def script():
    """launch/sweep.py as a module."""
    spec = importlib.util.spec_from_file_location("launch_sweep", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(*arguments) -> int:
    return script().main([*TINY, *map(str, arguments)])


@pytest.fixture
def fake(tmp_path):
    """Arguments of a sweep over the seeds 0, 1, 2 whose command is FAKE."""
    folder = tmp_path / "fake"
    folder.mkdir()
    shutil.copy(FAKE, folder / "train.py")
    program = shlex.join([sys.executable, str(folder / "train.py")])
    return [
        f"--out={tmp_path / 'out'}",
        "--sweep=seed=0,1,2",
        f"--command={program} {{config}} {{workdir}} {{overrides}}",
    ]


def calls(out) -> list[int]:
    """How often each of the three seeds was run."""
    found = (out / f"seed={seed}" / "calls" for seed in range(3))
    return [len(path.read_text().splitlines()) if path.exists() else 0 for path in found]


def states(out) -> list[str]:
    return [r["state"] for r in json.loads((out / "results.json").read_text())]


def test_points_and_grid(tmp_path):
    """Every line with every combination; a name says what differs, in any order of the keys."""
    points = tmp_path / "points.txt"
    points.write_text(
        "# width\nmodel.ch=4\n\n--config.model.ch=8 'model.g_attention=(8,)' # wide\n"
    )

    def make(**settings):
        return sweep_runs.make_runs(runs.DIGITS, ["--config.seed=3"], tmp_path, **settings)

    got = make(points=points, sweep=["batch_size=16,32"])
    assert [run.overrides for run in got] == [
        {"model.ch": "4", "batch_size": "16"},
        {"model.ch": "4", "batch_size": "32"},
        {"model.ch": "8", "model.g_attention": "(8,)", "batch_size": "16"},
        {"model.ch": "8", "model.g_attention": "(8,)", "batch_size": "32"},
    ]
    assert got[0].name == "batch_size=16,model.ch=4"
    assert got[0].arguments == [
        "--config.seed=3",
        "--config.model.ch=4",
        "--config.batch_size=16",
    ]
    assert got[3].config.model.g_attention == (8,) and got[3].config.seed == 3
    assert len({run.name for run in got}) == 4 and "(" not in got[3].name
    swapped = make(sweep=["model.ch=4", "batch_size=16"])[0]
    assert (swapped.name, swapped.workdir) == (got[0].name, tmp_path / got[0].name)
    # What a folder cannot be called is told apart by a digest.
    spaced = make(sweep=["data.source=folder:a/b,folder:a-b"])
    assert len({run.name for run in spaced}) == 2 and all("/" not in run.name for run in spaced)


def test_every_run_with_several_seeds(fake, tmp_path, capsys):
    """Values are means with deviations; a group is finished where all its seeds are."""
    out, given = tmp_path / "out", [x for x in fake if "--sweep" not in x]
    given += ["--sweep=optimizer.g_lr=0.001,0.002", "--seeds=3"]
    assert call(*given) == 0
    table = capsys.readouterr().out
    assert "2.0 ± 1.0" in table and "7.5 ± 0" in table
    results = json.loads((out / "results.json").read_text())
    assert [r["seeds"] for r in results] == [3, 3]
    assert results[0]["metrics"]["d_loss"] == 2 and results[0]["deviations"]["d_loss"] == 1
    (row, _) = csv.DictReader((out / "results.csv").open())
    assert (row["d_loss"], row["d_loss_deviation"], row["seeds"]) == ("2.0", "1.0", "3")
    shutil.rmtree(out / "optimizer.g_lr=0.002" / "seed_1" / "checkpoints")
    assert call(*given, "--print") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("--config.optimizer.g_lr=0.002 --seeds=3")
    # The same folder for another kind of runs: nothing is started, and nothing changed.
    assert call(*given[:-1]) == 2
    runs.assert_one_error(capsys.readouterr(), "holds several seeds: give --seeds K")
    (out / "optimizer.g_lr=0.001" / "config.json").write_text("{}")
    assert call(*given) == 2
    runs.assert_one_error(capsys.readouterr(), "holds one run: leave --seeds out")
    assert call(*given[:-1], "--seeds=0") == 2
    runs.assert_one_error(capsys.readouterr(), "--seeds 0: give the number of seeds")


def test_table_1():
    """The example: eight rows, batch and width as printed there."""
    config = str(runs.ROOT / "configs" / "biggan128.py")
    got = [run.config for run in sweep_runs.make_runs(config, [], "unused", points=TABLE_1)]
    assert [c.batch_size for c in got] == [512, 1024, *[2048] * 6]
    assert [c.model.ch for c in got] == [64, 64, 64, 96, 96, 96, 96, 64]
    assert [c.num_steps // 1000 for c in got] == [1000, 1000, 732, 295, 185, 152, 165, 371]


def test_a_failed_run_is_reported_and_the_others_go_on(fake, tmp_path, capsys):
    out = tmp_path / "out"
    (tmp_path / "fake" / "1").write_text("3")
    assert call(*fake, "--json") == 1
    captured = capsys.readouterr()
    (line,) = captured.out.splitlines()  # the runs' own words are on stderr
    results = json.loads(line)["runs"]
    assert [r["state"] for r in results] == ["finished", "failed", "finished"]
    assert "seed=1 (exit code 3): biggan: this run ends early" in captured.err
    assert "not for stdout" in captured.err
    assert (results[1]["exit_code"], results[1]["error"]) == (3, "biggan: this run ends early")
    assert results[2]["overrides"] == {"seed": 2}
    assert (results[2]["step"], results[2]["images_seen"]) == (4, 64)
    assert results[2]["metrics"] == {
        "d_loss": 3.0,
        "g_loss": None,
        "eval/fid": 7.5,
        "eval/step": 4,
        "eval/best_fid": 5.0,
        "eval/best_step": 2,
    }
    assert json.loads((out / "results.json").read_text()) == results

    assert call(*fake) == 0
    captured = capsys.readouterr()
    assert calls(out) == [1, 2, 1]  # what was finished is left alone
    head, *rows = (line.split() for line in captured.out.splitlines())
    assert head[:5] == ["seed", "state", "step", "d_loss", "g_loss"] and "eval/fid" in head
    assert [dict(zip(head, row, strict=True))["d_loss"] for row in rows] == ["1", "2", "3"]
    with open(out / "results.csv") as file:
        table = list(csv.DictReader(file))
    assert [(r["seed"], r["state"], r["eval/fid"]) for r in table] == [
        (seed, "finished", "7.5") for seed in "012"
    ]


@pytest.mark.parametrize("code", [75, 130])
def test_a_stopped_run_stops_the_sweep(fake, tmp_path, capsys, code):
    out = tmp_path / "out"
    (tmp_path / "fake" / "1").write_text(str(code))
    assert call(*fake) == code
    assert "the same command continues" in capsys.readouterr().err
    assert states(out) == ["finished", "stopped", "waiting"] and calls(out) == [1, 1, 0]
    assert call(*fake) == 0
    assert states(out) == ["finished"] * 3 and calls(out) == [1, 2, 1]


@pytest.mark.parametrize(
    ("number", "code", "send"),
    [
        (signal.SIGTERM, 75, [os.kill]),
        (signal.SIGINT, 130, [os.killpg]),  # as a terminal does it
        (signal.SIGTERM, 75, [os.kill, os.killpg]),  # as `timeout` does it
    ],
)
def test_a_signal_reaches_the_run_once(fake, tmp_path, number, code, send):
    (tmp_path / "fake" / "0").write_text("wait")
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *TINY, *fake],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while "waiting" not in process.stderr.readline():
            assert process.poll() is None
        for how in send:
            how(process.pid, number)
            time.sleep(0.02)
        process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == code
    assert json.loads((tmp_path / "out" / "seed=0" / "signals").read_text()) == [number]
    assert states(tmp_path / "out") == ["stopped", "waiting", "waiting"]


def test_print_and_collect(fake, tmp_path, capsys):
    """Lines for a shell, of what is unfinished; the table of runs that were made elsewhere."""
    out = tmp_path / "out"
    made = [fake[0], "--sweep=num_steps=4", fake[2]]
    assert call(*made, "--config.init_from=a model") == 0
    capsys.readouterr()
    # Where it came from need not be said again.
    more = [fake[0], "--sweep=num_steps=4,8"]
    command = "--command=srun -J {name} launch/local.sh {config} {workdir} {overrides} ${TAIL}"
    attention = "--config.model.g_attention=(8,)"
    assert call(*more, attention, command, "--print") == 0
    captured = capsys.readouterr()
    assert captured.err == "1 of 2 runs are finished\n"
    (line,) = captured.out.splitlines()
    words = shlex.split(line)
    assert words[:3] == ["srun", "-J", "num_steps=8"]
    assert words[4:6] == [runs.DIGITS, str(out / "num_steps=8")]
    assert attention in words and words[-2:] == ["--config.num_steps=8", "${TAIL}"]

    assert call(*more, "--collect", "--json") == 0
    first, second = json.loads(capsys.readouterr().out)["runs"]
    assert (first["state"], first["step"], first["metrics"]["d_loss"]) == ("finished", 4, 1.0)
    assert (second["state"], second["step"], second["metrics"]) == ("waiting", 0, {})
    # Not finished as a run of another config, nor without its last checkpoint.
    assert call(*more, "--config.model.ch=8", "--print") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    (out / "num_steps=4" / "checkpoints" / "4").rmdir()
    assert call(*more, "--print") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.full
def test_continues_a_run_and_takes_no_accelerator_itself(trained, tmp_path, cache_dir):
    """The real command, in a process that reads checkpoints but never starts a backend."""
    workdir = tmp_path / "num_steps=4"
    shutil.copytree(trained, workdir)
    shutil.rmtree(workdir / "checkpoints" / "4")
    code = (
        f"import runpy, sys\nfrom jax._src import xla_bridge\nsys.argv[0] = {str(SCRIPT)!r}\n"
        f"try:\n  runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit as e:\n  assert not xla_bridge.backends_are_initialized()\n  raise"
    )
    arguments = [*TINY, f"--out={tmp_path}", "--sweep=num_steps=4", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=runs.environment(cache_dir),
        cwd=runs.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "after step 2 of 4" in done.stderr
    (result,) = json.loads(done.stdout)["runs"]
    assert (result["state"], result["step"], result["images_seen"]) == ("finished", 4, 64)
    last = runs.metric_lines(trained)[-1]
    assert {k: result["metrics"][k] for k in ("d_loss", "g_loss")} == {
        k: last[k] for k in ("d_loss", "g_loss")
    }


def test_scores_of_different_protocols_share_no_table(tmp_path):
    made = sweep_runs.make_runs(runs.DIGITS, [], tmp_path, sweep=["eval_samples=100,200"])
    for run in made:
        run.workdir.mkdir()
        line = {"step": 2, "images_seen": 4, "d_loss": 1.0, "eval/fid": 3.0}
        (run.workdir / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    results, text = results_lib.report(made, tmp_path)
    assert "eval/" not in text and "eval_samples follow different protocols" in text
    assert "eval/" not in (tmp_path / "results.csv").read_text()
    assert results[0]["metrics"]["eval/fid"] == 3.0


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "nothing to sweep"),
        (["--sweep=model.cg=1,2"], "'model.cg' (did you mean 'model.ch'?)"),
        (["--sweep=num_d_steps=1,two"], "num_d_steps=two"),
        (["--sweep=num_d_steps=1,0"], "num_d_steps is 0"),
        (["--sweep=batch_size"], "KEY=A,B,C"),
        (["--sweep=seed=0,1", "--config.seed=2"], "seed is given twice"),
        (["--sweep=optimizer.g_lr=0.0004,4e-4"], "same run"),
        (["--points=nothing.txt"], "nothing.txt cannot be read"),
        (["--sweep=seed=0", "--command=echo {workdir}"], "no {overrides}"),
        (["--sweep=seed=0", "--command=no-such {workdir} {overrides}"], "no program 'no-such'"),
        (["--sweep=seed=0", "--command='x {workdir} {overrides}"], "No closing quotation"),
        (["--sweep=seed=0", "--print", "--collect"], "not allowed with"),
        (["--sweep=seed=0", f"--out={SCRIPT}"], "is a file"),
    ],
)
def test_bad_input(tmp_path, capsys, arguments, word):
    assert call(f"--out={tmp_path / 'out'}", *arguments) == 2
    runs.assert_one_error(capsys.readouterr(), re.escape(word))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "word"),
    [("", "no points"), ("seed=1\nseed 2", "line 2: 'seed'"), ("a='", "line 1: No closing")],
)
def test_bad_points(tmp_path, capsys, text, word):
    (tmp_path / "points").write_text(text)
    assert call(f"--out={tmp_path / 'out'}", f"--points={tmp_path / 'points'}") == 2
    runs.assert_one_error(capsys.readouterr(), word)
