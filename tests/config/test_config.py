"""Settings: overrides and their errors, domains, what a resume may change, and config.json."""

import fnmatch
import inspect
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from ml_collections.config_dict import placeholder

from biggan_jax import config as config_lib
from biggan_jax.config import carried, config_file, domains, resume
from biggan_jax.errors import UserError
from tests import runs


def load(*overrides):
    return config_file.load(runs.DIGITS, list(overrides))


def write(tmp_path, *lines):
    path = tmp_path / "settings.py"
    text = "from biggan_jax.config import default_config\n\n\ndef get_config():\n"
    path.write_text(text + "".join(f"    {line}\n" for line in lines))
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        (["--config.batch_size=7"], "batch_size", 7),
        (["--config.batch_size", "7"], "batch_size", 7),
        (["--config.optimizer.g_lr=1e-3"], "optimizer.g_lr", 1e-3),
        (["--config.optimizer.g_lr=1"], "optimizer.g_lr", 1.0),
        (["--config.mesh=(4,)"], "mesh", (4,)),
        (["--config.mesh=4"], "mesh", (4,)),
        (["--config.model.g_attention=(8,16)"], "model.g_attention", (8, 16)),
        (["--config.model.g_attention", "(8, 16)"], "model.g_attention", (8, 16)),
        (["--config.model.g_attention=8"], "model.g_attention", (8,)),
        (["--config.model.g_attention=()"], "model.g_attention", ()),
        (["--config.data.flip=True"], "data.flip", True),
        (["--config.data.flip"], "data.flip", True),
        (["--noconfig.tensorboard"], "tensorboard", False),
        (["--config.tensorboard=False"], "tensorboard", False),
        (["--config.mesh=(1,)", "--config.mesh", "(2,)"], "mesh", (2,)),  # not (1, 2)
        (["--config.mesh", "(1,)", "--config.seed=5", "--config.mesh=2"], "mesh", (2,)),
        (["--config.model.num_classes=1"], "model.num_classes", 1),
        (["--config.ema.decays=0.99,0.999"], "ema.decays", (0.99, 0.999)),
        (["--config.ema.decays=(0.5,)"], "ema.decays", (0.5,)),
        (["--config.ema.profiles=1e-1"], "ema.profiles", (0.1,)),
        (["--config.ema.profiles=()"], "ema.profiles", ()),
        (["--config.data.source=folder:/a=b"], "data.source", "folder:/a=b"),
        (["--config.loss", "wasserstein", "--config.seed=5"], "seed", 5),
    ],
)
def test_overrides(arguments, key, value):
    got = config_lib.flatten(load(*arguments))
    assert got[key] == value and type(got[key]) is type(value)
    default = config_lib.flatten(load())
    changed = {k for k in got if got[k] != default[k]}
    assert changed <= {key, "loss", "seed"}  # and nothing else


def test_override_of_an_unset_placeholder(tmp_path):
    path = write(tmp_path, "return default_config()")
    assert config_file.load(path, []).model.num_classes is None
    got = config_file.load(path, ["--config.model.num_classes=7"]).model.num_classes
    assert got == 7 and type(got) is int


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--config.model.chh=3", "unknown config key 'model.chh' (did you mean 'model.ch'?)"),
        ("--config.batchsize=3", "unknown config key 'batchsize' (did you mean 'batch_size'?)"),
        ("--config.zzzzzz=3", "unknown config key 'zzzzzz'"),
        ("--noconfig.data.flop", "did you mean 'data.flip'?"),
        ("--workdirr=3", "unknown option '--workdirr=3'"),
        ("stray", "unexpected argument 'stray'"),
        ("--config.batch_size=x", "--config.batch_size=x"),
        ("--config.batch_size=1.5", "--config.batch_size=1.5"),
        ("--config.model.num_classes=many", "--config.model.num_classes=many"),
        ("--config.optimizer.g_lr=fast", "--config.optimizer.g_lr=fast"),
        ("--config.data.flip=perhaps", "--config.data.flip=perhaps"),
        ("--config.ema.decays=0.9,x", "this is no sequence of numbers; write it as"),
    ],
)
def test_bad_override(argument, words):
    with pytest.raises(UserError) as error:
        load(argument)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert "FlagValueError" not in str(error.value)


