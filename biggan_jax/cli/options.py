"""Command-line options that several commands share, and how they are read."""

import argparse
import os
from pathlib import Path
from typing import Any

from biggan_jax.cli import model_option
from biggan_jax.errors import UserError, did_you_mean

# Default of an option whose default is that of the function which takes it.
UNSET = argparse.SUPPRESS
FEATURES = ("inception", "dinov2", "classifier")  # networks of `--features`


def path(text: str) -> str:
    """A path as an option takes it: not empty, its `~` expanded, which `--out=~/x` leaves to us."""
    from biggan_jax.storage import paths

    try:
        return os.fspath(paths.workdir_path(text))
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def local_path(text: str) -> Path:
    """A path on this machine; what an option of `type=Path` becomes."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text} is no folder or file of this machine")
    return Path(path(text))


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json, which may stand before a command or behind it."""
    # A default here would undo the one before the command.
    parser.add_argument(
        "--json", action="store_true", default=UNSET, help="print one JSON object on stdout"
    )


def add_config(sub: argparse.ArgumentParser, required: bool = True) -> None:
    """--config and its overrides; `load_config` reads them."""
    sub.add_argument(
        "--config",
        metavar="FILE|NAME",
        required=required,
        help="a config file, or the name of one that comes with the package, such as digits",
    )
    sub.epilog = "Any setting is overridden by --config.KEY=VALUE."


def add_source(sub: argparse.ArgumentParser) -> None:
    """--from and --step."""
    sub.add_argument(
        "--from",
        dest="source",
        type=model_option.model,
        required=True,
        metavar="DIR",
        help="a workdir or model directory, hf://USER/REPO[@REVISION], or digits-demo",
    )
    add_step(sub)


def add_resize(sub) -> None:
    """--resize, for a parser or a group of one."""
    sub.add_argument(
        "--resize",
        choices=("tf1", "pytorch_fid", "clean"),  # of metrics/resize.py, which imports JAX
        default=UNSET,
        help="how images reach Inception: as for published FIDs (default), as pytorch-fid, or "
        "antialiased as clean-fid",
    )


def add_features(sub, default: Any) -> None:
    """--features and where the weights of its networks are, for a parser or a group of one."""
    add = sub.add_argument
    add(
        "--features",
        type=features,
        default=default,
        metavar="NAME",
        help=f"{', '.join(FEATURES)}, or module:function, a Python function of your own: images "
        "uint8 [N, H, W, C] -> features [N, D]",
    )
    weights = "weights of `import --format inception-fid`"
    add("--inception", type=Path, default=default, metavar="DIR", help=weights)
    weights = weights.replace("inception-fid", "dinov2")
    add("--dinov2", type=Path, default=default, metavar="DIR", help=weights)


def features(text: str) -> str:
    """The value of --features; ArgumentTypeError where it is none."""
    if text in FEATURES or ":" in text:
        return text
    raise argparse.ArgumentTypeError(
        f"no features {text!r}{did_you_mean(text, FEATURES)}: choose {', '.join(FEATURES)}, or "
        "name a Python function of your own as module:function"
    )


def add_step(sub) -> None:
    """--step, for a parser or a group of one."""
    sub.add_argument(
        "--step",
        type=step,
        metavar="N|best",
        help="a checkpoint of the run, or its state with the best FID; default: the newest",
    )


def step(text: str) -> int | str:
    """The value of --step; ArgumentTypeError where it is none."""
    from biggan_jax.storage import steps

    try:
        return steps.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_latents(sub: argparse.ArgumentParser) -> None:
    """--truncation, and the options of `add_draw`."""
    sub.add_argument("--truncation", type=float, metavar="T", help="redraw every |z_i| > T")
    add_draw(sub)


def add_draw(sub) -> None:
    """--truncation-kind and --seed, for a parser or a group of one."""
    sub.add_argument("--truncation-kind", choices=("resample", "scale"), default=UNSET)
    sub.add_argument("--seed", type=int, default=UNSET)


def add_weights(sub) -> None:
    """--bn-mode, --raw and --ema, for a parser or a group of one."""
    sub.add_argument("--bn-mode", choices=("running", "batch", "standing"), default=UNSET)
    add_which(sub, "raw weights instead of the average")


def add_which(sub, raw: str) -> None:
    """--raw, with its help, and --ema, of which one may be given."""
    one = sub.add_mutually_exclusive_group()
    one.add_argument("--raw", action="store_true", help=raw)
    add_ema(one)


