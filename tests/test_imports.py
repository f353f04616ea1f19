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
# Rooms that import none of the others; `errors` may be imported by all.
# fmt: off
LEAVES = (
    "agreement", "chips", "classes", "config", "digest", "errors", "evaluation/arguments",
    "evaluation/protocol", "grid", "hlo", "interop/files", "latents", "losses", "models/settings",
    "models/winograd", "optimizers", "options", "paths", "plan_report", "progress", "regularizers",
    "rendezvous", "sharding", "signals", "stages", "standing",
)
# fmt: on
# What each room may import besides; a missing room is not checked.
ALLOWED = {
    "models/resample": {"models.winograd"},
    "models/remat": {"models.settings"},
    "models/batch_norm": {"models.remat", "models.settings"},
    "models/layers": {"models.batch_norm", "models.remat", "models.resample", "models.settings"},
    "models/conditioning": {"models.layers", "models.settings"},
    "models/heads": {"models.layers", "models.settings"},
    "models/attention": {"models.layers", "models.resample", "models.settings"},
    "state": {"sharding"},
    "microbatches": {"sharding"},
    "step": {
        "latents",
        "losses",
        "microbatches",
        "optimizers",
        "regularizers",
        "sharding",
        "stages",
        "state",
    },
    "assembly": {"models", "step"},
    "transfer": {"digest", "stages"},
    "finetune": {
        "assembly",
        "checkpoint",
        "directory",
        "stages",
        "state",
        "step",
        "transfer",
    },  # fmt: skip
    "summary": {"step"},
    "bench": {"assembly", "config", "data", "sharding", "state", "step", "summary"},
    "hlo_costs": {"hlo"},
    "prediction": {"models", "models.layers", "step"},
    "tpu_compiler": {"chips"},
    "plan_memory": {"chips"},
    "plan": {
        "assembly",
        "chips",
        "config",
        "grid",
        "hlo",
        "hlo_costs",
        "models",
        "plan_memory",
        "plan_report",
        "prediction",
        "sharding",
        "state",
        "step",
        "summary",
        "tpu_compiler",
    },
    "outcome": {"signals"},
    "distributed": {"agreement", "outcome", "rendezvous"},
    "sample_grid": {"agreement", "data", "latents", "sharding", "step", "visual", "writers"},
    "integrity": {"agreement", "digest", "paths"},
    "interop/command": {
        "interop.biggan_pytorch",
        "interop.convert",
        "interop.export",
        "interop.inception",
        "interop.pretrained_biggan",
    },
    "interop/truncation": {"paths", "weights"},
    "interop/convert": {"config", "digest", "integrity", "interop.files", "models", "weights"},
    "interop/layout": {"models"},
    "interop/infer": {"interop.layout", "models"},
    "interop/biggan_pytorch": {
        "config",
        "config_file",
        "integrity",
        "interop.convert",
        "interop.files",
        "interop.infer",
        "interop.layout",
        "models",
    },
    "interop/pretrained_biggan": {
        "config",
        "config_file",
        "integrity",
        "interop.convert",
        "interop.files",
        "interop.truncation",
        "models",
    },
    "interop/export": {
        "checkpoint",
        "config",
        "config_file",
        "digest",
        "directory",
        "interop.biggan_pytorch",
        "interop.convert",
        "interop.files",
        "interop.layout",
        "interop.truncation",
    },
    "interop/inception": {
        "interop.files",
        "metrics.inception",
        "metrics.inception_v3",
        "metrics.network_files",
    },
    "weights": {"agreement", "integrity"},
    "checkpoint": {"agreement", "digest", "integrity", "orbax_noise", "weights"},
    "config_file": {"config"},
    "sweep": {"checkpoint", "config", "config_file", "grid"},
    "sweep_launch": {"signals", "sweep"},
    "sweep_results": {"config", "sweep"},
    "directory": {"config", "paths"},
    "visual": {"paths"},
    "writers": {"paths"},
    "evaluation/report": {"paths"},
    "attention_figure": {"visual"},
    "discriminator": {"classes", "models"},
    "stored": {"checkpoint", "directory", "models"},
    "sampling": {
        "checkpoint",
        "classes",
        "directory",
        "discriminator",
        "interop.truncation",
        "latents",
        "models",
        "standing",
        "stored",
    },
    "samples": {"classes", "interop.truncation", "paths", "sampling", "stored", "visual"},
    "evaluation/comparison": {"evaluation.protocol"},
    "evaluation/streaming": {"metrics.moments"},
    "evaluation/reference": {"data", "metrics.features", "metrics.moments"},
    "evaluation/inputs": {"data", "metrics.classifier", "metrics.features", "metrics.inception"},
    "evaluation/evaluator": {
        "evaluation.protocol",
        "evaluation.reference",
        "evaluation.streaming",
        "metrics.features",
        "metrics.scores",
        "sampling",
        "standing",
        "visual",
    },
    "evaluation/follow": {
        "checkpoint",
        "directory",
        "evaluation.evaluator",
        "evaluation.protocol",
        "paths",
        "sampling",
        "stored",
        "writers",
    },
    "evaluate": {
        "data",
        "directory",
        "evaluation.comparison",
        "evaluation.evaluator",
        "evaluation.follow",
        "evaluation.inputs",
        "evaluation.reference",
        "evaluation.report",
        "interop.truncation",
        "metrics.features",
        "paths",
        "sampling",
        "stored",
    },
    "look": {
        "attention_figure",
        "classes",
        "data.images",
        "options",
        "samples",
        "sampling",
        "visual",
    },
}


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
    rooms = "models, state, step, losses, regularizers, sharding, bench, summary"
    got = loaded(f"from biggan_jax import {rooms}")
    assert "jax" in got
    # grain and TFDS read, clu and TensorFlow write; orbax, PIL and sklearn are no part of a step.
    assert not got & {*HEAVY, "orbax", "PIL", "sklearn", "array_record"}


