"""Class names: kept by training and in every directory, and taken wherever classes are named."""

import json

import numpy as np
import pytest

from biggan_jax import cli, load_discriminator, load_generator
from biggan_jax.errors import UserError
from biggan_jax.sampling import classes as classes_lib
from biggan_jax.training import run_data
from tests import runs

ANIMALS = ("cat", "dog", "Dog", "tabby, tabby cat", "clip arts", '12" disc', "猫", "b\u00e9b\u00e9")
NUMBERS = ("0", "1", "10", "11", "2")  # sorted as text
AGES = ("0-9", "10-19", "20-29")


def parse(text, names, count=None):
    return classes_lib.parse_classes(text, count or len(names), picture=False, names=names).tolist()


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        ("cat,dog", ANIMALS, [0, 1]),
        (" Dog , cat", ANIMALS, [2, 0]),  # case counts
        ("clip arts,2", ANIMALS, [4, 2]),
        ('"tabby, tabby cat",dog', ANIMALS, [3, 1]),
        ("tabby, tabby cat", ANIMALS, [3]),  # the whole text is a name
        ('12" disc,"12"" disc"', ANIMALS, [5, 5]),
        ("猫,be\u0301be\u0301", ANIMALS, [6, 7]),  # the accents apart, as some file systems have it
        ("0,3-5,cat", ANIMALS, [0, 3, 4, 5, 0]),
        ("id:1,name:cat,id:3-4", ANIMALS, [1, 0, 3, 4]),
        ('name:"tabby, tabby cat"', ANIMALS, [3]),
        ("0,1", NUMBERS, [0, 1]),  # the id and the name are one class
        ("10", NUMBERS, [2]),  # there is no class with this id
        ("name:2,id:2", NUMBERS, [4, 2]),
        ('"2"', NUMBERS, [4]),
        ("0-9,10-19", AGES, [0, 1]),
        ("007", ("x", "007"), [1]),
        ("id:1", ("id:1", "x"), None),  # a name that looks like an exact form
        ("name:id:1", ("id:1", "x"), [0]),
        ("id:01", ("id:1", "x"), [1]),
        ("x, b", ("x", " b"), [0, 1]),  # the only class with such a name
        ('" b",b', ("b", " b"), [1, 0]),
        ("03", (), [3]),
    ],
)
def test_lists(text, names, expected):
    if expected is None:
        with pytest.raises(UserError, match="several classes: write name:id:1 or id:01$"):
            parse(text, names)
    else:
        assert parse(text, names, None if names else 10) == expected


@pytest.mark.parametrize(
    ("text", "names", "words"),
    [
        ("catt", ANIMALS, r"--classes 'catt': no class is named 'catt' \(did you mean 'cat'\?\)"),
        ("CAT", ANIMALS, "did you mean 'cat'.*; there are cat, dog, Dog, \"tabby, tabby cat\", "),
        ("cat", (), "does not know the names of its classes: write ids"),
        ("2", NUMBERS, "2 is the name of class 4 and id 2 .'10'. .* write name:2 or id:2$"),
        ("0-2", NUMBERS, "0-2 is a range of ids, and 0 and 2 are names.*write id:0-2"),
        ("0-1", ("0-1", "a", "b"), "0-1 is the name of class 0 and a range .*name:0-1 or id:0-1$"),
        ("a,b", ("a,b", "a", "b"), "name of one class and a list of others: put the name"),
        ("x", ("x", "x"), "2 classes are named 'x': write id:0 or id:1"),
        ("cat,,dog", ANIMALS, "write class names such as cat,dog or ids"),
        ("", ANIMALS, "write class names"),
        ("8", ANIMALS, "class 8 does not exist.*0 to 7"),
        ("id:cat", ANIMALS, "'cat' is no id: write a number"),
        ("5-3", ANIMALS, "5-3 runs backwards; write 3-5"),
        ("-1", ANIMALS, "no class is named '-1'"),
        ('"cat', ANIMALS, "no class is named '\"cat'"),
        (" b", ("b", " b"), "' b' and 'b' are names of two classes: put .* into double quotes$"),
        ("x,b ", ("b ", "x", "b"), "'b ' and 'b' are names of two classes"),
        ("bb", (" bbb ", "x"), 'did you mean \'" bbb "\'.*there are " bbb ", x'),
        ("name:x", ("name:x", "x"), 'several classes: write name:name:x or name:"x"$'),
        ("0-999999999999", ANIMALS, "class 999999999999 does not exist"),
    ],
)
def test_lists_that_mean_nothing_or_several(text, names, words):
    with pytest.raises(UserError, match=words) as error:
        parse(text, names, None if names else 10)
    assert "\n" not in str(error.value)


