"""Every message that names an option: the command at hand takes it, and the setting exists.

What a command may say is found in the source: whatever its function refers to, directly or not.
"""

import argparse
import ast
import functools
import re
import shlex
from pathlib import Path

import pytest

from biggan_jax import cli
from biggan_jax import config as config_lib
from biggan_jax.cli import commands, look
from biggan_jax.data import kinds
from tests import runs

PACKAGE = runs.ROOT / "biggan_jax"
FLAG = re.compile(r"(?<![\w-])--[a-z][\w.{}-]*")
# They are done for a model directory when it is opened, which names its file in place of options.
BEFORE = {
    ("biggan_jax.models", "build"),
    ("biggan_jax.models", "check"),
    ("biggan_jax.models.latents", "check_distribution"),
    ("biggan_jax.config.domains", "check"),
}
# What `init` makes is a whole config of settings that fit each other: nobody can have given it one.
OWN_CONFIG = {
    ("biggan_jax.config.validation", "validate"),
    ("biggan_jax.training.build", "train_step"),
}
# Wordings of one message for several commands, each of which takes its own.
WORDINGS = {
    ("biggan_jax.data.wording", "TRAIN"): "train",
    ("biggan_jax.data.wording", "PREPARE"): "prepare",
    ("biggan_jax.data.wording", "EVALUATE"): "evaluate",
    ("biggan_jax.data.wording", "EVALUATE_OWN"): "evaluate",
    ("biggan_jax.data.wording", "PYTHON"): "train",  # no options
    ("biggan_jax.evaluation.evaluator", "COMMAND"): "evaluate",
    ("biggan_jax.evaluation.evaluator", "CONFIG"): "train",
}
# (command, where): it refers to that code, but never comes to the message, because ...
NEVER = {
    # a run's own evaluations take the training data, averaged weights and no single classes
    **{
        ("train", f"biggan_jax.evaluation.{where}"): "the scores of a run"
        for where in (
            *("evaluator.Evaluator", "opening._open", "opening._open_first"),
            *("opening.open_evaluator", "inputs.fitted_classifier", "class_match.match"),
            "inputs.check_resize",
        )
    },
    ("evaluate", "biggan_jax.storage.wandb_run._WITHOUT"): "a follower writes event files alone",
    # eval_features is inception or classifier, and no setting names weights
    **{
        (command, "biggan_jax.evaluation.inputs.features_name"): "it names no weights"
        for command in ("train", "doctor")
    },
    **{
        ("train", f"biggan_jax.metrics.function.{where}"): "eval_features takes no function"
        for where in ("Function", "_imported", "find")
    },
    ("score", "biggan_jax.evaluation.class_match.match"): "other names leave classes out there",
    ("evaluate", "biggan_jax.storage.lock.TRAINING"): "a follower's lock has words of its own",
    ("evaluate", "biggan_jax.storage.lock._check_folders"): "a follower has read its workdir",
    **{
        ("train", f"biggan_jax.evaluation.{where}"): "it looks for no copies"
        for where in ("memorisation.NO_HELD_OUT", "opening._FOR_COPIES")
    },
    # only `sample` and `look` choose how many forwards standing statistics take
    **{
        (command, "biggan_jax.sampling.standing.check"): "the default is right"
        for command in ("train", "evaluate", "bench", "report", "export", "verify")
    },
    # only `sample` chooses a row of an import's statistics
    **{
        (command, f"biggan_jax.storage.truncation_statistics.{where}"): "the default is right"
        for command in ("look", "evaluate", "report", "export")
        for where in ("position", "select")
    },
    **{
        (command, "biggan_jax.storage.networks.of_generator"): "it loads averages that are there"
        for command in ("explore", "report")
    },
    **{
        ("bench", f"biggan_jax.data.{where}"): "one process writes a new temporary folder"
        for where in (
            *("record_writer._check_lanes", "record_writer._of_lanes", "record_writer._reduced"),
            *("record_writer._Exists", "record_writer._check_same", "lane_writer.LaneFolder"),
            "unfinished._locked",
        )
    },
    **{
        ("init", f"biggan_jax.{where}"): "what it chooses fits the data and this machine"
        for where in (
            *("data.holdout._other_fraction", "models.checks.choice", "models.checks.resolution"),
            *("parallel.sharding._devices_of_equal_slices", "parallel.sharding.make_mesh"),
            "training.fake_labels.ends",
        )
    },
    # doctor says what `train` would say of the run in its workdir, and names train's own flag
    ("doctor", "biggan_jax.config.resume.check_resume"): "it is advice for train",
    # a packaged config has every setting
    **{
        (command, f"biggan_jax.config.config_file.{where}"): "it is a packaged one"
        for command in ("configs", "init")
        for where in ("_check_keys", "find", "load")
    },
    **{
        (command, f"biggan_jax.config.{where}"): "without overrides"
        for command in ("configs", "init")
        for where in (
            *("overrides._check_key", "overrides._value", "overrides.explain"),
            *("values._refused",),
        )
    },
}


