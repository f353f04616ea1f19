"""Steps of lazy penalties whose programs know whether they are due: the same steps, no branch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Literal

from biggan_jax.training import jitted, step
from tests import small_state
from tests.training.test_objectives import build, config
from tests.training.test_step import assert_same, batch_for, with_sgd

PLAIN = {"model.g_attention": (), "model.d_attention": (), "loss": "hinge"}


def lazy(num_d_steps, every, **changes):
    settings = {"num_d_steps": num_d_steps, "regularizer.every_steps": every}
    return build(config(**PLAIN, **settings, **changes))


@pytest.mark.parametrize("num_d_steps", [1, 3])
def test_a_program_for_each_pattern(num_d_steps):
    """Each step takes the program that has its penalties, and no more of them are made."""
    taken, made = [], []

    def jit(function):
        made.append(function.keywords["due"])

        def program(state, batch):
            taken.append(function.keywords["due"])
            return state.replace(step=state.step + 1), {}

        return program

    train_step = lazy(num_d_steps, 4)
    steps = jitted.LazySteps(train_step, jit)
    state = jax.eval_shape(train_step.init, jax.random.key(0))
    for start in (0, 1, 6):  # a run, and two that go on from another state
        state, taken[:] = state.replace(step=jnp.int32(start)), []
        for _ in range(8):
            state, _ = steps(state, None)
        flat = [flag for due in taken for flag in due]
        assert flat == [(start * num_d_steps + i) % 4 == 0 for i in range(8 * num_d_steps)]
    assert len(made) == len(set(made)) == (2 if num_d_steps == 1 else 4)


def test_where_it_is_used():
    """With lazy penalties on a CPU alone; others keep the one program."""
    nothing = {"regularizer.r1": 0.0, "regularizer.r2": 0.0}
    of_g = {**nothing, "regularizer.zcr_g": 1.0}
    of_d = {**nothing, "regularizer.zcr_d": 1.0}
    for settings, wanted in (({}, True), (nothing, False), (of_g, False), (of_d, True)):
        found = step.jit_train_step(lazy(1, 2, **settings))
        assert isinstance(found, jitted.LazySteps) == wanted, settings
    assert not isinstance(step.jit_train_step(lazy(1, 1)), jitted.LazySteps)


def test_what_is_compiled_ahead_is_what_runs():
    """For the shapes of a run; what has several programs, or is no program, stays as it is."""
    c = config(**PLAIN)
    c.batch_size = 16
    train_step = build(c)
    program = step.jit_train_step(train_step)
    ahead = jitted.compiled_ahead(program, train_step, c)
    assert ahead is not program
    state, _ = ahead(small_state.cheap_state(train_step), batch_for(train_step))
    assert state.step == 1 and program._cache_size() == 1
    for other in (step.jit_train_step(lazy(1, 2)), lambda state, batch: (state, {})):
        assert jitted.compiled_ahead(other, train_step, c) is other


def flags(jaxpr) -> int:
    """Branches of a trace, those inside others too, that a bool chooses, computed beside them."""
    makers = {out: e.primitive.name for e in jaxpr.eqns for out in e.outvars}
    count = 0
    for e in jaxpr.eqns:
        if e.primitive.name == "cond" and not isinstance(e.invars[0], Literal):
            count += makers.get(e.invars[0]) == "convert_element_type"
        for inner in jax.tree.leaves(list(e.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            count += flags(inner) if hasattr(inner, "eqns") else 0
    return count


@pytest.mark.full
def test_no_branch_is_left():
    """In a trace; the metrics are those of the program with one."""
    train_step = lazy(1, 3)
    state, batch = jax.eval_shape(train_step.init, jax.random.key(0)), batch_for(train_step)
    shapes, branches, lengths = {}, {}, {}
    for due in (None, (True,), (False,)):
        made = jax.make_jaxpr(train_step.train_step, static_argnums=2, return_shape=True)
        jaxpr, shapes[due] = made(state, batch, due)
        branches[due], lengths[due] = flags(jaxpr.jaxpr), len(str(jaxpr))
    # Forward and backward; the convolutions' choices of a form by the platform do not count.
    assert branches == {None: 2, (True,): 0, (False,): 0}
    assert lengths[False,] < lengths[True,]
    assert shapes[None] == shapes[True,] == shapes[False,]


@pytest.mark.full
@pytest.mark.parametrize("num_d_steps", [1, 2])
def test_they_equal_the_steps_with_a_branch(num_d_steps, monkeypatch):
    """Draws of D's dropout included."""
    train_step = with_sgd(lazy(num_d_steps, 3, **{"model.d_dropout": 0.5}))
    programs = {"lazy": step.jit_train_step(train_step)}
    monkeypatch.setattr(jitted.microbatches, "unroll", lambda mesh: False)
    programs["branch"] = step.jit_train_step(train_step)
    assert [isinstance(x, jitted.LazySteps) for x in programs.values()] == [True, False]
    found = {}
    for name, program in programs.items():
        state = small_state.cheap_state(train_step)
        for i in range(4):
            state, metrics = program(state, batch_for(train_step, seed=i))
            found[name, i] = jax.device_get(metrics)
        found[name] = state
    assert_same(found["lazy"], found["branch"], 1e-5)
    for i in range(4):
        for key, value in found["branch", i].items():
            np.testing.assert_allclose(found["lazy", i][key], value, rtol=1e-4, atol=1e-5)
    assert found["lazy", 0]["r1"] > 0
