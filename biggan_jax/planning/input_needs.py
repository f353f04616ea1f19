"""Whether the hosts of a topology keep up with its chips, and what they copy before a start."""

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from biggan_jax.errors import UserError, did_you_mean
from biggan_jax.planning.chips import Topology

IMAGENET_IMAGES = 1_281_167  # of ILSVRC 2012's training set
LABEL_BYTES = 4
# Every host takes part of a bucket's default quota of 200 Gbit/s for a project and region
# (https://docs.cloud.google.com/storage/quotas#bandwidth), and no more than a disk writes: 1 GB/s
# is what a balanced persistent disk of some TB is sold with.
BUCKET_BYTES_PER_SECOND = 25e9
HOST_BYTES_PER_SECOND = 1e9


@dataclasses.dataclass(frozen=True)
class Host:
    """The virtual machine to which chips are attached.

    Attributes:
      chips: of one host in a slice of several.
      cores: vCPUs of it, which a slice with fewer chips gets its share of.
    """

    chips: int
    cores: int


# https://docs.cloud.google.com/tpu/docs, 'VM types' of each generation.
HOSTS = {
    **{"v2": Host(4, 96), "v3": Host(4, 96), "v4": Host(4, 240), "v5e": Host(4, 112)},
    **{"v5p": Host(4, 208), "v6e": Host(4, 180), "tpu7x": Host(4, 224)},
}


@dataclasses.dataclass(frozen=True)
class Stored:
    """What records of one encoding cost.

    Attributes:
      bytes_per_value: of a stored image, for each value of a pixel.
      seconds: of one core for an image, besides those for its values: spent in Python, whose lock
        one thread of a process has at a time.
      seconds_per_value: of one core.
      locked_per_value: those of them that are spent under that lock too: copies of pixels.
    """

    bytes_per_value: float
    seconds: float
    seconds_per_value: float
    locked_per_value: float

    def image_bytes(self, values: int) -> float:
        """Bytes of the record of an image of so many values."""
        return values * self.bytes_per_value + LABEL_BYTES

    def images_per_second(self, values: int, cores: float) -> float:
        """Images of so many values that a process reads and decodes in a second on some cores."""
        locked = self.seconds + values * self.locked_per_value
        return min(cores / (self.seconds + values * self.seconds_per_value), 1 / locked)


# Records of photographs (JPEG of quality 95, 4:4:4), read and decoded on one vCPU of an AMD EPYC:
# docs/data.md has the measurements at 64, 128 and 256 pixels.
STORED = {
    "raw": Stored(1.0, 25e-6, 0.4e-9, 0.4e-9),
    "webp": Stored(0.5, 90e-6, 7.0e-9, 0.2e-9),
    "jpeg": Stored(0.25, 40e-6, 2.4e-9, 0.2e-9),
}


def needs(
    config: ConfigDict,
    topology: Topology,
    slices: int,
    images_per_second: float | None,
    *,
    images: int | None = None,
    encode: str | None = None,
) -> dict[str, Any]:
    """What a run asks of the hosts that read its images.

    Args:
      config: a full config.
      topology: of one slice.
      slices: how many.
      images_per_second: that the chips take, an upper bound; None where it is not known.
      images: of the data set; those of local records, or of ImageNet, where they are not given.
      encode: of its records: raw, webp or jpeg; that of local records, or raw, where it is not
        given.

    Returns:
      hosts; needed_images_per_second, of one host; host_images_per_second, that its cores read and
      decode (`STORED`); keeps_up, None where the need is not known; images, encoding,
      bytes_per_image; stage_gigabytes_per_host (10**9 bytes of records in lanes, each host its own)
      and stage_minutes, None where the number of images is not known.

    Raises:
      UserError: an unknown encoding, or less than one image.
    """
    if images is not None and images < 1:
        raise UserError(f"--images is {images}; set it to 1 or more")
    if encode is not None and encode not in STORED:
        raise UserError(
            f"--encode {encode}{did_you_mean(encode, STORED)}: choose one of {', '.join(STORED)}"
        )
    info = _local_info(config)
    name = encode or info.get("encoding", {}).get("format", "raw")
    values = config.model.resolution**2 * config.model.channels
    size = STORED[name].image_bytes(values)
    count = images or info.get("count")
    if info and encode is None:
        size = sum(shard["bytes"] for shard in info["shards"]) / info["count"]
    elif count is None and "imagenet" in (config.data.source or ""):
        count = IMAGENET_IMAGES
    chips = topology.chips * slices
    host = HOSTS[topology.generation]
    hosts = slices * math.ceil(topology.chips / host.chips)
    cores = host.cores * min(1.0, topology.chips / host.chips)
    readable = STORED[name].images_per_second(values, cores)
    needed = None if images_per_second is None else images_per_second / hosts
    staged = None if count is None else count * size / hosts
    return {
        "hosts": hosts,
        "chips_per_host": chips // hosts,
        "cores_per_host": round(cores),
        "encoding": name,
        "images": count,
        "bytes_per_image": size,
        "needed_images_per_second": needed,
        "host_images_per_second": readable,
        "keeps_up": None if needed is None else readable >= needed,
        "stage_gigabytes_per_host": None if staged is None else staged / 1e9,
        "stage_minutes": None if staged is None else stage_seconds(staged, hosts) / 60,
    }


def stage_seconds(host_bytes: float, hosts: int) -> float:
    """Seconds in which all hosts have copied so many bytes each, by bandwidth alone."""
    rate = min(HOST_BYTES_PER_SECOND, BUCKET_BYTES_PER_SECOND / hosts)
    return host_bytes / rate


def _local_info(config: ConfigDict) -> dict[str, Any]:
    """What lies beside local records of the config's size; {} where there are none."""
    kind, _, path = (config.data.source or "").partition(":")
    if kind != "records" or "://" in path:
        return {}
    try:
        info = json.loads((Path(os.path.expanduser(path)) / "info.json").read_text())
        fits = info["resolution"] == config.model.resolution
        known = all(shard["bytes"] > 0 for shard in info["shards"]) and info["count"] > 0
        return info if fits and known else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def lines(found: dict[str, Any]) -> list[str]:
    """What `needs` has found, for a person."""
    r = found
    where = f"{r['hosts']:,} hosts of {r['cores_per_host']} vCPUs"
    if r["needed_images_per_second"] is None:
        told = [f"input: {where} read {r['host_images_per_second']:,.0f} images/s each"]
    else:
        verdict = "keeps up" if r["keeps_up"] else "DOES NOT KEEP UP"
        told = [
            f"input: {where}, each reads {r['host_images_per_second']:,.0f} {r['encoding']} "
            f"images/s and needs <= {r['needed_images_per_second']:,.0f}: {verdict}"
        ]
    if r["images"] is None:
        told.append("staging: how many images there are is not known: add --images N")
    else:
        told.append(
            f"staging: {r['images']:,} images of {r['bytes_per_image'] / 1e3:,.1f} kB in lanes, "
            f"{r['stage_gigabytes_per_host']:,.2f} GB a host, >= {r['stage_minutes']:.2f} minutes"
        )
    return told
