"""Command-line options of `biggan evaluate`."""

import argparse
from pathlib import Path


def add(sub: argparse.ArgumentParser) -> None:
    """The options of `biggan evaluate`."""
    one = sub.add_mutually_exclusive_group(required=True)
    one.add_argument("--from", dest="source", metavar="DIR")
    one.add_argument(
        "--compare",
        nargs=2,
        type=Path,
        metavar=("A.json", "B.json"),
        help="which of two results is better; refused where their protocols differ",
    )
    add = sub.add_argument_group("what it is compared with").add_argument
    add("--data", metavar="SPEC[:SPLIT]", help="real images; default: those it was trained on")
    add("--reference", type=Path, metavar="F.npz", help="statistics (mu, sigma) in their place")
    add("--features", choices=("inception", "classifier"))
    add("--inception", type=Path, metavar="DIR", help="weights of `import --format inception-fid`")
    add("--fit-classifier", action="store_true", help="fit the classifier anew")
    add = sub.add_argument_group("the samples").add_argument
    add("--samples", type=int, metavar="N", help="50,000 with inception, 10,000 with classifier")
    add("--truncation", type=thresholds, default=(None,), metavar="T,...", help="several: a curve")
    add("--truncation-kind", choices=("resample", "scale"), default="resample")
    add("--seed", type=int, default=0)
    add("--bn-mode", choices=("running", "batch", "standing"), default="running")
    add("--raw", action="store_true", help="raw weights instead of the average")
    add("--matrix", action="store_true", help="every bn mode with averaged and raw weights")
    add = sub.add_argument_group("output").add_argument
    add("--no-intra-fid", action="store_true", help="where a class has too few real images")
    add("--out", metavar="FOLDER", help="of .json, .csv and plot; default: DIR/report")
    add(
        "--follow",
        action="store_true",
        help="score checkpoints as they land, until the run has finished",
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