@pytest.mark.parametrize("key", ["batch_size", "data.flip", "ema.decay"])
def test_a_value_of_another_type_is_answered_with_one_that_is_taken(key):
    with pytest.raises(UserError, match="; write it as ") as error:
        load(f"--config.{key}=x")
    got = load(*shlex.split(str(error.value).partition("; write it as ")[2]))
    assert got == load()  # the file's own value: nothing changes


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["return 1 / 0"], "division by zero"),
        (["c = default_config(", "return c"], "SyntaxError"),
        (["c = default_config()", "c.batch_size = 'a'", "return c"], "batch_size"),
        (["c = default_config()", "c.num_step = 3", "return c"], "did you mean 'num_steps'?"),
        (["c = default_config()", "c.batch_size = None", "return c"], "batch_size is None"),
        (["c = default_config()", "del c.seed", "return c"], "no 'seed'"),
        (["pass"], "NoneType"),
        (["return 3"], "returned int"),
        (["raise SystemExit(3)"], "SystemExit"),
    ],
)
def test_broken_file(tmp_path, lines, words):
    path = write(tmp_path, *lines)
    with pytest.raises(UserError) as error:
        config_file.load(path, [])
    message = str(error.value)
    assert words in message and "settings.py" in message and "\n" not in message


def test_file_without_get_config(tmp_path):
    load()  # ml_collections would hand out this one's
    (tmp_path / "settings.py").write_text("x = 1\n")
    with pytest.raises(UserError, match="settings.py: AttributeError.*get_config"):
        config_file.load(str(tmp_path / "settings.py"), [])


def test_a_config_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = config_file.load("digits", ["--config.seed=3"])
    assert named == load("--config.seed=3") and carried.files()["digits"] == runs.DIGITS
    assert carried.files().keys() == {f.stem for f in (runs.ROOT / "configs").glob("*.py")}
    with pytest.raises(UserError, match=r"no such file .* \(did you mean 'digits'\?\); give"):
        config_file.load("digit", [])
    (tmp_path / "digits").mkdir()  # a folder is no config file
    assert config_file.load("digits", []) == load()
    mine = write(tmp_path, "c = default_config()", "c.seed = 9", "return c")
    (tmp_path / "digits").rmdir()
    os.rename(mine, tmp_path / "digits")  # a file of the user goes first
    assert config_file.load("digits", []).seed == 9


