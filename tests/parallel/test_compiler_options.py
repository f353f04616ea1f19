"""What the training step asks of the compiler."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from biggan_jax.models import convolution
from biggan_jax.models.initializers import INITIALIZERS
from biggan_jax.parallel import compiler_options, sharding
from biggan_jax.training import state as state_lib
from biggan_jax.training import step


def of_platform(name):
    mesh = SimpleNamespace(devices=np.array([[SimpleNamespace(platform=name)]]))
    return compiler_options.of_step(mesh)


def test_options_are_those_of_the_platform(monkeypatch):
    mesh = sharding.make_mesh((1,), jax.devices()[:1])
    for name in ("tpu", "cpu"):  # others do not know them
        options = of_platform(name)
        assert options and all(option.startswith(f"xla_{name}_") for option in options)
    assert of_platform("gpu") is None
    assert compiler_options.of_step(mesh) == compiler_options.of_network() == of_platform("cpu")

    # The jitted step hands them on: XLA refuses what it does not know.
    monkeypatch.setattr(compiler_options, "of_step", lambda mesh: {"xla_no_such_option": True})
    bound = SimpleNamespace(
        mesh=mesh,
        init=lambda key: {},
        train_step=lambda state, batch: (state, batch),
        objective=SimpleNamespace(is_lazy=False),
    )
    lowered = step.jit_train_step(bound).lower({}, np.zeros((1, 1), np.float32))
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
        lowered.compile()


def test_cpu_programs_hand_no_convolution_to_another_library():
    x, kernel = np.ones((2, 8, 8, 64), np.float32), np.ones((3, 3, 64, 64), np.float32)

    def program(options):
        options = {"xla_backend_optimization_level": 3} | (options or {})
        jitted = jax.jit(convolution.general, compiler_options=options)
        return jitted.lower(x, kernel).compile().as_text()

    assert "ynn" in program(None)
    assert "ynn" not in program(compiler_options.of_network())


@pytest.mark.full
def test_a_state_is_initialised_at_a_lower_level(monkeypatch):
    """On CPUs, and unless XLA_FLAGS has a level; the same bits."""
    mesh = sharding.make_mesh((1,), jax.devices()[:1])
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    assert compiler_options.of_init(mesh) is None
    monkeypatch.delenv("XLA_FLAGS")
    options = compiler_options.of_init(mesh)
    assert options == {"xla_backend_optimization_level": 1}
    gpu = SimpleNamespace(devices=np.array([[SimpleNamespace(platform="gpu")]]))
    assert compiler_options.of_init(gpu) == {"xla_gpu_autotune_level": 0}
    tpu = SimpleNamespace(devices=np.array([[SimpleNamespace(platform="tpu")]]))
    assert compiler_options.of_init(tpu) is None

    def init(key):
        shapes = {"orthogonal": (3, 3, 4, 12), "normal": (5, 7), "xavier": (3, 3, 4, 4)}
        return {name: INITIALIZERS[name](key, shape) for name, shape in shapes.items()}

    monkeypatch.setattr(state_lib, "shardings", lambda init, mesh: sharding.replicated(mesh))
    found = state_lib.jit_init(init, mesh)(jax.random.key(3))
    default = jax.jit(init, compiler_options={"xla_backend_optimization_level": 3})
    for x, y in zip(*map(jax.tree.leaves, (found, default(jax.random.key(3)))), strict=True):
        np.testing.assert_array_equal(x, y)

    # It hands them on: XLA refuses what it does not know.
    monkeypatch.setattr(compiler_options, "of_init", lambda mesh: {"xla_no_such_option": True})
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
        state_lib.jit_init(init, mesh)(jax.random.key(3))


def test_an_option_that_xla_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setattr(compiler_options, "_CPU", {"xla_no_such_option": True})
    compiler_options._of_cpu.cache_clear()
    try:
        assert of_platform("cpu") is None
    finally:
        compiler_options._of_cpu.cache_clear()
