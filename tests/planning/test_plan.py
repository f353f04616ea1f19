"""`biggan plan`: the step of `train` compiled for a topology, on paper and by the TPU compiler."""

import json

import jax
import pytest

from biggan_jax import cli
from biggan_jax.config import config_file
from biggan_jax.errors import UserError
from biggan_jax.parallel import sharding
from biggan_jax.planning import chips, compiler, hlo, plan, roofline
from biggan_jax.planning import memory as memory_lib
from biggan_jax.planning import report as report_lib
from biggan_jax.planning import traffic as traffic_lib
from biggan_jax.training import build as build_lib
from biggan_jax.training import state as state_lib
from tests import runs
from tests.conftest import FULL

# The mesh is the default: all devices of the topology.
TINY = [x for x in runs.TINY if not x.startswith(("--config.mesh", "--config.model.g_att"))]
KEYS = {"fits", "hbm_bytes", "peak_bytes", "flops_per_chip", "bytes_per_chip", "collectives",
        "step_seconds_lower_bound", "hours", "compile_seconds"}  # fmt: skip
# What libtpu 0.0.42.1 says.
REFUSED = ("RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
           "temporaries (24.12G) exceeds available HBM (15.75G).")  # fmt: skip


def config(*overrides):
    return config_file.load(runs.DIGITS, [*TINY[1:], *overrides])


@pytest.fixture(scope="module")
def on_paper():
    """Plans of 4 and 8 chips with the same share of the batch, by this machine's compiler."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "devices", lambda t, slices: jax.devices()[: t.chips])
        shapes = {**({4: "v5e:2x2"} if FULL else {}), 8: "v5e:2x4"}
        return {
            n: plan.plan(
                config(f"--config.batch_size={2 * n}", "--config.regularizer.g_orthogonal=1e-4"),
                shape,
                usd_per_chip_hour=1.5,
                traffic=True,
            )
            for n, shape in shapes.items()
        }


def refuse(patch):
    """Lets every compile run out of memory."""

    class Lowered:
        def compile(self):
            raise jax.errors.JaxRuntimeError(REFUSED)

    patch.setattr(plan, "lower", lambda *_: Lowered())
    patch.setattr(plan, "expected_flops", lambda *_: 1e12)
    patch.setattr(compiler, "devices", lambda t, slices: jax.devices()[: t.chips])


@pytest.mark.full
def test_weak_scaling(on_paper):
    """At a fixed share of the batch a chip's work and traffic do not depend on their number."""
    four, eight = on_paper[4], on_paper[8]
    assert eight.keys() >= KEYS and eight["chips"] == 8 and eight["batch_size"] == 16
    for key in ("flops_per_chip", "bytes_per_chip", "peak_bytes"):
        assert eight[key] == pytest.approx(four[key], rel=0.02), key
    assert eight["collectives"] == four["collectives"]
    assert eight["ici_bytes_per_chip"] > four["ici_bytes_per_chip"]
    # The whole of both updates, and nothing twice: XLA's count of the same layers on one device.
    assert eight["flops_per_chip"] == pytest.approx(eight["flops_per_chip_expected"], rel=0.1)


def test_the_input_of_a_plan(on_paper):
    """Two hosts of four chips, which need half of the images each."""
    result = on_paper[8]
    found = result["input"]
    assert found["hosts"] == 2 and found["images"] is None
    assert found["needed_images_per_second"] == result["images_per_second"] / 2
    assert "input: 2 hosts of 112 vCPUs" in report_lib.text(result)


def test_traffic_by_layer_adds_up(on_paper):
    result = on_paper[8]
    rows = result["traffic"]
    assert sum(row["bytes"] for row in rows) == result["bytes_per_chip"]
    seen = {(*row["layer"].split("/")[:2], row["direction"]) for row in rows}
    for part in (
        ("d_update", "discriminator", "forward"),
        ("d_update", "discriminator", "backward"),
        ("d_update", "generator", "forward"),
        ("g_update", "generator", "backward"),
        ("g_update", "discriminator", "backward"),
        ("g_update", "generator", "spectral_norm"),
        ("d_update", "optimizer"),
        ("g_update", "optimizer"),
        ("g_update", "ema"),
        ("g_update", "regularizer"),
    ):
        assert part in seen
    # D's update never differentiates G.
    assert ("d_update", "generator", "backward") not in seen
    named = sum(row["bytes"] for row in rows if row["direction"] != "other")
    assert named > 0.95 * result["bytes_per_chip"]
    kinds = {row["kind"] for row in rows}
    assert kinds >= {"product", "reduce", "elementwise", "copy", "all-reduce"}

    lines = report_lib.text(result).splitlines()
    largest = rows[0]
    assert any(line.split()[-3:] == [*list(largest.values())[2::-1]] for line in lines)
    assert f"{len(rows) - 25} smaller rows" in lines[lines.index("by part of the step:") - 1]


