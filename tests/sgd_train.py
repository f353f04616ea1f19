"""`biggan train` with SGD in Adam's place: parameters then differ as little as the gradients do.

Adam divides a gradient by its own size, so that rounding becomes a whole step where it is near 0.
"""

import sys
from unittest import mock

import optax

from biggan_jax import cli
from biggan_jax.training import optimizers
from tests import dying

LEARNING_RATE = 1e-3


def adam(_, lr: float, *__, **___) -> optax.GradientTransformation:
    """Takes the arguments of `optimizers.adam`; a rate beyond 1 is meant to diverge."""
    return optax.sgd(lr if lr > 1 else LEARNING_RATE)


def main(arguments: list[str]) -> int:
    """`biggan train ARGUMENTS`; its exit code."""
    with mock.patch.object(optimizers, "adam", adam):
        return cli.main(["train", *arguments])


def share_compiled_programs() -> None:
    """Lets other processes find in JAX's compilation cache what process 0 has put there.

    They may not write, and would look under keys of their own: a minute of compiling in each run.
    """
    from jax._src import cache_key

    if hasattr(cache_key, "_hash_accelerator_config"):
        cache_key._hash_accelerator_config = lambda *_: None


if __name__ == "__main__":
    share_compiled_programs()
    dying.arm()
    sys.exit(main(sys.argv[1:]))
