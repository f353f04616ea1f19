"""What `sample` and `look` write: pictures of every suffix, arrays, folders of single files."""

import json
import shutil
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from biggan_jax import cli, load_generator
from biggan_jax.pictures import formats, grids, text
from biggan_jax.sampling import files, image_folder
from tests import runs

NAMES = ["cat", "猫", "قط", "a name that is far longer than any picture is wide, and more",
         "b/c", "CON", "B_C", ".hidden", "x\ny", "9"]  # fmt: skip


@pytest.fixture(scope="module")
def named(trained, tmp_path_factory):
    """The tiny run, its classes named in several scripts."""
    workdir = shutil.copytree(trained, tmp_path_factory.mktemp("outputs") / "run")
    path = workdir / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"class_names": NAMES}))
    return workdir


def sample(workdir, out, *more):
    return cli.main(["sample", f"--from={workdir}", f"--out={out}", *more])


def test_suffixes(trained, tmp_path):
    for name, kind in (("a.PNG", "PNG"), ("b.jpg", "JPEG"), ("c.Jpeg", "JPEG"), ("d.webp", "WEBP")):
        assert sample(trained, tmp_path / name, "--per-class=1", "--classes=3,5") == 0
        with Image.open(tmp_path / name) as picture:
            assert picture.format == kind and picture.height == 2 * 50 + 2
    assert sample(trained, tmp_path / "e.NPZ", "--per-class=1", "--classes=3,5") == 0
    assert np.load(tmp_path / "e.NPZ")["labels"].tolist() == [3, 5]
    argv = ["look", "attention", f"--from={trained}", f"--out={tmp_path / 'f.JPG'}", "--count=1"]
    assert cli.main(argv) == 0 and Image.open(tmp_path / "f.JPG").format == "JPEG"