def test_an_installed_package_carries_the_configs(tmp_path):
    pytest.importorskip("setuptools")
    for name in ("setup.py", "pyproject.toml", "README.md", "configs", "biggan_jax"):
        source, target = runs.ROOT / name, tmp_path / "source" / name
        target.parent.mkdir(exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    built = tmp_path / "built"
    command = [sys.executable, "setup.py", "-q", "build_py", "-d", str(built)]
    subprocess.run(command, cwd=tmp_path / "source", check=True, capture_output=True)
    code = (
        "from biggan_jax.config import config_file\n"
        "print(config_file.__file__, config_file.load('digits', []).batch_size)"
    )
    environment = os.environ | {"PYTHONPATH": str(built)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, text=True, capture_output=True
    )
    assert done.stdout.split() == [f"{built}/biggan_jax/config/config_file.py", "32"], done.stderr


def test_missing_file(tmp_path):
    for path in (tmp_path / "none.py", tmp_path):
        with pytest.raises(UserError, match=f"--config {path}: no such file"):
            config_file.load(str(path), [])


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--config.batch_size=20", ("20", "8 devices", "--config.batch_size=16")),
        ("--config.batch_size=4", ("4 ", "8 devices", "--config.batch_size=8")),
        ("--config.bn_group_size=3", ("bn_group_size 3", "32 examples", "--config.bn_group_size")),
        ("--config.bn_group_size=1", ("bn_group_size is 1", "--config.bn_group_size", "2 or more")),
        ("--config.accumulation_steps=3", ("32", "8 devices x 3", "--config.batch_size=24")),
        ("--config.batch_size=0", ("batch_size is 0", "--config.batch_size")),
        ("--config.num_d_steps=-1", ("num_d_steps is -1", "--config.num_d_steps")),
        ("--config.num_steps=0", ("num_steps is 0",)),
        ("--config.checkpoint_every_steps=0", ("--config.checkpoint_every_steps",)),
        ("--config.sample_every_steps=0", ("--config.sample_every_steps",)),
        ("--config.log_every_steps=0", ("--config.log_every_steps",)),
        ("--config.eval_every_steps=0", ("eval_every_steps is 0", "--config.eval_every_steps")),
        ("--config.eval_samples=0", ("--config.eval_samples",)),
        ("--config.eval_features=vgg", ("'vgg'", "inception, dinov2 or classifier")),
        ("--config.keep_checkpoints=0", ("--config.keep_checkpoints",)),
        ("--config.seed=-1", ("seed is -1", "--config.seed")),
        ("--config.seed=4294967296", ("4294967296", "--config.seed")),
        ("--config.compute_dtype=float16", ("float16", "--config.compute_dtype", "bfloat16")),
        ("--config.regularizer.orthogonal_form=half", ("half", "off_diagonal")),
        ("--config.data.on_bad_record=ignore", ("ignore", "error or skip")),
        ("--config.ema.start_step=-1", ("-1", "--config.ema.start_step")),
        ("--config.ema.decay=1.5", ("1.5", "--config.ema.decay", "1")),
        ("--config.optimizer.g_lr=-0.1", ("-0.1", "--config.optimizer.g_lr")),
        ("--config.optimizer.d_lr=nan", ("nan", "--config.optimizer.d_lr")),
        ("--config.optimizer.g_lr=inf", ("inf", "--config.optimizer.g_lr")),
        ("--config.optimizer.beta1=1", ("1.0", "--config.optimizer.beta1")),
        ("--config.optimizer.beta2=1", ("1.0", "--config.optimizer.beta2")),
        ("--config.regularizer.g_orthogonal=-1", ("-1", "--config.regularizer.g_orthogonal")),
        ("--config.optimizer.clip_norm=0", ("0.0", "--config.optimizer.clip_norm", "more than 0")),
        ("--config.optimizer.clip_norm=nan", ("nan", "a finite value, more than 0")),
        ("--config.optimizer.clip_norm=inf", ("inf", "a finite value")),
        ("--config.optimizer.warmup_steps=-1", ("-1", "--config.optimizer.warmup_steps")),
        ("--config.optimizer.schedule=cosin", ("did you mean", "constant, linear or cosine")),
        (
            "--config.optimizer.schedule=cosine",
            ("decay_start_step=0", "--config.optimizer.decay_end_step=1200"),
        ),
        ("--config.regularizer.g_sigma_clamp=0", ("0.0", "more than 0")),
        ("--config.regularizer.d_sigma_clamp=-1", ("-1.0", "more than 0")),
        ("--config.regularizer.g_sigma_clamp=nan", ("nan", "--config.regularizer.g_sigma_clamp")),
        ("--config.regularizer.sigma_clamp_form=rate", ("'rate'", "value or ratio")),
        ("--config.model.d_dropout=1", ("1.0", "--config.model.d_dropout", "below 1")),
        ("--config.model.d_dropout=-0.1", ("-0.1", "--config.model.d_dropout")),
        ("--config.model.d_dropout=nan", ("nan", "--config.model.d_dropout")),
    ],
)
def test_validate_names_the_numbers_and_the_setting(argument, words):
    with pytest.raises(UserError) as error:
        config_lib.validate(load(argument), num_devices=8)
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


def test_what_a_refusal_advises_is_accepted():
    cosine = "--config.optimizer.schedule=cosine"
    steps = ("--config.optimizer.decay_start_step=0", "--config.optimizer.decay_end_step=1200")
    config_lib.validate(load(cosine, *steps), 1)
    config_lib.validate(load("--config.optimizer.schedule=constant"), 1)
    for key in ("g", "d"):
        clamp = f"--config.regularizer.{key}_sigma_clamp="
        ratio = "--config.regularizer.sigma_clamp_form=ratio"
        with pytest.raises(UserError, match=rf"{key}_sigma_clamp is 0.5, a ratio.*1 or more"):
            config_lib.validate(load(clamp + "0.5", ratio), 1)
        config_lib.validate(load(clamp + "1", ratio), 1)
        config_lib.validate(load(clamp + "0.5"), 1)


