"""Folders as people have them: junk, splits, one folder too many, files that are no files."""

import json
import os
import shutil
import socket

import numpy as np
import pytest
from PIL import Image

from biggan_jax import cli
from biggan_jax import config as config_lib
from biggan_jax.data import data_report, listing, open_source
from biggan_jax.data.folder import FolderSource
from biggan_jax.errors import UserError
from biggan_jax.storage.directory import open_directory
from biggan_jax.training import run_data
from tests import runs

JUNK = (
    *("@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found", "__MACOSX", ".Trashes"),
    *("System Volume Information", ".ipynb_checkpoints", "@EADIR", "@__thumb"),
)


def write_images(folder, *names, value=7):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or ("0.png", "1.png"):
        Image.new("RGB", (8, 8), (value, value, value)).save(folder / name, "PNG")


def opened(spec, **settings):
    return open_source(str(spec), **{"resolution": 8, "channels": 3, **settings})


def report_of(spec, **settings):
    return "\n".join(data_report(opened(spec, **settings)).lines())


@pytest.fixture
def pets(tmp_path):
    write_images(tmp_path / "pets" / "cat")
    write_images(tmp_path / "pets" / "dog")
    return tmp_path / "pets"


@pytest.mark.parametrize("at", [".", "cat", "cat/deep"])
def test_junk_is_ignored_counted_and_named_at_every_depth(pets, at):
    for name in JUNK:
        write_images(pets / at / name / "x.jpg", "SMALL.jpg", "LARGE.jpg")
    for name in ("Thumbs.db", ".DS_Store", "._0.png", "DESKTOP.INI"):
        (pets / at / name).write_bytes(b"x")
    source = opened(f"folder:{pets}")
    assert source.class_names == ("cat", "dog") and len(source) == 4
    # Two in each of the junk folders but the one that only its dot tells, and the four files.
    assert source.ignored_files == 2 * (len(JUNK) - 1) + 4
    text = report_of(f"folder:{pets}")
    assert "2 in @eaDir" in text and "2 in lost+found" in text and ".Trashes" in text
    assert "1 Thumbs.db" in text and "1 .DS_Store" in text and "1 ._*" in text


def test_junk_alone_is_no_class(tmp_path):
    write_images(tmp_path / "d" / "@eaDir" / "0.png", "SMALL.jpg")
    with pytest.raises(UserError, match="it holds @eaDir alone"):
        opened(f"folder:{tmp_path / 'd'}")


@pytest.mark.parametrize("splits", [("train", "val"), ("train",), ("TRAIN", "Test"), ("valid",)])
def test_splits_are_said_with_the_path_to_give(pets, tmp_path, splits):
    root = tmp_path / "root"
    for split in splits:
        shutil.copytree(pets, root / split)
    text = report_of(f"folder:{root}")
    first = next(s for s in ("train", "TRAIN", "valid") if s in splits)
    spec = f"folder:{root}:{first}"
    assert f"--config.data.source={spec}" in text and "named like" in text
    assert opened(spec).class_names == ("cat", "dog")
    assert "named like" not in report_of(spec)
    assert f"--source={spec}" in report_of(f"folder:{root}", option="--source")


def test_folders_inside_are_told_in_natural_order(tmp_path):
    for name in ("class 10", "class 9"):
        write_images(tmp_path / "d" / "train" / name)
    assert "2 folders with images: class 9, class 10" in report_of(f"folder:{tmp_path / 'd'}")


def test_splits_of_images_without_classes(tmp_path):
    write_images(tmp_path / "one" / "train", *(f"{i}.png" for i in range(10)))
    assert "note" not in report_of(f"folder:{tmp_path / 'one'}").replace("notes", "")
    write_images(tmp_path / "one" / "val")
    assert "move val out" in report_of(f"folder:{tmp_path / 'one'}")


def test_a_split_among_classes_and_splits_inside_classes(pets, tmp_path):
    write_images(pets / "test")
    assert "named like a split (test)" in report_of(f"folder:{pets}")
    for name in ("a/train", "a/test", "b/train", "b/test"):
        write_images(tmp_path / "inside" / name)
    assert "folders named like splits: test, train" in report_of(f"folder:{tmp_path / 'inside'}")


