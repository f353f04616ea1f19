"""Weights of one network taken over into another of the same family, layer by layer.

A layer is an innermost module (a convolution, a lookup table, a batch norm's gain). It is kept when
all its parameters have the shapes of their counterparts; otherwise all of it is new. Modules that
are no blocks, such as attention, are kept whole or not at all.
"""

import collections
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from biggan_jax.models.stages import Stage
from biggan_jax.storage.digest import named_leaves

Path = tuple[str, ...]
Variables = dict[str, dict]  # {params, spectral, batch_stats} of one network


@dataclasses.dataclass(frozen=True)
class Matching:
    """What of a source goes where.

    Attributes:
      modules: {top-level module: its counterpart in the source}.
      layers: {path of a layer that is kept: its path in the source}.
      tables: the same for class tables of another number of classes.
    """

    modules: dict[str, str]
    layers: dict[Path, Path]
    tables: dict[Path, Path]


@dataclasses.dataclass(frozen=True)
class Row:
    """How many parameters of one top-level module are kept, averaged, new and dropped.

    Attributes:
      module: its name, or that of a module of the source that has no counterpart.
      source: its counterpart in the source, None without one.
    """

    module: str
    source: str | None
    kept: int = 0
    averaged: int = 0
    new: int = 0
    dropped: int = 0


def match_stages(
    target: list[Stage], source: list[Stage], *, discriminator: bool
) -> dict[str, str]:
    """Pairs the top-level modules of two networks of one family.

    Blocks are paired by the sizes of the feature maps they take and give, counted in multiples of
    G's first map or of D's last one: G's blocks from the 4x4 map up, D's from its head down. Blocks
    of equal sizes are paired in that order. Other modules are paired by name.

    Args:
      target, source: stages of both, in the order of their calls.
      discriminator: whether they are discriminators.

    Returns:
      {module of the target: module of the source}.
    """

    def places(stages: list[Stage]) -> dict[Any, str]:
        blocks = [stage for stage in stages if stage.is_block]
        if discriminator:
            blocks.reverse()
        named: dict[Any, str] = {stage.name: stage.name for stage in stages if not stage.is_block}
        seen: collections.Counter = collections.Counter()
        for stage in blocks:
            unit = blocks[0].out_size if discriminator else blocks[0].in_size
            sizes = stage.in_size / unit, stage.out_size / unit
            named[*sizes, seen[sizes]] = stage.name
            seen[sizes] += 1
        return named

    theirs = places(source)
    return {name: theirs[place] for place, name in places(target).items() if place in theirs}


def match_layers(
    target: dict, source: dict, modules: dict[str, str], classes: tuple[int, int], blocks: set[str]
) -> Matching:
    """Finds the layers that fit.

    Args:
      target, source: parameter trees of both (arrays or shapes).
      modules: from `match_stages`.
      classes: number of classes of the target and of the source.
      blocks: names of the target's blocks.

    Returns:
      The layers that are kept, each with its counterpart, and class tables of another size.
    """
    ours, theirs = _layers(target), _layers(source)
    layers, tables, unfit = {}, {}, set()
    for path, shapes in ours.items():
        counterpart = (modules.get(path[0], ""), *path[1:])
        there = theirs.get(counterpart)
        if there == shapes:
            layers[path] = counterpart
        elif there is not None and _is_class_table(shapes, there, classes):
            tables[path] = counterpart
        else:
            unfit.add(path[0])
    incomplete = unfit - blocks
    return Matching(
        modules,
        {path: there for path, there in layers.items() if path[0] not in incomplete},
        tables,
    )


def take(matching: Matching, fresh: Variables, source: Variables, *, mean: bool) -> Variables:
    """Takes over what fits; everything else stays fresh.

    Spectral vectors go with their layer, running statistics with their module.

    Args:
      matching: from `match_layers`.
      fresh: variables of the target.
      source: variables of the source; their arrays are used as they are, not copied.
      mean: whether the rows of class tables of another size become the mean of the source's rows.

    Returns:
      Variables like `fresh`.
    """
    with_params = set(_layers(fresh["params"]))
    partly_kept = {path[0] for path in matching.layers}

    def counterpart(layer: Path) -> Path | None:
        if layer in with_params:
            return matching.layers.get(layer)
        # Running statistics stand beside the layers that give a batch norm its gain and bias.
        return (matching.modules[layer[0]], *layer[1:]) if layer[0] in partly_kept else None

    taken = {}
    for collection, tree in fresh.items():
        flat, theirs = flatten_dict(tree), flatten_dict(source.get(collection, {}))
        for path, leaf in flat.items():
            layer = counterpart(path[:-1])
            there = None if layer is None else theirs.get((*layer, path[-1]))
            if there is not None and there.shape == leaf.shape:
                flat[path] = there
            elif mean and collection == "params" and path[:-1] in matching.tables:
                flat[path] = _mean_rows(theirs[*matching.tables[path[:-1]], path[-1]], leaf)
        taken[collection] = unflatten_dict(flat)
    return taken


