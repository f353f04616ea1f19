"""Fine-tuning: a fresh state that starts with the weights of another run or of a model directory.

The source may have other classes, another resolution or another width; what does not fit starts as
in any other run (see `transfer`).
"""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from biggan_jax.config import domains
from biggan_jax.errors import UserError
from biggan_jax.models import stages
from biggan_jax.storage import networks, steps
from biggan_jax.storage.weights import NETWORKS, load_weights, saved_names
from biggan_jax.training import build as build_lib
from biggan_jax.training import state as state_lib
from biggan_jax.training import step, transfer
from biggan_jax.training.transfer import Row, Variables

FILES = {part: name for name, part in NETWORKS.items()}  # in a model directory
PLAYERS = ("generator", "discriminator")
# Settings of a model whose difference shows in the table by itself.
SHAPES = frozenset(
    {
        "ch",
        "channels",
        "resolution",
        "num_classes",
        "dim_z",
        "shared_dim",
        "g_attention",
        "d_attention",
    }
)


@dataclasses.dataclass(frozen=True)
class Source:
    """What a run starts from.

    Attributes:
      config: of the source.
      step: generator updates it has had, None when the directory does not say.
      stages: of its generator and discriminator.
      weights: variables of `generator`, `ema` and `discriminator`, {} where there are none; no
        array stands there twice.
      optimizers: Optax states of `generator` and `discriminator`, when asked for.
      notes: lines about what is missing.
    """

    config: ConfigDict
    step: int | None
    stages: dict[str, list[stages.Stage]]
    weights: dict[str, Variables]
    optimizers: dict[str, Any]
    notes: list[str]


def _print(line: str) -> None:
    print(line, file=sys.stderr)


def check(config: ConfigDict) -> None:
    """Raises UserError for settings of `finetune` outside their domain, or without init_from."""
    f = config.finetune
    domains.check({f"finetune.{key}": value for key, value in f.items()})
    for key in ("freeze_d", "keep_optimizer"):
        if f[key] and config.init_from is None:
            raise UserError(
                f"finetune.{key} is {f[key]}, but there are no weights to start from: set "
                f"--config.init_from to a directory, or leave out --config.finetune.{key}"
            )


def create(
    config: ConfigDict,
    train_step: step.TrainStep,
    tell: Callable[[str], None] = _print,
) -> state_lib.GANState:
    """A fresh state, sharded over the mesh, with the weights of `config.init_from`.

    G starts from the source's raw weights (else from its average), all averages from the source's
    average (else from its raw weights), D from the source's D (else anew). The step is 0, and
    latents and labels are those of any run of this seed.

    Args:
      config: a full config with `init_from`.
      train_step: the bound step.
      tell: gets the lines of a table of what was kept, dropped and new.

    Returns:
      The state; no two of its arrays share a buffer, since it will be donated.

    Raises:
      UserError: for a directory that holds no usable weights, those of another family, or none that
        fit; for an optimizer or frozen layers that it does not have.
    """
    mean = config.finetune.new_classes == "mean"
    source = read(config, train_step.mesh)
    shapes = state_lib.abstract(train_step.init)
    ours = _stages(train_step.generator, train_step.discriminator)
    classes = config.model.num_classes, source.config.model.num_classes
    matchings, rows = {}, {}
    for name in PLAYERS:
        params = getattr(shapes, name).params
        theirs = source.weights[name].get("params", {})
        modules = transfer.match_stages(
            ours[name], source.stages[name], discriminator=name == "discriminator"
        )
        blocks = {stage.name for stage in ours[name] if stage.is_block}
        matchings[name] = transfer.match_layers(params, theirs, modules, classes, blocks)
        order = [stage.name for stage in ours[name]]
        rows[name] = transfer.rows(matchings[name], params, theirs, order, mean=mean)
    _check_fit(config, source, rows, ours, train_step.d_frozen)

    state = state_lib.create(train_step.init, config.seed, train_step.mesh)
    for name, matching in (*matchings.items(), ("ema", matchings["generator"])):
        fresh = getattr(state, name)
        taken = transfer.take(matching, fresh.variables, source.weights[name], mean=mean)
        if name in source.optimizers:
            old = source.optimizers[name]
            taken["opt_state"] = transfer.take_moments(matching, fresh.opt_state, old)
        state = state.replace(**{name: fresh.replace(**taken)})
    state = state.replace(averages={name: state_lib.copied(state.ema) for name in state.averages})
    if jax.process_index() == 0:
        for line in _report(config, source, rows, train_step.d_frozen):
            tell(line)
    return state


def read(config: ConfigDict, mesh: Mesh) -> Source:
    """Reads what `config.init_from` holds, sharded over the mesh.

    Args:
      config: of the run that starts.
      mesh: of that run.

    Returns:
      The source.

    Raises:
      UserError: as `create`.
    """
    try:
        directory, theirs, in_checkpoints, done = steps.find(*steps.split(config.init_from))
        _check_model(config, theirs)
        bound = build_lib.train_step(theirs, mesh)
        shapes = state_lib.abstract(bound.init, mesh)
        keep = config.finetune.keep_optimizer
        if in_checkpoints:
            weights, optimizers, done = _read_checkpoint(directory, shapes, keep, done)
        elif keep:
            raise UserError(
                "only a checkpoint of a workdir has an optimizer state to keep, no model directory "
                "such as best/: leave out --config.finetune.keep_optimizer"
            )
        else:
            weights, optimizers = _read_weights(directory, shapes), {}
    except UserError as error:
        raise UserError(f"--config.init_from={config.init_from}: {error}") from error
    notes = _fill(weights)
    theirs_stages = _stages(bound.generator, bound.discriminator)
    return Source(theirs, done, theirs_stages, weights, optimizers, notes)


