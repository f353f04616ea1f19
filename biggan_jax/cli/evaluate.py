"""`biggan evaluate`."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from biggan_jax.cli import model_option, multihost, options
from biggan_jax.cli.output import say
from biggan_jax.errors import UserError


def add(command) -> None:
    """Adds the command."""
    sub = command("evaluate", run, "score a generator: FID, IS, KID")
    one = sub.add_mutually_exclusive_group(required=True)
    one.add_argument("--from", dest="source", type=model_option.model, metavar="DIR")
    options.add_step(sub)
    one.add_argument(
        "--compare",
        nargs=2,
        type=Path,
        metavar=("A.json", "B.json"),
        help="which of two results is better; refused where their protocols differ",
    )
    group = sub.add_argument_group("what it is compared with")
    add = group.add_argument
    add("--data", metavar="SPEC[:SPLIT]", help="real images; default: those it was trained on")
    add("--reference", type=Path, metavar="F.npz", help="statistics (mu, sigma) in their place")
    options.add_features(group, None)
    options.add_resize(group)
    add("--fit-classifier", action="store_true", help="fit the classifier anew")
    add("--on-bad-record", choices=("error", "skip"), help="default: as in training")
    group = sub.add_argument_group("the samples")
    add = group.add_argument
    add(
        "--samples",
        type=int,
        metavar="N",
        help="50,000 with inception or dinov2, else 10,000",
    )
    add(
        "--truncation",
        type=options.thresholds,
        default=(None,),
        metavar="T,...",
        help="several: a curve",
    )
    options.add_draw(group)
    add(
        "--seeds",
        type=options.whole,
        default=options.UNSET,
        metavar="N",
        help="from --seed on: mean and deviation of every score, for --compare",
    )
    options.add_weights(group)
    add("--matrix", action="store_true", help="every bn mode with averaged and raw weights")
    add("--sweep-ema", action="store_true", help="every average that the run keeps; names the best")
    add = sub.add_argument_group("output").add_argument
    add("--no-intra-fid", action="store_true", help="where a class has too few real images")
    add(
        "--memorisation",
        action=argparse.BooleanOptionalAction,
        default=options.UNSET,
        help="look for copies of training images; default: where they are 10,000 at most",
    )
    add(
        "--out",
        type=options.path,
        metavar="FOLDER",
        help="of .json, .csv and plot; default: DIR/report",
    )
    cache = "where classifiers and measured real images are kept; default: DIR/cache"
    add("--cache", type=Path, metavar="FOLDER", help=cache)
    add(
        "--follow",
        action="store_true",
        help="score checkpoints as they land, until the run has finished",
    )
    multihost.add(sub)


def run(args: argparse.Namespace, overrides: list[str]) -> tuple[dict, int]:
    """`biggan evaluate`."""
    options.no_overrides(overrides)
    if args.compare is not None:
        result, text = evaluate(args)
        say(args, text)
        return result, 0
    from biggan_jax.parallel import processes

    with multihost.session(args):
        result, text = evaluate(args)
        if processes.is_main():  # one process speaks for all
            say(args, text)
    return result, 0


def evaluate(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Scores what the options of `add` ask for.

    Returns:
      (the JSON object of `biggan evaluate`, what it says to a person).
    """
    from biggan_jax.evaluation import comparison, folders, follow, opening, report
    from biggan_jax.evaluation import evaluate as evaluate_lib
    from biggan_jax.parallel import processes
    from biggan_jax.storage import kept_cache, paths, published
    from biggan_jax.storage.directory import open_directory

    if args.compare is not None:
        _check_alone(args)
        return comparison.compare(*args.compare)
    names = [field.name for field in dataclasses.fields(opening.Settings)]
    given = options.given(args, *names)
    given |= {"num_samples": args.samples, "intra_fid": not args.no_intra_fid}
    settings = opening.Settings(**given)
    weights = options.given(args, "bn_mode") | {"ema": options.ema(args)}
    if args.sweep_ema and weights["ema"] is not True:
        raise UserError("--sweep-ema scores all averages: leave --raw and --ema out")
    if args.follow:
        import jax

        if args.step is not None:
            raise UserError("--follow scores every checkpoint: leave out --step")
        if args.matrix or args.sweep_ema or len(args.truncation) > 1 or settings.seeds > 1:
            raise UserError(
                "--follow takes no --matrix, no --sweep-ema, no --seeds and a single --truncation"
            )
        if jax.process_count() > 1:
            raise UserError("--follow is one process beside a run: start it on one host alone")
        directory, config = open_directory(args.source)
        follow.check(directory)
        with follow.alone(directory):
            cache = folders.cache(directory, settings.cache)
            with kept_cache.kept(directory, cache):
                evaluator = opening.open_evaluator(config, cache, settings)
            result = follow.follow(
                directory, config, evaluator, truncation=args.truncation[0], **weights
            )
        return result, "\n".join(report.step_lines(result["evaluations"]))
    own = paths.workdir_path(args.source)
    if published.is_published(own):
        own = paths.cache_folder(own)
    folder, problem = args.out or own / "report", None
    if args.out is not None:
        folders.check_writable(folder, "--out")
    else:
        problem = folders.unwritable(folder)
    result = evaluate_lib.evaluate(
        args.source,
        settings,
        step=args.step,
        truncations=args.truncation,
        matrix=args.matrix,
        sweep_ema=args.sweep_ema,
        **weights,
    )
    kinds = {"curve": "truncation", "matrix": "matrix", "sweep_ema": "ema_sweep"}
    name = next((kinds[key] for key in kinds if key in result), "evaluation")
    if not processes.is_main():
        return result, ""
    if problem is not None:
        last = f"not written: {folder} cannot be written ({problem}); name a folder with --out"
        return result, "\n".join([*report.lines(result), last])
    written = report.write(result, paths.workdir_path(folder), name)
    return result, "\n".join([*report.lines(result), f"written: {', '.join(written)}"])


def _check_alone(args: argparse.Namespace) -> None:
    """Raises UserError where --compare, which evaluates nothing, stands beside other options."""
    for option, value in vars(args).items():
        given = value is not None and value is not False and value != (None,)
        if given and option not in ("command", "run", "json", "compare"):
            raise UserError(f"--compare reads two results: leave out --{option.replace('_', '-')}")
