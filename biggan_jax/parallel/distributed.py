"""A run of several processes: joined by `jax.distributed`, agreed, ended together.

The processes talk through the coordination service of JAX's multi-controller runtime, which process
0 hosts. It also watches them: when one stops answering, JAX ends the others from C++.
"""

import contextlib
import dataclasses
import importlib.util
import itertools
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax

from biggan_jax import errors
from biggan_jax.errors import UserError
from biggan_jax.parallel import ending, peers, processes, rendezvous

FAILED = f"{processes.PREFIX}/failed"
LINGER_SECONDS = 1.0  # for the others to hear why a process ends, process 0 twice as long
OWN_SECONDS = 0.3  # for a process to find the same reason by itself
GOOGLE, GVNIC = "0x1ae0", "0x0042"  # PCI vendor of a TPU, and its network card

_ending = threading.Lock()  # held for good by whoever ends this process


@dataclasses.dataclass(frozen=True)
class Options:
    """How this process joins the others.

    Attributes:
      coordinator: HOST:PORT of process 0; None joins nobody, except on a cluster (`cluster`).
      num_processes: of the run.
      process_id: of this process, in [0, num_processes).
      heartbeat_timeout: seconds after which a silent process is taken for dead.
      connect_timeout: seconds to find all others.
    """

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    heartbeat_timeout: int = 20
    connect_timeout: int = 60

    def check(self) -> None:
        """Raises UserError for values outside their domains, or for some flags without others."""
        flags = {
            "--coordinator": self.coordinator,
            "--num-processes": self.num_processes,
            "--process-id": self.process_id,
        }
        missing = [flag for flag, value in flags.items() if value is None]
        if 0 < len(missing) < len(flags):
            given = next(flag for flag, value in flags.items() if value is not None)
            raise UserError(f"{given} also needs {' and '.join(missing)}: give all three or none")
        for flag, value in (
            ("--num-processes", self.num_processes),
            ("--heartbeat-timeout", self.heartbeat_timeout),
            ("--connect-timeout", self.connect_timeout),
        ):
            if value is not None and value < 1:
                raise UserError(f"{flag} is {value}; it must be at least 1")
        if self.coordinator is None:
            return
        rendezvous.split_address(self.coordinator)
        if not 0 <= self.process_id < self.num_processes:
            raise UserError(
                f"--process-id is {self.process_id}, but --num-processes={self.num_processes} "
                f"allows 0 to {self.num_processes - 1}"
            )


def cluster(environ: Mapping[str, str] = os.environ) -> tuple[str, str] | None:
    """(kind, reason) where JAX can find the other processes by itself, else None.

    Args:
      environ: the environment; `slurm` is a step of several tasks, `tpu` a host of a TPU slice.
    """
    tasks = environ.get("SLURM_STEP_NUM_TASKS", "1")
    if tasks.isdecimal() and int(tasks) > 1 and "SLURM_STEP_NODELIST" in environ:
        return "slurm", f"a Slurm step of {tasks} tasks"
    platforms = environ.get("JAX_PLATFORMS", "")
    if platforms and "tpu" not in platforms.split(","):
        return None
    if importlib.util.find_spec("libtpu") is None:
        return None
    for name in ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES"):
        hosts = environ.get(name, "").split(",")
        if len(hosts) > 1:
            return "tpu", f"a TPU slice of {len(hosts)} hosts ({name})"
    slices = environ.get("MEGASCALE_NUM_SLICES", "1")
    if slices.isdecimal() and int(slices) > 1:
        return "tpu", f"{slices} TPU slices (MEGASCALE_NUM_SLICES)"
    return ("tpu", "TPU chips of this host") if _has_tpu() else None


@contextlib.contextmanager
def session(options: Options, environ: Mapping[str, str] = os.environ) -> Iterator[None]:
    """A context in which this process is one of a run, alone where nothing says otherwise.

    An error in it ends the process at once, and the other processes with the same exit code: they
    would wait in a computation that all share.

    Args:
      options: how to join.
      environ: the environment, for clusters.

    Raises:
      UserError: options that do not fit together, or with those of other processes.
      ConnectionError: other processes did not come in time.
    """
    options.check()
    found = cluster(environ) if options.coordinator is None else None
    if found is None and (options.num_processes or 1) == 1:
        yield
        return
    _connect(options, found)
    _keep_stdout()
    if jax.process_count() == 1:
        yield
        return
    watch = threading.Thread(target=_watch, daemon=True)
    watch.start()
    try:
        with ending.first(_say_interrupted):
            yield
    except BaseException as error:  # noqa: B036 (it ends the process)
        _leave(error)
    jax.distributed.shutdown()  # waits for the others; the watch ends with it
    watch.join(LINGER_SECONDS)


