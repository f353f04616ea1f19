"""What the page of `biggan explore` shows: pictures, attention and latents of a trained generator.

Everything is a function of one request (`explore_request.Shown`). Pictures are made by three
programs, of 1 sample, of `VARIANTS` samples and of 1 sample with its attention, which `warm`
compiles. Nothing here knows HTTP, and one caller at a time is served.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from biggan_jax import models
from biggan_jax.errors import UserError, some
from biggan_jax.models import biggan
from biggan_jax.pictures import attention_figure, grids
from biggan_jax.sampling import explore_request, latents, load
from biggan_jax.sampling.explore_request import NUMBERS, Point, Shown, walks
from biggan_jax.sampling.generator import LoadedGenerator
from biggan_jax.storage import networks, paths, steps

VARIANTS = 12  # pictures beside the one that is looked at


class Explorer:
    """A generator that is looked at, under each of its weights.

    Args:
      directory: a workdir or a model directory.
      step: see `load.load_generator`.
      start: of the page's first sample: {seed, truncation, truncation_kind}.
      settings: other arguments of `load.load_generator`.

    Attributes:
      generators: {'EMA', 'raw' or the name of another average: generator}, the first by default.
      step: generator updates that they have had, None when the directory does not say.
      chunks: pixels of the feature map that each chunk of z enters at; empty where z is whole.

    Raises:
      UserError: for a directory without a usable model, or a `start` that its latents do not allow.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        step: int | str | None = None,
        start: dict[str, Any] | None = None,
        **settings,
    ):
        self.directory, self._asked, self._settings = directory, step, settings
        self._start = {"seed": 0, "truncation": None, "truncation_kind": "resample"}
        self._start |= start or {}
        self._take(self._load())
        first = next(iter(self.generators.values()))
        self.chunks = _chunk_resolutions(first)
        explore_request.shown({"sample": self._start}, self.generators, len(self.chunks))

    def reload(self) -> int | None:
        """Reads the weights anew, such as those of a run that has gone on.

        Returns:
          Their step.

        Raises:
          UserError: they cannot be read, or are of another model; those of before stay.
        """
        kept = f"; the page goes on with {self._state()}, which is in memory"
        try:
            found = self._load()
        except (UserError, OSError) as error:
            raise UserError(f"{error}{kept}") from error
        before, after = (next(iter(g.values())).config.model for g in (self.generators, found))
        if before != after:
            raise UserError(
                f"{self.directory} holds another model by now{kept}: start biggan explore again"
            )
        self._take(found)
        return self.step

    def warm(self) -> None:
        """Compiles and runs every program once, so that no request waits for the compiler."""
        for weights in self.generators:
            shown = Shown(weights, Point(0))
            self.variants(shown)
            self.image(shown)
            if self._attends:
                self.attention(shown, next(iter(self._attends)), 0, 0)
        for kind in latents.KINDS if self._truncates else ():
            self._z(Point(0, truncation=1.0, kind=kind))

    def model(self) -> dict[str, Any]:
        """What the page must know of the model, as JSON holds it."""
        first = next(iter(self.generators.values()))
        return {
            "directory": str(self.directory),
            "name": paths.absolute(self.directory).name,
            "family": first.config.model.name,
            "step": self.step,
            "resolution": first.resolution,
            "channels": first.channels,
            "dim_z": first.dim_z,
            "num_classes": first.num_classes,
            "class_names": list(first.class_names),
            "weights": list(self.generators),
            "bn_mode": self._settings.get("bn_mode", "running"),
            "truncates": self._truncates,
            "walks": self._walks,
            "chunks": self.chunks,
            "attention": self._attends,
            "variants": VARIANTS,
            "numbers": NUMBERS,
            "start": self._start,
        }

    def image(self, shown: Shown) -> np.ndarray:
        """The picture of a request, uint8 [H, W, C]."""
        return self._images(shown, [self._mixed(shown, shown.at)])[0]

    def variants(self, shown: Shown) -> np.ndarray:
        """`VARIANTS` pictures around that of a request, uint8 [VARIANTS, H, W, C].

        Of a sample those with the numbers around its own, class, truncation and changes of chunks
        the same; between two samples the way from the one to the other.
        """
        if shown.other is not None:
            return self._images(shown, [self._mixed(shown, t) for t in np.linspace(0, 1, VARIANTS)])
        return self._images(
            shown, [self._mixed(Shown(shown.weights, p), 0) for p in _siblings(shown.point)]
        )

    def attention(self, shown: Shown, layer: str, row: int, column: int) -> dict[str, Any]:
        """Where the pixel of a picture attends to.

        Args:
          shown: the picture.
          layer: a name of `model()['attention']`.
          row, column: of the pixel, in the image's resolution.

        Returns:
          {layer, side, values, query, queries}: `side * side` probabilities in row-major order; the
          row and column of the query, of the `queries` of a side.

        Raises:
          UserError: the model has no such layer.
        """
        if not self._attends:
            raise UserError("this model has no attention layer")
        if layer not in self._attends:
            raise UserError(f"there is no attention layer {layer!r}: {some(self._attends, 9)}")
        beta = self._maps(shown)[layer][0]
        side = attention_figure.grid_side(len(beta))
        size = self.generators[shown.weights].resolution
        query = row * side // size, column * side // size
        return {
            "layer": layer,
            "side": attention_figure.grid_side(beta.shape[1]),
            "values": [float(f"{p:.4g}") for p in beta[query[0] * side + query[1]]],
            "query": query,
            "queries": side,
        }

    def latents(self, shown: Shown) -> dict[str, np.ndarray]:
        """What makes the picture once more.

        Returns:
          {images uint8 [1, H, W, C], labels [1], z [1, dim_z]} as a file of samples holds them;
          between two classes also others [1] and weights [1], for `LoadedGenerator.between`.
        """
        z, label, other, weight = self._mixed(shown, shown.at)
        arrays = {
            "images": self.image(shown)[None],
            "labels": np.array([label], np.int32),
            "z": z[None],
        }
        if other != label:
            arrays["others"] = np.array([other], np.int32)
            arrays["weights"] = np.array([weight], np.float32)
        return arrays

    def _load(self) -> dict[str, LoadedGenerator]:
        held = steps.find(self.directory, self._asked)
        wanted: dict[str, bool | str] = networks.generator_weights(self.directory, self._asked)
        wanted = wanted | {name: name for name in networks.averages(held)}
        found: dict[str, LoadedGenerator] = {}
        step = self._asked
        for name, ema in wanted.items():
            found[name] = load.load_generator(self.directory, step=step, ema=ema, **self._settings)
            if held.in_checkpoints:  # a run that goes on may save the next one meanwhile
                step = found[name].step
        return found

    def _take(self, found: dict[str, LoadedGenerator]) -> None:
        first = next(iter(found.values()))
        self.generators, self.step = found, first.step
        self._truncates = first.config.model.z_distribution not in models.latents.NOT_NORMAL
        self._walks = walks(first)
        self._attends = first.gammas
        self._kept_maps: tuple[Any, dict] = (None, {})

    def _state(self) -> str:
        return "the weights" if self.step is None else f"step {self.step}"

    def _images(self, shown: Shown, mixed: Sequence[tuple]) -> np.ndarray:
        inputs = (np.array(part) for part in zip(*mixed, strict=True))
        return grids.to_uint8(self.generators[shown.weights].between(*inputs)[0])

    def _maps(self, shown: Shown) -> dict[str, np.ndarray]:
        """Attention maps of a picture; the last ones are kept, while a pointer moves over it."""
        key, maps = self._kept_maps
        if key != shown:
            inputs = (np.array([part]) for part in self._mixed(shown, shown.at))
            _, maps = self.generators[shown.weights].between(*inputs, attention=True)
            self._kept_maps = shown, maps
        return maps

    def _mixed(self, shown: Shown, at: float) -> tuple[np.ndarray, int, int, np.float32]:
        """(z [dim_z], class, other class, its weight) at some place between two samples."""
        one, other = shown.point, shown.other
        z = self._z(one)
        if other is None:
            return z, one.label, one.label, np.float32(0)
        if shown.what != "class":
            z = latents.great_circle(z, self._z(other), [at])[0]
        if shown.what == "z":
            return z, one.label, one.label, np.float32(0)
        return z, one.label, other.label, np.float32(at)

    def _z(self, point: Point) -> np.ndarray:
        z = self._drawn(point.seed, point.number, point.truncation, point.kind)
        if not point.chunks:
            return z
        parts = np.split(z, len(point.chunks))
        for i, chunk in enumerate(point.chunks):
            how = point.seed if chunk.seed is None else chunk.seed, point.truncation, point.kind
            parts[i] = self._part(i, point.number, *how)
            if chunk.angle:
                radians = np.deg2rad(chunk.angle)
                direction = self._part(i, NUMBERS + point.number, *how)
                parts[i] = np.cos(radians) * parts[i] + np.sin(radians) * direction
        return np.concatenate(parts).astype(np.float32)

    def _part(self, chunk: int, number: int, seed: int, truncation, kind: str) -> np.ndarray:
        return np.split(self._drawn(seed, number, truncation, kind), len(self.chunks))[chunk]

    def _drawn(self, seed: int, number: int, truncation: float | None, kind: str) -> np.ndarray:
        model = next(iter(self.generators.values())).config.model
        return _drawn(model.dim_z, model.z_distribution, seed, number, truncation, kind)


@functools.lru_cache(maxsize=512)  # a picture of several chunks draws as many whole latents
def _drawn(dim_z: int, distribution: str, seed: int, number: int, truncation, kind) -> np.ndarray:
    """One latent [dim_z]."""
    how = {"truncation": truncation, "kind": kind, "distribution": distribution}
    one = range(number, number + 1)
    return latents.draw(seed, one, dim_z, **how, any_truncation=True)[0]


def _siblings(point: Point) -> list[Point]:
    """The samples of a seed whose numbers stand beside that of a point, its own among them."""
    first = min(point.number // VARIANTS * VARIANTS, NUMBERS - VARIANTS)
    return [dataclasses.replace(point, number=first + i) for i in range(VARIANTS)]


def _chunk_resolutions(generator: LoadedGenerator) -> list[int]:
    module, _ = models.build(generator.config.model)
    if not getattr(module, "hierarchical_z", False):
        return []
    return [biggan.BOTTOM, *sorted(module.attention_widths())]
