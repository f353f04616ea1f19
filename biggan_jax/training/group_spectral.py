"""Group spectral regularization (gSR) of G's class-conditional batch norms, for long tails.

A class's vector of gains (and of biases) is cut into groups, the rows of a matrix, whose spectral
norm grows where the class has collapsed to a few images.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from biggan_jax.errors import UserError
from biggan_jax.models import layers, walk
from biggan_jax.models.settings import at_least_float32
from biggan_jax.training import matrices

SQUARINGS = 10  # of the Gram matrix: power iteration to the power of 2^10


@dataclasses.dataclass(frozen=True)
class GroupSpectral:
    """The regularizer of one generator.

    Attributes:
      generator: unbound.
      strength: lambda.
      groups: rows of the matrices, n_g; None takes the divisor of the channels that is nearest to
        their square root from below.
      weights: of the classes, with a mean of 1; None weights all of them alike.
    """

    generator: nn.Module
    strength: float
    groups: int | None = None
    weights: tuple[float, ...] | None = None

    def penalty(self, params: Any, spectral: Any) -> jax.Array:
        """The regularizer, of the gains and biases that the generator uses.

        Where batch norm is conditioned on the shared embedding, they are those of the embedding
        alone: W_g e_y, with W_g after spectral normalisation, as a chunk of z of zeros gives them.

        Args:
          params: of the generator.
          spectral: its power-iteration vectors.

        Returns:
          lambda times the mean over batch norms and classes of the weighted sigma(gains)^2 +
          sigma(biases)^2, a scalar.

        References:
          Rangwani et al. 2022, "Improving GANs for Long-Tailed Data through Group Spectral
          Regularization", section 3; with the mean over layers and classes of the authors' code.
        """
        norms = []
        for at in _conditional(params):
            for table in _class_tables(params, at, spectral, self.generator):
                squares = jnp.square(largest(_grouped(table, self.groups)))
                if self.weights is not None:
                    squares = squares * np.asarray(self.weights, squares.dtype)
                norms.append(squares.mean())
        return self.strength * 2 * sum(norms) / len(norms)

    def __call__(self, params: Any, spectral: Any) -> tuple[jax.Array, Any]:
        """(`penalty`, its gradient with respect to params, to be added to that of the loss)."""
        with jax.named_scope("regularizer"):
            return jax.value_and_grad(self.penalty)(params, spectral)


def of_config(config: Any, generator: nn.Module) -> GroupSpectral | None:
    """The regularizer of a config; None where its strength is 0.

    Args:
      config: full; `data.class_counts` unset counts every class the same.
      generator: unbound.

    Raises:
      UserError: G has no batch norm of classes, or one whose channels the groups do not divide.
    """
    r = config.regularizer
    if not r.g_group_spectral:
        return None
    _check(generator, r.g_spectral_groups)
    weights, counts = None, config.data.class_counts
    if r.g_spectral_beta and len(counts) == generator.num_classes:
        weights = class_weights(counts, r.g_spectral_beta)
    return GroupSpectral(generator, r.g_group_spectral, r.g_spectral_groups, weights)


def class_weights(counts: Sequence[int], beta: float) -> tuple[float, ...]:
    """Weights of classes that fall with their effective number of images.

    Args:
      counts: training images of each class; a class without one counts as if it had one.
      beta: in (0, 1).

    Returns:
      Weights in proportion to (1 - beta) / (1 - beta^n), with a mean of 1.

    References:
      Cui et al. 2019, "Class-Balanced Loss Based on Effective Number of Samples", equation 2;
      Rangwani et al. 2022, section 3.
    """
    inverse = (1.0 - beta) / (1.0 - np.power(beta, np.maximum(counts, 1)))
    return tuple((inverse / inverse.mean()).tolist())


def largest(matrices_NRC: jax.Array) -> jax.Array:
    """Largest singular values [N] of N matrices [N, R, C].

    By power iteration, whose vectors are found anew each time: with the Gram matrix squared over
    and over, so that no vector has to be kept, nor can a start be orthogonal to the answer. The
    gradient is u v^T, with constant u and v.
    """
    m = at_least_float32(matrices_NRC)
    m = m if m.shape[1] <= m.shape[2] else m.swapaxes(1, 2)
    constant = jax.lax.stop_gradient(m)
    tiny = jnp.finfo(m.dtype).tiny
    gram = matrices.matmul(constant, constant.swapaxes(1, 2))
    for _ in range(SQUARINGS):
        gram = gram / jnp.maximum(jnp.trace(gram, axis1=1, axis2=2), tiny)[:, None, None]
        gram = matrices.matmul(gram, gram)
    longest = jnp.argmax(jnp.square(gram).sum(1), axis=1)
    u = _unit(jnp.take_along_axis(gram, longest[:, None, None], axis=2)[:, :, 0], tiny)
    v = _unit(jnp.einsum("nr,nrc->nc", u, constant, precision=jax.lax.Precision.HIGHEST), tiny)
    return jnp.einsum("nr,nrc,nc->n", u, m, v, precision=jax.lax.Precision.HIGHEST)


def _check(generator: nn.Module, groups: int | None) -> None:
    """Raises UserError unless the regularizer can be applied to an unbound generator."""
    params = walk.of_generator(generator).variables["params"]
    found = list(_conditional(params)) if generator.num_classes > 1 else []
    if not found:
        raise UserError(
            "regularizer.g_group_spectral is set, but no batch norm of this G knows classes "
            f"(num_classes {generator.num_classes}): set --config.regularizer.g_group_spectral=0"
        )
    widths = {_at(params, at)["gain"][_leaf(_at(params, at)["gain"])].shape[-1] for at in found}
    for width in sorted(widths):
        if groups is not None and width % groups:
            fit = [n for n in range(1, min(widths) + 1) if not any(w % n for w in widths)]
            raise UserError(
                f"regularizer.g_spectral_groups is {groups} and does not divide the {width} "
                "channels of a batch norm: set --config.regularizer.g_spectral_groups to one of "
                f"{', '.join(map(str, fit))}"
            )


def _conditional(params: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of the batch norms whose gain and bias are maps of a condition."""
    tree = _at(params, at)
    if not hasattr(tree, "items"):
        return
    if all(hasattr(tree.get(name), "items") for name in ("gain", "bias")):
        yield at
        return
    for name in sorted(tree):
        yield from _conditional(params, (*at, name))


