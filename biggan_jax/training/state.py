"""The state of a GAN in training: two players, the average of one of them, a step and a key."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from biggan_jax import config as config_lib
from biggan_jax.config.resume import Change
from biggan_jax.parallel import compiler_options, sharding
from biggan_jax.training import averages as averages_lib
from biggan_jax.training import objectives, optimizers

Tree = Any


@flax.struct.dataclass
class Player:
    """One network in training.

    Attributes:
      params: raw weights (before spectral normalisation).
      spectral: power-iteration vectors, one u per spectrally normalised layer.
      batch_stats: running mean and variance per batch norm ({} for a discriminator).
      opt_state: Optax state.
    """

    params: Tree
    spectral: Tree
    batch_stats: Tree
    opt_state: Tree

    @property
    def variables(self) -> dict[str, Tree]:
        """What the module's `apply` takes."""
        return variables(self)


@flax.struct.dataclass
class Average:
    """Exponential moving average of the generator's parameters and statistics."""

    params: Tree
    spectral: Tree
    batch_stats: Tree

    @property
    def variables(self) -> dict[str, Tree]:
        """What the module's `apply` takes."""
        return variables(self)


@flax.struct.dataclass
class GANState:
    """Everything that a training step reads and writes.

    Attributes:
      step: generator updates done, int32 scalar.
      key: typed PRNG key of the run; step k draws from `fold_in(key, k)`.
      generator, discriminator: the players.
      ema: the average of the generator, with buffers of its own.
      objective: scalars that terms of the objective keep, by name (`logit_terms`); {} without any,
        so that nothing is saved of them.
      averages: more averages of the generator, by name (`config.averages`); {} without any.
    """

    step: jax.Array
    key: jax.Array
    generator: Player
    discriminator: Player
    ema: Average
    objective: dict[str, jax.Array] = flax.struct.field(default_factory=dict)
    averages: dict[str, Average] = flax.struct.field(default_factory=dict)


def variables(weights: Player | Average) -> dict[str, Tree]:
    """{collection: tree} of a player or an average, as the module's `apply` takes it."""
    return {name: getattr(weights, name) for name in ("params", "spectral", "batch_stats")}


def copied(weights: Player | Average) -> Average:
    """An average that is a copy of a player or another average, with buffers of its own."""
    return Average(**jax.tree.map(jnp.copy, variables(weights)))


def initializer(
    generator: nn.Module,
    discriminator: nn.Module,
    g_optimizer: optax.GradientTransformation,
    d_optimizer: optax.GradientTransformation,
    objective: Mapping[str, float],
    averages: Sequence[str] = (),
) -> Callable[[jax.Array], GANState]:
    """Returns `init(key) -> GANState`, a pure function fit for `eval_shape` and `jit`.

    Args:
      generator, discriminator: unbound modules.
      g_optimizer, d_optimizer: of the players.
      objective: what the terms of the objective keep at the start, by name.
      averages: names of the averages beside the main one.
    """

    def init(key: jax.Array) -> GANState:
        g_key, d_key, run_key = _keys(key)
        dtype = np.promote_types(generator.settings.param_dtype, np.float32)
        z = jnp.zeros((1, generator.dim_z), dtype)
        labels = jnp.zeros((1,), jnp.int32)
        size = generator.resolution
        images = jnp.zeros((1, size, size, generator.channels), dtype)
        g = _player(generator.init(g_key, z, labels), g_optimizer)
        d = _player(discriminator.init(d_key, images, labels), d_optimizer)
        # A buffer of its own: sharing one with the donated params is refused at run time.
        ema, *others = (copied(g) for _ in range(1 + len(averages)))
        kept = {name: jnp.asarray(value, dtype) for name, value in objective.items()}
        others = dict(zip(averages, others, strict=True))
        return GANState(jnp.zeros((), jnp.int32), run_key, g, d, ema, kept, others)

    return init


