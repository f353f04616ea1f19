"""How often each program of an evaluation runs on each host of a topology, and what it adds up to.

Pure arithmetic: the processes of a run share whole batches of samples and of real images, and join
their sums at the end. Times come from published peaks: lower bounds.
"""

import dataclasses
import math
from typing import Any

from biggan_jax.evaluation import evaluator, reference
from biggan_jax.planning.chips import Topology
from biggan_jax.sampling import standing

# No x86 core of today makes more: two AVX-512 units, 32 float64 FLOPs a cycle, 4 GHz; two vCPUs
# share it.
VCPU_FLOPS = 64e9


@dataclasses.dataclass(frozen=True)
class Pod:
    """Who shares an evaluation.

    Attributes:
      topology: of one slice.
      slices: how many.
      needs: its hosts and the real images, of `input_needs.needs`.
      dim: of the features.
      classes: of their logits.
    """

    topology: Topology
    slices: int
    needs: dict[str, Any]
    dim: int
    classes: int


def evaluate(pod: Pod, samples: int, runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One evaluation, the real side apart.

    Args:
      pod: who shares it.
      samples: of all hosts.
      runs: {part: images_per_chip, flops_per_chip, bytes_per_chip and seconds {bound: seconds} of
        one run} of `generation`, `features` and perhaps `standing`.

    Returns:
      samples, hosts, samples_per_host (of the busiest one), samples_per_chip; parts, {name: runs,
      images_per_chip, flops_per_chip, bytes_per_chip, seconds_lower_bound, bound_by}; gather
      {bytes_per_chip, seconds_lower_bound}; host {flops, seconds_lower_bound}; flops_per_chip,
      bytes_per_chip and seconds_lower_bound of all of it; real, see `real_side`.
    """
    own = busiest(samples, pod.needs["hosts"], evaluator.BATCH_SIZE)
    parts = {}
    for name, run in runs.items():
        often = standing.BATCHES  # on every host
        if name != "standing":
            often = _runs(pod, run, own, evaluator.BATCH_SIZE)
        parts[name] = _repeated(run, often)
    kept = min(samples, evaluator.KEEP), min(pod.needs["images"] or samples, evaluator.KEEP)
    # The distances behind precision and coverage, and what every sample adds to the covariance.
    distances = 2 * pod.dim * (kept[0] ** 2 + kept[1] ** 2 + kept[0] * kept[1])
    joined = gather(pod, samples, pod.classes)
    host = _on_host(pod, 2 * own * pod.dim**2 + distances)
    generation = parts["generation"]
    return {
        "samples": samples,
        "hosts": pod.needs["hosts"],
        "samples_per_host": own,
        "samples_per_chip": generation["runs"] * generation["images_per_chip"],
        "parts": parts,
        "gather": joined,
        "host": host,
        "flops_per_chip": sum(part["flops_per_chip"] for part in parts.values()),
        "bytes_per_chip": sum(part["bytes_per_chip"] for part in parts.values()),
        "seconds_lower_bound": _seconds(*parts.values(), joined, host),
        "real": real_side(pod, runs["features"]),
    }


def real_side(pod: Pod, run: dict[str, Any]) -> dict[str, Any] | None:
    """The real side, which is measured once and kept in the cache.

    Args:
      pod: who shares it.
      run: costs of one run of the features network.

    Returns:
      images, images_per_host (of the busiest one); of its features runs, images_per_chip,
      flops_per_chip, bytes_per_chip, bound_by; read_seconds, that its cores take to read and
      decode the images; seconds_lower_bound of all of it. None where the number of images is not
      known.
    """
    images = pod.needs["images"]
    if images is None:
        return None
    own = busiest(images, pod.needs["hosts"], reference.BATCH_SIZE)
    features = _repeated(run, _runs(pod, run, own, reference.BATCH_SIZE))
    read = own / pod.needs["host_images_per_second"]
    rest = gather(pod, images, 0), _on_host(pod, 2 * own * pod.dim**2)
    return {
        "images": images,
        "images_per_host": own,
        **features,
        "read_seconds": read,
        "seconds_lower_bound": read + _seconds(features, *rest),
    }


def gather(pod: Pod, count: int, classes: int) -> dict[str, Any]:
    """What every chip receives when the processes join float64 sums and float32 features.

    Args:
      pod: who joins them.
      count: images of all hosts.
      classes: of the logits that the Inception score sums; 0 of real images.

    Returns:
      bytes_per_chip, seconds_lower_bound.
    """
    hosts, chip = pod.needs["hosts"], pod.topology.chip
    # The kept rows of every process are filled up to those of the one that has most.
    rows = min(busiest(count, hosts, evaluator.BATCH_SIZE), evaluator.KEEP)
    sums = pod.dim**2 + pod.dim + (evaluator.SPLITS * (classes + 1) if classes else 0)
    received = (hosts - 1) * (8 * sums + rows * (4 * pod.dim + 4))
    seconds = received / chip.ici_bandwidth
    if pod.slices > 1 and chip.dcn_bandwidth is not None:
        outside = received * (pod.slices - 1) / pod.slices / pod.topology.chips
        seconds = max(seconds, outside / chip.dcn_bandwidth)
    return {"bytes_per_chip": received, "seconds_lower_bound": seconds}


def busiest(count: int, hosts: int, batch_size: int) -> int:
    """Images of the host that has most of them: hosts share whole batches."""
    return min(math.ceil(math.ceil(count / batch_size) / hosts) * batch_size, count)


def _runs(pod: Pod, run: dict[str, Any], count: int, batch_size: int) -> int:
    """Runs of a program on one host for images that come in batches."""
    rows = run["images_per_chip"] * pod.needs["chips_per_host"]
    full, rest = divmod(count, batch_size)
    return full * math.ceil(batch_size / rows) + math.ceil(rest / rows)


def _repeated(run: dict[str, Any], often: int) -> dict[str, Any]:
    """A program that runs `often` times."""
    seconds = run["seconds"]
    return {
        "runs": often,
        "images_per_chip": run["images_per_chip"],
        "flops_per_chip": often * run["flops_per_chip"],
        "bytes_per_chip": often * run["bytes_per_chip"],
        "seconds_lower_bound": often * max(seconds.values()),
        "bound_by": max(seconds, key=seconds.get),
    }


def _on_host(pod: Pod, flops: int) -> dict[str, Any]:
    seconds = flops / (pod.needs["cores_per_host"] * VCPU_FLOPS)
    return {"flops": flops, "seconds_lower_bound": seconds}


def _seconds(*parts: dict[str, Any]) -> float:
    """One after another, as an evaluation does it."""
    return sum(part["seconds_lower_bound"] for part in parts)
