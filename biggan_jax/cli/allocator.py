"""How glibc hands out the memory of arrays on a CPU, which a process says when it starts.

XLA's CPU backend takes the memory of a step's intermediate values anew for every step. In pages of
2 MB instead of 4 kB Linux clears it in less time: a step of the Fashion-MNIST config takes a fifth
less. And a thread that gives back what it has freed faults it in again, page by page, some thousand
times a step: kept, the steps of narrow models take 4 to 10% less time, for 60 to 100 MB of memory.

References:
  The GNU C Library's manual, "Memory Allocation Tunables".
"""

import contextlib
import os
import sys
from pathlib import Path

from biggan_jax.cli import output

VARIABLE = "GLIBC_TUNABLES"
TUNABLE = "glibc.malloc.hugetlb"
_TUNABLES = {
    TUNABLE: 1,  # huge pages where Linux gives them to those who ask
    # A thread's heap is at most as large: so it is advised as a whole, and none is given back.
    "glibc.malloc.top_pad": 64 << 20,
    # The line above fixes these two at 128 kB, which glibc else raises as arrays are freed. What is
    # larger than the first is mapped anew every time; it is the largest value that glibc takes.
    "glibc.malloc.mmap_threshold": 32 << 20,
    "glibc.malloc.trim_threshold": 256 << 20,  # of the main thread's heap, before it gives back
}
_FIRST = (2, 35)  # version of glibc that has all of them


def ask() -> None:
    """Starts this process again, under the same number, with the tunables in its environment.

    It returns where that would not help: the first tunable is set, to whatever value, or the C
    library is another one. `GLIBC_TUNABLES=glibc.malloc.hugetlb=0` keeps the command as it is. It
    also returns in a program of somebody else, which might do twice what it did before it came
    here.
    """
    given = os.environ.get(VARIABLE, "")
    if TUNABLE in given or not _is_command(Path(sys.argv[0])) or not _helps():
        return
    ours = (f"{name}={value}" for name, value in _TUNABLES.items() if f"{name}=" not in given)
    tunables = ":".join(part for part in (given, *ours) if part)
    with contextlib.suppress(OSError), output.stdout_of_caller():  # else it runs as it is
        os.execve(
            sys.executable,
            [sys.executable, *sys.orig_argv[1:]],
            os.environ | {VARIABLE: tunables},
        )


def _is_command(script: Path) -> bool:
    """Whether the process was started as `biggan` or `python -m biggan_jax`."""
    return script.name == "biggan" or script.parts[-2:] == ("biggan_jax", "__main__.py")


def _helps() -> bool:
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION") or ""  # such as 'glibc 2.36'
        numbers = tuple(int(n) for n in version.split()[-1].split(".")[:2])
    except (AttributeError, ValueError, IndexError, OSError):  # another system or C library
        return False
    return numbers >= _FIRST
