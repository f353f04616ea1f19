"""The text of `--config.data.source` -> an open source."""

import importlib

from biggan_jax.config import domains
from biggan_jax.data.kinds import KINDS, forms
from biggan_jax.data.source import Source
from biggan_jax.errors import UserError, did_you_mean


def open_source(
    spec: str | None,
    *,
    resolution: int,
    channels: int,
    on_bad_record: str = "error",
    option: str = "--config.data.source",
) -> Source:
    """Opens the images that a spec names.

    Args:
      spec: KIND or KIND:ARGUMENT, as `kinds.KINDS` lists them. `~` in a path is the home folder.
      resolution: side of the square images in pixels, at least 1.
      channels: 1 (grey) or 3 (RGB).
      on_bad_record: what an unreadable image file means: `error` stops with its name, `skip`
        replaces it by the next readable one.
      option: where the user wrote the spec, for messages.

    Returns:
      An open source with at least one example.

    Raises:
      UserError: the spec is unset or malformed, or the data is missing, empty or damaged.
    """
    if spec is None:
        raise UserError(f"{option.removeprefix('--config.')} is not set: set {option} to {forms()}")
    domains.check(
        {
            "model.resolution": resolution,
            "model.channels": channels,
            "data.on_bad_record": on_bad_record,
        }
    )
    name, _, argument = spec.partition(":")
    try:
        if name not in KINDS:
            raise UserError(f"unknown kind {name!r}{did_you_mean(name, KINDS)}; write {forms()}")
        kind = KINDS[name]
        if not argument.strip() and (kind.needs_argument or spec != name):
            raise UserError(f"incomplete; write {kind.form}")
        module = importlib.import_module(f"biggan_jax.data.{kind.module}")
        return module.open_spec(
            spec,
            argument,
            resolution=resolution,
            channels=channels,
            on_bad_record=on_bad_record,
        )
    except UserError as error:
        raise UserError(f"{option}={spec!r}: {error}") from error
