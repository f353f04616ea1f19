"""How the recorded output of a layer is read as the output of ours: layout, resolution, form.

Ours is not always computed as the recorded one. A convolution and the resampling beside it are one
layer here, and its output may have been recorded on the other side of the resampling; an inner
batch norm may have been recorded before its gain and bias. The same layer is then computed in that
form, from the same input.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from biggan_jax.errors import UserError, counts, some
from biggan_jax.interop import layout
from biggan_jax.interop.module_names import Names
from biggan_jax.models import walk
from biggan_jax.models.batch_norm import BatchNorm
from biggan_jax.models.layers import Conv

AS_IT_IS, WITHOUT_RESAMPLING, WITHOUT_AFFINE = "", "without resampling", "before gain and bias"
NHWC, NCHW, HWC, CHW, PLAIN = "NHWC", "NCHW", "(H, W, C)", "(C, H, W)", ""
FIRST_LINEAR = "linear"  # of G, whose output is reshaped to 4x4 pixels


@dataclasses.dataclass(frozen=True)
class View:
    """One way to read a recorded array.

    Attributes:
      form: of our layer, one of AS_IT_IS, WITHOUT_RESAMPLING and WITHOUT_AFFINE.
      order: of the recorded axes: NHWC or NCHW of pixels, HWC or CHW of G's first linear layer,
        PLAIN of all others.
      shape: of our output in this form.
    """

    form: str
    order: str
    shape: tuple[int, ...]

    def to_ours(self, x: np.ndarray) -> np.ndarray:
        """A recorded array in our layout, float64."""
        x = np.asarray(x, np.float64)
        if self.order == NCHW:
            x = x.transpose(0, 2, 3, 1)
        x = x.reshape(self.shape)
        # What holds for one number a feature, the bias, holds for the features.
        return layout.to_ours("params/linear/bias", x, "g") if self.order == CHW else x


@dataclasses.dataclass
class Layer:
    """A recorded layer and ours.

    Attributes:
      name: as it was recorded.
      path: ours, joined by '/'; `module_names.OUTPUT` for the player's own output.
      views: ways to read what was recorded, of which the nearest counts.
    """

    name: str
    path: str
    views: list[View]


def forms(call: walk.Call, plain_norm: bool) -> dict[str, tuple[int, ...]]:
    """{form: shape of our output} of a module.

    Args:
      call: of the module.
      plain_norm: whether a batch norm was recorded before gain and bias.
    """
    module, shape = call.module, call.output.shape
    if isinstance(module, BatchNorm) and plain_norm:
        return {WITHOUT_AFFINE: shape}
    found = {AS_IT_IS: shape}
    # Before the pooling; a 1x1 convolution commutes with upsampling as well.
    if isinstance(module, Conv) and (
        module.resample == "down" or (module.resample == "up" and module.kernel_size == 1)
    ):
        found[WITHOUT_RESAMPLING] = (*call.inputs[0].shape[:3], shape[-1])
    return found


def views(path: str, player: str, shapes: dict[str, tuple], recorded: tuple) -> list[View]:
    """All ways to read an array of a shape as the output of our layer; none where it does not fit.

    Args:
      path: of our layer.
      player: 'g' or 'd'.
      shapes: from `forms`.
      recorded: the shape that was recorded.
    """
    found = []
    for form, ours in shapes.items():
        if len(ours) == 4:
            n, *pixels, channels = ours
            orders = {NCHW: (n, channels, *pixels), NHWC: ours}
            found += [View(form, order, ours) for order, s in orders.items() if s == recorded]
        elif player == "g" and path == FIRST_LINEAR and ours[-1] % layout.BOTTOM == 0:
            n, features = ours
            channels = features // layout.BOTTOM
            of = {HWC: [ours, (n, 4, 4, channels)], CHW: [ours, (n, channels, 4, 4)]}
            found += [View(form, order, ours) for order, s in of.items() if recorded in s]
        elif recorded[:1] == ours[:1] and _plain(recorded) == _plain(ours):
            found.append(View(form, PLAIN, ours))
    return found


def _plain(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape[1:] if size != 1)


def fit(
    path: Path,
    player: str,
    shapes: dict[str, tuple[int, ...]],
    layers: dict[str, tuple[str, dict[str, tuple]]],
    names: Names | None,
) -> tuple[list[Layer], str]:
    """Finds how every recorded array is to be read.

    Args:
      path: of the recording, for messages.
      player: 'g' or 'd'.
      shapes: {recorded name: recorded shape}.
      layers: {recorded name: (our path, its `forms`)}.
      names: of the peer, which say what no shape does.

    Returns:
      (layers, what a person is told of the layout).

    Raises:
      UserError: an array fits no layout.
    """
    found, misfits = [], []
    for name, (ours, by_form) in layers.items():
        ways = views(ours, player, by_form, shapes[name])
        if not ways:
            wanted = " or ".join(str(list(shape)) for shape in by_form.values())
            misfits.append(f"{name} is {list(shapes[name])}, ours ({ours}) {wanted}")
        found.append(Layer(name, ours, ways))
    if misfits:
        raise UserError(
            f"{path}: shapes that fit no layout: {some(misfits)}: record what these layers give "
            "for the recorded inputs, in NCHW or NHWC, or leave them out"
        )
    if names is not None:
        _keep(found, FIRST_LINEAR, {CHW, HWC} - {CHW if names.chw else HWC})
    return found, _one_layout(found, names)


def _one_layout(layers: list[Layer], names: Names | None) -> str:
    """Leaves each layer one of NCHW and NHWC, and says how that was decided."""
    both = [layer for layer in layers if {NCHW, NHWC} <= {view.order for view in layer.views}]
    sure = [layer.views[0].order for layer in layers if layer not in both]
    seen = {order: sure.count(order) for order in (NCHW, NHWC) if order in sure}
    if not both and not seen:
        return "no layer with pixels"
    if seen:
        taken = max(seen, key=lambda order: seen[order])
        told = ", ".join(f"{order} by the shapes of {counts(n, 'layer', 'layers')}"
                         for order, n in seen.items())  # fmt: skip
    else:
        taken = NHWC if names is None or not names.nchw else NCHW
        whose = "as ours" if names is None else f"as in {names.peer}"
        told = f"{taken}, {whose}: no shape tells"
    if both and seen:
        told += f"; {taken} for {some([layer.name for layer in both])} too, whose shapes fit both"
    for layer in both:
        layer.views = [view for view in layer.views if view.order == taken]
    return told


def _keep(layers: list[Layer], path: str, without: set[str]) -> None:
    for layer in layers:
        if layer.path == path:
            layer.views = [v for v in layer.views if v.order not in without] or layer.views


def nearest(
    layer: Layer, recorded: np.ndarray, ours: Callable[[str], np.ndarray]
) -> tuple[View, np.ndarray, np.ndarray]:
    """(the view that differs least, our output in its form, the recorded one), float64.

    Args:
      layer: with at least one view.
      recorded: the array.
      ours: gives the output of our layer in a form.
    """
    pairs = [
        (view, np.asarray(ours(view.form), np.float64), view.to_ours(recorded))
        for view in layer.views
    ]
    return min(pairs, key=lambda pair: np.abs(pair[1] - pair[2]).max())
