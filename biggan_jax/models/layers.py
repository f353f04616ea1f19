"""Spectrally normalised layers and conditional batch norm.

Both ready-made spectral norms of Flax are unfit here: `nnx.SpectralNorm` overwrites the weights
with the normalised ones, `linen.SpectralNorm` stores an already normalised kernel at init. These
keep the raw weight in `params` and the power-iteration vectors in the collection `spectral`.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from biggan_jax.models import layout, place_sums, remat, resample
from biggan_jax.models.batch_norm import BatchNorm
from biggan_jax.models.settings import Dtype, LayerSettings, at_least_float32


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    # HIGHEST: on TPU a float32 matmul otherwise runs in bfloat16 passes, and sigma scales every
    # weight.
    return jnp.dot(a, b, precision=lax.Precision.HIGHEST)


def _unit(x: jax.Array, eps: float) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x), eps)


def power_iteration(w: jax.Array, u: jax.Array, iterations: int, eps: float):
    """Estimates the largest singular value of w.

    Args:
      w: matrix [out, rest], at least float32.
      u: left vector [out] of the last iteration.
      iterations: at least 1.
      eps: floor of the norms.

    Returns:
      (sigma, u, v): sigma's gradient flows through w only, u [out] and v [rest] are constants.

    References:
      Miyato et al. 2018, "Spectral Normalization for GANs", algorithm 1 and equation 12.
    """
    w_constant = lax.stop_gradient(w)
    for _ in range(iterations):
        v = _unit(_dot(u, w_constant), eps)
        u = _unit(_dot(w_constant, v), eps)
    u, v = lax.stop_gradient((u, v))
    return _dot(u, _dot(w, v)), u, v


class SpectralModule(nn.Module):
    """A layer whose weight may be divided by its spectral norm.

    Attributes:
      settings: what every layer of the model shares.
      spectral_norm: False leaves the weight as it is.
      weight_name: of the weight among the parameters.
    """

    settings: LayerSettings = LayerSettings()
    spectral_norm: bool = True
    weight_name = "kernel"

    @staticmethod
    def matrix(weight: jax.Array) -> jax.Array:
        """The weight as [out, rest], whose largest singular value the spectral norm is."""
        return weight.reshape(-1, weight.shape[-1]).T

    def divisor(self, matrix: jax.Array, u: jax.Array) -> jax.Array:
        """What a training forward divides the weight by, for the stored vector u [out]."""
        s = self.settings
        sigma = power_iteration(matrix, u, s.sn_iterations, s.sn_eps)[0]
        return jnp.maximum(sigma, s.sn_eps)

    def normalize(self, weight: jax.Array, matrix: jax.Array, train: bool) -> jax.Array:
        """weight / sigma(matrix); a training forward stores the advanced u.

        Args:
          weight: the raw parameter.
          matrix: the same numbers as [out, rest].
          train: advance and store u (the collection `spectral` must be mutable).
        """
        if not self.spectral_norm:
            return weight
        s = self.settings
        matrix = at_least_float32(matrix)
        # Not normalised at init, as in the peers: the first iteration does that.
        u = self.variable("spectral", "u", self._normal, matrix.shape[0], matrix.dtype)
        if s.sn_eval == "stored":
            v = self.variable("spectral", "v", self._normal, matrix.shape[1], matrix.dtype)
            if not train:
                return weight / _dot(u.value, _dot(matrix, v.value)).astype(weight.dtype)
        iterations = s.sn_iterations if train else 1
        sigma, new_u, new_v = power_iteration(matrix, u.value, iterations, s.sn_eps)
        sigma, new_u, new_v = remat.keep((sigma, new_u, new_v))
        if train and not self.is_initializing():
            u.value = new_u
            if s.sn_eval == "stored":
                v.value = new_v
        # The floor keeps a weight of zeros at zero instead of NaN; no other weight comes near it.
        return weight / jnp.maximum(sigma, s.sn_eps).astype(weight.dtype)

    def _normal(self, length: int, dtype: Dtype) -> jax.Array:
        return jax.random.normal(self.make_rng("params"), (length,), dtype)


def add_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
    """y [..., C] + bias [C], in y's dtype."""
    return y + spread(bias, y)


def spread(x: jax.Array, like: jax.Array) -> jax.Array:
    """x [C] or a scalar as an array of the shape and dtype of `like` [..., C].

    It is repeated before it is cast, so that its gradient, a sum over examples and pixels which
    bfloat16 cannot hold, is taken in x's own dtype.
    """
    if x.ndim == 1 and like.ndim == 4:
        return place_sums.spread(x, like.shape).astype(like.dtype)
    return jnp.broadcast_to(x.reshape((1,) * (like.ndim - x.ndim) + x.shape), like.shape).astype(
        like.dtype
    )


