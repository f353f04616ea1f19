"""What is asked of the compiler of a mesh's devices, beside its defaults."""

import functools
import os

import jax
from jax.sharding import Mesh

Options = dict[str, bool | int | str]

# Left on, a convolution of few examples makes examples of the columns of its images, and batch
# norm's float32 scales with them: an eighth of the HBM traffic of BigGAN-deep at 512 pixels.
_TPU: Options = {
    "xla_tpu_run_space_to_batch": False,
    "xla_tpu_run_space_to_batch_on_new_platforms": False,
}
# YNNPACK, to which XLA hands convolutions and products on CPUs, takes up to twice as long for those
# of a GAN as XLA's own kernels, and far more for their weight gradients without AVX-512.
_CPU: Options = {"xla_cpu_experimental_ynn_fusion_type": ""}
# A program that runs once: two thirds of the time to compile, and the same bits (which level 0 does
# not give).
_ONCE: dict[str, Options] = {
    "cpu": {"xla_backend_optimization_level": 1},
    # Nothing is timed to find the fastest kernel of each product.
    "gpu": {"xla_gpu_autotune_level": 0},
}


def of_step(mesh: Mesh) -> Options | None:
    """Options for the training step as `jax.jit` takes them; None where there are none."""
    platform = mesh.devices.flat[0].platform
    return _TPU if platform == "tpu" else of_network(platform)


def of_network(platform: str | None = None) -> Options | None:
    """Options for a forward of a network as `jax.jit` takes them; None where there are none.

    Args:
      platform: it runs on; JAX's default where absent.
    """
    return _of_cpu() if (platform or jax.default_backend()) == "cpu" else None


def of_init(mesh: Mesh) -> Options | None:
    """Options for the initialisation of a state; None where there are none.

    A level that XLA_FLAGS asks for, as the tests do, counts for this program too.
    """
    options = _ONCE.get(mesh.devices.flat[0].platform)
    flags = os.environ.get("XLA_FLAGS", "")
    return None if options is None or any(name in flags for name in options) else options


@functools.cache
def _of_cpu() -> Options | None:
    try:  # a version of XLA without this option refuses it
        jax.jit(lambda: 0, compiler_options=_CPU).lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return _CPU
