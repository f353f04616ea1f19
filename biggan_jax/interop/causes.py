"""Why a layer differs, where its output tells: each explanation is tried, and has to fit.

An explanation is an arrangement of the recorded values, or our layer computed in another way from
what it was given, up to there the same in both implementations. The first one that gives the
recorded output within the tolerance is named; where none does, nothing is said.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from biggan_jax.errors import some
from biggan_jax.interop import layout, views
from biggan_jax.interop.module_names import OUTPUT
from biggan_jax.models.attention import SelfAttention
from biggan_jax.models.batch_norm import BatchNorm
from biggan_jax.models.layers import SpectralModule

_MOST_ITEMS = 4096  # channels that are matched one with another
_MOST_VALUES = 1024  # of each of them


@dataclasses.dataclass(frozen=True)
class Difference:
    """A layer that differs.

    Attributes:
      path: ours, joined by '/'.
      view: how the recorded output was read.
      module: ours, detached; of a conditional batch norm its inner one; None for the output.
      variables: of the module, on the host.
      given: the arrays among its arguments, in our forward.
      ours, theirs: outputs in our layout.
      train: whether ours was a training forward.
      inside: whether layers inside this one were recorded, and all agree.
      shared_dim: width of the class embedding; 0 where there is none.
      tolerance: see `verify.verify`.
    """

    path: str
    view: views.View
    module: nn.Module | None
    variables: dict[str, Any]
    given: tuple[np.ndarray, ...]
    ours: np.ndarray
    theirs: np.ndarray
    train: bool
    inside: bool
    shared_dim: int
    tolerance: float

    def fits(self, ours: Any) -> bool:
        """Whether an output is the recorded one."""
        ours = np.asarray(ours, np.float64)
        if ours.shape != self.theirs.shape:
            return False
        return difference(ours, self.theirs)[1] <= self.tolerance

    def again(
        self, module: nn.Module | None = None, given=None, train=None, **params
    ) -> np.ndarray:
        """Our output with another module, other arguments, mode or parameters."""
        variables = self.variables
        if params:
            variables = variables | {"params": variables["params"] | params}
        module = self.module if module is None else module
        given = self.given if given is None else given
        return np.asarray(applied(module, variables, given, self.train if train is None else train))


def difference(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """(the largest |difference|, the same relative to the largest |value| of both)."""
    if not ours.size:
        return 0.0, 0.0
    largest = float(max(np.abs(ours).max(), np.abs(theirs).max()))
    found = float(np.abs(ours - theirs).max())
    return found, found / largest if largest else 0.0


@functools.partial(jax.jit, static_argnums=(0, 3))
def applied(module: nn.Module, variables: dict, given: tuple, train: bool) -> jax.Array:
    """The output of a detached layer, whatever it would store."""
    return module.apply(variables, *given, train, mutable=["spectral", "batch_stats"])[0]


def likely(found: Difference) -> str | None:
    """A few words on why a layer differs; None where nothing fits."""
    if not np.isfinite(found.ours).all():
        return "ours is NaN or infinite: look at its weights and statistics"
    searches: list[Callable[[Difference], Iterator[tuple[str, Any]]]] = [_arranged]
    if isinstance(found.module, SpectralModule):
        searches.append(_weighted)
    elif isinstance(found.module, BatchNorm):
        searches.append(_normalized)
    elif found.module is not None:
        searches.append(_put_together)
    with jax.default_matmul_precision("highest"):
        for search in searches:
            for words, ours in search(found):
                if found.fits(ours):
                    return words
    if found.inside:
        return "the recorded layers inside it agree: look at its skip, or at what joins them"
    return _some_channels(found)


def _some_channels(found: Difference) -> str | None:
    """Which channels differ, where they are few."""
    axes = tuple(range(found.ours.ndim - 1))
    if not axes:
        return None
    most = found.tolerance * max(np.abs(found.ours).max(), np.abs(found.theirs).max())
    differing = np.flatnonzero(np.abs(found.ours - found.theirs).max(axes) > most)
    count = found.ours.shape[-1]
    if not 0 < 2 * len(differing) <= count:
        return None
    return f"{len(differing)} of {count} channels differ: {some(differing)}"


def _arranged(found: Difference) -> Iterator[tuple[str, np.ndarray]]:
    """Our values in another order, or as another thing was recorded."""
    ours, theirs = found.ours, found.theirs
    words = (
        "it was recorded behind a ReLU: one in place changes what a hook keeps, so copy it there"
    )
    yield words, np.maximum(ours, 0)
    if found.path == OUTPUT:
        yield "its images are in [0, 1], ours in [-1, 1]", (ours + 1) / 2
        with np.errstate(all="ignore"):
            yield "it was recorded before the tanh", np.arctanh(np.clip(ours, -1, 1))
    bias = "params/linear/bias"  # what holds for it holds for the features
    if found.view.order == views.CHW:
        yield "G's first linear layer is in (H, W, C) order there", layout.to_ours(bias, ours, "g")
    elif found.view.order == views.HWC:
        yield "G's first linear layer is in (C, H, W) order there", layout.to_peer(bias, ours, "g")
    if ours.ndim == 4:
        yield "height and width are exchanged", ours.swapaxes(1, 2)
        yield "its pixels are in reverse order of rows", ours[:, ::-1]
        yield "its pixels are in reverse order of columns", ours[:, :, ::-1]
    if ours.ndim > 1:
        yield "the channels are in another order", _matched(ours, theirs, -1)
    yield "the samples are in another order", _matched(ours, theirs, 0)


def _matched(ours: np.ndarray, theirs: np.ndarray, axis: int) -> np.ndarray:
    """Ours, each index of an axis being the nearest one to that of theirs."""
    a, b = (np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1) for x in (ours, theirs))
    if len(a) > _MOST_ITEMS:
        return ours
    columns = np.linspace(0, a.shape[1] - 1, min(a.shape[1], _MOST_VALUES)).astype(int)
    a, b = a[:, columns], b[:, columns]
    distances = (b**2).sum(1)[:, None] + (a**2).sum(1) - 2 * b @ a.T
    order = distances.argmin(1)
    return np.take(ours, order, axis) if len(set(order)) == len(order) else ours


def _weighted(found: Difference) -> Iterator[tuple[str, np.ndarray]]:
    """A convolution, linear layer or table with its weight or bias otherwise."""
    module, params = found.module, found.variables["params"]
    weight, bias = np.asarray(params[module.weight_name]), params.get("bias")
    name = module.weight_name

    def with_weight(value: np.ndarray) -> np.ndarray:
        return found.again(**{name: np.ascontiguousarray(value)})

    if bias is not None:
        yield "it has no bias there", found.again(bias=np.zeros_like(bias))
    if module.spectral_norm:
        yield (
            "its weight is not divided by its spectral norm there",
            found.again(module.clone(spectral_norm=False)),
        )
        for how, words in (("iterate", "one iteration from the stored u"),
                           ("stored", "the stored u and v as they are")):  # fmt: skip
            has_v = "v" in found.variables.get("spectral", {})
            if how != module.settings.sn_eval and (has_v or how == "iterate"):
                settings = dataclasses.replace(module.settings, sn_eval=how)
                yield (
                    f"its spectral norm is by {words} there: model.sn_eval={how}",
                    found.again(module.clone(settings=settings)),
                )
    if weight.ndim == 4:
        yield "its kernel has height and width exchanged", with_weight(weight.swapaxes(0, 1))
        yield "its kernel is turned by 180 degrees", with_weight(weight[::-1, ::-1])
        if weight.shape[-2] == 3:
            yield "it takes the image's channels in reverse order", with_weight(weight[:, :, ::-1])
    if weight.shape[-1] == weight.shape[-2] and name == "kernel":
        yield "its weight has inputs and outputs exchanged", with_weight(weight.swapaxes(-1, -2))
    (x, *rest) = found.given
    if x.ndim == 2 and weight.ndim == 2:
        for first in {found.shared_dim, x.shape[1] - found.shared_dim} - {0}:
            rolled = np.concatenate([x[:, first:], x[:, :first]], 1)
            words = "the class embedding and z stand in the other order: model.cond_order"
            yield words, found.again(given=(rolled, *rest))
    yield from _scaled(found, 0 if bias is None else np.asarray(bias, np.float64))


def _scaled(found: Difference, bias: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Times a constant, or with another bias."""
    a, b = found.ours - bias, found.theirs - bias
    factor = _ratio(a, b)
    why = ""
    if found.module.spectral_norm:
        why = ": another spectral norm (its u, eps or iterations), or a scaled weight"
    if a.size > 1:
        yield f"its weight is {factor:.6g} times ours{why}", factor * a + bias
    shift = (found.theirs - found.ours).mean(tuple(range(a.ndim - 1)))
    if a.size > a.shape[-1]:  # a single number of each channel fits anything
        yield "another bias: it differs by a constant in each channel", found.ours + shift


