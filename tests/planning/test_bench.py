"""`biggan bench`: the arithmetic of its figures on a tiny step."""

import json
import types

import jax
import jax.numpy as jnp
import pytest

from biggan_jax import cli, data
from biggan_jax.models import cpu_forms
from biggan_jax.planning import bench
from biggan_jax.training import jitted
from tests import runs


class Clock:
    """A clock that a test moves; it stands in for the module `time`.

    And for a device that works off what it was given: `dispatch` returns at once what `wait` ends
    with.
    """

    def __init__(self, monkeypatch):
        self.now = self.free = 100.0
        monkeypatch.setattr(bench, "time", self)
        monkeypatch.setattr(bench.jax, "block_until_ready", self.wait)

    def perf_counter(self) -> float:
        return self.now

    def dispatch(self, seconds: float) -> float:
        """When a step is done that takes so long."""
        self.free = max(self.free, self.now) + seconds
        return self.free

    def wait(self, done):
        """As `jax.block_until_ready` of what a step returned."""
        self.now = max([self.now, *(x for x in jax.tree.leaves(done) if isinstance(x, float))])


@pytest.mark.full
def test_figures(monkeypatch, tmp_path):
    """Of a real step: images, FLOPs and memory are there, and a trace is written."""
    monkeypatch.setattr(data, "open_source", None)  # never a dataset
    config = runs.tiny_config("--config.num_d_steps=2")
    result = bench.bench(config, profile=tmp_path / "trace", layers=True, with_monitors=True)
    seconds = result.pop("monitor_seconds")
    assert result.pop("monitor_share") == pytest.approx(seconds / (100 * result["step_seconds"]))
    layers, forms = result.pop("layers"), result.pop("forms")
    found = {row["layer"]: (row["batch"], row["side"], row["form"]) for row in forms}
    b, size = config.batch_size, config.model.resolution
    assert found["discriminator/block_0/conv1"] == (2 * b, size, cpu_forms.PATCHES)
    assert found["discriminator/block_0/conv2"] == (2 * b, size, cpu_forms.PHASES)
    assert found["generator/rgb"] == (b, size, cpu_forms.TAPS)
    assert found["generator/block_0/conv1"] == (b, 4, cpu_forms.PHASES)
    assert found["generator/block_0/conv2"] == (b, 8, cpu_forms.XLA)
    check_layers(layers, result.pop("profiled_step_seconds"))
    assert 0 < result.pop("busy_cores") < 1000
    assert list(result) == [
        "images_per_second",
        "step_seconds",
        "compile_seconds",
        "compiled_before",
        "peak_bytes",
        "flops_per_second",
    ]
    assert isinstance(result.pop("compiled_before"), bool)
    assert all(value > 0 for value in result.values())
    assert 1e5 < result["peak_bytes"] < 2e9
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))


def check_layers(layers: list[dict], seconds: float) -> None:
    """The rows add up to the step, and every part of it is there."""
    assert sum(row["seconds"] for row in layers) == pytest.approx(seconds)
    named = {(row["part"], row["direction"]) for row in layers}
    assert {
        ("d_update/generator", "forward"),
        ("g_update", "optimizer"),
        ("g_update", "ema"),
    } <= named
    for update in ("d_update/discriminator", "g_update/discriminator", "g_update/generator"):
        assert {(update, d) for d in ("forward", "backward", "spectral_norm")} <= named
    assert ("d_update/generator", "backward") not in named
    largest = {row["layer"] for row in layers if row["kind"] in ("convolution", "dot")}
    assert {"block_0/conv1", "block_1/conv2"} <= largest
    assert "unknown" not in {row["kind"] for row in layers}


def test_figures_of_known_durations(monkeypatch):
    """The median of five steps after two that do not count; compilation apart from them."""
    clock, durations = Clock(monkeypatch), iter([50.0, 9.0, 0.5, 0.25, 4.0, 0.125, 0.75])
    lowered, inputs = [], []

    class Step:
        """What stands for a jitted step at every stage; a call takes the next duration."""

        def lower(self, state, batch):
            lowered.append(batch["image"].shape)
            return self

        def compile(self):
            clock.now += 30
            return self

        def memory_analysis(self):
            return types.SimpleNamespace(
                argument_size_in_bytes=1000, output_size_in_bytes=300, alias_size_in_bytes=200,
                temp_size_in_bytes=7,
            )  # fmt: skip

        def __call__(self, state, batch):
            inputs.append(state)
            return state + 1, {"loss": clock.dispatch(next(durations))}

    monkeypatch.setattr(bench.state_lib, "create", lambda *_: 0)
    monkeypatch.setattr(bench.step, "jit_train_step", lambda train_step: Step())
    monkeypatch.setattr(bench.summary, "step_flops", lambda train_step, batch_size: 3e6)
    result = bench.bench(runs.tiny_config("--config.num_d_steps=2"))
    assert lowered == [(2, 16, 16, 16, 1)]
    assert inputs == list(range(7)) and next(durations, None) is None
    assert result == {
        "images_per_second": 64.0,  # 2 D updates of 16 images in half a second
        "step_seconds": 0.5,
        "compile_seconds": 30.0,
        "compiled_before": False,
        "peak_bytes": 1107,
        "flops_per_second": 96e6,  # 16 images of 3 MFLOP in half a second
    }


