"""What a data set may surprise with is found, and said with a remedy."""

import json

import numpy as np
import pytest
from PIL import Image

from biggan_jax import cli
from biggan_jax.data import findings, likeness, looks, open_source, shard_writer
from tests import runs
from tests.data.test_strange_folders import write_images


def photograph(seed, size=(64, 64)):
    """A smooth picture of its own."""
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


@pytest.fixture(autouse=True)
def time_enough(monkeypatch):
    """A sample is cut short where time is, which a busy machine must not decide here."""
    for module, name in ((looks, "SECONDS"), (looks, "THOROUGH_SECONDS"), (likeness, "SECONDS")):
        monkeypatch.setattr(module, name, 600)


@pytest.fixture
def photographs(tmp_path):
    """12 pictures of each of two classes."""
    for i in range(24):
        save(photograph(i), tmp_path / "d" / "ab"[i % 2] / f"{i}.png")
    return tmp_path / "d"


def found(folder, channels=3, thorough=False, images_per_step=None, **settings):
    settings = {"resolution": 64, **settings}
    source = open_source(f"folder:{folder}", channels=channels, **settings)
    options = {"thorough": thorough, "images_per_step": images_per_step}
    return findings.find(source, source.histogram(), **options)


def text_of(*args, **settings):
    return "\n".join(map(str, found(*args, **settings)))


def test_nothing_is_found_where_nothing_is(photographs):
    assert found(photographs, thorough=True, images_per_step=24) == []


def test_crops_small_and_tiny_pictures(photographs):
    save(photograph(90, (688, 80)), photographs / "a" / "wide.png")
    save(photograph(91, (90, 64)), photographs / "a" / "little.png")  # loses 29%
    text = text_of(photographs)
    assert "loses more than a third of 1 image, of 26 looked at" in text
    assert "wide.png, 688 x 80, loses 88%" in text
    assert "enlarged" not in text and "1 images" not in text
    save(photograph(92, (1, 1)), photographs / "b" / "one.png")
    save(photograph(93, (40, 40)), photographs / "b" / "small.jpg")
    text = text_of(photographs)
    assert "1 image has less than 1/8 of the 64 pixels" in text and "one.png, 1 x 1" in text
    assert "1 image is smaller than 64 pixels and enlarged, of 28 looked at" in text


def test_a_sample_ends_when_the_time_does(photographs, monkeypatch):
    assert list(looks.within(0, np.arange(9))) == [0]
    monkeypatch.setattr(looks, "SECONDS", 0)
    save(photograph(90, (688, 80)), photographs / "a" / "wide.png")
    assert "looked at" not in text_of(photographs) or "of 1 looked at" in text_of(photographs)


def test_batches_that_repeat_images(photographs):
    text = text_of(photographs, images_per_step=25)
    assert "one step takes 25 images and there are 24" in text and "--config.batch_size" in text


def test_a_set_of_one_image(tmp_path):
    """There is no batch of one image, and no other class to join."""
    save(photograph(0), tmp_path / "all" / "0.png")
    text = text_of(tmp_path, images_per_step=2)
    assert "there is 1 (batch_size * num_d_steps): each repeats images; give more images" in text
    assert "1 class has fewer than 10 images (all 1)" in text and "join" not in text


def test_a_balance_is_not_advised_for_lanes(tmp_path):
    for i in range(11):
        save(photograph(i), tmp_path / "ab"[i > 9] / "x" / f"{i}.png")
    source = open_source(f"folder:{tmp_path}", resolution=8, channels=3)
    for lanes in (0, 4):
        source.num_lanes = lanes
        (rare,) = findings.of_counts(source, source.histogram())[1:]
        assert ("again without lanes and train with data.balance" in rare.remedy) == (lanes > 0)


def test_copies_and_the_same_picture_under_two_labels(photographs):
    whole = (photographs / "a" / "0.png").read_bytes()
    (photographs / "a" / "copy.png").write_bytes(whole)
    assert "1 image is a copy of another" in text_of(photographs)
    (photographs / "b" / "copy.png").write_bytes(whole)
    text = text_of(photographs)
    assert "1 image is a copy of an image of another class" in text
    assert "copy.png" in text and "such as a and b: keep each image in one class" in text
    # Files that begin alike and differ later are none.
    noise = np.random.default_rng(0).integers(0, 256, 40_000, np.uint8).tobytes()
    for i in range(2):
        (photographs / "a" / f"{i}.ppm").write_bytes(b"P6 100 100 255\n" + noise + bytes([i]))
    assert text_of(photographs) == text


