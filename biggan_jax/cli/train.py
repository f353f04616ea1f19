"""`biggan train`."""

import argparse
import sys

from biggan_jax import errors
from biggan_jax.cli import multihost, options
from biggan_jax.cli.output import say, writing
from biggan_jax.errors import UserError, counts
from biggan_jax.parallel import devices, signals


def add(command) -> None:
    """Adds the command."""
    sub = command("train", run, "train a GAN; resumes by itself from the workdir")
    options.add_config(sub)
    sub.unless = {"--config": _names_a_run}
    sub.add_argument("--workdir", type=options.path, required=True, metavar="DIR")
    sub.add_argument(
        "--allow-change",
        action="store_true",
        help="continue under other values of optimizer.*, regularizer.*, guard.*, loss, ema.* "
        "or seed",
    )
    sub.add_argument(
        "--fork",
        type=options.path,
        metavar="DIR@STEP",
        help="start a new workdir with the whole state of a checkpoint of another run (DIR: of its "
        "newest one) and with the settings that --config.KEY=VALUE changes; without --config its "
        "config is taken",
    )
    add_seeds(sub)
    multihost.add(sub)


def add_seeds(sub: argparse.ArgumentParser) -> None:
    """Several seeds of one config."""
    group = sub.add_argument_group("several seeds of one config, trained by one program")
    group.add_argument(
        "--seeds",
        type=int,
        metavar="K",
        help="train the seeds S to S + K - 1 (S: --config.seed), each in a workdir DIR/seed_N, and "
        "give the mean and the deviation of every score in DIR/seeds.json and DIR/seeds.csv",
    )
    group.add_argument(
        "--seeds-form",
        choices=("vmap", "turns"),
        help="all seeds in one step by jax.vmap, or one after another in the same compiled step; "
        "default: vmap on one accelerator, else turns, which is faster there",
    )


def _names_a_run(words: list[str]) -> bool:
    """Whether arguments without --config name a run whose config is taken."""
    names = [word.partition("=")[0] for word in words]
    if "--fork" in names:
        return True
    if "--config" in names or "--workdir" not in names:
        return False
    at = names.index("--workdir")
    workdir = words[at].partition("=")[2] or " ".join(words[at + 1 : at + 2])
    from biggan_jax.training import origin

    try:
        return origin.holds_config(workdir)
    except (UserError, OSError):
        return False  # --workdir is refused by itself


def _config(args: argparse.Namespace, overrides: list[str]):
    """The config of --config, else that of the run in the workdir or of the one to be forked."""
    if args.config is not None:
        return options.load_config(args, overrides, need_classes=False)
    from biggan_jax.training import origin

    config = origin.config_of(args.workdir, args.fork, overrides)
    if config is None:
        raise UserError(f"--workdir {args.workdir} has just lost its run: give --config FILE")
    return config


def run(args: argparse.Namespace, overrides: list[str]) -> tuple[dict, int]:
    """`biggan train`."""
    _check_seeds(args)
    with signals.exit_on_sigterm():
        config = _config(args, overrides)
        from biggan_jax.parallel import processes, sharding

        with multihost.session(args):
            from biggan_jax.storage import checkpoint
            from biggan_jax.training import memory
            from biggan_jax.training.loop import train

            def remedy() -> str:
                saved = checkpoint.Checkpoints(f"{args.workdir}/checkpoints").latest_step()
                size = sharding.make_mesh(config.mesh).size
                return memory.remedy(config, size, resumed=saved is not None)

            if args.seeds is not None:
                return _train_seeds(args, config, remedy)
            with writing(args.workdir), devices.named_errors(remedy):
                result = train(config, args.workdir, allow_change=args.allow_change, fork=args.fork)
    code = result.pop("exit_code")
    if not processes.is_main():
        pass  # one process speaks for all
    elif code:
        stopped = f"stopped after step {result['step']}; the same command continues"
        print(f"{stopped}{_report(result)}", file=sys.stderr)
    else:
        steps, folder = counts(result["step"], "step", "steps"), args.workdir.rstrip("/")
        say(args, f"finished {steps}; samples in {folder}/samples{_report(result)}")
    return result | {"workdir": args.workdir, "finished": code == 0}, code


def _check_seeds(args: argparse.Namespace) -> None:
    """Raises UserError for options that several seeds do not go with."""
    if args.seeds is None and args.seeds_form is not None:
        raise UserError(f"--seeds-form {args.seeds_form}: give the number of seeds by --seeds K")
    if args.seeds is None:
        return
    if args.config is None:
        raise UserError(f"--seeds {args.seeds} needs the config of all seeds: give --config FILE")
    if args.fork is not None:
        raise UserError(
            f"--seeds {args.seeds}: a fork goes on with the one state of its origin: leave --fork "
            "or --seeds out"
        )


def _train_seeds(args: argparse.Namespace, config, remedy) -> tuple[dict, int]:
    """`biggan train --seeds K`."""
    from biggan_jax.sweep import seed_results, seeds

    given = {"form": args.seeds_form, "allow_change": args.allow_change}
    with writing(args.workdir), devices.named_errors(remedy):
        result = seeds.train(config, args.workdir, args.seeds, **given)
    code = result.pop("exit_code")
    say(args, seed_results.table(result))
    if code in (errors.EXIT_INTERRUPTED, errors.EXIT_TERMINATED):
        stopped = f"stopped after step {result['step']}; the same command continues"
        print(stopped, file=sys.stderr)
    return result | {"workdir": args.workdir}, code


def _report(result: dict) -> str:
    return f"; report: {result['report']}" if "report" in result else ""