def add_ema(sub) -> None:
    """--ema, for a parser or a group of one; `ema` reads it together with --raw."""
    sub.add_argument(
        "--ema",
        metavar="NAME",
        help="another average that the run keeps: decay_0.999 of ema.decays, profile_0.05 of "
        "ema.profiles",
    )


def ema(args: argparse.Namespace) -> bool | str:
    """Which weights of G: True the average, False the raw ones, or the name of another average."""
    return not args.raw if args.ema is None else args.ema


def which(args: argparse.Namespace) -> bool | str | None:
    """As `ema`, but None where neither option is given."""
    return ema(args) if args.raw or args.ema is not None else None


def add_standing(sub: argparse.ArgumentParser) -> None:
    """The forwards behind standing statistics; `standing` reads them."""
    group = sub.add_argument_group("standing statistics (bn mode 'standing')")
    add = group.add_argument
    add("--standing-batches", type=int, metavar="N", help="forwards to average over; 16")
    add("--standing-batch-size", type=int, metavar="B", help="samples of a forward; 64")
    add(
        "--standing-truncation",
        type=float,
        metavar="T",
        help="of their latents; default: as the samples'",
    )


def thresholds(text: str) -> tuple[float, ...]:
    """Truncation thresholds of a list such as 0.1,0.5,1.0.

    Args:
      text: what the user wrote.

    Returns:
      The thresholds in ascending order, each once.

    Raises:
      ArgumentTypeError: it is no list of positive numbers.
    """
    try:
        values = sorted({float(part) for part in text.split(",")})
    except ValueError:
        values = []
    if not values or not all(0 < value < float("inf") for value in values):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of thresholds: write positive numbers such as 0.1,0.5,1.0"
        )
    return tuple(values)


def add_sweep(sub: argparse.ArgumentParser, help: str) -> None:
    """--sweep KEY=A,B, as often as there are axes; `combinations.parse` reads it."""
    sub.add_argument("--sweep", action="append", default=[], metavar="KEY=A,B", help=help)


def given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Some of the arguments, to be handed on by name; those that are `UNSET` are left out."""
    return {name: getattr(args, name) for name in names if hasattr(args, name)}


def standing(args: argparse.Namespace) -> dict[str, Any]:
    """The options of `add_standing` that were given, as arguments of `set_bn_mode`."""
    names = ("batches", "batch_size", "truncation")
    values = {name: getattr(args, f"standing_{name}") for name in names}
    return {name: value for name, value in values.items() if value is not None}


def load_config(args: argparse.Namespace, overrides: list[str], need_classes: bool = True):
    """The config of --config and its overrides.

    Args:
      args: with the options of `add_config`.
      overrides: what no option of the command took.
      need_classes: whether the `model` section must be complete, with `num_classes`.

    Returns:
      The locked config.

    Raises:
      UserError: a file or an override that cannot be used.
    """
    from biggan_jax import models
    from biggan_jax.config import config_file

    config = config_file.load(args.config, overrides)
    if need_classes:
        models.check(config.model)
    return config


def whole(text: str) -> int:
    """The value of an option that is a whole number, such as 1000, 1_000 or 1e3."""
    from biggan_jax.config import values

    found = values.whole(text.strip())
    if found is not None:
        return found
    try:
        return int(text)  # of any size: what takes it says how large it may be
    except ValueError:
        problem = f"{text!r} is no whole number; write one such as 10"
        raise argparse.ArgumentTypeError(problem) from None


def number(text: str) -> float:
    """The value of an option that is a number."""
    from biggan_jax.config import values

    found = values.number(text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no number; write one such as 0.5")
    return found


def is_override(option: str) -> bool:
    """Whether an option is left to `config.overrides`, which knows the settings."""
    return option.lower().startswith(("--config.", "--noconfig."))


def as_setting(words: list[str]) -> str | None:
    """What to write where an unknown option, such as --batch-size, is the name of a setting.

    Args:
      words: the option and, where there is one, the argument behind it.

    Returns:
      One line; None where it is no setting.
    """
    from biggan_jax.config import overrides

    line = overrides.explain(*words)
    return line if overrides.WRITE in line else None


def no_overrides(overrides: list[str], command: str = "") -> None:
    """Refuses arguments that no option of the command takes."""
    if not overrides:
        return
    if overrides[0].startswith("--"):
        of = f"biggan {command}" if command else "this command"
        raise UserError(f"{of} takes no settings: leave {overrides[0]!r} out")
    of = f"biggan {command or 'COMMAND'}"
    raise UserError(f"unexpected argument {overrides[0]!r} (see {of} --help)")