def _ratio(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / max((a * a).sum(), 1e-300))


def _normalized(found: Difference) -> Iterator[tuple[str, np.ndarray]]:
    """A batch norm with other statistics, epsilon, gain or bias."""
    module, (x, gain, bias) = found.module, found.given
    if found.view.form == views.WITHOUT_AFFINE:
        gain, bias = np.ones_like(gain), np.zeros_like(bias)
    if not found.train:
        words = "it normalises with the statistics of the batch: record in evaluation mode"
        yield (
            f"{words}, or compare with --bn-mode batch",
            found.again(given=(x, gain, bias), train=True),
        )
    stats = {k: np.asarray(v, np.float64) for k, v in found.variables["batch_stats"].items()}
    wide = x.astype(np.float64), gain[:, None, None], bias[:, None, None]
    scaled, shifted = (wide[0] - stats["mean"]) * wide[1], found.theirs - wide[2]
    scale = (scaled * shifted).sum((0, 1, 2)) / np.maximum((scaled**2).sum((0, 1, 2)), 1e-300)
    with np.errstate(all="ignore"):
        eps = float(np.median(1 / scale**2 - stats["var"]))
    if np.isfinite(eps) and eps > 0:
        for guess in (float(f"{eps:.1g}"), eps):  # rounding leaves few digits of it
            settings = dataclasses.replace(module.settings, bn_eps=guess)
            words = f"its epsilon is {guess:.2g} there and {module.settings.bn_eps:.2g} here"
            out = found.again(module.clone(settings=settings), (x, gain, bias))
            yield f"{words}: model.bn_eps", out
    zero, one = np.zeros_like(bias), np.ones_like(gain)
    yield "it has neither gain nor bias there", found.again(given=(x, one, zero))
    yield (
        "its gain is not 1 + what the condition gives there",
        found.again(given=(x, gain - 1, bias)),
    )
    yield "it has no bias there", found.again(given=(x, gain, zero))
    yield "gain and bias are exchanged", found.again(given=(x, 1 + bias, gain - 1))
    yield "other running statistics: its mean or variance is another", _refitted(*wide, shifted)