class Module:
    """The top-level names of a file, and what they are in the package."""

    def __init__(self, path: Path):
        tree = ast.parse(path.read_text())
        self.imports = imports(tree.body)
        self.symbols = {}
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                self.symbols[node.name] = node
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for name in (n for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)):
                    self.symbols[name.id] = node


def imports(nodes) -> dict[str, str]:
    """{name in this file: dotted name in the package}."""
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module.startswith("biggan_jax")
        for alias in node.names
    }


@functools.cache
def modules() -> dict[str, Module]:
    dotted = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
    }
    return {name.removesuffix(".__init__"): Module(path) for name, path in dotted.items()}


def resolve(dotted: str) -> tuple[str, str] | None:
    """(module, its top-level name) of a dotted name, lazy packages included."""
    module, _, name = dotted.rpartition(".")
    if dotted in modules() or module not in modules():
        return None
    found = modules()[module]
    if name in found.symbols:
        return module, name
    if name in found.imports:
        return resolve(found.imports[name])
    lazy = found.symbols.get("_HOMES")
    homes = ast.literal_eval(lazy.value) if lazy else {}
    return resolve(f"{module}.{homes[name]}.{name}") if name in homes else None


def referred(module: str, name: str):
    """What a top-level name of a module refers to."""
    own = modules()[module]
    node = own.symbols[name]
    known = own.imports | imports(ast.walk(node))
    for part in ast.walk(node):
        dotted = None
        if isinstance(part, ast.Name):
            dotted = known.get(part.id, f"{module}.{part.id}" if part.id in own.symbols else None)
        elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            dotted = f"{known[part.value.id]}.{part.attr}" if part.value.id in known else None
        found = resolve(dotted) if dotted else None
        if found:
            yield found
    if (module, name) == ("biggan_jax.data.spec", "open_source"):
        for kind in kinds.KINDS.values():
            yield f"biggan_jax.data.{kind.module}", "open_spec"


def reached(starts, without=frozenset()) -> set[tuple[str, str]]:
    seen, todo = set(), list(starts)
    while todo:
        one = todo.pop()
        if one not in seen and one not in without:
            seen.add(one)
            todo += referred(*one)
    return seen


def messages(node: ast.AST, least: str = " "):
    """The texts with `least` in them that are no docstrings, {} for what is filled in."""
    inside, pairs = set(), (ast.Module, ast.FunctionDef, ast.ClassDef)
    for part in ast.walk(node):
        if isinstance(part, pairs) and part.body and isinstance(part.body[0], ast.Expr):
            inside.add(part.body[0].value)
        if isinstance(part, ast.JoinedStr):
            inside |= {x for value in part.values for x in ast.walk(value)}
    for part in ast.walk(node):
        text = ""
        if part in inside:
            continue
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            text = part.value
        elif isinstance(part, ast.JoinedStr):
            pieces = (v.value if isinstance(v, ast.Constant) else "{}" for v in part.values)
            text = "".join(pieces)
        if least in text:
            yield text


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= set().union(*map(options_of, action.choices.values()))
    if "--config" in found or parser.epilog and "--config." in parser.epilog:
        found.add("--config.")
    return found


@functools.cache
def takes() -> dict[str, set[str]]:
    (subs,) = (a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction))
    return {name: options_of(parser) for name, parser in subs.choices.items()}


