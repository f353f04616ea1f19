"""Checks of a `model` section that several families share: one line, naming the setting."""

from collections.abc import Iterable
from typing import Any

from biggan_jax.errors import UserError, did_you_mean


def choice(key: str, value: str | int, choices: Iterable[str | int]) -> None:
    """Raises UserError unless `value` is one of `choices`, with the nearest one named."""
    if value not in choices:
        words = [choice for choice in choices if isinstance(choice, str)]
        hint = did_you_mean(str(value), words)
        raise UserError(
            f"{key} is {value!r}{hint}; set --config.{key} to one of {', '.join(map(str, choices))}"
        )


def resolution(model: Any, resolutions: Iterable[int]) -> None:
    """Raises UserError unless the family has a table of widths for `model.resolution`."""
    if model.resolution not in resolutions:
        raise UserError(
            f"model.resolution is {model.resolution}; {model.name} is defined for "
            f"{', '.join(map(str, resolutions))}: set --config.model.resolution to one of them"
        )


def chunks(model: Any, count: int) -> None:
    """Raises UserError unless z splits into `count` equal chunks."""
    if model.dim_z % count:
        chunk = max(round(model.dim_z / count), 1)
        raise UserError(
            f"model.dim_z is {model.dim_z}, but {model.name} at {model.resolution} pixels splits z "
            f"into {count} equal chunks: set --config.model.dim_z={chunk * count}"
        )


def attention(key: str, resolutions: tuple[int, ...], widths: dict[int, int], least: int) -> None:
    """Raises UserError unless attention can stand at all of `resolutions`.

    Args:
      key: the setting, `g_attention` or `d_attention`.
      resolutions: what it asks for.
      widths: {resolution: channels} of every place where attention can stand.
      least: channels that the block needs.
    """
    for size in resolutions:
        if size not in widths:
            raise UserError(
                f"model.{key} asks for attention at {size} pixels, but the blocks end at "
                f"{', '.join(map(str, widths))}: set --config.model.{key} to some of these"
            )
        if widths[size] < least:
            raise UserError(
                f"model.{key} puts attention on {widths[size]} channels at {size} pixels, fewer "
                f"than the {least} that it needs (its keys have C/k channels, k = "
                f"model.attention_reduction): raise --config.model.ch or remove the resolution "
                f"from --config.model.{key}"
            )
