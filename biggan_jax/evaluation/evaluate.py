"""Scores the generator of a directory, or of a run while it trains."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from biggan_jax import data
from biggan_jax.errors import UserError
from biggan_jax.evaluation import folders, report
from biggan_jax.evaluation.evaluator import CONFIG
from biggan_jax.evaluation.opening import Settings, open_evaluator, progress_bar
from biggan_jax.parallel import processes
from biggan_jax.sampling import generator as generator_lib
from biggan_jax.sampling import load
from biggan_jax.storage import networks, orbax_noise, paths
from biggan_jax.storage import truncation_statistics as statistics
from biggan_jax.storage.directory import open_directory


@orbax_noise.logging_untouched()
def evaluate(
    directory: str | Path,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    *,
    step: int | str | None = None,
    truncations: Sequence[float | None] = (None,),
    bn_mode: str = "running",
    ema: bool = True,
    matrix: bool = False,
) -> dict[str, Any]:
    """Scores the generator of a directory.

    Args:
      directory: a workdir or a model directory.
      settings: what to compare with.
      step: see `load.load_generator`.
      truncations: thresholds in ascending order; None is none.
      bn_mode: 'running', 'batch' or 'standing'.
      ema: averaged weights; False takes the raw ones.
      matrix: score every bn mode with averaged and raw weights.

    Returns:
      {scores, absent, per_class, memorisation, protocol, seconds}. With several truncations these
      are of the last, the mildest, and `curve` lists {truncation, scores, fingerprint} of all; with
      `matrix` they are of `bn_mode` and `ema`, and `matrix` lists {bn_mode, weights, scores,
      fingerprint} of all.

    Raises:
      UserError: the directory or the settings do not fit.
    """
    directory, config = open_directory(directory)
    held = networks.generator_weights(directory, step)
    weights = "ema" if ema and "EMA" in held else "raw"
    if matrix and len(truncations) > 1:
        raise UserError("--matrix takes a single --truncation: leave one of the two out")
    # All before the real side, which may take hours: errors of a second.
    generators = {weights: load.load_generator(directory, step=step, ema=ema)}
    # A run that goes on meanwhile must not have cells of several steps in one table.
    step = generators[weights].step if generators[weights].step is not None else step
    for averaged in held.values() if matrix else ():
        name = "ema" if averaged else "raw"
        if name not in generators:
            generators[name] = load.load_generator(directory, step=step, ema=averaged)
    generator_lib.check_bn_mode(bn_mode)
    for truncation in truncations:
        generators[weights].check_latents(settings.seed, truncation, settings.truncation_kind)
    evaluator = open_evaluator(config, folders.cache(directory, settings.cache), settings)

    def one(truncation: float | None, bn_mode: str, weights: str) -> dict[str, Any]:
        own = statistics.default(directory, truncation)
        if own is not None:
            generators[weights] = load.load_generator(
                directory, step=step, ema=weights == "ema", truncation_statistics=own
            )
        how = {"truncation": truncation, "bn_mode": bn_mode, "weights": weights}
        text = ", ".join(f"{name} {value}" for name, value in how.items())
        with progress_bar("sample", text) as tell:
            return evaluator(generators[weights], **how, model=str(directory), progress=tell)

    if matrix:
        names = ["ema" if averaged else "raw" for averaged in held.values()]
        cells = {(m, w): one(truncations[0], m, w) for w in names for m in generator_lib.BN_MODES}
        rows = [{"bn_mode": m, "weights": w} | _row(r) for (m, w), r in cells.items()]
        return cells[bn_mode, weights] | {"matrix": rows}
    curve = [one(truncation, bn_mode, weights) for truncation in truncations]
    if len(curve) == 1:
        return curve[0]
    rows = [{"truncation": r["protocol"]["truncation"]} | _row(r) for r in curve]
    return curve[-1] | {"curve": rows}


def during_training(
    config: ConfigDict, source: data.Source, digest: str, workdir: Path
) -> Callable[[Any, int], dict[str, Any]] | None:
    """Scores for the training loop, of the averaged weights without truncation.

    Args:
      config: of the run.
      source: the training data.
      digest: of the source.
      workdir: whose `cache` keeps the classifier and the real side.

    Returns:
      A function of (generator variables, step) -> {scores {name: value}, protocol}; None where
      `eval_every_steps` is unset. Every process computes the same scores, on its own devices.

    Raises:
      UserError: too few `eval_samples`, or Inception weights that are missing.
    """
    if config.eval_every_steps is None:
        return None
    settings = Settings(
        features=config.eval_features,
        num_samples=config.eval_samples,
        options=CONFIG,
        memorisation=False,  # of the finished run, by `biggan evaluate`
    )
    evaluator = open_evaluator(config, paths.cache_folder(workdir), settings, (source, digest))
    # A rare class may have fewer images than its own distance needs: no reason to stop a run.
    evaluator = dataclasses.replace(evaluator, intra_fid=False)
    generators: list[generator_lib.LoadedGenerator] = []

    def scores(variables: Any, step: int) -> dict[str, Any]:
        held = jax.device_get(variables)
        if not generators:
            generators.append(generator_lib.LoadedGenerator(config, held))
            absent = report.absent_lines({"absent": evaluator.absent(generators[0])})
            for line in absent if processes.is_main() else ():
                print(line, file=sys.stderr)
        # Other weights in the same compiled programs.
        result = evaluator(generators[0].replace(held, step), model=str(workdir))
        return {name: result[name] for name in ("scores", "protocol")}

    return scores


def _row(result: dict[str, Any]) -> dict[str, Any]:
    return {"scores": result["scores"], "fingerprint": result["protocol"]["fingerprint"]}
