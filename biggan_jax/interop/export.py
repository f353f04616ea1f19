"""Export of a workdir or model directory: our own layout, or BigGAN-PyTorch's, as safetensors."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from biggan_jax.config import config_file, from_saved
from biggan_jax.errors import UserError, some
from biggan_jax.interop import biggan_pytorch, convert, layout
from biggan_jax.interop.files import open_tensors
from biggan_jax.storage import (
    hub,
    json_file,
    paths,
    published,
    steps,
    tensor_file,
    truncation_statistics,
)
from biggan_jax.storage import networks as networks_lib
from biggan_jax.storage.digest import named_leaves
from biggan_jax.storage.weights import NETWORKS, load_weights, saved_names

# What a file of ours says of itself; files of earlier versions said it as their format.
FORMAT = tensor_file.METADATA["library"]


class Loaded(NamedTuple):
    """All networks of a directory.

    Attributes:
      config: they were trained with.
      networks: {network: {our name: array}}; a model directory may add the statistics of several
        truncations.
      step: generator updates they have had, None where a model directory does not say.
    """

    config: ConfigDict
    networks: dict[str, dict[str, Any]]
    step: int | None


def load(directory: str | Path, step: int | str | None = None, ema: bool | str = True) -> Loaded:
    """Reads all networks of a workdir or of a model directory.

    Args:
      directory: either.
      step: see `storage.steps.find`.
      ema: name of the average that is taken as `g_ema`; True is the main one.

    Returns:
      What it holds.

    Raises:
      UserError: an unusable directory, or one without weights.
    """
    held = steps.find(directory, step)
    directory, config, in_checkpoints, step = held
    chosen = networks_lib.of_generator(held, ema)
    if in_checkpoints:
        target = {
            state: traverse_util.unflatten_dict(convert.target(config.model, name[0]), sep="/")
            for name, state in NETWORKS.items()
        }
        part, step = networks_lib.read_part(directory, target, step)
        trees = {name: part[state] for name, state in NETWORKS.items()}
    else:
        names = [*NETWORKS, truncation_statistics.NAME]
        found = [name for name in names if name in saved_names(directory)]
        if not found and chosen == "g_ema":
            there = f", but {some(saved_names(directory))}" if saved_names(directory) else ""
            raise UserError(
                f"{directory} holds no weights: none of {', '.join(NETWORKS)}{there}; give a "
                "directory that biggan train, import or export has written"
            )
        trees = {
            name: networks_lib.read(held, name)[0]  # which compares them with the config
            if name in NETWORKS
            else load_weights(directory, name)
            for name in found
        }
    if chosen != "g_ema":
        trees["g_ema"], _ = networks_lib.read(held._replace(step=step), chosen)
    return Loaded(config, {name: named_leaves(tree) for name, tree in trees.items()}, step)


def to_safetensors(
    directory: str | Path, out: Path, step: int | str | None = None, ema: bool | str = True
) -> dict:
    """Writes all networks into one file, names as `g_ema/params/block_0/conv1/kernel`.

    Args:
      directory: a workdir or model directory.
      out: `F.safetensors`; its metadata holds the `model` section, and the names of the classes
        where they are known, as JSON under `config`.
      step, ema: see `load`.

    Returns:
      {out, step, networks: {name: tensors}}.

    Raises:
      UserError: an unusable directory, or a wrong name.
    """
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: the name must end in .safetensors")
    config, networks, step = load(directory, step, ema)
    saved = {"model": config.model.to_dict(), **convert.named(config)}
    paths.write_bytes(out, tensor_file.encode(networks, {"config": saved}))
    counts = {name: len(x) for name, x in networks.items()}
    return {"out": str(out), "step": step, "networks": counts}


def to_directory(
    directory: str | Path,
    out: Path,
    step: int | str | None = None,
    ema: bool | str = True,
    *,
    half: bool = False,
    only: tuple[str, ...] = (),
) -> dict:
    """Writes a model directory to be handed on: `config.json` and `model.safetensors`.

    Args:
      directory: a workdir or model directory.
      out: a folder that is no workdir.
      step, ema: see `load`.
      half: float16 in the file, in half the bytes; it is read as float32.
      only: networks that are written; empty: all that there are.

    Returns:
      {out, step, networks: {name: tensors}, bytes, files}.

    Raises:
      UserError: an unusable directory, or an `out` that holds something else.
    """
    for name in ("checkpoints", "weights"):
        if (out / name).exists():
            raise UserError(f"--out {out} holds {name}: choose another folder")
    config, networks, step = load(directory, step, ema)
    convert.check_out(out, convert.model_section(config))
    if only:
        networks = {name: networks[name] for name in only if name in networks}
    described = {"model": config.model.to_dict(), **convert.named(config)}
    data = tensor_file.encode(networks, {"config": described, "step": step}, half)
    text = json.dumps(published.without_places(config.to_dict()), indent=2, sort_keys=True) + "\n"
    paths.write_bytes(out / hub.CONFIG, text.encode())
    paths.write_bytes(out / hub.WEIGHTS, data)
    counts = {name: len(x) for name, x in networks.items()}
    result = {"out": str(out), "step": step, "networks": counts, "bytes": len(data)}
    return result | {"files": [hub.CONFIG, hub.WEIGHTS]}


def from_safetensors(sources: list[Path], out: Path, overrides: list[str] | None = None) -> dict:
    """Imports what `to_safetensors` wrote.

    Args:
      sources: one file.
      out: the model directory.
      overrides: `--config.model.KEY=VALUE` over the model of the file.

    Returns:
      See `convert.write`.

    Raises:
      UserError: for another kind of file, or tensors that are missing or misshapen.
    """
    if len(sources) != 1 or sources[0].suffix != ".safetensors":
        raise UserError("biggan-jax takes one .safetensors file, as biggan export writes it")
    _refuse_pickle(sources[0])
    source = open_tensors(sources[0])
    made_by = (source.metadata.get(key) for key in ("library", "format"))
    if FORMAT not in made_by or "config" not in source.metadata:
        raise UserError(
            f"{source.path} was not written by biggan export --format safetensors: its tensors are "
            f"{some(source.shapes)}; give one that was, or the format of the program that wrote it"
        )
    try:
        saved = from_saved(json_file.parse(source.metadata["config"]))
    except ValueError as error:
        raise UserError(f"{source.path} holds no config that can be read: {error}") from error
    config = config_file.override(saved, overrides or [])
    networks = []
    for name in [*NETWORKS, truncation_statistics.NAME]:
        part = source.below(f"{name}/")
        if not part.shapes:
            continue
        if name in NETWORKS:
            shapes = {k: x.shape for k, x in convert.target(config.model, name[0]).items()}
        else:
            shapes = dict(part.shapes)
        networks.append(convert.Network(name, part, {k: k for k in shapes}, shapes, part.read))
    if not any(network.name in NETWORKS for network in networks):
        raise UserError(
            f"{source.path} holds none of {', '.join(NETWORKS)}: its tensors are "
            f"{some(source.shapes)}; export the model again"
        )
    return convert.write(config, networks, out)


def _refuse_pickle(path: Path) -> None:
    """Raises UserError where a file is none of ours, whatever its name is."""
    if not path.is_file():
        return  # whoever opens it says so
    with open(path, "rb") as file:
        if tensor_file.is_pickle(file.read(4)):
            raise UserError(
                f"{path} is a pickle under the name of a safetensors file, which biggan export "
                "never writes: take the format of the program that wrote it, or export again"
            )


def to_biggan_pytorch(
    directory: str | Path, out: Path, step: int | str | None = None, ema: bool | str = True
) -> dict:
    """Writes G, G_ema and D with BigGAN-PyTorch's names and layout, for `load_state_dict`.

    Args:
      directory: a workdir or model directory of a BigGAN or BigGAN-deep.
      out: a folder, which gets `G.safetensors`, `G_ema.safetensors` and `D.safetensors`.
      step, ema: see `load`.

    Returns:
      {out, step, networks: {name: tensors}}.

    Raises:
      UserError: the model has something that BigGAN-PyTorch has not.
    """
    config, networks, step = load(directory, step, ema)
    m = config.model
    for key, value, wanted in (
        ("name", m.name, ("biggan", "biggan_deep")),
        ("cond_order", m.cond_order, ("embedding_z",)),
        ("sn_eval", m.sn_eval, ("iterate",)),
        ("attention_kind", m.attention_kind, ("attention",)),
        ("attention_form", m.attention_form, ("published",)),
        ("attention_reduction", m.attention_reduction, (8,)),
        ("d_head", m.d_head, ("linear",)),
        ("d_skip", m.d_skip, ("input",)),
        ("deep_blocks", m.deep_blocks, ("paper",)),
        ("rgb_width", m.rgb_width or m.channels, (m.channels,)),
        ("num_classes > 1", m.num_classes > 1, (True,)),
    ):
        if value not in wanted:
            raise UserError(
                f"BigGAN-PyTorch has no model with {key} {value}: export with --format safetensors"
            )
    statistics = "bn.stored_" if m.bn_variance == "biased" else "stored_"
    counts = {}
    for name, file in {v: k for k, v in biggan_pytorch.NAMES.items()}.items():
        if name not in networks:
            continue
        flat = {}
        keys = layout.keys_of(networks[name], m, name[0], statistics)
        for path, key in keys.items():
            value = layout.to_peer(path, np.asarray(networks[name][path]), name[0])
            if path == "batch_stats/bn_out/norm/var":
                value = value + np.float32(m.bn_eps - biggan_pytorch.OUTPUT_BN_EPS)
            flat[key] = value
            # Buffers without which load_state_dict is not strict: logged singular values, and
            # counters of standing statistics.
            if key.endswith(".u0"):
                flat[key.removesuffix("u0") + "sv0"] = np.ones(1, np.float32)
            if key.endswith("bn.stored_mean"):
                flat[key.removesuffix("stored_mean") + "accumulation_counter"] = np.zeros(
                    1, np.float32
                )
        names = {key: json.dumps(value) for key, value in convert.named(config).items()}
        _save(flat, out / f"{file}.safetensors", names)
        counts[name] = len(flat)
    return {"out": str(out), "step": step, "networks": counts}


def _save(flat: dict[str, Any], out: Path, metadata: dict[str, str]) -> None:
    from safetensors.numpy import save

    arrays = {key: np.array(value, order="C", copy=None) for key, value in flat.items()}
    paths.write_bytes(out, save(arrays, metadata=tensor_file.METADATA | metadata))
