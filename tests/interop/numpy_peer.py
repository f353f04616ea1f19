"""BigGAN-PyTorch's plain G and D in evaluation mode, in NumPy: what every module of it gives.

Written after its BigGAN.py and layers.py, apart from ours: NCHW, float64, nothing fused. Its last
output is compared with that of the peer's own classes (`tests/fixtures`).
"""

import numpy as np

BN_EPS, SN_EPS = 1e-5, 1e-6
relu = lambda x: np.maximum(x, 0)
upsample = lambda x: x.repeat(2, 2).repeat(2, 3)


def pool(x):
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5))


def weights(player: str) -> dict[str, np.ndarray]:
    """A random state_dict of 16 pixels, 8 channels and 3 classes; G with attention at 8 pixels."""
    rng, found = np.random.RandomState(0), {}

    def layer(name, *shape, bias=True):
        weight = found[f"{name}.weight"] = rng.standard_normal(shape)
        u, matrix = rng.standard_normal((1, len(weight))), weight.reshape(len(weight), -1)
        found[f"{name}.u0"] = u @ matrix @ matrix.T  # an iteration that has not ended
        if bias:
            found[f"{name}.bias"] = 0.3 * rng.standard_normal(shape[0])

    def statistics(name):
        found[f"{name}.stored_mean"] = 0.3 * rng.standard_normal(8)
        found[f"{name}.stored_var"] = 0.5 + rng.random_sample(8)

    for i in range(2 if player == "g" else 3):
        name, first = f"blocks.{i}.0", 3 if player == "d" and not i else 8
        layer(f"{name}.conv1", 8, first, 3, 3)
        layer(f"{name}.conv2", 8, 8, 3, 3)
        if player == "g" or i < 2:
            layer(f"{name}.conv_sc", 8, first, 1, 1)
        for norm in ("bn1", "bn2") if player == "g" else ():
            statistics(f"{name}.{norm}")
            layer(f"{name}.{norm}.gain", 8, 6, bias=False)
            layer(f"{name}.{norm}.bias", 8, 6, bias=False)
    if player == "d":
        layer("linear", 1, 8)
        layer("embed", 3, 8, bias=False)
        return found
    layer("linear", 8 * 16, 2)
    found["shared.weight"] = rng.standard_normal((3, 4))
    for part, *shape in (("theta", 1, 8), ("phi", 1, 8), ("g", 4, 8), ("o", 8, 4)):
        layer(f"blocks.0.1.{part}", *shape, 1, 1, bias=False)
    statistics("output_layer.0")
    found |= {"output_layer.0.gain": 1 + 0.3 * rng.standard_normal(8), "blocks.0.1.gamma": 0.7}
    found["output_layer.0.bias"] = 0.3 * rng.standard_normal(8)
    layer("output_layer.2", 3, 8, 3, 3)
    return found


