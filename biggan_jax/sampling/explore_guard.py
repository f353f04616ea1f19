"""Which requests the server of `biggan explore` answers: those of its own page, and small ones.

Any page that a browser shows can send requests to this machine, and one whose name a stranger's
DNS server turns into 127.0.0.1 ("DNS rebinding") can read the answers too. So a request must name
this machine as its host, and no other page as its origin.
"""

import ipaddress
import json
import socket
from urllib.parse import urlsplit

LARGEST = 64 * 1024  # bytes of a request's body
LOCAL = ("localhost", "127.0.0.1", "::1")
# Nothing is loaded from anywhere, and no other page shows this one in a frame.
POLICY = (
    "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; img-src 'self' "
    "blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Guard:
    """An ASGI application that answers for another one where a request is not of its page.

    Args:
      app: the application.
      host: what the server listens at, as the user wrote it.
    """

    def __init__(self, app, host: str):
        self._app = app
        self._names = {host.lower(), *LOCAL}
        # At an address of the network it is reached by any address or name of this machine. No name
        # of a stranger is an address, and none is that of this machine.
        self._open = not is_local(host)
        if self._open:
            own = socket.gethostname().lower()
            self._names |= {own, f"{own}.local", socket.getfqdn().lower()}

    async def __call__(self, scope, receive, send) -> None:
        """Hands the request on, or answers it with one sentence."""
        if scope["type"] != "http":
            return
        headers: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value.decode("latin-1"))
        problem = self._problem(scope["method"], headers)
        if problem is None:
            await self._app(scope, receive, send)
            return
        code, sentence = problem
        body = json.dumps({"error": sentence}).encode()
        length = str(len(body)).encode()
        fields = [(b"content-type", b"application/json"), (b"content-length", length)]
        fields.append((b"connection", b"close"))  # whatever else it sends is not read
        await send({"type": "http.response.start", "status": code, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    def _problem(self, method: str, headers: dict[bytes, list[str]]) -> tuple[int, str] | None:
        hosts = headers.get(b"host", [])
        if len(hosts) != 1 or not self._is_own(hosts[0]):
            named = ", ".join(hosts)[:100] or "none"
            return 403, (
                f"the request is for the host {named!r}, not for this server: open the address "
                "that biggan explore has printed"
            )
        for origin in headers.get(b"origin", []):
            if origin.lower() not in (f"http://{hosts[0]}".lower(), f"https://{hosts[0]}".lower()):
                return 403, f"the request comes from another page ({origin[:100]})"
        if headers.get(b"sec-fetch-site", ["none"])[0] == "cross-site" and method != "GET":
            return 403, "the request comes from another page"
        if method != "POST":
            return None
        kind = headers.get(b"content-type", [""])[0].partition(";")[0].strip().lower()
        if kind != "application/json":
            return 415, "a request is JSON: send the header Content-Type: application/json"
        length = headers.get(b"content-length", [""])[0]
        if not length.isdigit():
            return 411, "a request says how long it is: send the header Content-Length"
        if int(length[:20]) > LARGEST:
            return 413, f"the request has {length[:20]} bytes; at most {LARGEST} are read"
        return None

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname  # of any port: one may be forwarded here
        except ValueError:
            return False
        if not name:
            return False
        return name in self._names or (self._open and is_address(name)) or is_local(name)


def is_address(name: str) -> bool:
    """Whether a host is written as numbers."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_local(name: str) -> bool:
    """Whether a host is this machine alone, and nothing of a network reaches it."""
    return name.lower() == "localhost" or (
        is_address(name) and ipaddress.ip_address(name).is_loopback
    )
