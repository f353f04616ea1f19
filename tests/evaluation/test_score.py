"""`biggan score`: any two sets of images, the scores of the metrics, and what is refused."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biggan_jax import cli
from biggan_jax.data import array_file
from biggan_jax.errors import UserError
from biggan_jax.evaluation import inputs, reference, score
from biggan_jax.metrics import moments, resize, scores

DIM = 4


class Projection:
    """Features and logits of images by a fixed matrix: an extractor that costs nothing."""

    name, digest, resize, resolution, feature_dim = "classifier", "ab" * 32, "none", 8, DIM
    has_logits = True

    def __call__(self, images):
        x = images.reshape(len(images), -1) / 255.0
        rng = np.random.default_rng(0)
        features = x @ rng.normal(size=(x.shape[1], DIM))
        return {"features": features.astype(np.float32), "logits": features[:, :3] * 2}


@pytest.fixture(autouse=True)
def projection(monkeypatch):
    monkeypatch.setattr(inputs, "fitted_classifier", lambda *args, **settings: Projection())
    monkeypatch.setattr(inputs, "open_inception", lambda given, rule: Projection())


@pytest.fixture
def sets(tmp_path, monkeypatch):
    """real.npz and fake.npz of 8 pixels in three classes; the folder is the working directory."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    found = {}
    for name, count in (("real", 40), ("fake", 30)):
        images = rng.integers(0, 256, (count, 8, 8, 1), np.uint8)
        found[name] = images
        np.savez(f"{name}.npz", images=images, labels=np.arange(count) % 3, z=np.zeros((count, 2)))
    return found


def features(images):
    return Projection()(images)["features"].astype(np.float64)


def ran(capsys, *argv):
    """(JSON object, exit code) of a command in the working directory."""
    code = cli.main(["--json", "score", *argv, "--cache=cache"])
    return json.loads(capsys.readouterr().out), code


def test_scores_are_those_of_the_metrics(sets, capsys, tmp_path):
    result, code = ran(capsys, "real.npz", "fake.npz", "--features=classifier", "--out=a.json")
    assert code == 0
    real, fake = features(sets["real"]), features(sets["fake"])
    sides = (real.mean(0), np.cov(real.T), fake.mean(0), np.cov(fake.T))
    found = result["scores"]
    assert found["fid"] == pytest.approx(scores.frechet_distance(*sides), rel=1e-6)
    for name, value in scores.precision_recall(real, fake, k=3).items():
        assert found[name] == pytest.approx(value)
    other = scores.precision_recall(fake, real, k=3)
    assert other["precision"] != found["precision"]  # so that swapped sides would be seen
    right = Projection()(sets["fake"])["logits"].argmax(1) == np.arange(30) % 3
    assert found["class_accuracy"] == pytest.approx(right.mean())
    assert {row["asked"] for row in result["per_class"]} == {10}
    protocol = result["protocol"]
    counted = [protocol[name] for name in ("real_count", "samples", "resolution", "channels")]
    assert counted == [40, 30, 8, 1]
    assert json.loads((tmp_path / "a.json").read_text())["scores"] == found
    # The order of the files has no part in the scores, and neither have their names.
    order = np.random.default_rng(2).permutation(30)
    np.savez("again.npz", images=sets["fake"][order], labels=(np.arange(30) % 3)[order])
    again, _ = ran(capsys, "real.npz", "again.npz", "--features=classifier")
    assert again["protocol"]["fingerprint"] == protocol["fingerprint"]
    for name in ("fid", "precision", "recall", "density", "coverage", "class_accuracy"):
        assert again["scores"][name] == pytest.approx(found[name], rel=1e-6), name


