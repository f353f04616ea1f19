"""How every family ends: features to an image in G, features to a logit in D."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from biggan_jax.models import layers, place_sums
from biggan_jax.models.batch_groups import manual_axes, whole_batch
from biggan_jax.models.san import NormalizedLinear, Split
from biggan_jax.models.settings import LayerSettings, at_least_float32


def image(
    h: jax.Array, train: bool, settings: LayerSettings, channels: int, rgb_width: int | None
) -> jax.Array:
    """Batch norm, ReLU, 3x3 convolution and tanh, inside a compact method of G.

    Args:
      h: features [N, H, W, C].
      train: whether this is a training forward.
      settings: what every layer of the model shares.
      channels: of the image.
      rgb_width: output channels of the convolution, of which the first `channels` are kept (None:
        no others).

    Returns:
      Images [N, H, W, channels] in [-1, 1], at least float32.
    """
    h = nn.relu(layers.AffineBatchNorm(settings, name="bn_out")(h, train))
    width = rgb_width or channels
    h = layers.Conv(settings, settings.spectral_norm, width, name="rgb")(h, train)
    return jnp.tanh(at_least_float32(h[..., :channels]))


def projection(
    h: jax.Array,
    labels: jax.Array,
    train: bool,
    settings: LayerSettings,
    num_classes: int,
    use_bias: bool = True,
) -> jax.Array | Split:
    """ReLU, sum over the pixels, then `logits`; inside a compact method of D.

    Args:
      h: features [N, H, W, C].
      labels, train, settings, num_classes, use_bias: as `logits` takes them.

    Returns:
      Logits [N], at least float32; with `d_head` san, a training forward gives their two halves.

    References:
      Miyato and Koyama 2018, "cGANs with Projection Discriminator", figure 1d.
    """
    # Sum, not mean, over the pixels, in float32: the head decides the scale of the loss.
    features = place_sums.by_example(at_least_float32(nn.relu(h)))
    return logits(features, labels, train, settings, num_classes, use_bias)


def logits(
    features: jax.Array,
    labels: jax.Array,
    train: bool,
    settings: LayerSettings,
    num_classes: int,
    use_bias: bool = True,
) -> jax.Array | Split:
    """Dropout, where there is one, linear layer (or SAN's) plus projection on the class.

    Inside a compact method of D.

    Args:
      features: [N, F], at least float32.
      labels: class ids [N].
      train: whether this is a training forward.
      settings: what every layer of the model shares.
      num_classes: 1 means unconditional: no projection.
      use_bias: of the linear layer; SAN's has none.

    Returns:
      [N], in the dtype of the features; with `d_head` san, a training forward gives their two
      halves.
    """
    if settings.d_dropout:
        features = Dropout(settings.d_dropout, name="dropout")(features, train)
    if settings.d_head == "san":
        return _split_logits(features, labels, train, settings, num_classes)
    sn = settings.spectral_norm
    linear = layers.Dense(
        settings,
        sn,
        1,
        use_bias,
        dtype=features.dtype,
        precision=lax.Precision.HIGHEST,
        name="linear",
    )
    out = linear(features, train)[:, 0]
    if num_classes > 1:
        embed = layers.Embed(settings, sn, num_classes, features.shape[-1], name="embed")
        out = out + (embed(labels, train).astype(features.dtype) * features).sum(-1)
    return out


def _split_logits(
    features: jax.Array,
    labels: jax.Array,
    train: bool,
    settings: LayerSettings,
    num_classes: int,
) -> jax.Array | Split:
    """`logits` of SAN: the direction has length 1, and no weight of it a spectral norm."""
    row = None
    if num_classes > 1:
        embed = layers.Embed(settings, False, num_classes, features.shape[-1], name="embed")
        row = embed(labels, train).astype(features.dtype)
    return NormalizedLinear(settings, name="linear")(features, row, train)


def features(
    discriminator: nn.Module, variables: dict, images: jax.Array, labels: jax.Array
) -> jax.Array:
    """What the linear layer of `logits` is given, in an eval forward of D.

    Args:
      discriminator: unbound.
      variables: its collections.
      images: [N, H, W, C] in [-1, 1].
      labels: class ids [N].

    Returns:
      Features [N, F], at least float32.
    """
    seen = []

    def watch(call, args, kwargs, context):
        if context.module.name == "linear" and context.method_name == "__call__":
            seen.append(args[0])
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        discriminator.apply(variables, images, labels, train=False)
    (found,) = seen
    return found


class Dropout(nn.Module):
    """Dropout of features where the forward is given a key `dropout`, and nothing elsewhere.

    Differs from `nn.Dropout` because inside `jax.shard_map` each device drops its own rows of the
    one mask of the whole batch: the same ones on any number of devices.

    Attributes:
      rate: share of the features that are set to 0, in [0, 1); the others are divided by 1 - rate.

    References:
      Srivastava et al. 2014; Brock et al. 2019, section 4.2: on the features of D's last layer.
    """

    rate: float

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """Drops or keeps each of the features [N, F] of every example by itself.

        Args:
          features: at least float32.
          train: as every layer takes it, but the key decides: the further forwards of an update,
            which store nothing and so are none of training, drop features as well.
        """
        if not self.has_rng("dropout"):
            return features
        examples, axes = len(features), manual_axes()
        shape = (whole_batch(examples), features.shape[1])
        keep = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.rate, shape)
        if axes:
            first = lax.axis_index(axes) * examples
            keep = lax.dynamic_slice_in_dim(keep, first, examples)
        return jnp.where(keep, features / (1 - self.rate), jnp.zeros_like(features))