def take_moments(matching: Matching, fresh: Any, source: Any) -> Any:
    """Takes over Adam's moments of the kept layers.

    Adam's count comes along only when no trained parameter is new. A new one under an old count
    would miss its bias correction, and move 30 times too far at first (beta2 = 0.999); with a count
    of 0 the old second moments make for small first steps instead. A first moment that the source
    has none of, since its beta1 is 0, starts at 0: its first steps are smaller by 1 - beta1.

    Args:
      matching: from `match_layers`.
      fresh: Optax state of the target.
      source: Optax state of the source.

    Returns:
      An Optax state like `fresh`.
    """
    ours = {_moment(name): leaf for name, leaf in named_leaves(fresh).items()}
    theirs = {_moment(name): leaf for name, leaf in named_leaves(source).items()}
    (here,), (there,) = ({at for at, field, _ in x if field == "nu"} for x in (ours, theirs))
    found = {}
    for at, field, path in ours:
        if field in ("mu", "nu"):
            layer = matching.layers.get(path[:-1])
            counterpart = None if layer is None else (there, field, (*layer, path[-1]))
            found[at, field, path] = theirs.get(counterpart)
    if all(leaf is not None for (_, field, _), leaf in found.items() if field == "nu"):
        found[here, "count", ()] = theirs[there, "count", ()]
    leaves = [leaf if found.get(name) is None else found[name] for name, leaf in ours.items()]
    return jax.tree.structure(fresh).unflatten(leaves)


def rows(
    matching: Matching, target: dict, source: dict, order: list[str], *, mean: bool
) -> list[Row]:
    """Counts parameters per top-level module.

    Args:
      matching: from `match_layers`.
      target, source: parameter trees of both.
      order: top-level modules of the target in the order of their calls.
      mean: as `take` takes it.

    Returns:
      One row for each module of the target, then one for each of the source that has no counterpart
      there.
    """
    size = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    parts = {name: collections.Counter() for name in order}
    for path, leaf in flatten_dict(target).items():
        kind = "kept" if path[:-1] in matching.layers else "new"
        if mean and path[:-1] in matching.tables:
            kind = "averaged"
        parts[path[0]][kind] += leaf.size
    used: collections.Counter = collections.Counter()
    flat = flatten_dict(source)
    for layer in (*matching.layers.values(), *(matching.tables.values() if mean else ())):
        used[layer[0]] += sum(leaf.size for path, leaf in flat.items() if path[:-1] == layer)
    result = []
    for name in order:
        if name not in target:  # it has no parameters
            continue
        there = matching.modules.get(name)
        dropped = size(source.get(there, {})) - used[there]
        result.append(Row(name, there, **parts[name], dropped=dropped))
    gone = [name for name in source if name not in matching.modules.values()]
    return result + [Row(name, None, dropped=size(source[name])) for name in gone]


def _layers(params: dict) -> dict[Path, dict[str, tuple[int, ...]]]:
    """{path of a layer: {parameter: shape}}."""
    layers: dict[Path, dict[str, tuple[int, ...]]] = {}
    for path, leaf in flatten_dict(params).items():
        layers.setdefault(path[:-1], {})[path[-1]] = tuple(leaf.shape)
    return layers


def _is_class_table(ours: dict, theirs: dict, classes: tuple[int, int]) -> bool:
    both = ours.get("embedding"), theirs.get("embedding")
    counts = tuple(shape[0] if shape else 0 for shape in both)
    return counts == classes and classes[0] != classes[1] and both[0][1:] == both[1][1:]


def _mean_rows(table: jax.Array, like: jax.Array) -> jax.Array:
    repeat = lambda x: jnp.tile(x.mean(0, keepdims=True), (like.shape[0], 1))
    return jax.jit(repeat, out_shardings=like.sharding)(table)


def _moment(name: str) -> tuple[Path, str, Path]:
    """(path of the Optax state, its field, path of the parameter) of a leaf of an Optax state."""
    parts = tuple(name.split("/"))
    for i, part in enumerate(parts):
        if part in ("mu", "nu", "count"):
            return parts[:i], part, parts[i + 1 :]
    return parts, "", ()
