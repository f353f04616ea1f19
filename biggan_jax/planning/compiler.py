"""The TPU compiler on a machine without TPUs: devices of a topology, described by libtpu."""

import contextlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import jax

from biggan_jax.errors import UserError
from biggan_jax.planning import chips
from biggan_jax.planning.chips import Topology

# Read by libtpu when it is loaded: beside another process that holds it, without asking a cloud's
# metadata server, and without a word.
_ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


def devices(topology: Topology, slices: int = 1) -> list:
    """The devices of a topology, as libtpu describes them; no chip is touched.

    Raises:
      UserError: when libtpu is not installed or refuses the topology.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "biggan plan needs the TPU compiler, and libtpu is not installed: pip install "
            "'biggan_jax[tpu]'"
        )
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    os.environ.setdefault("TPU_LOG_DIR", tempfile.gettempdir())
    # A TPU of this machine, if there is one, stays with whoever uses it.
    jax.config.update("jax_platforms", "cpu")
    from jax.experimental import topologies

    options: dict[str, Any] = {}
    if topology.generation == "v4":
        options["chip_config_name"] = "megacore"  # one device of two cores, as Cloud TPU runs it
    if slices > 1:
        options["num_slices"] = slices
    if topology.chips == 1:
        options["chips_per_host_bounds"] = [1, 1, 1]
    try:
        with _quiet_stderr():
            description = topologies.get_topology_desc(
                platform="tpu", topology_name=topology.name, **options
            )
    except jax.errors.JaxRuntimeError as e:
        raise chips.unknown(topology.name, str(e).splitlines()[0]) from e
    return list(description.devices)


def compile_step(lowered: jax.stages.Lowered, *, fast: bool) -> jax.stages.Compiled:
    """Compiles a lowered step.

    Args:
      lowered: for devices of `devices`.
      fast: with the compiler's least effort for the speed of the program, which takes a fifth of
        the time: the same operations and collectives, but less of them stays in on-chip memory.
    """
    name = "jax_optimization_level"
    usual = getattr(jax.config, name)
    jax.config.update(name, "O0" if fast else usual)
    try:
        return lowered.compile()
    finally:
        jax.config.update(name, usual)


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Drops what libtpu's C++ prints about a machine without TPUs; errors still raise."""
    kept = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)