def _keys(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Keys of G's weights, of D's weights, and of the run."""
    return tuple(jax.random.split(key, 3))


def run_key(seed: int, mesh: Mesh) -> jax.Array:
    """The key of a run of another seed, for a state that goes on under it."""
    own = jax.jit(lambda key: _keys(key)[2], out_shardings=sharding.replicated(mesh))
    return own(jax.random.key(seed))


def continued(
    state: GANState, step: int, saved: Mapping[str, Any], config: ConfigDict, mesh: Mesh
) -> GANState:
    """A restored state as a run of other settings goes on from it; the same one for the same.

    Args:
      state: restored, as `abstract` of the new settings has it.
      step: its generator updates.
      saved: the config that it was saved with, as a nested dict.
      config: the settings from now on.
      mesh: on which the state lies.

    Returns:
      The state with the key of the new seed, with rates that are where these settings have them at
      this step, and with what terms of the objective keep, and averages as copies of G, that were
      not there before.
    """
    if saved.get("seed", config.seed) != config.seed:
        state = state.replace(key=run_key(config.seed, mesh))
    g, d = state.generator, state.discriminator
    d_updates = step * config.num_d_steps
    return state.replace(
        generator=g.replace(opt_state=optimizers.at_step(g.opt_state, step)),
        discriminator=d.replace(opt_state=optimizers.at_step(d.opt_state, d_updates)),
        objective=_with_new_terms(state.objective, saved, config),
        averages=_with_new_averages(state, saved),
    )


def is_optional(name: str) -> bool:
    """Whether a checkpoint or a state may lack the array of this name, where the other has it.

    Args:
      name: path in a state, joined by '/': what terms of the objective keep, averages beside the
        main one, and what `optimizers.is_optional` names.
    """
    return name.startswith(("objective/", "averages/")) or optimizers.is_optional(name)


def _with_new_terms(
    kept: dict[str, jax.Array], saved: Mapping[str, Any], config: ConfigDict
) -> dict[str, jax.Array]:
    """What the terms of a config keep, at its start where the saved config had no such term."""
    if not kept:
        return kept
    before = objectives.of_config(config_lib.from_saved(dict(saved))).initial
    return {
        name: kept[name] if name in before else _full(value, kept[name])
        for name, value in objectives.of_config(config).initial.items()
    }


def _with_new_averages(state: GANState, saved: Mapping[str, Any]) -> dict[str, Average]:
    """The averages of a state; those that the saved config had not are copies of G."""
    if not state.averages:
        return state.averages
    before = averages_lib.names(config_lib.from_saved(dict(saved)).ema)
    return {
        name: average if name in before else copied(state.generator)
        for name, average in state.averages.items()
    }


def remark(change: Change) -> str:
    """What a changed setting of a resumed run does to the state, to be put behind it."""
    return optimizers.remark(change) + averages_lib.remark(change)


def _full(value: float, like: jax.Array) -> jax.Array:
    return jnp.full(like.shape, value, like.dtype, device=like.sharding)


def _player(variables: dict[str, Tree], optimizer: optax.GradientTransformation) -> Player:
    params = variables["params"]
    return Player(
        params,
        variables.get("spectral", {}),
        variables.get("batch_stats", {}),
        optimizer.init(params),
    )


def create(init: Callable[[jax.Array], GANState], seed: int, mesh: Mesh) -> GANState:
    """Initialises a state already sharded as `shardings` says."""
    return jit_init(init, mesh)(jax.random.key(seed))


def jit_init(init: Callable[[jax.Array], GANState], mesh: Mesh) -> Callable[[jax.Array], GANState]:
    """`init` jitted, its result sharded as `shardings` says."""
    options = compiler_options.of_init(mesh)
    return jax.jit(init, out_shardings=shardings(init, mesh), compiler_options=options)


def shardings(init: Callable[[jax.Array], GANState], mesh: Mesh) -> Any:
    """Where a state lies on a mesh: one sharding for all of it, or a GANState of them."""
    if mesh.shape["fsdp"] == 1:
        return sharding.replicated(mesh)  # without tracing the whole init
    return jax.tree.map(lambda x: sharding.over_weights(x, mesh), abstract(init))


def abstract(init: Callable[[jax.Array], GANState], mesh: Mesh | None = None) -> GANState:
    """Shapes, dtypes and (with a mesh) shardings of a state, without computing anything."""
    shapes = jax.eval_shape(init, jax.random.key(0))
    if mesh is None:
        return shapes

    def placed(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        place = sharding.over_weights(x, mesh)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)

    return jax.tree.map(placed, shapes)


def averaged(state: GANState, ema: ConfigDict) -> GANState:
    """A state after an update of G, with this G in its averages.

    Args:
      state: its step is the number of updates with this one.
      ema: that section of the config.
    """
    g = state.generator
    # A decay of 0 keeps the average a copy of G until start_step, counted from 1 as the peer.
    decay = jnp.where(state.step < ema.start_step, 0.0, ema.decay)
    return state.replace(
        ema=update_average(state.ema, g, decay),
        averages=averages_lib.update(state.averages, g.variables, ema, state.step),
    )


@jax.named_scope("ema")
def update_average(ema: Average, player: Player, decay: jax.Array) -> Average:
    """decay * ema + (1 - decay) * player, over parameters, spectral vectors and batch statistics.

    References:
      Karras et al. 2018; Brock et al. 2019, appendix C. The statistics are averaged too, as
      BigGAN-PyTorch does with the whole state_dict.
    """

    def mix(old: jax.Array, new: jax.Array) -> jax.Array:
        return decay.astype(old.dtype) * old + (1 - decay).astype(old.dtype) * new

    return Average(
        jax.tree.map(mix, ema.params, player.params),
        jax.tree.map(mix, ema.spectral, player.spectral),
        jax.tree.map(mix, ema.batch_stats, player.batch_stats),
    )