@pytest.mark.parametrize("between", ["images", "data/images"])
def test_one_folder_too_many_is_said_with_the_path_to_give(pets, tmp_path, between):
    shutil.copytree(pets, tmp_path / "root" / between)
    text = report_of(f"folder:{tmp_path / 'root'}")
    spec = f"folder:{tmp_path / 'root' / between}"
    assert "unconditional" in text and f"--config.data.source={spec}" in text
    assert opened(spec).class_names == ("cat", "dog")
    for split in ("train", "val"):
        shutil.copytree(pets, tmp_path / "other" / between / split)
    assert f"{between}:train" in report_of(f"folder:{tmp_path / 'other'}")


def test_a_split_that_is_not_there_and_a_folder_with_a_colon(pets):
    shutil.copytree(pets, pets.with_name("a:b"))
    assert opened(f"folder:{pets.with_name('a:b')}").class_names == ("cat", "dog")
    write_images(pets.with_name("a:b") / "train" / "ant")
    assert opened(f"folder:{pets.with_name('a:b')}:train").class_names == ("ant",)
    with pytest.raises(UserError, match="no sub-folder 'trian' .did you mean 'train'"):
        opened(f"folder:{pets.with_name('a:b')}:trian")


ORDERED = (
    *("", "0", "1", "2", "02", "002", "10", "11", "A 9", "A 10", "class 9", "class 10"),
    *("class 10 b", "class 10b2", "class 10b11", "class x", "v1.9", "v1.10", "Ä", "猫2", "猫10"),
    *("\u0662", "a\udcff"),
)


def test_natural_order_is_total_and_counts_as_a_person():
    wanted = sorted(ORDERED, key=listing.natural_key)
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert sorted(rng.permutation(ORDERED).tolist(), key=listing.natural_key) == wanted
    at = {name: wanted.index(name) for name in ORDERED}
    for before, after in (
        ("2", "10"), ("002", "02"), ("02", "2"), ("A 9", "A 10"), ("class 9", "class 10"),
        ("class 10b2", "class 10b11"), ("v1.9", "v1.10"), ("猫2", "猫10"), ("1", "\u0662"),
        ("\u0662", "10"), ("11", "A 9"), ("A 10", "class 9"),
    ):  # fmt: skip
        assert at[before] < at[after], (before, after)


def test_class_order_of_new_sources_and_of_older_configs(tmp_path):
    for i in range(12):
        write_images(tmp_path / "d" / str(i), "0.png", value=i)
    spec = f"folder:{tmp_path / 'd'}"
    natural, text = opened(spec), opened(spec, class_order="text")
    assert natural.class_names == tuple(map(str, range(12)))
    assert text.class_names == tuple(sorted(map(str, range(12))))
    assert natural.read([2])[0][0, 0, 0, 0] == 2 and text.read([2])[0][0, 0, 0, 0] == 10
    assert config_lib.default_config().data.class_order == "natural"
    assert config_lib.from_saved({"data": {"source": spec}}).data.class_order == "text"
    assert config_lib.from_saved({"data": {"class_order": "natural"}}).data.class_order == "natural"


def strange_files(folder):
    """Files that no program may open carelessly, by name."""
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "null.png").symlink_to("/dev/zero")
    (folder / "gone.png").symlink_to(folder / "nowhere")
    (folder / "folder.png").mkdir()
    listening = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(folder)  # the path of a socket may be no longer than about 100 bytes
    listening.bind("s.png")
    os.chdir(here)
    return listening


def test_files_that_are_no_files_are_bad_records(pets):
    with strange_files(pets / "cat"):
        source = opened(f"folder:{pets}", on_bad_record="skip")
        assert len(source) == 9 and len(source.digest()) == 64
        images, labels = source.read(range(9))
        assert (images == 7).all() and labels.tolist() == [0] * 7 + [1] * 2
        assert source.bad_records == 5
        strict = opened(f"folder:{pets}")
        for i, why in enumerate(("No such file", "symbolic links", "device", "pipe", "socket")):
            with pytest.raises(UserError, match=why):
                strict.read([2 + i])