def test_package_and_help_load_no_jax():
    got = loaded("import biggan_jax, biggan_jax.cli\nbiggan_jax.cli.parser()")
    assert not got & {*HEAVY, "jax", "jaxlib", "flax", "numpy", "optax", "orbax", "ml_collections"}


def test_sampling_and_training_load_no_tensorflow():
    got = loaded("import biggan_jax; biggan_jax.load_generator\nimport biggan_jax.train")
    assert not got & {"clu", "tensorflow", "tensorflow_datasets"}


def test_lazy_names():
    import biggan_jax
    from biggan_jax import sampling

    assert biggan_jax.load_generator is sampling.load_generator
    assert biggan_jax.load_discriminator is sampling.load_discriminator
    with pytest.raises(AttributeError, match="no attribute 'load_everything'"):
        biggan_jax.load_everything  # noqa: B018


@pytest.mark.parametrize("room", LEAVES)
def test_leaves_import_no_other_room(room):
    assert modules_of(PACKAGE / f"{room}.py") == set()


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_one_way(room):
    assert modules_of(PACKAGE / f"{room}.py") <= ALLOWED[room]


@pytest.mark.parametrize("room", ["models", "data", "metrics"])
def test_rooms_with_many_files_keep_to_themselves(room):
    """Models never import state, step or train; data never imports models."""
    for path in sorted((PACKAGE / room).rglob("*.py")):
        for module in modules_of(path):
            assert module.partition(".")[0] == room, f"{path.name} imports {module}"


def test_nothing_imports_the_command_line_or_the_loop():
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name not in ("cli.py", "__main__.py"):
            assert not modules_of(path) & {"cli", "train"}, path.name


def test_clu_and_tensorflow_are_imported_inside_functions():
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & {"clu", "tensorflow"}, path.name
