"""The server of `biggan explore`: a port of this machine, and the thread that answers there."""

import errno
import socket
import threading

import uvicorn

from biggan_jax.errors import UserError
from biggan_jax.sampling import explore_app
from biggan_jax.sampling.explore import Explorer

WAITING = 100  # requests at once
END_SECONDS = 2  # for the requests that are being answered as the server ends


def bind(host: str, port: int) -> socket.socket:
    """Takes a port, before anything is loaded.

    Args:
      host: a name or an address of this machine.
      port: 0 takes a free one.

    Returns:
      The socket.

    Raises:
      UserError: it is no port or in use, or the host is none of this machine.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"--port is {port}; it must be from 1 to 65535, or 0 for any free port")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise UserError(f"--host {host} is no address of this machine: {error}") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        raise UserError(_not_bound(host, port, error)) from error
    return listener


def _not_bound(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        what = f"port {port} of {host} is in use"
        return f"{what}: name another by --port N, or take any free one by --port 0"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} is not allowed ({error.strerror}): name one above 1023 by --port N"
    return f"--host {host} is no address of this machine ({error.strerror}): leave it out"


def address(listener: socket.socket, host: str) -> str:
    """What is typed into a browser."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{listener.getsockname()[1]}/"


class Server:
    """A context in which the page is served, by a thread.

    Args:
      explorer: what is shown.
      listener: from `bind`.
      host: that it was bound to.
    """

    def __init__(self, explorer: Explorer, listener: socket.socket, host: str):
        config = uvicorn.Config(
            explore_app.application(explorer, host),
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=WAITING,
            timeout_graceful_shutdown=END_SECONDS,
        )
        self._server, self._listener = uvicorn.Server(config), listener
        # No join: Ctrl-C inside it leaves Python 3.11 with a thread that it takes for ended.
        self._ended = threading.Event()
        # Not the main thread, whose signals uvicorn would take.
        self._thread = threading.Thread(target=self._run, daemon=True, name="explore-server")

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(self, *unused) -> None:
        self._server.should_exit = True
        self._ended.wait(4 * END_SECONDS)  # it closes the port

    def wait(self, seconds: float) -> bool:
        """Waits a while; whether the server still runs then."""
        return not self._ended.wait(seconds)

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._listener])
        finally:
            self._ended.set()