def _connect(options: Options, found: tuple[str, str] | None) -> None:
    given = {
        "initialization_timeout": options.connect_timeout + 60,  # ours, `_deadline`, is earlier
        "heartbeat_timeout_seconds": options.heartbeat_timeout,
    }
    if found is None:
        who = f"process {options.process_id} of {options.num_processes} at {options.coordinator}"
        print(f"distributed: {who}", file=sys.stderr, flush=True)
        rendezvous.meet(
            options.coordinator,
            options.num_processes,
            options.process_id,
            options.connect_timeout,
        )
        given["coordinator_address"] = options.coordinator
        given["num_processes"] = options.num_processes
        given["process_id"] = options.process_id
        # Inside Slurm it still gives each task of a node its own GPUs.
        method = "slurm" if (cluster() or ("",))[0] == "slurm" else "deactivate"
    else:
        kind, reason = found
        print(f"distributed: initialising for {reason}", file=sys.stderr, flush=True)
        method = "slurm" if kind == "slurm" else None
    where = options.coordinator or found[1]
    late = (
        f"not all processes of {where} connected within {options.connect_timeout} s: see what the "
        "others say, or raise --connect-timeout"
    )
    with _deadline(options.connect_timeout, late):
        try:
            jax.distributed.initialize(cluster_detection_method=method, **given)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ConnectionError(f"jax.distributed found no run for {where}: {reason}") from error


@contextlib.contextmanager
def _deadline(seconds: float, line: str) -> Iterator[None]:
    """Ends the process with a line, where JAX would abort it from C++ a moment later."""

    def end() -> None:
        errors.end(line, errors.EXIT_FAILED)
        os._exit(errors.EXIT_FAILED)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _keep_stdout() -> None:
    """Sends to stderr what C++ prints on stdout (gloo's greetings), which is for our one line."""
    sys.stdout.flush()
    try:
        own = os.dup(sys.stdout.fileno())
    except (OSError, ValueError):  # replaced or closed
        return
    os.dup2(2, 1)
    sys.stdout = os.fdopen(own, "w", encoding=sys.stdout.encoding)


def _watch() -> None:
    """Waits for the news that another process has failed, and ends this one."""
    try:
        failed = json.loads(
            processes.client().blocking_key_value_get(FAILED, processes.WAIT_MS * 365)
        )
    except Exception:
        return  # the end of the run, or the coordinator is lost: JAX ends the process then
    time.sleep(OWN_SECONDS)
    if not _ending.acquire(blocking=False):
        return  # this process is ending by itself
    errors.end(f"process {failed['process']} failed: {failed['line']}", failed["code"])
    _exit(failed["code"])


def _leave(error: BaseException) -> None:
    """Ends this process and, through the coordination service, all others."""
    if peers.is_lost(error):
        # The reason may be on its way; where none comes, the process was killed.
        time.sleep(LINGER_SECONDS)
        reason = " ".join(str(error).split())[:160]
        error = ConnectionError(f"a peer process was lost ({reason}); the same command continues")
    _ending.acquire()
    if isinstance(error, errors.EXPECTED):
        line, code = errors.ending(error)
        errors.end(line, code)
    else:
        traceback.print_exception(error)
        line, code = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}", 1
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 1
    if not isinstance(error, errors.EXPECTED):
        errors.end_json(line, code)
    news = {"process": jax.process_index(), "line": line, "code": code}
    with contextlib.suppress(Exception):  # another one was first, or process 0 has gone
        processes.client().key_value_set(FAILED, json.dumps(news))
    _exit(code)


def _say_interrupted() -> None:
    """Ends the other processes, where a second Ctrl-C ends this one at once."""
    if not _ending.acquire(blocking=False):
        return  # they know already
    news = {"process": jax.process_index(), "line": "interrupted", "code": errors.EXIT_INTERRUPTED}
    processes.client().key_value_set(FAILED, json.dumps(news))
    if jax.process_index() == 0:
        time.sleep(LINGER_SECONDS)  # the service ends with this process


def _exit(code: int) -> None:
    """Ends the process without JAX's shutdown, which would wait for the others."""
    ending.prepare()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    time.sleep(LINGER_SECONDS * (2 if jax.process_index() == 0 else 1))
    os._exit(code)


def _has_tpu() -> bool:
    if not any(itertools.chain(Path("/dev").glob("accel*"), Path("/dev").glob("vfio/[0-9]*"))):
        return False
    for device in Path("/sys/bus/pci/devices").glob("*"):
        with contextlib.suppress(OSError):
            vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "device"))
            if vendor == GOOGLE and kind != GVNIC:
                return True
    return False