@pytest.mark.parametrize("branch", [False, True])
def test_lazy_steps_of_known_durations(monkeypatch, branch):
    """Each kind of step by the program that runs it; the mean of a period, and both sides."""
    # 3 D updates a step, penalties in one of 6: every second step has them.
    c = runs.tiny_config(
        *("--config.num_d_steps=3", "--config.regularizer.r1=1"),
        *("--config.regularizer.every_steps=6",),
    )
    clock, made, numbers = Clock(monkeypatch), [], []

    class State(types.SimpleNamespace):
        def replace(self, step):
            numbers.append(int(step))
            return State(step=step)

    class Program:
        """Slow where penalties are due, which the program knows or the number of the step says."""

        def __init__(self, due=None):
            self.due = due
            made.append(due)

        def lower(self, state, batch):
            return self

        def compile(self):
            clock.now += 10
            return self

        def __call__(self, state, batch):
            due = state.step % 2 == 0 if self.due is None else any(self.due)
            done = clock.dispatch(5.0 if due else 1.0)
            return State(step=jnp.int32(state.step + 1)), {"loss": done}

    train_step = bench.build_lib.train_step(c, bench.sharding.make_mesh((1,)))
    steps = Program() if branch else jitted.LazySteps(train_step, lambda f: Program(**f.keywords))
    monkeypatch.setattr(bench.state_lib, "create", lambda *_: State(step=jnp.int32(0)))
    monkeypatch.setattr(bench.step, "jit_train_step", lambda train_step: steps)
    monkeypatch.setattr(bench.summary, "step_flops", lambda train_step, batch_size: 3e6)
    monkeypatch.setattr(bench, "peak_bytes", lambda program: 7)
    result = bench.bench(c)
    assert made == ([None] if branch else [(True, False, False), (False, False, False)])
    assert numbers == 7 * [0] + 7 * [1]
    assert result == {
        "images_per_second": 16.0,  # 3 D updates of 16 images in 3 seconds
        "step_seconds": 3.0,
        "penalty_step_seconds": 5.0,
        "plain_step_seconds": 1.0,
        "compile_seconds": 10.0 if branch else 20.0,
        "compiled_before": False,
        "peak_bytes": 7,
        "flops_per_second": 16e6,
    }


def test_kinds_of_steps():
    """Their shares of a run, by counting its steps."""
    for n, every in ((1, 4), (2, 4), (4, 2), (3, 4), (2, 3), (1, 1)):
        objective = types.SimpleNamespace(is_lazy=every > 1, penalty_every_steps=every)
        found = jitted.kinds(types.SimpleNamespace(objective=objective, num_d_steps=n))
        if every == 1:
            assert found == [jitted.Kind(None, 0, 1.0)]
            continue
        run = [tuple((s * n + i) % every == 0 for i in range(n)) for s in range(12 * every)]
        for kind in found:
            assert run.index(kind.due) == kind.step
            assert kind.share == pytest.approx(run.count(kind.due) / len(run))
        assert {kind.due for kind in found} == set(run) and any(found[0].due)


def test_synthetic_batch():
    c = runs.tiny_config("--config.num_d_steps=3", "--config.model.num_classes=4")
    batch = bench.synthetic_batch(c)
    assert batch["image"].shape == (3, 16, 16, 16, 1) and batch["image"].dtype == "uint8"
    assert batch["label"].shape == (3, 16) and batch["label"].dtype == "int32"
    assert set(batch["label"].ravel()) == {0, 1, 2, 3} and batch["image"].std() > 50


def test_input_pipeline(monkeypatch, capsys):
    monkeypatch.setattr(bench, "INPUT_SECONDS", 0.2)
    monkeypatch.setattr(bench, "bench", lambda *_, **__: {"step_seconds": 1.0})
    assert cli.main(["bench", *runs.TINY, "--data", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["input_images_per_second"] > 100


def test_input_pipeline_without_data(tmp_path, capsys):
    path = tmp_path / "c.py"
    path.write_text("from biggan_jax.config import default_config as get_config\n")
    argv = ["bench", "--config", str(path), "--config.model.num_classes=2", "--data"]
    assert cli.main(argv) == 2
    runs.assert_one_error(capsys.readouterr(), "--config.data.source")
