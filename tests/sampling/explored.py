"""Tiny models of every kind for the tests of `biggan explore`, and a client of its server."""

import contextlib
import http.client
import io
import json
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from biggan_jax import config as config_lib
from biggan_jax.sampling import explore_server
from biggan_jax.sampling.explore import Explorer
from biggan_jax.storage import networks as weights
from biggan_jax.storage.weights import save_weights
from tests.models.test_biggan import section

NAMES = ("cat", "dog", "Größe", "猫", "a long name " + "x" * 40)


def random_variables(model, seed: int = 0) -> dict:
    """Variables of a generator with random numbers everywhere: at init tables and gammas are 0."""
    rng = np.random.default_rng(seed)

    def filled(path, leaf):
        x = rng.normal(size=leaf.shape).astype(np.float32)
        return np.abs(x) + 0.5 if path[-1].key == "var" else 0.3 * x

    return jax.tree_util.tree_map_with_path(filled, weights.shapes(model, "g"))


def config_of(**changes):
    """A config of a tiny model."""
    config = config_lib.default_config()
    config.unlock()
    config.model = section(**({"resolution": 16, "ch": 4, "num_classes": 5} | changes))
    return config


def write_model(directory: Path, *, names=(), networks=("g_ema", "g"), **changes) -> Path:
    """A model directory with random weights, different ones for each of its networks."""
    config = config_of(**changes)
    config.class_names = tuple(names)
    for number, name in enumerate(networks):
        save_weights(directory, name, random_variables(config.model, number))
    (directory / "config.json").write_text(config.to_json_best_effort())
    return directory


class Client:
    """Asks a server: `ask('image', sample={...})` and the like."""

    def __init__(self, port: int):
        self.port = port

    def send(self, method="POST", path="/", body=b"", **headers) -> tuple[int, dict, bytes]:
        """(status, headers, body) of any request; `Host` and others by their names."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        own = {"Host": f"127.0.0.1:{self.port}", "Content-Type": "application/json"}
        own["Content-Length"] = str(len(body))
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in (own | named).items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(body)
        with contextlib.closing(connection):
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def ask(self, path: str, /, **request):
        """The answer of a request that succeeds: an object, an image [H, W, C] or bytes."""
        status, headers, body = self.send(path=f"/api/{path}", body=json.dumps(request).encode())
        assert status == 200, body
        if headers["content-type"] == "application/json":
            return json.loads(body)
        if headers["content-type"] != "image/png":
            return body
        pixels = np.asarray(Image.open(io.BytesIO(body)))
        return pixels[..., None] if pixels.ndim == 2 else pixels

    def refused(self, path: str, status: int = 400, /, **request) -> str:
        """The sentence of a request that is refused."""
        body = json.dumps(request).encode()
        return self.sentence(status, *self.send(path=f"/api/{path}", body=body))

    @staticmethod
    def sentence(expected: int, status: int, headers: dict, body: bytes) -> str:
        """The error of an answer, which has the expected status."""
        assert status == expected, (status, body)
        assert headers["content-type"] == "application/json"
        found = json.loads(body)
        assert found.keys() == {"error"} and "\n" not in found["error"]
        return found["error"]


@contextlib.contextmanager
def served(explorer: Explorer, host: str = "127.0.0.1"):
    """A client of a running server."""
    listener = explore_server.bind(host, 0)
    port = listener.getsockname()[1]
    with explore_server.Server(explorer, listener, host):
        yield Client(port)
