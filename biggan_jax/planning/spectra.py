"""`biggan inspect --spectra`: all singular values of every layer of one state, exactly."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from biggan_jax import models
from biggan_jax.errors import UserError
from biggan_jax.models import walk
from biggan_jax.pictures import formats
from biggan_jax.pictures import spectra as pictures
from biggan_jax.storage import networks, paths, steps
from biggan_jax.storage.weights import saved_names
from biggan_jax.training import monitors


def draw(
    directory: str | Path,
    out: Path,
    *,
    step: int | str | None = None,
    ema: bool | str | None = None,
) -> dict:
    """Draws the spectra of the weights as the layers use them, after spectral normalisation.

    Args:
      directory: a workdir or a model directory.
      out: `F.png` or another of `pictures.formats`.
      step: see `steps.find`.
      ema: of G, False the raw weights, True the average, a name another average; None the raw
        ones, or the average where there are no others.

    Returns:
      {out, step, weights: names of the networks drawn, sigma0: {player: {layer: value}}}.

    Raises:
      UserError: the directory or its weights are unusable.
    """
    held = steps.find(directory, step)
    generator, discriminator = models.build(held.config.model)
    walks = {
        "g": walk.of_generator(generator),
        "d": walk.of_discriminator(discriminator, held.config.model.channels),
    }
    spectra, drawn, found = {}, [], held.step
    for player, name in _networks(held, ema).items():
        variables, found = networks.read(held, name)
        params, spectral = variables["params"], variables.get("spectral", {})
        layers = monitors.layers_of(walks[player])
        spectra[player] = {one.name: _values(one, params, spectral) for one in layers}
        drawn.append(name)
    paths.write_bytes(out, formats.encode(pictures.at_one_step(spectra), out))
    largest = {
        player: {name: float(values[0]) for name, values in layers.items()}
        for player, layers in spectra.items()
    }
    return {"out": str(out), "step": found, "weights": drawn, "sigma0": largest}


def text(result: dict) -> str:
    """What was drawn, for a person."""
    words = {"g": "raw generator", "g_ema": "averaged generator", "d": "discriminator"}
    drawn = [words.get(name, f"generator's average {name}") for name in result["weights"]]
    return f"{' and '.join(drawn)} in {result['out']}"


def _networks(held: steps.Held, ema: bool | str | None) -> dict[str, str]:
    """The weights to draw by player: those in training, the average where there is no other G."""
    asked = None if ema is None else networks.of_generator(held, ema)
    if held.in_checkpoints:
        return {"g": asked or "g", "d": "d"}
    saved = saved_names(held.directory)
    found = {}
    for player, names in (("g", (asked,) if asked else ("g", "g_ema")), ("d", ("d",))):
        there = [name for name in names if name in saved]
        found |= {player: there[0]} if there else {}
    if asked and "g" not in found:
        raise UserError(f"{held.directory} has no weights {asked}: leave --raw and --ema out")
    if not found:
        raise UserError(f"{held.directory} holds no weights: give a directory with weights/")
    return found


def _values(layer: monitors.Layer, params: dict, spectral: dict) -> np.ndarray:
    """Singular values in descending order, as the layer uses its weight."""
    matrix = np.asarray(layer.matrix(params), np.float64)
    divisor = layer.divisor(params, spectral)
    values = np.linalg.svd(matrix, compute_uv=False)
    return values if divisor is None else values / float(jnp.asarray(divisor))
