"""What the processes of a run tell each other through JAX's coordination service."""

import contextlib
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from biggan_jax.errors import UserError

PREFIX = "biggan_jax"  # of our keys in the service
GATHERED = f"{PREFIX}/gather"
WAIT_MS = 24 * 3600 * 1000  # a process may have long work to do; that it lives is watched elsewhere
GATHERED_BYTES = 2**26  # of an array of all processes, on a device at once
SHARED_SECONDS = 10.0  # a network file system may be late with a new name

_numbers = itertools.count()


def client() -> Any:
    """The coordination service, as JAX and Orbax use it; ValueError where there is none."""
    from orbax.checkpoint import multihost

    return multihost.get_jax_distributed_client()


def is_main() -> bool:
    """Whether this is process 0, which writes and speaks for all."""
    return jax.process_index() == 0


def gather(value: Any) -> list[Any]:
    """Gathers one value of every process; to be called by all processes, in the same order.

    Args:
      value: anything JSON can hold.

    Returns:
      The values by process.
    """
    if jax.process_count() == 1:
        return [value]
    number, service = next(_numbers), client()
    key = f"{GATHERED}/{number}"
    # Not a computation on the devices: those time out while a process has other work to do.
    service.key_value_set(f"{key}/{jax.process_index()}", json.dumps(value))
    service.wait_at_barrier(GATHERED, WAIT_MS)
    rows = {int(name.rpartition("/")[2]): text for name, text in service.key_value_dir_get(key)}
    if number > 0 and is_main():
        # Whoever has come to this barrier has read what was gathered before, and nobody reads it
        # again; the keys of this call go in the next one.
        service.key_value_delete(f"{GATHERED}/{number - 1}")
    return [json.loads(rows[i]) for i in range(jax.process_count())]


def together(call: Callable[[], Any]) -> Any:
    """What a function returns, unless it raises a UserError in any process: then all raise it.

    So no process is left waiting for one that has failed.
    """
    result, problem = None, None
    try:
        result = call()
    except UserError as error:
        problem = error
    found = next(filter(None, gather(problem and str(problem))), None)
    if problem is not None:
        raise problem
    if found is not None:
        raise UserError(found)
    return result


def share(count: int, batch_size: int) -> range:
    """The numbers below `count` that this process takes: whole batches, as one process has them."""
    batches, processes = -(-count // batch_size), jax.process_count()
    ends = [batches * (jax.process_index() + i) // processes * batch_size for i in (0, 1)]
    return range(min(ends[0], count), min(ends[1], count))


def total(x: np.ndarray) -> np.ndarray:
    """The sum of one array of every process, in the order of the processes.

    Args:
      x: of the same shape and dtype in all processes; float64 stays float64.

    Returns:
      The same bits in all processes.
    """
    if jax.process_count() == 1:
        return x
    parts = []
    for part in _pieces(x.ravel()):
        rows = _gather_bytes(part)
        parts.append(sum((row.view(x.dtype) for row in rows[1:]), rows[0].view(x.dtype)))
    return np.concatenate([*parts, np.zeros(0, x.dtype)]).reshape(x.shape)


def concatenated(x: np.ndarray) -> np.ndarray:
    """The rows of one array of every process, in the order of the processes.

    Args:
      x: [n, ...]; n may differ between processes.

    Returns:
      The same bits in all processes.
    """
    if jax.process_count() == 1:
        return x
    counts = gather(len(x))
    padded = np.zeros((max(counts), *x.shape[1:]), x.dtype)
    padded[: len(x)] = x
    parts: list[list[np.ndarray]] = [[] for _ in counts]
    for part in _pieces(padded.ravel()):
        for rows, row in zip(parts, _gather_bytes(part), strict=True):
            rows.append(row.view(x.dtype))
    whole = [np.concatenate([*rows, np.zeros(0, x.dtype)]).reshape(padded.shape) for rows in parts]
    return np.concatenate([rows[:n] for rows, n in zip(whole, counts, strict=True)])


def _pieces(x: np.ndarray) -> Iterator[np.ndarray]:
    """Parts of a flat array of which that of every process fits on a device."""
    size = max(1, GATHERED_BYTES // (jax.process_count() * x.itemsize))
    for start in range(0, len(x), size):
        yield x[start : start + size]


def _gather_bytes(x: np.ndarray) -> np.ndarray:
    """uint8 [processes, bytes] of a flat array: on the devices float64 would become float32."""
    from jax.experimental import multihost_utils

    barrier()  # the devices wait for each other for half a minute at most
    return np.asarray(multihost_utils.process_allgather(x.view(np.uint8)))


def barrier() -> None:
    """Waits until every process has come here."""
    gather(None)


def from_main(value: Any) -> Any:
    """The value that process 0 has; a call of `gather`."""
    return gather(value)[0]


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """A context that process 0 leaves before the others enter it."""
    if not is_main():
        barrier()
    yield
    if is_main():
        barrier()


def compile_together(jitted: Callable) -> Callable:
    """A jitted function that, in a run of several processes, starts when all have compiled it.

    On CPUs a process waits 30 s at most for the others to join its first collective operation.

    Args:
      jitted: from `jax.jit`; always called with the same shapes and shardings.

    Returns:
      A function of the same arguments; its first call is one of `gather`.
    """
    if jax.process_count() == 1:
        return jitted
    programs: list[Callable] = []

    def call(*args: Any) -> Any:
        if not programs:
            programs.append(jitted.lower(*args).compile())
            barrier()
        return programs[0](*args)

    return call


def check_same(what: str, fields: Mapping[str, Any], remedy: str) -> None:
    """Raises UserError on all processes, with both values, unless `fields` are the same on all.

    Args:
      what: begins the line.
      fields: name -> anything JSON can hold.
      remedy: ends the line.
    """
    fields = json.loads(json.dumps(fields, default=str))
    text = json.dumps(fields, sort_keys=True)
    if len(set(gather(hashlib.sha256(text.encode()).hexdigest()))) == 1:
        return
    first, *others = gather(fields)
    number, other = next((i, x) for i, x in enumerate(others, 1) if x != first)
    names = sorted(first.keys() | other.keys())
    name = next(name for name in names if first.get(name) != other.get(name))
    raise UserError(
        f"{what} differs: {name} is {first.get(name)!r} in process 0 and {other.get(name)!r} in "
        f"process {number}; {remedy}"
    )


def check_shared(path: Path, remedy: str) -> None:
    """Raises UserError on all processes unless all see what process 0 has just written.

    Args:
      path: of a file.
      remedy: ends the line.
    """
    if jax.process_count() == 1:
        return
    barrier()
    deadline = time.monotonic() + SHARED_SECONDS
    while not path.is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    blind = [i for i, sees in enumerate(gather(path.is_file())) if not sees]
    if blind:
        raise UserError(f"process {blind[0]} does not see {path}, which process 0 wrote: {remedy}")