def _read_checkpoint(
    directory: Path, shapes: state_lib.GANState, keep_optimizer: bool, step: int | None
):
    """(weights, optimizers, step) of a checkpoint, by default the newest intact one."""
    target = {name: _nonempty(getattr(shapes, name)) for name in FILES}
    if keep_optimizer:
        for name in PLAYERS:
            target[name]["opt_state"] = getattr(shapes, name).opt_state
    weights, done = networks.read_part(directory, target, step)
    optimizers = {
        name: tree.pop("opt_state") for name, tree in weights.items() if "opt_state" in tree
    }
    return weights, optimizers, done


def _read_weights(directory: Path, shapes: state_lib.GANState) -> dict[str, Variables]:
    saved = saved_names(directory)
    found = {
        name: load_weights(directory, file, _nonempty(getattr(shapes, name)))
        for name, file in FILES.items()
        if file in saved
    }
    if not found:
        raise UserError(f"it has none of weights/{{{','.join(FILES.values())}}}")
    return found


def _nonempty(player: state_lib.Player | state_lib.Average) -> Variables:
    """The collections that hold something."""
    return {name: tree for name, tree in player.variables.items() if jax.tree.leaves(tree)}


def _fill(weights: dict[str, Variables]) -> list[str]:
    """Puts something in the place of what is missing, and says so."""
    notes = []
    for name, other in (("generator", "ema"), ("ema", "generator")):
        if name not in weights and other in weights:
            notes.append(f"it holds no {FILES[name]}: {name} starts from {FILES[other]}")
            weights[name] = jax.tree.map(jnp.copy, weights[other])
    for name in FILES:
        if name not in weights:
            notes.append(f"it holds no {FILES[name]}: {name} starts anew")
            weights[name] = {}
    return notes


def _stages(generator, discriminator) -> dict[str, list[stages.Stage]]:
    return {
        "generator": stages.generator_stages(generator),
        "discriminator": stages.discriminator_stages(discriminator, generator.channels),
    }


def _check_model(config: ConfigDict, theirs: ConfigDict) -> None:
    """Raises UserError where equal shapes would hide that the weights mean something else."""
    for key in ("name", "cond_order"):
        there, here = theirs.model[key], config.model[key]
        if there != here:
            raise UserError(
                f"its model.{key} is {there}, but this run's is {here}: set "
                f"--config.model.{key}={there}, or start from other weights"
            )


def _check_fit(
    config: ConfigDict,
    source: Source,
    rows: dict[str, list[Row]],
    ours: dict[str, list[stages.Stage]],
    frozen: frozenset[str],
) -> None:
    """Raises UserError when no block fits, or when a module would be frozen that does not."""
    where = f"--config.init_from={config.init_from}"
    blocks = {(name, stage.name) for name in PLAYERS for stage in ours[name] if stage.is_block}
    kept = [row for name in PLAYERS for row in rows[name] if (name, row.module) in blocks]
    if not any(row.kept for row in kept):
        keys = [key for key in sorted(SHAPES) if key not in ("g_attention", "d_attention")]
        there = ", ".join(f"{key} {source.config.model[key]}" for key in keys)
        raise UserError(
            f"{where}: none of its blocks fits this model; set --config.model.KEY to its values "
            f"({there})"
        )
    unfit = [row for row in rows["discriminator"] if row.module in frozen and row.new]
    if unfit:
        raise UserError(
            f"finetune.freeze_d is {config.finetune.freeze_d}, but {where} has no weights for all "
            f"of {unfit[0].module} ({unfit[0].new:,} parameters are new): lower "
            "--config.finetune.freeze_d"
        )


def _report(
    config: ConfigDict, source: Source, rows: dict[str, list[Row]], frozen: frozenset[str]
) -> list[str]:
    """The table for a person: a line a module, a total for each player, and notes."""
    at = "" if source.step is None else f" after step {source.step}"
    lines = [f"starting from {config.init_from}{at}; parameters:"]
    counts = ("kept", "averaged", "new", "dropped")
    for name in PLAYERS:
        total = {key: sum(getattr(row, key) for row in rows[name]) for key in counts}
        for row in [*rows[name], Row("total", None, **total)]:
            module = row.module
            if row.source not in (None, row.module):
                module += f" from {row.source}"
            cells = [f"{key} {getattr(row, key):,}" for key in counts if getattr(row, key)]
            if name == "discriminator" and module in frozen:
                cells.append("frozen")
            line = f"  {name:<15}{module:<23}" + "".join(f"{cell:<21}" for cell in cells)
            lines.append(line.rstrip())
    lines += [f"  note: {note}" for note in source.notes]
    there, here = source.config.model.to_dict(), config.model.to_dict()
    lines += [
        f"  note: its model.{key} is {there[key]}, this run's is {here[key]}"
        for key in sorted(there.keys() - SHAPES)
        if there[key] != here[key]
    ]
    if config.ema.start_step > 1:
        lines.append(
            f"  note: the average is a copy of G until ema.start_step ({config.ema.start_step}), "
            "whatever it starts from"
        )
    return lines
