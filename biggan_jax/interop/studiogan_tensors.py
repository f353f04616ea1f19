"""PyTorch-StudioGAN's names for our tensors, and the architecture that its tensors say.

Every residual block and every attention block is a list of one in `blocks`, in the order of the
calls. Spectral norm is torch's: `weight_orig`, `weight_u` and `weight_v` for `weight`.

References:
  Kang et al., github.com/POSTECH-CVLab/PyTorch-StudioGAN: models/big_resnet.py,
  models/big_resnet_deep_legacy.py, models/big_resnet_deep_studiogan.py, utils/ops.py.
"""

import re
from collections.abc import Iterable
from typing import Any

from biggan_jax import models
from biggan_jax.errors import UserError
from biggan_jax.interop import infer, layout

PEER = "PyTorch-StudioGAN"
DEPTH = 2  # blocks of a stage in BigGAN-deep
MODULES = {
    "g": {"linear": "linear0", "bn_out": "bn4", "rgb": "conv2d5"},
    "d": {"linear": "linear1", "embed": "embedding", "stem": "input_conv"},
}
LAYERS = {"shortcut": "conv2d0", "theta": "conv1x1_theta", "phi": "conv1x1_phi",
          "g": "conv1x1_g", "o": "conv1x1_attn"}  # fmt: skip
LEAVES = {"gain": "weight", "gamma": "sigma", "u": "weight_u", "v": "weight_v",
          "mean": "running_mean", "var": "running_var"}  # fmt: skip
# What a D has that judges classes by other means than projection.
HEADS = {"linear_mi": "TAC", "embedding_mi": "TAC", "linear2": "AC, 2C or D2DCE"}


def block_names(model: Any, player: str) -> dict[str, str]:
    """{our module: the peer's} of every residual and attention block.

    Args:
      model: the `model` section of a config.
      player: 'g' or 'd'.
    """
    depth = DEPTH if model.name == "biggan_deep" else 1
    places = set(model.g_attention if player == "g" else model.d_attention)
    modules = []
    for i, resolution in enumerate(layout.stage_ends(model, player)):
        modules += [f"block_{depth * i + j}" for j in range(depth)]
        if resolution in places:
            modules.append(f"attention_{resolution}")
            places.remove(resolution)  # ours stands after the first stage of a resolution
    return {module: f"blocks.{index}.0" for index, module in enumerate(modules)}


def keys_of(paths: Iterable[str], model: Any, player: str) -> dict[str, str]:
    """{our name: the peer's} of all tensors of one player."""
    paths = set(paths)
    blocks = block_names(model, player)

    def key(path: str) -> str:
        collection, *modules, leaf = path.split("/")
        head, *rest = modules
        names = [blocks.get(head) or MODULES[player].get(head, head)]
        conditional = collection == "batch_stats" and head != "bn_out"
        for name in rest:
            if name != "norm":
                names.append(LAYERS.get(name) or re.sub(r"^conv(?=\d)", "conv2d", name))
            elif conditional:
                names.append("bn")
        if leaf in ("kernel", "embedding"):
            normed = "/".join(["spectral", *modules, "u"]) in paths
            return ".".join([*names, "weight_orig" if normed else "weight"])
        return ".".join([*names, LEAVES.get(leaf, leaf)])

    return {path: key(path) for path in paths}


def player_of(shapes: infer.Shapes) -> str | None:
    """'g', 'd' or None: which network a file holds."""
    plain = _plain(shapes)
    if "conv2d5.weight" in plain and "linear0.weight" in plain:
        return "g"
    return "d" if "linear1.weight" in plain and "blocks.0.0.conv2d1.weight" in plain else None


