"""`biggan import` and `biggan export`: options, and which function runs for which format."""

import argparse
from pathlib import Path

from biggan_jax.errors import UserError

IMPORTS = ("biggan-pytorch", "pretrained-biggan", "inception-fid", "biggan-jax")
EXPORTS = ("safetensors", "biggan-pytorch")


def add_import(sub: argparse.ArgumentParser) -> None:
    """Adds the options of `biggan import`."""
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


def add_export(sub: argparse.ArgumentParser) -> None:
    """Adds the options of `biggan export`."""
    sub.add_argument("--from", dest="source", required=True, metavar="DIR")
    sub.add_argument("--format", choices=EXPORTS, default="safetensors")
    sub.add_argument(
        "--out", required=True, type=Path, metavar="F", help="a file (biggan-pytorch: a folder)"
    )


def run(args: argparse.Namespace, overrides: list[str]) -> tuple[dict, list[str]]:
    """Runs either command; returns the result and its lines for a person."""
    return _import(args, overrides) if args.command == "import" else _export(args, overrides)


def _import(args: argparse.Namespace, overrides: list[str]) -> tuple[dict, list[str]]:
    if args.suffix is not None and args.format != "biggan-pytorch":
        raise UserError("--suffix is for --format biggan-pytorch alone; leave it out")
    eps = {"bn_eps": args.bn_eps, "sn_eps": args.sn_eps}
    given = {key: value for key, value in eps.items() if value is not None}
    for key, value in given.items():
        flag = "--" + key.replace("_", "-")
        if not 0 < value < 1:
            raise UserError(f"{flag} is {value}; set it to a value between 0 and 1, such as 1e-5")
        if args.format in ("biggan-jax", "inception-fid"):
            raise UserError(f"{flag} is not for --format {args.format}; leave it out")
    if args.any_weights and args.format != "inception-fid":
        raise UserError("--any-weights is for --format inception-fid alone; leave it out")
    if args.format == "inception-fid":
        return _import_inception(args, overrides)
    from biggan_jax.interop import convert

    if args.format == "biggan-pytorch":
        from biggan_jax.interop import biggan_pytorch

        result = biggan_pytorch.import_weights(
            args.sources, args.out, suffix=args.suffix, overrides=overrides, **given
        )
    elif args.format == "pretrained-biggan":
        from biggan_jax.interop import pretrained_biggan

        result = pretrained_biggan.import_weights(
            args.sources, args.out, overrides=overrides, **given
        )
    else:
        from biggan_jax.interop import export

        result = export.from_safetensors(args.sources, args.out, overrides)
    return result | {"format": args.format}, convert.lines(result)


def _import_inception(args: argparse.Namespace, overrides: list[str]) -> tuple[dict, list[str]]:
    if overrides:
        raise UserError(f"unknown argument {overrides[0]!r} (see biggan import --help)")
    from biggan_jax.interop import inception

    result = inception.import_inception(args.sources, args.out, any_weights=args.any_weights)
    line = f"Inception: {result['parameters']:,} parameters of {result['file']} in {result['out']}"
    return result | {"format": args.format}, [line]


def _export(args: argparse.Namespace, overrides: list[str]) -> tuple[dict, list[str]]:
    if overrides:
        raise UserError(f"unknown argument {overrides[0]!r} (see biggan export --help)")
    from biggan_jax.interop import export

    write = export.to_safetensors if args.format == "safetensors" else export.to_biggan_pytorch
    result = write(args.source, args.out)
    held = ", ".join(f"{name} ({count} tensors)" for name, count in result["networks"].items())
    return result | {"format": args.format}, [f"{held} in {result['out']}"]
