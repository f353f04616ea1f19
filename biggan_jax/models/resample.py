"""Convolution and resampling, fused where that is exact.

Nearest upsampling by 2 followed by a 3x3 convolution reads each low-resolution pixel several times:
the two are one transposed 4x4 convolution of stride 2 (16 taps for 36). A 3x3 convolution followed
by 2x2 average pooling is one 4x4 convolution of stride 2, the same the other way round. 1x1
convolutions commute with both, so they run at the low resolution. The parameters stay 3x3; results
agree with the unfused form up to rounding (5e-7 relative).

All activations are NHWC, all kernels HWIO.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from biggan_jax.models import convolution, cpu_forms, gpu_forms
from biggan_jax.models.settings import at_least_float32

_OF_STRIDED = ((1, 1), (1, 1))


def conv(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding="SAME", train: bool = False
) -> jax.Array:
    """Convolves x [N, H, W, C] with kernel [h, w, C, K].

    1x1 kernels are written as a matrix product (3 times faster on a CPU, the same program
    elsewhere). On the CPU 3x3 kernels and strided 4x4 ones run in the form of `cpu_forms`, on
    NVIDIA GPUs those of an image's channels and strided ones in that of `gpu_forms`. `train` is
    true in training forwards, where a CPU may use a form of a larger rounding error.
    """
    size = kernel.shape[0]
    if stride == 1 and size == 1:
        if x.dtype == jnp.bfloat16:
            return lax.platform_dependent(x, kernel[0, 0], cpu=_flat_product, default=jnp.dot)
        return jnp.dot(x, kernel[0, 0])

    def general(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolution.general(x, kernel, stride, padding)

    if size == 3 and stride == 1 and padding == "SAME":
        form = gpu_forms.choose(kernel)
        forms = {"cuda": form} if form else {}
        return _by_platform("none", general, x, kernel, train, **forms)
    if size == 4 and stride == 2 and padding == _OF_STRIDED:
        return lax.platform_dependent(
            x, kernel, cpu=cpu_forms.strided, cuda=gpu_forms.strided, default=general
        )
    return general(x, kernel)


def _flat_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    # From jax 0.12 on XLA's CPU backend adds in bfloat16 where several axes are summed at once, as
    # for the gradient of this kernel (2.4% wrong over 4,096 pixels), and in float32 over one axis.
    return jnp.dot(x.reshape(-1, x.shape[-1]), kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def _by_platform(
    resample: str, elsewhere, x: jax.Array, kernel: jax.Array, train: bool, **forms: Callable
) -> jax.Array:
    """`elsewhere(x, kernel)`; on a CPU the form that `cpu_forms` chooses for the shapes.

    `forms` are those of other platforms.
    """
    form = cpu_forms.choose(resample, x.shape, kernel.shape, x.dtype, train)
    if form != cpu_forms.XLA:
        forms["cpu"] = cpu_forms.FORMS[resample, form]
    if not forms:
        return elsewhere(x, kernel)
    return lax.platform_dependent(x, kernel, default=elsewhere, **forms)


def upsample(x: jax.Array) -> jax.Array:
    """Nearest-neighbour upsampling by 2: [N, H, W, C] -> [N, 2H, 2W, C]."""
    n, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (n, h, 2, w, 2, c))
    return x.reshape(n, 2 * h, 2 * w, c)


def average_pool(x: jax.Array) -> jax.Array:
    """2x2 average pooling: [N, H, W, C] -> [N, H/2, W/2, C]; H and W even."""
    n, h, w, c = x.shape
    if x.dtype == jnp.bfloat16:
        return _average_pool_in_bfloat16(x)
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))


@jax.custom_vjp
def _average_pool_in_bfloat16(x: jax.Array) -> jax.Array:
    # The sum of an ordinary reduction is an instruction of its own on TPUs, for which all of x is
    # written in float32 first; with a window it is fused.
    window = (1, 2, 2, 1)
    wide = at_least_float32(x)
    sums = lax.reduce_window(wide, np.zeros((), wide.dtype), lax.add, window, window, "VALID")
    return (sums * 0.25).astype(x.dtype)


def _pool_forward(x: jax.Array) -> tuple[jax.Array, None]:
    return _average_pool_in_bfloat16(x), None


def _pool_backward(_: None, gradient: jax.Array) -> tuple[jax.Array]:
    return (upsample(gradient * 0.25),)


_average_pool_in_bfloat16.defvjp(_pool_forward, _pool_backward)


def max_pool(x: jax.Array) -> jax.Array:
    """2x2 max pooling: [N, H, W, C] -> [N, H/2, W/2, C]; H and W even."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))


def transposed_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Transposed convolution of stride 2 and padding 1: [N, H, W, C] -> [N, 2H, 2W, K].

    Args:
      x: [N, H, W, C].
      kernel: [4, 4, C, K], not flipped: of torch's ConvTranspose2d it is the flip.
    """
    if not isinstance(x.shape[0], int):  # a program of any batch, for other machines and compilers
        return convolution.phases(x, kernel)
    # Neither XLA's CPU backend nor cuDNN has a fast kernel for dilated inputs; TPUs skip the zeros.
    return lax.platform_dependent(
        x, kernel, cpu=convolution.phases, cuda=gpu_forms.dilated, default=convolution.dilated
    )


def upsample_conv(x: jax.Array, kernel: jax.Array, train: bool = False) -> jax.Array:
    """`conv(upsample(x), kernel)` for a 3x3 (one transposed convolution) or 1x1 kernel.

    Args:
      x: [N, H, W, C].
      kernel: [3, 3, C, K] or [1, 1, C, K].
      train: as for `conv`.

    Returns:
      [N, 2H, 2W, K].
    """
    if kernel.shape[0] == 1:
        return upsample(conv(x, kernel))

    def elsewhere(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolution.dilated(x, convolution.spread(kernel))

    def cuda(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return gpu_forms.dilated(x, convolution.spread(kernel))

    return _by_platform("up", elsewhere, x, kernel, train, cuda=cuda)


def conv_downsample(x: jax.Array, kernel: jax.Array, train: bool = False) -> jax.Array:
    """`average_pool(conv(x, kernel))` for a 3x3 (one strided 4x4 convolution) or 1x1 kernel.

    Args:
      x: [N, H, W, C], H and W even.
      kernel: [3, 3, C, K] or [1, 1, C, K].
      train: as for `conv`.

    Returns:
      [N, H/2, W/2, K].
    """
    if kernel.shape[0] == 1:
        return conv(average_pool(x), kernel)

    def elsewhere(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolution.strided(x, convolution.spread(kernel) * 0.25)

    def cuda(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return gpu_forms.strided(x, convolution.spread(kernel) * 0.25)

    return _by_platform("down", elsewhere, x, kernel, train, cuda=cuda)


def resampled_conv(
    x: jax.Array, kernel: jax.Array, resample: str, *, fused: bool, train: bool = False
) -> jax.Array:
    """Convolution with resampling: 'none', 'up' (before it) or 'down' (after it).

    `fused=False` is the textbook order; it exists to count what fusing saves and to test it.
    `train` as for `conv`.
    """
    if resample == "none":
        return conv(x, kernel, train=train)
    if resample == "up":
        return upsample_conv(x, kernel, train) if fused else conv(upsample(x), kernel, train=train)
    if resample == "down":
        if fused:
            return conv_downsample(x, kernel, train)
        return average_pool(conv(x, kernel, train=train))
    raise ValueError(f"resample is {resample!r}; it must be 'none', 'up' or 'down'")