def test_exact_forms_of_a_refusal_are_taken():
    for names, text in ((NUMBERS, "2"), (AGES, "0-9"), (("0-1", "a", "b"), "0-1")):
        assert parse(f"name:{text}", names) == [names.index(text)]
    assert parse("id:0-1", ("0-1", "a", "b")) == [0, 1] and parse("id:0-2", NUMBERS) == [0, 1, 2]


def test_a_run_keeps_the_names_of_its_data(trained, tmp_path, capsys):
    """In its config, in exports and imports, and at every network."""
    assert json.loads((trained / "config.json").read_text())["class_names"] == list("0123456789")
    g, d = load_generator(trained), load_discriminator(trained)
    assert g.class_names == d.class_names == tuple("0123456789")
    assert g.labels("3,5").tolist() == d.labels("3,5").tolist() == [3, 5]
    with pytest.raises(UserError, match="labels 'three': no class is named 'three'"):
        g.labels("three")
    for out, kind, folder in (
        ("x.safetensors", "safetensors", "a"), ("peer", "biggan-pytorch", "b"),
    ):  # fmt: skip
        argv = ["export", f"--from={trained}", f"--format={kind}", f"--out={tmp_path / out}"]
        assert cli.main(argv) == 0
        back = "biggan-jax" if kind == "safetensors" else kind
        argv = ["import", f"--format={back}", str(tmp_path / out), f"--out={tmp_path / folder}"]
        assert cli.main(argv) == 0
        saved = json.loads((tmp_path / folder / "config.json").read_text())
        assert saved["class_names"] == list("0123456789")


def test_names_are_filled_and_checked(tmp_path):
    config = runs.tiny_config()
    run_data.open_source(config, tmp_path)
    assert config.class_names == tuple("0123456789")
    config = runs.tiny_config("--config.model.num_classes=1")  # unconditional: they mean nothing
    run_data.open_source(config, tmp_path)
    assert config.class_names == () and classes_lib.names_of(config) == ()
    config = runs.tiny_config()
    config.class_names = ("zero", "one")
    with pytest.raises(UserError, match="class_names has 2 names, but the model 10 classes"):
        run_data.open_source(config, tmp_path)
    config.class_names = tuple("abcdefghij")
    run_data.open_source(config, tmp_path)
    assert config.class_names == tuple("abcdefghij")  # given ones stay


def test_labels_of_wrong_types(trained):
    g, d = load_generator(trained), load_discriminator(trained)
    z, images = g.sample_z(0, 2), np.zeros((2, 16, 16, 1), np.float32)
    for call, words in (
        (lambda: g(z, ["3", "5"]), r"labels are <U1; class ids are integers .labels\('cat,dog'\)"),
        (lambda: g(z, [True, False]), "labels are bool"),
        (lambda: g(z, [1.0, 2.0]), "labels are float64"),
        (lambda: g(z * np.nan, [1, 2]), "z hold NaN or infinity"),
        (lambda: g([["a"]], [1]), "z cannot be made an array of floats"),
        (lambda: d(images + np.inf, [1, 2]), "images hold NaN or infinity"),
        (lambda: d(None, [1]), "images cannot be made .* of type NoneType"),
        (lambda: d(images.astype(np.uint8), [1, 2]), "images are uint8; give floats in .-1, 1."),
        (lambda: d(images[:, :8], [1, 2]), r"this model takes \[N, 16, 16, 1\]$"),
        (lambda: g(z + 1j, [1, 2]), "z cannot be made an array of floats"),
        (lambda: g.labels(["cat"]), "write them as one text, such as 'cat,dog'"),
        (lambda: g.labels(3), "labels 3: write them as one text"),
        (lambda: g.sample_z(0, 2, truncation="2"), "truncation is 2; it must be above 0"),
        (lambda: g.sample_z(0, 2, truncation=True), "truncation is True"),
        (lambda: g.sample_z(0, -1), "n is -1; it must be an integer, at least 0"),
        (lambda: g.sample_z(0, 2.5), "n is 2.5"),
        (lambda: g.sample_z(0, 2.0), "n is 2.0"),
        (lambda: g.sample_z(0, "3"), "n is '3'"),
        (lambda: g.sample_z(0, 1, first=-2), "first is -2"),
        (lambda: g.sample_z(0.5, 2), "seed is 0.5; it must be an integer"),
        (lambda: g.sample_z("a", 2), "seed is a; it must be an integer"),
    ):
        with pytest.raises(UserError, match=words):
            call()
    assert g.sample_z(np.int64(3), np.int32(2)).shape == (2, 12) and len(g.sample_z(0, 0)) == 0
