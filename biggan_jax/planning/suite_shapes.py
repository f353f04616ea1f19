"""The shapes that `biggan bench --suite` times, each as a function that runs once."""

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from biggan_jax.config import config_file
from biggan_jax.parallel import sharding
from biggan_jax.planning import bench
from biggan_jax.training import build, state
from biggan_jax.training.step import TrainStep


@dataclasses.dataclass(frozen=True)
class Shape:
    """What is timed under one name.

    Attributes:
      name: in tables.
      config: name of a config that the package carries.
      overrides: KEY=VALUE of the config.
      kind: a key of `KINDS`.
    """

    name: str
    config: str
    overrides: tuple[str, ...] = ()
    kind: str = "step"


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A shape that is ready to run.

    Attributes:
      run: does it once, to its end.
      images: that one run takes or makes.
      compile_seconds: of its program; None where it has none.
    """

    run: Callable[[], object]
    images: int
    compile_seconds: float | None


_TEN_CLASSES = "model.num_classes=10"
_ONE_UPDATE_EACH = "num_d_steps=1"
# Narrow and wide, every family, both ends of a run. Small enough for five minutes on two cores, and
# of the sizes that the fast forms of convolutions were chosen for.
SHAPES = (
    Shape("digits-16-ch16", "digits"),
    Shape("biggan-32-ch16", "fashion_mnist"),
    Shape(
        "biggan-64-ch16",
        "folder",
        ("model.ch=16", "batch_size=16", _TEN_CLASSES, _ONE_UPDATE_EACH),
    ),
    Shape("biggan-32-ch64", "cifar10", ("batch_size=16", _ONE_UPDATE_EACH)),
    Shape(
        "sagan-32-ch32",
        "sagan128",
        ("model.resolution=32", "model.ch=32", "batch_size=16", _TEN_CLASSES,
         "model.g_attention=(16,)", "model.d_attention=(16,)"),
    ),
    Shape(
        "deep-32-ch32",
        "biggan_deep128",
        ("model.resolution=32", "model.ch=32", "batch_size=16", _TEN_CLASSES, _ONE_UPDATE_EACH,
         "model.g_attention=(16,)", "model.d_attention=(16,)", "compute_dtype=float32"),
    ),
    Shape("dcgan-32-ch32", "dcgan_cifar10", ("model.ch=32", "batch_size=32")),
    Shape("bfloat16-16-ch16", "digits", ("compute_dtype=bfloat16",)),
    Shape("sample-32-ch16", "fashion_mnist", kind="sample"),
    Shape("input-32", "fashion_mnist", ("data.source=digits", "batch_size=256"), kind="input"),
)  # fmt: skip


def prepare(shape: Shape) -> Prepared:
    """Builds and compiles what a shape runs.

    Raises:
      ImportError: where a package is missing that only this shape needs.
    """
    overrides = ("mesh=(1,)", *shape.overrides)
    config = config_file.load(shape.config, [f"--config.{o}" for o in overrides])
    return KINDS[shape.kind](config)


def random_state(train_step: TrainStep, mesh: Mesh) -> state.GANState:
    """A state of the right shapes whose numbers are drawn without a program.

    To compile the initialisation would take as long as the step itself. Weights are as large as
    initialised ones, so that activations are neither 0 nor infinite.
    """
    rng = np.random.default_rng(0)

    def draw(path, x):
        where = jax.tree_util.keystr(path)
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            value = jax.random.key(0)
        elif "opt_state" in where or jnp.issubdtype(x.dtype, jnp.integer):
            value = np.zeros(x.shape, x.dtype)
        elif "spectral" in where or x.ndim > 1:
            fan_in = math.prod(x.shape[:-1]) or 1
            value = (rng.standard_normal(x.shape) / math.sqrt(fan_in)).astype(x.dtype)
        else:  # gains and variances are 1; that biases and means are too does no harm
            value = np.ones(x.shape, x.dtype)
        return jax.device_put(value, x.sharding)

    return jax.tree_util.tree_map_with_path(draw, state.abstract(train_step.init, mesh))


def _step(config) -> Prepared:
    stepper = bench.Stepper(config, random_state)
    return Prepared(stepper, config.num_d_steps * config.batch_size, stepper.compile_seconds)


def _sample(config) -> Prepared:
    """Images of latents, as `biggan sample` makes them, after the weights are loaded."""
    from biggan_jax.sampling.generator import LoadedGenerator

    mesh = sharding.make_mesh((1,))
    trained = random_state(build.train_step(config, mesh), mesh)
    generator = LoadedGenerator(config, jax.tree.map(np.asarray, trained.generator.variables))
    count = 128
    labels = np.arange(count) % config.model.num_classes

    def run() -> None:
        generator(generator.sample_z(config.seed, count), labels)

    start = time.perf_counter()
    run()
    return Prepared(run, count, time.perf_counter() - start)


def _input(config) -> Prepared:
    """Batches of prepared records, as `biggan train` reads them."""
    from biggan_jax import data

    with tempfile.TemporaryDirectory() as folder:
        images = {"resolution": config.model.resolution, "channels": config.model.channels}
        records = Path(folder) / "records"
        data.prepare(data.open_source(config.data.source, **images), records)
        source = data.open_source(f"records:{records}", **images)
        batches = data.Batches(source, seed=config.seed, batch_size=config.batch_size)
        next(batches)  # the files are open now, and go on to be read after their names are gone
    count = 20

    def run() -> None:
        for _ in range(count):
            next(batches)

    return Prepared(run, count * config.batch_size, None)


KINDS = {"step": _step, "sample": _sample, "input": _input}
