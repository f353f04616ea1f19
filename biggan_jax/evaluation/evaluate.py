"""Scores the generator of a directory, or of a run while it trains."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from biggan_jax import data
from biggan_jax.config import averages
from biggan_jax.errors import UserError
from biggan_jax.evaluation import folders, report, seeds
from biggan_jax.evaluation.evaluator import CONFIG
from biggan_jax.evaluation.opening import Settings, open_evaluator
from biggan_jax.evaluation.progress import progress_bar
from biggan_jax.parallel import processes
from biggan_jax.sampling import generator as generator_lib
from biggan_jax.sampling import load
from biggan_jax.storage import best, kept_cache, networks, orbax_noise, paths, steps
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
    ema: bool | str = True,
    matrix: bool = False,
    sweep_ema: bool = False,
) -> dict[str, Any]:
    """Scores the generator of a directory; all processes of a run call it and share the work.

    Args:
      directory: a workdir or a model directory.
      settings: what to compare with.
      step: see `load.load_generator`.
      truncations: thresholds in ascending order; None is none.
      bn_mode: 'running', 'batch' or 'standing'.
      ema: averaged weights; False takes the raw ones, a name another average.
      matrix: score every bn mode with averaged and raw weights.
      sweep_ema: score every average that is kept; standing statistics are taken anew for each,
        running ones are averages of their own.

    Returns:
      {scores, absent, per_class, memorisation, protocol, seconds}, with several seeds also
      `deviations` and `seeds`, see `seeds.over`. With several truncations these
      are of the last, the mildest, and `curve` lists {truncation, scores, fingerprint} of all; with
      `matrix` they are of `bn_mode` and `ema`, and `matrix` lists {bn_mode, weights, scores,
      fingerprint} of all; with `sweep_ema` they are of the average with the lowest FID, whose name
      is `best_ema`, and `sweep_ema` lists {weights, scores, fingerprint} of all.

    Raises:
      UserError: the directory or the settings do not fit.
    """
    directory, config = open_directory(directory)
    several = {"--matrix": matrix, "--sweep-ema": sweep_ema}
    asked = [option for option, given in several.items() if given]
    if len(asked) > 1:
        raise UserError(f"{asked[0]} takes no {asked[1]}: leave one of the two out")
    if asked and len(truncations) > 1:
        raise UserError(f"{asked[0]} takes a single --truncation: leave one of the two out")
    wanted = _wanted(directory, step, ema, matrix, sweep_ema)
    # All before the real side, which may take hours: errors of a second.
    generators = {}
    for name, average in wanted.items():
        generators[name] = load.load_generator(directory, step=step, ema=average)
        # A run that goes on meanwhile must not have cells of several steps in one table.
        step = step if generators[name].step is None else generators[name].step
    _check_same(directory, step, settings, truncations)
    generator_lib.check_bn_mode(bn_mode)
    weights = next(iter(wanted))
    for truncation in truncations:
        for seed in (settings.seed, settings.seed + settings.seeds - 1):
            generators[weights].check_latents(seed, truncation, settings.truncation_kind)
    cache = folders.cache(directory, settings.cache)
    with kept_cache.kept(directory, cache):
        evaluator = open_evaluator(config, cache, settings)

    def one(truncation: float | None, bn_mode: str, weights: str) -> dict[str, Any]:
        own = statistics.default(directory, truncation)
        if own is not None:
            generators[weights] = load.load_generator(
                directory, step=step, ema=wanted[weights], truncation_statistics=own
            )
        how = {"truncation": truncation, "bn_mode": bn_mode, "weights": weights}
        text = ", ".join(f"{name} {value}" for name, value in how.items())

        def of_seed(seed: int) -> dict[str, Any]:
            which = f", seed {seed}" * (settings.seeds > 1)
            scorer = dataclasses.replace(evaluator, seed=seed)
            with progress_bar("sample", text + which) as tell:
                return scorer(generators[weights], **how, model=str(directory), progress=tell)

        return seeds.over(of_seed, settings.seed, settings.seeds)

    if matrix:
        cells = {(m, w): one(truncations[0], m, w) for w in wanted for m in generator_lib.BN_MODES}
        rows = [{"bn_mode": m, "weights": w} | _row(r) for (m, w), r in cells.items()]
        return cells[bn_mode, weights] | {"matrix": rows}
    if sweep_ema:
        found = {name: one(truncations[0], bn_mode, name) for name in wanted}
        rows = [{"weights": name} | _row(result) for name, result in found.items()]
        lowest = min(found, key=lambda name: found[name]["scores"][best.METRIC])
        return found[lowest] | {"sweep_ema": rows, "best_ema": lowest}
    curve = [one(truncation, bn_mode, weights) for truncation in truncations]
    if len(curve) == 1:
        return curve[0]
    rows = [{"truncation": r["protocol"]["truncation"]} | _row(r) for r in curve]
    return curve[-1] | {"curve": rows}


def _check_same(
    directory: Path, step: Any, settings: Settings, truncations: Sequence[float | None]
) -> None:
    """Raises UserError unless all processes of a run score the same; a run may go on meanwhile."""
    names = ("data", "features", "num_samples", "seed", "seeds", "truncation_kind")
    fields = {"--step": step, "--truncation": truncations}
    fields |= {name: getattr(settings, name) for name in names}
    remedy = f"start all processes with the same command, such as with --step {step}"
    processes.check_same(f"what is scored of {directory}", fields, remedy)


def _wanted(
    directory: Path, step: int | str | None, ema: bool | str, matrix: bool, sweep_ema: bool
) -> dict[str, bool | str]:
    """The `ema` of `load_generator` by the name that tables have, the weights asked for first."""
    if sweep_ema:
        others = networks.averages(steps.find(directory, step))
        if not others:
            raise UserError(
                f"--sweep-ema: {directory} keeps no average beside the main one: leave it out, or "
                "train with ema.decays or ema.profiles, as by "
                "`biggan train --config.ema.decays=0.99,0.999`"
            )
        return {averages.MAIN: True} | {name: name for name in others}
    if isinstance(ema, str):
        return {ema: ema}
    held = networks.generator_weights(directory, step)
    named = {"ema" if averaged else "raw": averaged for averaged in held.values()}
    first = "ema" if ema and "EMA" in held else "raw"
    return {first: ema} | (named if matrix else {})


def during_training(
    config: ConfigDict, source: data.Source, digest: str, workdir: Path
) -> Callable[[Any, int], dict[str, Any]] | None:
    """Scores for the training loop, of the averaged weights without truncation.

    Args:
      config: of the run.
      source: the training data.
      digest: of the source.
      workdir: whose `cache` keeps the classifier and the real side, in a bucket too.

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
    cache = paths.cache_folder(workdir)
    with kept_cache.kept(workdir, cache):
        evaluator = open_evaluator(config, cache, settings, (source, digest))
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
    row = {"scores": result["scores"], "fingerprint": result["protocol"]["fingerprint"]}
    return row | {name: result[name] for name in ("deviations",) if name in result}
