"""`biggan inspect`, `plan` and `bench`: a config on paper and on the clock."""

import argparse
import functools
import sys
from pathlib import Path

from biggan_jax.cli import model_option, options
from biggan_jax.cli.output import say, writing
from biggan_jax.errors import UserError

_EVALUATE = ("samples", "features", "bn_mode")  # options of `plan --evaluate`
_SUITE = ("table", "update", "bound", "only")  # options of `bench --suite`


def add(command) -> None:
    """Adds the three commands."""
    sub = command(
        "inspect", run_inspect, "layers, shapes, parameters and FLOPs; no data, no compile"
    )
    options.add_config(sub, required=False)
    sub.add_argument(
        "--from", dest="source", type=model_option.model, metavar="DIR", help="instead of --config"
    )
    options.add_step(sub)
    sub.add_argument(
        "--spectra",
        type=Path,
        metavar="F.png",
        help="with --from: draw the singular values of every layer",
    )
    options.add_which(sub, "of --spectra: raw weights of G (the default)")

    sub = command("plan", run_plan, "compile the training step for a TPU topology; no TPU needed")
    options.add_config(sub)
    add_plan(sub)

    sub = command("bench", run_bench, "time the training step on synthetic batches")
    options.add_config(sub, required=False)
    add_bench(sub)


def add_bench(sub: argparse.ArgumentParser) -> None:
    """The options of `biggan bench`."""
    add = sub.add_argument
    add("--data", action="store_true", help="time the input pipeline as well")
    add("--monitors", action="store_true", help="time what monitor_every_steps measures as well")
    add("--profile", type=Path, metavar="DIR", help="write a profiler trace")
    add(
        "--layers",
        action="store_true",
        help="say where the time goes: by layer, direction and kind of instruction",
    )
    group = sub.add_argument_group(
        "guard against regressions (instead of --config)",
        "Ten small shapes beside a stored table of this machine, which the first run writes; exit "
        "code 1 where one is slower. About five minutes on two cores.",
    )
    add = group.add_argument
    add("--suite", action="store_true", help="time the suite")
    add("--update", action="store_true", default=options.UNSET, help="rewrite the table")
    add(
        "--table",
        type=Path,
        metavar="FILE",
        default=options.UNSET,
        help="instead of the one in ~/.cache/biggan_jax/bench",
    )
    add(
        "--bound",
        type=float,
        metavar="X",
        default=options.UNSET,
        help="times the table from which a step is slower; 1.1",
    )
    add("--only", metavar="A,B", default=options.UNSET, help="some shapes of the suite")


def add_plan(sub: argparse.ArgumentParser) -> None:
    """The options of `biggan plan`."""
    add = sub.add_argument
    add("--topology", required=True, metavar="GEN:SHAPE", help="of one slice, such as v4:4x4x4")
    add(
        "--slices",
        type=int,
        default=options.UNSET,
        metavar="N",
        help="joined by the data-center network; 1",
    )
    add("--images", type=int, metavar="N", help="of the data set, for what the hosts copy")
    add("--encode", metavar="E", help="of its records: raw, webp or jpeg; raw")
    add("--usd-per-chip-hour", type=float, metavar="X", help="price, for the cost of the run")
    options.add_sweep(
        sub, "one table over all values, such as batch_size=512,1024; repeat it to combine"
    )
    add(
        "--fast",
        action="store_true",
        help="compile with little effort, 5 times quicker: HBM traffic is that of a slower program",
    )
    add(
        "--traffic",
        action="store_true",
        help="say where the HBM traffic comes from: by layer, direction and kind of instruction",
    )
    group = sub.add_argument_group("scores (instead of the training step)")
    add = group.add_argument
    add(
        "--evaluate",
        action="store_true",
        help="plan `biggan evaluate` on all chips; always --fast",
    )
    add(
        "--samples",
        type=options.whole,
        default=options.UNSET,
        metavar="N",
        help="of all chips together; 50,000",
    )
    add(
        "--features",
        choices=("inception", "classifier"),
        default=options.UNSET,
        help="default: eval_features, else inception for images with colours",
    )
    add("--bn-mode", choices=("running", "batch", "standing"), default=options.UNSET)


