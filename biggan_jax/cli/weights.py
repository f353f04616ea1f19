"""`biggan import` and `biggan export`: weights of others, in and out."""

import argparse
from pathlib import Path

from biggan_jax.cli import options
from biggan_jax.cli.output import say, writing
from biggan_jax.errors import UserError, counts

IMPORTS = ("biggan-pytorch", "pretrained-biggan", "inception-fid", "biggan-jax")
EXPORTS = ("safetensors", "biggan-pytorch")


def add(command) -> None:
    """Adds both commands."""
    sub = command("import", run_import, "published weights into a model")
    sub.add_argument("--format", required=True, choices=IMPORTS)
    sub.add_argument(
        "sources", nargs="+", type=Path, metavar="SOURCE", help="files, or the peer's folder"
    )
    sub.add_argument("--out", required=True, type=Path, metavar="DIR", help="a model directory")
    sub.add_argument("--suffix", metavar="S", help="which of a folder's copies: best0, copy1, ...")
    sub.add_argument("--bn-eps", type=float, metavar="E", help="of batch norm (a file has none)")
    sub.add_argument("--sn-eps", type=float, metavar="E", help="of spectral norm")
    sub.add_argument(
        "--any-weights", action="store_true", help="inception-fid: take another file than published"
    )
    sub.epilog = "What the tensors say of the model is overridden by --config.model.KEY=VALUE."

    sub = command("export", run_export, "all weights of a model to a file")
    options.add_source(sub)
    options.add_ema(sub)
    sub.add_argument("--format", choices=EXPORTS, default="safetensors")
    sub.add_argument(
        "--out", required=True, type=Path, metavar="F", help="a file (biggan-pytorch: a folder)"
    )


def run_import(args: argparse.Namespace, overrides: list[str]) -> tuple[dict, int]:
    """`biggan import`."""
    given = _epsilons(args)
    with writing(args.out):
        if args.format == "inception-fid":
            result, lines = _import_inception(args, overrides)
        else:
            result, lines = _import_model(args, overrides, given)
    say(args, "\n".join(lines))
    return result | {"format": args.format}, 0


def _epsilons(args: argparse.Namespace) -> dict[str, float]:
    """The epsilons that were given; refuses options that the format does not take."""
    if args.suffix is not None and args.format != "biggan-pytorch":
        raise UserError("--suffix is for --format biggan-pytorch alone; leave it out")
    eps = options.given(args, "bn_eps", "sn_eps")
    given = {key: value for key, value in eps.items() if value is not None}
    for key, value in given.items():
        flag = "--" + key.replace("_", "-")
        if not 0 < value < 1:
            raise UserError(f"{flag} is {value}; set it to a value between 0 and 1, such as 1e-5")
        if args.format in ("biggan-jax", "inception-fid"):
            raise UserError(f"{flag} is not for --format {args.format}; leave it out")
    if args.any_weights and args.format != "inception-fid":
        raise UserError("--any-weights is for --format inception-fid alone; leave it out")
    return given


def _import_model(
    args: argparse.Namespace, overrides: list[str], epsilons: dict[str, float]
) -> tuple[dict, list[str]]:
    from biggan_jax.interop import convert

    if args.format == "biggan-pytorch":
        from biggan_jax.interop import biggan_pytorch

        result = biggan_pytorch.import_weights(
            args.sources, args.out, suffix=args.suffix, overrides=overrides, **epsilons
        )
    elif args.format == "pretrained-biggan":
        from biggan_jax.interop import pretrained_biggan

        result = pretrained_biggan.import_weights(
            args.sources, args.out, overrides=overrides, **epsilons
        )
    else:
        from biggan_jax.interop import export

        result = export.from_safetensors(args.sources, args.out, overrides)
    return result, convert.lines(result)


def _import_inception(args: argparse.Namespace, overrides: list[str]) -> tuple[dict, list[str]]:
    options.no_overrides(overrides, "import")
    from biggan_jax.interop import inception

    result = inception.import_inception(args.sources, args.out, any_weights=args.any_weights)
    line = f"Inception: {result['parameters']:,} parameters of {result['file']} in {result['out']}"
    return result, [line]


def run_export(args: argparse.Namespace, overrides: list[str]) -> tuple[dict, int]:
    """`biggan export`."""
    options.no_overrides(overrides, "export")
    from biggan_jax.interop import export

    write = export.to_safetensors if args.format == "safetensors" else export.to_biggan_pytorch
    with writing(args.out):
        result = write(args.source, args.out, step=args.step, ema=args.ema or True)
    found = result["networks"].items()
    held = ", ".join(f"{name} ({counts(n, 'tensor', 'tensors')})" for name, n in found)
    say(args, f"{held} in {result['out']}")
    return result | {"format": args.format}, 0