def test_near_duplicates_are_told_from_others(photographs):
    near = photograph(0, (80, 80))
    save(near, photographs / "a" / "again.jpg", quality=80)
    assert "duplicate" not in text_of(photographs)
    text = text_of(photographs, thorough=True)
    assert "1 image is a near-duplicate of another" in text and "again.jpg" in text
    for name in ("p", "q"):  # a plain picture resembles every other one
        save(Image.new("RGB", (64, 64), "white"), photographs / "b" / f"{name}.png", dpi=(9, 9))
    assert text_of(photographs, thorough=True).count("near-duplicate") == 1


def test_alike_is_what_the_hash_and_the_pixels_say():
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (6, 16, 16)).astype(np.float32)
    images[4] = images[1] + rng.normal(0, 1, (16, 16))
    assert likeness.alike(images) == [(1, 4)]


def test_few_images_imbalance_and_grey(photographs, tmp_path):
    for i in range(2):
        save(photograph(50 + i).convert("L"), photographs / "c" / f"{i}.png")
    text = text_of(photographs)
    assert "1 class has fewer than 10 images (c 2)" in text and "times" not in text
    assert "2 images are grey in a set of colours, of 26 looked at" in text
    assert "grey" not in text_of(photographs, channels=1)
    (photographs / "c" / "1.png").unlink()
    assert "the largest class has 12 times the images of the smallest" in text_of(photographs)
    for i in range(12):
        save(photograph(i).convert("L"), tmp_path / "grey" / "a" / f"{i}.png")
    assert "give --config.model.channels=1 for a grey model" in text_of(tmp_path / "grey")


def test_unreadable_files_stop_unless_they_are_skipped(photographs):
    (photographs / "a" / "x.jpg").write_text("<html>404</html>")
    (finding,) = found(photographs)
    assert finding.stops and "1 file is no readable image, of 25 looked at" in finding.what
    assert "x.jpg: an HTML page" in finding.where and "on_bad_record=skip" in finding.remedy
    (skipped,) = found(photographs, on_bad_record="skip")
    assert not skipped.stops and "they are skipped" in skipped.remedy


def test_prepare_says_what_it_finds_and_takes_max_pixels(
    photographs, tmp_path, capsys, monkeypatch
):
    save(photograph(1, (640, 64)), photographs / "b" / "wide.png")

    def prepare(name, *options):
        source = ["--source", f"folder:{photographs}", "--resolution", "8"]
        return cli.main(["prepare", *source, "--out", str(tmp_path / name), *options])

    with monkeypatch.context() as patch:
        patch.setattr(shard_writer, "_READ_BYTES", 1)  # several parts, and one report
        assert prepare("out") == 0
    said = capsys.readouterr().err
    assert "loses more than a third of 1 image" in said and said.count("images per class") == 1
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    assert prepare("refused") == 2
    words = "40,960 pixels are more than the limit of 20,000", "--max-pixels 40960", "-bad-record"
    runs.assert_one_error(capsys.readouterr(), *words)
    assert prepare("larger", "--max-pixels", "40960") == 0
    infos = [json.loads((tmp_path / n / "info.json").read_text()) for n in ("out", "larger")]
    assert infos[0]["digest"] == infos[1]["digest"]
    capsys.readouterr()
    assert prepare("none", "--max-pixels", "0") == 2
    runs.assert_one_error(capsys.readouterr(), "--max-pixels is 0")


def test_messages_name_what_the_command_at_hand_takes(tmp_path):
    write_images(tmp_path / "d" / "cat")
    (tmp_path / "d" / "cat" / "2.png").write_bytes(b"")
    size = {"resolution": 8, "channels": 3}
    for option, words in (
        ("--config.data.source", "--config.data.on_bad_record=skip"),
        ("--source", "pass --on-bad-record skip to leave it out"),
        ("--data", "pass --on-bad-record skip to replace it"),
        ("data.source", "pass --on-bad-record skip to replace it"),
        ("open_source", "pass on_bad_record='skip'"),
    ):
        source = open_source(f"folder:{tmp_path / 'd'}", option=option, **size)
        with pytest.raises(ValueError, match=words) as caught:
            source.read([2])
        assert ("--config" in str(caught.value)) == option.startswith("--config")
