"""A program that is compiled in a thread, while the process prepares what it will be given.

XLA's compiler keeps little more than one core busy, and waits for nothing but the shapes.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jax.sharding import Mesh

_THREAD = "compiles ahead"


def is_possible(mesh: "Mesh") -> bool:
    """Whether compiling ahead changes nothing but the time.

    A GPU's compiler times kernels, and several processes wait for each other's compilation.

    Args:
      mesh: of the devices that a program runs on.
    """
    import jax  # a command without arrays does not load it

    return jax.process_count() == 1 and mesh.devices.flat[0].platform != "gpu"


def compiled(jitted: Any, *args: Any) -> Callable:
    """A jitted function whose compilation begins now.

    Args:
      jitted: from `jax.jit`.
      *args: arrays or their shapes and shardings, as it will be called with. It is traced here, in
        the caller's thread, of which JAX keeps settings.

    Returns:
      A function of the same arguments; its first call waits for the compilation.
    """
    lowered = jitted.lower(*args)

    def compile_now() -> None:
        with contextlib.suppress(Exception):  # the first call compiles again, and raises it
            lowered.compile()

    thread = threading.Thread(target=compile_now, name=_THREAD)
    thread.start()

    def call(*args: Any) -> Any:
        thread.join()
        return jitted(*args)

    return call


def is_compiling() -> bool:
    """Whether a thread of this process still compiles: Python's exit would wait for it."""
    return any(thread.name == _THREAD for thread in threading.enumerate())
