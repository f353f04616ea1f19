"""The architecture of a BigGAN-PyTorch network, read off the shapes of its tensors."""

import re
from typing import Any

from biggan_jax import models
from biggan_jax.errors import UserError
from biggan_jax.interop import layout

Shapes = dict[str, tuple[int, ...]]


def player_of(shapes: Shapes) -> str | None:
    """'g', 'd' or None: which network a file holds."""
    if "output_layer.2.weight" in shapes:
        return "g"
    return "d" if "linear.weight" in shapes and "blocks.0.0.conv1.weight" in shapes else None


def generator(shapes: Shapes, name: str) -> dict[str, Any]:
    """Settings of the `model` section of a generator.

    Args:
      shapes: {tensor: shape}.
      name: of the file, for messages.

    Returns:
      {setting: value}.

    Raises:
      UserError: for tensors that no generator of ours has.
    """
    s = Lookup(shapes, name)
    deep = "blocks.0.0.conv4.weight" in shapes
    widths = [s("linear.weight")[0] // layout.BOTTOM]
    last = "conv4" if deep else "conv1"
    widths += [s(f"blocks.{i}.0.{last}.weight")[0] for i in range(count_blocks(shapes))]
    if deep:
        widths = widths[::2]  # each stage is two blocks, of which the second takes the width
    tables = models.REGISTRY["biggan_deep" if deep else "biggan"].G_WIDTHS
    resolution, ch = fit(name, widths, {size: tables[size] for size in tables})
    first, condition = s("linear.weight")[1], s("blocks.0.0.bn1.gain.weight")
    found: dict[str, Any] = {"dim_z": first, "hierarchical_z": False}
    found["shared_embedding"] = "shared.weight" in shapes
    if found["shared_embedding"]:
        found["num_classes"], found["shared_dim"] = s("shared.weight")
        found["hierarchical_z"] = condition[1] > found["shared_dim"]
        if deep:
            found["dim_z"] = first - found["shared_dim"]
        elif found["hierarchical_z"]:
            found["dim_z"] = first * (len(widths))
    else:
        found["num_classes"] = condition[0]
    check_classes(found["num_classes"])
    return found | _common(shapes, deep, resolution, ch, "g", s) | {
        "channels": s("output_layer.2.weight")[0],
        "bn_variance": "biased" if statistics(shapes) == "bn.stored_" else "unbiased",
    }  # fmt: skip


def discriminator(shapes: Shapes, name: str) -> dict[str, Any]:
    """Settings of the `model` section of a discriminator; see `generator`."""
    s = Lookup(shapes, name)
    deep = "input_conv.weight" in shapes
    tables = models.REGISTRY["biggan_deep" if deep else "biggan"].D_WIDTHS
    if deep:
        widths = [s("input_conv.weight")[0]]
        widths += [s(f"blocks.{i}.1.conv4.weight")[0] for i in range(count_blocks(shapes))]
    else:
        widths = [s(f"blocks.{i}.0.conv2.weight")[0] for i in range(count_blocks(shapes))]
    resolution, ch = fit(name, widths, {size: table[0] for size, table in tables.items()})
    common = _common(shapes, deep, resolution, ch, "d", s)
    check_classes(s("embed.weight")[0])
    first = s("input_conv.weight" if deep else "blocks.0.0.conv1.weight")
    return common | {
        "channels": first[1],
        "num_classes": s("embed.weight")[0],
        "d_thin": not deep and first[0] != widths[0],
    }


def statistics(shapes: Shapes) -> str:
    """Which of `layout.STATISTICS` a generator has."""
    for kind in layout.STATISTICS:
        if f"output_layer.0.{kind}mean" in shapes:
            return kind
    return layout.STATISTICS[0]


def check_classes(count: int) -> None:
    """Raises UserError for a class embedding of one row."""
    if count == 1:
        raise UserError(
            "the weights are of one class with an embedding of its own; an unconditional model "
            "has none here: import weights of 2 classes or more"
        )


class Lookup:
    """Shapes by name, with a UserError for a name that is not there."""

    def __init__(self, shapes: Shapes, name: str, peer: str = "BigGAN-PyTorch"):
        self.shapes, self.name, self.peer = shapes, name, peer

    def __call__(self, key: str) -> tuple[int, ...]:
        shape = self.shapes.get(key)
        if shape is None or not shape or 0 in shape:
            what = "is missing" if shape is None else f"has shape {shape}"
            raise UserError(
                f"{self.name}: the tensor {key} {what}; this is no whole state_dict of {self.peer}"
            )
        return shape


def count_blocks(shapes: Shapes) -> int:
    return 1 + max((int(m[1]) for k in shapes if (m := re.match(r"blocks\.(\d+)\.", k))), default=0)


def fit(
    name: str,
    widths: list[int],
    tables: dict[int, tuple[int, ...]],
    peer: str = "BigGAN-PyTorch",
) -> tuple[int, int]:
    """(resolution, ch) of the table that the widths are a multiple of."""
    for resolution, table in tables.items():
        if len(table) == len(widths):
            ch = widths[0] // table[0]
            if tuple(widths) == tuple(ch * m for m in table):
                return resolution, ch
    raise UserError(
        f"{name}: blocks of {', '.join(map(str, widths))} channels fit no table of "
        f"{', '.join(map(str, tables))} pixels; import a BigGAN of {peer}'s own widths"
    )


def _common(
    shapes: Shapes, deep: bool, resolution: int, ch: int, player: str, s: Lookup
) -> dict[str, Any]:
    """What G and D have in common, and where attention stands."""
    found: dict[str, Any] = {
        "name": "biggan_deep" if deep else "biggan",
        "resolution": resolution,
        "ch": ch,
        f"{player}_spectral_norm": "linear.u0" in shapes,
    }
    model = type("Model", (), found)
    places = {peer: ours for ours, peer in layout.block_names(model, player).items()}
    attention = []
    for key in sorted(key for key in shapes if key.endswith(".theta.weight")):
        place = places.get(key.removesuffix(".theta.weight"), "")
        if not place.startswith("attention_"):
            raise UserError(
                f"{s.name}: {key} puts attention where this model has no place for it (after the "
                "first block of every resolution)"
            )
        attention.append(int(place.removeprefix("attention_")))
        queries, channels = s(key)[:2]
        found["attention_reduction"] = 8 if channels // 8 == queries else channels // queries
    return found | {f"{player}_attention": tuple(sorted(attention))}