def test_links_that_lead_round_or_into_the_kernel_end(tmp_path):
    write_images(tmp_path / "d" / "cat")
    (tmp_path / "d" / "cat" / "kernel").symlink_to("/proc")
    assert len(opened(f"folder:{tmp_path / 'd'}")) == 2
    rooms = [tmp_path / "d" / "cat" / f"room{i}" for i in range(9)]
    for room in rooms:
        room.mkdir()
    for a in rooms:
        for b in rooms:  # as many ways as there are orders of nine rooms
            (a / b.name).symlink_to(b)
    with pytest.raises(UserError, match="more than 8 ways.*remove such links"):
        opened(f"folder:{tmp_path / 'd'}")


def test_pipes_in_the_place_of_other_files(tmp_path, capsys):
    write_images(tmp_path / "d" / "cat", "0.png", "1.png", "2.png")
    assert prepared(tmp_path / "d", tmp_path / "out") == 0
    (tmp_path / "out" / "info.json").unlink()
    os.mkfifo(tmp_path / "out" / "info.json")
    with pytest.raises(UserError, match="info.json cannot be read .is a pipe"):
        opened(f"records:{tmp_path / 'out'}")


def prepared(folder, out, *options):
    command = ["prepare", "--source", f"folder:{folder}", "--resolution", "8", "--out", str(out)]
    return cli.main([*command, *options])


