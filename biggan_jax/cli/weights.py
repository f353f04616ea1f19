"""`biggan import` and `biggan export`: weights of others, in and out."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from biggan_jax.cli import options
from biggan_jax.cli.output import say, writing
from biggan_jax.errors import UserError, counts

IMPORTS = (
    "biggan-pytorch",
    "studiogan",
    "pretrained-biggan",
    "inception-fid",
    "dinov2",
    "biggan-jax",
)
_OF_FOLDERS = ("biggan-pytorch", "studiogan")  # they leave several copies in one
_OF_FILES = (".onnx", ".stablehlo", ".mlir", ".bin", ".pb", ".zip", ".safetensors")
WEIGHTS, PROGRAMS = ("safetensors", "biggan-pytorch"), ("stablehlo", "onnx")
DIRECTORY = "directory"  # a model directory with its card


def add(command) -> None:
    """Adds both commands."""
    sub = command("import", run_import, "published weights into a model")
    sub.add_argument("--format", required=True, choices=IMPORTS)
    sub.add_argument(
        "sources", nargs="+", type=Path, metavar="SOURCE", help="files, or the peer's folder"
    )
    sub.add_argument("--out", required=True, type=Path, metavar="DIR", help="a model directory")
    sub.add_argument("--suffix", metavar="S", help="which of a folder's copies: best0, best, ...")
    sub.add_argument("--bn-eps", type=float, metavar="E", help="of batch norm (a file has none)")
    sub.add_argument("--sn-eps", type=float, metavar="E", help="of spectral norm")
    sub.add_argument(
        "--any-weights", action="store_true", help="inception-fid: take another file than published"
    )
    sub.epilog = "What the tensors say of the model is overridden by --config.model.KEY=VALUE."

    _add_export(command)


def _add_export(command) -> None:
    sub = command(
        "export", run_export, "a model's weights, or its generator as a program, to files"
    )
    options.add_source(sub)
    sub.add_argument("--format", choices=(*WEIGHTS, DIRECTORY, *PROGRAMS), default=options.UNSET)
    sub.add_argument(
        "--out",
        type=Path,
        metavar="F",
        help="a folder; of safetensors, the default, a file; or NAME.onnx",
    )
    sub.add_argument(
        "--push",
        metavar="hf://USER/REPO",
        help="also a model directory on the Hugging Face Hub, as others load it; needs no --out",
    )
    sub.add_argument("--float16", action="store_true", help="half the bytes, of a model directory")
    group = sub.add_argument_group("directory, stablehlo, onnx and --push: with a model card")
    options.add_which(group, "raw weights instead of the average")
    add = group.add_argument
    add("--bn-mode", choices=("running", "standing"), default=options.UNSET)
    add("--truncation", type=float, metavar="T", help="advised for its latents, and of 'standing'")
    add("--truncation-kind", choices=("resample", "scale"), default=options.UNSET)
    add("--license", metavar="NAME", help="for the card, such as cc-by-4.0; default: other")


def run_import(args: argparse.Namespace, overrides: list[str]) -> tuple[dict, int]:
    """`biggan import`."""
    from biggan_jax.evaluation import folders

    given = _epsilons(args)
    folders.check_writable(args.out, "--out")
    with writing(args.out):
        if args.format == "inception-fid":
            result, lines = _import_inception(args, overrides)
        elif args.format == "dinov2":
            result, lines = _import_dinov2(args, overrides)
        else:
            result, lines = _import_model(args, overrides, given)
    say(args, "\n".join(lines))
    return result | {"format": args.format}, 0


def _epsilons(args: argparse.Namespace) -> dict[str, float]:
    """The epsilons that were given; refuses options that the format does not take."""
    if args.suffix is not None and args.format not in _OF_FOLDERS:
        raise UserError(f"--suffix is for --format {' and '.join(_OF_FOLDERS)} alone; leave it out")
    eps = options.given(args, "bn_eps", "sn_eps")
    given = {key: value for key, value in eps.items() if value is not None}
    for key, value in given.items():
        flag = "--" + key.replace("_", "-")
        if not 0 < value < 1:
            raise UserError(f"{flag} is {value}; set it to a value between 0 and 1, such as 1e-5")
        if args.format in ("biggan-jax", "inception-fid", "dinov2"):
            raise UserError(f"{flag} is not for --format {args.format}; leave it out")
    if args.any_weights and args.format != "inception-fid":
        raise UserError("--any-weights is for --format inception-fid alone; leave it out")
    return given


def _import_model(
    args: argparse.Namespace, overrides: list[str], epsilons: dict[str, float]
) -> tuple[dict, list[str]]:
    from biggan_jax.interop import convert

    if args.format in _OF_FOLDERS:
        from biggan_jax.interop import biggan_pytorch, studiogan

        peer = biggan_pytorch if args.format == "biggan-pytorch" else studiogan
        result = peer.import_weights(
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


def _import_dinov2(args: argparse.Namespace, overrides: list[str]) -> tuple[dict, list[str]]:
    options.no_overrides(overrides, "import")
    from biggan_jax.interop import dinov2

    result = dinov2.import_dinov2(args.sources, args.out)
    parameters = f"{result['parameters']:,} parameters of {result['file']} in {result['out']}"
    return result, [f"DINOv2 {result['model']}: {parameters}"]


def run_export(args: argparse.Namespace, overrides: list[str]) -> tuple[dict, int]:
    """`biggan export`."""
    options.no_overrides(overrides, "export")
    _check_export(args)
    if args.push is not None:
        result, line = _push(args)
    else:
        result, line = _export(args, args.out)
    say(args, line)
    return result | {"format": args.format}, 0


def _check_export(args: argparse.Namespace) -> None:
    """Refuses options that do not go together, before anything is loaded or fetched."""
    from biggan_jax.evaluation import folders

    if not hasattr(args, "format"):
        args.format = "safetensors" if args.push is None else DIRECTORY
    if args.out is None and args.push is None:
        raise UserError("the following arguments are required: --out (see biggan export --help)")
    others = {"--raw": args.raw, "--truncation": args.truncation, "--license": args.license}
    others |= {"--bn-mode": hasattr(args, "bn_mode")}
    others |= {"--truncation-kind": hasattr(args, "truncation_kind")}
    for option, given in others.items():
        if given not in (None, False) and args.format in WEIGHTS and args.push is None:
            raise UserError(
                f"{option} is for --format {' and '.join(PROGRAMS)}, not for {args.format}, which "
                "has all weights; leave it out"
            )
    if args.float16 and args.format != DIRECTORY and args.push is None:
        raise UserError(f"--float16 is for --format {DIRECTORY} and --push alone; leave it out")
    if args.out is None:
        return
    a_folder = args.format in (*PROGRAMS, DIRECTORY)
    if args.format in PROGRAMS:
        from biggan_jax.interop import programs

        a_folder = not programs.is_file(args.out, args.format)
    taken = args.out.suffix in _OF_FILES and not args.out.is_dir()
    if a_folder and (taken or args.out.is_file()):
        named = f", or a file NAME.{args.format}" if args.format in PROGRAMS else ""
        raise UserError(
            f"--out {args.out}: --format {args.format} writes several files; name a folder{named}"
        )
    folders.check_writable(args.out if a_folder else args.out.parent, "--out")


def _export(args: argparse.Namespace, out: Path) -> tuple[dict, str]:
    if args.format == DIRECTORY:
        return _export_directory(args, out)
    return (_export_program if args.format in PROGRAMS else _export_weights)(args, out)


def _export_weights(args: argparse.Namespace, out: Path) -> tuple[dict, str]:
    from biggan_jax.interop import export

    write = export.to_safetensors if args.format == "safetensors" else export.to_biggan_pytorch
    with writing(out):
        result = write(args.source, out, step=args.step, ema=args.ema or True)
    found = result["networks"].items()
    held = ", ".join(f"{name} ({counts(n, 'tensor', 'tensors')})" for name, n in found)
    return result, f"{held} in {result['out']}"


def _export_directory(args: argparse.Namespace, out: Path, address: str = ".") -> tuple[dict, str]:
    from biggan_jax.interop import export, model_card
    from biggan_jax.storage import hub, paths

    generator, described, license = _described(args)
    with writing(out):
        result = export.to_directory(
            args.source,
            out,
            step=args.step,
            ema=args.ema or True,
            half=args.float16,
            only=("g", "d") if args.raw else (),
        )
        described |= {"address": address}
        card = model_card.files(generator, described, hub.WEIGHTS, license)
        for name, content in card.items():
            paths.write_bytes(out / name, content)
    result |= {"files": sorted([*result["files"], *card])}
    found = ", ".join(result["networks"])
    return result, f"{found} in {result['out']}: {result['bytes'] / 1e6:,.1f} MB"


def _push(args: argparse.Namespace) -> tuple[dict, str]:
    """Writes what --format asks for, and all of it with a model directory to the hub."""
    from biggan_jax.interop import model_card
    from biggan_jax.storage import hub

    address = hub.parse(args.push)
    hub.check()
    with tempfile.TemporaryDirectory() as name:
        folder, lines = Path(name), []
        result: dict[str, Any] = {}
        if args.format in PROGRAMS:
            result, _ = _export_program(args, folder)
        directory, _ = _export_directory(args, folder, str(address))
        result = directory | result
        if args.out is not None:
            result, line = _export(args, args.out)
            lines.append(line)
        (folder / model_card.CARD).rename(folder / "README.md")  # which the hub shows
        files = sorted(path.name for path in folder.iterdir())
        step = "" if directory["step"] is None else f" of step {directory['step']:,}"
        url = hub.push(address, folder, f"Model{step}, by biggan export")
    lines.append(f"{', '.join(files)} in {address}: {url}")
    result = {key: x for key, x in result.items() if args.out is not None or key != "out"}
    return result | {"pushed": str(address), "files": files, "url": url}, "\n".join(lines)


def _export_program(args: argparse.Namespace, out: Path) -> tuple[dict, str]:
    from biggan_jax.interop import programs

    programs.check(args.format)
    generator, described, license = _described(args)
    with writing(out):
        result = programs.write(generator, args.format, out, described, license)
    size = f"{result['parameters']:,} parameters, {result['bytes'] / 1e6:,.1f} MB"
    return result, f"{', '.join(result['files'])} in {result['out']}: {size}"


def _described(args: argparse.Namespace) -> tuple[Any, dict[str, Any], str]:
    """The generator that is exported, what its card tells of it, and the license."""
    from biggan_jax.interop import model_card
    from biggan_jax.sampling.load import load_generator
    from biggan_jax.storage import truncation_statistics as statistics

    license = model_card.read_license("other" if args.license is None else args.license)
    kind = options.given(args, "truncation_kind").get("truncation_kind", "resample")
    ema = options.ema(args)
    own = statistics.default(args.source, args.truncation)
    generator = load_generator(args.source, step=args.step, ema=ema, truncation_statistics=own)
    generator.check_latents(0, args.truncation, kind)
    mode = options.given(args, "bn_mode").get("bn_mode", "running")
    generator.set_bn_mode(mode, args.truncation, kind=kind)
    described = model_card.describe(
        generator,
        args.source,
        weights=ema if isinstance(ema, str) else "ema" if ema else "raw",
        truncation=args.truncation,
        truncation_kind=kind,
    )
    return generator, described, license
