"""Whether what stands on a page is so: a setting and its value, a command and its options."""

import argparse
import functools
import re
from collections.abc import Sequence
from pathlib import Path

from biggan_jax import models
from biggan_jax.cli import options as options_lib
from biggan_jax.config import default_config, domains, flatten
from biggan_jax.config import overrides as overrides_lib
from biggan_jax.data import kinds
from biggan_jax.errors import UserError
from biggan_jax.training import objectives
from tests import pages

_PLACEHOLDER = re.compile(
    r"\.\.\.|/?[A-Z]+\d?|[a-z_]+:[A-Z]+|[A-Z]+@[A-Z]+|n|/path|\(data, fsdp\)|"
)
# Commands whose settings can be overridden.
TAKE_SETTINGS = ("train", "inspect", "doctor", "plan", "bench", "import", "launch/sweep.py")


def check_setting(key: str, value: str) -> None:
    """Raises UserError unless a setting exists and takes the value, which may be a placeholder."""
    value = value.strip("\"'")
    config = default_config()
    if _PLACEHOLDER.fullmatch(value) and (":" not in value or key != "data.source"):
        if not any(name == key or name.startswith(f"{key}.") for name in flatten(config)):
            overrides_lib.apply(config, [f"--config.{key}=1"])
        return
    overrides_lib.apply(config, [f"--config.{key}={value}"])
    domains.check({key: flatten(config)[key]})
    if key == "data.source" and value.partition(":")[0] not in kinds.KINDS:
        raise UserError(f"data.source is {value}: {kinds.forms()}")
    if key.startswith("model."):
        _check_model(config)
    if key.startswith(("loss", "augment.", "regularizer.")):
        if key in ("augment.ops", "augment.groups"):
            config.augment.policy = "diffaugment" if key == "augment.ops" else "ada"
        objectives.of_config(config)


def _check_model(config) -> None:
    """By itself: with 128 pixels or 32, and with or without what only some settings go with."""
    config.model.num_classes = config.model.num_classes or 10
    for smaller in (
        {},
        {"resolution": 32, "g_attention": (), "d_attention": ()},
        {"hierarchical_z": False},
    ):
        config.model.update(smaller)
        try:
            models.build(config.model)
            return
        except UserError as error:
            refused = error
    raise refused


def parse(words: Sequence[str], lenient: bool) -> None:
    """Parses `biggan COMMAND ...` or `launch/sweep.py ...` by the real parser.

    Args:
      words: of the command; A|B is tried as A and as B, and for a placeholder (N, T) a value is
        put in where the option wants a number or one of a few words.
      lenient: required ones may be missing.

    Raises:
      UserError: for a command, an option or a value that does not exist.
    """
    name, *rest = words[1:] if words[0] == "biggan" else words
    known = pages.subparsers(lenient)
    if name == "--version":
        return
    if name not in known:
        raise UserError(f"no command {name!r}")
    if lenient and rest and _takes_value(known[name], rest[-1]):
        rest = rest[:-1]  # `biggan sample --out`
    if rest and rest[0] == "KIND":  # of `biggan look`
        (kinds_of,) = (a for a in known[name]._actions if isinstance(a, argparse._SubParsersAction))
        rest[0] = next(iter(kinds_of.choices))
    alternatives = [word.split("|") if "=" not in word else [word] for word in rest]
    for number in range(max(map(len, alternatives), default=1)):
        chosen = [choice[min(number, len(choice) - 1)] for choice in alternatives]
        _, left = known[name].parse_known_args(_filled(known[name], chosen))
        for word in left:
            if not overrides_lib.is_override(word):
                raise UserError(f"unexpected argument {word!r}")
        if left and name not in TAKE_SETTINGS:
            raise UserError(f"biggan {name} takes no settings: {left[0]!r}")


def _takes_value(parser: argparse.ArgumentParser, word: str) -> bool:
    action = _options(parser).get(word)
    return action is not None and action.nargs != 0


def _options(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """The options of a parser and of the ones below it."""
    found = dict(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                found |= _options(sub)
    return found


def _filled(parser: argparse.ArgumentParser, words: list[str]) -> list[str]:
    """The words with values in place of N, T, M behind options that do not take those."""
    options, filled = _options(parser), list(words)
    for i in range(1, len(words)):
        action = options.get(words[i - 1])
        if action is None or not re.fullmatch(r"[A-Z]+|T,T", words[i]):
            continue
        if action.choices:
            filled[i] = str(next(iter(action.choices)))
        elif action.type is not None and action.type not in (options_lib.path, Path):
            filled[i] = "1"
    return filled


def options_exist(words: Sequence[str]) -> bool:
    """Whether one command, or a file of launch/, has all options among some words."""
    wanted = {word.partition("=")[0] for word in words if word.startswith("--")}
    if any(wanted <= _options(parser).keys() for parser in pages.subparsers().values()):
        return True
    return all(any(option in text for text in _launch_files()) for option in wanted)


@functools.cache
def _launch_files() -> list[str]:
    return [path.read_text() for path in (pages.ROOT / "launch").iterdir() if path.is_file()]
