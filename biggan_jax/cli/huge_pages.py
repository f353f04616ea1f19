"""Huge pages for the arrays of a CPU, which glibc gives to a process that asks when it starts.

XLA's CPU backend takes the memory of a step's intermediate values anew for every step, and Linux
then clears it page by page. In pages of 2 MB instead of 4 kB a step of the Fashion-MNIST config
takes a fifth less time.

References:
  The GNU C Library's manual, "Memory Allocation Tunables": glibc.malloc.hugetlb.
"""

import contextlib
import os
import sys
from pathlib import Path

from biggan_jax.cli import output

VARIABLE = "GLIBC_TUNABLES"
TUNABLE = "glibc.malloc.hugetlb"
_MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_FIRST = (2, 35)  # version of glibc that has the tunable


def ask() -> None:
    """Starts this process again, under the same number, with the tunable in its environment.

    It returns where that would not help: the tunable is set, to whatever value, Linux gives huge
    pages to everybody or to nobody, or the C library is another one. `GLIBC_TUNABLES=
    glibc.malloc.hugetlb=0` keeps the command as it is. It also returns in a program of somebody
    else, which might do twice what it did before it came here.
    """
    given = os.environ.get(VARIABLE, "")
    if TUNABLE in given or not _is_command(Path(sys.argv[0])) or not _helps():
        return
    tunables = ":".join(part for part in (given, f"{TUNABLE}=1") if part)
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
        return numbers >= _FIRST and "[madvise]" in _MODE.read_text()
    except (AttributeError, ValueError, IndexError, OSError):  # another system or C library
        return False