def run_inspect(args: argparse.Namespace, overrides: list[str]) -> tuple[dict, int]:
    """`biggan inspect`."""
    from biggan_jax import config as config_lib
    from biggan_jax.parallel import sharding
    from biggan_jax.pictures import formats
    from biggan_jax.planning import summary
    from biggan_jax.training import build

    if (args.config is None) == (args.source is None):
        raise UserError("inspect takes one of --config FILE and --from DIR")
    if args.source is not None:
        options.no_overrides(overrides)
        from biggan_jax.storage import networks

        config, step = networks.inspected(args.source, args.step)
    else:
        if args.step is not None:
            raise UserError("--step is of the run that --from names: leave it out with --config")
        if args.spectra is not None:
            raise UserError("--spectra draws trained weights: give --from DIR, or leave it out")
        config = options.load_config(args, overrides)
    if args.spectra is not None:
        formats.suffix(args.spectra, option="--spectra")
    elif options.which(args) is not None:
        raise UserError(
            "--raw and --ema say of which weights --spectra draws the singular values: add "
            "--spectra F.png, or leave them out (what else inspect says is the same for all)"
        )
    mesh = sharding.make_mesh((1,))
    config_lib.validate(config, mesh.size)
    fused, textbook = (build.train_step(config, mesh, fused=fused) for fused in (True, False))
    result, lines = summary.summarize(fused, textbook, config.batch_size)
    if args.source is not None:
        result["step"] = step
    if args.spectra is not None:
        from biggan_jax.planning import spectra

        with writing(args.spectra):
            draw = functools.partial(spectra.draw, step=args.step, ema=options.which(args))
            result["spectra"] = draw(args.source, args.spectra)
        lines.append(f"spectra of the {spectra.text(result['spectra'])}")
    say(args, "\n".join(lines))
    return result, 0


def run_plan(args: argparse.Namespace, overrides: list[str]) -> tuple[dict, int]:
    """`biggan plan`."""
    if args.evaluate and args.traffic:
        raise UserError("--evaluate plans no training step: leave --traffic out")
    for name in () if args.evaluate else options.given(args, *_EVALUATE):
        option = f"--{name.replace('_', '-')}"
        raise UserError(f"{option} belongs to --evaluate: add --evaluate, or leave {option} out")
    from biggan_jax.planning import plan, scoring

    def load(more: list[str]):
        return options.load_config(args, [*overrides, *more])

    def progress(line: str) -> None:
        print(line, file=sys.stderr)

    names = ("topology", "slices", "usd_per_chip_hour", "sweep", "images", "encode")
    names += _EVALUATE if args.evaluate else ("fast", "traffic")
    planned = scoring.run if args.evaluate else plan.run
    result, text = planned(load, progress=progress, **options.given(args, *names))
    say(args, text)
    return result, 0


def run_bench(args: argparse.Namespace, overrides: list[str]) -> tuple[dict, int]:
    """`biggan bench`."""
    if args.suite:
        return _run_suite(args, overrides)
    for name in options.given(args, *_SUITE):
        raise UserError(f"--{name} belongs to --suite: add --suite, or leave --{name} out")
    if args.config is None:
        raise UserError("bench takes one of --config FILE and --suite")
    config = options.load_config(args, overrides)
    from biggan_jax.parallel import devices, sharding
    from biggan_jax.planning import bench, forms, layer_times
    from biggan_jax.training import memory

    if args.data and config.data.source is None:
        raise UserError("data.source is not set: set --config.data.source, or leave out --data")
    with devices.named_errors(lambda: memory.remedy(config, sharding.make_mesh(config.mesh).size)):
        result = bench.bench(
            config, profile=args.profile, layers=args.layers, with_monitors=args.monitors
        )
    if args.data:
        result["input_images_per_second"] = bench.input_images_per_second(config)
    figures = {key: value for key, value in result.items() if not isinstance(value, list)}
    say(args, "\n".join(f"{key:<26}{figure(value)}" for key, value in figures.items()))
    if args.layers:
        say(args, layer_times.text(result))
        if "forms" in result:
            say(args, forms.text(result["forms"]))
    return result, 0


def _run_suite(args: argparse.Namespace, overrides: list[str]) -> tuple[dict, int]:
    for name in ("config", "data", "monitors", "profile", "layers"):
        if getattr(args, name):
            raise UserError(f"--{name} and --suite exclude each other: leave one out")
    options.no_overrides(overrides, "bench")
    from biggan_jax.planning import suite

    def progress(line: str) -> None:
        print(line, file=sys.stderr)

    result, text, slower = suite.run(progress=progress, **options.given(args, *_SUITE))
    say(args, text)
    return result, int(slower)


def figure(value: bool | float) -> str:
    """One figure of `bench`, for a person."""
    if isinstance(value, bool):
        return ("no", "yes")[value]
    return f"{value:.2g}" if 0 < value < 0.01 else f"{value:,.3f}"
