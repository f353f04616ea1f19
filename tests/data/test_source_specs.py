"""What `--config.data.source` accepts and how it refuses."""

import importlib
import inspect
import subprocess
import sys
import types

import numpy as np
import pytest

from biggan_jax import cli
from biggan_jax.data import arrays, kinds, open_source
from biggan_jax.errors import UserError

SIZE = {"resolution": 8, "channels": 1}


def refusal(spec, **settings):
    with pytest.raises(UserError) as caught:
        open_source(spec, **{**SIZE, **settings})
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("spec", ["digit", "", "flder:/x", "Digits", "mnist"])
def test_an_unknown_kind_lists_the_kinds(spec):
    message = refusal(spec)
    for kind in ("digits", "tfds", "folder", "fashion_mnist", "records"):
        assert kind in message


@pytest.mark.parametrize(
    ("spec", "near"),
    [("digit", "digits"), ("flder:/x", "folder"), ("record:/x", "records")],
)
def test_an_unknown_kind_names_the_nearest_and_how_it_is_written(spec, near):
    message = refusal(spec)
    assert f"did you mean {near!r}?" in message and kinds.KINDS[near].form in message


def test_an_unset_spec_says_what_to_set():
    message = refusal(None)
    assert message.startswith("data.source is not set: set --config.data.source to digits[:SPLIT],")
    assert message.endswith(" or records:DIR")


@pytest.mark.parametrize("spec", ["digits:none", "folder:/none", "records:/none", "mnist", "tfds:"])
def test_a_refusal_names_the_option_that_the_user_wrote(spec):
    assert refusal(spec).startswith(f"--config.data.source={spec!r}: ")
    message = refusal(spec, option="--data")
    assert message.startswith(f"--data={spec!r}: ") and "--config.data.source" not in message


def test_a_new_kind_is_one_module_and_one_line(monkeypatch, capsys):
    """All that names the kinds reads the table."""
    kind = kinds.Kind("squares", "squares[:GREY]", "white squares", "squares_of_a_test")
    module = types.ModuleType("biggan_jax.data.squares_of_a_test")

    def open_spec(spec, argument, *, resolution, channels, on_bad_record):
        images = np.full((2, resolution, resolution), int(argument or 7), np.uint8)
        return arrays.ArraySource(
            spec, images, np.arange(2), "ab", resolution=resolution, channels=channels
        )

    module.open_spec = open_spec
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(kinds.KINDS, kind.name, kind)
    for spec, value in (("squares", 7), ("squares:9", 9)):
        images, labels = open_source(spec, **SIZE).read([0, 1])
        assert images.shape == (2, 8, 8, 1) and (images == value).all()
        assert labels.tolist() == [0, 1]
    assert "did you mean 'squares'?" in refusal("sqares:9")
    assert refusal(None).endswith(" or squares[:GREY]")
    assert "incomplete" in refusal("squares:")
    assert cli.main(["prepare", "--help"]) == 0
    assert "white squares" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("kind", kinds.KINDS.values(), ids=lambda kind: kind.name)
def test_every_kind_has_an_opener(kind):
    module = importlib.import_module(f"biggan_jax.data.{kind.module}")
    names = list(inspect.signature(module.open_spec).parameters)
    assert names == ["spec", "argument", "resolution", "channels", "on_bad_record", *kind.takes]
    assert kind.form.startswith(kind.name) and kind.holds


@pytest.mark.parametrize("spec", ["folder", "folder:", "records: ", "tfds:", "fashion_mnist"])
def test_an_incomplete_spec_shows_its_form(spec):
    message = refusal(spec)
    assert "incomplete" in message
    assert spec.partition(":")[0] + ":" in message


@pytest.mark.parametrize("spec", ["digits:", "digits:validation", "tfds:a b", "tfds::train"])
def test_a_malformed_spec_is_named(spec):
    assert spec in refusal(spec)


@pytest.mark.parametrize(
    ("setting", "value"), [("resolution", 0), ("channels", 4), ("on_bad_record", "ignore")]
)
def test_a_bad_setting_is_named_with_its_value(setting, value):
    message = refusal("digits", **{setting: value})
    assert f"{setting} is {value!r}" in message
    assert "--config." in message


def test_importing_the_package_loads_nothing_heavy():
    heavy = "numpy grain jax PIL sklearn tensorflow_datasets tensorflow array_record"
    code = (
        "import sys, biggan_jax.data.kinds\n"
        f"loaded = [name for name in '{heavy}'.split() if name in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