class Conv(SpectralModule):
    """3x3 or 1x1 convolution, optionally resampled and spectrally normalised.

    Attributes:
      features: output channels.
      kernel_size: 1 or 3.
      use_bias: add a bias (zero at init).
      resample: 'none', 'up' (nearest, before the convolution) or 'down' (average, after it).
    """

    features: int = 0
    kernel_size: int = 3
    use_bias: bool = True
    resample: str = "none"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, scale: jax.Array | None = None) -> jax.Array:
        """Convolves x [N, H, W, C]; `scale`, a scalar, multiplies the kernel."""
        s = self.settings
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", s.kernel_init, shape, s.param_dtype)
        kernel = self.normalize(kernel, self.matrix(kernel), train)
        if scale is not None:
            kernel = kernel * scale
        y = resample.resampled_conv(
            x.astype(s.dtype),
            layout.row_major_gradient(kernel.astype(s.dtype), s.mesh),
            self.resample,
            fused=s.fused,
            train=train,
        )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), s.param_dtype)
            y = add_bias(y, bias)
        return y


class Dense(SpectralModule):
    """Linear layer [N, in] -> [N, features], optionally spectrally normalised.

    Attributes:
      features: output features.
      use_bias: add a bias (zero at init).
      dtype: overrides the settings' dtype (D's head stays in float32).
      precision: of the product. Accelerators multiply float32 in bfloat16 passes by default.
    """

    features: int = 0
    use_bias: bool = True
    dtype: Dtype | None = None
    precision: lax.Precision | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        s = self.settings
        dtype = self.dtype or s.dtype
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", s.kernel_init, shape, s.param_dtype)
        kernel = self.normalize(kernel, self.matrix(kernel), train)
        y = jnp.dot(x.astype(dtype), kernel.astype(dtype), precision=self.precision)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), s.param_dtype)
            y = add_bias(y, bias)
        return y


class Embed(SpectralModule):
    """Lookup table [num_embeddings, features], normalised as one matrix before the lookup.

    A label of num_embeddings or more, or less than -num_embeddings, gives a row of NaN, and the
    table no gradient; one of -1 gives the last row. Nothing else looks at the labels under jit, so
    whatever reads or draws them checks them first.

    Attributes:
      num_embeddings: number of classes.
      features: width of a row.
    """

    num_embeddings: int = 0
    features: int = 0
    weight_name = "embedding"

    @staticmethod
    def matrix(weight: jax.Array) -> jax.Array:
        """The table [num_embeddings, features] as it is."""
        return weight

    @nn.compact
    def __call__(self, labels: jax.Array, train: bool) -> jax.Array:
        s = self.settings
        shape = (self.num_embeddings, self.features)
        table = self.param("embedding", s.kernel_init, shape, s.param_dtype)
        return jnp.take(
            self.normalize(table, self.matrix(table), train), labels, axis=0, mode="fill"
        )


class ConditionalBatchNorm(nn.Module):
    """Batch norm with gain 1 + W_g c and bias W_b c, both linear maps without bias.

    Attributes:
      settings: what every layer of the model shares.

    References:
      Brock et al. 2019, appendix B; de Vries et al. 2017.
    """

    settings: LayerSettings = LayerSettings()

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array, train: bool) -> jax.Array:
        """Normalises x [N, H, W, C] under condition [N, K]."""
        s = self.settings

        def linear(name: str) -> jax.Array:
            layer = Dense(s, s.spectral_norm, x.shape[-1], use_bias=False, name=name)
            # In float32 before 1 is added: bfloat16 has steps of 1/128 there.
            return at_least_float32(layer(condition, train))

        # Centred at 1: an uncentred gain starts every channel near 0 and stops learning.
        return BatchNorm(s, name="norm")(x, 1 + linear("gain"), linear("bias"), train)


class ClassBatchNorm(nn.Module):
    """Batch norm with gain 1 + G[y] and bias B[y], two lookup tables without spectral norm.

    The tables start with the settings' `table_init`: zeros in SNGAN and SAGAN, the model's own
    initialiser in BigGAN-PyTorch without `--G_shared`.

    Attributes:
      settings: what every layer of the model shares.
      num_classes: rows of both tables.
    """

    settings: LayerSettings = LayerSettings()
    num_classes: int = 0

    @nn.compact
    def __call__(self, x: jax.Array, labels: jax.Array, train: bool) -> jax.Array:
        """Normalises x [N, H, W, C] for class ids [N]."""
        s = self.settings
        as_table = dataclasses.replace(s, kernel_init=s.table_init or s.kernel_init)

        def row(name: str) -> jax.Array:
            table = Embed(as_table, False, self.num_classes, x.shape[-1], name=name)
            return at_least_float32(table(labels, train))

        return BatchNorm(s, name="norm")(x, 1 + row("gain"), row("bias"), train)


class AffineBatchNorm(nn.Module):
    """Unconditional batch norm with a learned gain (1 at init) and bias (0 at init) per channel."""

    settings: LayerSettings = LayerSettings()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Normalises x [N, H, W, C]."""
        s = self.settings
        shape = (x.shape[-1],)
        gain = self.param("gain", nn.initializers.ones, shape, s.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, s.param_dtype)
        return BatchNorm(s, name="norm")(x, gain[None], bias[None], train)
