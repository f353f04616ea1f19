"""In which form every 3x3 convolution of a step runs on a CPU."""

from typing import Any

from biggan_jax.models import cpu_forms, layers, walk
from biggan_jax.planning import shares
from biggan_jax.training.step import TrainStep


def of_step(train_step: TrainStep, batch_size: int) -> list[dict[str, Any]]:
    """The forms that `cpu_forms` chooses for the layers of both players.

    Args:
      train_step: the bound step.
      batch_size: global batch of one update.

    Returns:
      [{layer, resample, batch, side (pixels of what is convolved), channels, features, form}] in
      the order of the forward; D's are those of its own update, which judges real and generated
      images in one call.
    """
    g, d = train_step.generator, train_step.discriminator
    batch = batch_size // train_step.accumulation_steps
    found = {
        "generator": walk.of_generator(g, batch),
        "discriminator": walk.of_discriminator(d, g.channels, 2 * batch),
    }
    return [
        _row(player, call)
        for player, walked in found.items()
        for call in walked.calls
        if isinstance(call.module, layers.Conv) and call.module.kernel_size == 3
    ]


def _row(player: str, call: walk.Call) -> dict[str, Any]:
    conv = call.module
    shape = call.inputs[0].shape
    kind = conv.resample if conv.settings.fused else "none"
    kernel = (3, 3, shape[-1], conv.features)
    return {
        "layer": "/".join((player, *call.path)),
        "resample": conv.resample,
        "batch": shape[0],
        "side": shape[1],
        "channels": shape[-1],
        "features": conv.features,
        "form": cpu_forms.choose(kind, shape, kernel, conv.settings.dtype, train=True),
    }


def text(rows: list[dict[str, Any]]) -> str:
    """The rows as a table, for a person."""
    columns = ("batch", "side", "channels", "features", "resample", "form", "layer")
    table = [list(columns), *([str(row[c]) for c in columns] for row in rows)]
    return "\n".join(
        ["3x3 convolutions on this CPU, by their shapes:", *shares.aligned(table, numbers=4)]
    )