def test_prepare_drops_bad_records_and_counts_what_is_there(pets, tmp_path, capsys):
    write_images(pets / "cat", *(f"{i}.png" for i in range(9)))
    for i in (1, 3, 4, 8):
        (pets / "cat" / f"{i}.png").write_text("no image")
    (pets / "notes.txt").write_text("x")
    (pets / "empty").mkdir()
    assert prepared(pets, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "--on-bad-record skip to leave it out" in error and "--config" not in error
    assert not (tmp_path / "out").exists()
    assert prepared(pets, tmp_path / "out", "--on-bad-record", "skip") == 0
    said = capsys.readouterr()
    assert "7 images of 2 classes" in said.out and "cat, dog" in said.out
    assert "4 unreadable images were left out" in said.err and "1.png" in said.err
    assert "left out, no image inside: empty" in said.err and ".txt 1" in said.err
    info = json.loads((tmp_path / "out" / "info.json").read_text())
    assert (info["count"], info["histogram"], info["dropped"]) == (7, [5, 2], 4)
    records = opened(f"records:{tmp_path / 'out'}")
    assert len(records) == 7 and records.read(range(7))[1].tolist() == [0] * 5 + [1] * 2
    text = "\n".join(data_report(records).lines())
    assert "left out, no image inside: empty" in text and ".txt 1" in text
    # What is there is written as if nothing else had been there.
    for i in (1, 3, 4, 8):
        (pets / "cat" / f"{i}.png").unlink()
    assert prepared(pets, tmp_path / "clean") == 0
    clean = json.loads((tmp_path / "clean" / "info.json").read_text())
    assert clean["digest"] == info["digest"] and clean["shards"] == info["shards"]


def test_prepare_refuses_a_class_that_has_no_readable_image_left(pets, tmp_path, capsys):
    for path in (pets / "dog").iterdir():
        path.write_bytes(b"")
    assert prepared(pets, tmp_path / "out", "--on-bad-record", "skip") == 2
    assert "class 'dog' has no readable image" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_shard_that_another_of_the_same_size_has_replaced(pets, tmp_path):
    write_images(pets / "cat", "5.png", value=200)
    for number in ("1", "2"):
        assert prepared(pets, tmp_path / number) == 0
        write_images(pets / "cat", "0.png", value=90)
    (first,), (second,) = ((tmp_path / n).glob("*.array_record") for n in "12")
    assert first.stat().st_size == second.stat().st_size
    old = opened(f"records:{tmp_path / '1'}").stamp()
    os.utime(first, ns=(1, 1))
    assert opened(f"records:{tmp_path / '1'}").stamp() != old
    shutil.copyfile(second, first)
    with pytest.raises(UserError, match="is not the shard that info.json describes"):
        opened(f"records:{tmp_path / '1'}")


def test_a_path_without_its_kind_says_how_to_write_it(pets, tmp_path, monkeypatch):
    def refused(spec):
        with pytest.raises(UserError) as caught:
            opened(spec)
        return str(caught.value)

    assert f"did you mean 'folder:{pets}'?" in refused(pets)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for spec in ("pets", "./pets", "~/pets"):
        assert f"did you mean 'folder:{spec}'?" in refused(spec)
        assert opened(f"folder:{spec}").class_names == ("cat", "dog")
    assert "no such folder /none/here" in refused("/none/here")
    prepared(pets, tmp_path / "out")
    assert "did you mean 'records:out'?" in refused("out")
    np.savez(tmp_path / "a.npz", images=np.zeros(3))
    assert "did you mean 'arrays:a.npz'?" in refused("a.npz")


def test_a_workdir_of_before_keeps_its_order_and_its_data(tmp_path, capsys):
    """Its config.json has no class_order, its checkpoint the digest of before and no stamp."""
    for i in (2, 10):
        write_images(tmp_path / "d" / str(i))
    given = (f"--config.data.source=folder:{tmp_path / 'd'}", "--config.model.num_classes=2")
    config = runs.tiny_config(*given)
    new, _ = run_data.open_source(config.copy_and_resolve_references(), tmp_path / "run")
    assert new.class_names == ("2", "10")
    saved = config.to_dict()
    del saved["data"]["class_order"], saved["data"]["max_pixels"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(saved))
    old, _ = run_data.open_source(config, tmp_path / "run")
    assert old.class_names == config.class_names == ("10", "2")
    saved = open_directory(tmp_path / "run")[1]
    assert saved.data.class_order == config.data.class_order == "text"
    assert config_lib.check_resume(saved, config) == []

    def resumed(digest, **stamp):
        run_data.check_resumed({"data_digest": digest, **stamp}, old)
        return capsys.readouterr().err

    capsys.readouterr()
    assert resumed(old.earlier_digest()) == resumed(old.digest()) == ""
    assert resumed(old.digest(), data_stamp=old.stamp()) == ""
    assert resumed(old.digest(), data_stamp="other").count("changed or copied") == 1
    with pytest.raises(UserError, match="trained on other data"):
        resumed(new.digest())


@pytest.mark.full
def test_a_run_of_before_keeps_its_order_and_goes_on(tmp_path, capsys, monkeypatch):
    """Its config.json has no class_order, its checkpoint the digest of before and no stamp."""
    for i in range(1, 11):
        write_images(tmp_path / "d" / str(i))
    args = ("--config.mesh=(1,)", f"--config.data.source=folder:{tmp_path / 'd'}")
    with monkeypatch.context() as before:
        before.setattr(FolderSource, "digest", FolderSource.earlier_digest)
        before.setattr(FolderSource, "stamp", lambda self: None)
        text = ("--config.data.class_order=text", "--config.num_steps=2")
        assert runs.train(tmp_path / "run", *args, *text) == 0
    path = tmp_path / "run" / "config.json"
    saved = json.loads(path.read_text())
    assert saved["data"].pop("class_order") == "text"
    path.write_text(json.dumps(saved))
    capsys.readouterr()
    assert runs.train(tmp_path / "run", *args) == 0
    assert "after step 2" in (said := capsys.readouterr().err) and "were changed" not in said
    assert json.loads(path.read_text())["data"]["class_order"] == "text"
    os.utime(tmp_path / "d" / "2" / "0.png", ns=(1, 1))
    assert runs.train(tmp_path / "run", *args) == 0  # finished: restored, and nothing more
    assert capsys.readouterr().err.count("its files were changed or copied") == 1
    write_images(tmp_path / "d" / "2", "0.png", value=99)
    assert runs.train(tmp_path / "run", *args) == 2
    assert "trained on other data" in capsys.readouterr().err
