"""A config as a flat dictionary, which can be compared with another and named in a message."""

from typing import Any

from ml_collections import ConfigDict


def flatten(config: ConfigDict | dict, prefix: str = "") -> dict[str, Any]:
    """{'model.ch': 96, ...} with lists as tuples, so that a config and its JSON compare equal."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict | dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = tuple(value) if isinstance(value, list) else value
    return flat


def first_line(error: BaseException) -> str:
    """What an error of ml_collections says, in one line."""
    text = str(error.args[0] if error.args else error)
    lines = text.strip().splitlines() or [""]
    # For a config file that fails ml_collections gives a whole traceback.
    return lines[-1] if "Traceback" in text else lines[0]
