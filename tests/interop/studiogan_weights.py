"""Random weights of a given state_dict of PyTorch-StudioGAN, the same wherever they are drawn."""

import numpy as np


def weights(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """{key: float32} with statistics, u and v of no network that was trained or initialised."""
    random = np.random.RandomState(seed)
    found = {key: random.standard_normal(shapes[key]) for key in sorted(shapes)}
    for key, value in found.items():
        if key.endswith("running_var"):
            value[...] = 0.5 + np.abs(value)
        elif key.endswith(("running_mean", ".bias")):
            value *= 0.3
        elif key.endswith(("sigma", "bn4.weight")):
            value[...] = 1 + 0.3 * value
        elif key.endswith("weight_orig"):
            # u W v of any two vectors is near 0: these are of an iteration that has not ended.
            matrix = value.reshape(len(value), -1)
            u, v = (found[key.replace("orig", name)] for name in "uv")
            v[...] = u @ matrix
            v /= np.linalg.norm(v)
            u[...] = matrix @ v + 0.3 * np.linalg.norm(matrix @ v) * u / np.linalg.norm(u)
            u /= np.linalg.norm(u)
    return {key: np.asarray(value, np.float32) for key, value in found.items()}


def inputs(resolution: int, dim_z: int, classes: int) -> dict[str, np.ndarray]:
    """Two of z, labels y and images x [N, 3, H, W]."""
    random = np.random.RandomState(0)
    z = random.standard_normal((2, dim_z)).astype(np.float32)
    x = random.uniform(-1, 1, (2, 3, resolution, resolution)).astype(np.float32)
    return {"z": z, "y": random.choice(classes, 2, replace=False), "x": x}