def test_only_all_reduces_of_the_predicted_size(on_paper):
    """Gradients of every update, batch statistics of every forward: no activation is moved."""
    for result in on_paper.values():
        assert set(result["collectives"]) == {"all-reduce"}
        assert result["unexpected_collectives"] == [] and result["unknown_loops"] == 0
        measured = result["collectives"]["all-reduce"]["bytes"]
        assert measured == pytest.approx(result["all_reduce_bytes_predicted"], rel=2e-3)


def test_prediction_counts_updates_microbatches_and_batch_norms():
    def predicted(*overrides):
        c = config(*overrides)
        mesh = sharding.make_mesh((1,) * len(c.mesh))
        bound = build_lib.train_step(c, mesh)
        return traffic_lib.all_reduce_bytes(bound), bound

    one, bound = predicted("--config.num_d_steps=1")
    state = state_lib.abstract(bound.init)
    d_params, g_params = (
        4 * sum(x.size for x in jax.tree.leaves(player.params))
        for player in (state.discriminator, state.generator)
    )
    # A resampled 3x3 kernel is summed as 4x4: one in each of two blocks of G and of D, 16 to 16
    # channels but for D's first; the generator's five batch norms have 16 channels.
    channels = sum(x.size for x in jax.tree.leaves(state.generator.batch_stats)) // 2
    assert channels == 5 * 16
    kernels = 4 * 7 * 16 * 16 * 2
    two = predicted("--config.num_d_steps=2")[0]
    assert two - one == d_params + kernels + 4 * 5 * channels + 4 * 5
    assert one - (two - one) == g_params + kernels + 4 * 7 * channels + 4
    # Microbatches: gradients once, as the parameters; statistics and metrics of each.
    halves = predicted("--config.num_d_steps=1", "--config.accumulation_steps=2")[0]
    assert halves == d_params + g_params + 2 * 4 * ((5 + 7) * channels + 5 + 1)


def test_times_are_those_of_the_peaks(on_paper):
    r, chip, n_d = on_paper[8], chips.CHIPS["v5e"], config().num_d_steps
    assert r["fits"] and r["hbm_bytes"] == chip.hbm_bytes and r["suggestions"] == []
    assert r["argument_bytes"] + r["temporary_bytes"] <= r["peak_bytes"] < 1e8
    bounds = {
        "compute": r["flops_per_chip"] / 197e12,
        "hbm": r["bytes_per_chip"] / 819e9,
        "ici": r["ici_bytes_per_chip"] / 200e9,
    }
    assert r["seconds"] == pytest.approx(bounds)
    assert r["ici_bytes_per_chip"] == pytest.approx(
        2 * 7 / 8 * r["collectives"]["all-reduce"]["bytes"]
    )
    assert r["step_seconds_lower_bound"] == pytest.approx(max(bounds.values()))
    assert r["seconds"][r["bound_by"]] == r["step_seconds_lower_bound"]
    assert r["images_per_second"] == pytest.approx(n_d * 16 / r["step_seconds_lower_bound"])
    assert r["hours"] * 3600 == pytest.approx(4 * r["step_seconds_lower_bound"])  # 4 steps
    assert r["chip_hours"] == pytest.approx(8 * r["hours"])
    assert r["cost_usd"] == pytest.approx(1.5 * r["chip_hours"])
    text = report_lib.text(r)
    for words in ("v5e:2x4: 8 chips, batch 16", "of 15.75 GiB: fits", "all-reduce", "slower", ">="):
        assert words in text
    odd = r | {"collectives": {"all-to-all": {"count": 3, "bytes": 8}}}
    odd["unexpected_collectives"] = ["all-to-all"]
    assert "UNEXPECTED" in report_lib.text(odd) and "UNEXPECTED" not in text


