"""--step N and best: which state every command and loader takes, and what it says where there is
none; weights that are not finite."""

import json
import os
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from biggan_jax import cli, load_discriminator, load_generator
from biggan_jax.errors import UserError
from biggan_jax.sampling import files
from biggan_jax.storage import best, checkpoint, networks, steps, weights
from tests import runs
from tests.conftest import FULL

PARTS = {"g": "generator", "g_ema": "ema", "d": "discriminator"}


@pytest.fixture(scope="module")
def kept(trained, tmp_path_factory):
    """A run with the checkpoints 2 and 4 whose best state, that of step 2, is kept aside."""
    workdir = shutil.copytree(trained, tmp_path_factory.mktemp("steps") / "run")
    config = json.loads((workdir / "config.json").read_text())
    held = {name: read(workdir, part, 2) for name, part in PARTS.items()}
    best.keep_networks(workdir, 2, held, config, {"fid": 1.0})
    return workdir


def read(workdir, part, step=None):
    return networks.from_checkpoint(workdir, steps.find(workdir).config, part, step)[0]


def same(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


def fails(capsys, argv, *words):
    assert cli.main([str(a) for a in argv]) == 2
    runs.assert_one_error(capsys.readouterr(), *words)


def test_loaders_take_a_step(kept):
    newest, second = (read(kept, "ema", n) for n in (4, 2))
    assert not same(newest, second)
    for step, number, expected in (
        (None, 4, newest), (4, 4, newest), (2, 2, second), (np.int64(2), 2, second),
        ("best", 2, second),
    ):  # fmt: skip
        g = load_generator(kept, step=step)
        assert g.step == number and same(g._variables, expected)
    d = load_discriminator(kept, step="best")
    assert d.step == 2 and same(d._variables["params"], read(kept, "discriminator", 2)["params"])
    assert load_discriminator(kept).step == 4
    assert load_generator(kept / "best").step == 2  # its score says so


@pytest.mark.parametrize("step", [-1, True, 2.0, "2", "bset"])
def test_what_is_no_step(kept, step):
    with pytest.raises(UserError, match="step is .*; it must be the number.*, or best"):
        load_generator(kept, step=step)


@pytest.mark.parametrize(
    ("argv", "number"),
    [
        (["sample", "--out={}.png", "--per-class=1"], 4),
        (["sample", "--out={}.png", "--per-class=1", "--step=best"], 2),
        pytest.param(
            ["look", "attention", "--out={}.png", "--count=1", "--step", "2"],
            2,
            marks=pytest.mark.full,
        ),
        (["export", "--out={}.safetensors", "--step=2"], 2),
        pytest.param(["export", "--out={}.safetensors"], 4, marks=pytest.mark.full),
        pytest.param(["inspect", "--step=best"], 2, marks=pytest.mark.full),
    ],
)
def test_every_command_takes_it_and_says_it(kept, tmp_path, capsys, argv, number):
    argv = [word.format(tmp_path / "x") for word in argv]
    assert cli.main([*argv, f"--from={kept}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == number


def test_a_step_that_was_deleted_but_kept_as_the_best(kept, tmp_path):
    workdir = shutil.copytree(kept, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints" / "2")
    assert load_generator(workdir, step=2).step == 2
    shutil.rmtree(workdir / "checkpoints")
    assert load_generator(workdir, step="best").step == 2
    with pytest.raises(UserError, match=r"no checkpoint 4 in .*: it has best \(2\)$"):
        load_generator(workdir, step=4)


def test_the_best_of_an_earlier_version(run_copy):
    """It was kept among the checkpoints, each score beside its arrays."""
    for step, fid in ((2, 12.5), (4, 13.5)):
        score = run_copy / "checkpoints" / str(step) / "metrics"
        score.mkdir()
        (score / "metrics").write_text(json.dumps({"fid": fid}))
    g = load_generator(run_copy, step="best")
    assert g.step == 2 and same(g._variables, read(run_copy, "ema", 2))
    (run_copy / "checkpoints" / "4" / "metrics" / "metrics").write_text("{")
    with pytest.raises(UserError, match="has no best state"):  # nothing tells which it is
        load_generator(run_copy, step="best")


def test_steps_that_are_not_there(kept, run_copy, tmp_path, capsys):
    out = f"--out={tmp_path / 'x.png'}"
    take = ["sample", out, "--from"]
    fails(capsys, [*take, kept, "--step=3"], r"no checkpoint 3 in .*: it has 4, 2, best \(2\)$")
    fails(capsys, [*take, run_copy, "--step=3"], "no checkpoint 3 in .*: it has 4, 2$")
    words = "has no best state, but the checkpoints 4, 2: .*--follow.*eval_every_steps=2`$"
    fails(capsys, [*take, run_copy, "--step=best"], words)
    fails(capsys, [*take, kept / "best", "--step=4"], "model directory and holds step 2, not 4$")
    assert steps.find(kept / "best", 2).step == steps.find(kept / "best", "best").step == 2
    (kept / "best" / "score.json").rename(tmp_path / "score.json")
    fails(capsys, [*take, kept / "best", "--step=2"], "one state: leave out the step$")
    (tmp_path / "score.json").rename(kept / "best" / "score.json")
    fails(capsys, [*take, kept, "--step=bset"], "--step: 'bset' is no step: write the number.*best")
    fails(capsys, ["inspect", "--config", runs.DIGITS, "--step=2"], "--step is of the run")
    fails(capsys, ["evaluate", "--from", kept, "--step=2", "--follow"], "leave out --step")
    fails(capsys, ["evaluate", "--compare", "a", "b", "--step=2"], "leave out --step")


def test_a_corrupt_step(run_copy, tmp_path, capsys):
    # All of its files: which arrays lie in the largest one depends on how fast they were written.
    for path in Path(run_copy, "checkpoints", "4", "state").rglob("d/*"):
        os.truncate(path, path.stat().st_size // 2)
    for argv in (["inspect"], ["export", f"--out={tmp_path / 'x.safetensors'}"]):
        words = (
            r"checkpoint 4 in .* is corrupt: .*put a copy of it back, or take another step \(2\)"
        )
        fails(capsys, [*argv, "--from", run_copy, "--step=4"], words)


def test_directory_at_step(tmp_path):
    (tmp_path / "a@2").mkdir()
    (tmp_path / "up@5").mkdir()
    inside = f"{tmp_path}/up@5/run"
    for text, expected in (
        (f"{tmp_path}/a", (f"{tmp_path}/a", None)),
        (f"{tmp_path}/a@3", (f"{tmp_path}/a", 3)),
        (f"{tmp_path}/a@best", (f"{tmp_path}/a", "best")),
        (f"{tmp_path}/a@2", (f"{tmp_path}/a@2", None)),  # the folder of this name
        (f"{tmp_path}/a@2@best", (f"{tmp_path}/a@2", "best")),
        (inside, (inside, None)),
        ("@x", ("@x", None)),
    ):
        assert steps.split(text) == expected
    with pytest.raises(
        UserError, match="no folder .*/a@bset, and behind the @ .*'bset' is no step"
    ):
        steps.split(f"{tmp_path}/a@bset")


def broken_run(run_copy, step, part, *path):
    """Puts an infinity into one array of a checkpoint of a run, saved as any other."""
    checkpoints = checkpoint.Checkpoints(run_copy / "checkpoints", async_save=False)
    for number in [n for n in checkpoints.all_steps() if n >= step]:
        state, _ = runs.load_state(run_copy, number)
        meta = checkpoint.integrity.read_record(checkpoints.directory / str(number))["meta"]
        shutil.rmtree(run_copy / "checkpoints" / str(number))
        if number == step:
            player = getattr(state, part)
            tree = jax.tree_util.tree_map_with_path(
                lambda at, x: x.at[0].set(np.inf) if named(at) == path else x, player.params
            )
            state = state.replace(**{part: player.replace(params=tree)})
        checkpoints.save(number, state, meta)
    checkpoints.close()


def named(path):
    return tuple(entry.key for entry in path)


@pytest.mark.full
def test_weights_that_are_not_finite_are_refused_by_name(run_copy, tmp_path, capsys):
    broken_run(run_copy, 4, "ema", "block_0", "conv1", "kernel")
    words = r"checkpoint 4 in .* holds NaN or infinity in ema/params/block_0/conv1/kernel: .*2"
    take = ["--from", run_copy, "--out"]
    fails(capsys, ["sample", *take, tmp_path / "x.png"], words)
    if FULL:
        fails(capsys, ["look", "attention", *take, tmp_path / "x.png"], words)
        fails(capsys, ["look", "bn", *take, tmp_path / "x.png"], words)
        fails(capsys, ["export", *take, tmp_path / "x.safetensors"], words)
        fails(capsys, ["evaluate", "--from", run_copy], words)
    fails(capsys, ["inspect", "--from", run_copy, "--step=4"], words)
    assert runs.train(tmp_path / "b", f"--config.init_from={run_copy}") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.search(words, said) and said.startswith("biggan: --config.init_from=")
    assert runs.train(run_copy, "--config.num_steps=5") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "ema/params/block_0/conv1/kernel: move " in said and "to go on from step 2" in said
    with pytest.raises(UserError, match="ema/params/block_0/conv1/kernel"):
        load_generator(run_copy)
    assert load_discriminator(run_copy).step == 4  # its own are finite
    assert load_generator(run_copy, step=2).step == 2
    # The advice, followed.
    (run_copy / "checkpoints" / "4").rename(tmp_path / "4")
    assert load_generator(run_copy).step == 2


def test_broken_weights_of_a_model_directory_and_of_a_file(kept, tmp_path, capsys):
    model = shutil.copytree(kept / "best", tmp_path / "model")
    tree = weights.load_weights(model, "d")
    tree["params"]["embed"]["embedding"] = tree["params"]["embed"]["embedding"].at[3, 1].set(np.nan)
    weights.save_weights(model, "d", tree)
    words = "weights/d holds NaN or infinity in discriminator/params/embed/embedding"
    with pytest.raises(UserError, match=words):
        load_discriminator(model)
    fails(capsys, ["export", "--from", model, "--out", tmp_path / "x.safetensors"], words)
    assert files.write(model, tmp_path / "x.png", per_class=1)["step"] == 2
    from safetensors.numpy import load_file, save_file

    assert cli.main(["export", f"--from={kept}", f"--out={tmp_path / 'y.safetensors'}"]) == 0
    from safetensors import safe_open

    with safe_open(tmp_path / "y.safetensors", "np") as file:
        metadata = file.metadata()
    tensors = load_file(tmp_path / "y.safetensors")
    tensors["g/params/rgb/bias"] = tensors["g/params/rgb/bias"] * np.float32("nan")
    save_file(tensors, tmp_path / "z.safetensors", metadata)
    capsys.readouterr()
    argv = ["import", "--format=biggan-jax", tmp_path / "z.safetensors", "--out", tmp_path / "m"]
    fails(capsys, argv, r"z.safetensors holds NaN or infinity in .*generator/params/rgb/bias")
    assert not (tmp_path / "m").exists()
