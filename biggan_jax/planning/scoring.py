"""`biggan plan --evaluate`: what it costs to score a generator on all chips of a topology.

The programs are those that an evaluation runs, compiled for the share of one chip; how often a host
runs each follows from the number of samples. Times come from published peaks: lower bounds.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from biggan_jax import models
from biggan_jax.config import domains, flatten
from biggan_jax.errors import UserError
from biggan_jax.evaluation import evaluator, opening
from biggan_jax.metrics import classifier, inception, inception_v3, residual
from biggan_jax.models import layout, walk
from biggan_jax.parallel import compiler_options
from biggan_jax.planning import (
    chips,
    compiler,
    hlo,
    input_needs,
    roofline,
    scoring_report,
    scoring_shares,
)
from biggan_jax.planning import costs as costs_lib
from biggan_jax.planning import memory as memory_lib
from biggan_jax.planning import plan as plan_lib
from biggan_jax.planning.chips import Topology
from biggan_jax.sampling import forward, standing
from biggan_jax.sampling.generator import check_bn_mode

SAMPLES = 50_000
FEATURES = {"inception": inception_v3.FEATURES, "classifier": residual.FEATURES}  # dimensions
OPTIONS = evaluator.Options("--samples {}", "--features {}")


@dataclasses.dataclass(frozen=True)
class Network:
    """A program of an evaluation.

    Attributes:
      apply: a function (variables, inputs [N, ...], ...) of one batch.
      variables: shapes of its weights.
      inputs: shapes of the inputs of one example, each [1, ...].
      batch_size: examples that a host gives to its chips at once.
    """

    apply: Callable
    variables: Any
    inputs: tuple[jax.ShapeDtypeStruct, ...]
    batch_size: int


def plan(
    config: ConfigDict,
    topology: str,
    *,
    slices: int = 1,
    samples: int = SAMPLES,
    features: str | None = None,
    bn_mode: str = "running",
    images: int | None = None,
    encode: str | None = None,
    usd_per_chip_hour: float | None = None,
) -> dict[str, Any]:
    """Compiles what one evaluation runs ahead of time, and says what it needs.

    Args:
      config: a full config with `model.num_classes` set.
      topology: of one slice, such as v4:4x4x4.
      slices: slices joined by the data-center network.
      samples: that are scored, by all hosts together.
      features: `inception` or `classifier`; absent: `eval_features`, or Inception for colours.
      bn_mode: running, batch or standing, as in `biggan evaluate`.
      images: real images; absent: see `input_needs.needs`.
      encode: of their records.
      usd_per_chip_hour: price of one chip, for `cost_usd`.

    Returns:
      {topology, slices, chips, devices, evaluate, compile_seconds, fast}; `evaluate` is that of
      `scoring_shares.evaluate` with features, bn_mode, peak_bytes (of the larger program),
      hbm_bytes and cost_usd.

    Raises:
      UserError: for an unknown topology or mode, too few samples, or no libtpu.
    """
    shape = chips.parse(topology)
    name = check(config, samples, features, bn_mode)
    needs = input_needs.needs(config, shape, slices, None, images=images, encode=encode)
    devices = compiler.devices(shape)  # what a chip runs does not depend on other slices
    mesh = jax.make_mesh(
        (len(devices),), (forward.AXIS,), axis_types=(AxisType.Auto,), devices=devices
    )
    start = time.perf_counter()
    local = needs["chips_per_host"] * shape.chip.devices
    runs, peaks = {}, []
    for part, network in networks(config, name, bn_mode).items():
        runs[part], peak = _compiled(network, mesh, shape, local)
        peaks.append(peak)
    seconds = time.perf_counter() - start
    classes = inception_v3.CLASSES if name == "inception" else config.model.num_classes
    pod = scoring_shares.Pod(shape, slices, needs, FEATURES[name], classes)
    found = scoring_shares.evaluate(pod, samples, runs)
    found |= {"features": name, "bn_mode": bn_mode}
    found |= {"peak_bytes": max(peaks), "hbm_bytes": shape.chip.hbm_bytes}
    hours = found["seconds_lower_bound"] / 3600 * shape.chips * slices
    found["cost_usd"] = None if usd_per_chip_hour is None else hours * usd_per_chip_hour
    return {
        "topology": shape.name,
        "slices": slices,
        "chips": shape.chips * slices,
        "devices": mesh.size * slices,
        "evaluate": found,
        "compile_seconds": seconds,
        "fast": True,
    }


def run(
    load: Callable[[list[str]], ConfigDict],
    topology: str,
    *,
    sweep: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
    **options: Any,
) -> tuple[dict[str, Any], str]:
    """Plans the evaluation of one config, or of every config of a sweep.

    Args:
      load, sweep, progress: as in `planning.plan.run`.
      topology, **options: as in `plan`.

    Returns:
      (JSON keys and values, text for a person); of a sweep {'plans': [...]}, each with its
      `overrides`.

    Raises:
      UserError: as `plan`, for any config of the sweep, or for a negative price.
    """
    plan_lib.check_price(options.get("usd_per_chip_hour"))
    plan_lib.check_slices(options.get("slices", 1))
    chips.parse(topology)
    names = ("samples", "features", "bn_mode")
    chosen = {name: options[name] for name in names if name in options}
    found = plan_lib.each(
        load,
        sweep,
        lambda config: check(config, **chosen),
        lambda config: plan(config, topology, **options),
        progress,
    )
    if not sweep:
        return found[0], scoring_report.text(found[0])
    return {"plans": found}, scoring_report.table(found)


def check(
    config: ConfigDict,
    samples: int = SAMPLES,
    features: str | None = None,
    bn_mode: str = "running",
) -> str:
    """Which features an evaluation has; UserError for what can be refused without the compiler."""
    domains.check(flatten(config))
    check_bn_mode(bn_mode)
    usual = "inception" if config.model.channels == 3 else "classifier"
    name = features or config.eval_features or usual
    if name not in FEATURES:
        raise UserError(f"--features {name} cannot be planned: choose {' or '.join(FEATURES)}")
    if samples > opening.MOST_SAMPLES:
        raise UserError(f"{samples:,} samples would take months: set --samples {SAMPLES}")
    evaluator.check_samples(samples, FEATURES[name], name, OPTIONS)
    return name


def networks(config: ConfigDict, features: str, bn_mode: str) -> dict[str, Network]:
    """What an evaluation runs, in its order: standing statistics, generation, features."""
    m = config.model
    g, _ = models.build(m, dtype=config.compute_dtype)
    inputs = walk.generator_inputs(g, 1)
    variables = walk.walk(g, *inputs).variables
    found = {}
    if bn_mode == "standing":
        moments = {"train": True, "collections": ("spectral", "moments")}
        apply = functools.partial(forward.apply, g, **moments)
        found["standing"] = Network(apply, variables, inputs, standing.BATCH_SIZE)
    apply = functools.partial(forward.apply, g, train=bn_mode == "batch")
    found["generation"] = Network(apply, variables, inputs, forward.BATCH_SIZE)
    images = jax.ShapeDtypeStruct((1, m.resolution, m.resolution, m.channels), jnp.uint8)
    if features == "inception":
        side = inception.RESOLUTION
        seen = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
        weights = jax.eval_shape(inception_v3.InceptionV3().init, jax.random.key(0), seen)
        network = Network(inception.outputs, weights, (images,), inception.BATCH_SIZE)
    else:
        net = residual.Network(m.num_classes)
        weights = jax.eval_shape(net.init, jax.random.key(0), images)
        network = Network(net.apply, weights, (images,), classifier.BATCH_SIZE)
    return found | {"features": network}


def _compiled(
    network: Network, mesh: Mesh, topology: Topology, local: int
) -> tuple[dict[str, Any], int]:
    """(costs of one run on one chip, bytes of its HBM) of a program on `local` devices a host."""
    each = -(-network.batch_size // local)
    whole, split = NamedSharding(mesh, P()), NamedSharding(mesh, P(forward.AXIS))
    variables = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), network.variables
    )
    inputs = [
        jax.ShapeDtypeStruct((each * mesh.size, *x.shape[1:]), x.dtype, sharding=split)
        for x in network.inputs
    ]
    # Every host has the chips of a whole topology here: a chip's program is the same.
    options = compiler_options.of_network(layout.platform(mesh))
    lowered = jax.jit(network.apply, compiler_options=options).lower(variables, *inputs)
    n = topology.chip.devices
    try:
        compiled = compiler.compile_step(lowered, fast=True)  # a third of the minutes
    except jax.errors.JaxRuntimeError as e:
        needed = memory_lib.out_of_memory(str(e), 0).peak / chips.GIB
        raise UserError(
            f"{n * each} images at once need {n * needed:.2f} GiB of a chip of {topology.name}, "
            f"which has {topology.chip.hbm_bytes / chips.GIB:.2f}: choose another --topology"
        ) from e
    module = hlo.Module(compiled.as_text())
    found = roofline.costs(module, mesh, topology, 1, 0)
    passes = n * costs_lib.flops(module, passes=True)
    seconds = found["seconds"] | {"compute": passes / topology.chip.flops}
    return {
        "images_per_chip": each * n,
        "flops_per_chip": found["flops_per_chip"],
        "bytes_per_chip": found["bytes_per_chip"],
        "collectives": found["collectives"],
        "seconds": seconds,
    }, n * memory_lib.of_compiled(compiled).peak
