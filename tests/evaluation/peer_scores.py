"""torch-fidelity and clean-fid on given images: what `biggan score` is compared with.

The numbers in tests/fixtures/peer_scores.npz are those of torch-fidelity 0.4.0 and clean-fid 0.1.35
(PyTorch 2.13, torchvision 0.28, NumPy 2.4, SciPy 1.17, Pillow 13). Where these packages are,

    python -m tests.evaluation.peer_scores

writes them anew. Nothing is downloaded: both get the weights of `inception_recipe`, torch-fidelity
by `feature_extractor_weights_path`, clean-fid by the files that it would have downloaded.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests import runs
from tests.metrics import inception_recipe

FIXTURE = runs.ROOT / "tests" / "fixtures" / "peer_scores.npz"
# Height and width of the pictures that clean-fid resizes to 299 pixels, and whether they are grey.
PICTURES = (
    *((size, size, False) for size in (1, 2, 7, 32, 64, 128, 298, 299, 300, 512)),
    *((8, 90, False), (301, 17, False), (400, 250, False), (640, 481, False)),
    *((28, 28, True), (333, 77, True)),
)
EVERY = 23  # of the rows and columns of what it made, the fixture has one
# Images of both sides: `drawn` has more than the 100 of a subset of KID, so that draws decide.
COUNTS = {"whole": (90, 90), "drawn": (130, 120)}
SIDE, FEATURES = 16, 24
FAR = 24, 48  # images of each side and their pixels, for Inception
MODULE = f"""
import numpy as np
WEIGHTS = np.random.Generator(np.random.PCG64(5)).standard_normal(({SIDE * SIDE * 3}, {FEATURES}))

def embed(images):
    x = images.reshape(len(images), -1) / 255.0 - 0.5
    return np.maximum(x @ WEIGHTS / 8, 0)
