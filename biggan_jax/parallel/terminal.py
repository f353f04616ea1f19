"""A terminal that was closed while a run goes on: nothing that is said may end the run."""

import contextlib
import os
import select
import stat

_STANDARD = (0, 1, 2)


def leave(*, with_pipes: bool = False) -> None:
    """Lets the standard streams of a closed terminal lead nowhere; live ones stay as they are.

    A write to a closed terminal is an error, and a run would end with it instead of a checkpoint.

    Args:
      with_pipes: those behind which the commands of a closed terminal are, such as `| tee log`, go
        too: they are about to end.
    """
    kinds = {number: _kind(number) for number in _STANDARD}
    dead = [number for number, kind in kinds.items() if kind is not None and _is_dead(number)]
    if not with_pipes:
        dead = [number for number in dead if kinds[number] == "terminal"]
    elif dead:
        dead += [number for number, kind in kinds.items() if kind == "pipe" and number not in dead]
    for number in dead:
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, number)
            os.close(nowhere)


def _kind(number: int) -> str | None:
    """'terminal' or 'pipe'; None for a file, a closed descriptor and what never ends."""
    try:
        mode = os.fstat(number).st_mode
    except OSError:
        return None
    if stat.S_ISCHR(mode):
        return "terminal"
    return "pipe" if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else None


def _is_dead(number: int) -> bool:
    """Whether nobody is at the other end: `isatty` no longer knows a closed terminal."""
    poll = select.poll()
    poll.register(number, 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))
