"""The options of `biggan look`: those that all kinds have, and those of each kind."""

import argparse
from pathlib import Path

from biggan_jax.cli import model_option, options

UNSET = options.UNSET


def add_source(one: argparse.ArgumentParser, kind: str) -> None:
    """--from; of several workdirs where the kind compares them."""
    several = {"nargs": "+", "help": "workdirs"} if kind == "held-out" else {}
    one.add_argument(
        "--from", dest="source", type=model_option.model, required=True, metavar="DIR", **several
    )


def add_picture(one: argparse.ArgumentParser, moves: bool) -> None:
    """--out, --width and --dpi."""
    add = one.add_argument_group("the picture").add_argument
    more = "; moving: .gif or .webp" if moves else ""
    also = "or .jpg, .jpeg" + (more or ", .webp")
    add("--out", required=True, type=Path, metavar="F.png", help=also)
    add(
        "--width",
        metavar="W",
        help="pixels such as 390px (a phone's width) or 390; or 6.5in, 16cm, 165mm at --dpi; "
        "default: what the images ask for",
    )
    add("--dpi", type=int, metavar="N", help="dots per inch: size of letters, 300 for print; 110")


def add_samples(one: argparse.ArgumentParser, kind: str, count: str) -> None:
    """Which samples, and which state of the run they come from."""
    group = one.add_argument_group("the samples")
    add_classes(group, "spread over all; of the rows in turn")
    group.add_argument("--count", type=int, default=UNSET, metavar="N", help=count)
    if kind != "truncation":
        group.add_argument("--truncation", type=float, metavar="T", help="redraw every |z_i| > T")
    options.add_draw(group)
    options.add_step(group)
    if kind == "bn":  # which shows all modes
        options.add_which(group, "raw weights alone; default: the average and the raw ones")
    else:
        options.add_weights(group)


def add_classes(sub, default: str) -> None:
    """--classes, for a parser or a group of one."""
    sub.add_argument(
        "--classes",
        metavar="cat,dog|0-9",
        default=UNSET,
        help="names as they are written (case counts), ids or ranges of ids; name:10 or id:10 "
        "where 10 could be either, double quotes around a name with a comma; default: " + default,
    )


def add_grid(one: argparse.ArgumentParser) -> None:
    """The options of `look grid`."""
    one.add_argument("--same-z", action="store_true", help="all images of a column have the same z")


def add_truncation(one: argparse.ArgumentParser) -> None:
    """The options of `look truncation`."""
    one.add_argument(
        "--thresholds",
        "--truncation",
        type=options.thresholds,
        default=UNSET,
        metavar="T,T,...",
        help="0.1,0.25,0.5,0.75,1,1.5",
    )


def add_interpolate(one: argparse.ArgumentParser) -> None:
    """The options of `look interpolate`."""
    one.add_argument(
        "--what", choices=("z", "class", "both"), default=UNSET, help="what changes; z"
    )
    one.add_argument(
        "--points", type=int, default=UNSET, metavar="K", help="images of a path; 8, moving 24"
    )


def add_attention(one: argparse.ArgumentParser) -> None:
    """The options of `look attention`."""
    add = one.add_argument
    add("--layer", metavar="NAME", help="default: that of the highest resolution")
    add("--points", metavar="'R,C;R,C'", help="image pixels, from the top left")
    add("--num-points", type=int, metavar="K", help="points to pick; 5")
    add("--discriminator", action="store_true", help="look into D instead of G")
    add("--images", nargs="+", type=Path, default=[], metavar="PATH", help="for D: files, folders")


def add_neighbours(one: argparse.ArgumentParser) -> None:
    """The options of `look neighbours`."""
    add = one.add_argument
    add("--data", metavar="SPEC[:SPLIT]", help="default: the images that it was trained on")
    add("--nearest", type=int, default=UNSET, metavar="K", help="images beside each sample; 5")
    add(
        "--features",
        choices=("inception", "classifier", "pixels"),
        help="what a distance is of; default: inception or the run's classifier where it is at "
        "hand, otherwise pixels",
    )
    add("--inception", type=Path, metavar="DIR", help="weights of `import --format inception-fid`")
    add("--cache", type=Path, metavar="FOLDER", help="of the classifier; default: DIR/cache")


def add_chunks(one: argparse.ArgumentParser) -> None:
    """The options of `look chunks`."""
    one.add_argument("--points", type=int, default=UNSET, metavar="K", help="images of a row; 7")


def add_directions(one: argparse.ArgumentParser) -> None:
    """The options of `look directions`."""
    add = one.add_argument
    add(
        "--method",
        choices=("sefa", "ganspace"),
        default=UNSET,
        help="singular vectors of the first layer's weights, or principal components of its "
        "outputs; sefa",
    )
    add("--directions", dest="number", type=int, metavar="N", help="how many; 6")
    add("--points", type=int, default=UNSET, metavar="K", help="images of a row, an odd number; 7")


def add_progress(one: argparse.ArgumentParser) -> None:
    """The options of `look progress`."""
    one.add_argument("--most", type=int, metavar="N", help="steps that are shown; 12, moving all")


def add_bn(one: argparse.ArgumentParser) -> None:
    """The options of `look bn`."""
    one.add_argument("--per-class", dest="count", type=int, default=UNSET, help="as --count")
    options.add_standing(one)


def add_spectra(one: argparse.ArgumentParser) -> None:
    """The options of `look spectra`, which looks at metrics.jsonl and makes no samples."""
    one.add_argument(
        "--value",
        default=UNSET,
        metavar="NAME",
        help="of the layers: raw_sigma0 (also 1, 2), the largest singular value before spectral "
        "normalisation; sigma0 (1, 2) after it; ratio, weight_norm; default: raw_sigma0",
    )