def test_validate_accepts(tmp_path):
    config_lib.validate(config_lib.default_config(), 128)
    edges = ("--config.seed=4294967295", "--config.ema.decay=1", "--config.optimizer.g_lr=0")
    config_lib.validate(load(*edges, "--config.batch_size=64", "--config.accumulation_steps=8"), 8)


def test_every_setting_has_a_domain_or_a_registry():
    """So that a new setting cannot be forgotten; what other rooms check is named here."""
    elsewhere = {
        *("loss", "data.source", "class_names", "init_from", "mesh", "remat"),
        *("model.name", "model.z_distribution", "model.cond_order", "model.width_table"),
        *("model.attention_kind", "model.attention_form", "model.attention_reduction"),
        *("model.init", "data.stage", "tensorboard"),
        *("model.g_attention", "model.d_attention", "augment.ops", "augment.groups"),
    }
    settings = config_lib.flatten(config_lib.default_config())
    switches = {key for key, value in settings.items() if isinstance(value, bool)}
    assert domains.DOMAINS.keys() <= settings.keys()
    assert settings.keys() - domains.DOMAINS.keys() - switches <= elsewhere


def test_the_comment_at_a_setting_names_all_its_choices():
    """`default_config` is what people read; it must not drift from the table."""
    lines = inspect.getsource(config_lib.default_config).splitlines()
    for key, domain in domains.DOMAINS.items():
        if isinstance(domain, domains.Choice):
            name = key.rpartition(".")[2]
            (line,) = [line for line in lines if re.search(rf"\.{name} = ", line)]
            comment = line.partition("#")[2]
            assert all(re.search(rf"\b{word}\b", comment) for word in domain), line


def test_defaults_lie_in_their_domains():
    domains.check(config_lib.flatten(config_lib.default_config()))


@pytest.mark.parametrize(
    ("domain", "inside", "outside", "text"),
    [
        (domains.Range(1), (1, 2.5, 1e300), (0, 0.5, -1, math.inf, math.nan), "1 or more"),
        (domains.Range(0, 1), (0, 0.999), (-1e-9, 1), "a value from 0 to below 1"),
        (domains.Range(0, 1, closed=True), (0, 1), (1.001,), "a value from 0 to 1"),
        (domains.Choice("a", "b", "c"), ("a", "c"), ("d", ""), "a, b or c"),
        (domains.Each(domains.Range(0, 0.5, above=True), float), ((), (0.1, 0.2)),
         ((0.0,), (0.1, 0.5), (0.1, 0.1), (True,), ("a",), (math.nan,)),
         "numbers, each more than 0 and below 0.5, none twice"),
        (domains.Each(domains.Range(0), int, repeats=True), ((), (2, 2)), ((-1,), (0.5,)),
         "numbers, each 0 or more"),
    ],
)  # fmt: skip
def test_domains(domain, inside, outside, text):
    assert all(value in domain for value in inside) and str(domain) == text
    assert not any(value in domain for value in outside)


def test_a_misspelt_word_is_named():
    with pytest.raises(UserError, match=r"'bfloat' \(did you mean 'bfloat16'\?\); set --config"):
        domains.check({"compute_dtype": "bfloat"})


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--config.model.ch=8", "model.ch 16 -> 8"),
        ("--config.batch_size=64", "batch_size 32 -> 64"),
        ("--config.num_d_steps=2", "num_d_steps 1 -> 2"),
        ("--config.optimizer.g_lr=1", "optimizer.g_lr 0.0004 -> 1.0"),
        ("--config.seed=1", "seed 0 -> 1"),
        ("--config.model.g_attention=8", r"model.g_attention \(\) -> \(8,\)"),
        ("--config.compute_dtype=bfloat16", "compute_dtype float32 -> bfloat16"),
        ("--config.data.flip", "data.flip False -> True"),
    ],
)
def test_resume_refuses_another_run(argument, words):
    saved = json.loads(json.dumps(load().to_dict()))
    with pytest.raises(UserError, match=words) as error:
        config_lib.check_resume(saved, load(argument))
    assert "--workdir" in str(error.value) and ";" not in str(error.value)  # one change only