def test_a_step_that_does_not_fit_is_explained(monkeypatch, capsys):
    refuse(monkeypatch)
    argv = ["plan", *TINY, "--config.batch_size=64", "--topology=v5e:2x4", "--json"]
    assert cli.main(argv) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result.keys() >= KEYS and result["fits"] is False
    assert result["peak_bytes"] == int(24.12 * 2**30) and result["hours"] is None
    assert 0 < result["largest_batch_size"] < 64 and result["largest_batch_size"] % 8 == 0
    for words in ("DOES NOT FIT", "needs 24.12 GiB a chip, 15.75 GiB",
                  f"--config.batch_size={result['largest_batch_size']}",
                  "--config.accumulation_steps=2", "--config.compute_dtype=bfloat16"):  # fmt: skip
        assert words in captured.err


def test_other_compiler_errors_stay_errors():
    with pytest.raises(RuntimeError, match="INTERNAL"):
        memory_lib.out_of_memory("INTERNAL: broken", 1)
    memory = memory_lib.out_of_memory(REFUSED, 2**30)
    assert memory.temporaries == memory.peak - 2**30 and not memory.fits


def test_largest_batch_is_linear():
    """State 1 GiB, inputs and temporaries 4 GiB at batch 64: 95% of 15.75 GiB hold 223 images."""
    gib = 2**30
    memory = memory_lib.Memory(gib + gib // 2, 4 * gib - gib // 2, 5 * gib, True)
    found = memory_lib.largest_batch(config("--config.batch_size=64"), 8, memory, gib // 2,
                                      chips.CHIPS["v5e"])  # fmt: skip
    assert found == 216  # of 8 devices
    full = memory_lib.Memory(20 * gib, gib, 21 * gib, False)
    assert memory_lib.largest_batch(config(), 8, full, 0, chips.CHIPS["v5e"]) == 0


def test_sweep_is_one_table(monkeypatch, capsys):
    refuse(monkeypatch)
    argv = ["plan", *TINY, "--topology=v5e:2x2", "--json"]
    argv += ["--sweep=batch_size=8,16", "--sweep", "model.ch=4,8"]
    assert cli.main(argv) == 0
    captured = capsys.readouterr()
    plans = json.loads(captured.out)["plans"]
    points = [(p["overrides"]["batch_size"], p["overrides"]["model.ch"]) for p in plans]
    assert points == [(b, ch) for b in ("8", "16") for ch in ("4", "8")]
    assert [p["batch_size"] for p in plans] == [8, 8, 16, 16]
    assert plans[1]["argument_bytes"] > 2 * plans[0]["argument_bytes"]  # twice as wide
    table = captured.err.splitlines()[-5:]
    assert table[0].split()[:2] == ["batch_size", "model.ch"]
    assert [line.split()[:3] for line in table[1:]] == [[b, ch, "NO"] for b, ch in points]


def test_table_of_plans(on_paper):
    plans = [{"overrides": {"batch_size": str(2 * n)}} | r for n, r in on_paper.items()]
    head, *rows = report_lib.table(plans).splitlines()
    assert "chip-hours" in head and [row.split()[:2] for row in rows] == [
        [str(2 * n), "yes"] for n in on_paper
    ]


def test_several_slices_gather_and_are_bounded_by_the_network():
    text = """ENTRY %main (x: f32[8,4]) -> f32[32,4] {
  %x = f32[8,4]{1,0} parameter(0)
  %sum = f32[8,4]{1,0} all-reduce(%x), replica_groups={{0,4}}
  ROOT %all = f32[32,4]{1,0} all-gather(%sum), replica_groups={{0,1,2,3},{4,5,6,7}}
}"""
    mesh = sharding.make_mesh((-1, *[1] * (len(sharding.AXES) - 1)))
    module, shape = hlo.Module(text), chips.parse("v5e:2x2")
    two = roofline.costs(module, mesh, shape, 2, 8 * 10**9)
    assert two["unexpected_collectives"] == [] and two["bound_by"] == "dcn"
    # A chip carries a quarter of its slice's sum, half of it out and half back.
    assert two["seconds"]["dcn"] == pytest.approx(8e9 / 4 * 2 * 1 / 2 / (25e9 / 8))
    one = roofline.costs(module, mesh, chips.parse("v5e:2x4"), 1, 8 * 10**9)
    assert one["unexpected_collectives"] == ["all-gather"] and "dcn" not in one["seconds"]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("v4-128", "v4:4x4x4"),
        ("v5litepod-16", "v5e:4x4"),
        ("v5e-16", "v5e:4x4"),
        ("v4:4x4", "v4:2x2x4"),
        ("v6e:4x4x4", "v6e:8x8"),
        ("v7x:2x2x1", "tpu7x:2x2x1"),
        ("v5e", "v5e:8x8"),
        ("h100", "v4:4x4x4"),
        ("v5e:0x4", "v5e:2x2"),
    ],
)
def test_unknown_topology(name, near):
    with pytest.raises(UserError, match=f"{name!r}.*nearest: .*{near}.*--topology"):
        chips.parse(name)


