"""What the page of `biggan explore` asks for: checked here, whoever wrote it."""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any, NoReturn

from biggan_jax.errors import UserError, did_you_mean, some
from biggan_jax.sampling import latents
from biggan_jax.sampling.generator import LoadedGenerator

WHAT = ("both", "z", "class")  # what goes from one sample to the other
NUMBERS = 2**20  # of samples of a seed; the directions of walks are the samples behind them
TRUNCATIONS = (0.001, 1000.0)
POINT = ("class", "seed", "number", "truncation", "truncation_kind", "chunks")
CHUNK = ("seed", "angle")
SHOWN = ("weights", "sample", "from", "to", "at", "what")


@dataclasses.dataclass(frozen=True)
class Chunk:
    """What is done to one chunk of a hierarchical z.

    Attributes:
      seed: another seed that this chunk is drawn from; None keeps that of the sample.
      angle: degrees of the walk from the chunk in one random direction, on a great circle: at 90 it
        is another draw, at 180 the opposite one, and everywhere as long as z is.
    """

    seed: int | None = None
    angle: float = 0.0


@dataclasses.dataclass(frozen=True)
class Point:
    """One sample.

    Attributes:
      label: its class.
      seed, number: see `LoadedGenerator.sample_z`; `number` is that of the sample.
      truncation, kind: of its latent.
      chunks: one a chunk of z; () leaves all of them as they are.
    """

    label: int
    seed: int = 0
    number: int = 0
    truncation: float | None = None
    kind: str = "resample"
    chunks: tuple[Chunk, ...] = ()