def test_resume_names_every_change():
    with pytest.raises(UserError, match="batch_size 32 -> 8; model.ch 16 -> 4") as error:
        config_lib.check_resume(
            load().to_dict(), load("--config.model.ch=4", "--config.batch_size=8")
        )
    assert "--allow-change" not in str(error.value)  # it would not help


def test_resume_allows_length_cadence_and_place():
    saved = json.loads(json.dumps(load().to_dict()))
    allowed = {
        "num_steps": 9, "log_every_steps": 9, "checkpoint_every_steps": 9, "sample_every_steps": 9,
        "eval_every_steps": 9, "eval_samples": 9, "eval_features": "inception",
        "keep_checkpoints": 9, "mesh": (2, 4), "remat": ("all",), "tensorboard": False,
        "writers": ("jsonl",), "report": False, "data.source": "folder:x",
        "data.on_bad_record": "skip", "data.max_pixels": 10**9, "class_names": ("a", "b"),
        "monitor_every_steps": 9,
        "data.class_counts": (3, 4), "data.stage": "disk", "data.stage_gb": 80.0,
        "guard.every_steps": 9, "guard.diversity_every_steps": 9,
    }  # fmt: skip
    config = load(*(f"--config.{key}={value}" for key, value in allowed.items()))
    assert config_lib.check_resume(saved, config) == []
    known = config_lib.flatten(config_lib.default_config())
    free = {k for k in known if any(fnmatch.fnmatchcase(k, p) for p in resume.RESUMABLE)}
    assert allowed.keys() == free and "regularizer.every_steps" in known.keys() - free
    for flag in (False, True):  # another share would show D images that it was trained on
        with pytest.raises(UserError, match="data.holdout 0.0 -> 0.2"):
            held_out = load("--config.data.holdout=0.2")
            config_lib.check_resume(saved, held_out, allow_change=flag)


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        ("--config.optimizer.g_lr=1", ("optimizer.g_lr", 0.0004, 1.0)),
        ("--config.regularizer.d_orthogonal=1", ("regularizer.d_orthogonal", 0.0, 1.0)),
        ("--config.loss=wasserstein", ("loss", "hinge", "wasserstein")),
        ("--config.ema.decay=0.5", ("ema.decay", 0.98, 0.5)),
        ("--config.seed=1", ("seed", 0, 1)),
    ],
)
def test_resume_under_other_rules_needs_the_flag(argument, change):
    saved, config = json.loads(json.dumps(load().to_dict())), load(argument)
    with pytest.raises(UserError, match=f"{change[0]} {change[1]} -> {change[2]}") as error:
        config_lib.check_resume(saved, config)
    assert "--allow-change" in str(error.value) and "--workdir" in str(error.value)
    assert config_lib.check_resume(saved, config, allow_change=True) == [change]
    longer = load(argument, "--config.num_steps=9", "--config.tensorboard=False")
    assert config_lib.check_resume(saved, longer, allow_change=True) == [change]


def test_resume_lists_all_changes_in_order():
    changes = config_lib.check_resume(
        load(), load("--config.seed=1", "--config.optimizer.beta2=0.9"), allow_change=True
    )
    assert changes == [("optimizer.beta2", 0.999, 0.9), ("seed", 0, 1)]
    assert [str(change) for change in changes] == ["optimizer.beta2 0.999 -> 0.9", "seed 0 -> 1"]


