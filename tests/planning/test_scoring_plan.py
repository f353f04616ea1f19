"""`biggan plan --evaluate`: what it costs to score on all chips, against arithmetic."""

import json
import math

import jax
import pytest

from biggan_jax import cli, models
from biggan_jax.config import config_file
from biggan_jax.evaluation import evaluator, reference
from biggan_jax.models import cpu_forms, walk
from biggan_jax.parallel import processes
from biggan_jax.planning import (
    chips,
    compiler,
    costs,
    hlo,
    input_needs,
    scoring,
    scoring_report,
    scoring_shares,
    summary,
)
from tests import runs
from tests.planning.test_plan import REFUSED

TINY = [x for x in runs.TINY if not x.startswith(("--config.mesh", "--config.model.g_att"))]
# Two hosts of four chips.
COMMAND = ["plan", *TINY, "--config.model.ch=16", "--topology=v5e:2x4", "--evaluate"]
CHIP = chips.CHIPS["v5e"]
RUN = {"images_per_chip": 16, "flops_per_chip": 100, "bytes_per_chip": 10, "seconds": {"hbm": 0.1}}


@pytest.fixture(scope="module")
def planned():
    """The plan of 1,000 samples by this machine's compiler, with standing statistics."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "devices", lambda t: jax.devices()[: t.chips])
        patch.setattr(cpu_forms, "choose", lambda *_: cpu_forms.XLA)  # as TPUs multiply
        config = config_file.load(runs.DIGITS, [*TINY[1:], "--config.model.ch=16"])
        options = {"samples": 1000, "bn_mode": "standing", "images": 1797}
        return scoring.plan(config, "v5e:2x4", usd_per_chip_hour=1.5, **options)


def test_products_are_those_of_the_layers(planned):
    """512 samples of a host, 128 of a chip; every sample goes through all of G once."""
    found = planned["evaluate"]
    assert (found["hosts"], found["samples_per_host"], found["samples_per_chip"]) == (2, 512, 128)
    part = found["parts"]["generation"]
    assert (part["runs"], part["images_per_chip"]) == (512 // 64, 64 // 4)
    # Two blocks of 64 channels from 4 to 8 to 16 pixels, each upsampled by 2x2 kernels, then
    # convolved by 3x3 ones (less what lies beside the image), with a 1x1 shortcut; then to grey.
    blocks = sum((2 * n - 2) ** 2 + (3 * n - 2) ** 2 + (n // 2) ** 2 for n in (8, 16))
    each = 2 * (64 * 64 * blocks + 64 * (3 * 16 - 2) ** 2 + 4 * 1024 + 8 * 12 * 64)
    assert part["flops_per_chip"] == pytest.approx(128 * each, rel=0.01)
    wanted = part["flops_per_chip"]
    standing = found["parts"]["standing"]
    assert (standing["runs"], standing["images_per_chip"]) == (16, 16)
    assert standing["flops_per_chip"] == pytest.approx(2 * wanted, rel=0.05)
    features = found["parts"]["features"]
    assert (features["runs"], features["images_per_chip"]) == (512 // 256, 256 // 4)


def test_times_are_those_of_the_peaks(planned):
    found = planned["evaluate"]
    for part in found["parts"].values():
        # The classifier's products of float32 factors take six passes.
        least = max(part["flops_per_chip"] / CHIP.flops, part["bytes_per_chip"] / 819e9)
        assert least * 0.999 <= part["seconds_lower_bound"] <= 6.001 * least
    generation = found["parts"]["generation"]
    assert generation["bound_by"] == "hbm"
    assert generation["seconds_lower_bound"] == pytest.approx(generation["bytes_per_chip"] / 819e9)
    sums = 8 * (64 * 64 + 64 + 10 * (10 + 1))  # a covariance, a mean, ten splits of ten classes
    received = sums + 512 * (64 * 4 + 4)  # of the other host, with its features and labels
    assert found["gather"]["bytes_per_chip"] == received
    assert found["gather"]["seconds_lower_bound"] == pytest.approx(received / 200e9)
    flops = 2 * 512 * 64**2 + 2 * 64 * (1000**2 + 1797**2 + 1000 * 1797)
    assert found["host"]["flops"] == flops
    assert found["host"]["seconds_lower_bound"] == pytest.approx(flops / (112 * 64e9))
    parts = [*found["parts"].values(), found["gather"], found["host"]]
    total = sum(part["seconds_lower_bound"] for part in parts)
    assert found["seconds_lower_bound"] == pytest.approx(total)
    assert found["cost_usd"] == pytest.approx(1.5 * 8 * total / 3600)
    assert found["bytes_per_chip"] == sum(p["bytes_per_chip"] for p in found["parts"].values())


def test_the_real_side_is_measured_once(planned):
    """1,797 images are eight batches, four of them, 1,024 images, of one host."""
    real, config = planned["evaluate"]["real"], runs.tiny_config()
    assert (real["images"], real["images_per_host"], real["runs"]) == (1797, 1024, 1024 // 256)
    rate = input_needs.needs(config, chips.parse("v5e:2x4"), 1, None)["host_images_per_second"]
    assert real["read_seconds"] == pytest.approx(1024 / rate)
    features = planned["evaluate"]["parts"]["features"]["seconds_lower_bound"] / 2 * 4
    received = 8 * (64 * 64 + 64) + 1024 * (64 * 4 + 4)
    rest = received / 200e9 + 2 * 1024 * 64**2 / (112 * 64e9)
    assert real["seconds_lower_bound"] == pytest.approx(1024 / rate + features + rest)


def test_shares_are_those_of_the_processes(monkeypatch):
    for count, hosts in ((50_000, 16), (1000, 2), (10, 4), (256 * 7 + 1, 8), (1_281_167, 128)):
        monkeypatch.setattr(jax, "process_count", lambda hosts=hosts: hosts)
        shares = []
        for i in range(hosts):
            monkeypatch.setattr(jax, "process_index", lambda i=i: i)
            shares.append(len(processes.share(count, evaluator.BATCH_SIZE)))
        assert scoring_shares.busiest(count, hosts, evaluator.BATCH_SIZE) == max(shares)
    assert evaluator.BATCH_SIZE == reference.BATCH_SIZE == 256


def test_slices_join_their_sums_over_the_network():
    config, shape = runs.tiny_config(), chips.parse("v5e:2x4")
    needs = input_needs.needs(config, shape, 4, None)
    pod = scoring_shares.Pod(shape, 4, needs, 2048, 1008)
    found = scoring_shares.gather(pod, 50_000, 1008)
    rows = math.ceil(196 / 8) * 256
    received = 7 * (8 * (2048**2 + 2048 + 10 * 1009) + rows * (4 * 2048 + 4))
    assert found["bytes_per_chip"] == received
    # Three quarters of it come from other slices, an eighth of that through each chip.
    assert found["seconds_lower_bound"] == pytest.approx(received * 3 / 4 / 8 / (25e9 / 8))


def test_a_chip_of_several_slices_runs_the_same(monkeypatch):
    """Half of the samples of a host, of twice as many hosts; the programs are those of one."""
    monkeypatch.setattr(compiler, "devices", lambda t: jax.devices()[: t.chips])
    monkeypatch.setattr(scoring, "_compiled", lambda *_: (RUN, 1000))
    two = scoring.plan(runs.tiny_config(), "v5e:2x4", slices=2, samples=1024)
    one = scoring.plan(runs.tiny_config(), "v5e:2x4", samples=1024)
    assert (two["chips"], two["devices"]) == (16, 16) and (one["chips"], one["devices"]) == (8, 8)
    for found, samples in ((two["evaluate"], 256), (one["evaluate"], 512)):
        assert found["samples_per_host"] == samples and found["real"] is None
        assert found["parts"]["generation"]["flops_per_chip"] == samples / 64 * 100


def test_float32_products_count_as_often_as_they_are_made():
    text = """ENTRY %main (x: f32[8,4], y: bf16[8,4], w: f32[4,4]) -> f32[8,4] {{
  %x = f32[8,4]{{1,0}} parameter(0)
  %y = bf16[8,4]{{1,0}} parameter(1)
  %w = f32[4,4]{{1,0}} parameter(2)
  ROOT %p = f32[8,4]{{1,0}} dot(%{}, %w), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}{}
}}"""
    plain = 2 * 8 * 4 * 4
    for left, asked, times in (
        *(("x", "", 1), ("x", ", operand_precision={highest,highest}", 6)),
        *(("x", ", operand_precision={high,high}", 3), ("x", ", operand_precision={default}", 1)),
        ("y", ", operand_precision={highest,highest}", 1),
    ):
        module = hlo.Module(text.format(left, asked))
        assert costs.flops(module) == plain
        assert costs.flops(module, passes=True) == times * plain


def test_report_and_table(planned):
    text = scoring_report.text(planned)
    for words in ("v5e:2x4: 8 chips of 2 hosts; 1,000 samples, classifier features, standing",
                  "lower bounds", "not counted", "1,797 images, >= ", "once, then kept", "USD",
                  "samples               128; 512 of the busiest host"):  # fmt: skip
        assert words in text
    unknown = {**planned, "evaluate": planned["evaluate"] | {"real": None}}
    assert "add --images N" in scoring_report.text(unknown)
    rows = [{"overrides": {"model.ch": ch}} | planned for ch in ("4", "16")]
    head, *lines = scoring_report.table([*rows, {"overrides": {"model.ch": "32"}} | unknown])
    assert "scored in >=" in (head + "".join(lines)).splitlines()[0]


def test_command(monkeypatch, capsys):
    """One object with the keys of the documents; a sweep has one for each value."""
    monkeypatch.setattr(compiler, "devices", lambda t: jax.devices()[: t.chips])
    options = ["--features=classifier", "--samples=300", "--json"]
    assert cli.main([*COMMAND, *options, "--sweep=model.ch=4,8"]) == 0
    captured = capsys.readouterr()
    plans = json.loads(captured.out)["plans"]
    assert [p["overrides"] for p in plans] == [{"model.ch": "4"}, {"model.ch": "8"}]
    for plan in plans:
        assert {"samples", "features", "bn_mode", "hosts", "samples_per_host", "samples_per_chip",
                "parts", "gather", "host", "flops_per_chip", "bytes_per_chip", "peak_bytes",
                "seconds_lower_bound", "real", "cost_usd"} <= plan["evaluate"].keys()  # fmt: skip
    flops = [p["evaluate"]["parts"]["generation"]["flops_per_chip"] for p in plans]
    assert 2 < flops[1] / flops[0] < 4.5
    assert captured.err.splitlines()[-3].split()[:2] == ["model.ch", "samples"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--samples=64"], "64 samples for the 64 dimensions .* set --samples 65 or more"),
        (["--samples=1e12"], "1,000,000,000,000 samples .* set --samples 50000"),
        (["--features=inception", "--samples=2048"], "2048 dimensions .* set --samples 2049"),
        (
            ["--features=dinov2"],
            "--features 'dinov2' is unknown: choose from inception, classifier",
        ),
        (["--bn-mode=sitting"], "--bn-mode 'sitting' is unknown"),
        (["--traffic"], "--evaluate plans no training step: leave --traffic out"),
        (["--slices=0"], "--slices is 0"),
        (["--images=0"], "--images is 0"),
        (["--usd-per-chip-hour=-1"], "--usd-per-chip-hour is -1"),
        (["--topology=v5e:3"], "unknown topology 'v5e:3'"),
        (["--sweep=chh=1"], "unknown config key 'chh'"),
    ],
)
def test_bad_input(argv, words, capsys):
    assert cli.main([*COMMAND, *argv]) == 2
    runs.assert_one_error(capsys.readouterr(), words)


def test_what_does_not_fit_is_one_line(monkeypatch, capsys):
    def refuse(*_, **__):
        raise jax.errors.JaxRuntimeError(REFUSED)

    monkeypatch.setattr(compiler, "devices", lambda t: jax.devices()[: t.chips])
    monkeypatch.setattr(compiler, "compile_step", refuse)
    assert cli.main(COMMAND) == 2
    words = "16 images at once need 24.12 GiB of a chip of v5e:2x4, which has 15.75: choose another"
    runs.assert_one_error(capsys.readouterr(), words)


@pytest.mark.parametrize("option", ["--samples=1000", "--features=inception", "--bn-mode=batch"])
def test_options_of_scores_belong_to_evaluate(option, capsys):
    assert cli.main([*COMMAND[:-1], option]) == 2
    name = option.split("=")[0]
    words = f"{name} belongs to --evaluate: add --evaluate, or leave {name} out"
    runs.assert_one_error(capsys.readouterr(), words)


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "topology", "slices"), [("biggan128", "v4:4x4x4", 1), ("biggan256", "v5p:2x2x2", 2)]
)
def test_tpu_compiler(name, topology, slices):
    """The real one: G's products, and the 5.7 billion multiplications of Inception an image."""
    pytest.importorskip("libtpu")
    config = config_file.load(str(runs.ROOT / "configs" / f"{name}.py"), [])
    found = scoring.plan(config, topology, slices=slices)["evaluate"]
    g, _ = models.build(config.model, dtype=config.compute_dtype)
    each = sum(layer.flops for layer in summary.layers(g, *walk.generator_inputs(g, 16)))
    wanted = found["samples_per_chip"] * each
    assert found["parts"]["generation"]["flops_per_chip"] == pytest.approx(wanted, rel=0.05)
    features, chip = found["parts"]["features"], chips.parse(topology).chip
    assert features["flops_per_chip"] / found["samples_per_chip"] == pytest.approx(1.1e10, rel=0.05)
    # Six passes of float32; the resize along one axis, 0.3% of it, reads uint8 and counts once.
    seconds = 6 * features["flops_per_chip"] / chip.flops
    assert features["seconds_lower_bound"] == pytest.approx(seconds, rel=0.01)
    assert found["real"]["images"] == input_needs.IMAGENET_IMAGES