def test_every_suggested_topology_is_known():
    for generation, chip in chips.CHIPS.items():
        for shape in chip.shapes:
            assert chips.parse(f"{generation}:{shape}").name == f"{generation}:{shape}"
    assert chips.parse("v4:4x4x4").chips == 64


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--topology=v5e:3"], "unknown topology 'v5e:3'.*v5e:2x2"),
        (["--topology=v5e:2x4", "--config.batch_size=12"], "batch_size 12 is not.*8 devices"),
        (["--topology=v5e:2x4", "--slices=2", "--config.batch_size=24"], "24 is not.*16 devices"),
        (["--topology=v3:4x4", "--config.batch_size=48"], "48 is not.*32 devices"),  # 2 a chip
        (["--topology=v5e:2x4", "--slices=0"], "--slices is 0"),
        (["--topology=v5e:2x4", "--usd-per-chip-hour=-1"], "--usd-per-chip-hour is -1"),
        (["--topology=v5e:2x4", "--sweep=batch_size=16,12"], "batch_size 12 is not"),
        (["--topology=v5e:2x4", "--sweep=chh=1"], "unknown config key 'chh'"),
        (["--config.batch_size=16"], "required: --topology"),
    ],
)
def test_bad_input(argv, words, capsys):
    assert cli.main(["plan", *TINY, *argv]) == 2
    runs.assert_one_error(capsys.readouterr(), words)


def test_unset_classes_and_missing_compiler(monkeypatch, capsys, tmp_path):
    path = tmp_path / "c.py"
    path.write_text("from biggan_jax.config import default_config as get_config\n")
    assert cli.main(["plan", "--config", str(path), "--topology=v5e:2x4"]) == 2
    runs.assert_one_error(capsys.readouterr(), "--config.model.num_classes=N")
    monkeypatch.setattr(compiler.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["plan", *TINY, "--topology=v5e:2x4"]) == 2
    runs.assert_one_error(capsys.readouterr(), r"pip install 'biggan_jax\[tpu\]'")


def test_tpu_compiler(capfd):
    """The real one: the loop over D updates stays a loop, and counts twice."""
    pytest.importorskip("libtpu")
    argv = ["plan", *TINY, "--config.num_d_steps=2", "--config.compute_dtype=bfloat16", "--fast"]
    assert cli.main([*argv, "--topology=v5e:2x4", "--json"]) == 0
    r = json.loads(capfd.readouterr().out)
    assert r["fast"] and r["fits"] and r["hbm_bytes"] > 15e9 and 0 < r["peak_bytes"] < 1e9
    assert set(r["collectives"]) == {"all-reduce"} and r["unknown_loops"] == 0
    assert r["flops_per_chip"] == pytest.approx(r["flops_per_chip_expected"], rel=0.15)
    assert r["flops_per_chip"] > 1.2 * r["xla_flops_loops_once"]
    measured = r["collectives"]["all-reduce"]["bytes"]
    assert measured == pytest.approx(r["all_reduce_bytes_predicted"], rel=0.1)


def test_tpu_compiler_refuses_what_no_slice_has(capsys):
    pytest.importorskip("libtpu")
    argv = ["plan", *TINY, "--topology=v5e:3x3", "--config.batch_size=18"]
    assert cli.main(argv) == 2
    runs.assert_one_error(capsys.readouterr(), "'v5e:3x3' .*divisible.*v5e:2x4")
