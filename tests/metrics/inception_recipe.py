"""Random weights of the FID Inception by a recipe, so that no file of 95 MB has to be kept."""

import json

import numpy as np

from tests import runs

FIXTURE = runs.ROOT / "tests" / "fixtures" / "f11_inception_features.npz"


def shapes() -> dict[str, tuple[int, ...]]:
    """{key of pt_inception-2015-12-05: shape}."""
    with np.load(FIXTURE) as peer:
        return {k: tuple(v) for k, v in json.loads(str(peer["recipe/shapes_json"])).items()}


def tensors() -> dict[str, np.ndarray]:
    """{key: float32 array}, compared with the first values that the fixture has of each."""
    found, size = {}, shapes()
    with np.load(FIXTURE) as peer:
        seed, firsts = int(peer["recipe/seed"]), peer["recipe/check_first4_per_key"]
        keys = peer["recipe/sorted_keys"].tolist()
    for i, key in enumerate(keys):
        rng = np.random.Generator(np.random.PCG64(seed + i))
        shape = size[key]
        if key.endswith("conv.weight"):
            value = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif key == "fc.weight":
            value = rng.standard_normal(shape) * np.sqrt(2 / 2048)
        elif key.endswith(("bn.weight", "running_var")):
            value = rng.uniform(0.8, 1.2, shape)
        else:
            value = 0.1 * rng.standard_normal(shape)
        found[key] = value.astype(np.float32)
        np.testing.assert_array_equal(found[key].flat[:4], firsts[i])
    return found
