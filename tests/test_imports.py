"""Importing the library leaves the process of whoever imports it as it was."""

import ast
import subprocess
import sys

from tests import runs

PACKAGE = runs.ROOT / "biggan_jax"
LOOK = """
import importlib, logging, os, signal, sys, threading, warnings

for name in sys.argv[1].split():
    importlib.import_module(name)
import jax

def state():
    loggers = {x: logging.getLogger(x) for x in ["root", *logging.root.manager.loggerDict]}
    loggers["root"] = logging.root
    return {
        "hooks": (sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook),
        "filters": {name: list(x.filters) for name, x in loggers.items() if x.filters},
        "handlers": {name: list(x.handlers) for name, x in loggers.items() if x.handlers},
        "levels": {name: x.level for name, x in loggers.items() if x.level},
        "warnings": list(warnings.filters),
        "environment": dict(os.environ),
        "signals": {s: signal.getsignal(s) for s in signal.valid_signals()},
        "jax": dict(jax.config.values),
    }

before = state()
for name in sys.argv[2].split():
    importlib.import_module(name)
after = state()
for name in before:
    assert before[name] == after[name], f"{name}: {before[name]} became {after[name]}"
assert "tensorflow" not in sys.modules
"""


def imported_from_elsewhere() -> list[str]:
    """Modules of other packages that importing ours imports."""
    found = {"jax"}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module)
    return sorted(name for name in found if name.partition(".")[0] != "biggan_jax")


def test_importing_every_module_changes_nothing_else():
    ours = [
        ".".join(path.relative_to(runs.ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "__main__.py"
    ]
    assert len(ours) > 50
    command = [sys.executable, "-c", LOOK, " ".join(imported_from_elsewhere()), " ".join(ours)]
    done = subprocess.run(command, cwd=runs.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
