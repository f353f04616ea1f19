"""How arrays lie in the memory of an accelerator, where the compiler's own choice costs copies."""

import jax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import Mesh


def platform(mesh: Mesh) -> str:
    """Of the devices of a mesh: 'cpu', 'gpu' or 'tpu'."""
    return mesh.devices.flat[0].platform


def row_major_gradient(x: jax.Array, mesh: Mesh | None) -> jax.Array:
    """x itself, whose gradient lies in the order of its axes on the accelerators of a mesh.

    A gradient comes out of the convolution that makes it with its axes in any order. Left to itself
    the compiler then lays out the parameter, its moments and its average in that order too, with a
    copy of each in float32 before and after the update. A GPU also reads them column by column for
    sigma's gradient, at a hundredth of its speed.
    """
    if mesh is None or platform(mesh) == "cpu":
        return x
    return _row_major_gradient(x)


@jax.custom_vjp
def _row_major_gradient(x: jax.Array) -> jax.Array:
    return x


def _forward(x: jax.Array) -> tuple[jax.Array, None]:
    return x, None


def _backward(_: None, gradient: jax.Array) -> tuple[jax.Array]:
    return (with_layout_constraint(gradient, Layout(tuple(range(gradient.ndim)))),)


_row_major_gradient.defvjp(_forward, _backward)
