"""A config file and the overrides of a command line -> a config."""

import contextlib
import copy
import os
import sys
import tempfile
from collections.abc import Iterator

from absl import flags
from ml_collections import ConfigDict, config_flags

from biggan_jax.config import carried, default_config
from biggan_jax.config import overrides as overrides_lib
from biggan_jax.config.flat import first_line, flatten
from biggan_jax.errors import UserError, did_you_mean


def find(path: str) -> str:
    """What `--config` names, as the path of a file that is there.

    Args:
      path: FILE or FILE:ARG, or the NAME or NAME:ARG of a config that the package carries.

    Returns:
      FILE or FILE:ARG.

    Raises:
      UserError: there is no such file and no config of this name.
    """
    path = os.path.expanduser(path)
    file, *argument = [path] if os.path.exists(path) else path.rsplit(":", 1)
    if os.path.isfile(file):
        return path
    known = carried.files()
    if file in known:
        return ":".join([known[file], *argument])
    if not path:
        raise UserError(f"--config is empty; give a file, or one of {', '.join(known)}")
    if overrides_lib.key_of(f"--config.{path}") in flatten(default_config()):
        raise UserError(
            f"--config {path}: this is a setting; write it as --config.{path}, and --config FILE "
            "besides"
        )
    if os.path.isdir(path):
        raise UserError(
            f"--config {path}: no such file, it is a folder; give a file, or one of "
            f"{', '.join(known)}"
        )
    if os.path.dirname(file):
        raise UserError(f"--config {file}: no such file; give a file, or one of {', '.join(known)}")
    raise UserError(
        f"--config {file}: no such file and no config of this name{did_you_mean(file, known)}; "
        f"give a file, or one of {', '.join(known)}"
    )


def load(path: str, overrides: list[str]) -> ConfigDict:
    """Loads a config file and applies command-line overrides.

    Args:
      path: a Python file with `get_config()`, or the name of one that the package carries;
        `FILE:ARG` calls `get_config(ARG)`.
      overrides: arguments such as `--config.model.ch=96`.

    Returns:
      The locked config.

    Raises:
      UserError: one line for a missing or broken file, and as `overrides.apply`.
    """
    path = find(path)
    values = flags.FlagValues()
    sys.modules.pop("config_config", None)  # ml_collections would reuse the last file's get_config
    try:
        with _without_colon(path) as plain:
            argv = ["biggan", f"--config={plain}"]
            config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
            values(argv)
            config = values.config
    except (Exception, SystemExit) as e:
        raise UserError(f"--config {path}: {_problem(path, e)}") from e
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config {path}: get_config() returned {type(config).__name__}")
    _check_keys(path, config)
    return overrides_lib.apply(config, overrides)


@contextlib.contextmanager
def _without_colon(path: str) -> Iterator[str]:
    """A context of FILE or FILE:ARG for ml_collections, which cuts it at its first colon."""
    file, *argument = [path] if os.path.exists(path) else path.rsplit(":", 1)
    if ":" not in file:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = os.path.join(folder, "config.py")
        os.symlink(os.path.abspath(file), link)
        yield ":".join([link, *argument])


def override(config: ConfigDict, overrides: list[str]) -> ConfigDict:
    """Applies command-line overrides to a config that no file holds.

    Args:
      config: a full config, which stays as it is.
      overrides: arguments such as `--config.model.ch=96`.

    Returns:
      The locked config.

    Raises:
      UserError: as `overrides.apply`.
    """
    return overrides_lib.apply(copy.deepcopy(config), overrides)


def _problem(path: str, error: BaseException) -> str:
    """What is wrong with a config file, in one line."""
    # ml_collections names the flag too where the file itself fails.
    name = "" if isinstance(error, flags.IllegalFlagValueError) else f"{type(error).__name__}: "
    said = f"{name}{first_line(error)}"
    if "has no attribute 'get_config'" in said:
        said = "AttributeError: there is no get_config() in it"
    elif path.endswith(".py"):
        return said
    return f"{said}; a config is a Python file such as `biggan configs show digits` prints"


def _check_keys(path: str, config: ConfigDict) -> None:
    """Refuses a config file with a misspelt, missing or unset setting."""
    known, given = flatten(default_config()), flatten(config)
    for key in given.keys() - known.keys():
        raise UserError(f"--config {path}: unknown config key {key!r}{did_you_mean(key, known)}")
    for key in known.keys() - given.keys():
        raise UserError(f"--config {path}: no {key!r}; start get_config() from default_config()")
    for key, value in given.items():
        if value is None and known[key] is not None:
            raise UserError(f"--config {path}: {key} is None; give it a value")
