"""Scores the checkpoints of a run as they land, in a process of its own."""

import contextlib
import contextvars
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from biggan_jax.config import averages
from biggan_jax.errors import UserError
from biggan_jax.evaluation import folders, report
from biggan_jax.evaluation.evaluator import Evaluator
from biggan_jax.evaluation.protocol import differences
from biggan_jax.sampling.generator import LoadedGenerator
from biggan_jax.storage import best, checkpoint, json_lines, lock, networks, paths, writers
from biggan_jax.storage.directory import open_directory
from biggan_jax.storage.weights import has_weights

POLL_SECONDS = 5.0
FOLDER = "evaluations"  # of a workdir: the event files of its follower, and its lock
FOLLOWING = (
    "has a follower already",
    "scoring its checkpoints",
    "let it go on, or stop it (`kill {pid}` on {host}; what it has scored is kept)",
)
_held: contextvars.ContextVar[Path | None] = contextvars.ContextVar("_held", default=None)


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """A context in which no other process follows a run; `follow` enters it, if its caller has not.

    Two would score every checkpoint twice and copy over each other's best one.

    Args:
      directory: the workdir of the run.

    Raises:
      UserError: another process follows it.
    """
    if _held.get() == directory:
        yield
        return
    with lock.held(directory / FOLDER, FOLLOWING):
        token = _held.set(directory)
        try:
            yield
        finally:
            _held.reset(token)


def follow(
    directory: Path,
    config: ConfigDict,
    evaluator: Evaluator,
    *,
    truncation: float | None = None,
    bn_mode: str = "running",
    ema: bool | str = True,
    poll_seconds: float = POLL_SECONDS,
) -> dict[str, Any]:
    """Scores every checkpoint, oldest first, until the last step of the run is scored.

    Each becomes a line of `evaluations.jsonl` and of the event files in `evaluations/`; the best
    so far is copied to `best/`, a model directory, from memory: the training run may delete the
    checkpoint meanwhile. A restart goes on after what was scored by the same protocol.

    Args:
      directory: the workdir of the run.
      config: of the run.
      evaluator: what scores the checkpoints.
      truncation, bn_mode: see `Evaluator.__call__`.
      ema: averaged weights; False takes the raw ones, a name another average.
      poll_seconds: between two looks at the directory.

    Returns:
      {evaluations [{step, scores, ...}], best {step, fid}}, of this protocol.

    Raises:
      UserError: no workdir, one that does not fit the evaluator, or one with a follower already.
      KeyboardInterrupt: Ctrl-C; whatever was scored is written.
    """
    check(directory)
    with alone(directory):
        return _follow(directory, config, evaluator, truncation, bn_mode, ema, poll_seconds)


def _follow(
    directory: Path,
    config: ConfigDict,
    evaluator: Evaluator,
    truncation: float | None,
    bn_mode: str,
    ema: bool | str,
    poll_seconds: float,
) -> dict[str, Any]:
    log = Log(directory, tensorboard="tensorboard" in writers.of(config))
    generator, skipped = None, set()
    options = {"truncation": truncation, "bn_mode": bn_mode, "model": str(directory)}
    options["weights"] = ema if isinstance(ema, str) else "ema" if ema else "raw"
    file = options["weights"] if averages.is_name(options["weights"]) else "g_ema" if ema else "g"
    try:
        while True:
            step = _next_step(directory, log.scored | skipped, poll_seconds)
            if step is None:
                return log.result()
            weights = _read(directory, config, step, ema)
            if weights is None:
                skipped.add(step)
                continue
            if generator is None:
                generator = LoadedGenerator(config, weights)
                log.begin(evaluator.protocol(generator, **options))
                if step in log.scored:  # by an earlier process
                    continue
            result = evaluator(generator.replace(weights, step), **options)
            if log.is_best(result):
                _save_best(directory, weights, result, file)
            for line in () if log.scored else report.absent_lines(result):
                print(line, file=sys.stderr)
            log.add(result, config)
    finally:
        log.close()


def check(directory: Path) -> None:
    """Raises UserError unless `follow` takes a directory: a workdir that can be written."""
    if has_weights(directory):
        raise UserError(f"{directory} is no workdir of a run, so leave out --follow")
    problem = folders.unwritable(directory)
    if problem is not None:
        raise UserError(
            f"{directory} cannot be written ({problem}), where --follow keeps its results: leave "
            "out --follow, and name a folder with --out"
        )


