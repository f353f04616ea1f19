"""What is written behind `--config.KEY=` -> a value of the setting's type."""

import ast
import math
import re
from decimal import Decimal, InvalidOperation
from typing import Any

from biggan_jax.config.domains import DOMAINS, Choice, kind_of_parts
from biggan_jax.errors import UserError

UNSET = "None"  # unsets a setting that may be unset
_NOTHING = ("none", "null")
_YES = ("true", "yes", "on", "1", "t", "y")
_NO = ("false", "no", "off", "0", "f", "n")
# What editors and web pages make of a minus sign.
_MINUS = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"))
_LARGEST = 2**63  # of a whole number: what the arrays of a step can count to
_WRONG = {
    int: "this is no whole number of at most 63 bits",
    float: "this is no number",
    tuple: "this is no sequence of whole numbers or words",
}


def read(key: str, text: str, kind: type, current: Any, *, may_be_unset: bool) -> Any:
    """Reads the value of an override.

    Whole numbers may be written 1000, 1_000, 1e3 or 1000.0, switches True, yes, on or 1 and False,
    no, off or 0, sequences (8,16), 8,16 or, with a single value, 8.

    Args:
      key: the setting, such as `model.ch`.
      text: what stands behind the equals sign; quotes around all of it are left out.
      kind: bool, int, float, str or tuple.
      current: the value that would be replaced, which a refusal gives as an example.
      may_be_unset: whether `None` is a value.

    Returns:
      The value; None where it is to be unset.

    Raises:
      UserError: one line with what is wrong and a value that is taken.
    """
    bare = text.strip()
    if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "\"'":
        bare = text = bare[1:-1]
        bare = bare.strip()
    if may_be_unset and bare.lower() in _NOTHING:
        return None
    shown = written(example(key, kind, current))
    if not bare or bare.lower() in _NOTHING and kind is not str:
        raise _refused(key, text, *_nothing(bare, kind, shown, may_be_unset and current is None))
    if kind is str:
        return text
    if kind is bool:
        if bare.lower() in (*_YES, *_NO):
            return bare.lower() in _YES
        raise _refused(key, text, "this is neither True nor False", shown)
    bare = bare.translate(_MINUS)
    floats = kind is tuple and kind_of_parts(key) is float
    value = {int: whole, float: number, tuple: _numbers if floats else _sequence}[kind](bare)
    if value is not None:
        return value
    if floats:
        raise _refused(key, text, "this is no sequence of numbers", shown)
    meant = {int: _without_thousands, float: _with_a_point}.get(kind, lambda _: None)(bare)
    raise _refused(key, text, _WRONG[kind], meant or shown)


def written(value: Any) -> str:
    """A value as it may stand on a shell's command line, where parentheses need quotes."""
    return f'"{value}"' if isinstance(value, tuple) else "" if value is None else str(value)


def example(key: str, kind: type, current: Any) -> Any:
    """A value that a setting takes: its own, or where it has none one of its domain."""
    if current is not None:
        return current
    domain = DOMAINS.get(key)
    if isinstance(domain, Choice):
        return domain[0]
    if domain is not None:
        return kind(domain.low)
    return UNSET  # without a domain and without a default


def _refused(key: str, text: str, why: str, example: str) -> UserError:
    example = f"; write it as --config.{key}={example}" if example else ""
    return UserError(f"--config.{key}={text}: {why}{example}")


def _nothing(bare: str, kind: type, shown: str, is_unset: bool) -> tuple[str, str]:
    """(what is wrong with an empty value or None, what to write in its place)."""
    if kind is tuple:
        return "an empty sequence is written ()", '"()"'
    if bare:
        return "it cannot be unset", shown
    return "the value is missing", UNSET if is_unset else shown


def whole(text: str) -> int | None:
    """1000, 1_000, 1e3, 1000.0 or 0x10; None for anything else."""
    try:
        return _countable(int(text, 0))  # 0x10 too
    except ValueError:
        pass
    try:
        exact = Decimal(text)
    except InvalidOperation:
        return None
    # Not `int(exact)` first: that of 1e999999999 would take all memory.
    if not exact.is_finite() or exact.adjusted() > 20 or exact != exact.to_integral_value():
        return None
    return _countable(int(exact))


def _countable(number: int) -> int | None:
    return number if abs(number) < _LARGEST else None


def number(text: str) -> float | None:
    """A number; also nan and inf, which the setting's domain refuses with its bounds."""
    try:
        return float(text)
    except ValueError:
        return None


def _numbers(text: str) -> tuple[float, ...] | None:
    """(0.1,0.5), [0.1,0.5], 0.1,0.5, 0.1 or (); None for anything else."""
    inner = re.fullmatch(r"\((.*)\)|\[(.*)\]|([^()\[\]{}]*)", text, flags=re.DOTALL)
    listed = next((group for group in inner.groups() if group is not None), "") if inner else "x"
    parts = [part.strip() for part in listed.strip().removesuffix(",").split(",") if listed.strip()]
    values = tuple(number(part) for part in parts)
    return None if None in values else values


def _sequence(text: str) -> tuple | None:
    """(8,16), [8,16], 8,16, 8, () or words; None for anything else."""
    try:
        # What Python reads is taken as it stands; a word without quotes is not.
        value = ast.literal_eval(text)
        parts = value if isinstance(value, tuple | list) else (value,)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        inner = re.fullmatch(r"\((.*)\)|\[(.*)\]|([^()\[\]{}]*)", text, flags=re.DOTALL)
        if inner is None:
            return None
        listed = next(group for group in inner.groups() if group is not None)
        parts = [part.strip() for part in listed.removesuffix(",").split(",")]
    values = tuple(_element(part) for part in parts)
    return None if None in values else values


def _element(part: Any) -> int | float | str | None:
    """One value of a sequence; None where it is none."""
    if isinstance(part, bool) or not isinstance(part, str | int | float):
        return None
    if isinstance(part, int):
        return _countable(part)
    if isinstance(part, float):
        return int(part) if math.isfinite(part) and part == int(part) else None
    number = whole(part)
    return number if number is not None else part.strip("\"'") or None


def _without_thousands(text: str) -> str | None:
    """1,000 -> 1000."""
    return text.replace(",", "") if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+", text) else None


def _with_a_point(text: str) -> str | None:
    """0,999 -> 0.999."""
    return text.replace(",", ".") if re.fullmatch(r"[+-]?\d*,\d+", text) else None
