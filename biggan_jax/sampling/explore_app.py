"""What the server of `biggan explore` answers: a page, and pictures as JSON asks for them.

One thread computes, in the order of the requests. A page numbers its requests, and of those that
wait only its newest one of each kind is computed (the newest position of a slider counts).
"""

import asyncio
import collections
import concurrent.futures
import io
import json
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import jinja2
import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from biggan_jax.errors import OutOfMemoryError, UserError, some
from biggan_jax.parallel import devices
from biggan_jax.pictures import grids
from biggan_jax.sampling import explore_request as requests
from biggan_jax.sampling.explore import Explorer
from biggan_jax.sampling.explore_guard import POLICY, Guard

PAGES = 64  # whose newest requests are remembered
SHEET_COLUMNS = 4  # of the picture of variants
REMEDY = "free some memory, or use a larger machine"
PLAIN = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
PLAIN |= {"referrer-policy": "no-referrer", "cross-origin-resource-policy": "same-origin"}


Answer = Callable[[Explorer, dict, requests.Shown], Response]
Endpoint = Callable[[Request], Awaitable[Response]]


class Stale(Exception):
    """A newer request of the same page has come."""


class Json(Response):
    """An object as JSON in ASCII: names of folders may hold what no encoding has."""

    media_type = "application/json"

    def __init__(self, content: Any, code: int = 200):
        super().__init__(json.dumps(content, allow_nan=False), code, headers=PLAIN)


class Turns:
    """Serves one request after the other, and of each page only the newest of a kind."""

    def __init__(self):
        self._lock = asyncio.Lock()
        self._newest: collections.OrderedDict[tuple, int] = collections.OrderedDict()
        self._worker = concurrent.futures.ThreadPoolExecutor(1, "explore")

    async def take(self, page: tuple | None, turn: int, compute: Callable[[], Any]) -> Any:
        """Computes something in its turn.

        Args:
          page: of the request, with its kind; None where its requests have no order.
          turn: the number of the request; the highest is the newest.
          compute: is called in the thread that computes.

        Returns:
          What `compute` returns.

        Raises:
          Stale: a newer request came before this one had its turn.
        """
        if page is not None:
            self._newest[page] = max(turn, self._newest.get(page, 0))
            self._newest.move_to_end(page)
            while len(self._newest) > 4 * PAGES:
                self._newest.popitem(last=False)
        async with self._lock:
            if page is not None and self._newest.get(page, turn) > turn:
                raise Stale
            return await asyncio.get_running_loop().run_in_executor(self._worker, compute)