@pytest.mark.parametrize(
    "argument",
    [
        "--config.model.ch=8",
        "--config.batch_size=64",
        "--config.data.balance=1",
        "--config.finetune.freeze_d=1",
        "--config.compute_dtype=bfloat16",
    ],
)
def test_the_flag_does_not_change_the_networks_or_the_batch(argument):
    key = argument.removeprefix("--config.").partition("=")[0]
    arguments = (argument, "--config.seed=1")
    with pytest.raises(UserError, match=rf"--allow-change does not go as far as {key} ") as error:
        config_lib.check_resume(load(), load(*arguments), allow_change=True)
    assert "seed" not in str(error.value) and "--workdir" in str(error.value)
    with pytest.raises(UserError, match="seed 0 -> 1") as error:
        config_lib.check_resume(load(), load(*arguments))
    assert "--allow-change" not in str(error.value)


def test_the_flag_adds_moves_and_takes_the_decay_of_the_rates():
    decay = ("--config.optimizer.decay_start_step=2", "--config.optimizer.decay_end_step=9")
    moved = load(*decay, "--config.optimizer.decay_end_step=20")
    assert config_lib.check_resume(load(*decay), moved, allow_change=True) == [
        ("optimizer.decay_end_step", 9, 20)
    ]
    warm, cosine = "--config.optimizer.warmup_steps=3", "--config.optimizer.schedule=cosine"
    constant = "--config.optimizer.schedule=constant"
    for old, new, count in (
        ([], decay, 2),
        (decay, [], 2),
        ([], [warm], 1),
        (decay, [*decay, constant], 1),
        (decay, [*decay, cosine], 1),
        ([warm], [*decay, cosine, warm], 3),
        ([warm], ["--config.optimizer.warmup_steps=9"], 1),
        ([], [constant], 1),
        ([*decay, constant], [], 3),
    ):
        changes = config_lib.check_resume(load(*old), load(*new), allow_change=True)
        assert len(changes) == count
        with pytest.raises(UserError, match="--allow-change"):
            config_lib.check_resume(load(*old), load(*new))


def test_a_fork_changes_all_but_the_networks_and_their_data():
    free = ("--config.seed=1", "--config.batch_size=8", "--config.num_d_steps=2",
            "--config.accumulation_steps=2", "--config.compute_dtype=bfloat16",
            "--config.data.flip=True", "--config.ema.start_step=7", "--config.ema.decay=0.5",
            "--config.loss=wasserstein", "--config.optimizer.warmup_steps=3",
            "--config.regularizer.r1=1")  # fmt: skip
    changes = resume.check_fork(load(), load(*free, "--config.num_steps=9"), other_data=False)
    keys = {text.removeprefix("--config.").partition("=")[0] for text in free}
    assert {change.key for change in changes} == keys
    for argument in ("init_from=x", "finetune.freeze_d=1", "model.name=sagan"):
        for other_data in (False, True):
            with pytest.raises(UserError, match=argument.partition("=")[0]) as error:
                config = load("--config.seed=1", f"--config.{argument}")
                resume.check_fork(load(), config, other_data=other_data)
            assert "seed" not in str(error.value)
    elsewhere = load("--config.data.source=folder:x", "--config.data.holdout=0.1")
    with pytest.raises(UserError, match="data.holdout 0.0 -> 0.1"):
        resume.check_fork(load(), elsewhere, other_data=False)
    keys = [change.key for change in resume.check_fork(load(), elsewhere, other_data=True)]
    assert keys == ["data.holdout", "data.source"]
    moved = load("--config.data.source=folder:x")
    assert resume.check_fork(load(), moved, other_data=False) == []


def test_the_flag_sets_and_unsets_clamps_and_clipping():
    settings = ("optimizer.clip_norm=1", "regularizer.g_sigma_clamp=2",
                "regularizer.d_sigma_clamp=2", "regularizer.sigma_clamp_form=ratio")  # fmt: skip
    on = load(*(f"--config.{text}" for text in settings))
    for old, new in ((load(), on), (on, load())):
        changes = config_lib.check_resume(old, new, allow_change=True)
        assert sorted(c.key for c in changes) == sorted(text.split("=")[0] for text in settings)
    with pytest.raises(UserError, match="does not go as far as model.d_dropout"):
        config_lib.check_resume(load(), load("--config.model.d_dropout=0.5"), allow_change=True)


