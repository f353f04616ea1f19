"""Which process this is, and whether one that left a record of itself still runs."""

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """What tells this process from all others, as it stands in its claim of a workdir."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "machine": machine(),
        "started": started(os.getpid()),
        "since": time.time(),
    }


def machine() -> str | None:
    """Names what the number of a process belongs to; None where nothing reliable does."""
    if not sys.platform.startswith("linux"):
        return socket.gethostname()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def started(pid: int) -> str | None:
    """When a process was started; None where it has gone, '' where the system does not say."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except OSError:
        pass  # of another user
    try:
        # Behind the name, which may hold anything: state, and as the 20th word the start.
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return None if words[0] in "ZX" else words[19]  # dead, and not yet waited for
