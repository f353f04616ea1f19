"""What a layer's output tells of the reason why it differs, one fault at a time."""

import copy
import dataclasses

import jax
import numpy as np
import pytest

from biggan_jax.interop import causes, views
from biggan_jax.models import layers
from biggan_jax.models.attention import SelfAttention
from biggan_jax.models.batch_norm import BatchNorm
from biggan_jax.models.biggan import DiscriminatorBlock
from biggan_jax.models.settings import LayerSettings

RNG = np.random.RandomState(0)
X = RNG.standard_normal((3, 6, 6, 4)).astype(np.float32)
CONDITION = RNG.standard_normal((3, 5)).astype(np.float32)
GAIN, BIAS = (RNG.standard_normal((3, 4)).astype(np.float32) for _ in range(2))
S = LayerSettings()


@dataclasses.dataclass
class Case:
    """A layer of ours with random variables, and what it gives."""

    module: object
    given: tuple
    path: str = "block_0/conv1"

    def __post_init__(self):
        shapes = jax.eval_shape(
            lambda key: self.module.init(key, *self.given, False), jax.random.key(0)
        )
        draw = lambda x: np.asarray(RNG.standard_normal(x.shape), np.float32)
        self.variables = jax.tree.map(draw, dict(shapes))
        if "batch_stats" in self.variables:
            statistics = self.variables["batch_stats"]
            statistics["var"] = np.abs(statistics["var"]) + np.float32(0.1)
        self.ours = self.out()

    def out(self, module=None, given=None, train=False, **params):
        variables = self.variables | {"params": self.variables.get("params", {}) | params}
        module = module or self.module
        return np.float64(causes.applied(module, variables, given or self.given, train))

    def likely(self, theirs, order=views.NHWC, **more):
        view = views.View(views.AS_IT_IS, order, self.ours.shape)
        more = {"inside": False, "shared_dim": 2, "tolerance": 2e-5} | more
        given = (self.module, self.variables, self.given, self.ours, np.float64(theirs), False)
        return causes.likely(causes.Difference(self.path, view, *given, **more))


@pytest.fixture(scope="module")
def conv():
    return Case(layers.Conv(S, features=4), (X,))


@pytest.fixture(scope="module")
def norm():
    return Case(BatchNorm(S), (X, GAIN, BIAS), "block_0/bn1")


def test_nothing_fits(conv, norm):
    noise = RNG.standard_normal(conv.ours.shape)
    assert conv.likely(conv.ours + noise) is None
    assert norm.likely(norm.ours + noise) is None
    assert conv.likely(noise, inside=True).startswith("the recorded layers inside it agree")


def test_our_own_numbers_are_broken(conv):
    broken = copy.copy(conv)
    broken.ours = np.full_like(conv.ours, np.nan)
    assert broken.likely(conv.ours).startswith("ours is NaN or infinite")


def test_order_of_what_was_recorded(conv):
    y = conv.ours
    for theirs, words in (
        (np.maximum(y, 0), "behind a ReLU"),
        (y.swapaxes(1, 2), "height and width are exchanged"),
        (y[:, ::-1], "reverse order of rows"),
        (y[..., [2, 0, 3, 1]], "the channels are in another order"),
        (y[[1, 2, 0]], "the samples are in another order"),
    ):
        assert words in conv.likely(theirs), words
    one = np.where(np.arange(4) == 2, y + RNG.standard_normal(y.shape), y)
    assert conv.likely(one) == "1 of 4 channels differ: 2"


def test_weights_of_a_convolution(conv):
    kernel, bias = (conv.variables["params"][name] for name in ("kernel", "bias"))
    for theirs, words in (
        (conv.out(bias=np.zeros_like(bias)), "it has no bias there"),
        (conv.out(bias=bias + 1), "another bias"),
        (conv.out(conv.module.clone(spectral_norm=False)), "not divided by its spectral norm"),
        (conv.out(kernel=np.copy(kernel.swapaxes(0, 1))), "its kernel has height and width"),
        (conv.out(kernel=np.copy(kernel[::-1, ::-1])), "turned by 180 degrees"),
        (conv.out(kernel=np.copy(kernel.swapaxes(2, 3))), "inputs and outputs exchanged"),
        (1.25 * (conv.ours - bias) + bias, "its weight is 1.25 times ours: another spectral norm"),
    ):
        assert words in conv.likely(theirs), words


@pytest.mark.full
def test_the_order_of_the_condition():
    gain = Case(layers.Dense(S, features=4, use_bias=False), (CONDITION,), "block_0/bn1/gain")
    rolled = np.concatenate([CONDITION[:, 2:], CONDITION[:, :2]], 1)
    assert "model.cond_order" in gain.likely(gain.out(given=(rolled,)), views.PLAIN)


@pytest.mark.full
def test_the_order_of_the_first_linear_layer():
    linear = Case(layers.Dense(S, features=32), (CONDITION,), "linear")
    chw = linear.ours.reshape(3, 16, 2).swapaxes(1, 2).reshape(3, 32)
    assert "(C, H, W) order there" in linear.likely(chw, views.HWC)
    hwc = linear.ours.reshape(3, 2, 16).swapaxes(1, 2).reshape(3, 32)
    assert "(H, W, C) order there" in linear.likely(hwc, views.CHW)


@pytest.mark.full
def test_stored_vectors_of_a_spectral_norm():
    settings = dataclasses.replace(S, sn_eval="stored")
    linear = Case(layers.Dense(settings, features=4), (CONDITION,))
    iterate = linear.module.clone(settings=S)
    assert "model.sn_eval=iterate" in linear.likely(linear.out(iterate), views.PLAIN)


def test_batch_norm(norm):
    other = dataclasses.replace(S, bn_eps=0.02)
    statistics = norm.variables["batch_stats"]
    shifted = {"batch_stats": statistics | {"mean": statistics["mean"] + 1}}
    moved = causes.applied(norm.module, shifted, norm.given, False)
    for theirs, words in (
        (norm.out(norm.module.clone(settings=other)), "its epsilon is 0.02 there and 1e-05 here"),
        (norm.out(train=True), "the statistics of the batch"),
        (norm.out(given=(X, np.ones_like(GAIN), 0 * BIAS)), "neither gain nor bias"),
        (norm.out(given=(X, GAIN - 1, BIAS)), "its gain is not 1 +"),
        (norm.out(given=(X, GAIN, 0 * BIAS)), "it has no bias"),
        (norm.out(given=(X, 1 + BIAS, GAIN - 1)), "gain and bias are exchanged"),
        (moved, "other running statistics"),
    ):
        assert words in norm.likely(theirs), words


@pytest.mark.full
def test_blocks_and_the_output():
    attention = Case(SelfAttention(S), (np.tile(X, 2),), "attention_6")
    gamma = attention.variables["params"]["gamma"]
    theirs = attention.out(gamma=np.float32(2 * gamma))
    assert f"its gamma is {2 * gamma:.4g}, ours {gamma:.4g}" in attention.likely(theirs)
    block = Case(DiscriminatorBlock(4, False, False, S), (X,), "block_1")
    assert "model.d_skip=activated" in block.likely(block.out(block.module.clone(skip="activated")))
    assert block.likely(block.ours - X) == "it has no skip there"
    image = Case(layers.Conv(S, features=3), (X,), "output")
    image.ours, image.module = np.tanh(image.ours), None
    assert "in [0, 1], ours in [-1, 1]" in image.likely((image.ours + 1) / 2)
    assert "before the tanh" in image.likely(np.arctanh(image.ours))