def test_saved_config_round_trip(tmp_path):
    config = load("--config.model.g_attention=(8,16)", "--config.mesh=(2,)")
    again = config_lib.from_saved(json.loads(json.dumps(config.to_dict())))
    assert again == config and again.model.g_attention == (8, 16) and again.is_locked
    assert config_lib.flatten(again) == config_lib.flatten(config)
    unset = config_lib.default_config()
    assert config_lib.from_saved(json.loads(json.dumps(unset.to_dict()))).model.num_classes is None


@pytest.mark.parametrize("switch", [True, False])
def test_saved_config_of_a_version_without_writers(switch):
    """It may go on under a config that names writers; other values are refused."""
    saved = load().to_dict()
    del saved["writers"]
    saved["tensorboard"] = switch
    assert config_lib.from_saved(saved).tensorboard is switch
    assert config_lib.check_resume(saved, load("--config.writers=jsonl")) == []
    with pytest.raises(UserError, match="tensorboard is 1"):
        config_lib.from_saved(saved | {"tensorboard": 1})


def test_saved_model_section_alone():
    config = config_lib.from_saved({"model": {"ch": 8, "num_classes": 3, "g_attention": [16]}})
    assert (config.model.ch, config.model.num_classes, config.model.g_attention) == (8, 3, (16,))
    assert config.batch_size == config_lib.default_config().batch_size


@pytest.mark.parametrize(
    "saved", [[], 3, {"foo": 1}, {"model": 3}, {"model": None}, {"model": {"ch": "a"}}]
)
def test_saved_config_that_does_not_fit(saved):
    with pytest.raises(UserError, match="the saved config does not fit this version") as error:
        config_lib.from_saved(saved)
    assert "\n" not in str(error.value)


def test_default_config_has_no_value_that_cannot_be_overridden():
    """Lists and None cannot be set on the command line."""
    config = config_lib.default_config()
    unset = {key for key, value in config_lib.flatten(config).items() if value is None}
    assert unset == {
        "model.num_classes", "model.rgb_width", "data.source", "data.max_pixels", "init_from",
        "data.stage", "data.stage_gb", "tensorboard",
        "monitor_every_steps", "eval_every_steps", "eval_features", "bn_group_size",
        "guard.on_rollback.r1", "augment.probability", "augment.target",
        "regularizer.consistency_fake", "regularizer.g_spectral_groups",
        "optimizer.decay_start_step", "optimizer.decay_end_step", "optimizer.schedule",
        "optimizer.clip_norm", "regularizer.g_sigma_clamp", "regularizer.d_sigma_clamp",
    }  # fmt: skip
    assert not any(isinstance(v, list) for v in config_lib.flatten(config.to_dict()).values())
    assert type(config.model.get_ref("num_classes")) is type(placeholder(int))


@pytest.mark.parametrize(
    ("batch", "parts", "advice"),
    [(8, 8, "accumulation_steps=4"), (3, 3, "accumulation_steps=1"), (1, 1, "batch_size=2")],
)
def test_batch_statistics_of_one_example(batch, parts, advice):
    """Refused as a bn_group_size of 1 is; what the line names is taken. Devices share them."""
    config = config_file.load("digits", [])
    config.batch_size, config.accumulation_steps = batch, parts
    with pytest.raises(UserError, match=rf"batch_size {batch} / .*{parts} is 1 example") as error:
        config_lib.validate(config, 1)
    assert f"set --config.{advice} or" in f"{error.value} or"
    key, _, value = advice.partition("=")
    config[key] = int(value)
    config_lib.validate(config, 1)
    config.batch_size, config.accumulation_steps = 8 * parts, parts
    config_lib.validate(config, 8)  # one example of a microbatch on each device


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("ema.start_step", 2**31, "ema.start_step is 2147483648; set --config.ema.start_step to a"),
        ("num_steps", 10**30, "num_steps has 100 bits: set --config.num_steps to a number of 63"),
        ("optimizer.warmup_steps", 10**12, "optimizer.warmup_steps is 1000000000000; set"),
    ],
)
def test_numbers_that_no_compiled_step_can_hold(key, value, words):
    with pytest.raises(UserError, match=words):
        domains.check({key: value})
