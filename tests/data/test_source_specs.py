"""What `--config.data.source` accepts and how it refuses."""

import subprocess
import sys

import pytest

from biggan_jax.data import open_source
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
    [("digit", "digits"), ("flder:/x", "folder:PATH"), ("record:/x", "records:DIR")],
)
def test_an_unknown_kind_names_the_nearest(spec, near):
    assert f"did you mean {near}" in refusal(spec)


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
    assert f"{setting}={value!r}" in message
    assert "--config." in message


def test_importing_the_package_loads_nothing_heavy():
    heavy = "grain jax PIL sklearn tensorflow_datasets tensorflow array_record"
    code = (
        "import sys, biggan_jax.data\n"
        f"loaded = [name for name in '{heavy}'.split() if name in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
