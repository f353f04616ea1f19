"""docs/tour.ipynb: its cells compile, its commands parse, and it runs from top to bottom."""

import ast
import importlib
import json
import re
import shlex

import pytest

from biggan_jax.config import overrides
from tests import page_checks, pages, runs

PATH = runs.ROOT / "docs" / "tour.ipynb"
BOOK = json.loads(PATH.read_text())
CODE = [cell for cell in BOOK["cells"] if cell["cell_type"] == "code"]
TREES = [ast.parse("".join(cell["source"])) for cell in CODE]


def test_small_and_of_no_machine():
    text = PATH.read_text()
    assert len(text) < 1_000_000
    assert not re.search(r"/(home|root|tmp|work|usr|opt|Users)/", text)


def test_it_was_run_from_top_to_bottom():
    """Its outputs are stored, pictures too, none of them an error, and none is missing."""
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    outputs = [output for cell in CODE for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    shown = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(shown) >= 5
    for tree, cell in zip(TREES, CODE, strict=True):
        if isinstance(tree.body[-1], ast.Expr):
            assert cell["outputs"], "".join(cell["source"])


def test_commands_parse():
    commands = [
        ast.literal_eval(node.args[0])
        for tree in TREES
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "biggan"
    ]
    assert {line.split()[0] for line in commands} >= {"train", "sample", "evaluate", "export"}
    for line in commands:
        words = shlex.split(line)
        page_checks.parse(["biggan", *words], lenient=False)
        for word in filter(overrides.is_override, words):
            page_checks.check_setting(overrides.key_of(word), word.partition("=")[2])


def test_imports_and_links():
    for node in (node for tree in TREES for node in ast.walk(tree)):
        for name in node.names if isinstance(node, ast.Import) else ():
            importlib.import_module(name.name)
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, name.name) for name in node.names), node.module
    text = "".join("".join(c["source"]) for c in BOOK["cells"] if c["cell_type"] == "markdown")
    targets = [found[1] for found in pages.LINK.finditer(text)]
    assert targets and all((PATH.parent / target).exists() for target in targets)


@pytest.mark.full
def test_it_runs(tmp_path, monkeypatch):
    """Its cells in order, as a fresh kernel would: Jupyter's kernel is 80 MB that nobody needs."""
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "__main__"}
    for number, tree in enumerate(TREES, 1):
        exec(compile(tree, f"cell {number}", "exec"), names)
    assert names["same"] and (tmp_path / "tour" / "digits.safetensors").is_file()
    assert names["right"] > names["wrong"]  # D knows the classes
