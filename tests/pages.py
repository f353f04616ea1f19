"""Reads the pages (README, CONTRIBUTING, docs/): their commands, settings, options and links."""

import argparse
import dataclasses
import functools
import importlib.util
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from biggan_jax import cli
from biggan_jax.config import default_config, flatten

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")))
SHELL = ("", "bash", "sh")  # what the blocks of commands are marked as

_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.M | re.S)
_SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r'!?\[[^\]]*\]\(([^)\s]+)\)|(?:src|href)="([^"]+)"')
_OVERRIDE = re.compile(
    r"""(?:--config\.|(?<=--sweep ))([a-z][a-z0-9_.]*)=("[^"]*"|'[^']*'|\([^)]*\)|[^\s`"'|\]]*)"""
)
_JOINS = ("&&", "||", "|", ";")


@dataclasses.dataclass(frozen=True)
class Text:
    """A piece of a page.

    Attributes:
      where: PAGE:LINE.
      text: as it stands there.
      language: of a block, '' where it is not marked; None for a span between backticks.
    """

    where: str
    text: str
    language: str | None = None


@dataclasses.dataclass(frozen=True)
class Command:
    """One command of a page.

    Attributes:
      where: PAGE:LINE.
      words: as a shell would hand them on, without the variables of its block and without [ ].
      fenced: it stands in a block, so it is a whole one.
      partly: something was left out (`...`).
    """

    where: str
    words: tuple[str, ...]
    fenced: bool
    partly: bool

    @property
    def program(self) -> str:
        """`biggan`, `launch/sweep.py`, or what else the first word is."""
        return self.words[0].removeprefix(".venv/bin/")


def blocks(page: str) -> Iterator[Text]:
    """The fenced blocks of a page."""
    text = (ROOT / page).read_text()
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start(2)) + 1
        yield Text(f"{page}:{line}", found[2], found[1])


def spans(page: str, text: str | None = None) -> Iterator[Text]:
    """What stands between backticks, `\\|` of a table as `|`."""
    text = (ROOT / page).read_text() if text is None else text
    plain = _FENCE.sub(lambda found: "\n" * found[0].count("\n"), text)
    for found in _SPAN.finditer(plain):
        line = plain.count("\n", 0, found.start()) + 1
        yield Text(f"{page}:{line}", " ".join(found[1].replace("\\|", "|").split()))


def links(page: str) -> Iterator[tuple[str, str]]:
    """(PAGE:LINE, target) of every link and picture of a page."""
    text = _FENCE.sub(lambda found: "\n" * found[0].count("\n"), (ROOT / page).read_text())
    for found in LINK.finditer(text):
        yield f"{page}:{text.count(chr(10), 0, found.start()) + 1}", found[1] or found[2]


