"""`biggan COMMAND ...`: parse, dispatch, nothing else.

With --json stdout is exactly one line, one JSON object; everything else goes to stderr. Exit codes:
0 finished, 2 bad usage or input (one line says what is wrong and what to do), 1 failure, 130 after
Ctrl-C, 75 when SIGTERM stopped an unfinished run.
"""

import argparse
import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from biggan_jax import errors
from biggan_jax.cli import evaluate_options as evaluation_arguments
from biggan_jax.cli import options
from biggan_jax.errors import UserError
from biggan_jax.interop import command as interop_command
from biggan_jax.parallel import signals


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str):
        raise UserError(f"{message} (see {self.prog} --help)")


def parser() -> Parser:
    """The command line of the contract in the README."""
    top = Parser(prog="biggan", description="Train and sample SAGAN and BigGAN on JAX.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(run=run)
        sub.add_argument("--json", action="store_true", help="print one JSON object on stdout")
        return sub

    def takes_config(sub: argparse.ArgumentParser, required: bool = True) -> None:
        sub.add_argument("--config", metavar="FILE", required=required, help="a file of configs/")
        sub.epilog = "Any setting is overridden by --config.KEY=VALUE."

    sub = command("train", run_train, "train a GAN; resumes by itself from the workdir")
    takes_config(sub)
    sub.add_argument("--workdir", required=True, metavar="DIR")
    options.add_multihost(sub)

    sub = command("sample", run_sample, "make images with a trained generator")
    sub.add_argument("--from", dest="source", required=True, metavar="DIR")
    sub.add_argument("--out", required=True, metavar="F.png|F.npz")
    sub.add_argument("--classes", metavar="0,3", help="default: all (a picture: 10 at most)")
    sub.add_argument("--per-class", type=int, default=10, metavar="N")
    options.add_latents(sub)
    options.add_weights(sub)
    options.add_standing(sub)
    options.add_truncation_statistics(sub)
    sub.add_argument(
        "--interpolate", action="store_true", help="each row goes from one z to another"
    )

    evaluation_arguments.add(command("evaluate", run_evaluate, "score a generator: FID, IS, KID"))
    sub = command("look", run_look, "pictures of a trained model at work: attention, bn")
    options.add_look(sub)

    sub = command(
        "inspect", run_inspect, "layers, shapes, parameters and FLOPs; no data, no compile"
    )
    takes_config(sub, required=False)
    sub.add_argument("--from", dest="source", metavar="DIR", help="instead of --config")

    interop_command.add_import(command("import", run_interop, "published weights into a model"))
    interop_command.add_export(command("export", run_interop, "all weights of a model to a file"))

    sub = command("prepare", run_prepare, "turn any image source into sharded records")
    sub.add_argument("--source", required=True, metavar="SPEC", help="folder:PATH, tfds:NAME, ...")
    sub.add_argument("--resolution", required=True, type=int, metavar="R", help="pixels")
    sub.add_argument("--channels", type=int, choices=(1, 3), default=3)
    sub.add_argument("--on-bad-record", choices=("error", "skip"), default="error")
    sub.add_argument("--out", required=True, type=Path, metavar="DIR")

    sub = command("plan", run_plan, "compile the training step for a TPU topology; no TPU needed")
    takes_config(sub)
    options.add_plan(sub)

    sub = command("bench", run_bench, "time the training step on synthetic batches")
    takes_config(sub)
    sub.add_argument("--data", action="store_true", help="time the input pipeline as well")
    sub.add_argument("--profile", type=Path, metavar="DIR", help="write a profiler trace")
    return top


def load_config(args: argparse.Namespace, overrides: list[str], need_classes: bool = True):
    """The config of --config and its overrides."""
    from biggan_jax import models
    from biggan_jax.config import config_file

    config = config_file.load(args.config, overrides)
    if need_classes:
        models.check(config.model)
    return config


def run_train(args, overrides) -> tuple[dict, int]:
    """`biggan train`."""
    with signals.exit_on_sigterm():
        config = load_config(args, overrides, need_classes=False)
        from biggan_jax.parallel import distributed, processes

        with distributed.session(distributed.Options(**options.multihost(args))):
            from biggan_jax.training.loop import train

            with writing(args.workdir):
                result = train(config, args.workdir)
    code = result.pop("exit_code")
    if not processes.is_main():
        pass  # one process speaks for all
    elif code:
        print(f"stopped after step {result['step']}; the same command continues", file=sys.stderr)
    else:
        say(args, f"finished {result['step']:,} steps; samples in {args.workdir}/samples")
    return result | {"workdir": args.workdir, "finished": code == 0}, code


def run_sample(args, overrides) -> tuple[dict, int]:
    """`biggan sample`."""
    no_overrides(overrides)
    from biggan_jax.sampling import files as sample_files

    with writing(args.out):
        result = sample_files.write(
            args.source,
            args.out,
            classes=args.classes,
            per_class=args.per_class,
            truncation=args.truncation,
            truncation_kind=args.truncation_kind,
            seed=args.seed,
            bn_mode=args.bn_mode,
            standing=options.standing(args),
            ema=not args.raw,
            interpolate=args.interpolate,
            truncation_statistics=args.truncation_statistics,
            hf_interpolation=args.hf_interpolation,
        )
    say(args, f"{result['count']} samples in {result['out']} ({result['seconds']:.1f} s)")
    return result, 0


def run_look(args, overrides) -> tuple[dict, int]:
    """`biggan look`."""
    no_overrides(overrides)
    with writing(args.out):
        result, text = options.look(args)
    say(args, text)
    return result, 0


def run_evaluate(args, overrides) -> tuple[dict, int]:
    """`biggan evaluate`."""
    no_overrides(overrides)
    result, text = evaluation_arguments.evaluate(args)
    say(args, text)
    return result, 0


def run_inspect(args, overrides) -> tuple[dict, int]:
    """`biggan inspect`."""
    from biggan_jax import config as config_lib
    from biggan_jax.parallel import sharding
    from biggan_jax.planning import summary
    from biggan_jax.training import build as build_lib

    if (args.config is None) == (args.source is None):
        raise UserError("inspect takes one of --config FILE and --from DIR")
    if args.source is not None:
        no_overrides(overrides)
        from biggan_jax.storage import directory

        config = directory.open_directory(args.source)[1]
    else:
        config = load_config(args, overrides)
    mesh = sharding.make_mesh((1,))
    config_lib.validate(config, mesh.size)

    build = lambda fused: build_lib.train_step(config, mesh, fused=fused)
    result, lines = summary.summarize(build(True), build(False), config.batch_size)
    say(args, "\n".join(lines))
    return result, 0


def run_interop(args, overrides) -> tuple[dict, int]:
    """`biggan import` and `biggan export`."""
    with writing(args.out):
        result, lines = interop_command.run(args, overrides)
    say(args, "\n".join(lines))
    return result, 0


def run_prepare(args, overrides) -> tuple[dict, int]:
    """`biggan prepare`."""
    no_overrides(overrides)
    from tqdm import tqdm

    from biggan_jax import data

    if args.resolution < 1:
        raise UserError(f"--resolution is {args.resolution}; set it to 1 or more pixels")
    source = data.open_source(
        args.source,
        resolution=args.resolution,
        channels=args.channels,
        on_bad_record=args.on_bad_record,
    )
    with tqdm(total=len(source), unit="image", disable=None) as bar, writing(args.out):
        tell = lambda done, total: bar.update(done - bar.n)
        info = data.prepare(source, args.out, progress=tell)
    if source.bad_records:
        print(f"{source.bad_records} bad records were replaced", file=sys.stderr)
    say(args, f"{info['count']:,} images of {info['num_classes']} classes in {args.out}")
    return info | {"out": str(args.out)}, 0


def run_plan(args, overrides) -> tuple[dict, int]:
    """`biggan plan`."""
    from biggan_jax.planning import plan

    load = lambda more: load_config(args, [*overrides, *more])
    tell = lambda line: print(line, file=sys.stderr)
    result, text = plan.run(load, progress=tell, **options.plan(args))
    say(args, text)
    return result, 0


def run_bench(args, overrides) -> tuple[dict, int]:
    """`biggan bench`."""
    config = load_config(args, overrides)
    from biggan_jax.planning import bench

    if args.data and config.data.source is None:
        raise UserError("data.source is not set: set --config.data.source, or leave out --data")
    result = bench.bench(config, profile=args.profile)
    if args.data:
        result["input_images_per_second"] = bench.input_images_per_second(config)
    say(args, "\n".join(f"{key:<26}{value:,.3f}" for key, value in result.items()))
    return result, 0


def no_overrides(overrides: list[str]) -> None:
    """Refuses arguments that no option of the command takes."""
    if overrides:
        raise UserError(f"unknown argument {overrides[0]!r} (see biggan COMMAND --help)")


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Names `path` in an OSError that names no file, as that of a write to a full disk."""
    try:
        yield
    except OSError as e:
        if e.filename is not None or str(path) in str(e):
            raise
        raise OSError(f"{path}: {e}") from e


def say(args: argparse.Namespace, text: str) -> None:
    """Prints for a person, out of the way of the JSON line."""
    print(text, file=sys.stderr if args.json else sys.stdout)


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow only writes event files here
    logging.getLogger("absl").setLevel(logging.WARNING)
    try:
        args, overrides = parser().parse_known_args(argv)
        result, code = args.run(args, overrides)
        if args.json:
            print(json.dumps(result))
        sys.stdout.flush()
        return code
    except errors.EXPECTED as e:
        return errors.tell(e)