def test_every_kind_of_side(sets, capsys, tmp_path):
    """Files of arrays, folders with and without classes, specs and statistics of one and the same
    images give the same distance."""
    for i, image in enumerate(sets["fake"]):
        for folder in ("flat", f"classes/{i % 3}"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0]).save(tmp_path / folder / f"{i}.png")
    stream = moments.Moments(DIM)
    stream.add(features(sets["fake"]))
    made = reference.extractor_fields(Projection())
    (tmp_path / "statistics.npz").write_bytes(stream.statistics(made).to_bytes())
    sides = ("fake.npz", "arrays:fake.npz", "flat", "images:flat", "classes", "folder:classes",
             "statistics.npz")  # fmt: skip
    found = {}
    for fake in sides:
        result, code = ran(capsys, "real.npz", fake, "--features=classifier")
        assert code == 0, fake
        found[fake] = result
    fid = found["fake.npz"]["scores"]["fid"]
    assert all(r["scores"]["fid"] == pytest.approx(fid, rel=1e-6) for r in found.values())
    assert set(found["statistics.npz"]["scores"]) == {"fid"}
    assert "class_accuracy" in found["classes"]["scores"]
    assert found["flat"]["absent"] == {"class_accuracy": "labels of FAKE, which has one class"}
    both, _ = ran(capsys, "statistics.npz", "statistics.npz")
    assert both["scores"]["fid"] == pytest.approx(0, abs=1e-6)
    assert both["protocol"]["features"] == "classifier"
    with np.load("statistics.npz") as file:
        np.savez("both.npz", arr_0=sets["fake"], mu=file["mu"], sigma=file["sigma"])
    for side, count in (("both.npz", 1), ("arrays:both.npz", 8)):
        result, _ = ran(capsys, "real.npz", side, "--features=classifier")
        assert len(result["scores"]) >= count and result["scores"]["fid"] == pytest.approx(fid)
        assert ("precision" in result["scores"]) == (count > 1)
    real, _ = ran(capsys, "statistics.npz", "real.npz", "--features=inception")
    assert real["scores"]["fid"] == pytest.approx(fid, rel=1e-6)


def test_few_images_leave_scores_out(sets, capsys):
    np.savez("few.npz", images=sets["fake"][:3])
    result, code = ran(capsys, "real.npz", "few.npz", "--features=classifier")
    assert code == 0 and np.isfinite(list(result["scores"].values())).all()
    assert {"is_mean", "precision", "coverage"} <= set(result["absent"])


def test_what_is_refused(sets, capsys, tmp_path):
    """One line that says what to do; exit code 2."""
    rng = np.random.default_rng(3)

    def save(name, **arrays):
        np.savez(f"{name}.npz", **arrays)

    images = sets["fake"]
    save("sixteen", images=rng.integers(0, 256, (9, 16, 16, 1), np.uint8))
    save("colour", images=rng.integers(0, 256, (9, 8, 8, 3), np.uint8))
    floats = images / 127.5 - 1
    save("floats", images=floats)
    floats[2, 1, 1] = np.nan
    save("nan", images=floats)
    save("labels", images=images, labels=np.arange(4))
    save("wide", images=rng.integers(0, 256, (9, 8, 6, 1), np.uint8))
    save("first", images=images.transpose(0, 3, 1, 2))
    save("alpha", images=images.repeat(4, axis=-1))
    save("none", images=images[:0])
    save("one", images=images[:1])
    save("features", feats=np.zeros((30, DIM)))
    save("nan_mean", mu=np.full(DIM, np.nan), sigma=np.eye(DIM))
    (tmp_path / "kept.pt").write_bytes(pickle.dumps({"mu": np.zeros(DIM)}))
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps({"images": images}))
    save("other", weights=np.zeros(3))
    save("statistics", mu=np.zeros(7), sigma=np.eye(7))
    save("mean_alone", mu=np.zeros(7))
    (tmp_path / "broken.npz").write_bytes((tmp_path / "fake.npz").read_bytes()[:200])
    (tmp_path / "empty").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "sizes").mkdir()
    for side in (8, 9):
        Image.new("L", (side, side)).save(tmp_path / "sizes" / f"{side}.png")
    rows = (
        ("sixteen.npz", "16 x 16 pixels", "--resolution 8"),
        ("colour.npz", "in colour", "--channels 3"),
        ("floats.npz", "float64", "from -1 to 1", "((images + 1) * 127.5).round()"),
        ("nan.npz", "1 of its values NaN", "make them again"),
        ("labels.npz", "`labels`", "one integer for each"),
        ("wide.npz", "[9, 8, 6, 1]", "squares"),
        ("first.npz", "[30, 1, 8, 8]", "images.transpose(0, 2, 3, 1)"),
        ("alpha.npz", "[30, 8, 8, 4]", "images[..., :3]"),
        ("none.npz", "[0, 8, 8, 1]", "write some images"),
        ("one.npz", "1 image", "give more"),
        ("features.npz", "holds features", "without _kid"),
        ("nan_mean.npz", "NaN", "make them again"),
        ("kept.pt", "a pickle", "numpy.savez('F.npz', mu=..., sigma=...)"),
        ("pickle.npz", "no readable .npz", "numpy.savez(FILE, images=...)"),
        ("other.npz", "no array `images`", "weights"),
        ("mean_alone.npz", "its arrays: mu", "numpy.savez('F.npz', mu=..., sigma=...)"),
        ("statistics.npz", "7 feature dimensions", "same features network"),
        ("broken.npz", "no readable .npz", "make it again"),
        ("empty", "holds no images", "correct the path"),
        ("model", "trained model", "biggan evaluate --from model"),
        ("hf://me/model", "trained model", "biggan evaluate --from hf://me/model"),
        ("digits-demo", "trained model", "biggan sample --from digits-demo --out F.npz"),
        ("sizes", "8 x 8, 9 x 9", "--resolution 8"),
        ("nothing", "no such file", "folder:PATH"),
        ("", "FAKE is empty", "folder:PATH"),
        ("digit", "no such file", "digits"),
    )
    for fake, *words in rows:
        result, code = ran(capsys, "real.npz", fake, "--features=classifier")
        assert code == 2 and "\n" not in result["error"], fake
        assert all(word in result["error"] for word in words), (fake, result["error"])
    (tmp_path / "sizes" / "config.json").write_text('{"model_type": "bert"}')
    result, code = ran(capsys, "real.npz", "sizes", "--features=classifier", "--resolution=8")
    assert code == 0, result  # pictures beside the config of another program
    for argv, word in (
        (("real.npz", "fake.npz", "--features=classifier", "--resize=clean"), "--resize"),
        (("real.npz", "fake.npz", "--features=classifier", "--resolution=0"), "1 to 8,192 pixels"),
        (("statistics.npz", "fake.npz", "--features=classifier"), "--features inception"),
        (("real.npz", "fake.npz", "--out=a.txt"), ".json"),
    ):
        result, code = ran(capsys, *argv)
        assert code == 2 and word in result["error"], result


