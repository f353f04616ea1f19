"""Features of the FID Inception: preprocessing, the published weights, batches over devices."""

import functools
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from biggan_jax.errors import UserError
from biggan_jax.metrics import network_files
from biggan_jax.metrics import resize as resize_lib
from biggan_jax.metrics.features import BatchRunner, check_images
from biggan_jax.metrics.inception_v3 import FEATURES, InceptionV3

RESOLUTION = 299
BATCH_SIZE = 32  # images of one run, over all devices of a process
# The one file in the directory of the imported weights.
FILE = "inception.npz"
PUBLISHED_NAME = "pt_inception-2015-12-05-6726825d.pth"
# PyTorch's convention: a file's name ends in the first digits of its sha256.
PUBLISHED_DIGEST = "6726825d"
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{PUBLISHED_NAME}"


def preprocess(images: jax.Array, rule: str) -> jax.Array:
    """uint8 [N, H, W, 1 or 3] -> float32 [N, 299, 299, 3], resized and scaled as `rule` does."""
    x = images.astype(jnp.float32)
    n, h, w, _ = x.shape
    x = jnp.broadcast_to(x, (n, h, w, 3))
    if rule == "pytorch_fid":
        return resize_lib.resized(x / 255, RESOLUTION, rule) * 2 - 1
    return (resize_lib.resized(x, RESOLUTION, rule) - 128) / 128


# Two programs: the large one is compiled once, whatever the resolutions of the images.
_preprocess = jax.jit(preprocess, static_argnames="rule")


@functools.partial(jax.jit, static_argnames=("dtype", "shares"))
def _network(
    variables: Any, x: jax.Array, dtype: str, shares: int | None = None
) -> dict[str, jax.Array]:
    """Outputs of a batch: of all images at once, or of one of each of `shares` devices at a time.

    On a CPU the activations of one image stay in its caches: 1.4 times as fast as a batch of 8.
    """
    network = InceptionV3(jnp.dtype(dtype))
    if shares is None:
        return network.apply(variables, x)
    x = x.reshape(shares, -1, *x.shape[1:]).swapaxes(0, 1)  # every device keeps what it has
    out = jax.lax.map(functools.partial(network.apply, variables), x)
    return jax.tree.map(lambda y: y.swapaxes(0, 1).reshape(-1, y.shape[-1]), out)


def outputs(
    variables: Any,
    images: jax.Array,
    resize: str = "tf1",
    dtype: str = "float32",
    shares: int | None = None,
) -> dict[str, jax.Array]:
    """The outputs of a batch.

    Args:
      variables: of `InceptionV3`.
      images: uint8 [N, H, W, 1 or 3].
      resize, dtype: see `Inception`.
      shares: devices whose images are taken one by one; None takes all at once.

    Returns:
      {name: float32 [N, ...]}.
    """
    return _network(variables, _preprocess(images, resize), dtype, shares)


class Inception:
    """Features of the FID network; an `Extractor` whose calls also return `logits_unbiased`.

    Args:
      params: the tree of `InceptionV3`'s parameters, float32.
      digest: hexadecimal digest of the weights, for the protocol.
      resize: `tf1`, as TensorFlow's FID code and torch-fidelity; `pytorch_fid`, as that package;
        `clean`, antialiased, as clean-fid.
      dtype: `float32`, or `bfloat16`, which is faster on accelerators and not comparable.
      batch_size: images per device batch, over all devices.
      devices: all local devices when absent.
    """

    name = "inception"
    resolution = RESOLUTION
    feature_dim = FEATURES
    has_logits = True

    def __init__(
        self,
        params: Any,
        digest: str,
        *,
        resize: str = "tf1",
        dtype: str = "float32",
        batch_size: int = BATCH_SIZE,
        devices: Sequence[jax.Device] | None = None,
    ):
        if resize not in resize_lib.RULES:
            raise UserError(f"no resize rule {resize!r}: choose one of {resize_lib.RULES}")
        self.digest = digest
        kernel = "bicubic" if resize == "clean" else "bilinear"
        self.resize = f"{resize} {kernel} to {RESOLUTION}, {dtype}"

        devices = list(devices or jax.local_devices())
        shares = len(devices) if devices[0].platform == "cpu" else None

        forward = functools.partial(outputs, resize=resize, dtype=dtype, shares=shares)
        # A program of one image keeps about one core busy; one device is all of a CPU.
        threads = (os.cpu_count() or 1) if shares == 1 else 1
        self._run = BatchRunner(forward, {"params": params}, batch_size, devices, threads)

    @classmethod
    def load(cls, directory: str | Path, **settings: Any) -> "Inception":
        """Loads the weights that `biggan import --format inception-fid` wrote.

        Args:
          directory: what `--out` named.
          **settings: `resize`, `dtype`, `batch_size` and `devices`.

        Returns:
          The features network; its digest is the sha256 of the imported file.

        Raises:
          UserError: there are no weights, or they are damaged.
        """
        directory = Path(directory)
        if directory.is_file():
            raise UserError(
                f"{directory} is a file: name the folder that holds {FILE}, which `biggan import "
                "--format inception-fid FILE --out FOLDER` writes"
            )
        try:
            params, meta = network_files.load(directory / FILE, "import the weights again")
        except FileNotFoundError:
            into = shlex.quote(str(directory))
            there = (directory / PUBLISHED_NAME).is_file()
            get = f"download {URL} (torch-fidelity's release has the same weights) and "
            raise UserError(
                f"no Inception weights in {directory}: {'' if there else get}run `biggan import "
                f"--format inception-fid {into if there else PUBLISHED_NAME} --out {into}`"
            ) from None
        return cls(params, meta["digest"], **settings)

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return self._run(check_images(images))
