"""The examples of CONTRIBUTING.md: each is applied to a copy of the package, and tried there."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests import runs

PAGE = (runs.ROOT / "CONTRIBUTING.md").read_text()
EDIT = re.compile(
    r"^`(?P<file>[\w/.]+)`, (?:(?P<how>a new file|at the end)|"
    r"(?P<where>after|in place of) `(?P<line>[^\n]+)`):\n\n```python\n(?P<code>.*?)```\n",
    re.M | re.S,
)
TRY = re.compile(
    r"^Try it: `(?P<command>biggan [^`]+)`\n\n```python\n(?P<code>.*?)```\n", re.M | re.S
)
SOURCE = shutil.ignore_patterns("__pycache__")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))


def apply(section: str, root) -> None:
    for edit in EDIT.finditer(section):
        path, code = root / edit["file"], edit["code"]
        if edit["how"] == "a new file":
            assert not path.exists(), path
            path.write_text(code)
            continue
        text = path.read_text()
        if code.startswith("def "):
            code = f"\n\n{code}"
        if edit["how"]:
            path.write_text(text + code)
            continue
        line = edit["line"] + "\n"
        assert text.count(line) == 1, f"{path.name} has no line {edit['line']!r}, or several"
        path.write_text(text.replace(line, code if edit["where"] == "in place of" else line + code))


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A copy of the package with all examples of the page at once."""
    root = tmp_path_factory.mktemp("changed")
    for folder in ("biggan_jax", "configs"):
        shutil.copytree(runs.ROOT / folder, root / folder, ignore=SOURCE)
    for section in SECTIONS.values():
        apply(section, root)
    return root


def test_every_kind_has_an_example():
    assert list(SECTIONS) == [
        "A loss",
        "A regularizer of D",
        "A family of networks",
        "A data source",
        "A score",
        "A picture",
        "A hook",
        "A command",
    ]
    blocks = PAGE.count("```python\n")
    edits, tries = (sum(len(x.findall(s)) for s in SECTIONS.values()) for x in (EDIT, TRY))
    assert tries == len(SECTIONS) and edits + tries == blocks  # no block is passed over


@pytest.mark.full
def test_the_examples_work(changed, trained, cache_dir, tmp_path):
    """In one process, each as it stands on the page."""
    run = shutil.copytree(trained, tmp_path / "run")
    code = "\n".join(TRY.search(section)["code"] for section in SECTIONS.values())
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=runs.environment(cache_dir)
        | {"PYTHONPATH": str(changed), "RUN": str(run), "TINY": "|".join(runs.TINY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.full
def test_the_examples_keep_the_house(changed, tmp_path):
    """The order of the rooms, and the style of the code."""
    shutil.copytree(runs.ROOT / "tests", changed / "tests", ignore=SOURCE)
    shutil.copy(runs.ROOT / "pyproject.toml", changed)
    order = ["-m", "pytest", "-n0", "-q", "-p", "no:cacheprovider", "tests/test_rooms.py"]
    few = ["-k", "imports_rooms_below or no_circle or top or files_are_short"]
    for command in ([*order, *few], ["-m", "ruff", "check", "--ignore", "I001", "biggan_jax"]):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=changed,
            env=os.environ | {"PYTHONPATH": str(changed)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
