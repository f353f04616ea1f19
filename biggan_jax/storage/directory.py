"""The config of a workdir or a model directory."""

import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from biggan_jax import config as config_lib
from biggan_jax import models
from biggan_jax.config import domains
from biggan_jax.config.resume import may_change
from biggan_jax.data import buckets
from biggan_jax.errors import UserError, did_you_mean, some
from biggan_jax.parallel import processes
from biggan_jax.storage import (
    checkpoint,
    integrity,
    json_file,
    paths,
    published,
    replacement,
    weights,
)

PROGRAMS = (".onnx", ".stablehlo")  # of `biggan export`
BEST = "best"  # folder of a workdir, replaced as a whole: see `storage.best`


def open_directory(directory: str | Path) -> tuple[Path, ConfigDict]:
    """(path, config) of a workdir or model directory; UserError when it is neither.

    A line on stderr says where config.json is no longer the config that the weights were saved
    with.
    """
    path, config, beside = read_config(directory)
    if beside is not None and beside.remark is not None:
        _tell(path / "config.json", beside.remark)
    return path, config


class Beside(NamedTuple):
    """The config that lies beside the weights of a directory.

    Attributes:
      config: what they were saved with.
      remark: what config.json has otherwise of what neither a run nor a person changes, for a
        person; None where there is nothing.
    """

    config: ConfigDict
    remark: str | None


def read_config(directory: str | Path) -> tuple[Path, ConfigDict, Beside | None]:
    """Reads the config of a workdir or model directory.

    Args:
      directory: the directory, or the name of a published model: see `published.local`.

    Returns:
      (path, config, the config that the weights were saved with: None in directories of earlier
      versions).

    Raises:
      UserError: it is neither kind of directory, or its config.json is damaged, or names another
        model than the one whose weights lie there.
    """
    directory = paths.workdir_path(published.local(directory))
    if directory.name == BEST:
        directory = replacement.whole(directory)
    buckets.reach(directory, write=False)
    path = directory / "config.json"
    try:
        saved = json_file.read(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{directory} is no workdir or model directory: {_why(directory)}"
        ) from None
    except UserError as error:
        raise UserError(f"{error}; {_remedy(path, _kept(directory))}") from error
    _check_is_ours(path, saved)
    try:
        config = config_lib.from_saved(saved)
        domains.check(config_lib.flatten(config))
        models.build(config.model)
    except UserError as e:
        # What reads this file takes no overrides of it: the file is what can be mended.
        line = f"{path}: {str(e).replace('--config.', '')}"
        if str(e).startswith(config_lib.DOES_NOT_FIT):
            line += f"; take the version that wrote it, or {_remedy(path, _kept(directory))}"
        raise UserError(line) from e
    return directory, config, _beside(path, config)


def is_ours(saved: Any) -> bool:
    """Whether the contents of a config.json is of a model of ours, not of transformers', say."""
    return isinstance(saved, dict) and (not saved or isinstance(saved.get("model"), dict))


def _check_is_ours(path: Path, saved: Any) -> None:
    if is_ours(saved):
        return
    has = f"its keys are {some(saved)}" if isinstance(saved, dict) else "it is no object"
    raise UserError(
        f"{path} is no config of a biggan_jax model ({has}): give a directory that biggan train, "
        "import or export has written"
    )


class _Kept(NamedTuple):
    """The config that lies beside the arrays of a checkpoint or of a network.

    Attributes:
      where: 'checkpoint 4', or 'weights/g'.
      record: the file that it is in.
      config: as `config.json` had it then.
    """

    where: str
    record: Path
    config: dict[str, Any]


def _kept(directory: Path) -> _Kept | None:
    """The newest one that can be read; none in directories of earlier versions."""
    root = integrity.absolute(directory)
    steps = reversed(checkpoint.Checkpoints(root / "checkpoints").all_steps())
    places = [(f"checkpoint {step}", root / "checkpoints" / str(step)) for step in steps]
    for name in weights.saved_names(root):
        places.append((f"weights/{name}", replacement.whole(root / "weights" / name)))
    for where, place in places:
        file = place / "meta" / "metadata"  # read in a thousandth of the time that Orbax takes
        try:
            record = json_file.read(file)
            sealed = record.pop("seal")
            if sealed == integrity.seal(record):
                return _Kept(where, file, dict(record["meta"]["config"]))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            continue  # whoever reads its arrays will say so
    return None


def _beside(path: Path, config: ConfigDict) -> Beside | None:
    """The config beside the weights; UserError where its model is another."""
    kept = _kept(path.parent)
    try:
        kept_config = None if kept is None else config_lib.from_saved(kept.config)
    except UserError:  # of another version
        kept_config = None
    if kept_config is None:
        return None
    own = config_lib.flatten(kept_config)
    flat = config_lib.flatten(config)
    differing = [key for key in own if own[key] != flat[key] and not may_change(key)]
    if not own["class_names"] and "class_names" in differing:
        differing.remove("class_names")  # earlier versions did not know them
    if not differing:
        return Beside(kept_config, None)
    said = some(f"{key} {_short(flat[key])}, not {_short(own[key])}" for key in differing)
    line = f"{path} has {said} as {kept.where} was saved with"
    if any(key.startswith("model.") for key in differing):
        raise UserError(f"{line}; {_remedy(path, kept)}")
    return Beside(kept_config, f"{line}; {_remedy(path, kept)}")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _remedy(path: Path, kept: _Kept | None) -> str:
    if kept is None or paths.is_remote(path):
        return published.cure(path, "put a copy of it back")
    program = "import json, sys; record = json.load(open(sys.argv[1])); "
    program += 'json.dump(record["meta"]["config"], open(sys.argv[2], "w"))'
    command = shlex.join(["python3", "-c", program, str(kept.record), str(path)])
    return f"put a copy of it back, or take the one of {kept.where} by `{command}`"


_told: set[tuple] = set()


def _tell(path: Path, line: str) -> None:
    """Says it once of a file: a command opens its directory several times."""
    written = None if paths.is_remote(path) else path.stat().st_mtime_ns
    if processes.is_main() and (line, written) not in _told:
        _told.add((line, written))
        print(f"warning: {line}", file=sys.stderr)


def _why(directory: Path) -> str:
    """Why a folder is no model's, with the one that was probably meant."""
    is_file = directory.is_file()
    if not is_file and not directory.is_dir():
        hint = did_you_mean(str(directory), [published.DEMO])
        return f"no such directory{hint or ', correct the path'}"
    why = "it is a file" if is_file else "it holds no config.json"
    # People name a checkpoint, a file of it, or the folder of all.
    for above in directory.parents[:4]:
        if (above / "config.json").is_file():
            inside = directory.relative_to(above).parts
            step = inside[1] if inside[0] == "checkpoints" and len(inside) > 1 else ""
            return f"{why}; give {above}" + (f", step {step}" if step.isdecimal() else "")
    inside = [directory] if is_file else sorted(directory.iterdir())
    program = next((path.name for path in inside if path.suffix in PROGRAMS), None)
    if program is not None:
        return f"{why}; {program} is not read back: give the directory that it was exported from"
    if is_file and directory.suffix == ".safetensors":
        return f"{why}; import it by `biggan import --format biggan-jax {directory} --out DIR`"
    return f"{why}; give a directory that biggan train, import or export has written"
