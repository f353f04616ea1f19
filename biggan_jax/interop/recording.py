"""Files of activations that another implementation recorded, and what they were recorded for."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from biggan_jax.errors import UserError, did_you_mean, some
from biggan_jax.interop.files import open_tensors
from biggan_jax.metrics import archives
from biggan_jax.sampling.discriminator import LoadedDiscriminator
from biggan_jax.sampling.generator import LoadedGenerator
from biggan_jax.storage import json_file

Z, IMAGES, LABELS = "z", "images", "labels"
INPUTS = (Z, IMAGES, LABELS)


@dataclasses.dataclass
class Recording:
    """What a file holds.

    Attributes:
      path: the file.
      inputs: arrays by their name, one of INPUTS.
      activations: arrays by the name of the module that gave them, as they were recorded.
    """

    path: Path
    inputs: dict[str, np.ndarray]
    activations: dict[str, np.ndarray]

    @property
    def player(self) -> str:
        """'g' or 'd', by the inputs."""
        return "g" if Z in self.inputs else "d"


def read(path: Path) -> Recording:
    """Reads a recording.

    Args:
      path: an `.npz` (pickles are never loaded) or `.safetensors`, with `z` and `labels` of a
        generator or `images` and `labels` of a discriminator, and activations by their names.

    Returns:
      The recording; all activations are finite.

    Raises:
      UserError: it is no such file, or holds no inputs, no activations, or other things than
        finite numbers.
      OSError: the disk does not give it.
    """
    arrays = _arrays(path)
    inputs = {name: arrays.pop(name) for name in INPUTS if name in arrays}
    players = [name for name in (Z, IMAGES) if name in inputs]
    if len(players) != 1:
        what = "both z and images" if players else "neither z nor images"
        raise UserError(
            f"{path} holds {what}: record the inputs with the activations, as z and labels for a "
            "generator, or as images and labels for a discriminator"
        )
    if not arrays:
        raise UserError(
            f"{path} holds {players[0]} and no activations: record outputs of layers under their "
            "names"
        )
    text = [name for name, x in arrays.items() if x.dtype.kind not in "biuf"]
    if text:
        raise UserError(
            f"{path}: {some(text)} of {arrays[text[0]].dtype} is no activation: record real numbers"
        )
    broken = [name for name, x in arrays.items() if not np.isfinite(x).all()]
    if broken:
        raise UserError(
            f"{path}: NaN or infinity in {some(broken)}: there is nothing to compare behind the "
            "first of them; record in float32 and leave these out"
        )
    return Recording(path, inputs, arrays)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if path.suffix not in (".npz", ".safetensors"):
        raise UserError(f"{path} is no recording: name an .npz or .safetensors file")
    if not path.is_file():
        raise UserError(f"{path}: {'it is a directory' if path.is_dir() else 'no such file'}")
    if path.suffix == ".safetensors":
        tensors = open_tensors(path)
        return {name: np.array(tensors.read(name)) for name in tensors.shapes}
    try:
        return archives.read(path)[0]
    except archives.DamagedError as error:
        raise UserError(
            f"{path} cannot be read ({error}): write it again with numpy.savez, arrays of numbers "
            "alone, of one sample where it is too large"
        ) from error


def inputs_of(
    recording: Recording, network: LoadedGenerator | LoadedDiscriminator
) -> tuple[np.ndarray, np.ndarray]:
    """The inputs as a module of ours takes them.

    Args:
      recording: of the same player as the network.
      network: as it was loaded.

    Returns:
      (z [N, dim_z] or images [N, H, W, C], labels [N]).

    Raises:
      UserError: they do not fit the network; labels are missing and there are several classes.
    """
    x = recording.inputs[Z if recording.player == "g" else IMAGES]
    if len(x) == 0 if x.ndim else True:
        raise UserError(f"{recording.path} holds no samples: record at least one")
    labels = recording.inputs.get(LABELS)
    if labels is None:
        if network.num_classes > 1:
            raise UserError(
                f"{recording.path} holds no labels, and the model has {network.num_classes} "
                "classes: record the class ids [N] as labels"
            )
        labels = np.zeros(len(x), np.int32)
    if labels.dtype.kind == "f" and (labels == np.round(labels)).all():
        labels = labels.astype(np.int64)  # as some files hold them
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if recording.player == "d" and x.ndim == 4:
        side = network.resolution
        if x.shape[1:] == (network.channels, side, side):
            x = x.transpose(0, 2, 3, 1)
        if x.dtype.kind == "f" and np.abs(x).max() > 1 + 1e-3:
            raise UserError(
                f"{recording.path}: images reach {np.abs(x).max():.4g}; a discriminator takes them "
                "in [-1, 1]"
            )
    try:
        return network.check_inputs(x, labels)
    except UserError as error:
        raise UserError(f"{recording.path}: {error}") from error


def read_map(path: Path, known: dict[str, str], recorded: Iterable[str]) -> dict[str, str]:
    """Reads the modules that a user names for recorded names.

    Args:
      path: a JSON object, {recorded name: our module's path, or a peer's name for it}.
      known: {every name that a module of ours goes by: its path}.
      recorded: the names of the recording.

    Returns:
      {recorded name: our path}.

    Raises:
      UserError: it is no such file, or names a module that is not there, or a recorded name that
        is not there.
    """
    try:
        found = json_file.read(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"--map {path}: no such file") from None
    if not isinstance(found, dict) or not all(isinstance(x, str) for x in found.values()):
        raise UserError(
            f'--map {path} must be one JSON object of names, such as {{"conv_in": "block_0/conv1"}}'
        )
    recorded = list(recorded)
    for name, module in found.items():
        if name not in recorded:
            raise UserError(
                f"--map {path}: {name!r} is not recorded{did_you_mean(name, recorded)}: leave it "
                "out, or correct it"
            )
        if module not in known:
            raise UserError(
                f"--map {path}: {module!r} is no layer of this model{did_you_mean(module, known)}"
            )
    return {name: known[module] for name, module in found.items()}
