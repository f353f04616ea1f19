"""Do the processes of a run fit together? Asked on the coordinator's port, before JAX is.

JAX's client aborts the process from C++ where the coordinator is missing or a process does not
belong to it. So process 0 first listens there itself for a moment, hears from every process what it
was told, and answers all at once; then the port is JAX's.
"""

import contextlib
import json
import selectors
import socket
import time
from collections.abc import Iterator

from biggan_jax.errors import UserError, some

HELLO_SECONDS = 5.0  # for one line of a process that has connected
LATE_SECONDS = 3.0  # to hear of what is wrong already
RETRY_SECONDS = 0.2
MOST_BYTES = 2**16  # of a line
MOST_PROCESSES = 2**20
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
    with (
        _listener(address, port, deadline) as server,
        contextlib.closing(_Connections(server)) as connected,
    ):
        here: dict[int, socket.socket] = {}
        connections: list[socket.socket] = []
        problem = None
        while len(here) < num_processes - 1:
            arrived = connected.next_hello(deadline)
            if arrived is None:
                break
            connection, hello = arrived
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
                f"{timeout:g} s, missing --process-id {some(missing, 8)}: start them with the same "
                "command, or raise --connect-timeout"
            )
        _tell(connections, {"problem": problem, "lost": lost})
        for connection in connections:
            _line(connection, HELLO_SECONDS)  # they close first: the port is free at once
    _raise(problem, lost)


class _Connections:
    """Connections to process 0, read side by side: whoever says nothing keeps nobody waiting."""

    def __init__(self, server: socket.socket):
        server.setblocking(False)
        self._server = server
        self._selector = selectors.DefaultSelector()
        self._selector.register(server, selectors.EVENT_READ)
        self._heard: dict[socket.socket, tuple[float, bytearray]] = {}  # until when, what so far
        self._stack = contextlib.ExitStack()  # connections of those that belong here

    def close(self) -> None:
        for connection in list(self._heard):
            self._forget(connection)
            connection.close()
        self._stack.close()
        self._selector.close()

    def next_hello(self, deadline: float) -> tuple[socket.socket, dict] | None:
        """The next process that says what it was told; None at the deadline.

        Whatever else comes, from a stranger or a process that has ended, is hung up on.
        """
        while True:
            until = min([deadline, *(end for end, _ in self._heard.values())])
            for key, _ in self._selector.select(max(until - time.monotonic(), 0.01)):
                if key.fileobj is self._server:
                    self._accept()
                    continue
                text = self._read(key.fileobj)
                if text is not None:
                    self._forget(key.fileobj)
                    hello = _object(text)
                    if _is_hello(hello):
                        key.fileobj.settimeout(HELLO_SECONDS)
                        return self._stack.enter_context(key.fileobj), hello
                    key.fileobj.close()
            now = time.monotonic()
            for connection in [c for c, (end, _) in self._heard.items() if end < now]:
                self._forget(connection)
                connection.close()
            if now >= deadline:
                return None

    def _accept(self) -> None:
        try:
            connection, _ = self._server.accept()
        except OSError:  # it has hung up already, or too many files are open for a moment
            return
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ)
        self._heard[connection] = time.monotonic() + HELLO_SECONDS, bytearray()

    def _read(self, connection: socket.socket) -> bytes | None:
        """What was said, once that is a line or can become none."""
        text = self._heard[connection][1]
        try:
            got = connection.recv(4096)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        text += got
        return bytes(text) if not got or _is_over(text) else None

    def _forget(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        del self._heard[connection]


def _raise(problem: str | None, lost: str | None) -> None:
    if problem is not None:
        raise UserError(problem)
    if lost is not None:
        raise ConnectionError(lost)


def _is_hello(line: dict | None) -> bool:
    """Whether a line comes from a process of such a run, be it of this one or another."""
    if not line or line.keys() != {"process_id", "num_processes"}:
        return False
    number, count = line["process_id"], line["num_processes"]
    return type(number) is int and type(count) is int and 0 < number < count < MOST_PROCESSES


def _is_answer(line: dict | None) -> bool:
    """Whether a line is what process 0 says: two texts of one line each, or None."""
    return (
        bool(line)
        and line.keys() == {"problem", "lost"}
        and all(x is None or (isinstance(x, str) and x.isprintable()) for x in line.values())
    )


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
        if _is_answer(answer):
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
    """The JSON object that comes as one line within `timeout`; None for anything else.

    A gRPC service, which may still be there from an earlier run, says something else.
    """
    deadline, text = time.monotonic() + timeout, b""
    try:
        while not _is_over(text):
            connection.settimeout(max(deadline - time.monotonic(), 0.01))
            got = connection.recv(4096)
            if not got:
                return None
            text += got
    except OSError:
        return None
    return _object(text)


def _is_over(text: bytes) -> bool:
    """Whether these bytes are a line, or the beginning of nothing that we wait for."""
    return text.endswith(b"\n") or len(text) >= MOST_BYTES or (text != b"" and text[:1] != b"{")


def _object(text: bytes) -> dict | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):  # not UTF-8, not JSON, or brackets without end
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
