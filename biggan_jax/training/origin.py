"""What a run is forked from: the checkpoint that a command names, and the record of it."""

import contextlib
import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from biggan_jax.config import overrides as overrides_lib
from biggan_jax.config import resume
from biggan_jax.data import buckets
from biggan_jax.errors import UserError, some
from biggan_jax.parallel import processes
from biggan_jax.storage import checkpoint, json_file, paths, steps
from biggan_jax.storage.directory import BEST, open_directory
from biggan_jax.storage.weights import has_weights

RECORD = "fork.json"  # of a workdir: {from, step, changes: {key: [old, new]}}


@dataclasses.dataclass(frozen=True)
class Origin:
    """The run that another one is forked from.

    Attributes:
      text: DIR@STEP as it was given.
      directory: its workdir, an absolute path.
      step: of the checkpoint; None is the newest intact one.
      config: its config.json.
    """

    text: str
    directory: Path
    step: int | None
    config: ConfigDict


def holds_config(workdir: str | Path) -> bool:
    """Whether a workdir holds a run, or a fork that was killed: whether it has a `config_of`."""
    workdir = paths.workdir_path(workdir)
    buckets.reach(workdir, write=False)
    return _holds_run(workdir) or (workdir / RECORD).is_file()


def config_of(workdir: str | Path, fork: str | None, overrides: list[str]) -> ConfigDict | None:
    """The config of a command that names none.

    Args:
      workdir: of the run.
      fork: DIR@STEP, if given.
      overrides: of the command line.

    Returns:
      The config of the run in `workdir`, else that of the run which it is forked from, with the
      overrides on top; None where there is neither.

    Raises:
      UserError: there is one, and it cannot be read or overridden.
    """
    workdir = paths.workdir_path(workdir)
    buckets.reach(workdir, write=False)
    if _holds_run(workdir):
        return overrides_lib.apply(open_directory(workdir)[1], overrides)
    directory, step = _asked(fork, workdir)
    if directory is None:
        return None
    with named(fork or f"{directory}@{step}"):
        config = open_directory(directory)[1]
    if any(overrides_lib.key_of(text) == "data.source" for text in overrides):
        config.class_names = ()  # those of other data are other ones
        if config.model.num_classes != 1:
            config.model.num_classes = None
    return overrides_lib.apply(config, overrides)


def find(
    fork: str | None, config: ConfigDict, workdir: Path, checkpoints: checkpoint.Checkpoints
) -> Origin | None:
    """Finds what a run is to be forked from.

    Args:
      fork: DIR@STEP, or DIR for its newest checkpoint; None where the command names none.
      config: of the new run; it takes over what need not be said again.
      workdir: of the new run.
      checkpoints: of the new run.

    Returns:
      The origin; None for a run that goes on from its own checkpoints, or is no fork.

    Raises:
      UserError: there is no such checkpoint, or `workdir` holds another run.
    """
    if processes.from_main(checkpoints.latest_step()) is not None:
        processes.together(lambda: fork and _check_same(fork, workdir))
        return None
    origin = processes.together(lambda: _origin(fork, workdir))
    if origin is not None:
        if config.init_from is None:
            config.init_from = origin.config.init_from
        if origin.config.data.class_order == "text":  # of an earlier version
            config.data.class_order = "text"
        with named(origin.text):
            resume.check_fork(origin.config, config, other_data=True)
        if origin.step is not None:
            check_length(origin.text, origin.step, config)
    return origin


def step_of(workdir: Path) -> int | None:
    """The step at which a run was forked from another; None for a run that was not."""
    record = read(workdir)
    return None if record is None else record["step"]


def read(workdir: Path) -> dict[str, Any] | None:
    """Reads what a fork was made from.

    Args:
      workdir: of any run.

    Returns:
      {from, step, changes}; None where it is no fork.

    Raises:
      UserError: the file is damaged.
    """
    path = workdir / RECORD
    try:
        record = json_file.read(path)
        return {
            "from": str(record["from"]),
            "step": int(record["step"]),
            "changes": dict(record["changes"]),
        }
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error}): put a copy back, or choose "
            "another --workdir"
        ) from None


