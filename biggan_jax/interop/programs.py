"""Generators as files that other programs run: StableHLO and ONNX, with a model card."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from biggan_jax.data import quiet
from biggan_jax.errors import UserError
from biggan_jax.interop import model_card, portable
from biggan_jax.sampling.generator import LoadedGenerator
from biggan_jax.storage import paths

PLATFORMS = ("cpu", "cuda", "tpu")
FILES = {"stablehlo": "generator.stablehlo", "onnx": "generator.onnx"}
METADATA = "metadata.json"
INPUTS = ("z", "labels")
OUTPUT = "images"
_ONNX_BYTES = 2**31  # of a protocol buffer; beyond it weights would have to lie beside the file


def check(kind: str) -> None:
    """Raises UserError where a package that writes a program of this kind is missing."""
    for name in ("jax2onnx", "onnx") if kind == "onnx" else ():
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"--format onnx needs {name}, which is not installed: pip install "
                "'biggan_jax[onnx]', or take --format stablehlo"
            )


def is_file(out: Path, kind: str) -> bool:
    """Whether a name is that of a program, such as biggan.onnx, and not that of a folder."""
    return out.suffix == Path(FILES[kind]).suffix and not out.is_dir()


def write(
    generator: LoadedGenerator, kind: str, out: Path, described: dict[str, Any], license: str
) -> dict[str, Any]:
    """Writes a program with its metadata, a model card and a picture of samples.

    Args:
      generator: in the mode 'running' or 'standing'.
      kind: a key of `FILES`.
      out: a folder, which gets the program, `metadata.json`, `model_card.md` and `samples.png`;
        or a file, see `is_file`, beside which the others get its name before theirs.
      described: of the model, see `model_card.describe`.
      license: for the card, an SPDX name such as 'cc-by-4.0'.

    Returns:
      {out, bytes, parameters, files}.

    Raises:
      UserError: the generator cannot be written so, or a package is missing.
    """
    made = portable.portable(generator)
    alone = is_file(out, kind)
    folder, program = (out.parent, out.name) if alone else (out, FILES[kind])
    before = f"{program}." if alone else ""
    metadata = described | {"inputs": _inputs(generator), "outputs": _outputs(generator)}
    encode: Callable = {"stablehlo": _stablehlo, "onnx": _onnx}[kind]
    data = encode(made, generator, metadata)
    contents = {
        program: data,
        before + METADATA: json.dumps(metadata, indent=2, ensure_ascii=False).encode() + b"\n",
    }
    contents |= model_card.files(generator, metadata, program, license, before)
    for name, content in contents.items():
        paths.write_bytes(folder / name, content)
    sizes = {"bytes": len(data), "parameters": made.parameters}
    return {"out": str(out), "files": sorted(contents)} | sizes


def _inputs(generator: LoadedGenerator) -> dict[str, Any]:
    latents = {"shape": ["N", generator.dim_z], "dtype": "float32", "distribution": "normal"}
    latents["distribution"] = generator.config.model.z_distribution
    labels = {"shape": ["N"], "dtype": "int32", "range": [0, generator.num_classes - 1]}
    return dict(zip(INPUTS, (latents, labels), strict=True))


def _outputs(generator: LoadedGenerator) -> dict[str, Any]:
    side, channels = generator.resolution, generator.channels
    shape = ["N", side, side, channels]
    return {OUTPUT: {"shape": shape, "dtype": "float32", "range": [-1, 1]}}


def _stablehlo(made: portable.Portable, generator: LoadedGenerator, metadata: dict) -> bytes:
    """A program of `jax.export` for every platform, its batch size a symbol."""

    def images(z: jax.Array, labels: jax.Array) -> jax.Array:
        return made.function(z, labels)

    (n,) = export.symbolic_shape("N")
    z = jax.ShapeDtypeStruct((n, generator.dim_z), jnp.float32)
    labels = jax.ShapeDtypeStruct((n,), jnp.int32)
    return bytes(export.export(jax.jit(images), platforms=PLATFORMS)(z, labels).serialize())


def _onnx(made: portable.Portable, generator: LoadedGenerator, metadata: dict) -> bytes:
    """An ONNX model by jax2onnx, whose first dimension is of any size."""
    if 4 * made.parameters > _ONNX_BYTES:
        raise UserError(
            f"{made.parameters:,} parameters are more than the 2 GB of an ONNX file: export with "
            "--format stablehlo"
        )
    with quiet.loggers("jax2onnx", "onnx_ir.serde"):  # plugins, and shapes known later
        import jax2onnx
        import onnx

        z = jax.ShapeDtypeStruct(("N", generator.dim_z), jnp.float32)
        labels = jax.ShapeDtypeStruct(("N",), jnp.int32)
        model = jax2onnx.to_onnx(
            made.function, inputs=[z, labels], input_names=[*INPUTS], output_names=[OUTPUT]
        )
    onnx.helper.set_model_props(
        model, {key: json.dumps(value, ensure_ascii=False) for key, value in metadata.items()}
    )
    model.producer_name, model.producer_version = "biggan_jax", metadata["version"]
    return model.SerializeToString()
