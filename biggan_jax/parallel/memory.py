"""How much memory a program may take."""

from pathlib import Path

import jax


def available() -> int | None:
    """Bytes of memory that a step may take on one device; None where nothing says.

    That of an accelerator in all, on a CPU what is free of the host's, the cgroup's limit included.
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if "MemAvailable" in line)
    except (OSError, StopIteration, ValueError, IndexError):
        return None
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        return min(free, max(limit - used, 0))
    except (OSError, ValueError):  # no such group, or one whose limit is 'max'
        return free
