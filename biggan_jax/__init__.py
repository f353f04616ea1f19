"""SAGAN and BigGAN on JAX: train class-conditional GANs from a laptop to a TPU pod."""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:  # what type checkers see of the lazy names below
    from biggan_jax.config import default_config
    from biggan_jax.evaluation.evaluate import evaluate
    from biggan_jax.sampling.load import load_discriminator, load_generator
    from biggan_jax.training.loop import train

_LAZY = {  # name -> the module that has it
    "load_generator": "sampling.load",
    "load_discriminator": "sampling.load",
    "train": "training.loop",
    "evaluate": "evaluation.evaluate",
    "default_config": "config",
}
__all__ = [
    "__version__",
    "load_generator",
    "load_discriminator",
    "train",
    "evaluate",
    "default_config",
]


def __getattr__(name: str):
    # Lazy: `import biggan_jax.models` must not pull in Orbax, and `biggan --help` not even jax.
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(f"biggan_jax.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'biggan_jax' has no attribute {name!r}")
