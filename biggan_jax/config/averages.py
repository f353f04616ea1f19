"""What the averages of G's weights are called, in states, files and on the command line."""

from collections.abc import Mapping
from typing import Any

MAIN = "ema"  # that of `ema.decay`
DECAY, PROFILE = "decay", "profile"


def is_name(text: str) -> bool:
    """Whether a text is the name of an average beside the main one, of whatever setting."""
    kind, _, value = text.partition("_")
    return kind in (DECAY, PROFILE) and bool(value)


def names(ema: Mapping[str, Any]) -> tuple[str, ...]:
    """The averages beside the main one.

    Args:
      ema: that section of a config.

    Returns:
      Such as ('decay_0.999', 'profile_0.05'), in the order of the settings.
    """
    decays = [f"{DECAY}_{float(decay)}" for decay in ema.get("decays", ())]
    return (*decays, *(f"{PROFILE}_{float(width)}" for width in ema.get("profiles", ())))