def generator(shapes: infer.Shapes, name: str) -> dict[str, Any]:
    """Settings of the `model` section of a generator; see `infer.generator`."""
    s = infer.Lookup(_plain(shapes), name, PEER)
    for key in s.shapes:
        if key.startswith("info_"):
            raise UserError(
                f"{name}: {key} takes InfoGAN's codes, which no model has here; import a G of "
                "MODEL.info_type N/A"
            )
    first, inputs = s("linear0.weight")
    family, deep_blocks, blocks = _blocks(s)
    widths = [first // layout.BOTTOM, *_widths(s, blocks, family)]
    condition = s(f"blocks.{blocks[0]}.0.bn1.gain.weight")[1]
    embedded = s("shared.weight") if "shared.weight" in s.shapes else None
    found = _common(s, "g", (family, deep_blocks), blocks, widths)
    found["num_classes"], shared = embedded or (1, 0)
    if embedded:
        infer.check_classes(found["num_classes"])
        found["shared_dim"] = shared
    deep = family == "biggan_deep"
    found["dim_z"] = inputs - shared if deep else inputs * len(widths)
    if condition != (inputs if deep else inputs + shared):
        raise UserError(
            f"{name}: its batch norms see {condition} numbers, the first layer {inputs} and the "
            f"class embedding has {shared}: these are of no G of backbone big_resnet or "
            "big_resnet_deep"
        )
    return found | {"channels": s("conv2d5.weight")[0]}


def discriminator(shapes: infer.Shapes, name: str) -> dict[str, Any]:
    """Settings of the `model` section of a discriminator; see `infer.generator`."""
    s = infer.Lookup(_plain(shapes), name, PEER)
    heads = {HEADS[key.split(".")[0]]: key for key in s.shapes if key.split(".")[0] in HEADS}
    if s("linear1.weight")[0] != 1:
        heads["MH or MD"] = "linear1.weight"
    for method, key in heads.items():
        raise UserError(
            f"{name}: {key} is of a D that judges classes by {method}, here D does by projection "
            "alone (MODEL.d_cond_mtd PD); import G without D"
        )
    if norm := next((key for key in s.shapes if re.match(r"blocks\.\d+\.0\.bn\d", key)), None):
        raise UserError(
            f"{name}: {norm} is a batch norm of a D without spectral norm, and no D has one here; "
            "import G without D"
        )
    family, deep_blocks, blocks = _blocks(s)
    stem = s("input_conv.weight") if family == "biggan_deep" else None
    widths = [*(stem[:1] if stem else ()), *_widths(s, blocks, family)]
    found = _common(s, "d", (family, deep_blocks), blocks, widths)
    found["num_classes"] = 1
    if "embedding.weight" in s.shapes:
        found["num_classes"] = s("embedding.weight")[0]
        infer.check_classes(found["num_classes"])
    return found | {"channels": (stem or s("blocks.0.0.conv2d1.weight"))[1]}


def _plain(shapes: infer.Shapes) -> infer.Shapes:
    """The shapes under the names without spectral norm."""
    return {re.sub("weight_orig$", "weight", key): shape for key, shape in shapes.items()}


def _blocks(s: infer.Lookup) -> tuple[str, str, list[int]]:
    """(family, `deep_blocks`, which of `blocks` are residual)."""
    count = infer.count_blocks(s.shapes)
    blocks = [i for i in range(count) if f"blocks.{i}.0.conv1x1_theta.weight" not in s.shapes]
    if not blocks:
        raise UserError(f"{s.name} has no residual block; this is no model of {PEER}")
    first = f"blocks.{blocks[0]}.0."
    if first + "conv2d4.weight" not in s.shapes:
        return "biggan", "paper", blocks
    # big_resnet_deep_studiogan's first block has a whole convolution as its skip; legacy's G has
    # none in any block, its D one for the channels that are added.
    skip = s.shapes.get(first + "conv2d0.weight", (0,))[0]
    whole = skip == s(first + "conv2d4.weight")[0]
    return "biggan_deep", "studiogan" if whole else "paper", blocks


def _widths(s: infer.Lookup, blocks: list[int], family: str) -> list[int]:
    """Output channels of every stage."""
    if family == "biggan":
        return [s(f"blocks.{i}.0.conv2d2.weight")[0] for i in blocks]
    if len(blocks) % DEPTH:
        raise UserError(
            f"{s.name} has {len(blocks)} residual blocks; a stage of BigGAN-deep is {DEPTH} here "
            "(MODEL.g_depth and d_depth 2): import a model of this depth"
        )
    return [s(f"blocks.{i}.0.conv2d4.weight")[0] for i in blocks[DEPTH - 1 :: DEPTH]]


def _common(
    s: infer.Lookup, player: str, kind: tuple[str, str], blocks: list[int], widths: list[int]
) -> dict[str, Any]:
    """What G and D have in common, and where attention stands."""
    family, deep_blocks = kind
    legacy = family == "biggan_deep" and deep_blocks == "paper"
    table = "studiogan_legacy" if legacy else "studiogan"
    tables = models.REGISTRY[family].WIDTH_TABLES[table][player == "d"]
    multiples = {size: row if player == "g" else row[0] for size, row in tables.items()}
    resolution, ch = infer.fit(s.name, widths, multiples, PEER)
    found: dict[str, Any] = {
        "name": family,
        "width_table": table,
        "deep_blocks": deep_blocks,
        "resolution": resolution,
        "ch": ch,
    }
    ends = layout.stage_ends(type("Model", (), found), player)
    depth = DEPTH if family == "biggan_deep" else 1
    attention = []
    for index in sorted(set(range(infer.count_blocks(s.shapes))) - set(blocks)):
        stages, rest = divmod(sum(block < index for block in blocks), depth)
        place = ends[stages - 1] if stages and not rest else 0
        if not place or place in attention or place in ends[: stages - 1]:
            raise UserError(
                f"{s.name}: blocks.{index} puts attention where this model has no place for it "
                "(after the first block of every resolution); import the other player alone"
            )
        attention.append(place)
    return found | {f"{player}_attention": tuple(sorted(attention))}
