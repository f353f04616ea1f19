"""`biggan bench --suite`: which figures are called slower, and what is kept of them."""

import json
import types

import jax
import numpy as np
import pytest

from biggan_jax import cli
from biggan_jax.config import config_file
from biggan_jax.errors import UserError
from biggan_jax.parallel import sharding
from biggan_jax.planning import baseline, bench, machine, suite, suite_shapes
from biggan_jax.planning.suite_shapes import Prepared, Shape
from biggan_jax.training import build
from tests import runs

SMALL = ("small", "large")


@pytest.fixture
def clock(monkeypatch, tmp_path):
    """Two shapes and a reference that take what `seconds` says, on a clock that they move."""
    c = types.SimpleNamespace(now=0.0, runs=[], compiled=[], seconds={}, compile_seconds=2.0)
    c.seconds |= {"small": 0.5, "large": 2.0, suite.REFERENCE: 0.25}

    def prepared(name, compile_seconds=None):
        def run():
            takes = c.seconds[name]
            c.now += takes(len(c.runs)) if callable(takes) else takes
            c.runs.append(name)

        return Prepared(run, 10, compile_seconds)

    def prepare(shape):
        c.compiled.append(shape.name)
        return prepared(shape.name, c.compile_seconds)

    monkeypatch.setattr(suite, "time", types.SimpleNamespace(perf_counter=lambda: c.now))
    monkeypatch.setattr(suite, "_reference", lambda: prepared(suite.REFERENCE))
    monkeypatch.setattr(suite_shapes, "prepare", prepare)
    monkeypatch.setattr(suite_shapes, "SHAPES", tuple(Shape(name, "digits") for name in SMALL))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return c


def run_suite(capsys, *options: str) -> tuple[int, dict, str]:
    code = cli.main(["bench", "--suite", "--json", *options])
    captured = capsys.readouterr()
    return code, json.loads(captured.out), captured.err


def test_the_first_run_writes_the_table_and_later_ones_read_it(clock, capsys, tmp_path):
    code, first, text = run_suite(capsys)
    path = tmp_path / "biggan_jax" / "bench" / f"{machine.key(machine.identity())}.json"
    assert code == 0 and first["written"] and str(path) == first["table"] and "wrote" in text
    assert first["shapes"]["small"] == {
        "seconds": 0.5, "images_per_second": 20.0, "compile_seconds": 2.0,
        "ratio": None, "compile_ratio": None,
    }  # fmt: skip
    before = path.read_text()
    code, second, text = run_suite(capsys)
    assert code == 0 and not second["written"] and path.read_text() == before
    assert second["shapes"]["large"]["ratio"] == 1.0 and "nothing is slower" in text
    assert clock.runs[-6:] == [suite.REFERENCE, *SMALL] * 2  # a round runs everything once


def test_a_slower_shape_is_measured_again_and_named(clock, capsys):
    run_suite(capsys)
    clock.seconds["small"] = 0.6
    clock.runs.clear()
    code, result, text = run_suite(capsys)
    assert code == 1 and result["slower"] == ["small"] and "small: slower than 1.1 times" in text
    assert clock.runs.count("small") == 1 + suite.ROUNDS + suite.ROUNDS_AGAIN
    assert clock.runs.count("large") == 1 + suite.ROUNDS
    assert run_suite(capsys, "--bound=1.3")[0] == 0
    assert run_suite(capsys, "--update")[0] == 0 and run_suite(capsys)[0] == 0
    clock.seconds["small"] = 0.3
    assert run_suite(capsys)[0] == 0  # faster is no reason to stop


def test_noise_is_no_regression(clock, capsys):
    """One good round is enough, in the rounds that are added too."""
    run_suite(capsys)
    late = 3 * (2 + suite.ROUNDS)  # runs before the added rounds
    clock.seconds["small"] = lambda n: 0.5 if n > late + 4 else 0.9
    clock.runs.clear()
    assert run_suite(capsys)[0] == 0 and len(clock.runs) > late


def test_a_slower_machine_excuses_and_a_faster_one_does_not(clock, capsys):
    run_suite(capsys)
    clock.seconds |= {name: 1.5 * clock.seconds[name] for name in clock.seconds}
    code, result, _ = run_suite(capsys)
    assert code == 0 and result["reference_ratio"] == 1.5
    assert result["shapes"]["small"]["ratio"] == 1.5
    clock.seconds["large"] = 4.0
    code, _, text = run_suite(capsys)
    assert code == 1 and "the machine itself is 1.50 times slower" in text
    clock.seconds |= {suite.REFERENCE: 0.1, "small": 0.5, "large": 2.0}
    assert run_suite(capsys)[0] == 0


def test_a_longer_compilation_is_tried_again(clock, capsys):
    run_suite(capsys)
    clock.compile_seconds = 3.5
    clock.compiled.clear()
    code, result, text = run_suite(capsys, "--only=large")
    assert code == 1 and result["compiles_slower"] == ["large"] and result["slower"] == []
    assert clock.compiled == ["large", "large"]
    assert "large: compiles longer than 1.5 times the table" in text


def test_some_shapes_leave_the_others_of_the_table(clock, capsys, tmp_path):
    table = tmp_path / "t.json"
    run_suite(capsys, f"--table={table}")
    clock.seconds |= {"small": 0.4, "large": 9.0}
    code, result, _ = run_suite(capsys, f"--table={table}", "--only=small", "--update")
    rows = json.loads(table.read_text())["shapes"]
    assert code == 0 and set(result["shapes"]) == {"small"}
    assert [rows[name]["seconds"] for name in SMALL] == pytest.approx([0.4, 2.0])


