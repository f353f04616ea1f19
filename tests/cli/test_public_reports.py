"""What people reported of other GAN trainers and of the libraries below, tried here.

docs/cases.md lists the reports.
"""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from biggan_jax import cli
from tests import runs
from tests.storage.test_paths import bucket, google  # noqa: F401

OWN = ("--config.model.channels=3", "--config.num_steps=2")


def write_images(folder, count=9):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(folder.parts))
    for i in range(count):
        pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")


def test_class_folders_one_level_too_deep(tmp_path, capsys):
    """ajbrock/BigGAN-PyTorch#26: all of ImageNet/train became the class 0, and the model
    collapsed. A config that knows its number of classes must not advise to change it."""
    for name in ("n01440764", "n01443537", "n01484850"):
        write_images(tmp_path / "imagenet" / "train" / name, 2)
    argv = [*OWN, "--config.model.num_classes=3"]
    source = f"folder:{tmp_path / 'imagenet'}"
    assert runs.train(tmp_path / "run", *argv, f"--config.data.source={source}") == 2
    line = capsys.readouterr().err
    advice = f"--config.data.source={source}:train"
    assert "has 1 class; " in line and line.rstrip().endswith(advice), line
    assert cli.main(["doctor", *runs.TINY, *argv, f"--config.data.source={source}"]) == 2
    assert advice in capsys.readouterr().out
    assert cli.main(["doctor", *runs.TINY, *argv, advice]) == 0


@pytest.mark.parametrize(
    "inside",
    [
        *(pytest.param(x, marks=pytest.mark.full) for x in ("checkpoints", "checkpoints/4")),
        "checkpoints/4/state",
    ],
)
def test_a_folder_of_a_run_in_place_of_the_run(trained, tmp_path, capsys, inside):
    """google-research/xmcgan_image_generation#12, mit-han-lab/data-efficient-gans#67: which of
    these folders is to be given?"""
    out = tmp_path / "x.png"
    assert cli.main(["sample", "--from", str(trained / inside), "--out", str(out)]) == 2
    line = capsys.readouterr().err
    step = ", step 4" if "4" in inside else ""
    assert line.rstrip().endswith(f"it holds no config.json; give {trained}{step}")
    argv = ["sample", "--from", str(trained), *(["--step=4"] if step else []), "--out", str(out)]
    assert cli.main(argv) == 0 and out.exists()


def test_a_file_of_a_run_in_place_of_the_run(trained, tmp_path, capsys):
    argv = ["sample", "--from", str(trained / "config.json"), "--out", str(tmp_path / "x.png")]
    assert cli.main(argv) == 2
    runs.assert_one_error(capsys.readouterr(), f"it is a file; give {trained}$")


@pytest.mark.full
def test_what_a_killed_save_left_does_not_stop_a_run(run_copy):
    """Physical-Intelligence/openpi#566: FileExistsError for `<step>.orbax-checkpoint-tmp-0`."""
    remains = run_copy / "checkpoints" / "5.orbax-checkpoint-tmp-0" / "state"
    remains.mkdir(parents=True)
    (remains / "array").write_bytes(b"half")
    assert runs.train(run_copy, "--config.num_steps=5") == 0
    names = sorted(path.name for path in (run_copy / "checkpoints").iterdir())
    assert names == ["2", "4", "5"]


@pytest.mark.full
def test_a_finished_run_is_started_again(run_copy, capsys):
    """google/orbax#2657: StepAlreadyExistsError at the end, after hours."""
    before = (run_copy / "metrics.jsonl").read_bytes()
    assert runs.train(run_copy) == 0
    assert "Traceback" not in capsys.readouterr().err
    assert (run_copy / "metrics.jsonl").read_bytes() == before


@pytest.mark.full
def test_going_on_from_an_earlier_checkpoint(run_copy, trained):
    """google/orbax#527: steps before the newest one were not saved, silently. Here the newer ones
    are removed, and the run goes on from what is left."""
    shutil.rmtree(run_copy / "checkpoints" / "4")
    assert runs.train(run_copy) == 0
    runs.assert_same_state(run_copy, trained, 4)


@pytest.mark.full
def test_a_run_copied_into_a_bucket(trained, bucket, tmp_path, capfd):  # noqa: F811
    """google/orbax#394: copied checkpoints lacked a file, and were deleted as unfinished."""
    shutil.copytree(trained, bucket.root / "bucket" / "copy")
    assert cli.main(["sample", "--from=gs://bucket/copy", f"--out={tmp_path / 'x.png'}"]) == 0
    assert runs.train("gs://bucket/copy", "--config.num_steps=5") == 0
    assert "after step 4 of 5" in capfd.readouterr().err


@pytest.mark.full
def test_fewer_images_than_a_step_takes(tmp_path, capsys):
    """ajbrock/BigGAN-PyTorch#70, carpedm20/BEGAN-tensorflow#24, NVlabs/stylegan2-ada-pytorch#231:
    small sets ended in an IndexError or a queue that had run dry."""
    for name in "abcdefghij":
        write_images(tmp_path / "data" / name, 1)
    argv = ["--config.num_steps=2", f"--config.data.source=folder:{tmp_path / 'data'}"]
    assert runs.train(tmp_path / "run", *argv) == 0
    capsys.readouterr()
    assert cli.main(["doctor", *runs.TINY, *argv, "--json"]) == 0
    problems = json.loads(capsys.readouterr().out)["problems"]
    (found,) = [problem for problem in problems if problem["where"].startswith("batch_size")]
    assert "one step takes 16 images and there are 10" in found["what"] and not found["stops"]


def test_samples_of_a_resumed_run_keep_the_earlier_ones(run_copy):
    """HyperGAN/HyperGAN#213: pictures began at 0 again after a restart."""
    before = {path.name: path.read_bytes() for path in (run_copy / "samples").iterdir()}
    assert runs.train(run_copy, "--config.num_steps=6", "--config.sample_every_steps=2") == 0
    after = {path.name: path.read_bytes() for path in (run_copy / "samples").iterdir()}
    assert before.items() <= after.items() and "step_00000006.png" in after


def test_labels_of_stylegans_tools(tmp_path, capsys):
    """NVlabs/stylegan2-ada-pytorch#18, #126: its folders 00000, 00001, ... are no classes."""
    for name in ("00000", "00001"):
        write_images(tmp_path / "set" / name, 2)
    write_images(tmp_path / "flat", 2)
    for folder in ("set", "flat"):
        (tmp_path / folder / "dataset.json").write_text('{"labels": [["00000/0.png", 1]]}')
    shutil.make_archive(tmp_path / "packed", "zip", tmp_path / "set")
    assert cli.main(["doctor", "--json", "--data", f"folder:{tmp_path / 'set'}"]) == 0
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert "labels in dataset.json are not read" in problems[0]["what"]
    assert "00000, 00001" in problems[0]["what"]
    assert cli.main(["doctor", "--data", f"folder:{tmp_path / 'flat'}"]) == 2
    assert "2 images lie directly in it, and dataset.json" in capsys.readouterr().out
    assert cli.main(["doctor", "--data", f"folder:{tmp_path / 'packed.zip'}"]) == 2
    assert "is an archive (folder:" in capsys.readouterr().out