def test_statistics_are_looked_at_before_images_are_measured(sets, capsys, monkeypatch):
    np.savez("seven.npz", mu=np.zeros(7), sigma=np.eye(7))
    monkeypatch.setattr(reference, "measure", None)
    result, code = ran(capsys, "real.npz", "seven.npz", "--features=classifier")
    assert code == 2 and "7 feature dimensions" in result["error"]


def test_advised_options_are_taken(sets, capsys, tmp_path):
    """What the refusals of other sizes and colours advise, followed literally."""
    np.savez("other.npz", images=np.zeros((9, 16, 16, 3), np.uint8))
    advised = ("--resolution=8", "--channels=3")
    result, code = ran(capsys, "real.npz", "other.npz", "--features=classifier", *advised)
    assert code == 0 and result["protocol"]["channels"] == 3


@pytest.mark.parametrize(
    "made",
    [
        lambda x: x / 255.0,
        lambda x: np.float32(x / 127.5 - 1),
        lambda x: x.astype(np.float16),
        lambda x: x.astype(np.int64),
        lambda x: x.astype(np.uint16) * 257,
    ],
)
def test_advised_conversions_give_the_pixels(tmp_path, made):
    """What the refusal of another type advises, followed literally."""
    pixels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    images = made(pixels)
    with pytest.raises(UserError, match="not uint8: they reach from") as refused:
        array_file.pixels(tmp_path, {"images": images})
    advice = str(refused.value).partition("convert them by ")[2]
    converted = eval(advice, {"images": images})  # noqa: S307
    np.testing.assert_array_equal(array_file.pixels(tmp_path, {"images": converted}), pixels)


def test_statistics_and_sets_that_are_the_same(sets, capsys):
    """It is said that the two sides are one; statistics of other features are not taken."""
    found = moments.Statistics(np.zeros(7), np.eye(7), 9, {"features": "inception"})
    Path("known.npz").write_bytes(found.to_bytes())
    result, code = ran(capsys, "known.npz", "known.npz", "--features=classifier")
    assert code == 2 and "leave out --features classifier" in result["error"]
    for options in ([], ["--features=inception"]):
        result, code = ran(capsys, "known.npz", "known.npz", *options)
        assert code == 0 and "REAL and FAKE are the same" in "".join(score.lines(result))
    other = result | {"protocol": result["protocol"] | {"fake_digest": 64 * "0"}}
    assert "the same" not in "".join(score.lines(other))


@pytest.mark.parametrize("size", [(6, 6), (40, 31), (5, 90)])
def test_clean_resizing_is_pillows(size):
    """clean-fid resizes every channel as a float image by Pillow's bicubic, and clips."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.float32)
    image[0] = 255 * (np.arange(size[1]) % 2)[:, None]  # overshoots
    want = [
        np.asarray(Image.fromarray(image[..., c], mode="F").resize((29, 29), Image.BICUBIC))
        for c in range(3)
    ]
    want = np.stack(want, axis=-1).clip(0, 255)
    got = resize.resized(image[None], 29, "clean")[0]
    np.testing.assert_allclose(got, want, atol=2e-4)


def test_the_options_name_every_rule(capsys):
    assert cli.main(["score", "--help"]) == 0
    text = capsys.readouterr().out
    assert f"--resize {{{','.join(resize.RULES)}}}" in text
    assert score.Settings().resize is None and inputs.RESIZE in resize.RULES
