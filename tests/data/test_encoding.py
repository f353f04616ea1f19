"""Records whose images are WebP or JPEG files."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from biggan_jax import cli
from biggan_jax.data import Batches, encoding, open_source, prepare
from biggan_jax.data.encoding import DamagedRecord, Encoding
from biggan_jax.errors import UserError
from tests.runs import assert_one_error


@pytest.fixture
def pictures(tmp_path):
    """Smooth colours and noise, 12 images of 16 pixels in two classes, as a folder."""
    rng = np.random.default_rng(0)
    for i in range(12):
        small = rng.integers(0, 256, (1, 4, 3), np.uint8)
        image = Image.fromarray(small).resize((16, 16), Image.Resampling.BICUBIC)
        path = tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return tmp_path / "pictures"


def opened(spec, channels=3):
    return open_source(spec, resolution=16, channels=channels)


def written(pictures, name, channels=3, **settings):
    """(info, source) of records."""
    out = pictures.parent / f"{name}-{channels}-{len([*pictures.parent.iterdir()])}"
    info = prepare(opened(f"folder:{pictures}", channels), out, **settings)
    return info, opened(f"records:{out}", channels)


@pytest.mark.parametrize("channels", [1, 3])
def test_webp_is_the_same_data_as_raw_pixels(pictures, channels):
    info, raw = written(pictures, "raw", channels)
    encoded, webp = written(pictures, "webp", channels, encoding=Encoding("webp"))
    assert "encoding" not in info and info["format_version"] == 1
    assert encoded["encoding"] == {"format": "webp"} and encoded["format_version"] == 2
    assert encoded["digest"] == info["digest"]
    stored = [sum(map(len, s._shards.read(np.arange(12)))) for s in (webp, raw)]
    assert stored[1] == 12 * (16 * 16 * channels + 4) and (channels == 1 or stored[0] < stored[1])
    order = [5, 0, 11, 5]
    for got, wanted in zip(webp.read(order), raw.read(order), strict=True):
        assert np.array_equal(got, wanted)
    assert np.array_equal(webp.labels_of(range(12)), raw.labels_of(range(12)))
    streams = [Batches(s, seed=1, batch_size=4, flip=True) for s in (raw, webp)]
    for step in range(4):
        one, other = (stream.batch_at(step) for stream in streams)
        assert np.array_equal(one["image"], other["image"])


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_what_pillow_decodes_and_near_the_pixels(pictures, channels):
    _, raw = written(pictures, "raw", channels)
    errors = {}
    for quality in (95, 10):
        info, source = written(
            pictures,
            "jpeg",
            channels,
            encoding=Encoding("jpeg", None if quality == 95 else quality),
        )
        assert info["encoding"] == {"format": "jpeg", "quality": quality, "subsampling": "4:4:4"}
        images, labels = source.read(range(12))
        wanted, wanted_labels = raw.read(range(12))
        assert np.array_equal(labels, wanted_labels)
        assert np.array_equal(source.labels_of([3, 1]), wanted_labels[[3, 1]])
        errors[quality] = np.abs(images.astype(int) - wanted).mean()
        file = io.BytesIO()
        Image.fromarray(wanted[0].squeeze()).save(file, "JPEG", quality=quality, subsampling=0)
        assert np.array_equal(np.asarray(Image.open(file)).reshape(wanted[0].shape), images[0])
    assert errors[95] < errors[10] / 2 and errors[95] < 2


def test_lanes_hold_encoded_images_too(pictures):
    _, raw = written(pictures, "raw", lanes=3)
    _, webp = written(pictures, "webp", lanes=3, encoding=Encoding("webp"))
    for got, wanted in zip(webp.read(range(12)), raw.read(range(12)), strict=True):
        assert np.array_equal(got, wanted)
    assert webp.digest() == raw.digest()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [1, 80, 100])
def test_jpegs_of_any_shape_have_pillows_pixels(channels, quality):
    rng = np.random.default_rng(1)
    for side in (4, 24, 33):
        image = rng.integers(0, 256, (side, side, channels), np.uint8)
        data = Encoding("jpeg", quality).encode(image)
        out = np.empty_like(image)
        Encoding("jpeg").decode(memoryview(data), out)
        wanted = np.asarray(Image.open(io.BytesIO(data))).reshape(image.shape)
        assert np.array_equal(out, wanted)


@pytest.mark.parametrize("name", encoding.FORMATS)
def test_a_damaged_image_is_no_other_image(name):
    image = np.random.default_rng(2).integers(0, 256, (8, 8, 3), np.uint8)
    data = Encoding(name).encode(image)
    out = np.empty_like(image)
    for bad in (b"", data[:20], b"x" * len(data[:100]), Encoding(name).encode(image[:4, :4])):
        with pytest.raises(DamagedRecord):
            Encoding(name).decode(bad, out)


def test_a_damaged_record_is_named(pictures):
    _, source = written(pictures, "webp", encoding=Encoding("webp"))
    real = source._shards.read
    source._shards.read = lambda places: [
        bytes(len(r)) if p == 7 else r for p, r in zip(places, real(places), strict=True)
    ]
    with pytest.raises(UserError, match="record 7 of .* is damaged"):
        source.read([1, 7])
    assert source.read([1, 2])[1].shape == (2,)


def test_prepare_encodes(pictures, tmp_path, capsys):
    command = ["prepare", f"--source=folder:{pictures}", "--resolution=16", "--json"]
    digests = {}
    for options in ([], ["--encode=raw"], ["--encode=webp"], ["--encode=jpeg", "--quality=80"]):
        out = tmp_path / f"out{len(digests)}"
        assert cli.main([*command, *options, f"--out={out}"]) == 0
        info = json.loads(capsys.readouterr().out)
        digests[" ".join(options)] = info["digest"]
        assert info.get("encoding", {}).get("quality") == (
            80 if "--quality=80" in options else None
        )
        size = sum(path.stat().st_size for path in out.glob("*.array_record"))
        assert size == sum(shard["bytes"] for shard in info["shards"])
    assert len({*digests.values()}) == 2  # of JPEG alone the pixels are others
    plain, asked = ([*(tmp_path / f"out{i}").glob("*.array_record")] for i in (0, 1))
    assert [p.read_bytes() for p in plain] == [p.read_bytes() for p in asked]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--encode=jpg"], "--encode jpg .did you mean 'jpeg'.*raw, webp, jpeg"),
        (["--encode=png"], "choose one of raw, webp, jpeg"),
        (["--encode=webp", "--quality=90"], "webp is lossless"),
        (["--quality=90"], "add --encode jpeg"),
        (["--encode=jpeg", "--quality=0"], "--quality is 0; set it to 1 to 100"),
        (["--encode=jpeg", "--quality=101"], "--quality is 101"),
    ],
)
def test_what_cannot_be_encoded_is_one_line(pictures, tmp_path, options, words, capsys):
    out = tmp_path / "out"
    command = ["prepare", f"--source=folder:{pictures}", "--resolution=16", f"--out={out}"]
    assert cli.main([*command, *options]) == 2
    assert_one_error(capsys.readouterr(), words)
    assert not out.exists()


def test_an_unknown_encoding_is_refused(pictures):
    info, source = written(pictures, "webp", encoding=Encoding("webp"))
    path = source._folder / "info.json"
    path.write_text(json.dumps(info | {"encoding": {"format": "jxl"}}))
    with pytest.raises(UserError, match="encoded as 'jxl'"):
        opened(f"records:{source._folder}")
