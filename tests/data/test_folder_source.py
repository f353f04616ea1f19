"""Folders of images: classes, ignored files, unreadable files."""

import logging
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from biggan_jax.data import data_report, open_source
from biggan_jax.errors import UserError


def write_image(path, value, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


@pytest.fixture
def folder(tmp_path):
    """Two classes, 6 images: values 0..2 in cat, 100..102 in dog."""
    root = tmp_path / "pets"
    for i in range(3):
        write_image(root / "cat" / f"{i}.png", i)
        write_image(root / "dog" / "more" / f"{i}.PNG", 100 + i)
    return root


def open_folder(root, on_bad_record="error", resolution=4):
    return open_source(
        f"folder:{root}", resolution=resolution, channels=3, on_bad_record=on_bad_record
    )


def refusal(root):
    with pytest.raises(UserError) as caught:
        open_folder(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def values(source, indices=None):
    return source.read(range(len(source)) if indices is None else indices)[0][:, 0, 0, 0].tolist()


def test_classes_are_sub_folders_sorted_by_name(folder):
    write_image(folder / "ant" / "x.jpg", 50)
    source = open_folder(folder)
    assert source.class_names == ("ant", "cat", "dog")
    images, labels = source.read(range(len(source)))
    assert images.shape == (7, 4, 4, 3)
    assert labels.tolist() == [0, 1, 1, 1, 2, 2, 2]
    assert values(source, [6, 1, 1, 4]) == [102, 0, 0, 100]
    assert source.histogram().tolist() == [1, 3, 3]


def test_other_files_are_ignored_and_counted(folder):
    (folder / "cat" / "notes.txt").write_text("x")
    (folder / "cat" / ".DS_Store").write_bytes(b"x")
    (folder / "dog" / "._1.png").write_bytes(b"resource fork")
    write_image(folder / "loose.png", 9)
    write_image(folder / ".hidden" / "a.png", 9)
    (folder / "empty" / "deeper").mkdir(parents=True)
    source = open_folder(folder)
    assert len(source) == 6
    assert source.class_names == ("cat", "dog")
    report = data_report(source)
    assert report.ignored_files == 4
    assert report.empty_classes == ("empty",)
    assert any("empty" in line for line in report.lines())
    assert any("4 files" in line for line in report.lines())


def test_links_are_followed_but_not_in_circles(folder, tmp_path):
    write_image(tmp_path / "elsewhere" / "a.png", 7)
    (folder / "eel").symlink_to(tmp_path / "elsewhere")
    (folder / "cat" / "circle").symlink_to(folder / "cat")
    source = open_folder(folder)
    assert source.histogram().tolist() == [3, 3, 1]


def test_a_folder_that_cannot_serve_says_why(tmp_path):
    assert str(tmp_path / "no") in refusal(tmp_path / "no")
    (tmp_path / "file").write_text("x")
    assert "is a file" in refusal(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "class = sub-folder" in refusal(tmp_path / "empty")
    write_image(tmp_path / "flat" / "a.png", 1)
    message = refusal(tmp_path / "flat")
    assert "class = sub-folder" in message and "1 image lies directly" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_an_unreadable_folder_is_named(folder):
    (folder / "cat").chmod(0)
    try:
        assert str(folder / "cat") in refusal(folder)
    finally:
        (folder / "cat").chmod(0o755)


def test_an_unreadable_folder_is_named_for_root_too(folder, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", forbidden)
    assert str(folder) in refusal(folder)


def test_a_bad_image_stops_with_its_path_and_the_remedy(folder):
    bad = folder / "cat" / "1.png"
    bad.write_text("no image")
    with pytest.raises(UserError) as caught:
        open_folder(folder).read(range(6))
    message = str(caught.value)
    assert str(bad) in message and "--config.data.on_bad_record=skip" in message
    assert "\n" not in message


def test_a_file_that_vanished_is_a_bad_image(folder):
    source = open_folder(folder)
    (folder / "cat" / "1.png").unlink()
    with pytest.raises(UserError, match="1.png"):
        source.read([1])


def test_a_dangling_link_is_a_bad_image_that_can_be_skipped(folder):
    (folder / "cat" / "0.png").unlink()
    (folder / "cat" / "0.png").symlink_to(folder / "nowhere")
    source = open_folder(folder, "skip")
    assert data_report(source).examples == 6
    assert values(source, [0]) == [1]
    assert source.bad_records == 1


def test_skip_takes_the_next_good_record_of_the_class_and_counts_each_once(folder, caplog):
    for name in ("cat/1.png", "cat/2.png", "dog/more/0.PNG"):
        (folder / name).write_bytes((folder / name).read_bytes()[:40])
    with caplog.at_level(logging.WARNING):
        source = open_folder(folder, "skip")
        images, labels = source.read(range(6))
    assert images[:, 0, 0, 0].tolist() == [0, 0, 0, 101, 101, 102]  # cat/2 wraps around
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert source.bad_records == 3
    assert len(caplog.records) == 3 and "1.png" in caplog.text
    for _ in range(2):
        assert values(source, [3, 2, 1, 0]) == [101, 0, 0, 0]
    assert source.bad_records == 3


def test_skip_does_not_depend_on_the_order_of_reading(folder):
    for name in ("cat/0.png", "cat/1.png", "dog/more/2.PNG"):
        (folder / name).write_text("no image")
    forward, backward = open_folder(folder, "skip"), open_folder(folder, "skip")
    want = [values(forward, [i])[0] for i in range(6)]
    got = [values(backward, [i])[0] for i in reversed(range(6))][::-1]
    assert want == got == [2, 2, 2, 100, 101, 100]
    assert forward.bad_records == backward.bad_records == 3


def test_a_class_without_a_readable_image_is_an_error_that_names_it(folder):
    for path in (folder / "dog").rglob("*.PNG"):
        path.write_text("no image")
    source = open_folder(folder, "skip")
    assert values(source, [0, 1, 2]) == [0, 1, 2]
    with pytest.raises(UserError, match="class 'dog' has no readable image .all of its 3 images"):
        source.read([4])


def test_digest_follows_names_and_sizes(folder):
    first = open_folder(folder).digest()
    assert first == open_folder(folder, resolution=16).digest()
    write_image(folder / "cat" / "1.png", 1, size=(64, 64))
    resized = open_folder(folder).digest()
    (folder / "cat" / "1.png").rename(folder / "cat" / "9.png")
    renamed = open_folder(folder).digest()
    assert len({first, resized, renamed}) == 3


def test_digest_and_stamp_of_files_of_the_same_names_and_sizes(folder, tmp_path):
    """Other contents have another digest; a copy has the same; another time another stamp."""
    source = open_folder(folder)
    assert source.digest() != source.earlier_digest()
    copy = open_folder(shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile))
    assert copy.digest() == source.digest() and copy.stamp() != source.stamp()
    path = folder / "dog" / "more" / "2.PNG"
    whole, found = path.read_bytes(), path.stat()
    path.write_bytes(whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:])
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    changed = open_folder(folder)
    assert changed.earlier_digest() == source.earlier_digest()
    assert changed.digest() != source.digest() and changed.stamp() != source.stamp()
    path.write_bytes(whole)
    assert open_folder(folder).digest() == source.digest()
    assert open_folder(folder).stamp() != source.stamp()


def test_a_large_read_equals_single_reads(folder):
    source = open_folder(folder)
    indices = np.random.default_rng(0).integers(0, 6, 200)
    images, labels = source.read(indices)
    for i, image, label in zip(indices, images, labels, strict=True):
        one, one_label = source.read([i])
        np.testing.assert_array_equal(image, one[0])
        assert label == one_label[0]