def test_outputs_that_are_refused(trained, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x.txt").write_text("mine")
    listed = r"must end in .png, .jpg, .jpeg, .webp or .npz, or be a folder: FOLDER/$"
    for out, words in (
        (tmp_path / "a.gif", listed),
        (tmp_path / "a", listed),
        (tmp_path / "full", r"full is not empty \(x.txt\): name a new or an empty folder"),
        (f"{tmp_path}/full/x.txt/", "is a file: name a new or an empty folder"),
    ):
        assert sample(trained, out) == 2
        runs.assert_one_error(capsys.readouterr(), words)
    for kind in ("attention", "bn"):
        assert cli.main(["look", kind, f"--from={trained}", f"--out={tmp_path / 'a.npz'}"]) == 2
        words = "must end in .png, .jpg, .jpeg or .webp$"
        runs.assert_one_error(capsys.readouterr(), words)
    for option in ("--per-class=-1", "--per-class=0", "--per-class=1.5", "--seed=0.5"):
        assert sample(trained, tmp_path / "a.png", option) == 2
        runs.assert_one_error(capsys.readouterr(), option.partition("=")[0])
    argv = ["look", "attention", f"--from={trained}", f"--out={tmp_path / 'a.png'}", "--count=-2"]
    assert cli.main(argv) == 2
    runs.assert_one_error(capsys.readouterr(), "--count is -2; it must be an integer, at least 1")


def test_a_picture_larger_than_its_format_holds(capsys):
    with pytest.raises(formats.UserError, match="20000 x 1 pixels, and WEBP holds 16,383 a side"):
        formats.encode(Image.new("L", (20000, 1)), "x.webp")


def test_a_folder_of_single_files(named, tmp_path, capsys):
    """The pixels of the .npz of the same command; folders that any file system takes."""
    argv = ["--per-class=3", "--classes=cat,猫,b/c,B_C,CON,.hidden,9"]
    assert sample(named, f"{tmp_path / 'new'}/", *argv, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["count"] == 21 and result["step"] == 4
    assert sample(named, tmp_path / "x.npz", *argv) == 0
    with np.load(tmp_path / "x.npz") as file:
        images, labels = file["images"], file["labels"]
    folders = {0: "cat", 1: "猫", 4: "b_c", 6: "B_C-6", 5: "_CON", 7: "_hidden", 9: "9"}
    assert {p.name for p in (tmp_path / "new").iterdir()} == set(folders.values())
    for i, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        with Image.open(tmp_path / "new" / folders[label] / f"{i % 3 + 1:05}.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), image[..., 0])
    (tmp_path / "there").mkdir()  # an empty folder needs no slash
    assert (
        sample(named, tmp_path / "there", "--per-class=2", "--classes=cat", "--bn-mode=batch") == 0
    )
    assert len(list((tmp_path / "there" / "cat").iterdir())) == 2


def test_folders_of_classes_without_names():
    assert image_folder.class_folders([3, 11, 3], (), 100) == {3: "03", 11: "11"}
    same = image_folder.class_folders(range(3), ("A", "a", "?"), 3)
    assert same == {0: "A", 1: "a-1", 2: "_"}
    assert len(image_folder.class_folders([0], ("é" * 200,), 1)[0].encode()) <= 120


def test_batches_of_a_folder_are_those_of_one_call(trained, monkeypatch):
    """In pieces, samples and interpolations are the same; with 'batch' each piece has all rows."""
    monkeypatch.setattr(files, "FOLDER_BATCH", 4)
    g = load_generator(trained)
    for interpolate in (False, True):
        whole = files.Samples(g, np.array([2, 5, 2]), 3, 7, (0.8, "resample"), interpolate)
        z = whole.latents(0, 9)
        for start, stop in ((0, 4), (4, 8), (8, 9), (2, 7)):
            np.testing.assert_allclose(whole.latents(start, stop), z[start:stop], atol=1e-6)
    labels = [labels.tolist() for _, labels in whole.batches()]
    assert labels == [[2, 2, 2, 5], [5, 5, 2, 2], [2]]
    mixed = files.Samples(g, np.array([2, 5]), 4, 7, (None, "resample"), False)
    assert [y.tolist() for _, y in mixed.batches(mixed=True)] == [[2, 5, 2, 5]] * 2


def test_memory_of_a_folder_does_not_grow(tmp_path):
    def peak(name, count):
        batches = ((np.zeros((64, 64, 64, 3), np.uint8), np.zeros(64, int)) for _ in range(count))
        tracemalloc.start()
        assert image_folder.write(tmp_path / name, batches, {0: "a"}) == 64 * count
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak("warm", 1)  # what is loaded at the first picture stays
    assert peak("b", 8) < 1.5 * peak("a", 2)


def label_column(picture, rows):
    """What stands at the left of each row of a labelled grid."""
    pixels = np.asarray(picture.convert("L"))
    return [pixels[2 + 50 * i : 50 + 50 * i, : picture.width - 52] for i in range(rows)]


def test_names_label_a_grid(named, tmp_path):
    assert sample(named, tmp_path / "a.png", "--per-class=1") == 0
    with Image.open(tmp_path / "a.png") as picture:
        rows = label_column(picture, 10)
        assert picture.width - 52 <= 160 + 2 * grids.LABEL_MARGIN  # the long name is shortened
    assert all((row < 128).any() for row in rows)
    assert len({row.tobytes() for row in rows}) == 10  # no two alike, as boxes would be


def test_text_of_any_script():
    labels, font = text.fitted(["cat", "b\u00e9b\u00e9", "x\ny", "a" * 50], 20, 100)
    assert labels[:3] == ["cat", "b\u00e9b\u00e9", "x y"]
    assert "\u2026" in labels[3] and font.getlength(labels[3]) <= 100
    assert text.fitted(["be\u0301"], 20, 100)[0] == ["b\u00e9"]
    lacking = "\U00010330"  # Gothic: in no font that is looked for
    assert text.fitted(["cat", lacking], 20, 100, ["class 0", "class 1"])[0] == ["cat", "class 1"]
    assert text.fitted(["cat"], 20, 100)[0] == ["cat"]
