"""`biggan verify`: the first layer whose output differs from what another implementation recorded.

Both compute the same function of the same inputs with the same weights, so that whatever is wrong
(a kernel's axes, an epsilon, the order of the channels) shows in the first layer that does it.
"""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from biggan_jax import models
from biggan_jax.errors import UserError, counts, some
from biggan_jax.interop import causes, module_names, views
from biggan_jax.interop import recording as recordings
from biggan_jax.interop.layer_values import Layers
from biggan_jax.interop.module_names import OUTPUT
from biggan_jax.models import walk
from biggan_jax.sampling.discriminator import LoadedDiscriminator
from biggan_jax.sampling.generator import LoadedGenerator
from biggan_jax.sampling.load import load_discriminator, load_generator

TOLERANCE = 2e-5  # the parity of the imports; rounding in float32 gives up to 3e-6 at 128 pixels
_ROUNDING = 1e-6  # what a layer may add to the relative difference
_NAMES = 20  # names that a line spells out


def verify(
    directory: str | Path,
    against: Path,
    *,
    step: int | str | None = None,
    ema: bool | str = True,
    bn_mode: str = "running",
    truncation_statistics: float | None = None,
    hf_interpolation: bool = False,
    names: Path | None = None,
    tolerance: float = TOLERANCE,
) -> dict[str, Any]:
    """Compares the layers of a model with recorded activations.

    Args:
      directory, step, ema, truncation_statistics, hf_interpolation: see `load_generator`; of a
        discriminator only the first two.
      against: the recording, see `recording.read`.
      bn_mode: 'running', or 'batch': batch norm takes the statistics of the recorded samples.
      names: a JSON file of names, see `recording.read_map`.
      tolerance: the largest difference over the largest value of a layer that is no difference.

    Returns:
      {from, against, player, layers: [{name, ours, shape, max_difference, relative, ok}],
      first_difference: name or None, cause: a few words or None, begins: the name of a layer
      before it where the difference grows tenfold, or None, names: whose they are or None, layout,
      unknown: {name: the nearest known one or None}, not_recorded: our layers without a
      recording, tolerance}; the layers are in order of execution.

    Raises:
      UserError: for a directory without this player, an unusable recording, names of which none
        is known, or shapes that do not fit.
    """
    if not 0 < tolerance < 1:
        raise UserError(f"--tolerance is {tolerance}; set it to a value between 0 and 1")
    recording = recordings.read(against)
    network = _load(
        directory,
        recording,
        step,
        ema=ema,
        bn_mode=bn_mode,
        truncation_statistics=truncation_statistics,
        hf_interpolation=hf_interpolation,
    )
    player = _player(network, recording, bn_mode == "batch")
    resolved = _resolve(recording, network.config.model, player, names)
    forms = {
        name: (path, _forms(player, network, resolved, name, path))
        for name, path in resolved.ours.items()
    }
    shapes = {name: recording.activations[name].shape for name in forms}
    layers, layout = views.fit(against, recording.player, shapes, forms, resolved.names)
    order = {path: i for i, path in enumerate([*player.calls, OUTPUT])}
    layers.sort(key=lambda layer: order[layer.path])
    rows, first = _compare(player, recording, layers, tolerance)
    cause = None if first is None else _cause(player, first, rows, tolerance, network.config.model)
    # A conditional batch norm gives what the one inside it does.
    compared = {layer.path for layer in layers}
    compared |= {f"{path}/norm" for path in compared}
    return {
        "from": str(directory),
        "against": str(against),
        "player": recording.player,
        "layers": rows,
        "first_difference": None if first is None else first.name,
        "cause": cause,
        "begins": None if first is None else _begins(rows),
        "names": resolved.names and resolved.names.peer,
        "layout": layout,
        "unknown": resolved.unknown,
        "not_recorded": [path for path in player.calls if path not in compared],
        "tolerance": tolerance,
    }


def _load(directory, recording: recordings.Recording, step, **how):
    """The player that was recorded."""
    batch = how.pop("bn_mode") != "running"
    if recording.player == "g":
        return load_generator(directory, step=step, **how)
    asked = {
        "--bn-mode": batch,
        "--raw": how["ema"] is False,
        "--ema": isinstance(how["ema"], str),
        "--truncation-statistics": how["truncation_statistics"] is not None,
        "--hf-interpolation": how["hf_interpolation"],
    }
    for option, given in asked.items():
        if given:
            raise UserError(
                f"{option} is of a generator, and {recording.path} holds images, the input of a "
                "discriminator: leave it out"
            )
    return load_discriminator(directory, step=step)


def _player(
    network: LoadedGenerator | LoadedDiscriminator, recording: recordings.Recording, train: bool
) -> Layers:
    inputs = recordings.inputs_of(recording, network)
    built = models.build(network.config.model)
    if recording.player == "g":
        module = built[0]
        found = walk.of_generator(module, len(inputs[0]))
    else:
        module = built[1]
        found = walk.of_discriminator(module, network.channels, len(inputs[0]))
    return Layers(module, network.applied[1], inputs, found, train)


def _resolve(recording, model, player: Layers, names: Path | None) -> module_names.Resolved:
    peers = module_names.of_peers(model, recording.player)
    own = module_names.own(player.calls)
    recorded, given = recording.activations, {}
    if names is not None:
        known = {key: path for peer in peers for key, path in peer.modules.items()} | own
        given = recordings.read_map(names, known, recorded)
    resolved = module_names.resolve(recorded, peers, own, given)
    if not resolved.ours:
        near = [f"{name} (near {other})" if other else name
                for name, other in resolved.unknown.items()]  # fmt: skip
        raise UserError(
            f"{recording.path}: no recorded name is a layer of this model: {some(near)}: name the "
            f"layers in --map FILE.json; ours are {some(player.calls)}"
        )
    return resolved


