"""A features network of the user: a Python function of images."""

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from biggan_jax.errors import UserError, did_you_mean
from biggan_jax.metrics.features import check_images

_FORM = "write module:function, such as my_features:embed for `embed` of my_features.py"
_PROBE = 2  # images


class Function:
    """Features by a function of the user; an `Extractor`.

    Args:
      name: `module:function`; the module is one of the working directory or of the environment.
      resolution: side of the images that it will get, in pixels.
      channels: of these, 1 or 3.

    Attributes:
      has_logits: whether the function returns logits as well.

    Raises:
      UserError: there is no such function, or it does not return features of images.
    """

    resize = "none"

    def __init__(self, name: str, resolution: int, channels: int):
        self.name = name
        self.resolution = resolution
        self._function, files = find(name)
        self.digest = _digest(files)
        # Noise, since a constant image has no deviation to divide by.
        shape = (_PROBE, resolution, resolution, channels)
        probe = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        out = self._outputs(probe)
        self.feature_dim = out["features"].shape[1]
        self.has_logits = "logits" in out
        self._num_classes = out["logits"].shape[1] if self.has_logits else None

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Features of images, uint8 [N, H, W, C], and logits where the function has them.

        Raises:
          UserError: the function raises, or returns anything but finite features of its dimension.
        """
        out = self._outputs(check_images(images))
        found = [out[name].shape[1] if name in out else None for name in ("features", "logits")]
        known = [self.feature_dim, self._num_classes]
        for what, now, before in zip(("features", "logits"), found, known, strict=True):
            if now != before:
                raise UserError(
                    f"{self._text} returned {before or 'no'} {what} an image at first and now "
                    f"{now or 'none'}: return the same for every batch"
                )
        return out

    @property
    def _text(self) -> str:
        return f"--features {self.name}"

    def _outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is one JSON object
                returned = _computed(self._function(images))
            arrays = {name: np.asarray(value) for name, value in _named(returned).items()}
        except (Exception, SystemExit) as error:
            raise UserError(
                f"{self._text} raised {_line(error)} on images uint8 {list(images.shape)}: "
                "repair the function"
            ) from error
        if "features" not in arrays:
            raise UserError(
                f"{self._text} returned {type(returned).__name__}: return features [N, D], or "
                "features and logits [N, K]"
            )
        return {name: self._checked(name, array, len(images)) for name, array in arrays.items()}

    def _checked(self, what: str, array: np.ndarray, count: int) -> np.ndarray:
        """One output as float32 [N, d]; refuses what is none."""
        d = {"features": "D", "logits": "K"}[what]
        if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
            raise UserError(
                f"{self._text} returned {what} of {array.dtype} {list(array.shape)}: return "
                f"floats [{count}, {d}] for {count} images"
            )
        if array.ndim != 2 or len(array) != count or not array.shape[1]:
            raise UserError(
                f"{self._text} returned {what} {list(array.shape)} for {count} images: return "
                f"[{count}, {d}], one row an image"
            )
        with np.errstate(over="ignore"):  # what float32 cannot hold is counted below
            array = array.astype(np.float32)
        bad = int((~np.isfinite(array)).any(axis=1).sum())
        if bad:
            raise UserError(
                f"{self._text} returned NaN or infinite {what} for {bad} of {count} images: repair "
                "the function or its weights"
            )
        return array


def _computed(returned: Any) -> Any:
    """What a function returned; TypeError where it has not computed anything yet."""
    if inspect.iscoroutine(returned):
        returned.close()  # it would be complained of that nobody waited for it
        raise TypeError("it is `async`, and its result is a coroutine: write a plain function")
    if inspect.isgenerator(returned):
        raise TypeError("it has `yield`, and its result is a generator: return an array")
    return returned


def _named(returned: Any) -> dict[str, Any]:
    """What a function returned as {features, logits where there are some}."""
    if isinstance(returned, dict):
        held = {name: returned[name] for name in ("features", "logits") if name in returned}
    elif isinstance(returned, tuple):
        held = dict(zip(("features", "logits"), returned, strict=False)) if returned else {}
        if len(returned) > 2:
            raise TypeError(f"it returned {len(returned)} values, features and logits are 2")
    else:
        held = {} if returned is None else {"features": returned}
    return {name: value for name, value in held.items() if value is not None}


def is_name(text: str) -> bool:
    """Whether a name of features is one of a function, `module:function`."""
    return ":" in text


def find(name: str) -> tuple[Callable[[np.ndarray], Any], list[Path]]:
    """Finds a function by its name.

    Args:
      name: `module:function`.

    Returns:
      (the function, the files of its source: of the module, and where it is imported there from
      another one, of that too).

    Raises:
      UserError: there is no such module or function, or importing it fails.
    """
    module_name, _, function_name = name.partition(":")
    parts = [*module_name.split("."), *function_name.split(".")]
    if not all(part.isidentifier() for part in parts):
        raise UserError(f"--features {name}: it names no function; {_FORM}")
    module = _imported(name, module_name)
    function: Any = module
    for part in function_name.split("."):
        if not hasattr(function, part):
            known = [n for n in dir(function) if callable(getattr(function, n, None))]
            own = [n for n in known if not n.startswith("_")]
            where = getattr(module, "__file__", None) or "it is built in"
            raise UserError(
                f"--features {name}: {module_name} ({where}) has no {part!r}"
                f"{did_you_mean(part, own) or f'; {_FORM}'}"
            )
        function = getattr(function, part)
    if not callable(function):
        raise UserError(
            f"--features {name}: {function_name} of {module_name} is a "
            f"{type(function).__name__}, no function; {_FORM}"
        )
    files = [getattr(module, "__file__", None), _source(function)]
    found = list(dict.fromkeys(Path(file) for file in files if file))
    if not found or not all(path.is_file() for path in found):
        raise UserError(
            f"--features {name}: {module_name} has no source file, of which the protocol holds a "
            "digest; wrap the function in a module of your own"
        )
    return function, found


def _imported(name: str, module_name: str) -> ModuleType:
    """The module of a function: of the working directory first, as `python -m` has it."""
    here = Path.cwd()
    own = here / f"{module_name}.py"
    before = list(sys.path)
    sys.path.insert(0, str(here))
    importlib.invalidate_caches()
    try:
        # Read anew: it may have changed since, or be another directory's of the same name.
        with contextlib.redirect_stdout(sys.stderr):
            if own.is_file():
                return _executed(module_name, own)
            return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{module_name}.".startswith(f"{missing}."):
            files = [path.stem for path in here.glob("*.py")]
            hint = did_you_mean(module_name, files)
            raise UserError(
                f"--features {name}: no module {missing} in {here} or in the environment"
                f"{hint or f'; {_FORM}'}"
            ) from None
        raise UserError(
            f"--features {name}: importing {module_name} raised {_line(error)}: repair it"
        ) from error
    finally:
        # At the end for what the function imports when it runs: it may shadow nothing there.
        sys.path[:] = before if str(here) in before else [*before, str(here)]


def _executed(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    held = sys.modules.get(name)
    sys.modules[name] = module  # classes of the module look themselves up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        # A module of ours or of a library by this name stays what everybody else imports.
        if held is not None and getattr(held, "__file__", None) != str(path):
            sys.modules[name] = held
    return module


def _source(function: Any) -> str | None:
    try:
        return inspect.getsourcefile(inspect.unwrap(function))
    except (TypeError, ValueError):  # built in, or an instance of a class
        pass
    try:
        return inspect.getsourcefile(type(function))
    except TypeError:
        return None


def _digest(files: list[Path]) -> str:
    """64 hexadecimal digits: sha256 of one file, or over those of several."""
    each = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return each[0] if len(each) == 1 else hashlib.sha256("".join(each).encode()).hexdigest()


def _line(error: BaseException) -> str:
    """An exception in one line, with the place that raised it."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    text = text if len(text) <= 160 else text[:157] + "..."
    if isinstance(error, SyntaxError):  # which says its place itself
        return text
    frames = traceback.extract_tb(error.__traceback__)
    at = next((f for f in reversed(frames) if f.filename != __file__), None)
    return f"{text} ({Path(at.filename).name}, line {at.lineno})" if at else text
