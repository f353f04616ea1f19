"""What a time depends on beside the program: processor, its instructions, cores, JAX, flags; and
what the machine has to offer: memory and speed."""

import hashlib
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from biggan_jax.parallel.memory import available as memory

__all__ = ["describe", "flops_per_second", "identity", "key", "memory"]

# What XLA chooses instructions and tile sizes by, on x86-64 and on Arm.
_FEATURES = frozenset(
    ("avx", "avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_tile",
     "asimd", "sve", "sve2", "bf16")
)  # fmt: skip
# Of the environment, what changes programs or where they run; a cache only changes when.
_PREFIXES = ("JAX_", "XLA_FLAGS", "LIBTPU_INIT_ARGS", "BIGGAN_", "OMP_NUM_THREADS")
_HARMLESS = ("CACHE", "LOG", "TRACEBACK")


def identity() -> dict[str, Any]:
    """What two figures must share to be compared.

    Returns:
      processor, features (sorted, of its instructions), cores (that this process may use), devices
      (kind and number), jax (version), flags (of the environment).
    """
    fields = _cpuinfo(Path("/proc/cpuinfo"))
    features = fields.get("flags", fields.get("Features", "")).split()
    devices = jax.local_devices()
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "processor": fields.get("model name") or platform.processor() or platform.machine(),
        "features": sorted(_FEATURES.intersection(features)),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "devices": f"{len(devices)} {devices[0].device_kind}",
        "jax": jax.__version__,
        "flags": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(_PREFIXES) and not any(word in name for word in _HARMLESS)
        },
    }


def flops_per_second(side: int = 1024, times: int = 3) -> float:
    """What this device reaches in a product of square matrices in float32.

    Args:
      side: of the matrices.
      times: how often it is timed; the fastest counts.
    """
    a = jnp.ones((side, side), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        product(a).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2.0 * side**3 / min(seconds)


def key(of: dict[str, Any]) -> str:
    """A short name for an `identity`, the same in every process."""
    text = json.dumps(of, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def describe(of: dict[str, Any]) -> str:
    """An `identity` on one line."""
    flags = " ".join(f"{name}={value}" for name, value in of["flags"].items())
    parts = (of["processor"], " ".join(of["features"]), f"{of['cores']} cores", of["devices"],
             f"jax {of['jax']}", flags)  # fmt: skip
    return ", ".join(part for part in parts if part)


def _cpuinfo(path: Path) -> dict[str, str]:
    """The fields of the first processor, where Linux lists them."""
    try:
        first = path.read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
