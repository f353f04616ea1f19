"""Features of DINOv2: preprocessing, the published weights, batches over devices."""

import functools
import os
import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from biggan_jax.errors import UserError
from biggan_jax.metrics import network_files
from biggan_jax.metrics.dinov2_vit import NAMES, PATCH, POSITIONS, VisionTransformer, interpolate
from biggan_jax.metrics.features import BatchRunner, check_images

RESOLUTION = 224
FILE = "dinov2.npz"  # the one file in the directory of the imported weights
PUBLISHED = (
    "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth, or "
    "model.safetensors of facebook/dinov2-large at Hugging Face"
)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, of 1


def resized(images: np.ndarray) -> np.ndarray:
    """Resizes images as dgm-eval does: each by Pillow's antialiased bicubic filter, rounded.

    Args:
      images: uint8 [N, H, W, C], C 1 or 3.

    Returns:
      uint8 [N, 224, 224, 3].

    References:
      Stein et al. 2023, "Exposing flaws of generative model evaluation metrics and their unfair
        treatment of diffusion models", whose code is dgm-eval.
    """
    images = np.broadcast_to(images, (*images.shape[:3], 3))
    if images.shape[1:3] == (RESOLUTION, RESOLUTION):
        return np.ascontiguousarray(images)

    def one(image: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(np.ascontiguousarray(image))
        return np.asarray(picture.resize((RESOLUTION, RESOLUTION), Image.Resampling.BICUBIC))

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow resizes without Python's lock
        return np.stack(list(pool.map(one, images)))


@functools.partial(jax.jit, static_argnames=("width", "depth"))
def _network(variables: Any, images: jax.Array, width: int, depth: int) -> dict[str, jax.Array]:
    mean, deviation = (jnp.asarray(x, jnp.float32)[None, None, None] for x in (MEAN, DEVIATION))
    x = (images.astype(jnp.float32) / 255 - mean) / deviation
    return {"features": VisionTransformer(width, depth).apply(variables, x)}


class DINOv2:
    """Normalised class tokens of DINOv2; an `Extractor` without logits.

    Args:
      params: the tree of `VisionTransformer`'s parameters, float32; position embeddings of any
        square number of patches.
      positions: how these are interpolated, of `dinov2_vit.POSITIONS`.
      batch_size: images per device batch, over all devices.
      devices: all local devices when absent.

    Attributes:
      digest: of the weights, whichever file they are from.
    """

    name = "dinov2"
    resolution = RESOLUTION
    has_logits = False

    def __init__(
        self,
        params: Any,
        positions: str,
        *,
        batch_size: int = 32,
        devices: Sequence[jax.Device] | None = None,
    ):
        width = len(params["cls"])
        depth = sum(name.startswith("block") for name in params)
        self.digest = network_files.weights_digest(params)
        self.feature_dim = width
        model = NAMES.get(width, f"width {width}")
        self.resize = f"Pillow bicubic to {RESOLUTION}, {model}, positions by {positions}, float32"
        params = params | {
            "positions": interpolate(params["positions"], RESOLUTION // PATCH, positions)
        }
        forward = functools.partial(_network, width=width, depth=depth)
        self._run = BatchRunner(forward, {"params": params}, batch_size, devices)

    @classmethod
    def load(cls, directory: str | Path, **settings: Any) -> "DINOv2":
        """Loads the weights that `biggan import --format dinov2` wrote.

        Args:
          directory: what `--out` named.
          **settings: `batch_size` and `devices`.

        Returns:
          The features network.

        Raises:
          UserError: there are no weights, or they are damaged.
        """
        directory = Path(directory)
        again = "import the weights again"
        if directory.is_file():
            raise UserError(
                f"{directory} is a file: name the folder that holds {FILE}, which `biggan import "
                "--format dinov2 FILE --out FOLDER` writes"
            )
        try:
            params, meta = network_files.load(directory / FILE, again)
        except FileNotFoundError:
            into = shlex.quote(str(directory))
            raise UserError(
                f"no DINOv2 weights in {directory}: download {PUBLISHED}, and run `biggan import "
                f"--format dinov2 FILE --out {into}`"
            ) from None
        if meta.get("positions") not in POSITIONS:
            raise UserError(f"{directory / FILE} does not say how positions are scaled: {again}")
        return cls(params, meta["positions"], **settings)

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return self._run(resized(check_images(images)))
