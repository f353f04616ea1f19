"""SN-DCGAN, the small convolutional baseline, with class conditions where there are classes.

The paper's is unconditional (`model.num_classes=1`) and spectrally normalised in D only
(`model.g_spectral_norm=False`). With classes, G's batch norms have a gain and bias per class and D
projects on the class, both as in `models.sngan`. No residual blocks and no place for attention.

References:
  Miyato et al. 2018, "Spectral Normalization for GANs", table 3: 32 pixels (CIFAR-10) and 48
  (STL-10); 64 continues them, and 16 halves them. Radford et al. 2016 for the original.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from biggan_jax.errors import UserError
from biggan_jax.models import checks, conditioning, convolution, heads, layers, resample
from biggan_jax.models.settings import LayerSettings, at_least_float32, of_section

# Multiples of ch: the first feature map, an eighth of the resolution, then each doubling of it.
G_WIDTHS = dict.fromkeys((16, 32, 48, 64), (8, 4, 2, 1))
# Multiples of ch of each pair of convolutions, the second of which halves; then the last 3x3 one.
D_WIDTHS = dict.fromkeys(G_WIDTHS, ((1, 2, 4), 8))
SHRINKAGE = 8
SLOPE = 0.1  # of the leaky ReLUs


class StridedConv(layers.SpectralModule):
    """4x4 convolution of stride 2, or its transpose, optionally spectrally normalised.

    Attributes:
      features: output channels.
      transposed: double the resolution instead of halving it.
    """

    features: int = 0
    transposed: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[N, H, W, C] -> [N, H/2, W/2, features], or [N, 2H, 2W, features]."""
        s = self.settings
        shape = (4, 4, x.shape[-1], self.features)
        kernel = self.param("kernel", s.kernel_init, shape, s.param_dtype)
        kernel = self.normalize(kernel, kernel.reshape(-1, self.features).T, train)
        x, kernel = x.astype(s.dtype), kernel.astype(s.dtype)
        if self.transposed:
            # The textbook's form is to check against; a program of any batch has its own one.
            textbook = not s.fused and isinstance(x.shape[0], int)
            convolve = convolution.dilated if textbook else resample.transposed_conv
            y = convolve(x, kernel)
        else:
            y = resample.conv(x, kernel, stride=2, padding=((1, 1), (1, 1)))
        bias = self.param("bias", nn.initializers.zeros, (self.features,), s.param_dtype)
        return layers.add_bias(y, bias)


class Generator(nn.Module):
    """Linear layer, then three times batch norm, ReLU and a transposed convolution.

    The last batch norm, before the convolution to the image, is unconditional.

    Attributes:
      resolution: pixels, a key of G_WIDTHS.
      ch: channel multiplier; the paper's is 64.
      channels: image channels, 1 or 3.
      num_classes: 1 means unconditional.
      dim_z: length of z.
      rgb_width: output channels of the last convolution, of which the first `channels` are kept.
      settings: what every layer shares.
    """

    resolution: int
    ch: int
    channels: int
    num_classes: int
    dim_z: int
    rgb_width: int | None
    settings: LayerSettings

    @nn.compact
    def __call__(self, z: jax.Array, labels: jax.Array, train: bool = False) -> jax.Array:
        """Makes images; see `biggan.Generator`."""
        s = self.settings
        first, *widths = (self.ch * m for m in G_WIDTHS[self.resolution])
        bottom = self.resolution // SHRINKAGE
        condition = labels if self.num_classes > 1 else z[:, :0]
        linear = layers.Dense(s, s.spectral_norm, bottom * bottom * first, name="linear")
        h = linear(z, train).reshape(-1, bottom, bottom, first)
        for i, width in enumerate(widths):
            # The table has no norm after the linear layer, the authors' code has one.
            norm = conditioning.batch_norm(s, condition, self.num_classes, f"bn_{i}")
            h = nn.relu(norm(h, train))
            h = StridedConv(s, s.spectral_norm, width, transposed=True, name=f"deconv_{i}")(
                h, train
            )
        return heads.image(h, train, s, self.channels, self.rgb_width)

    def attention_widths(self) -> dict[int, int]:
        """{}: attention stands nowhere."""
        return {}


class Discriminator(nn.Module):
    """Pairs of a 3x3 and a halving 4x4 convolution, one more 3x3, then a linear layer over all.

    Widths as in the table; the authors' code doubles them in the 4x4 convolutions already. Linear
    layer and projection see every feature of every pixel, not their sum.

    Attributes:
      resolution: pixels, a key of D_WIDTHS.
      ch: channel multiplier; the paper's is 64.
      num_classes: 1 means unconditional.
      settings: what every layer shares.
    """

    resolution: int
    ch: int
    num_classes: int
    settings: LayerSettings

    @nn.compact
    def __call__(self, images: jax.Array, labels: jax.Array, train: bool = False) -> jax.Array:
        """Judges images; see `biggan.Discriminator`."""
        s = self.settings
        widths, last = D_WIDTHS[self.resolution]
        h = images.astype(s.dtype)

        def activated(kind: type[layers.SpectralModule], multiple: int, name: str) -> jax.Array:
            layer = kind(s, s.spectral_norm, features=self.ch * multiple, name=name)
            return nn.leaky_relu(layer(h, train), SLOPE)

        for i, multiple in enumerate(widths):
            h = activated(layers.Conv, multiple, f"conv_{i}")
            h = activated(StridedConv, multiple, f"down_{i}")
        h = activated(layers.Conv, last, f"conv_{len(widths)}")
        features = at_least_float32(h).reshape(h.shape[0], -1)
        return heads.logits(features, labels, train, s, self.num_classes)

    def attention_widths(self) -> dict[int, int]:
        """{}: attention stands nowhere."""
        return {}


def check(model: Any) -> None:
    """Raises UserError for a `model` section that SN-DCGAN cannot be built from."""
    checks.resolution(model, G_WIDTHS)
    for key in ("g_attention", "d_attention"):
        if tuple(model[key]):
            raise UserError(
                f"model.{key} is {tuple(model[key])}, but dcgan has no place for attention: set "
                f'--config.model.{key}="()"'
            )


def build(
    model: Any, g_settings: LayerSettings, d_settings: LayerSettings
) -> tuple[Generator, Discriminator]:
    """(generator, discriminator) of a checked `model` section; see `models.build`."""
    per_class = dataclasses.replace(g_settings, table_init=nn.initializers.zeros)
    generator = of_section(Generator, model, settings=per_class)
    return generator, of_section(Discriminator, model, settings=d_settings)
