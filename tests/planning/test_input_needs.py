"""What a run asks of the hosts that read its images, against arithmetic."""

import pytest

from biggan_jax import cli, data
from biggan_jax.config import config_file
from biggan_jax.data import records
from biggan_jax.planning import chips, input_needs
from tests import runs
from tests.runs import assert_one_error

KEYS = {
    *("needed_images_per_second", "host_images_per_second", "keeps_up"),
    *("stage_gigabytes_per_host", "stage_minutes"),
}


def shipped(name, *overrides):
    return config_file.load(str(runs.ROOT / "configs" / f"{name}.py"), list(overrides))


@pytest.mark.parametrize(
    ("name", "topology", "hosts", "side"),
    [
        ("biggan256", "v5p:8x8x8", 128, 256),
        ("biggan_deep512", "v5p:8x8x8", 128, 512),
        ("biggan128", "v4:4x4x4", 16, 128),
        ("biggan128", "v5e:16x16", 64, 128),
    ],
)
def test_raw_pixels_of_imagenet(name, topology, hosts, side):
    shape = chips.parse(topology)
    found = input_needs.needs(shipped(name), shape, 1, 338_137.0)
    assert found.keys() >= KEYS
    total = 1_281_167 * (side * side * 3 + 4)  # pixels and a label
    assert found["hosts"] == hosts and found["encoding"] == "raw"
    assert found["stage_gigabytes_per_host"] == pytest.approx(total / hosts / 1e9, rel=1e-3)
    seconds = max(total / hosts / 1e9, total / 25e9)  # a host's disk, a bucket's quota
    assert found["stage_minutes"] == pytest.approx(seconds / 60, rel=1e-3)
    assert found["needed_images_per_second"] == pytest.approx(338_137 / hosts)
    assert found["keeps_up"] == (found["host_images_per_second"] >= 338_137 / hosts)
    two = input_needs.needs(shipped(name), shape, 2, 2 * 338_137.0)
    assert two["hosts"] == 2 * hosts
    assert two["needed_images_per_second"] == pytest.approx(found["needed_images_per_second"])
    assert two["stage_gigabytes_per_host"] == pytest.approx(found["stage_gigabytes_per_host"] / 2)


def test_the_encoding_decides_what_is_read_and_copied():
    config, shape = shipped("biggan256"), chips.parse("v5p:2x2x2")
    found = {
        name: input_needs.needs(config, shape, 1, 1e4, images=1000, encode=name)
        for name in ("raw", "webp", "jpeg")
    }
    sizes = [found[name]["stage_gigabytes_per_host"] for name in ("raw", "webp", "jpeg")]
    # Raw pixels are copied under Python's lock, which bounds a host of many cores.
    rates = [found[name]["host_images_per_second"] for name in ("webp", "raw", "jpeg")]
    assert sizes == sorted(sizes, reverse=True) and rates == sorted(rates)
    slow = input_needs.needs(config, shape, 1, 1e9, encode="jpeg")
    assert not slow["keeps_up"] and found["jpeg"]["keeps_up"]
    assert any("DOES NOT KEEP UP" in line for line in input_needs.lines(slow))
    assert any("keeps up" in line for line in input_needs.lines(found["jpeg"]))
    unknown = input_needs.needs(config, shape, 1, None)
    assert unknown["keeps_up"] is unknown["needed_images_per_second"] is None


def test_a_process_is_bound_by_its_cores_and_by_the_part_that_one_thread_does():
    """The constants against what was measured: microseconds of one vCPU for an image."""
    measured = {
        "raw": {64: 29, 128: 53, 256: 103},
        "webp": {64: 176, 128: 467, 256: 1461},
        "jpeg": {64: 66, 128: 165, 256: 500},
    }
    for name, by_side in measured.items():
        for side, microseconds in by_side.items():
            rate = input_needs.STORED[name].images_per_second(3 * side * side, 1)
            assert rate == pytest.approx(1e6 / microseconds, rel=0.25), (name, side)
    jpeg = input_needs.STORED["jpeg"]
    assert jpeg.images_per_second(3 * 256 * 256, 2) == 2 * jpeg.images_per_second(3 * 256 * 256, 1)
    assert jpeg.images_per_second(3 * 64 * 64, 208) == jpeg.images_per_second(3 * 64 * 64, 99)
    assert 1 / jpeg.seconds > jpeg.images_per_second(3 * 64 * 64, 208) > 10_000


def test_local_records_say_their_number_and_size(tmp_path):
    source = data.open_source("digits:test", resolution=8, channels=1)
    info = data.prepare(source, tmp_path / "r")
    override = f"--config.data.source=records:{tmp_path / 'r'}"
    config = config_file.load(
        runs.DIGITS, [*runs.TINY[1:], "--config.model.resolution=8", override]
    )
    found = input_needs.needs(config, chips.parse("v5e:2x2"), 1, 10.0)
    stored = sum(path.stat().st_size for path in (tmp_path / "r").glob("*.array_record"))
    assert found["images"] == info["count"] == len(source)
    assert found["stage_gigabytes_per_host"] == pytest.approx(stored / 1e9)
    assert stored > len(source) * records.record_dtype(8, 1).itemsize
    other = config_file.load(runs.DIGITS, [*runs.TINY[1:], override])  # of 16 pixels
    assert input_needs.needs(other, chips.parse("v5e:2x2"), 1, 10.0)["images"] is None
    one = input_needs.needs(config, chips.parse("v5e:1x1"), 1, 10.0)
    assert one["hosts"] == 1 and one["cores_per_host"] == 28


def test_what_cannot_be_is_one_line(capsys):
    command = ["plan", "--config=biggan128", "--topology=v4:2x2x1"]
    assert cli.main([*command, "--images=0"]) == 2
    assert_one_error(capsys.readouterr(), "--images is 0")
    assert cli.main([*command, "--encode=jpg"]) == 2
    assert_one_error(capsys.readouterr(), "--encode jpg .did you mean 'jpeg'")
