"""A balanced stream, and the held-out images of ADA, on two real processes as on one."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from biggan_jax.parallel import sharding
from biggan_jax.training import held_out_images, run_data
from tests import runs, small_folder

PROGRAM = """
import json, sys
import jax
sys.argv, given = sys.argv[:1], sys.argv[1:]
jax.distributed.initialize(f"localhost:{given[0]}", 2, int(given[1]))
from tests.parallel import test_balanced_stream as here

found = here.taken(*json.loads(ARGUMENTS))
print("RESULT" + json.dumps(found), flush=True)
jax.distributed.shutdown()
"""
FIRST, BATCHES = 3, 8  # of a run that goes on from a checkpoint


def taken(workdir, settings, mesh=(2, 1)):
    """This process's part of some batches, and of the held-out images that are on its device."""
    config = runs.tiny_config(*settings)
    workdir = Path(workdir)
    source, _ = run_data.open_source(config, workdir)
    stream = run_data.batches(config, workdir, source, 5, FIRST)
    found = [next(stream) for _ in range(BATCHES)]
    stream.close()
    judged = held_out_images.read(source, config, workdir, sharding.make_mesh(mesh))
    parts = {}
    for name in ("images", "labels", "weights"):
        own = [np.asarray(shard.data) for shard in getattr(judged, name).addressable_shards]
        parts[name] = np.concatenate(own, axis=1)
        parts[name] = parts[name] if name == "images" else parts[name].tolist()
    return {
        "images": [checksums(batch["image"]) for batch in found],
        "labels": [batch["label"].tolist() for batch in found],
        "judged": parts | {"images": checksums(parts["images"])},
    }


def checksums(images):
    """A number for every image, [n, B]: what a process prints must fit into a pipe."""
    return [[zlib.crc32(image) for image in row] for row in images]


@pytest.mark.full
def test_two_processes_get_the_batches_of_one(tmp_path):
    """Classes of 1, 5 and 14 images, flips, two D updates, and a start in the middle."""
    source = small_folder.make(tmp_path / "data", (1, 5, 14))
    settings = [*source, "--config.data.balance=1", "--config.data.flip=True"]
    settings += ["--config.num_d_steps=2", "--config.data.holdout=0.3"]
    arguments = json.dumps([str(tmp_path), settings])
    parts = runs.two_processes(PROGRAM.replace("ARGUMENTS", repr(arguments)))
    one = taken(tmp_path, settings, (1, 1))
    for name in ("images", "labels"):
        whole = np.concatenate([part[name] for part in parts], axis=2)
        np.testing.assert_array_equal(whole, one[name])
    for name, values in one["judged"].items():
        whole = np.concatenate([part["judged"][name] for part in parts], axis=1)
        np.testing.assert_array_equal(whole, values)
    counts = np.bincount(np.ravel(one["labels"]), minlength=3)
    assert counts.sum() == 2 * 16 * BATCHES and np.ptp(counts) <= 2  # as often as each other
