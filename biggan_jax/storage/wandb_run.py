"""A run of Weights & Biases (extra [wandb]); where it goes is said by wandb's own variables.

WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE=offline and the others are read by wandb itself.
"""

import contextlib
import importlib.util
import os
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from biggan_jax.data import buckets
from biggan_jax.errors import UserError
from biggan_jax.storage import paths
from biggan_jax.storage.metric_writer import MetricWriter

PROJECT = "biggan_jax"  # unless WANDB_PROJECT says another
_WITHOUT = "leave wandb out (--config.writers=jsonl)"
ID = "wandb_id"  # of a workdir: the run there that a resumed one goes on with


def check() -> None:
    """Raises UserError where wandb is not installed."""
    if importlib.util.find_spec("wandb") is None:
        raise UserError(
            "config.writers has wandb, which is not installed: pip install 'biggan_jax[wandb]', or "
            f"{_WITHOUT}"
        )


class WandbRun(MetricWriter):
    """Writes scalars, images and settings to a run of Weights & Biases.

    A run that resumes goes on with the same one. Nothing can be taken back from a server: of steps
    that are taken again, the first is what stands there.

    Args:
      workdir: of the run, a path object; wandb's own files go into its folder `wandb`, or into
        the cache of a workdir in a bucket.

    Raises:
      UserError: wandb is not installed, nobody is logged in, the server refuses, or one of wandb's
        variables has a value that it does not take.
    """

    def __init__(self, workdir: Any):
        check()
        with _on_stderr():
            import wandb

            try:
                self._run = wandb.init(
                    project=os.environ.get("WANDB_PROJECT", PROJECT),
                    name=os.environ.get("WANDB_NAME", workdir.name),
                    id=os.environ.get("WANDB_RUN_ID") or _id(workdir),
                    resume="allow",
                    dir=os.fspath(_folder(workdir)),
                    settings=wandb.Settings(silent=True, console="off"),
                )
            except (wandb.errors.Error, ValueError) as error:
                raise UserError(f"wandb: {_reason(error)}, or {_WITHOUT}") from error
        self._image = wandb.Image

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log(dict(scalars), step=step)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        self._run.log({name: self._image(image) for name, image in images.items()}, step=step)

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        self._run.config.update(dict(hparams), allow_val_change=True)

    def close(self) -> None:
        with _on_stderr():
            self._run.finish()


def _reason(error: Exception) -> str:
    """Why there is no run, and what to do, in one line."""
    refused = getattr(error, "errors", None)  # of pydantic, which reads wandb's variables
    if callable(refused) and (first := next(iter(refused()), None)):
        variable = "_".join(["WANDB", *map(str, first["loc"])]).upper()
        return f"{variable} cannot be used ({first['msg']}): correct or unset it"
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"{line.rstrip('.')}: run `wandb login`, set WANDB_MODE=offline"


def _id(workdir: Any) -> str:
    """The identity of a workdir's run, made once."""
    path = workdir / ID
    with buckets.bucket_errors(path):
        if path.exists():
            return path.read_text().strip()
    made = uuid.uuid4().hex[:12]
    paths.write_bytes(path, made.encode())
    return made


def _folder(workdir: Any) -> Path:
    """Where wandb keeps its own files: it makes a folder `wandb` in here."""
    folder = paths.cache_folder(workdir) if paths.is_remote(workdir) else workdir
    Path(folder).mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def _on_stderr() -> Iterator[None]:
    """A context in which what wandb prints goes to stderr: stdout is the command's own."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
