"""Programs that the runs of a session share: traced once, and those of `runs.trained` for good."""

import contextlib
import fnmatch
import inspect
import types

import jax
import pytest

from biggan_jax import config as config_lib
from biggan_jax.training import build as build_lib
from biggan_jax.training import jitted as jitted_lib
from biggan_jax.training import (
    losses,
    microbatches,
    objectives,
    optimizers,
    regularizers,
    sample_grid,
    setup,
)
from biggan_jax.training import state as state_lib
from biggan_jax.training import step as step_lib

# Settings that no traced program depends on.
NOT_TRACED = (
    *("num_steps", "*_every_steps", "eval_*", "keep_checkpoints", "tensorboard", "report"),
    *("class_names", "seed", "init_from", "batch_size", "guard.*"),
    *(f"data.{name}" for name in ("source", "flip", "holdout", "on_bad_record", "class_order")),
    *("data.max_pixels", "data.stage", "data.stage_gb"),
)


STEP_MODULES = (step_lib, objectives, losses, regularizers, optimizers, microbatches, state_lib)


# What `traced_once` keeps of `trained`, from one module to the next.
OF_TRAINED: dict = {}


class Lasting:
    """A jitted function whose compiled programs outlive `jax.clear_caches`."""

    def __init__(self, jitted):
        self.jitted, self.lower, self.programs = jitted, jitted.lower, {}

    def __call__(self, *args):
        shapes = str(jax.tree.map(lambda x: (x.shape, x.dtype), args))
        if shapes not in self.programs:
            self.programs[shapes] = self.jitted.lower(*args).compile()
        return self.programs[shapes](*args)


@contextlib.contextmanager
def traced_once(kept: dict | None = None):
    """Runs of one config in this process share their step, `init` and sampler.

    Tracing takes longer than all that a tiny run computes. Where a test has replaced a function of
    the step's modules, what it makes is not shared.

    Args:
      kept: takes what is shared; None is a new one. What `OF_TRAINED` takes is made to last.
    """
    kept = {} if kept is None else kept
    last = Lasting if kept is OF_TRAINED else lambda jitted: jitted

    def once(what, owner, make, *key):
        key = (what, id(owner), *key, *_functions(*STEP_MODULES))
        if key in OF_TRAINED:
            return OF_TRAINED[key][0]
        if key not in kept:
            kept[key] = make(), owner  # as long as it lives, nothing else has its id
        return kept[key][0]

    def train_step(config, mesh):
        settings = config_lib.flatten(config)
        traced = {
            key: str(value)
            for key, value in settings.items()
            if not any(fnmatch.fnmatch(key, pattern) for pattern in NOT_TRACED)
        }
        return once(
            "bound", None, lambda: build_lib.train_step(config, mesh), *sorted(traced.items()), mesh
        )

    def jit_train_step(bound):
        return once("step", bound, lambda: last(step_lib.jit_train_step(bound)))

    def create(init, seed, mesh):
        jitted = once("init", init.__self__, lambda: last(state_lib.jit_init(init, mesh)))
        return jitted(jax.random.key(seed))

    def sampler(bound, config):
        return once("samples", bound, lambda: sample(bound, config), config.seed)

    def compiled_ahead(program, bound, config):
        if isinstance(program, Lasting):
            return program
        return once("ahead", bound, lambda: ahead(program, bound, config))

    sample, ahead = sample_grid.sampler, jitted_lib.compiled_ahead
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "build_lib", types.SimpleNamespace(train_step=train_step))
        patch.setattr(setup, "step_lib", types.SimpleNamespace(jit_train_step=jit_train_step))
        patch.setattr(setup, "jitted", types.SimpleNamespace(compiled_ahead=compiled_ahead))
        patch.setattr(state_lib, "create", create)
        patch.setattr(sample_grid, "sampler", sampler)
        yield


def _functions(*modules) -> tuple:
    """The functions of some modules, and of their classes: a replaced one is another object.

    But for what `traced_once` has replaced.
    """
    found = []
    for module in modules:
        for value in vars(module).values():
            if inspect.isclass(value):
                found += [x for x in vars(value).values() if inspect.isfunction(x)]
            elif inspect.isfunction(value):
                found.append(value)
    return tuple(x for x in found if not x.__qualname__.startswith("traced_once."))
