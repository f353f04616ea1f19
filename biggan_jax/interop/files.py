"""Files of named tensors, read one tensor at a time: `.pth` of PyTorch and `.safetensors`.

A `.pth` file is a pickle, and a pickle can run code. It is only ever read with
`torch.load(weights_only=True)`, which refuses everything but tensors and plain containers.
"""

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import ml_dtypes  # noqa: F401 (numpy learns bfloat16 from it)
import numpy as np

from biggan_jax.errors import UserError
from biggan_jax.storage import tensor_file

# What was read of a mapped file stays in memory until it is closed: it is opened anew after this.
REOPEN_BYTES = 2**26


class _Unread:
    """Stands for a number of numpy's, its dtype or its bytes beside a state_dict: it is dropped."""

    def __init__(self, *args):
        pass

    def __setstate__(self, state):
        pass


# A pickle names these for a score that is kept beside a state_dict. None of them is called: what a
# file puts in their place is dropped.
_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype",
            "_codecs.encode")  # fmt: skip


class Tensors:
    """The tensors of one file.

    Attributes:
      path: the file.
      shapes: {name: shape}, without the `module.` that DataParallel puts before every name.
      metadata: what a `.safetensors` file says about itself.
    """

    def __init__(
        self,
        path: Path,
        shapes: dict[str, tuple[int, ...]],
        load: Callable[[str], np.ndarray],
        metadata: dict[str, str] | None = None,
    ):
        self.path, self.metadata = path, metadata or {}
        common = all(name.startswith("module.") for name in shapes)
        self._prefix = "module." if common and shapes else ""
        self.shapes = {name.removeprefix(self._prefix): s for name, s in shapes.items()}
        self._load = load

    def read(self, name: str) -> np.ndarray:
        """One tensor as float32, possibly a view of the file: copy it to keep it."""
        return self._load(self._prefix + name)

    def checked(
        self, name: str, expected: tuple[int, ...], told_by: str, wanted: str
    ) -> np.ndarray:
        """One tensor as `read` gives it.

        Args:
          name: of the tensor.
          expected: its shape.
          told_by: what says so, such as 'the FID Inception has', for the error.
          wanted: which file to give instead, for the error.

        Raises:
          UserError: it is missing, of another shape, or not finite.
        """
        if name not in self.shapes:
            raise UserError(f"{self.path} has no tensor {name}: {wanted}")
        if self.shapes[name] != expected:
            raise UserError(
                f"{name} is {list(self.shapes[name])} in {self.path}, {told_by} "
                f"{list(expected)}: {wanted}"
            )
        value = self.read(name)
        if not np.isfinite(value).all():
            raise UserError(f"{name} in {self.path} holds NaN or infinite values: {wanted}")
        return value

    def below(self, prefix: str) -> "Tensors":
        """The tensors whose names start with a prefix, without it."""
        shapes = {k.removeprefix(prefix): s for k, s in self.shapes.items() if k.startswith(prefix)}
        return Tensors(self.path, shapes, lambda name: self.read(prefix + name))


def open_tensors(path: Path) -> Tensors:
    """Opens a file of named tensors.

    Args:
      path: `.safetensors`, or any name for a file that `torch.save` wrote.

    Returns:
      Its tensors; their values are read when they are asked for.

    Raises:
      UserError: the file is missing, truncated, no such file at all, holds code, or is a PyTorch
        file where torch is not installed.
    """
    if not path.is_file():
        raise UserError(f"{path}: {'it is a directory' if path.is_dir() else 'no such file'}")
    opened = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
    if not opened.shapes:
        raise UserError(f"{path} holds no tensors; give the file of a state_dict (G.pth, D.pth)")
    return opened


def _safetensors(path: Path) -> Tensors:
    import safetensors

    try:
        file = safetensors.safe_open(path, framework="numpy")
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        if _is_pickled(path):
            raise UserError(
                f"{path} is a pickle under the name of a safetensors file: write it by "
                f"safetensors, or where a .pth is taken name it {path.with_suffix('.pth').name}"
            ) from error
        raise UserError(
            f"{path} is no safetensors file, or is truncated ({_line(error)}): copy or convert it "
            "again"
        ) from error

    def load(name: str) -> np.ndarray:
        return tensor_file.tensor(path, file, name).astype(np.float32, copy=False)

    return Tensors(path, shapes, load, file.metadata())


def _torch(path: Path) -> Tensors:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path} is read with PyTorch, which is not installed: pip install "
            "'biggan_jax[import]', or convert the file to .safetensors"
        ) from error
    # Mapped, a file is no second copy in memory; the format before PyTorch 1.6 cannot be.
    options = {"mmap": True} if zipfile.is_zipfile(path) else {}

    def tensors() -> dict:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with torch.serialization.safe_globals([(_Unread, name) for name in _SCALARS]):
                    content = torch.load(path, map_location="cpu", weights_only=True, **options)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # torch's unpickler raises almost anything over damaged bytes
            raise UserError(_refusal(path, error)) from error
        if not isinstance(content, dict):
            raise UserError(
                f"{path} holds a {type(content).__name__}; give the file of a state_dict, as "
                "torch.save(G.state_dict()) writes it"
            )
        if isinstance(
            content.get("state_dict"), dict
        ):  # beside an optimizer's, as training saves it
            content = content["state_dict"]
        return {k: v for k, v in content.items() if isinstance(v, torch.Tensor)}

    opened, touched = tensors(), 0

    def read(name: str) -> np.ndarray:
        nonlocal opened, touched
        tensor = opened[name].detach()
        dense = tensor.layout is torch.strided and not (tensor.is_quantized or tensor.is_meta)
        if not dense or tensor.is_complex():
            what = str(tensor.dtype if dense or tensor.is_quantized else tensor.layout)
            raise UserError(
                f"{path}: {name} is {'on meta' if tensor.is_meta else what}, no plain tensor of "
                "real numbers: save it as one of float32"
            )
        touched += tensor.nbytes
        if options and touched > REOPEN_BYTES:
            opened, touched = tensors(), 0
        return tensor.to(torch.float32).numpy()

    return Tensors(path, {name: tuple(t.shape) for name, t in opened.items()}, read)


def _refusal(path: Path, error: Exception) -> str:
    """Why torch did not read a file, in one line."""
    text = " ".join(str(error).split())
    name = re.search(
        r"(?:GLOBAL|Unsupported class|reduce for unrecognized function) ([\w.]+)", text
    )
    if name or (isinstance(error, pickle.UnpicklingError) and _is_pickle(path)):
        what = f" ({name[1]})" if name else ""
        return (
            f"{path} may run code when it is unpickled{what}, and was not read: only tensors are "
            "taken; save the state_dict alone, as torch.save(G.state_dict()) does"
        )
    reason = "" if "Weights only load failed" in text else f" ({_line(error)})"
    return f"{path} is no PyTorch file, or is truncated{reason}: copy it again"


def _is_pickled(path: Path) -> bool:
    """Whether a file that safetensors does not read is a pickle, or PyTorch's archive of one."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    with open(path, "rb") as file:
        start = file.read(4)
    return tensor_file.is_pickle(start) and not start.startswith(b"PK")


def _is_pickle(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(1) == b"\x80"  # the opcode of a pickle's protocol


def _line(error: Exception) -> str:
    text = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    return text if len(text) <= 120 else text[:117] + "..."