@contextlib.contextmanager
def named(text: str) -> Iterator[None]:
    """A context that begins a UserError with the option."""
    try:
        yield
    except UserError as error:
        raise UserError(f"--fork={text}: {error}") from error


def weights_of(text: str) -> str:
    """How a run starts from weights alone, as an argument."""
    return f"--config.init_from={shlex.quote(text)}"


def check_length(text: str, step: int, config: ConfigDict) -> None:
    """Raises UserError for a run that would end before its first step."""
    if step > config.num_steps:
        raise UserError(
            f"--fork={text}: it has finished {step} steps already, and num_steps is "
            f"{config.num_steps}: set --config.num_steps to more than {step}"
        )


def _holds_run(workdir: Path) -> bool:
    """Whether a workdir has a finished checkpoint, seen without Orbax: no device is known yet."""
    folder = workdir / "checkpoints"
    return folder.is_dir() and any(path.name.isdecimal() for path in folder.iterdir())


def _asked(fork: str | None, workdir: Path) -> tuple[str | None, int | str | None]:
    """(directory, step) that a command asks for, or that one which was killed has asked for."""
    if fork is not None:
        with named(fork):
            return steps.split(fork)
    record = read(workdir)
    return (None, None) if record is None else (record["from"], record["step"])


def _check_same(fork: str, workdir: Path) -> None:
    """Raises UserError unless the run in a workdir is this very fork; its origin may be gone."""
    record = read(workdir)
    elsewhere = "choose another --workdir, or leave out --fork to go on with the run that is there"
    if record is None:
        raise UserError(f"{workdir} holds a run that is no fork of {fork}: {elsewhere}")
    origin, step = record["from"], record["step"]
    if str(paths.absolute(fork)) in (origin, f"{origin}@{step}"):
        return
    directory, asked = steps.split(fork)
    if not paths.same(directory, origin) or asked not in (None, step):
        raise UserError(f"{workdir} holds a fork of {origin}@{step}, not of {fork}: {elsewhere}")


def _origin(fork: str | None, workdir: Path) -> Origin | None:
    """What a command names; where it names nothing, what a fork was made from that was killed."""
    directory, step = _asked(fork, workdir)
    if directory is None:
        return None
    text = fork or f"{directory}@{step}"
    with named(text):
        if paths.same(directory, workdir):
            raise UserError("a run cannot be forked into its own workdir: choose another --workdir")
        directory, config = open_directory(directory)
        directory = paths.absolute(directory)
        there = checkpoint.Checkpoints(directory / "checkpoints").all_steps()
        if step == BEST or not there:
            raise UserError(_no_state(directory, step, there))
        if step not in (None, *there):
            raise UserError(
                f"no checkpoint {step} in {directory}: it has {some(reversed(there), 12)}"
            )
    return Origin(text, directory, step, config)


def _no_state(directory: Path, step: int | str | None, there: list[int]) -> str:
    """Why the best state, or a directory without checkpoints, cannot be forked."""
    of_best, run = step == BEST, directory
    if directory.name == BEST and not there:
        run, of_best = directory.parent, True
        there = checkpoint.Checkpoints(run / "checkpoints").all_steps()
    weights = (run / BEST).is_dir() if of_best else has_weights(directory)
    what = f"{run / BEST if of_best else directory}"
    if not weights and not there:
        return f"{what} holds no checkpoint: train first"
    held = f"{what} holds weights alone" if weights else f"{run} has no best state"
    has = f"{run} has the checkpoints {some(reversed(there), 12)}" if there else "there is none"
    line = f"{held}, and a fork needs a checkpoint with the whole state: {has}"
    if not weights:
        return line
    return f"{line}; to start from the weights alone, give `{weights_of(what)}` in place of --fork"