def anchors(page: Path) -> set[str]:
    """What a link into a page may name, made of its headings as GitHub makes it."""
    found: list[str] = []
    for heading in re.findall(r"^#+ +(.+)$", _FENCE.sub("", page.read_text()), re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        count = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", one) is not None for one in found)
        found.append(f"{slug}-{count}" if count else slug)
    return set(found)


def commands(page: str) -> Iterator[Command]:
    """Every command of a page's blocks, and those of `biggan` and `launch/` between backticks."""
    for block in blocks(page):
        if block.language in SHELL:
            yield from _of_block(block)
    for span in itertools.chain(spans(page), _comments(page)):
        for words, partly in _simple(span.text, {}):
            command = Command(span.where, words, fenced=False, partly=partly)
            if len(words) > 1 and command.program in ("biggan", "launch/sweep.py"):
                yield command
            elif len(words) > 1 and words[0] in subparsers() and words[1].startswith("--"):
                yield dataclasses.replace(command, words=("biggan", *words))


def _comments(page: str) -> Iterator[Text]:
    """What stands between backticks in the comments of a page's blocks of commands."""
    for block in blocks(page):
        if block.language not in SHELL:
            continue
        name, _, first = block.where.rpartition(":")
        for number, line in enumerate(block.text.split("\n"), int(first)):
            for found in _SPAN.finditer(line.partition(" #")[2]):
                yield Text(f"{name}:{number}", found[1])


def _of_block(block: Text) -> Iterator[Command]:
    """The commands of one block: all its lines, or those behind `$` where others are output."""
    variables: dict[str, str] = {}
    page, _, first = block.where.rpartition(":")
    lines = block.text.split("\n")
    shown = any(line.startswith("$ ") for line in lines)
    number = 0
    while number < len(lines):
        start, line = number, lines[number]
        while line.endswith("\\"):
            number += 1
            line = f"{line[:-1]} {lines[number].strip()}"
        number += 1
        if shown and not line.startswith("$ "):
            continue
        for words, partly in _simple(line.removeprefix("$ "), variables):
            name, equals, value = words[0].partition("=")
            if equals and name.isidentifier() and len(words) == 1:
                variables[name] = value
                continue
            yield Command(f"{page}:{int(first) + start}", words, fenced=True, partly=partly)


def _simple(line: str, variables: dict[str, str]) -> Iterator[tuple[tuple[str, ...], bool]]:
    """(words, whether something is left out) of every command of a line."""
    line = re.sub(r"\$(\w+)", lambda found: variables.get(found[1], found[0]), line)
    line = re.sub(r"\[((?:--|:)[^\]]*)\]", r"\1", line)  # optional parts
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return  # no shell's line, such as a word with an apostrophe
    for is_join, group in itertools.groupby(words, lambda word: word in _JOINS):
        kept = list(group)
        if is_join or not kept:
            continue
        if ">" in kept:
            kept = kept[: kept.index(">")]
        whole = tuple(word for word in kept if word != "...")
        partly = len(whole) < len(kept)
        if len(whole) > 1 and whole[0].endswith("python") and whole[1].startswith("launch/"):
            whole = whole[1:]
        if whole:
            yield whole, partly


# Settings.


def settings(page: str) -> Iterator[tuple[str, str, str]]:
    """(PAGE:LINE, key, value) of every setting that a page gives a value."""
    known = flatten(default_config())
    sections = {key.partition(".")[0] for key in known if "." in key}
    ends = [key.rpartition(".")[2] for key in known]
    for number, line in enumerate((ROOT / page).read_text().split("\n"), 1):
        for found in _OVERRIDE.finditer(line):
            for value in _swept(found, line):
                yield f"{page}:{number}", found[1], value
    for span in spans(page):
        found = re.fullmatch(r"([a-z][\w.]*) ?= ?(.*)", span.text)
        if found is None:
            continue
        first, _, rest = found[1].partition(".")
        if first in known or (rest and first in sections):
            yield span.where, found[1], found[2]
        elif ends.count(found[1]) == 1:  # without its section
            (key,) = (key for key in known if key.endswith(f".{found[1]}"))
            yield span.where, key, found[2]


def _swept(found: re.Match, line: str) -> list[str]:
    """The values behind one `=`: those of a sweep one by one."""
    if not line[: found.start(1)].endswith("--sweep "):
        return [found[2]]
    return found[2].split(",")


def bare_settings(page: str) -> Iterator[tuple[str, str]]:
    """(PAGE:LINE, key) of every setting that stands between backticks without a value."""
    known = flatten(default_config())
    sections = {key.partition(".")[0] for key in known if "." in key}
    for span in spans(page):
        first, dot, rest = span.text.partition(".")
        if (
            dot
            and first in sections
            and re.fullmatch(r"(?!jsonl|py\b|safetensors\b)[a-z0-9_.]+", rest)
        ):
            yield span.where, span.text


@functools.cache
def subparsers(lenient: bool = False) -> dict[str, argparse.ArgumentParser]:
    """The parsers of all commands, and of `launch/sweep.py`.

    Args:
      lenient: they take a command, too, that is not whole.
    """
    top = cli.parser()
    (action,) = (a for a in top._actions if isinstance(a, argparse._SubParsersAction))
    found = {**action.choices, "launch/sweep.py": sweep_script().parser()}
    for sub in found.values() if lenient else ():
        _relax(sub)
    return found


@functools.cache
def sweep_script():
    """launch/sweep.py as a module."""
    spec = importlib.util.spec_from_file_location("sweep_script", ROOT / "launch" / "sweep.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _relax(parser: argparse.ArgumentParser) -> None:
    parser.unless = {}
    for group in parser._mutually_exclusive_groups:
        group.required = False
    for action in parser._actions:
        action.required = False
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                _relax(sub)
