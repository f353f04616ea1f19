"""BigGAN-PyTorch's state_dict as variables of our modules, for the parity tests."""

import numpy as np


def unflatten(flat: dict[tuple[str, ...], np.ndarray]) -> dict:
    tree: dict = {}
    for path, value in flat.items():
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = value
    return tree


def _layer(leaf: str, value: np.ndarray, name: str):
    """(collection, leaf name, value) of one tensor of a spectrally normalised layer."""
    if leaf == "u0":
        return "spectral", "u", value[0]
    if leaf == "bias":
        return "params", "bias", value
    if name in ("shared", "embed"):
        return "params", "embedding", value
    if value.ndim == 4:
        return "params", "kernel", value.transpose(2, 3, 1, 0)
    return "params", "kernel", value.T


def _rename(key: str, resolutions: dict[str, str]) -> tuple[str, ...]:
    """blocks.1.0.bn1.gain.weight -> (block_1, bn1, gain, weight)."""
    parts = key.split(".")
    if parts[0] == "blocks":
        block, inner, rest = parts[1], parts[2], parts[3:]
        rest = ["shortcut" if p == "conv_sc" else p for p in rest]
        return (f"block_{block}" if inner == "0" else resolutions[block], *rest)
    if parts[0] == "output_layer":
        return ("bn_out" if parts[1] == "0" else "rgb", *parts[2:])
    return tuple(parts)


def variables(
    state_dict: dict[str, np.ndarray], attention: dict[str, str], bottom: int | None = None
):
    """Our variables {params, spectral, batch_stats} of a peer's G or D.

    Args:
      state_dict: peer key -> array; sv0 is ignored.
      attention: peer block index -> our module name of the attention after it.
      bottom: channels of G's 4x4 input (None for D): rows of the first linear layer are permuted
        from (C, H, W) to (H, W, C).
    """
    out: dict[str, dict] = {"params": {}, "spectral": {}, "batch_stats": {}}
    for key, value in state_dict.items():
        *path, leaf = _rename(key, attention)
        if leaf.startswith("sv"):
            continue
        if path == ["linear"] and bottom:
            lead = value.shape[0] if leaf != "u0" else value.shape[1]
            order = np.arange(lead).reshape(bottom, 4, 4).transpose(1, 2, 0).reshape(-1)
            value = value[:, order] if leaf == "u0" else value[order]
        if leaf in ("stored_mean", "stored_var"):
            out["batch_stats"][(*path, "norm", leaf.removeprefix("stored_"))] = value
        elif leaf in ("gain", "gamma") or (leaf == "bias" and path == ["bn_out"]):
            out["params"][(*path, leaf)] = value
        else:
            collection, name, value = _layer(leaf, value, path[-1])
            out[collection][(*path, name)] = value
    return {collection: unflatten(flat) for collection, flat in out.items()}


def split(npz, prefix: str) -> dict[str, np.ndarray]:
    """The arrays under `prefix/`, without it."""
    return {k.removeprefix(prefix + "/"): npz[k] for k in npz.files if k.startswith(prefix + "/")}
