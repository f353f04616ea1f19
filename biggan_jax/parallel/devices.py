"""The devices of this process in words: which ones, their memory, and what is said when it ends."""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from biggan_jax import errors
from biggan_jax.errors import UserError

UNITS = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "p": 2**50, "e": 2**60}
_AMOUNT = re.compile(r"\b(\d+(?:\.\d+)?) ?(bytes|[KMGTPE]i?B?)\b")

_due = False  # `tell` has not been called inside `told_once`


@contextlib.contextmanager
def told_once() -> Iterator[None]:
    """A context in which the first `tell` speaks; outside of it, as in a library, none does."""
    global _due
    before, _due = _due, True
    try:
        yield
    finally:
        _due = before


def tell(devices: Sequence[Any] | None = None, *, always: bool = False) -> None:
    """Prints the line of `describe` on stderr, once in a command, from process 0.

    Args:
      devices: see `describe`.
      always: outside of a command too.
    """
    global _due
    import jax

    if (_due or always) and jax.process_index() == 0:
        print(f"device: {describe(devices)}", file=sys.stderr, flush=True)
    _due = False


def describe(devices: Sequence[Any] | None = None) -> str:
    """Says on what is computed.

    Args:
      devices: of the mesh, over all processes; all there are if absent.

    Returns:
      Such as 'NVIDIA H100 (gpu), 8 devices, 2 processes, 79.1 GiB of memory each'.
    """
    import jax

    found = jax.devices()
    devices = found if devices is None else list(devices)
    first, count = devices[0], len(devices)
    kind = first.device_kind if first.device_kind == first.platform else None
    kind = kind or f"{first.device_kind} ({first.platform})"
    few = "" if count == len(found) else f" of {len(found)}"
    parts = [kind, f"{count}{few} device" + "s" * (len(found) > 1)]
    processes = jax.process_count()
    parts.append(f"{processes} process" + "es" * (processes > 1))
    memory, each = _memory(), " each" * (count > 1)
    if memory is not None:
        of = f" for {os.cpu_count()} cores" if first.platform == "cpu" else each
        parts.append(f"{amount(memory)} of memory{of}")
    return ", ".join(parts)


def amount(size: float) -> str:
    """A number of bytes for a person, such as '12.5 GiB'."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1024
    raise AssertionError


@contextlib.contextmanager
def named_errors(remedy: Callable[[], str]) -> Iterator[None]:
    """A context in which memory that is not there, and a device that is not, are one line each.

    Args:
      remedy: gives what to do when memory runs out, for a person.

    Raises:
      OutOfMemoryError: of a device or of this host; with the bytes that were asked for.
      UserError: JAX finds no device of the platform that JAX_PLATFORMS names.
    """
    try:
        yield
    except MemoryError as error:
        if isinstance(error, errors.OutOfMemoryError):
            raise
        raise errors.OutOfMemoryError(_out_of("this host's memory", error, remedy)) from error
    except (RuntimeError, AssertionError) as error:
        import jax

        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
            memory = f"the memory of {describe()}"
            raise errors.OutOfMemoryError(_out_of(memory, error, remedy)) from error
        if _is_of_the_start(error):
            raise UserError(_no_device(error)) from error
        raise


def _out_of(memory: str, error: BaseException, remedy: Callable[[], str]) -> str:
    sizes = [
        float(number) * UNITS.get(unit[0].lower() if unit != "bytes" else "", 1)
        for number, unit in _AMOUNT.findall(str(error))
    ]
    asked = f"{max(sizes):,.0f} bytes ({amount(max(sizes))}) were asked for" if sizes else "full"
    return f"out of memory: {asked}, in {memory}; {remedy()}"


def _memory() -> int | None:
    """Bytes of one device, on a CPU those of the host; None where nothing says so."""
    import jax

    device = jax.local_devices()[0]
    with contextlib.suppress(Exception):  # not every backend counts
        return int(device.memory_stats()["bytes_limit"])
    if device.platform != "cpu":
        return None
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _is_of_the_start(error: BaseException) -> bool:
    """Whether JAX raised it while it looked for devices; a plugin that is missing is an assert."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return at is not None and at.tb_frame.f_code.co_filename.endswith("xla_bridge.py")


def _no_device(error: BaseException) -> str:
    reason = " ".join(str(error).partition(" (set JAX_PLATFORMS")[0].split())[:200]
    asked = os.environ.get("JAX_PLATFORMS", "")
    if not asked:
        return (
            f"JAX cannot use a device here ({reason}): see whether another process holds it, or "
            "set JAX_PLATFORMS=cpu"
        )
    found = f" ({reason})" if reason else ""
    return (
        f"JAX_PLATFORMS is {asked!r}, and JAX has no such device here{found}: `unset "
        "JAX_PLATFORMS` takes what there is; for a GPU install biggan_jax[gpu], for a TPU "
        "biggan_jax[tpu]"
    )
