"""The peers' weights as variables of our modules, for the parity tests."""

from collections.abc import Callable

import jax
import numpy as np

from tests.models.test_layers import cotangent

nhwc = lambda x: x.transpose(0, 2, 3, 1)


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


def _rename(key: str, attention: dict[str, str], deep_d: bool) -> tuple[str, ...]:
    """blocks.1.0.bn1.gain.weight -> (block_1, bn1, gain, weight)."""
    parts = key.split(".")
    if parts[0] == "blocks":
        block, inner, rest = parts[1], parts[2], parts[3:]
        rest = ["shortcut" if p == "conv_sc" else p for p in rest]
        depth = 2 if deep_d else 1  # BigGAN-deep's D numbers its blocks within a stage
        if int(inner) >= depth:
            return (attention[block], *rest)
        return (f"block_{depth * int(block) + int(inner)}", *rest)
    if parts[0] == "output_layer":
        return ("bn_out" if parts[1] == "0" else "rgb", *parts[2:])
    return tuple("stem" if p == "input_conv" else p for p in parts)


def variables(
    state_dict: dict[str, np.ndarray],
    attention: dict[str, str],
    bottom: int | None = None,
    *,
    tables: bool = False,
    deep_d: bool = False,
):
    """Our variables {params, spectral, batch_stats} of BigGAN-PyTorch's G or D.

    Args:
      state_dict: peer key -> array; sv0 is ignored.
      attention: peer block (deep D: stage) index -> our module name of the attention after it.
      bottom: channels of G's 4x4 input (None for D): rows of the first linear layer are permuted
        from (C, H, W) to (H, W, C).
      tables: the batch norms' gains and biases are lookup tables (no --G_shared).
      deep_d: a discriminator of BigGANdeep.py, with blocks.STAGE.BLOCK.
    """
    out: dict[str, dict] = {"params": {}, "spectral": {}, "batch_stats": {}}
    for key, value in state_dict.items():
        *path, leaf = _rename(key, attention, deep_d)
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
            is_table = tables and path[-1] in ("gain", "bias")
            collection, name, value = _layer(leaf, value, "embed" if is_table else path[-1])
            out[collection][(*path, name)] = value
    return {collection: unflatten(flat) for collection, flat in out.items()}


def pretrained_variables(state_dict: dict[str, np.ndarray], attention: int, name: str, row: int):
    """Our variables of pytorch-pretrained-BigGAN's generator, with stored u and v.

    Args:
      state_dict: peer key -> array.
      attention: index of the attention in its list of layers.
      name: our module name of it.
      row: which of the 51 rows of batch-norm statistics.
    """
    out: dict[str, dict] = {"params": {}, "spectral": {}, "batch_stats": {}}
    modules = {"gen_z": "linear", "bn": "bn_out", "conv_to_rgb": "rgb"}
    for key, value in state_dict.items():
        if key == "embeddings.weight":  # a linear map of one-hot vectors: a lookup table
            out["params"]["shared", "embedding"] = value.T
            continue
        parts = key.removeprefix("generator.").split(".")
        path, leaf = [modules.get(parts[0], parts[0]), *parts[1:-1]], parts[-1]
        if path[0] == "layers":
            i = int(path[1])
            path = [name if i == attention else f"block_{i - (i > attention)}", *path[2:]]
        rename = {"scale": "gain", "offset": "bias"}
        path = [rename.get(p, p.removeprefix("snconv1x1_").replace("o_conv", "o")) for p in path]
        path = [f"{p[:-2]}{int(p[-1]) + 1}" if p[:-1] in ("bn_", "conv_") else p for p in path]
        if leaf.startswith("running_"):
            stats = leaf.removeprefix("running_").removesuffix("s")
            out["batch_stats"][(*path, "norm", stats)] = value[row]
        elif leaf in ("weight_u", "weight_v"):
            shape = state_dict[key[: -len("u")] + "orig"].shape
            if leaf == "weight_v" and len(shape) == 4:  # (in, h, w) there, (h, w, in) here
                value = value.reshape(shape[1:]).transpose(1, 2, 0).reshape(-1)
            out["spectral"][(*path, leaf[-1])] = value
        elif leaf == "gamma":
            out["params"][(*path, leaf)] = value[0]
        elif leaf == "weight":  # the last batch norm's
            out["params"][(*path, "gain")] = value
        else:
            _, ours, value = _layer(leaf, value, path[-1])
            out["params"][(*path, ours)] = value
    return {collection: unflatten(flat) for collection, flat in out.items()}