def _forms(player: Layers, network, resolved: module_names.Resolved, name: str, path: str):
    if path == OUTPUT:
        n, side = len(player.inputs[0]), network.resolution
        image = (n, side, side, network.channels)
        return {views.AS_IT_IS: image if isinstance(network, LoadedGenerator) else (n,)}
    peer = resolved.names
    named = peer is not None and name.removeprefix("module.") in peer.modules
    return views.forms(player.calls[path], named and peer.plain_norm)


@dataclasses.dataclass
class _Compared:
    """A layer that differs: how it was read, ours and the recorded one in our layout."""

    name: str
    path: str
    view: views.View
    ours: np.ndarray
    theirs: np.ndarray


def _compare(
    player: Layers, recording: recordings.Recording, layers: list[views.Layer], tolerance: float
) -> tuple[list[dict[str, Any]], _Compared | None]:
    """(a row for each layer, the first one that differs)."""
    wanted = {(layer.path, view.form) for layer in layers for view in layer.views}
    computed = player.compute(wanted)
    rows, first = [], None
    for layer in layers:
        recorded = recording.activations[layer.name]
        view, ours, theirs = views.nearest(
            layer, recorded, lambda form, path=layer.path: computed[path, form]
        )
        difference, relative = causes.difference(ours, theirs)
        ok = relative <= tolerance  # not where ours is NaN
        if not ok and first is None:
            first = _Compared(layer.name, layer.path, view, ours, theirs)
        rows.append(
            {
                "name": layer.name,
                "ours": " ".join(filter(None, (layer.path, view.form))),
                "shape": list(recorded.shape),
                "max_difference": difference if math.isfinite(difference) else None,
                "relative": relative if math.isfinite(relative) else None,
                "ok": ok,
            }
        )
    return rows, first


def _cause(player: Layers, first: _Compared, rows, tolerance: float, model: Any) -> str | None:
    """Why a layer differs, by its module, its variables and what it was given."""
    norm = f"{first.path}/norm"
    path = norm if norm in player.calls else first.path
    inside = [row["ok"] for row in rows if row["ours"].startswith(f"{first.path}/")]
    call = player.calls.get(path)
    given, variables = player.given(path) if call is not None else ((), {})
    module = call and call.module
    if module is not None and first.view.form == views.WITHOUT_RESAMPLING:
        module = module.clone(resample="none")
    difference = causes.Difference(
        path=first.path,
        view=first.view,
        module=module,
        variables=variables,
        given=given,
        ours=first.ours,
        theirs=first.theirs,
        train=player.train,
        inside=bool(inside) and all(inside),
        shared_dim=model.shared_dim if model.num_classes > 1 else 0,
        tolerance=tolerance,
    )
    return causes.likely(difference)


def _begins(rows: list[dict[str, Any]]) -> str | None:
    """The first layer where the difference is ten times that of all before, within the tolerance.

    A small one, as of an epsilon, may pass the tolerance only some layers later.
    """
    most = _ROUNDING
    for row in rows:
        if not row["ok"]:
            return None
        if row["relative"] > 10 * most:
            return row["name"]
        most = max(most, row["relative"])
    return None


def lines(result: dict[str, Any]) -> Iterator[str]:
    """What `verify` returns, for a person: the table, what was not compared, the verdict."""
    header = ("layer", "ours", "shape", "max |difference|", "relative", "")
    table = [header, *(_cells(row) for row in result["layers"])]
    widths = [max(len(cells[i]) for cells in table) for i in range(len(header))]
    for cells in table:
        yield "  ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)).rstrip()
    whose = f"names of {result['names']}; " if result["names"] else ""
    yield f"{whose}layout: {result['layout']}"
    if result["unknown"]:
        near = [f"{name} (near {other})" if other else name
                for name, other in result["unknown"].items()]  # fmt: skip
        yield f"not compared, since no layer here has these names: {some(near, _NAMES)}"
    if result["not_recorded"]:
        yield f"not recorded of ours: {some(result['not_recorded'], _NAMES)}"
    yield _verdict(result)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    numbers = (f"{x:.2g}" if x is not None else "not finite" for x in
               (row["max_difference"], row["relative"]))  # fmt: skip
    return (row["name"] or OUTPUT, row["ours"], str(row["shape"]), *numbers,
            "ok" if row["ok"] else "DIFFERS")  # fmt: skip


def _verdict(result: dict[str, Any]) -> str:
    rows, tolerance = result["layers"], result["tolerance"]
    if result["first_difference"] is None:
        layers = counts(len(rows), "layer agrees", "layers agree")
        return f"{layers} within {tolerance:g} of the largest value"
    at = next(i for i, row in enumerate(rows) if not row["ok"])
    row = rows[at]
    before = f" (the layers before it agree, up to {rows[at - 1]['name']})" if at else ""
    cause = f": {result['cause']}" if result["cause"] else ""
    text = f"first layer that differs: {row['name'] or OUTPUT}, ours {row['ours']}{before}{cause}"
    if (begins := result["begins"]) is None:
        return text
    return f"{text}; the difference begins at {begins}: set --tolerance below that of this layer"
