"""Which state of a directory is meant: its newest one, that of a step, or the best."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from biggan_jax.data import buckets
from biggan_jax.errors import UserError, some
from biggan_jax.storage import best, hub, json_file, paths, replacement
from biggan_jax.storage.checkpoint import Checkpoints
from biggan_jax.storage.directory import BEST, open_directory
from biggan_jax.storage.weights import has_weights

FORM = "the number of a finished step, or best"


class Held(NamedTuple):
    """Where the state lies that was asked for.

    Attributes:
      directory: of its weights: a workdir, or a model directory such as `best/`.
      config: it was trained with.
      in_checkpoints: whether it is a checkpoint of a workdir, and no model directory.
      step: generator updates it has had; None is the newest intact checkpoint, or a model directory
        that does not say.
    """

    directory: Path
    config: ConfigDict
    in_checkpoints: bool
    step: int | None


def parse(text: str) -> int | str:
    """A step as text, such as '5000' or 'best'.

    Raises:
      ValueError: it is neither a number of a step nor best.
    """
    if text == BEST:
        return text
    if not re.fullmatch("[0-9]+", text):
        raise ValueError(f"{text!r} is no step: write {FORM}")
    return int(text)


def split(text: str) -> tuple[str, int | str | None]:
    """Splits DIR@STEP.

    Args:
      text: DIR, or DIR@STEP with a number or best. A folder of this very name is meant whole.

    Returns:
      (directory, step), step None where there is none.

    Raises:
      UserError: what follows the last @ is no step, and no folder has the whole name.
    """
    directory, at, step = text.rpartition("@")
    if not at or not directory or hub.is_address(text):  # which has its revision there
        return text, None
    if "/" in step:
        return text, None  # an @ in the name of a folder further up
    buckets.reach(text, write=False)
    if paths.workdir_path(text).is_dir():
        return text, None
    try:
        return directory, parse(step)
    except ValueError as error:
        raise UserError(
            f"there is no folder {text}, and behind the @ of DIR@STEP {error}"
        ) from error


def find(directory: str | Path, step: int | str | None = None) -> Held:
    """Finds the state that a step means.

    Args:
      directory: a workdir or a model directory.
      step: the number of a finished step; 'best' is the state with the best score; None is the
        newest intact checkpoint, or what a model directory holds.

    Returns:
      Where it lies. That a checkpoint is intact is seen when it is read.

    Raises:
      UserError: the directory is neither, or it has no such state.
    """
    step = _checked(step)
    directory, config = open_directory(directory)
    in_checkpoints = (directory / "checkpoints").is_dir()
    if step is None:
        return Held(
            directory, config, in_checkpoints, None if in_checkpoints else _step_of(directory)
        )
    best_one = _best(directory)
    if not in_checkpoints and best_one is None:
        return _of_model(directory, config, step)
    steps = Checkpoints(directory / "checkpoints").all_steps()
    if step in steps:
        return Held(directory, config, True, step)
    if best_one is not None and step in (BEST, best_one.step):
        return best_one
    if step == BEST:
        old = Checkpoints(directory / "checkpoints").best_of_old()
        if len(old) == 1:  # all of them where a score is unreadable
            return Held(directory, config, True, old[0])
        raise UserError(
            f"{directory} has no best state, but the checkpoints {some(reversed(steps), 9)}: score "
            f"them by `biggan evaluate --from {directory} --follow`, or while training by "
            f"`biggan train --config.eval_every_steps={config.checkpoint_every_steps}`"
        )
    there = [str(s) for s in reversed(steps)]
    there += [] if best_one is None else [f"best ({best_one.step})"]
    has = some(there, 12) if there else "none at all"
    raise UserError(f"no checkpoint {step} in {directory}: it has {has}")


def used(directory: str | Path, step: int | str | None = None) -> int | None:
    """The number of the step that `find` finds; None where nothing says it.

    Args:
      directory, step: see `find`. Of the newest checkpoint it is not looked at whether it is
        intact.
    """
    held = find(directory, step)
    if held.in_checkpoints and held.step is None:
        return Checkpoints(held.directory / "checkpoints").latest_step()
    return held.step


def _checked(step: Any) -> int | str | None:
    if step is None or step == BEST:
        return step
    if isinstance(step, bool) or not hasattr(step, "__index__") or step.__index__() < 0:
        raise UserError(f"step is {step!r}; it must be {FORM}")
    return step.__index__()


def _best(directory: Path) -> Held | None:
    """The best state of a workdir: its own, else that of a follower beside a run with scores."""
    for folder in (directory, directory / "evaluations"):
        record = best.read(folder)
        if record is not None:
            path, config = open_directory(folder / BEST)
            return Held(path, config, False, int(record["step"]))
    return None


def _of_model(directory: Path, config: ConfigDict, step: int | str) -> Held:
    """A model directory, unless another step than its own is asked for."""
    own = _step_of(directory)
    if own is not None and step in (BEST, own):
        return Held(directory, config, False, own)
    if not has_weights(directory):
        raise UserError(f"{directory} holds no checkpoints and no weights: train first")
    if own is None:
        raise UserError(f"{directory} is a model directory and holds one state: leave out the step")
    raise UserError(f"{directory} is a model directory and holds step {own}, not {step}")


def _step_of(directory: Path) -> int | None:
    """The step of a copied best state; None where no score lies beside the weights."""
    path = replacement.whole(directory) / best.SCORE
    try:
        return int(json_file.read(path)["step"])
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError, OverflowError):
        return None
