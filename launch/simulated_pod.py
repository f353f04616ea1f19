#!/usr/bin/env python3
"""Reads one data set by 1, 2, 4 and 8 processes out of a stand-in for a bucket, as a pod does.

  .venv/bin/python launch/simulated_pod.py
  .venv/bin/python launch/simulated_pod.py --latency 0.05 --failures 0.1 --megabytes-per-second 100

Every process is a real one with a disk and a network of its own. What is shown of each number of
them: the shards and bytes that one fetches, requests and failures, seconds to the first batch, and
the digest of all global batches, which must not depend on the number. Then the run goes on in the
middle of an epoch with another number of processes, and one is killed while it stages.

Exit codes: 0, or 1 where batches differ, a process fetched what is not its own, or the killed one
did not go on with what it had.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from biggan_jax import data
from launch.fake_bucket import FakeBucket, install

URL = "gs://pod/records"


class Random(data.Source):
    """Images of noise, sorted by class."""

    def __init__(self, count: int, resolution: int, num_classes: int = 10):
        super().__init__("noise", resolution, 3, [str(c) for c in range(num_classes)])
        self._count = count

    def __len__(self) -> int:
        return self._count

    def read(self, indices):
        shape = (self.resolution, self.resolution, 3)
        images = [np.random.default_rng(i).integers(0, 256, shape, np.uint8) for i in indices]
        labels = np.asarray(indices) * self.num_classes // self._count
        return np.stack(images), labels.astype(np.int32)

    def digest(self) -> str:
        return f"noise {self._count} {self.resolution}"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = top.add_argument
    add("--processes", default="1,2,4,8", help="numbers of them; each divides --lanes")
    add("--images", type=int, default=4096)
    add("--resolution", type=int, default=32, help="pixels")
    add("--lanes", type=int, default=64)
    add("--batch-size", type=int, default=64)
    add("--d-steps", type=int, default=2)
    add("--steps", type=int, default=200)
    add("--latency", type=float, default=0.02, help="seconds of a request")
    add("--failures", type=float, default=0.0, help="share of the requests that fail")
    add("--megabytes-per-second", type=float, help="of one process; default: as fast as the disk")
    add("--json", action="store_true", help="one JSON object on stdout")
    add("--child", help=argparse.SUPPRESS)
    return top


def read_part(task: dict[str, Any]) -> dict[str, Any]:
    """What one process of the pod does: stages its shards and reads its part of some batches."""
    bucket = install(
        FakeBucket(
            Path(task["root"]),
            latency=task["latency"],
            failures=task["failures"],
            bytes_per_second=task["bytes_per_second"],
            seed=task["process_index"],
        )
    )
    # Loading libraries takes seconds where many processes share two cores, and none on a host.
    import_module("grain")
    import_module("array_record.python.array_record_data_source")
    start = time.monotonic()
    source = data.open_source(
        f"records:{URL}", resolution=task["resolution"], channels=3, stage=task["stage"]
    )
    batches = data.Batches(source, flip=True, start_step=task["first"], **task["stream"])
    images, seconds = [], []
    for _ in range(task["steps"]):
        batch = next(batches)
        seconds.append(time.monotonic() - start)
        rows = zip(batch["image"], batch["label"].tolist(), strict=True)
        images.append([[zlib.crc32(x, y) for x, y in zip(*row, strict=True)] for row in rows])
    batches.close()
    shards = [name for name in bucket.reads if name.endswith(".array_record")]
    return {
        "images": images,
        "first_batch_seconds": seconds[0],
        "batches_per_second": (len(seconds) - 1) / max(1e-9, seconds[-1] - seconds[0]),
        "shards": sorted(shards),
        "bytes": bucket.bytes_read,
        "requests": sum(bucket.reads.values()),
        "failed": bucket.failed,
    }


class Pod:
    """The bucket of a pod, and its processes.

    Args:
      args: from the command line.
      folder: of everything, which is removed afterwards.
    """

    def __init__(self, args: argparse.Namespace, folder: Path):
        self._args, self._folder = args, folder
        self._started = 0
        (folder / "gs" / "pod").mkdir(parents=True)

    def prepare(self) -> None:
        """Fills the bucket, by two workers."""
        install(FakeBucket(self._folder / "gs"))
        source = Random(self._args.images, self._args.resolution)
        for number in range(2):
            data.prepare(source, URL, lanes=self._args.lanes, worker=(number, 2))

    def start(self, processes: int, number: int, first: int, steps: int, stage: str = ""):
        """Starts one process; an empty disk unless a folder of an earlier one is named."""
        self._started += 1
        args, rate = self._args, self._args.megabytes_per_second
        task = {
            "root": str(self._folder / "gs"),
            "stage": stage or str(self._folder / f"disk-{self._started}"),
            "latency": args.latency,
            "failures": args.failures,
            "bytes_per_second": rate * 1e6 if rate else None,
            "resolution": args.resolution,
            "process_index": number,
            "stream": {
                **{"seed": 0, "batch_size": args.batch_size, "num_d_steps": args.d_steps},
                **{"process_index": number, "process_count": processes},
            },
            **{"first": first, "steps": steps},
        }
        command = [sys.executable, __file__, "--child", json.dumps(task)]
        # Standard error would be a line of progress of every process 0.
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def read(self, processes: int, first: int, steps: int) -> list[dict[str, Any]]:
        """What each of some processes found."""
        running = [self.start(processes, n, first, steps) for n in range(processes)]
        found = [process.communicate()[0] for process in running]
        if any(process.returncode for process in running):
            raise SystemExit(f"a process of {processes} ended with an error")
        return [json.loads(output) for output in found]

    def preempted(self) -> dict[str, float]:
        """A process of 4 is killed when half of its shards are there, and started again."""
        stage, share = self._folder / "preempted", self._args.lanes // 8
        process = self.start(4, 1, 0, 1, str(stage))
        while len(list(stage.glob("*/lane-*"))) < share and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        process.communicate()
        kept = len(list(stage.glob("*/lane-*")))
        again = json.loads(self.start(4, 1, 0, 1, str(stage)).communicate()[0])
        return {
            "kept_shards": kept,
            "fetched_shards": len(again["shards"]),
            "first_batch_seconds": again["first_batch_seconds"],
        }


def joined(parts: list[dict[str, Any]]) -> np.ndarray:
    """The images of global batches, as numbers [steps, D, B]."""
    return np.concatenate([np.array(part["images"]) for part in parts], axis=2)


def digest(images: np.ndarray) -> str:
    """Of global batches, 12 hexadecimal digits."""
    return hashlib.sha256(images.astype("<u4").tobytes()).hexdigest()[:12]


def row(processes: int, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """What is shown of one number of processes."""
    fetched = [part["shards"] for part in parts]
    return {
        "processes": processes,
        "shards_each": max(map(len, fetched)),
        "own_shards_only": len(set(sum(fetched, []))) == sum(map(len, fetched)),
        "megabytes_each": max(part["bytes"] for part in parts) / 1e6,
        "requests_each": max(part["requests"] for part in parts),
        "failed": sum(part["failed"] for part in parts),
        "first_batch_seconds": max(part["first_batch_seconds"] for part in parts),
        "batches_per_second": min(part["batches_per_second"] for part in parts),
        "digest": digest(joined(parts)),
    }


def simulate(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All of it.

    Args:
      args: from the command line.
      folder: empty.

    Returns:
      rows (one a number of processes), resumed (digest), preempted, and whether all is right.
    """
    pod = Pod(args, folder)
    pod.prepare()
    numbers = [int(n) for n in args.processes.split(",")]
    rows = []
    for processes in numbers:
        rows.append(row(processes, pod.read(processes, 0, args.steps)))
        if not args.json:
            print(" ".join(f"{key} {_shown(value)}" for key, value in rows[-1].items()), flush=True)
    middle = args.steps * 2 // 5
    before = joined(pod.read(numbers[-1], 0, middle))
    after = joined(pod.read(numbers[0], middle, args.steps - middle))
    result = {
        "rows": rows,
        "resumed": digest(np.concatenate([before, after])),
        "resumed_at": middle,
        "preempted": pod.preempted(),
    }
    same = len({each["digest"] for each in rows} | {result["resumed"]}) == 1
    own = all(each["own_shards_only"] for each in rows)
    preempted = result["preempted"]
    once = preempted["kept_shards"] + preempted["fetched_shards"] == args.lanes // 4
    return result | {"right": same and own and once}


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> int:
    """Runs the command line; its exit code."""
    args = parser().parse_args()
    if args.child:
        print(json.dumps(read_part(json.loads(args.child))))
        return 0
    folder = Path(tempfile.mkdtemp(prefix="simulated-pod-"))
    try:
        result = simulate(args, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if args.json:
        print(json.dumps(result))
    else:
        print(f"resumed at {result['resumed_at']} by another number: digest {result['resumed']}")
        preempted = " ".join(f"{k} {_shown(v)}" for k, v in result["preempted"].items())
        print(f"killed while staging, started again: {preempted}")
        print("all is the same" if result["right"] else "DIFFERENT")
    sys.stdout.flush()
    return 0 if result["right"] else 1


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main())