def test_a_table_of_another_machine_is_said(clock, capsys, tmp_path):
    table = tmp_path / "t.json"
    run_suite(capsys, f"--table={table}")
    content = json.loads(table.read_text())
    content["machine"]["cores"] = 99
    table.write_text(json.dumps(content))
    assert "was measured with another cores" in run_suite(capsys, f"--table={table}")[2]
    table.write_text("{}")
    assert cli.main(["bench", "--suite", f"--table={table}"]) == 2
    runs.assert_one_error(capsys.readouterr(), "is no table", "remove it")


def test_a_missing_package_leaves_a_shape_out(clock, capsys, monkeypatch):
    usual = suite_shapes.prepare

    def prepare(shape):
        if shape.name == "large":
            raise ImportError("No module named 'grain'")
        return usual(shape)

    monkeypatch.setattr(suite_shapes, "prepare", prepare)
    code, result, text = run_suite(capsys)
    assert code == 0 and set(result["shapes"]) == {"small"}
    assert "large is left out: No module named 'grain'" in text


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--suite", "--bound=1"], ["--bound is 1.0", "1.1"]),
        (["--suite", "--only=smal"], ["did you mean 'small'?"]),
        (["--suite", "--config=digits"], ["--config and --suite exclude each other"]),
        (["--suite", "--config.seed=1"], ["takes no settings: leave '--config.seed=1' out"]),
        (["--config=digits", "--update"], ["--update belongs to --suite"]),
        ([], ["one of --config FILE and --suite"]),
    ],
)
def test_what_does_not_go_together(argv, words, clock, capsys):
    assert cli.main(["bench", *argv]) == 2
    runs.assert_one_error(capsys.readouterr(), *words)


def test_the_key_tells_machines_apart(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_max_isa=AVX2")
    avx2 = machine.identity()
    assert machine.key(avx2) == machine.key(machine.identity())
    assert avx2["jax"] == jax.__version__ and avx2["cores"] >= 1
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
    assert machine.identity() == avx2  # a cache changes no program
    for other in ({"flags": {}}, {"cores": 99}, {"features": ["avx"]}, {"processor": "?"}):
        assert machine.key(avx2 | other) != machine.key(avx2)
    assert "--xla_cpu_max_isa=AVX2" in machine.describe(avx2)


def test_every_shape_has_a_config():
    """All of them are valid, and each is of another program."""
    names = [shape.name for shape in suite_shapes.SHAPES]
    assert len(set(names)) == len(names) == 10
    assert {shape.kind for shape in suite_shapes.SHAPES} == set(suite_shapes.KINDS)
    for shape in suite_shapes.SHAPES:
        config = config_file.load(shape.config, [f"--config.{o}" for o in shape.overrides])
        if shape.kind == "step":
            train_step = build.train_step(config, sharding.make_mesh((1,)))
            jax.eval_shape(train_step.init, jax.random.key(0))


def test_a_random_state_is_like_an_initialised_one():
    train_step = build.train_step(runs.tiny_config(), sharding.make_mesh((1,)))
    state = suite_shapes.random_state(train_step, train_step.mesh)
    expected = jax.eval_shape(train_step.init, jax.random.key(0))
    found, wanted = (
        [(x.shape, x.dtype) for x in jax.tree.leaves(tree)] for tree in (state, expected)
    )
    assert found == wanted and jax.tree.structure(state) == jax.tree.structure(expected)
    assert all(np.all(x == 1) for x in jax.tree.leaves(state.ema.batch_stats))
    kernel = np.asarray(state.discriminator.params["block_1"]["conv1"]["kernel"])
    assert kernel.std() == pytest.approx(1 / np.sqrt(9 * kernel.shape[2]), rel=0.1)


@pytest.mark.full
def test_a_step_from_a_random_state_is_finite():
    stepper = bench.Stepper(runs.tiny_config(), suite_shapes.random_state)
    assert stepper() > 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(stepper._state.ema.params))


def test_input_and_samples():
    """The shapes that are no step, small."""
    shapes = {shape.kind: shape for shape in suite_shapes.SHAPES}
    small = ("model.ch=4", "model.dim_z=12", "model.resolution=16", "model.shared_dim=8")
    sample = suite_shapes.prepare(Shape("s", shapes["sample"].config, small, "sample"))
    sample.run()
    assert sample.images == 128 and sample.compile_seconds > 0
    reading = suite_shapes.prepare(shapes["input"])
    reading.run()
    assert reading.images == 20 * 256 and reading.compile_seconds is None


def judged(seconds: float, compile_seconds: float | None, slowdown: float = 1.0):
    """The verdict beside a second of running and ten of compiling."""
    row = {"seconds": seconds, "compile_seconds": compile_seconds}
    return baseline.judge(row, {"seconds": 1.0, "compile_seconds": 10.0}, 1.1, slowdown)


def test_bounds():
    assert not judged(1.09, 14.9).slower and judged(1.11, 10).slower
    assert judged(1.0, 15.1).compiles_slower and not judged(1.0, 15.1, 1.2).compiles_slower
    assert not judged(1.0, None).compiles_slower and judged(2.0, None).ratio == 2.0
    row = {"seconds": 1.0, "compile_seconds": 1.2}  # tenths of a second are noise
    assert not baseline.judge(row, row | {"compile_seconds": 0.4}, 1.1, 1.0).compiles_slower
    assert baseline.judge(row, None, 1.1, 1.0).ratio is None
    with pytest.raises(UserError, match="--bound"):
        suite.run(bound=0.5)