@dataclasses.dataclass(frozen=True)
class Shown:
    """What a picture shows: a sample, or one between two.

    Attributes:
      weights: a name of `Explorer.generators`.
      point: the sample, or the first of two.
      other: the second; None where there is one.
      at: where between them, from 0 to 1.
      what: one of `WHAT`; what it leaves out stays that of the first.
    """

    weights: str
    point: Point
    other: Point | None = None
    at: float = 0.0
    what: str = "both"


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
      UserError: it is none, or holds NaN or infinity.
    """

    def refuse(constant: str) -> NoReturn:
        raise UserError(f"the request holds {constant}, which is no number of JSON")

    try:
        found = json.loads(body, parse_constant=refuse)
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"the request is no JSON: {some([error])[:200]}") from error
    return _object(found, "the request")


def shown(request: dict[str, Any], generators: dict[str, LoadedGenerator], chunks: int) -> Shown:
    """What a request wants to see.

    Args:
      request: {weights, sample} or {weights, from, to, at, what}; a sample is {class, seed, number,
        truncation, truncation_kind, chunks: [{seed, angle}]}, all but the class optional, the class
        an id or a name.
      generators: by the name of their weights, the first the default.
      chunks: of z; 0 where it is not hierarchical.

    Returns:
      The checked request.

    Raises:
      UserError: what is wrong with it, and what would be right.
    """
    first = next(iter(generators))
    weights = request.get("weights", first)
    if not isinstance(weights, str) or weights not in generators:
        hint = did_you_mean(str(weights)[:100], generators)
        raise UserError(f"there are no weights {_short(weights)}{hint}: {some(generators, 12)}")
    generator = generators[weights]
    if "sample" in request:
        mixed = [key for key in SHOWN[2:] if key in request]
        if mixed:
            raise UserError(f"a request has either sample or from and to; leave {mixed[0]} out")
        return Shown(weights, _point(request["sample"], "sample", generator, chunks))
    for key in ("from", "to"):
        if key not in request:
            raise UserError(f"the request has no {key}: write sample, or from and to")
    at = _number(request.get("at", 0.5), "at", 0, 1)
    what = _choice(request.get("what", WHAT[0]), "what", WHAT)
    ends = [_point(request[key], key, generator, chunks) for key in ("from", "to")]
    return Shown(weights, *ends, at=at, what=what)


def known_keys(request: dict[str, Any], more: Sequence[str]) -> None:
    """Raises UserError for a key that no request has; `more` are those of this kind of request."""
    _known(request, (*SHOWN, *more), "the request")


def pixel(value: Any, name: str, resolution: int) -> int:
    """A row or column of an image."""
    return _whole(value, name, 0, resolution - 1)


def whole(value: Any, name: str) -> int:
    """A whole number from 0 to 2**53, which JavaScript counts in."""
    return _whole(value, name, 0, 2**53)


def _point(value: Any, name: str, generator: LoadedGenerator, chunks: int) -> Point:
    given = _object(value, name)
    _known(given, POINT, name)
    truncation = given.get("truncation")
    if truncation is not None:
        truncation = _number(truncation, "truncation", *TRUNCATIONS)
    kind = _choice(given.get("truncation_kind", "resample"), "truncation_kind", latents.KINDS)
    seed = _seed(given.get("seed", 0), "seed")
    generator.check_latents(seed, truncation, kind)
    label = _label(given.get("class", 0), generator)
    number = _whole(given.get("number", 0), "number", 0, NUMBERS - 1)
    own = _chunks(given.get("chunks") or [], generator, chunks)
    return Point(label, seed, number, truncation, kind, own)


def _chunks(value: Any, generator: LoadedGenerator, count: int) -> tuple[Chunk, ...]:
    if not isinstance(value, list):
        raise UserError(f"chunks are {_short(value)}; write a list, one object a chunk of z")
    if value and not count:
        raise UserError("this model's z has no chunks (it is not hierarchical): leave chunks out")
    if value and len(value) != count:
        raise UserError(f"there are {len(value)} chunks; z of this model has {count}")
    found = []
    for i, one in enumerate(value):
        name = f"chunk {i}"
        given = _object(one, name)
        _known(given, CHUNK, name)
        seed = given.get("seed")
        seed = None if seed is None else _seed(seed, f"seed of {name}")
        angle = _number(given.get("angle", 0), f"angle of {name}", -180, 180)
        if angle and not walks(generator):
            raise UserError("z of this model is not normal, and walks would leave it: no angles")
        found.append(Chunk(seed, angle))
    return tuple(found) if any(chunk != Chunk() for chunk in found) else ()


def walks(generator: LoadedGenerator) -> bool:
    """Whether a great circle stays among the latents: of normal ones alone."""
    return generator.config.model.z_distribution == "normal"


def _label(value: Any, generator: LoadedGenerator) -> int:
    if isinstance(value, str):
        found = generator.labels(value[:500], "class")
        if len(found) != 1:
            raise UserError(f"class {_short(value)} means {len(found)} classes; write one")
        return int(found[0])
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"class is {_short(value)}; write an id or a name")
    if not 0 <= value < generator.num_classes:
        raise UserError(
            f"class {_short(value)} does not exist: this model has classes 0 to "
            f"{generator.num_classes - 1}"
        )
    return value


def _seed(value: Any, name: str) -> int:
    return _whole(value, name, -(2**31), 2**32 - 1)


def _whole(value: Any, name: str, low: int, high: int) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UserError(f"{name} is {_short(value)}; it must be an integer from {low} to {high}")
    return value


def _number(value: Any, name: str, low: float, high: float) -> float:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not low <= value <= high or not math.isfinite(value):
        raise UserError(f"{name} is {_short(value)}; it must be a number from {low} to {high}")
    return float(value)


def _choice(value: Any, name: str, known: Sequence[str]) -> str:
    if value not in known:
        hint = did_you_mean(str(value)[:100], known)
        raise UserError(f"{name} is {_short(value)}{hint}; it must be {' or '.join(known)}")
    return value


def _known(given: dict[str, Any], known: Sequence[str], name: str) -> None:
    for key in given:
        if key not in known:
            hint = did_you_mean(key[:100], known)
            raise UserError(f"{name} has no {_short(key)}{hint}; it has {', '.join(known)}")


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{name} is {_short(value)}; it must be an object")
    return value


def _short(value: Any) -> str:
    """A value of JSON on one short line."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except ValueError:  # an integer of more digits than Python writes out
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."