def split(npz, prefix: str) -> dict[str, np.ndarray]:
    """The arrays under `prefix/`, without it."""
    return {k.removeprefix(prefix + "/"): npz[k] for k in npz.files if k.startswith(prefix + "/")}


def check_generator(f, generator, to_ours: Callable[[dict], dict]) -> None:
    """Eval and train forward, statistics, u and gradients of one G fixture.

    Args:
      f: the open fixture.
      generator: our unbound module.
      to_ours: peer keys and arrays -> our variables.
    """
    ours = to_ours(split(f, "sd"))
    z, labels = f["in/z"], f["in/y"].astype(np.int32)
    r = nhwc(cotangent(f["train/out"].shape))

    def loss(params):
        out, new = generator.apply(
            ours | {"params": params}, z, labels, True, mutable=["spectral", "batch_stats"]
        )
        return (out * r).sum(), (out, new)

    @jax.jit
    def both(params):
        return generator.apply(ours, z, labels), jax.grad(loss, has_aux=True)(params)

    out, (grads, (train_out, new)) = both(ours["params"])
    np.testing.assert_allclose(out, nhwc(f["eval/out"]), atol=2e-5)
    np.testing.assert_allclose(train_out, nhwc(f["train/out"]), atol=2e-5)
    _check_buffers(f, new, to_ours)
    _check_gradients(f, grads, to_ours)


def check_discriminator(f, discriminator, to_ours: Callable[[dict], dict]) -> None:
    """The same of one D fixture, and the gradient of its input."""
    ours = to_ours(split(f, "sd"))
    x, labels = nhwc(f["in/x"]), f["in/y"].astype(np.int32)
    ours = {k: ours[k] for k in ("params", "spectral")}
    r = cotangent(f["train/out"].shape)[:, 0]

    def loss(params, x):
        out, new = discriminator.apply(
            ours | {"params": params}, x, labels, True, mutable=["spectral"]
        )
        return (out * r).sum(), (out, new)

    @jax.jit
    def both(params, x):
        gradient = jax.grad(loss, argnums=(0, 1), has_aux=True)
        return discriminator.apply(ours, x, labels), gradient(params, x)

    out, ((grads, dx), (train_out, new)) = both(ours["params"], x)
    np.testing.assert_allclose(out, f["eval/out"][:, 0], atol=2e-5)
    np.testing.assert_allclose(train_out, f["train/out"][:, 0], atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(dx), f["train/dx_norm"], rtol=1e-4)
    _check_buffers(f, new, to_ours)
    _check_gradients(f, grads, to_ours)


def _check_buffers(f, new, to_ours):
    expected = to_ours(split(f, "train/after"))
    for collection, tree in new.items():
        same = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5)
        jax.tree.map(same, dict(tree), expected[collection])


def _check_gradients(f, grads, to_ours):
    """Every gradient that the fixture holds whole; those of biases before a norm are noise."""
    small = jax.tree.leaves_with_path(to_ours(split(f, "train/grad"))["params"])
    ours = dict(jax.tree.leaves_with_path(grads))
    assert small
    # Both sides are float32. At 128 pixels our own float64 gradients differ by 1.1e-4 from the
    # recorded ones, and our float32 ones by 0.9e-4 from our float64 ones.
    tolerance = 2e-4 if f["meta/resolution"] >= 128 else 1e-4
    for path, gradient in ours.items():  # nothing is dead
        assert path[-1].key == "bias" or np.linalg.norm(gradient) > 1e-6, path
    for path, expected in small:
        size = np.linalg.norm(expected)
        if size < 1e-2:  # a bias before a norm: zero in exact arithmetic, rounding in float32
            assert np.linalg.norm(ours[path]) < 1e-2, path
        else:
            assert np.linalg.norm(ours[path] - expected) / size < tolerance, path
