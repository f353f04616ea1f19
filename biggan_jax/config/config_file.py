"""A config file and the overrides of a command line -> a config."""

import os
import re
import sys
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from biggan_jax.config import default_config
from biggan_jax.config.flat import first_line, flatten
from biggan_jax.errors import UserError, did_you_mean

# Where the configs with a name are: in an installed package, else in a checkout.
_CARRIED = (Path(__file__).parent / "carried", Path(__file__).parents[2] / "configs")


def carried() -> dict[str, str]:
    """{name: file} of the configs that the package carries, for `--config NAME`."""
    folder = next((folder for folder in _CARRIED if folder.is_dir()), _CARRIED[0])
    return {file.stem: str(file) for file in sorted(folder.glob("*.py"))}


def find(path: str) -> str:
    """What `--config` names, as the path of a file that is there.

    Args:
      path: FILE or FILE:ARG, or the NAME or NAME:ARG of a config that the package carries.

    Returns:
      FILE or FILE:ARG.

    Raises:
      UserError: there is no such file and no config of this name.
    """
    file, *argument = [path] if os.path.exists(path) else path.rsplit(":", 1)
    if os.path.isfile(file):
        return path
    known = carried()
    if file in known:
        return ":".join([known[file], *argument])
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
      UserError: one line for a missing or broken file, an unknown key (with the nearest known one)
        or a value of the wrong type.
    """
    path = find(path)
    _check_options(overrides)
    argv = ["biggan", f"--config={path}", *_last_of_each(overrides)]
    values = flags.FlagValues()
    sys.modules.pop("config_config", None)  # ml_collections would reuse the last file's get_config
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        rest = values(argv)
        config = values.config
    except (Exception, SystemExit) as e:
        _check_overrides(overrides)
        _check_value(e)
        raise UserError(f"--config {path}: {type(e).__name__}: {first_line(e)}") from e
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config {path}: get_config() returned {type(config).__name__}")
    _check_keys(path, config)
    if len(rest) > 1:
        raise UserError(f"unexpected argument {rest[1]!r}; overrides are --config.KEY=VALUE")
    return config


def override(config: ConfigDict, overrides: list[str]) -> ConfigDict:
    """Applies command-line overrides to a config that no file holds.

    Args:
      config: a full config.
      overrides: arguments such as `--config.model.ch=96`.

    Returns:
      The locked config.

    Raises:
      UserError: as `load`.
    """
    _check_options(overrides)
    values = flags.FlagValues()
    argv = ["biggan", *_last_of_each(overrides)]
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        rest = values(argv)
    except (Exception, SystemExit) as e:
        _check_overrides(overrides)
        _check_value(e)
        raise UserError(f"{type(e).__name__}: {first_line(e)}") from e
    if len(rest) > 1:
        raise UserError(f"unexpected argument {rest[1]!r}; overrides are --config.KEY=VALUE")
    return values.config.lock()


def _check_options(overrides: list[str]) -> None:
    """Refuses options that are no overrides."""
    for override in overrides:
        if override.startswith("--") and not re.match(r"--(no)?config\.", override):
            raise UserError(f"unknown option {override!r} (see biggan COMMAND --help)")


def _check_overrides(overrides: list[str]) -> None:
    """Refuses overrides of a setting that does not exist."""
    known = flatten(default_config())
    for override in overrides:
        key = key_of(override)
        if key not in known and override.startswith("--"):
            raise UserError(f"unknown config key {key!r}{did_you_mean(key, known)}")


def _check_value(error: BaseException) -> None:
    """Refuses an override whose value is of another type, with a value that is taken."""
    text = first_line(error).removeprefix("flag ")
    # A config file that fails is an illegal value of --config itself, with a traceback.
    if not isinstance(error, flags.IllegalFlagValueError) or not text.startswith("--config."):
        return
    key = key_of(text.partition(": ")[0])
    default = flatten(default_config()).get(key)
    example = "" if default is None else f"; write it as --config.{key}={_written(default)}"
    raise UserError(f"{text}{example}") from error


def _written(value: Any) -> str:
    """A value as it may stand on a shell's command line."""
    return f'"{value}"' if isinstance(value, tuple) else str(value)


def key_of(override: str) -> str:
    """The setting that an override such as `--config.model.ch=96` is of: `model.ch`."""
    return re.sub(r"^--(no)?config\.|=.*", "", override, flags=re.DOTALL)


def _last_of_each(overrides: list[str]) -> list[str]:
    """The last override of every key: ml_collections would join tuples that are given twice."""
    groups: dict[str, list[str]] = {}
    last = None  # the group of an override that may take the next argument as its value
    for text in overrides:
        if text.startswith("--"):
            groups.pop(key_of(text), None)
            groups[key_of(text)] = group = [text]
            last = None if "=" in text else group
        elif last is not None:
            last.append(text)
            last = None
        else:
            groups[text] = [text]
    return [text for group in groups.values() for text in group]


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
