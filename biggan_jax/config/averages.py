"""What the averages of G's weights are called, in states, files and on the command line."""

from collections.abc import Iterable, Mapping
from typing import Any

MAIN = "ema"  # that of `ema.decay`
DECAY, PROFILE = "decay", "profile"


def is_name(text: str) -> bool:
    """Whether a text is the name of an average beside the main one, of whatever setting."""
    kind, _, value = text.partition("_")
    return kind in (DECAY, PROFILE) and bool(value)


def meant(name: str, there: Iterable[str]) -> str:
    """What may be meant by the name of an average that is not there.

    Args:
      name: what was asked for.
      there: the averages that there are.

    Returns:
      Of the kind that the name has, the one of the nearest number; the name itself where there is
      none of its kind, or it has no number.
    """
    kind, _, number = name.strip().lower().partition("_")
    same = [other for other in there if other.startswith(f"{kind}_")]
    try:
        wanted = float(number)
    except ValueError:
        return name
    return min(same, key=lambda other: abs(_number(other) - wanted), default=name)


def _number(name: str) -> float:
    return float(name.partition("_")[2])


def names(ema: Mapping[str, Any]) -> tuple[str, ...]:
    """The averages beside the main one.

    Args:
      ema: that section of a config.

    Returns:
      Such as ('decay_0.999', 'profile_0.05'), in the order of the settings.
    """
    decays = [f"{DECAY}_{float(decay)}" for decay in ema.get("decays", ())]
    return (*decays, *(f"{PROFILE}_{float(width)}" for width in ema.get("profiles", ())))
