"""What may be written as an override, and what is said of the rest."""

import shlex

import pytest

from biggan_jax import config as config_lib
from biggan_jax.config import carried, combinations, config_file, summaries
from biggan_jax.errors import UserError
from tests import runs


def load(*arguments):
    return config_lib.flatten(config_file.load(runs.DIGITS, list(arguments)))


@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        *(
            ([f"--config.num_steps={text}"], "num_steps", 1000)
            for text in ("1e3", "1000.0", "1_000", " 1000", "+1000", "10e2", "'1000'", "0x3e8")
        ),
        (["--config.num_steps", "1e3"], "num_steps", 1000),
        (["--config.seed=\u22121"], "seed", -1),  # a minus sign; its domain is another matter
        *(([f"--config.data.flip={text}"], "data.flip", True) for text in ("yes", "ON", "1", "y")),
        *(([f"--config.tensorboard={text}"], "tensorboard", False) for text in ("no", "off", "0")),
        (["--config.data.flip", "yes"], "data.flip", True),
        (["--config.data.flip", "--config.seed=0"], "data.flip", True),
        *(
            ([f"--config.model.g_attention={text}"], "model.g_attention", (8, 16))
            for text in ("8,16", "(8,16)", "[8, 16]", '"(8, 16)"', "8,16,", "(8e0,16.0)")
        ),
        (["--config.remat=all"], "remat", ("all",)),
        (["--config.remat=('all',)"], "remat", ("all",)),
        (["--config.optimizer.g_lr=\u22121e\u22123"], "optimizer.g_lr", -1e-3),
        (['--config.data.source="folder:/a b"'], "data.source", "folder:/a b"),
        (["--config.data.source=none"], "data.source", None),
        (["--config.model.num_classes=None"], "model.num_classes", None),
        (["--config.eval_every_steps=7", "--config.eval_every_steps=null"],
         "eval_every_steps", None),
    ],
)  # fmt: skip
def test_what_may_be_written(arguments, key, value):
    got = load(*arguments)
    assert got[key] == value and type(got[key]) is type(value)
    plain = load()
    assert {k for k, v in got.items() if v != plain[k]} <= {key}


@pytest.mark.parametrize(
    ("argument", "words", "key", "value"),
    [
        ("-config.seed=1", "unknown option '-config.seed=1'", "seed", 1),
        ("\u2014config.seed=1", "unknown option", "seed", 1),
        ("config.model.ch=8", "unexpected argument 'config.model.ch=8'", "model.ch", 8),
        ("model.ch=8", "unexpected argument", "model.ch", 8),
        ("--Config.Model.CH=8", "unknown option", "model.ch", 8),
        ("--model.ch=8", "unknown option", "model.ch", 8),
        ("--g-lr=1e-3", "unknown option", "optimizer.g_lr", 1e-3),
        ("-config.model.g_attention=(8,16)", "unknown option", "model.g_attention", (8, 16)),
        ("-noconfig.tensorboard", "unknown option", "tensorboard", False),
        ("--batch_size 16", "unknown option '--batch_size'", "batch_size", 16),
        ("--config.model.g_attention=", "empty sequence is written ()", "model.g_attention", ()),
        ("--config.model.g_attention=None", "empty sequence", "model.g_attention", ()),
        ("--config.model.g_attention=(8", "no sequence", "model.g_attention", ()),
        ("--config.ema.decay=0,999", "no number", "ema.decay", 0.999),
        ("--config.num_steps=1,000", "no whole number", "num_steps", 1000),
        ("--config.num_steps=1e999999999", "no whole number", "num_steps", 1200),
        ("--config.num_steps=99999999999999999999", "of at most 63 bits", "num_steps", 1200),
        ("--config.num_steps=nan", "no whole number", "num_steps", 1200),
        ("--config.num_steps=", "value is missing", "num_steps", 1200),
        ("--config.num_steps", "has no value", "num_steps", 1200),
        ("--config.num_steps=None", "cannot be unset", "num_steps", 1200),
        ("--config.loss=", "value is missing", "loss", "hinge"),
        ("--config.data.flip=maybe", "neither True nor False", "data.flip", False),
        ("--config.eval_every_steps=", "value is missing", "eval_every_steps", None),
        ("--config.init_from=", "value is missing", "init_from", None),
        ("--noconfig.batch_size", "True or False", "batch_size", 32),
        ("--noconfig.data.flip=True", "takes no value", "data.flip", False),
        ("--config.model=sagan", "is a section", "model.attention_form", "published"),
        ("--config.model.=sagan", "unknown config key 'model.'", None, None),
        ("--config.=3", "unknown config key ''", None, None),
        ("--config.ch=3", "(did you mean 'model.ch'?)", None, None),
        ("--config.Batch_Size=3", "(did you mean 'batch_size'?)", None, None),
        ("--workdirr=3", "unknown option '--workdirr=3'", None, None),
    ],
)
def test_what_is_refused_and_what_to_write_instead(argument, words, key, value):
    with pytest.raises(UserError) as error:
        load(*argument.split(" "))
    message = str(error.value)
    assert words in message and "\n" not in message
    if key is not None:
        advice = message.rpartition("--")[2]
        got = load(*shlex.split(f"--{advice}"))
        assert got[key] == value and type(got[key]) is type(value)


def test_a_sweep_reads_the_same():
    """Its values are overrides, brackets included."""
    points = combinations.parse(["num_steps=1e3,2_000", "model.g_attention=[8,16],()"])
    got = [load(*(f"--config.{key}={text}" for key, text in point.items())) for point in points]
    assert [c["num_steps"] for c in got] == [1000, 1000, 2000, 2000]
    assert [c["model.g_attention"] for c in got] == [(8, 16), ()] * 2


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "--config is empty"),
        ("model.ch=8", "is a setting; write it as --config.model.ch=8"),
        ("configs", "is a folder"),
        ("digits.yaml", "did you mean 'digits'"),
    ],
)
def test_what_is_no_config_file(path, words, monkeypatch):
    monkeypatch.chdir(runs.ROOT)
    with pytest.raises(UserError, match=words):
        config_file.load(path, [])


def test_a_config_of_another_program(tmp_path):
    for name, content in (("c.json", b'{"lr": true}'), ("c.py", b"\x00\xff\x89PNG")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name) as error:
            config_file.load(str(tmp_path / name), [])
        assert "\n" not in str(error.value)


def test_every_carried_config_has_a_line_and_is_a_file_to_start_from(tmp_path):
    found = summaries.read()
    assert {one.name for one in found} == carried.files().keys()
    assert [one.resolution for one in found] == sorted(one.resolution for one in found)
    for one in found:
        assert len(one.about) < 110 and one.about.endswith(".") and "\n" not in one.about
    mine = tmp_path / "mine.py"
    mine.write_text(carried.text("digits"))
    assert config_file.load(str(mine), []) == config_file.load(runs.DIGITS, [])
    with pytest.raises(UserError, match="no config 'digit' .did you mean 'digits'"):
        carried.text("digit")


def test_a_sweep_with_a_value_twice():
    with pytest.raises(UserError, match="'seed=1,2,1' has 1 twice"):
        combinations.parse(["seed=1,2,1"])
