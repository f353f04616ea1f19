"""Overrides of a command line, `--config.KEY=VALUE`, read and applied to a config."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from biggan_jax.config import default_config, values
from biggan_jax.config.flat import flatten
from biggan_jax.errors import UserError, nearest

# Hyphens, dashes and minus signs that a word processor puts in place of two hyphens.
_DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
WRITE = "; write it as --"  # what a message advises begins so
_OVERRIDE = re.compile(r"--(no)?config\.")


class Override(NamedTuple):
    """One override as it is written; a switch may stand alone, and `value` is None then."""

    key: str
    value: str | None
    negated: bool  # --noconfig.KEY


def is_override(text: str) -> bool:
    """Whether an argument is `--config.KEY...` or `--noconfig.KEY`."""
    return _OVERRIDE.match(text) is not None


def key_of(override: str) -> str:
    """The setting that an override such as `--config.model.ch=96` is of: `model.ch`."""
    return _OVERRIDE.sub("", override).partition("=")[0].strip()


def apply(config: ConfigDict, arguments: Sequence[str]) -> ConfigDict:
    """Applies overrides to a config.

    Args:
      config: a full config; changed in place.
      arguments: such as `--config.model.ch=96`, or `--config.model.ch` and `96`; of a setting that
        is given more than once the last one counts.

    Returns:
      The config, locked.

    Raises:
      UserError: one line for an unknown setting, with the nearest known one, a value of the wrong
        type, with one that is taken, or an argument that is no override.
    """
    config.lock()
    for override in _parse(arguments, config):
        section, name = _place(config, override.key)
        section[name] = _value(override, section, name)
    return config


def _parse(arguments: Sequence[str], config: ConfigDict) -> Iterator[Override]:
    """The overrides of a command line, in its order."""
    rest = list(arguments)
    while rest:
        text = rest.pop(0)
        if not is_override(text):
            raise UserError(explain(text, *rest[:1]))
        key, (_, equals, value) = key_of(text), text.partition("=")
        _check_key(key)
        negated = text.startswith("--no")
        if not equals:
            value = None
            if not negated and rest and not rest[0].startswith("--"):
                value = rest.pop(0)
        yield Override(key, value, negated)


def _place(config: ConfigDict, key: str) -> tuple[ConfigDict, str]:
    """The section that holds a setting, and its name there."""
    *path, name = key.split(".")
    for part in path:
        config = config[part]
    return config, name


def _value(override: Override, section: ConfigDict, name: str):
    key, kind, current = override.key, section.get_type(name), section[name]
    if override.negated or override.value is None:
        if kind is bool and override.value is None:
            return not override.negated
        if not override.negated:
            flag, why = f"--config.{key}", "has no value"
        else:
            flag = f"--noconfig.{key}"
            why = "takes no value" if kind is bool else "is for settings that are True or False"
        shown = values.written(values.example(key, kind, current))
        raise UserError(f"{flag}: it {why}; write it as --config.{key}={shown}")
    may_be_unset = flatten(default_config())[key] is None
    return values.read(key, override.value, kind, current, may_be_unset=may_be_unset)


def _check_key(key: str) -> None:
    """Refuses a setting that does not exist."""
    known = flatten(default_config())
    if key in known:
        return
    inside = [name for name in known if name.startswith(f"{key}.")]
    if inside:
        raise UserError(
            f"--config.{key} is a section: set one of its keys, such as --config.{inside[0]}="
            f"{values.written(known[inside[0]])}"
        )
    found = near(key, known)
    raise UserError(
        f"unknown config key {key!r}" + (f" (did you mean {found!r}?)" if found else "")
    )


def near(key: str, known: Iterable[str]) -> str | None:
    """The setting that a misspelt or shortened one most probably means."""
    known = list(known)
    end = key.rpartition(".")[2]
    by_end = {name.rpartition(".")[2]: name for name in reversed(known)}
    found = _named(key, known) or _named(end, known) or nearest(key, known)
    return found or by_end.get(nearest(end, by_end) or "")


def explain(argument: str, following: str | None = None) -> str:
    """Says what to write in place of an argument that is neither an option nor an override.

    Args:
      argument: as the user wrote it, such as `config.model.ch=8`, `-config.seed=1` or `--ch`.
      following: the argument behind it, which may be its value.

    Returns:
      One line.
    """
    bare = argument.lstrip(_DASHES)
    what = f"{'unknown option' if bare != argument else 'unexpected argument'} {argument!r}"
    key, equals, value = bare.partition("=")
    prefix = re.match(r"(no)?config\.", key, flags=re.IGNORECASE)
    key = key[prefix.end() :] if prefix else key
    if not equals and following is not None and not following.startswith("-"):
        equals, value = "=", following
    known = flatten(default_config())
    found = near(key, known) if prefix else _named(key, known)
    if found is None or not (equals or prefix):
        return f"{what}; overrides are --config.KEY=VALUE"
    negated = "no" if prefix and prefix[1] and not equals else ""
    behind = f"={_quoted(value)}" if equals else ""
    return f"{what}{WRITE}{negated}config.{found}{behind}"


def _named(key: str, known: Iterable[str]) -> str | None:
    """The setting with this name, or with this last part of one that no other has."""
    plain = key.strip().lower().replace("-", "_")
    ends = [name for name in known if name.rpartition(".")[2] == plain]
    return plain if plain in known else ends[0] if len(ends) == 1 else None


def _quoted(value: str) -> str:
    return f'"{value}"' if re.search(r"[\s()'$;&|<>*?\\]", value) else value