class Log:
    """`evaluations.jsonl` and the event files of a follower.

    Attributes:
      scored: steps that were scored, from `begin` on those of an earlier process too.
    """

    def __init__(self, directory: Path, *, tensorboard: bool):
        self._path = directory / "evaluations.jsonl"
        self._board = writers.Writers(directory / FOLDER, active=tensorboard)
        self._lines: list[dict[str, Any]] = []

    @property
    def scored(self) -> set[int]:
        """Steps that were scored by the protocol of `begin`."""
        return {line["step"] for line in self._lines}

    def begin(self, protocol: dict[str, Any]) -> None:
        """Takes in the lines of an earlier process that have the same protocol."""
        lines = json_lines.read(self._path)
        damaged = list(lines.damaged)
        for number, old in zip(lines.numbers, lines.records, strict=True):
            if not _is_whole(old):
                damaged.append(number)
            elif not differences(old["protocol"], protocol):
                self._lines.append(old)
        if damaged:
            line = json_lines.told(self._path, sorted(damaged), "cannot be read: scored anew")
            print(f"warning: {line}", file=sys.stderr)
        if lines.unended:
            paths.append_text(self._path, "\n")

    def is_best(self, result: dict[str, Any]) -> bool:
        """Whether a result is better than all before."""
        return all(
            result["scores"][best.METRIC] < line["scores"][best.METRIC] for line in self._lines
        )

    def add(self, result: dict[str, Any], config: ConfigDict) -> None:
        """Writes a result."""
        step = result["protocol"]["step"]
        images = step * config.batch_size * config.num_d_steps
        line = {"step": step, "images_seen": images} | result
        self._lines.append(line)
        paths.append_text(self._path, json.dumps(line) + "\n")
        named = {f"eval/{name}": value for name, value in result["scores"].items()}
        self._board.write(step, images, named)
        shown = "  ".join(f"{name} {value:.5g}" for name, value in result["scores"].items())
        print(f"step {step:,}  {shown}", file=sys.stderr, flush=True)

    def result(self) -> dict[str, Any]:
        """What `follow` returns."""
        lines = sorted(self._lines, key=lambda line: line["step"])
        lowest = min(lines, key=lambda line: line["scores"][best.METRIC], default=None)
        found = lowest and {"step": lowest["step"], best.METRIC: lowest["scores"][best.METRIC]}
        return {"evaluations": lines, "best": found}

    def close(self) -> None:
        """Ends the event files."""
        self._board.close()


def _is_whole(line: dict[str, Any]) -> bool:
    """Whether a line has what is read of it."""
    step, scores = line.get("step"), line.get("scores")
    if type(step) is not int or not isinstance(line.get("protocol"), dict):
        return False
    return isinstance(scores, dict) and isinstance(scores.get(best.METRIC), int | float)


def _next_step(directory: Path, done: set[int], poll_seconds: float) -> int | None:
    """Waits for a checkpoint that is not done; None when the run has finished without one."""
    checkpoints = checkpoint.Checkpoints(directory / "checkpoints")
    while True:
        total = open_directory(directory)[1].num_steps  # a resumed run may have changed it
        present = checkpoints.all_steps()
        waiting = [step for step in present if step not in done]
        if waiting:
            return waiting[0]
        if present and present[-1] >= total:
            return None
        time.sleep(poll_seconds)


def _read(directory: Path, config: ConfigDict, step: int, ema: bool | str) -> dict | None:
    """A checkpoint's weights; None where it was deleted meanwhile or is corrupt."""
    name = ema if isinstance(ema, str) else "ema" if ema else "generator"
    try:
        return networks.from_checkpoint(directory, config, name, step)[0]
    except (UserError, OSError) as e:
        if (directory / "checkpoints" / str(step)).exists():
            print(f"warning: step {step} is passed over: {e}", file=sys.stderr)
        return None


def _save_best(directory: Path, weights: dict, result: dict[str, Any], name: str) -> None:
    config = open_directory(directory)[1].to_dict()
    # A run that scores itself has a best state of its own.
    folder = directory if config["eval_every_steps"] is None else directory / FOLDER
    scores, protocol = result["scores"], result["protocol"]
    best.keep_networks(folder, protocol["step"], {name: weights}, config, scores, protocol)
