"""Fingerprints, comparisons and the command line of thresholds."""

import argparse
import json

import pytest

from biggan_jax import cli
from biggan_jax.cli import options
from biggan_jax.errors import UserError
from biggan_jax.evaluation import comparison, protocol
from tests import runs

FIELDS = {"features": "classifier", "samples": 100, "truncation": None, "model": "a", "step": 3}
SCORES = {"fid": 2.0, "kid": 0.5, "kid_standard_error": 0.2, "precision": 0.5, "is_std": 9.0}


def write(path, scores, **changes):
    path.write_text(json.dumps({"scores": scores, "protocol": protocol.seal(FIELDS | changes)}))
    return path


def test_fingerprint_is_of_all_but_the_subject():
    one = protocol.seal(FIELDS)["fingerprint"]
    assert protocol.seal(FIELDS | {"model": "b", "step": 4, "real": "x"})["fingerprint"] == one
    for change in ({"samples": 101}, {"truncation": 0.5}, {"features": "inception"}):
        assert protocol.seal(FIELDS | change)["fingerprint"] != one
    assert protocol.seal(protocol.seal(FIELDS))["fingerprint"] == one


def test_differences_name_the_fields():
    other = FIELDS | {"samples": 7, "step": 9, "bn_mode": "batch"}
    assert protocol.differences(FIELDS, FIELDS | {"step": 9}) == []
    assert protocol.differences(FIELDS, other) == ["bn_mode None -> batch", "samples 100 -> 7"]


def test_compare_ranks_each_score(tmp_path, capsys):
    a = write(tmp_path / "a.json", SCORES, step=1)
    better = SCORES | {"fid": 1.0, "kid": 0.1, "precision": 0.4, "is_std": 1.0}
    b = write(tmp_path / "b.json", better, step=2, model="elsewhere")
    result, text = comparison.compare(a, b)
    # 0.4 is less than two standard errors of the difference, 2 * hypot(0.2, 0.2).
    ranks = {name: row["better"] for name, row in result["scores"].items()}
    assert ranks == {"fid": "b", "kid": "equal", "precision": "a"}
    assert cli.main(["evaluate", "--compare", str(b), str(a), "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["scores"]["fid"] == {"a": 1.0, "b": 2.0, "better": "a"}
    assert comparison.compare(a, a)[0]["scores"]["fid"]["better"] == "equal"
    assert "precision" in text


def test_compare_of_several_seeds_ranks_beyond_both_deviations(tmp_path):
    """The larger deviation decides, whichever side it is of."""
    first = {"fid": 2.0, "precision": 0.5, "recall": 0.5, "coverage": 0.5}
    second = {"fid": 1.0, "precision": 0.4, "recall": 0.6, "coverage": 0.5}
    apart = (
        {"fid": 0.9, "precision": 0.2, "recall": 0.01, "coverage": 0.0},
        {"fid": 0.1, "precision": 0.01, "recall": 0.2, "coverage": 0.0},
    )
    files = []
    for name, scores, deviations in zip("ab", (first, second), apart, strict=True):
        files.append(write(tmp_path / f"{name}.json", scores, seeds=5))
        content = json.loads(files[-1].read_text()) | {"deviations": deviations}
        files[-1].write_text(json.dumps(content))
    result, text = comparison.compare(*files)
    ranks = {name: row["better"] for name, row in result["scores"].items()}
    assert ranks == {"fid": "b", "precision": "equal", "recall": "equal", "coverage": "equal"}
    assert result["scores"]["fid"]["a_deviation"] == 0.9 and "2 +- 0.9" in text
    for bad in ({"fid": "x"}, {"fid": -1.0}, [1]):
        content = json.loads(files[0].read_text()) | {"deviations": bad}
        (tmp_path / "x.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match="is no result"):
            comparison.compare(tmp_path / "x.json", files[1])
    for held in ({}, {"deviations": {"fid": 0.9}}):  # torn off: it is no deviation of 0
        content = {k: v for k, v in json.loads(files[0].read_text()).items() if k != "deviations"}
        (tmp_path / "x.json").write_text(json.dumps(content | held))
        with pytest.raises(UserError, match="x.json is of several seeds and holds no deviation of"):
            comparison.compare(files[1], tmp_path / "x.json")
    one = write(tmp_path / "one.json", first)
    with pytest.raises(UserError, match="seeds None -> 5"):
        comparison.compare(one, files[1])


def test_compare_refuses_other_protocols(tmp_path, capsys):
    a = write(tmp_path / "a.json", SCORES)
    b = write(tmp_path / "b.json", SCORES, samples=50, truncation=0.5)
    with pytest.raises(UserError, match="a.json has fid, .*x.json no scores, and none"):
        comparison.compare(a, write(tmp_path / "x.json", {}))
    both = ["evaluate", "--compare", str(a), str(a)]
    for option in ("--samples=5", "--matrix", "--features=inception", "--step=3", "--seeds=2"):
        assert cli.main([*both, option]) == 2
        runs.assert_one_error(capsys.readouterr(), f"leave out {option.partition('=')[0]}$")
    assert cli.main(["evaluate", "--compare", str(a), str(b)]) == 2
    words = "samples 100 -> 50; truncation None -> 0.5"
    runs.assert_one_error(capsys.readouterr(), words, "different protocols")


SCORED = '{"scores": {"fid": %s}, "protocol": {}}'


@pytest.mark.parametrize(
    "text", ["", "[]", *(SCORED % value for value in ('"x"', "true", "1" + 400 * "0")), "{}"]
)
def test_compare_refuses_what_is_no_result(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match="x.json is no result of an evaluation"):
        comparison.compare(tmp_path / "x.json", tmp_path / "x.json")
    with pytest.raises(UserError, match="y.json: no such file"):
        comparison.compare(tmp_path / "y.json", tmp_path / "x.json")


def test_thresholds():
    assert options.thresholds("1.0,0.1, 0.5,1") == (0.1, 0.5, 1.0)
    for bad in ("", "a", "0.1,,2", "0", "-1", "nan", "inf"):
        with pytest.raises(argparse.ArgumentTypeError, match="positive numbers"):
            options.thresholds(bad)