"""


def picture(i: int) -> np.ndarray:
    """uint8 [H, W, 3] of `PICTURES`: noise, and stripes that a cubic overshoots."""
    height, width, grey = PICTURES[i]
    rng = np.random.Generator(np.random.PCG64(i))
    out = rng.integers(0, 256, (height, width, 1 if grey else 3), np.uint8)
    out[: height // 3] = 255 * (np.arange(width) % 2)[:, None]
    return np.repeat(out, 3, axis=2) if grey else out


def sides(seed: int, counts: tuple[int, int], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sets uint8 [N, size, size, 3]; the second has fewer kinds of images, and a tint."""
    rng = np.random.Generator(np.random.PCG64(seed))
    kinds = rng.integers(40, 216, (12, 4, 4, 3))
    found = []
    for count, known, tint in zip(counts, (12, 7), (0, 9), strict=True):
        coarse = kinds[rng.integers(0, known, count)] + rng.integers(-30, 31, (count, 4, 4, 3))
        images = coarse.repeat(size // 4, axis=1).repeat(size // 4, axis=2) + tint
        images = images + rng.integers(-9, 10, images.shape)
        found.append(images.clip(0, 255).astype(np.uint8))
    return found[0], found[1]


def features(images: np.ndarray) -> np.ndarray:
    """What `MODULE` computes, as `biggan score` keeps it: float32 [N, FEATURES]."""
    names: dict[str, Any] = {}
    exec(MODULE, names)
    return names["embed"](images).astype(np.float32)


def order(count: int) -> np.ndarray:
    """The order in which `biggan score` reads the images of FAKE, which decides draws alone."""
    return np.random.default_rng(0).permutation(count)


def of_features() -> dict[str, float]:
    """The scores of both peers of the features of `COUNTS`, as float64."""
    found = {}
    for name, counts in COUNTS.items():
        real, fake = (features(x).astype(np.float64) for x in sides(7, counts, SIDE))
        found |= {f"{name}/{key}": x for key, x in _scores(real, fake[order(len(fake))]).items()}
    return found


def _scores(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """Of float features [N, d] and [M, d], with as many draws of KID as `score` takes."""
    import torch
    from cleanfid import fid as clean
    from torch_fidelity import metric_fid, metric_kid, metric_prc

    both = torch.from_numpy(real), torch.from_numpy(fake)
    moments = [metric_fid.fid_features_to_statistics(side) for side in both]
    subsets = {"kid_subsets": 100, "kid_subset_size": min(100, len(real), len(fake))}
    subsets |= {"rng_seed": 2020, "verbose": False}
    kid = metric_kid.kid_features_to_metric(*both, **subsets)
    precision, recall = metric_prc.calculate_precision_recall_full(both[1], both[0])
    found = {
        "torch_fidelity/fid": metric_fid.fid_statistics_to_metric(*moments, False)[
            "frechet_inception_distance"
        ],
        "torch_fidelity/kid": kid["kernel_inception_distance_mean"],
        "torch_fidelity/precision": precision,
        "torch_fidelity/recall": recall,
        "clean_fid/fid": clean.fid_from_feats(real, fake),
    }
    if len(real) == len(fake):  # its draws are otherwise of a generator that nothing seeds
        found["clean_fid/kid"] = clean.kernel_distance(real, fake, num_subsets=1)
    return {name: float(np.real(x)) for name, x in found.items()}


def resized() -> dict[str, np.ndarray]:
    """Every 23rd row and column of `PICTURES` as clean-fid resizes them, float32 [13, 13, 3]."""
    from cleanfid import resize

    resizer = resize.build_resizer("clean")
    made = {f"resized/{i}": resizer(picture(i)) for i in range(len(PICTURES))}
    return {name: x[::EVERY, ::EVERY].astype(np.float32) for name, x in made.items()}


def far() -> tuple[np.ndarray, np.ndarray]:
    """The images of `FAR`."""
    return sides(11, (FAR[0],) * 2, FAR[1])


def write_folders(folder: Path) -> tuple[str, str]:
    """The images of `FAR` as two folders of PNG files."""
    found = []
    for name, images in zip(("real", "fake"), far(), strict=True):
        (folder / name).mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(folder / name / f"{i:03}.png")
        found.append(str(folder / name))
    return found[0], found[1]


def end_to_end(folder: Path) -> dict[str, Any]:
    """The peers' scores of two folders of PNG files, each by its own images and network."""
    import torch
    import torch_fidelity
    from cleanfid import fid as clean

    real, fake = write_folders(folder)
    weights = folder / "checkpoints" / "pt_inception-2015-12-05-6726825d.pth"
    weights.parent.mkdir()
    recipe = {k: torch.from_numpy(x) for k, x in inception_recipe.tensors().items()}
    torch.save(recipe, weights)
    settings = {"cuda": False, "fid": True, "kid": True, "prc": True, "verbose": False}
    settings |= {"kid_subsets": 1, "kid_subset_size": FAR[0], "cache": False, "batch_size": 8}
    settings |= {"feature_extractor_weights_path": str(weights), "save_cpu_ram": True}
    # Its precision and recall are otherwise of VGG-16.
    settings |= {"feature_extractor": "inception-v3-compat", "feature_layer_prc": "2048"}
    scores = torch_fidelity.calculate_metrics(input1=fake, input2=real, **settings)
    names = {"fid": "frechet_inception_distance", "kid": "kernel_inception_distance_mean"}
    names |= {"precision": "precision", "recall": "recall"}
    found = {f"tf1/torch_fidelity/{name}": scores[key] for name, key in names.items()}
    for rule, mode in (("pytorch_fid", "legacy_pytorch"), ("clean", "clean")):
        network = _of_clean_fid(mode, folder)
        read = {"num_workers": 0, "device": torch.device("cpu"), "mode": mode, "verbose": False}
        made = [clean.get_folder_features(side, network, batch_size=8, **read)
                for side in (real, fake)]  # fmt: skip
        wide = [x.astype(np.float64) for x in made]
        found |= {f"{rule}/{key}": x for key, x in _scores(*wide).items()}
        found[f"{rule}/features"] = made[0][:2]
        with _seeded():
            found[f"{rule}/clean_fid/kid"] = clean.kernel_distance(*made, num_subsets=1)
        found[f"{rule}/clean_fid/fid"] = float(np.real(clean.fid_from_feats(*made)))
    return found


def _of_clean_fid(mode: str, folder: Path) -> Any:
    """clean-fid's own network of a mode; the TorchScript file of `clean` is made of the other."""
    import torch
    from cleanfid import features as clean
    from cleanfid.inception_pytorch import InceptionV3
    from cleanfid.inception_torchscript import InceptionV3W

    torch.hub.set_dir(str(folder))  # where the file of weights lies that it would download
    if mode == "legacy_pytorch":
        return clean.build_feature_extractor(mode, torch.device("cpu"), use_dataparallel=False)

    class Base(torch.nn.Module):
        def __init__(self, layers):
            super().__init__()
            self.layers = layers

        def forward(self, x):
            return self.layers(x)

    network = InceptionV3(output_blocks=[3], resize_input=False, normalize_input=False).eval()
    layers = torch.nn.Sequential(*network.blocks)
    with torch.no_grad():
        traced = torch.jit.trace(Base(layers), torch.zeros(2, 3, 299, 299))
    traced.save(str(folder / "inception-2015-12-05.pt"))
    return InceptionV3W(str(folder), download=False).eval()


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """NumPy's global generator, which clean-fid draws from, as it was before."""
    state = np.random.get_state()
    np.random.seed(0)
    yield
    np.random.set_state(state)


def main() -> None:
    """Writes the fixture."""
    with tempfile.TemporaryDirectory() as folder:
        found = of_features() | resized() | end_to_end(Path(folder))
    np.savez_compressed(FIXTURE, **{name: np.asarray(x) for name, x in found.items()})
    print(f"{FIXTURE}: {os.path.getsize(FIXTURE):,} bytes")


if __name__ == "__main__":
    main()
