"""`--features module:function`: a Python function of the user as the features network."""

import json
import sys

import numpy as np
import pytest

from biggan_jax import cli
from biggan_jax.metrics import scores
from tests import runs

MODULE = """
import sys
import numpy as np
print("importing")

def embed(images):
    print("embedding")
    assert images.dtype == np.uint8 and images.ndim == 4
    x = images.reshape(len(images), -1) / 255.0
    return np.stack([x.mean(1), x.std(1), x[:, ::7].mean(1)], axis=1)

def with_logits(images):
    features = embed(images)
    return features, features * 9

class Net:
    def __call__(self, images):
        return {"features": embed(images)}

net = Net()
number = 3
flat = lambda images: embed(images)[:, 0]
few = lambda images: embed(images)[:1]
words = lambda images: [["a"] for _ in images]
nothing = lambda images: None
three = lambda images: (1, 2, 3)
leaves = lambda images: sys.exit(0)

async def waits(images):
    return embed(images)

def yields(images):
    yield embed(images)

def broken(images):
    raise ValueError("no such layer\\nat all")

def nan(images):
    features = embed(images)
    features[0, 1] = np.nan
    return features

def later(images):
    features = embed(images)
    return features if len(images) < 3 else features[:, :2]
"""


def embedded(images):
    x = images.reshape(len(images), -1) / 255.0
    return np.stack([x.mean(1), x.std(1), x[:, ::7].mean(1)], axis=1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with two sets of images and the module of a user."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # the folder is put there
    rng = np.random.default_rng(1)
    for name, count in (("real", 40), ("fake", 30)):
        np.savez(f"{name}.npz", images=rng.integers(0, 256, (count, 8, 8, 3), np.uint8))
    (tmp_path / "own_features.py").write_text(MODULE)
    (tmp_path / "raising.py").write_text("1 / 0\n")
    (tmp_path / "torn.py").write_text("def embed(images:\n")
    (tmp_path / "lacking.py").write_text("import no_such_library\n")
    return tmp_path


def ran(capsys, name):
    argv = ["--json", "score", "real.npz", "fake.npz", f"--features={name}", "--cache=cache"]
    code = cli.main(argv)
    captured = capsys.readouterr()
    return json.loads(captured.out), code, captured


def assert_one_error(captured, *words):
    """One line, besides what the module itself prints."""
    lines = captured.err.splitlines()
    own = [line for line in lines if line not in ("importing", "embedding")]
    runs.assert_one_error(captured._replace(err="\n".join(own)), *words)


def test_scores_of_an_own_function(folder, capsys):
    result, code, captured = ran(capsys, "own_features:embed")  # stdout is one object
    assert code == 0 and "importing" in captured.err and "embedding" in captured.err
    real, fake = (embedded(np.load(f"{name}.npz")["images"]) for name in ("real", "fake"))
    sides = (real.mean(0), np.cov(real.T), fake.mean(0), np.cov(fake.T))
    assert result["scores"]["fid"] == pytest.approx(scores.frechet_distance(*sides), rel=1e-4)
    assert result["scores"]["kid"] and "precision" in result["scores"]
    assert set(result["absent"]) == {"is_mean", "is_std"}
    assert "logits" in result["absent"]["is_mean"]
    protocol = result["protocol"]
    assert protocol["features"] == "own_features:embed"

    more, code, _ = ran(capsys, "own_features:with_logits")
    assert code == 0 and more["scores"]["is_mean"] > 1 and not more["absent"]
    assert more["scores"]["fid"] == pytest.approx(result["scores"]["fid"], rel=1e-6)
    net, code, _ = ran(capsys, "own_features:net")
    assert code == 0 and net["scores"] == result["scores"]

    # Another source is another protocol, and nothing measured before is taken for it.
    (folder / "own_features.py").write_text(MODULE.replace("x.std(1)", "3 * x.std(1)"))
    other, code, _ = ran(capsys, "own_features:embed")
    assert code == 0 and other["scores"]["fid"] != result["scores"]["fid"]
    assert other["protocol"]["features_digest"] != protocol["features_digest"]
    assert other["protocol"]["fingerprint"] != protocol["fingerprint"]
    # So is a function of another module that this one only names.
    (folder / "outer.py").write_text("from own_features import embed\n")
    first, _, _ = ran(capsys, "outer:embed")
    assert first["protocol"]["features_digest"] != other["protocol"]["features_digest"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("own_feature:embed", ("no module own_feature", "did you mean 'own_features'")),
        ("own_features:embd", ("has no 'embd'", "did you mean 'embed'")),
        ("own_features:number", ("number of own_features is a int",)),
        ("own_features.py:embed", ("no module own_features.py", "did you mean 'own_features'")),
        ("./own_features.py:embed", ("names no function", "my_features:embed")),
        ("own_features:", ("names no function",)),
        (":embed", ("names no function",)),
        ("math:sqrt", ("source file|raised TypeError",)),
        ("raising:embed", ("importing raising raised ZeroDivisionError", r"raising.py, line 1")),
        ("lacking:embed", ("importing lacking raised .*no_such_library",)),
        ("own_features:broken", ("raised ValueError: no such layer at all", r"own_features.py, ")),
        ("own_features:nan", ("NaN or infinite features for 1 of 2 images",)),
        ("own_features:flat", (r"features \[2\] for 2 images: return \[2, D\]",)),
        ("own_features:few", (r"features \[1, 3\] for 2 images",)),
        ("own_features:words", ("features of <U1",)),
        ("own_features:nothing", ("returned NoneType: return features",)),
        ("own_features:three", ("3 values",)),
        ("own_features:leaves", ("raised SystemExit: 0",)),
        ("own_features:waits", ("is `async`.*write a plain function",)),
        ("own_features:yields", ("has `yield`",)),
        ("torn:embed", (r"SyntaxError: .*\(torn.py, line 1\): repair it",)),
        ("own_features:later", ("3 features an image at first and now 2",)),
        ("inceptoin", ("no features 'inceptoin'", "did you mean 'inception'", "module:function")),
    ],
)
def test_a_function_that_cannot_be_used_is_one_line(folder, capsys, name, words):
    _, code, captured = ran(capsys, name)
    assert code == 2
    assert_one_error(captured, *words)