def functions() -> dict[str, list[tuple[str, str]]]:
    """{command: the functions of `cli` that run it}."""
    found = {}
    for group in commands.GROUPS:

        def note(name, run, help, module=group.__name__):
            found[name] = [(module, run.__name__)]
            return argparse.ArgumentParser()

        group.add(note)
    found["look"] += [("biggan_jax.cli.look", name) for name in ("rows_of", "check_target")]
    found["look"] += [(f"biggan_jax.{kind.module}", "draw") for kind in look.KINDS.values()]
    return found


def in_commands(text: str):
    """(command, flag) of every `biggan COMMAND ...` that a text shows between backticks."""
    for line in re.findall(r"`biggan ([^`]*)`", text):
        command, *words = shlex.split(line)
        yield command, ""
        yield from ((command, word.partition("=")[0]) for word in words if word.startswith("--"))


def is_taken(flag: str, options: set[str]) -> bool:
    if flag.startswith(("--config.", "--noconfig.")):
        return "--config." in options
    pattern = re.escape(flag.rstrip(".")).replace(re.escape("{}"), "[a-z-]+")
    return any(re.fullmatch(pattern, option) for option in options)


@pytest.mark.parametrize("command", sorted(functions()))
def test_a_message_names_options_that_the_command_takes(command):
    options = takes()[command]
    without = WORDINGS.keys() | (set() if "--config." in options else BEFORE)
    without |= OWN_CONFIG if command == "init" else set()
    needed = set()
    for module, name in sorted(reached(functions()[command], without)):
        for text in messages(modules()[module].symbols[name]):
            for other, flag in in_commands(text):
                assert other in takes(), text
                assert not flag or is_taken(flag, takes()[other]), f"{other} {flag}: {text}"
            for flag in FLAG.findall(re.sub("`[^`]*`", "", text)):
                if is_taken(flag, options):
                    continue
                needed.add((command, f"{module}.{name}"))
                assert (command, f"{module}.{name}") in NEVER, f"{module}.{name}: {flag} in {text}"
    assert needed == {key for key in NEVER if key[0] == command}


@pytest.mark.parametrize(("module", "name"), WORDINGS)
def test_a_wording_of_a_command_names_its_options(module, name):
    for text in messages(modules()[module].symbols[name], least="--"):
        for flag in FLAG.findall(text):
            assert is_taken(flag, takes()[WORDINGS[module, name]]), text


def test_a_message_names_settings_that_there_are():
    known = config_lib.flatten(config_lib.default_config())
    found = set()
    for module in modules().values():
        for node in module.symbols.values():
            for text in messages(node):
                found |= set(re.findall(r"--(?:no)?config\.([\w.{}]*)", text))
    names = {key.rstrip(".") for key in found} - {"KEY", "model.KEY", ""}
    assert len(names) > 20
    for key in names:
        pattern = re.escape(key).replace(re.escape("{}"), r"[\w.]+")
        assert any(re.fullmatch(pattern, setting) for setting in known), key


def test_a_message_gives_values_that_a_shell_takes():
    """Bash stops at a bare parenthesis, and takes quotes away."""
    bare = re.compile(r"--(?:no)?config\.[\w.{}]+=\(")
    assert bare.search("set --config.mesh=(2,1)") and not bare.search('--config.remat="()"')
    for module in modules().values():
        for node in module.symbols.values():
            assert not [text for text in messages(node) if bare.search(text)]


def test_the_walk_sees_what_it_should():
    """It follows lazy names, registries and classes, and reads f-strings."""
    found = reached(functions()["prepare"])
    assert {
        ("biggan_jax.data.folder", "open_spec"),
        ("biggan_jax.data.decoding", "DecodingSource"),
    } & found
    assert list(messages(ast.parse('x = f"set --config.{key} to {x}"'))) == [
        "set --config.{} to {}"
    ]
    text = "use `biggan prepare --source {} --reslution 3`"
    assert list(in_commands(text))[1:] == [("prepare", "--source"), ("prepare", "--reslution")]
    assert not is_taken("--reslution", takes()["prepare"])