def _class_tables(
    params: Any, at: tuple[str, ...], spectral: Any, generator: nn.Module
) -> Iterator[jax.Array]:
    """Gains and biases of every class, each [classes, C]."""
    for name in ("gain", "bias"):
        weights = _at(params, (*at, name))
        if _leaf(weights) == "embedding":
            yield weights["embedding"]
            continue
        embedding, kernel = params["shared"]["embedding"], weights["kernel"]
        settings, width = generator.settings, embedding.shape[1]
        if settings.spectral_norm:
            u = _at(spectral, (*at, name))["u"]
            matrix = at_least_float32(layers.Dense.matrix(kernel))
            sigma = layers.power_iteration(matrix, u, 1, settings.sn_eps)[0]
            kernel = kernel / jnp.maximum(sigma, settings.sn_eps).astype(kernel.dtype)
        first = generator.cond_order == "embedding_z"
        yield matrices.matmul(embedding, kernel[:width] if first else kernel[-width:])


def _grouped(table: jax.Array, groups: int | None) -> jax.Array:
    """[classes, C] as matrices [classes, groups, C / groups]."""
    classes, width = table.shape
    if groups is None:
        groups = max(n for n in range(1, width + 1) if n * n <= width and width % n == 0)
    return table.reshape(classes, groups, width // groups)


def _unit(x: jax.Array, tiny: float) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), tiny)


def _leaf(weights: Any) -> str:
    return "embedding" if "embedding" in weights else "kernel"


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        tree = tree[name]
    return tree
