"""What is asked of the compiler of a mesh's devices, beside its defaults."""

from jax.sharding import Mesh


def of_step(mesh: Mesh) -> dict[str, bool] | None:
    """Options for the training step as `jax.jit` takes them; None where there are none."""
    if mesh.devices.flat[0].platform != "tpu":
        return None
    # Left on, a convolution of few examples makes examples of the columns of its images, and batch
    # norm's float32 scales with them: an eighth of the HBM traffic of BigGAN-deep at 512 pixels.
    return {
        "xla_tpu_run_space_to_batch": False,
        "xla_tpu_run_space_to_batch_on_new_platforms": False,
    }
