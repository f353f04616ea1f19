"""What the training step asks of the compiler."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from biggan_jax.parallel import compiler_options, sharding
from biggan_jax.training import step


def test_options_are_for_tpus_alone(monkeypatch):
    mesh = sharding.make_mesh((1,), jax.devices()[:1])
    assert compiler_options.of_step(mesh) is None  # others do not know them
    tpus = SimpleNamespace(devices=np.array([[SimpleNamespace(platform="tpu")]]))
    options = compiler_options.of_step(tpus)
    assert options and all(name.startswith("xla_tpu_") for name in options)

    # The jitted step hands them on: XLA refuses what it does not know.
    monkeypatch.setattr(compiler_options, "of_step", lambda mesh: {"xla_no_such_option": True})
    bound = SimpleNamespace(
        mesh=mesh, init=lambda key: {}, train_step=lambda state, batch: (state, batch)
    )
    lowered = step.jit_train_step(bound).lower({}, np.zeros((1, 1), np.float32))
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
        lowered.compile()