class Peer:
    """A state_dict, and what its modules gave.

    Attributes:
      seen: {module: output}, in the order of the calls.
    """

    def __init__(self, weights: dict[str, np.ndarray], bn_eps: float = BN_EPS):
        self.w = {name: np.asarray(x, np.float64) for name, x in weights.items()}
        self.bn_eps, self.seen = bn_eps, {}

    def keep(self, name, x):
        self.seen[name] = x
        return x

    def weight(self, name):
        """The weight divided by sigma of one iteration from u0, which is not stored."""
        weight = self.w[f"{name}.weight"]
        if f"{name}.u0" not in self.w:
            return weight
        unit = lambda x: x / max(np.linalg.norm(x), SN_EPS)
        matrix = weight.reshape(len(weight), -1)
        v = unit(self.w[f"{name}.u0"][0] @ matrix)
        return weight / (unit(matrix @ v) @ matrix @ v)

    def conv(self, name, x):
        weight = self.weight(name)
        size = weight.shape[-1]
        edge = size // 2
        padded = np.pad(x, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (2, 3))
        y = np.einsum("nihwab,oiab->nohw", windows, weight, optimize=True)
        bias = self.w.get(f"{name}.bias", np.zeros(len(weight)))
        return self.keep(name, y + bias[:, None, None])

    def linear(self, name, x):
        return self.keep(name, x @ self.weight(name).T + self.w.get(f"{name}.bias", 0))

    def embedding(self, name, y):
        return self.keep(name, self.weight(name)[y])

    def norm(self, name, x, gain, bias, eps):
        mean, var = (self.w[f"{name}.stored_{key}"][:, None, None] for key in ("mean", "var"))
        y = (x - mean) / np.sqrt(var + eps)
        return self.keep(name, y * gain[..., None, None] + bias[..., None, None])

    def ccbn(self, name, x, y):
        gain, bias = 1 + self.linear(f"{name}.gain", y), self.linear(f"{name}.bias", y)
        return self.norm(name, x, gain, bias, self.bn_eps)

    def attention(self, name, x):
        n, _, h, w = x.shape
        theta, phi, g = (self.conv(f"{name}.{part}", x) for part in ("theta", "phi", "g"))
        pooled = lambda x: x.reshape(*x.shape[:2], h // 2, 2, w // 2, 2).max((3, 5))
        flat = lambda x: x.reshape(*x.shape[:2], -1)
        logits = np.einsum("ncq,nck->nqk", flat(theta), flat(pooled(phi)))
        beta = np.exp(logits - logits.max(-1, keepdims=True))
        beta /= beta.sum(-1, keepdims=True)
        o = np.einsum("nck,nqk->ncq", flat(pooled(g)), beta).reshape(n, -1, h, w)
        return self.keep(name, self.w[f"{name}.gamma"] * self.conv(f"{name}.o", o) + x)

    def blocks(self):
        return 1 + max(int(k.split(".")[1]) for k in self.w if k.startswith("blocks."))

    def generator(self, z, y):
        """Images [N, 3, H, W] of a G with --G_shared and --hier."""
        parts = np.split(np.asarray(z, np.float64), self.blocks() + 1, 1)
        shared = self.embedding("shared", y)
        h = self.linear("linear", parts[0]).reshape(len(z), -1, 4, 4)
        for i in range(self.blocks()):
            name, x, c = f"blocks.{i}.0", h, np.concatenate([shared, parts[i + 1]], 1)
            h = self.conv(f"{name}.conv1", upsample(relu(self.ccbn(f"{name}.bn1", x, c))))
            h = self.conv(f"{name}.conv2", relu(self.ccbn(f"{name}.bn2", h, c)))
            h = self.keep(name, h + self.conv(f"{name}.conv_sc", upsample(x)))
            if f"blocks.{i}.1.gamma" in self.w:
                h = self.attention(f"blocks.{i}.1", h)
        last = "output_layer.0"
        affine = (self.w[f"{last}.{key}"][None] for key in ("gain", "bias"))
        h = self.keep("activation", relu(self.norm(last, h, *affine, eps=1e-5)))
        return self.keep("output", np.tanh(self.conv("output_layer.2", h)))

    def discriminator(self, x, y, down=(True, True, False, False)):
        """Logits [N, 1]."""
        h = np.asarray(x, np.float64)
        for i, halves in enumerate(down):
            name, x = f"blocks.{i}.0", h
            h = self.conv(f"{name}.conv1", relu(x) if i else x)
            h = self.conv(f"{name}.conv2", relu(h))
            learned = f"{name}.conv_sc.weight" in self.w
            if i:
                x = self.conv(f"{name}.conv_sc", x) if learned else x
            x = pool(x) if halves else x
            if not i:
                x = self.conv(f"{name}.conv_sc", x)
            h = self.keep(name, (pool(h) if halves else h) + x)
        h = relu(h).sum((2, 3))
        projected = (self.embedding("embed", y) * h).sum(1, keepdims=True)
        return self.keep("output", self.linear("linear", h) + projected)

    def save(self, path, **inputs):
        """Writes what was seen, as the hooks of docs/import.md do."""
        np.savez(path, **inputs, **{k: x.astype(np.float32) for k, x in self.seen.items()})
        return path
