"""Do the processes of a run fit together? Asked on the coordinator's port, before JAX is.

JAX's client aborts the process from C++ where the coordinator is missing or a process does not
belong to it. So process 0 first listens there itself for a moment, hears from every process what it
was told, and answers all at once; then the port is JAX's.
"""

import contextlib
import json
import socket
import time
from collections.abc import Iterator

from biggan_jax.errors import UserError

HELLO_SECONDS = 5.0  # for one line of a process that has connected
LATE_SECONDS = 3.0  # to hear of what is wrong already
RETRY_SECONDS = 0.2
ANSWER_SECONDS = 5.0  # process 0 answers this much after its own time-out at the latest


def split_address(address: str) -> tuple[str, int]:
    """(host, port) of HOST:PORT, where an IPv6 host stands in brackets; UserError if malformed."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator={address}: give HOST:PORT, such as 10.0.0.1:8476")
    return host.strip("[]"), int(port)


def meet(address: str, num_processes: int, process_id: int, timeout: float) -> None:
    """Waits until all processes of a run are there and agree on their number.

    Args:
      address: HOST:PORT of process 0; nothing may listen there yet.
      num_processes: of the run, as this process was told.
      process_id: of this process.
      timeout: for process 0 to answer, and then for all the others, in seconds.

    Raises:
      UserError: they do not agree (every process gets the same line), or process 0 does not answer
        within `timeout`.
      ConnectionError: others are missing after `timeout`.
    """
    host, port = split_address(address)
    if process_id == 0:
        _answer(address, port, num_processes, timeout)
    else:
        hello = {"process_id": process_id, "num_processes": num_processes}
        _ask(address, host, port, hello, timeout)


def _answer(address: str, port: int, num_processes: int, timeout: float) -> None:
    """Process 0: gathers the others, and tells each of them the same."""
    deadline = time.monotonic() + timeout
    with _listener(address, port, deadline) as server, contextlib.ExitStack() as stack:
        here: dict[int, socket.socket] = {}
        connections: list[socket.socket] = []
        problem = None
        while len(here) < num_processes - 1:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection = stack.enter_context(server.accept()[0])
            except TimeoutError:
                break
            hello = _line(connection, HELLO_SECONDS)
            if not hello or hello.keys() != {"process_id", "num_processes"}:
                continue  # a stranger, or a process that has ended
            if problem is None:
                problem = _problem(hello, num_processes, here)
                if problem is not None:
                    deadline = min(deadline, time.monotonic() + LATE_SECONDS)
            here[hello["process_id"]] = connection
            connections.append(connection)
        lost = None
        if problem is None and len(here) < num_processes - 1:
            missing = sorted(set(range(1, num_processes)) - here.keys())
            lost = (
                f"{len(here) + 1} of {num_processes} processes came to {address} within "
                f"{timeout:g} s, missing --process-id {_some(missing)}: start them with the same "
                "command, or raise --connect-timeout"
            )
        _tell(connections, {"problem": problem, "lost": lost})
        for connection in connections:
            _line(connection, HELLO_SECONDS)  # they close first: the port is free at once
    _raise(problem, lost)


def _raise(problem: str | None, lost: str | None) -> None:
    if problem is not None:
        raise UserError(problem)
    if lost is not None:
        raise ConnectionError(lost)


def _problem(hello: dict, num_processes: int, here: dict[int, socket.socket]) -> str | None:
    """What is wrong with a process, in one line; None when it belongs to this run."""
    number, count = hello["process_id"], hello["num_processes"]
    if count != num_processes:
        return (
            f"process {number} was started with --num-processes={count}, process 0 with "
            f"--num-processes={num_processes}: start all processes with the same number"
        )
    if number in here and not _has_ended(here[number]):
        return (
            f"two processes were started with --process-id={number}: give each its own, from 0 to "
            f"{num_processes - 1}"
        )
    return None


def _ask(address: str, host: str, port: int, hello: dict, timeout: float) -> None:
    """Another process: says what it was told until process 0 answers."""
    deadline, reason = time.monotonic() + timeout, "no answer"
    while time.monotonic() < deadline:
        try:
            left = min(max(deadline - time.monotonic(), 0.01), HELLO_SECONDS)
            with socket.create_connection((host, port), left) as connection:
                connection.sendall(json.dumps(hello).encode() + b"\n")
                answer = _line(connection, timeout + ANSWER_SECONDS)
        except OSError as error:
            answer, reason = None, error.strerror or str(error)
        if answer:
            return _raise(**answer)
        time.sleep(RETRY_SECONDS)  # it is not there yet, or an earlier run still is
    raise UserError(
        f"no coordinator at {address} within {timeout:g} s ({reason}): is process 0 running there, "
        "and its port open? Set --coordinator or --connect-timeout"
    )


@contextlib.contextmanager
def _listener(address: str, port: int, deadline: float) -> Iterator[socket.socket]:
    # On all interfaces, as JAX's own service; without reuse_port, which would hide another run.
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    while True:
        try:
            server = socket.create_server(
                ("", port), family=family, dualstack_ipv6=dual, backlog=1024
            )
            break
        except OSError as error:
            if time.monotonic() > deadline:
                reason = error.strerror or str(error)
                raise ConnectionError(
                    f"process 0 cannot listen at {address} ({reason}): end what listens there, or "
                    "choose another port by --coordinator"
                ) from error
            time.sleep(RETRY_SECONDS)  # an earlier process 0 may just be ending
    with server:
        yield server


def _line(connection: socket.socket, timeout: float) -> dict | None:
    """The JSON object that comes as one line; {} at the end of the stream, None for anything else.

    A gRPC service, which may still be there from an earlier run, says something else.
    """
    connection.settimeout(timeout)
    text = b""
    try:
        while not text.endswith(b"\n") and len(text) < 2**16:
            got = connection.recv(4096)
            if not got:
                return {} if not text else None
            text += got
            if not text.startswith(b"{"):
                return None
        line = json.loads(text)
    except (OSError, ValueError):
        return None
    return line if isinstance(line, dict) else None


def _tell(connections, answer: dict) -> None:
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.sendall(json.dumps(answer).encode() + b"\n")


def _has_ended(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _some(numbers: list[int], limit: int = 8) -> str:
    more = f" and {len(numbers) - limit} more" if numbers[limit:] else ""
    return ", ".join(map(str, numbers[:limit])) + more
