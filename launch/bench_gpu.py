#!/usr/bin/env python3
"""What `launch/bench_gpu.sh` measures: the matrix peak, our step and the peer's, into one JSON.

Every attempt is a process of its own: one that runs out of memory leaves nothing behind, and JAX
and PyTorch never share the GPU.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from biggan_jax.planning import layer_times

HERE = Path(__file__).resolve().parent
LEAST_SECONDS = 60.0  # with less time left nothing is begun: one compilation takes longer
# What JAX and PyTorch say when the memory does not suffice.
OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory", "OutOfMemoryError")
# The profile needs kernels launched one by one: those of a CUDA graph do not say their layer.
PROFILE_FLAGS = "--xla_gpu_enable_command_buffer="
# BigGAN-PyTorch in autocast; the first one finds the batch size, the others start from it. On an
# H100 the last one is the fastest, 2.4 times the second, and takes three minutes.
PEER_SETTINGS = ((), ("--channels-last",), ("--compile",), ("--compile", "--channels-last"))
_TINY_MODEL = ("model.resolution=32", "model.ch=8", "model.num_classes=10", "model.dim_z=80",
               "model.g_attention=(16,)", "model.d_attention=(16,)")  # fmt: skip

Run = Callable[[int], dict[str, Any]]  # measures one batch size


class Case(argparse.Namespace):
    """One config: name, overrides of ours, options of the peer, first and largest batch size."""


def cases(resolutions: list[int], tiny: bool) -> list[Case]:
    """What is to be measured."""
    if tiny:
        peer = ("--resolution=32", "--ch=8", "--classes=10", "--attention=16", "--device=cpu",
                "--threads=2", "--steps=3")  # fmt: skip
        return [Case(name="biggan128", overrides=_TINY_MODEL, peer=peer, first=8, largest=8)]
    first = {128: 128, 256: 32}
    return [
        Case(name=f"biggan{r}", overrides=(), peer=(f"--resolution={r}",), first=first[r],
             largest=2048)
        for r in resolutions
    ]  # fmt: skip


def search(run: Run, first: int, largest: int) -> list[dict[str, Any]]:
    """Tries batch sizes: doubles while they fit, halves while they do not, then half way between.

    Args:
      run: measures one batch size; {'out_of_memory': True} where it does not fit, {'error': ...}
        where it failed otherwise.
      first, largest: batch sizes.

    Returns:
      All attempts, in their order, each with its `batch_size`.
    """
    tried: dict[int, dict[str, Any]] = {}

    def fits(batch: int) -> bool:
        tried[batch] = {"batch_size": batch} | run(batch)
        return "images_per_second" in tried[batch]

    batch = first
    while not fits(batch) and tried[batch].get("out_of_memory") and batch > 1:
        batch //= 2
    if batch == first:
        while batch * 2 <= largest and "images_per_second" in tried[batch] and fits(batch * 2):
            batch *= 2
    if batch > 1 and tried.get(2 * batch, {}).get("out_of_memory"):
        fits(batch * 3 // 2)
    return list(tried.values())


def fastest(tried: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The attempt with the most images a second."""
    done = [row for row in tried if "images_per_second" in row]
    return max(done, key=lambda row: row["images_per_second"], default=None)


def attempt(command: list[str], timeout: float, **environment: str) -> dict[str, Any]:
    """Runs a command that prints one JSON object; what it says, or why it did not."""
    start = time.perf_counter()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env=os.environ | environment
        )
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than {timeout:g} s"}
    if done.returncode == 0:
        result = json.loads(done.stdout.splitlines()[-1])
        return result | {"process_seconds": round(time.perf_counter() - start, 1)}
    if any(word in done.stderr for word in OUT_OF_MEMORY):
        return {"out_of_memory": True}
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return {"error": lines[-1][:300] if lines else f"exit code {done.returncode}"}


