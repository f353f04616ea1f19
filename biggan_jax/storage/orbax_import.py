"""Orbax, imported without a trace in the logging of the program that imports us."""

from biggan_jax.storage import orbax_noise

with orbax_noise.logging_untouched():
    import orbax.checkpoint as ocp

__all__ = ["ocp"]
