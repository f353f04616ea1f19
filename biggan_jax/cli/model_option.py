"""The value of --from: a directory, or the name of a published model."""

import argparse
import os

from biggan_jax.errors import UserError


class Model(str):
    """A workdir, a model directory, or the name of a published one; `find_models` finds it."""


def model(text: str) -> Model:
    """The value of --from; ArgumentTypeError where it is none."""
    from biggan_jax.storage import hub, paths

    try:
        return Model(hub.parse(text) if hub.is_address(text) else paths.workdir_path(text))
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def find_models(args: argparse.Namespace) -> None:
    """Puts the folder of a published model, which is fetched, in the place of its name."""
    from biggan_jax.storage import published

    found = getattr(args, "source", None)
    if isinstance(found, Model):
        args.source = os.fspath(published.local(found))
    elif isinstance(found, list):
        args.source = [os.fspath(published.local(x)) if isinstance(x, Model) else x for x in found]
