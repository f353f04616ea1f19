"""`biggan score` against torch-fidelity and clean-fid on the same images (see `peer_scores`)."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from biggan_jax import cli
from biggan_jax.metrics import resize
from tests.evaluation import peer_scores
from tests.metrics import inception_recipe

PEERS = ("torch_fidelity", "clean_fid")


@pytest.fixture(scope="module")
def peers():
    with np.load(peer_scores.FIXTURE) as file:
        return dict(file)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with the module of the random-weight features."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "random_weights.py").write_text(peer_scores.MODULE)
    return tmp_path


def scored(capsys, *argv):
    """The scores of a command."""
    capsys.readouterr()
    assert cli.main(["--json", "score", *map(str, argv), "--cache=cache"]) == 0
    return json.loads(capsys.readouterr().out)["scores"]


def assert_equal(got, peers, name, rel):
    """Scores are those of every peer that has them."""
    found = [
        (score, value, float(peers[f"{name}/{peer}/{score}"]))
        for peer in PEERS
        for score, value in got.items()
        if f"{name}/{peer}/{score}" in peers
    ]
    assert {score for score, _, _ in found} == {"fid", "kid", "precision", "recall"}
    for score, value, want in found:
        assert value == pytest.approx(want, rel=rel), (name, score)


@pytest.mark.parametrize("name", peer_scores.COUNTS)
def test_scores_of_random_weight_features(name, folder, peers, capsys):
    """Of arrays, and of folders, to 1e-6; `drawn` with torch-fidelity's own subsets of KID."""
    real, fake = peer_scores.sides(7, peer_scores.COUNTS[name], peer_scores.SIDE)
    for side, images in (("real", real), ("fake", fake)):
        np.savez(f"{side}.npz", images=images)
        (folder / side).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(folder / side / f"{i:03}.png")
    features = "--features=random_weights:embed"
    for argv in (("real.npz", "fake.npz"), ("real", "fake")):
        assert_equal(scored(capsys, *argv, features), peers, name, 1e-6)


@pytest.mark.parametrize(
    ("save", "mean"), [(np.savez_compressed, np.float32), (np.savez, np.float64)]
)
def test_statistics_files_of_the_peers(save, mean, folder, peers, capsys):
    """REAL as clean-fid's make_custom_stats keeps it, and as pytorch-fid's --save-stats does."""
    real, fake = peer_scores.sides(7, peer_scores.COUNTS["whole"], peer_scores.SIDE)
    x = peer_scores.features(real)
    save("real.npz", mu=x.mean(axis=0, dtype=mean), sigma=np.cov(x, rowvar=False))
    np.savez("fake.npz", images=fake)
    found = scored(capsys, "real.npz", "fake.npz", "--features=random_weights:embed")
    assert found == {"fid": pytest.approx(float(peers["whole/clean_fid/fid"]), rel=1e-6)}


def test_precision_and_recall_are_not_swapped(folder, capsys):
    """FAKE has one of the two modes of REAL: all of it is real, and half of REAL is not covered."""
    levels = np.concatenate([np.arange(10, 30), np.arange(200, 220)]).astype(np.uint8)
    real = np.broadcast_to(levels[:, None, None, None], (40, 8, 8, 1))
    np.savez("real.npz", images=real)
    np.savez("fake.npz", images=real[:20])
    (folder / "level.py").write_text("def level(x):\n    return x.mean((1, 2))\n")
    found = scored(capsys, "real.npz", "fake.npz", "--features=level:level")
    assert (found["precision"], found["recall"]) == (1, 0.5)
    found = scored(capsys, "fake.npz", "real.npz", "--features=level:level")
    assert (found["precision"], found["recall"]) == (0.5, 1)


@pytest.mark.parametrize("i", range(len(peer_scores.PICTURES)))
def test_clean_fids_resizer(i, peers):
    image = peer_scores.picture(i).astype(np.float32)
    got = np.asarray(resize.resized(image[None], 299, "clean"))[0]
    want = peers[f"resized/{i}"]
    np.testing.assert_allclose(got[:: peer_scores.EVERY, :: peer_scores.EVERY], want, atol=1e-4)


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    """The recipe's weights, imported by the command."""
    folder = tmp_path_factory.mktemp("inception")
    save_file(inception_recipe.tensors(), folder / "recipe.safetensors")
    argv = [f"{folder / 'recipe.safetensors'}", f"--out={folder / 'out'}", "--any-weights"]
    assert cli.main(["import", "--format=inception-fid", *argv]) == 0
    return folder / "out"


@pytest.mark.full
@pytest.mark.parametrize("rule", resize.RULES)
def test_folders_by_inception(rule, inception, peers, folder, capsys):
    """Each program with its own pipeline: 24 images a side, the features of 2,048 dimensions."""
    both = peer_scores.write_folders(folder / "images")
    options = (f"--inception={inception}", f"--resize={rule}", "--features=inception")
    assert_equal(scored(capsys, *both, *options), peers, rule, 1e-3)


@pytest.mark.full
def test_the_fixture_is_what_the_peers_say(peers, tmp_path):
    pytest.importorskip("torch_fidelity")
    pytest.importorskip("cleanfid")
    live = peer_scores.of_features() | peer_scores.resized() | peer_scores.end_to_end(tmp_path)
    assert live.keys() == peers.keys()
    for name, value in live.items():
        exact = "resized" in name or name.split("/")[0] in peer_scores.COUNTS
        rtol = 1e-9 if exact else 1e-3
        np.testing.assert_allclose(value, peers[name], rtol=rtol, atol=1e-6, err_msg=name)
