"""The pages say what is so: settings, commands, options, links, and code that compiles."""

import ast
import importlib
import re

import pytest

from biggan_jax.config import default_config, flatten
from biggan_jax.errors import UserError
from tests import page_checks, pages, runs

# What the examples of CONTRIBUTING.md add (test_contributing tries them).
EXAMPLES = {
    ("loss", "minimax"),
    ("regularizer.drift", "1e-3"),
    ("norm_every_steps", "100"),
    ("norm_every_steps", "5"),
    ("model.name", "perceptron"),
    ("data.source", "npz:digits.npz"),
}
EXAMPLE_COMMANDS = (("biggan", "look", "means"), ("biggan", "classes"))
PEERS = "docs/equivalents.md"  # the left column of its tables is of other programs
OF_SLURM = ("--partition", "--account")
OF_A_CACHE = "biggan_jax/programs"  # a folder of the user's, and no file of ours


def problems(checked) -> list[str]:
    """`WHERE: WHAT: WHY` of every pair (WHERE, WHAT, function) whose function raises."""
    found = []
    for where, what, check in checked:
        try:
            check()
        except UserError as error:
            found.append(f"{where}: {what}: {error}")
    return found


def refuse(why: str):
    raise UserError(why)


def ours(page: str):
    """The spans of a page that are about this program."""
    text = (runs.ROOT / page).read_text()
    for cell in _theirs(text) if page == PEERS else ():
        text = text.replace(cell, "||", 1)
    return pages.spans(page, text)


def _theirs(text: str) -> list[str]:
    """The first cells of all rows."""
    return re.findall(r"^\|[^|\n]*\|", text, re.M)


@pytest.mark.parametrize("page", pages.PAGES)
def test_settings(page):
    """They exist, and take the values that stand there."""
    found = [
        (
            where,
            f"{key}={value}",
            lambda key=key, value=value: page_checks.check_setting(key, value),
        )
        for where, key, value in pages.settings(page)
        if not (page == "CONTRIBUTING.md" and (key, value) in EXAMPLES)
    ]
    known = flatten(default_config())
    found += [
        (where, key, lambda: refuse("no setting"))
        for where, key in pages.bare_settings(page)
        if not any(name == key or name.startswith(f"{key}.") for name in known)
    ]
    assert not problems(found)


@pytest.mark.parametrize("page", pages.PAGES)
def test_commands(page):
    """They parse; between backticks they need not be whole."""
    found = [
        (
            command.where,
            " ".join(command.words),
            lambda c=command: page_checks.parse(
                (c.program, *c.words[1:]), lenient=c.partly or not c.fenced
            ),
        )
        for command in pages.commands(page)
        if command.program in ("biggan", "launch/sweep.py")
        and command.words[:3] != EXAMPLE_COMMANDS[0]
        and command.words[:2] != EXAMPLE_COMMANDS[1]
    ]
    assert not problems(found)


@pytest.mark.parametrize("page", pages.PAGES)
def test_options(page):
    """`--option VALUE` alone between backticks: one command takes all of them."""
    peers = re.findall(r"--\w+", "".join(_theirs((runs.ROOT / PEERS).read_text())))
    found = [
        (span.where, span.text, lambda: refuse("no command has these options"))
        for span in ours(page)
        if span.text.startswith("--")
        and not span.text.startswith("--config.")
        and "_" not in span.text.split("=")[0].split()[0]  # ours have hyphens
        and not page_checks.options_exist(re.split(r"[ =]", span.text))
        and span.text not in (*peers, *OF_SLURM)
    ]
    assert not problems(found)


@pytest.mark.parametrize("page", pages.PAGES)
def test_links(page):
    """Files, pictures and headings that a page links are there."""
    found = []
    for where, target in pages.links(page):
        path, _, anchor = target.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        file = (runs.ROOT / page).parent / path if path else runs.ROOT / page
        if not file.exists():
            found.append(f"{where}: {target}: no such file")
        elif anchor and anchor not in pages.anchors(file):
            found.append(f"{where}: {target}: no such heading")
    made = re.findall(r"`([\w/.]+)`, a new file", (runs.ROOT / page).read_text())
    for span in pages.spans(page):
        named = re.fullmatch(r"(biggan_jax|configs|docs|launch|tests)/[\w/.]+", span.text)
        if named and span.text not in (*made, OF_A_CACHE) and not (runs.ROOT / span.text).exists():
            found.append(f"{span.where}: {span.text}: no such file")
    assert not found