def application(explorer: Explorer, host: str) -> Guard:
    """The ASGI application.

    Args:
      explorer: what is shown.
      host: that the server listens at.
    """
    turns = Turns()

    async def page(request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        text = _template().render(nonce=nonce)
        headers = PLAIN | {"content-security-policy": POLICY.format(nonce=nonce)}
        return Response(text, media_type="text/html", headers=headers)

    async def model(request: Request) -> Response:
        return Json(explorer.model())

    async def reload(request: Request) -> Response:
        def compute() -> Response:
            explorer.reload()
            return Json(explorer.model())

        return await turns.take(None, 0, compute)

    def asked(answer: Answer, *more: str) -> Endpoint:
        return _asked(explorer, turns, answer, *more)

    def post(path: str, endpoint: Endpoint) -> Route:
        return Route(path, _answered(endpoint), methods=["POST"])

    routes = [
        Route("/", page),
        Route("/api/model", model),
        post("/api/reload", reload),
        post("/api/image", asked(image)),
        post("/api/variants", asked(variants)),
        post("/api/attention", asked(attention, "layer", "row", "column")),
        post("/api/latents.npz", asked(latents_npz)),
        post("/api/latents.json", asked(latents_json)),
    ]
    return Guard(Starlette(routes=routes, exception_handlers={HTTPException: _no_page}), host)


def image(explorer: Explorer, given: dict, shown: requests.Shown) -> Response:
    """The picture, a PNG of the model's resolution."""
    return _png(explorer.image(shown))


def variants(explorer: Explorer, given: dict, shown: requests.Shown) -> Response:
    """The variants in one PNG without gaps, `SHEET_COLUMNS` a row."""
    pictures = explorer.variants(shown)
    n, h, w, c = pictures.shape
    rows = pictures.reshape(n // SHEET_COLUMNS, SHEET_COLUMNS, h, w, c)
    return _png(rows.swapaxes(1, 2).reshape(-1, SHEET_COLUMNS * w, c))


def attention(explorer: Explorer, given: dict, shown: requests.Shown) -> Response:
    """Where the pixel (row, column) attends to; see `Explorer.attention`."""
    size = explorer.generators[shown.weights].resolution
    place = [requests.pixel(given.get(name), name, size) for name in ("row", "column")]
    layer = str(given.get("layer", next(iter(explorer.model()["attention"]), "")))[:100]
    return Json(explorer.attention(shown, layer, *place))


def latents_npz(explorer: Explorer, given: dict, shown: requests.Shown) -> Response:
    """A file of samples of one sample, see `Explorer.latents`."""
    file = io.BytesIO()
    np.savez(file, **explorer.latents(shown))
    return Response(file.getvalue(), media_type="application/octet-stream", headers=PLAIN)


def latents_json(explorer: Explorer, given: dict, shown: requests.Shown) -> Response:
    """The same without the picture, and with what was asked for."""
    arrays = {name: x.tolist() for name, x in explorer.latents(shown).items() if name != "images"}
    sample = {key: given[key] for key in requests.SHOWN if key in given}
    kept = {"step": explorer.step, "sample": sample | {"weights": shown.weights}}
    return Json(arrays | kept)


def _asked(explorer: Explorer, turns: Turns, answer: Answer, *more: str) -> Endpoint:
    """An endpoint whose requests wait for their turn; `more` are the keys that it alone takes."""

    def computed(given: dict) -> Response:
        # Not before its turn: the weights may have been read anew meanwhile.
        shown = requests.shown(given, explorer.generators, len(explorer.chunks))
        return answer(explorer, given, shown)

    async def endpoint(request: Request) -> Response:
        given = requests.parse(await request.body())
        requests.known_keys(given, ("page", "turn", *more))
        turn = requests.whole(given.get("turn", 0), "turn")
        of_page = str(given["page"])[:40] if "page" in given else None
        key = None if of_page is None else (of_page, answer.__name__)
        start = time.perf_counter()
        response = await turns.take(key, turn, lambda: computed(given))
        seconds = time.perf_counter() - start
        response.headers["server-timing"] = f"picture;dur={1000 * seconds:.1f}"
        return response

    return endpoint


def _answered(endpoint: Endpoint) -> Endpoint:
    """An endpoint that says what went wrong in one sentence."""

    async def answered(request: Request) -> Response:
        try:
            with devices.named_errors(lambda: REMEDY):
                return await endpoint(request)
        except UserError as error:
            return _failed(400, str(error))
        except Stale:
            return _failed(409, "a newer request of this page has come")
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except OutOfMemoryError as error:
            return _failed(500, str(error))
        except Exception as error:  # a defect of this program, whose traceback helps to mend it
            traceback.print_exc()
            return _failed(500, " ".join(f"{type(error).__name__}: {error}".split()))

    return answered


def _failed(code: int, sentence: str) -> Response:
    return Json({"error": sentence}, code)


async def _no_page(request: Request, error: HTTPException) -> Response:
    there = some([route.path for route in request.app.routes], 9)
    what = {404: f"nothing is here: there are {there}", 405: "this address takes another method"}
    response = _failed(error.status_code, what.get(error.status_code, error.detail))
    response.headers.update(error.headers or {})
    return response


def _png(pixels: np.ndarray) -> Response:
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    return Response(grids.png(picture), media_type="image/png", headers=PLAIN)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("biggan_jax.sampling", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("explore.html")