class Bench:
    """The measurements and the file that holds them.

    Args:
      args: of the command line.
      measure: in place of `attempt`.
    """

    def __init__(self, args: argparse.Namespace, measure: Callable = attempt):
        self.args, self._measure = args, measure
        self._end = time.monotonic() + (args.limit or float("inf"))
        exists = args.out.is_file()
        self.result: dict[str, Any] = json.loads(args.out.read_text()) if exists else {}

    def once(self, path: tuple[str, ...], compute: Callable[[], Any]) -> Any:
        """A figure that is in the file, or is computed and written there now.

        What there was no time for is not written: the next run measures it.
        """
        at = self.result
        for name in path[:-1]:
            at = at.setdefault(name, {})
        if path[-1] not in at:
            say(f"{' '.join(path)} ...")
            found = compute()
            if any(row.get("left_out") for row in (found if isinstance(found, list) else [found])):
                return found
            at[path[-1]] = found
            self.write()
        return at[path[-1]]

    def write(self) -> None:
        """Writes the file, whole or not at all."""
        partial = self.args.out.with_name(f".{self.args.out.name}.part")
        partial.write_text(json.dumps(self.result, indent=1) + "\n")
        partial.replace(self.args.out)

    def attempt(self, command: list[str], **environment: str) -> dict[str, Any]:
        """`attempt` with this Python and the limits of the command line."""
        left = self._end - time.monotonic()
        if left < LEAST_SECONDS:
            return {"left_out": True}
        limit = min(self.args.timeout, left)
        found = self._measure([sys.executable, *command], limit, **environment)
        cut = limit < self.args.timeout and "took longer" in found.get("error", "")
        return {"left_out": True} if cut else found

    def peak(self) -> float | None:
        """FLOPs a second of a large bfloat16 product."""
        command = [str(HERE / "matrix_peak.py"), "512" if self.args.tiny else "8192"]
        return self.once(("matrix_peak",), lambda: self.attempt(command)).get("flops_per_second")

    def ours(self, case: Case) -> dict[str, Any] | None:
        """Our step: the search, the fastest batch size, and its profile."""
        common = ["--config", case.name, "--config.mesh=(1,)", "--json"]
        common += [f"--config.{o}" for o in case.overrides]

        def bench(batch: int, *options: str, **environment: str) -> dict[str, Any]:
            command = ["-m", "biggan_jax", "bench", *common, f"--config.batch_size={batch}"]
            return self.attempt([*command, *options], **environment)

        flags = "" if self.args.tiny else PROFILE_FLAGS
        profiled = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()}
        ours = (case.name, "ours")
        if self.args.batches:  # in one process with its profile, which saves a compilation
            tried = self.each(ours, lambda batch: bench(batch, "--layers", **profiled))
            best = fastest(tried)
        else:
            tried = self.once((*ours, "tried"), lambda: search(bench, case.first, case.largest))
            if best := fastest(tried):
                size = best["batch_size"]
                self.once((*ours, "profile"), lambda: bench(size, "--layers", **profiled))
        if best is None:
            return None
        paper = self.once(
            (case.name, "inspect"),
            lambda: self.attempt(["-m", "biggan_jax", "inspect", *common], JAX_PLATFORMS="cpu"),
        )
        if unfused := paper.get("flops_per_sample_step_unfused"):
            flops = unfused * best["batch_size"] / best["step_seconds"]
            best = best | {"unfused_flops_per_second": flops}
        return best

    def each(self, path: tuple[str, ...], run: Run) -> list[dict[str, Any]]:
        """The batch sizes of the command line; the profile of the fastest one stands apart."""
        tried = [
            {"batch_size": n} | self.once((*path, f"batch {n}"), lambda n=n: run(n))
            for n in self.args.batches
        ]
        if (best := fastest(tried)) and "layers" in best:
            self.once((*path, "profile"), lambda: best)
        return [{k: v for k, v in row.items() if k != "layers"} for row in tried]

    def peer(self, case: Case) -> dict[str, Any] | None:
        """The peer's step in every setting; the fastest one."""

        def at(batch: int, *options: str) -> dict[str, Any]:
            command = [str(HERE / "bench_peer.py"), str(self.args.peer), f"--batch={batch}"]
            return self.attempt([*command, *case.peer, *options])

        if self.args.batches:
            rows = []
            for options in reversed(PEER_SETTINGS):  # the fastest first: time may be short
                setting = " ".join(o.lstrip("-") for o in options) or "eager"
                found = self.each((case.name, f"peer {setting}"), lambda n, o=options: at(n, *o))
                rows += [row | {"setting": setting} for row in found]
            return fastest(rows)
        first, *others = PEER_SETTINGS
        tried = self.once(
            (case.name, "peer", "eager"),
            lambda: search(lambda batch: at(batch, *first), case.first, case.largest),
        )
        size = (fastest(tried) or {"batch_size": case.first})["batch_size"]
        everything = [row | {"setting": "eager"} for row in tried]
        for options in others:
            setting = " ".join(o.lstrip("-") for o in options)
            # The compiled step often needs less memory: one size up, too, where it is to be had.
            row = self.once(
                (case.name, "peer", setting),
                lambda options=options: [
                    {"batch_size": n} | at(n, *options) for n in sorted({size, size * 3 // 2})
                    if n <= case.largest
                ],
            )  # fmt: skip
            everything += [r | {"setting": setting} for r in row]
        return fastest(everything)

    def run(self) -> bool:
        """Measures all; whether everything was there."""
        peak, complete = self.peak(), True
        for case in cases(self.args.resolutions, self.args.tiny):
            ours = self.ours(case)
            peer = self.peer(case) if self.args.peer else None
            summary = {"ours": ours, "peer": peer}
            if ours and peer:
                summary["ratio"] = ours["images_per_second"] / peer["images_per_second"]
            if peak and ours and "unfused_flops_per_second" in ours:
                summary["share_of_matrix_peak"] = ours["unfused_flops_per_second"] / peak
            self.result[case.name]["summary"] = summary
            self.write()
            say(f"{case.name}: {line(summary)}")
            profile = self.result[case.name].get("ours", {}).get("profile", {})
            if "layers" in profile:
                say(layer_times.text(profile))
            complete &= bool(peak and ours and "layers" in profile and (peer or not self.args.peer))
        return complete


def line(summary: dict[str, Any]) -> str:
    """A summary for a person."""
    parts = [f"{name} not measured" for name in ("ours", "peer") if not summary[name]]
    for name in ("ours", "peer"):
        if row := summary[name]:
            setting = f" ({row['setting']})" if "setting" in row else ""
            speed = f"{row['images_per_second']:.1f} images/s"
            parts.append(f"{name}{setting} {speed} at batch {row['batch_size']}")
    if "ratio" in summary:
        parts.append(f"ratio {summary['ratio']:.2f}")
    if "share_of_matrix_peak" in summary:
        parts.append(f"{summary['share_of_matrix_peak']:.0%} of the matrix peak, unfused")
    return ", ".join(parts)


def say(text: str) -> None:
    """Progress, away from the results."""
    print(text, file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    """The command line; its exit code."""
    parser = argparse.ArgumentParser(prog="bench_gpu.sh")
    add = parser.add_argument
    add("out", type=Path)
    add("--peer", type=Path, default=os.environ.get("PEER"), metavar="DIR")
    add("--resolutions", default="128,256")
    add("--timeout", type=float, default=540.0, metavar="SECONDS", help="of one attempt")
    add("--batches", metavar="N,M", help="in place of the search")
    add("--limit", type=float, metavar="SECONDS", help="of all; what is left out the next run adds")
    add("--tiny", action="store_true", help="a tiny model on the CPU")
    args = parser.parse_args(argv)
    if args.peer is not None and not (args.peer / "BigGAN.py").is_file():
        parser.error(f"--peer {args.peer}: no BigGAN.py there; give a checkout of BigGAN-PyTorch")
    args.peer = args.peer and args.peer.resolve()
    sizes = args.resolutions.split(",")
    if not set(sizes) <= {"128", "256"}:
        parser.error(f"--resolutions is {args.resolutions}; take 128, 256 or both")
    args.resolutions = [int(size) for size in sizes]
    args.batches = [int(n) for n in args.batches.split(",")] if args.batches else []
    if args.tiny:
        os.environ["JAX_PLATFORMS"] = "cpu"
    return 0 if Bench(args).run() else 1


if __name__ == "__main__":
    sys.exit(main())