@pytest.mark.parametrize("page", pages.PAGES)
def test_python(page):
    """Its blocks compile, and what they import is there."""
    for block in pages.blocks(page):
        if block.language != "python" or page == "CONTRIBUTING.md":  # fragments of files
            continue
        for node in ast.walk(ast.parse(block.text, block.where)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                for name in node.names:
                    assert hasattr(module, name.name), f"{block.where}: {name.name}"


def test_the_reader_reads(tmp_path, monkeypatch):
    """Continuation, comments, joins, variables, optional parts; what is left out."""
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text(
        "# One page\n\n## `biggan look`: [a link](x.md), twice\n\n```\n"
        "many=\"--config.seed=1 --config.loss='hinge'\"   # a variable\n"
        "apt-get install x && biggan train --config digits $many \\\n"
        "    --workdir r  # why\n"
        "biggan train ... [--config.seed=2] > file\n"
        ".venv/bin/python launch/sweep.py --collect\n```\n"
        "`biggan sample\n--out F.png` and `bench --suite`, `--config.mesh='(-1,8)'`, `seed=3`\n"
        "`augment.policy`\n"
    )
    pages.sweep_script()  # which is read once, from the real one
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    got = [(c.where, c.words, c.fenced, c.partly) for c in pages.commands("docs/page.md")]
    train = ("biggan", "train", "--config", "digits", "--config.seed=1", "--config.loss=hinge")
    assert got == [
        ("docs/page.md:7", ("apt-get", "install", "x"), True, False),
        ("docs/page.md:7", (*train, "--workdir", "r"), True, False),
        ("docs/page.md:9", ("biggan", "train", "--config.seed=2"), True, True),
        ("docs/page.md:10", ("launch/sweep.py", "--collect"), True, False),
        ("docs/page.md:3", ("biggan", "look"), False, False),
        ("docs/page.md:12", ("biggan", "sample", "--out", "F.png"), False, False),
        ("docs/page.md:13", ("biggan", "bench", "--suite"), False, False),
    ]
    values = [(key, value) for _, key, value in pages.settings("docs/page.md")]
    assert values == [
        *(("seed", "1"), ("loss", "'hinge'"), ("seed", "2"), ("mesh", "'(-1,8)'"), ("seed", "3")),
    ]
    assert list(pages.bare_settings("docs/page.md")) == [("docs/page.md:14", "augment.policy")]
    assert pages.anchors(page) == {"one-page", "biggan-look-a-link-twice"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("batchsize", "16"), ("batch_size", "0"), ("loss", "hing"), ("model.name", "bigan")),
        *(("model.init", "uniform"), ("augment.ops", "color"), ("data.source", "imagenets")),
        *(("ema.decays", "0.9,x"), ("modell.ch", "N"), ("model.bn_eps", "-1")),
    ],
)
def test_a_wrong_setting_is_seen(key, value):
    with pytest.raises(UserError):
        page_checks.check_setting(key, value)


@pytest.mark.parametrize(
    "text",
    [
        *("biggan trains --workdir x", "biggan sample --from DIR --outt F.png"),
        *("biggan sample --from DIR --bn-mode running|batches", "biggan look grids --from DIR"),
        *("biggan sample --from DIR --config.seed=1", "biggan sample --from DIR spare"),
        *("biggan export --format keras", "launch/sweep.py --config F --outt DIR"),
        "biggan sample --from DIR --per-class many",
    ],
)
def test_a_wrong_command_is_seen(text):
    with pytest.raises(UserError):
        page_checks.parse(text.split(), lenient=True)


def test_a_command_that_is_not_whole_is_seen():
    page_checks.parse(["biggan", "sample", "--from", "DIR"], lenient=True)
    with pytest.raises(UserError, match="--out"):
        page_checks.parse(["biggan", "sample", "--from", "DIR"], lenient=False)


def test_unknown_options_are_seen():
    assert page_checks.options_exist(["--classes", "cat", "--per-class", "N"])
    assert not page_checks.options_exist(["--classes", "--usd-per-chip-hour"])
    assert not page_checks.options_exist(["--klasses"])