def _refitted(x, gain, bias, shifted) -> np.ndarray:
    """gain (a x + b) + bias, with the a and b of every channel that are nearest."""
    columns = np.stack([np.broadcast_to(gain * x, shifted.shape),
                        np.broadcast_to(gain, shifted.shape)])  # fmt: skip
    channels = shifted.shape[-1]
    columns, wanted = columns.reshape(2, -1, channels), shifted.reshape(-1, channels)
    fitted = np.empty_like(wanted)
    for c in range(channels):
        matrix = columns[..., c].T
        fitted[:, c] = matrix @ np.linalg.lstsq(matrix, wanted[:, c], rcond=None)[0]
    return fitted.reshape(shifted.shape) + bias


def _put_together(found: Difference) -> Iterator[tuple[str, np.ndarray]]:
    """A block with another skip, attention with another gamma."""
    module, x = found.module, np.asarray(found.given[0], np.float64)
    if hasattr(module, "skip"):
        other = "input" if module.skip == "activated" else "activated"
        yield (
            f"its skip takes another thing: model.d_skip={other}",
            found.again(module.clone(skip=other)),
        )
    if isinstance(module, SelfAttention):
        gamma = float(np.asarray(found.variables["params"]["gamma"]))
        factor = _ratio(found.ours - x, found.theirs - x)
        yield (
            f"its gamma is {factor * gamma:.4g}, ours {gamma:.4g}",
            x + factor * (found.ours - x),
        )
    if x.shape == found.ours.shape:
        yield "it has no skip there", found.ours - x
