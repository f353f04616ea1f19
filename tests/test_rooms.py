"""Imports run one way only, and what trains needs neither TensorFlow nor Grain."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import runs

PACKAGE = runs.ROOT / "biggan_jax"
HEAVY = ("clu", "tensorflow", "tensorflow_datasets", "grain")
# room -> rooms below it, as the README draws them; a room also imports itself and nothing else.
ORDER = (
    ("errors",),
    ("config",),
    ("models", "data", "metrics", "parallel", "pictures"),
    ("storage",),
    ("sampling",),
    ("evaluation",),
    ("training",),
    ("planning", "interop", "sweep"),
    ("cli",),
)
BELOW = {
    room: {below for rooms in ORDER[:level] for below in rooms}
    for level, same_level in enumerate(ORDER)
    for room in same_level
}
# What computes a step runs where only jax, flax, optax and ml_collections are installed.
BARE = (
    *("models", "planning", "training/step", "training/state", "training/objectives"),
    *("training/objective", "training/logit_terms", "training/consistency", "training/lecam"),
    "training/group_spectral",
    *("training/penalties", "training/regularizers", "training/microbatches"),
    *("training/optimizers", "training/build"),
    *("parallel/sharding", "config"),
)


def modules_of(path: Path) -> set[str]:
    """Modules of this package that a file imports, anywhere in it: 'step', 'models.layers', ..."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "biggan_jax":
                # `from biggan_jax.step import build` names a function at its end.
                while len(parts) > 1 and not exists(parts):
                    parts.pop()
                found.add(".".join(parts[1:]))
    return found - {"", "errors"}


def exists(parts: list[str]) -> bool:
    path = runs.ROOT.joinpath(*parts)
    return path.is_dir() or path.with_suffix(".py").is_file()


def loaded(statement: str) -> set[str]:
    """Top-level modules that a fresh process has after a statement."""
    code = f"{statement}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=runs.ROOT, capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def test_training_core_loads_nothing_heavy():
    got = loaded(
        "from biggan_jax import models\n"
        "from biggan_jax.parallel import sharding\n"
        "from biggan_jax.planning import bench, plan, summary\n"
        "from biggan_jax.training import build, regularizers, state, step"
    )
    assert "jax" in got
    # grain and TFDS read, clu and TensorFlow write; orbax, PIL and sklearn are no part of a step.
    assert not got & {*HEAVY, "orbax", "PIL", "sklearn", "array_record"}


def test_package_and_help_load_no_jax():
    got = loaded("import biggan_jax, biggan_jax.cli\nbiggan_jax.cli.parser()")
    assert not got & {*HEAVY, "jax", "jaxlib", "flax", "numpy", "optax", "orbax", "ml_collections"}


def test_sampling_and_training_load_no_tensorflow():
    got = loaded("import biggan_jax; biggan_jax.load_generator\nimport biggan_jax.training.loop")
    assert not got & {"clu", "tensorflow", "tensorflow_datasets"}


def test_lazy_names():
    import biggan_jax
    from biggan_jax import config
    from biggan_jax.evaluation import evaluate
    from biggan_jax.sampling import load
    from biggan_jax.training import loop

    assert biggan_jax.load_generator is load.load_generator
    assert biggan_jax.load_discriminator is load.load_discriminator
    assert biggan_jax.train is loop.train
    assert biggan_jax.evaluate is evaluate.evaluate
    assert biggan_jax.default_config is config.default_config
    with pytest.raises(AttributeError, match="no attribute 'load_everything'"):
        biggan_jax.load_everything  # noqa: B018


def room_files(room: str) -> list[Path]:
    path = PACKAGE / room
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def test_every_entry_at_the_top_is_a_room_of_the_table():
    entries = {path.stem for path in PACKAGE.iterdir() if path.suffix in ("", ".py")}
    assert entries - {"__pycache__"} == {*BELOW, "__init__", "__main__"}
    assert len(entries) <= 19


@pytest.mark.parametrize("room", BELOW)
def test_a_room_imports_rooms_below_it_alone(room):
    for path in room_files(room):
        rooms = {module.partition(".")[0] for module in modules_of(path)}
        assert rooms <= {room, *BELOW[room]}, f"{path.relative_to(PACKAGE)} imports {rooms}"


@pytest.mark.parametrize("room", BELOW)
def test_no_circle_inside_a_room(room):
    name = lambda path: ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    graph = {name(path).removesuffix(".__init__"): modules_of(path) for path in room_files(room)}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail, module])
        if module not in done:
            for other in graph[module] & graph.keys():
                visit(other, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_files_are_short():
    for path in sorted(PACKAGE.rglob("*.py")):
        assert len(path.read_text().splitlines()) <= 300, path.name
    assert len((PACKAGE / "training/loop.py").read_text().splitlines()) < 80


def test_a_room_says_what_it_is_for_and_gives_out_nothing_of_others():
    for init in sorted(PACKAGE.glob("*/__init__.py")):
        tree = ast.parse(init.read_text())
        assert ast.get_docstring(tree), init
        room = init.parent.name
        for node in tree.body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                for value in ast.literal_eval(node.value):
                    owners = [
                        n.module
                        for n in tree.body
                        if isinstance(n, ast.ImportFrom) and value in [a.name for a in n.names]
                    ]
                    owner = owners[0] if owners else f"biggan_jax.{room}"  # defined in the file
                    assert owner.split(".")[1] == room, f"{init}: {value} is of {owner}"


@pytest.mark.parametrize("part", BARE)
def test_the_step_needs_neither_writers_nor_readers(part):
    for path in room_files(part):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not {str(name).partition(".")[0] for name in names} & set(HEAVY), path


def test_clu_and_tensorflow_are_imported_inside_functions():
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & {"clu", "tensorflow"}, path.name