def test_evaluate_takes_an_own_function(folder, run_copy, capsys):
    common = ["--json", "evaluate", f"--from={run_copy}", "--data=digits:test", "--no-memorisation"]
    assert cli.main([*common, "--features=own_features:embed", "--samples=20"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {"fid", "kid", "recall"} <= set(result["scores"])
    assert set(result["absent"]) == {"is_mean", "is_std"} and not result["per_class"]
    assert result["protocol"]["features"] == "own_features:embed"
    for options, words in (
        (["--samples=3"], "3 samples for the 3 dimensions"),
        (["--resize=clean"], "leave --resize out"),
        (["--fit-classifier"], "leave one of the two out"),
    ):
        assert cli.main([*common, "--features=own_features:embed", *options]) == 2
        assert_one_error(capsys.readouterr(), words)


@pytest.mark.full
def test_scores_over_seeds(folder, run_copy, capsys):
    """Means and deviations of the scores that each seed has alone."""
    common = ["--json", "evaluate", f"--from={run_copy}", "--data=digits:test", "--no-memorisation"]
    common += ["--features=own_features:with_logits", "--samples=20", "--out=out"]

    def result_of(*options):
        assert cli.main([*common, *options]) == 0
        return json.loads(capsys.readouterr().out)

    whole = result_of("--seeds=2", "--seed=3")
    alone = [result_of(f"--seed={seed}") for seed in (3, 4)]
    assert whole["seeds"] == [
        {"seed": s, "scores": r["scores"]} for s, r in zip((3, 4), alone, strict=False)
    ]
    for name, mean in whole["scores"].items():
        values = [result["scores"][name] for result in alone]
        assert mean == pytest.approx(np.mean(values))
        assert whole["deviations"][name] == pytest.approx(np.std(values, ddof=1))
    assert whole["deviations"]["fid"] > 0
    prints = [result["protocol"]["fingerprint"] for result in (whole, *alone)]
    assert len(set(prints)) == 3 and whole["protocol"]["seeds"] == 2
    assert result_of("--seeds=1", "--seed=3")["protocol"] == alone[0]["protocol"]
    rows = result_of("--seeds=2", "--seed=3", "--truncation=0.5,1")["curve"]
    assert all(row["deviations"]["fid"] > 0 for row in rows)
    assert "fid_deviation" in (folder / "out" / "truncation.csv").read_text().splitlines()[0]
    assert cli.main([*common[1:], "--seeds=2"]) == 0
    text = capsys.readouterr().out
    assert "each of 2 seeds from 0 on" in text and " +- " in text
    for options, words in (
        (["--seeds=0"], "--seeds 0: set it to a number from 1 to 1,000"),
        (["--seeds=2", "--follow"], "--follow takes .*no --seeds"),
        (["--seeds=2", f"--seed={2**32 - 1}"], "seed"),
    ):
        assert cli.main([*common, *options]) == 2
        assert_one_error(capsys.readouterr(), words)
