"""The training step: pure functions of a state and a batch.

`d_step` and `g_step` are deterministic in their arguments; only `train_step` draws latents, labels
and keys. What the players minimise is their `objective`; these functions gather, accumulate and
update. Every D step also advances G's spectral vectors and running statistics (its forward is a
training forward), every G step advances D's spectral vectors. With accumulation each microbatch is
one forward with its own batch statistics.

Where the mesh splits the weights, each step gathers them before the forward passes and goes on with
the device's own part of the gradients, so that optimizer and average work on parts alone.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import FrozenConfigDict

from biggan_jax.models import latents, stages
from biggan_jax.parallel import sharding
from biggan_jax.training import (
    averages,
    fake_labels,
    jitted,
    judge,
    microbatches,
    optimizers,
    regularizers,
    sigma_clamp,
)
from biggan_jax.training import state as state_lib
from biggan_jax.training.judge import Judge, generate, near
from biggan_jax.training.objectives import Objective
from biggan_jax.training.state import GANState

Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """The two players' updates with everything but the state and the batch bound.

    Build it by `build.train_step`.

    Attributes:
      generator, discriminator: unbound modules.
      g_optimizer, d_optimizer: of the players.
      objective: what they minimise.
      mesh: from `sharding.make_mesh`.
      num_d_steps: D updates for one of G.
      accumulation_steps: microbatches of one update.
      regularizer, ema: these sections of the config.
      z_distribution: a name of `latents.DISTRIBUTIONS`.
      d_frozen: top-level modules of D that are never updated.
      label_ends: of the classes of fakes, from `fake_labels.ends`.
      group_spectral: gSR of the generator, from `group_spectral.of_config`.
    """

    generator: nn.Module
    discriminator: nn.Module
    g_optimizer: optax.GradientTransformation
    d_optimizer: optax.GradientTransformation
    objective: Objective
    mesh: Mesh
    num_d_steps: int
    accumulation_steps: int
    regularizer: FrozenConfigDict
    ema: FrozenConfigDict
    z_distribution: str
    d_frozen: frozenset[str]
    label_ends: tuple[float, ...] | None
    group_spectral: Callable[[Any, Any], tuple[jax.Array, Any]] | None = None

    def init(self, key: jax.Array) -> GANState:
        """A fresh state; a pure function of the key."""
        return state_lib.initializer(
            self.generator,
            self.discriminator,
            self.g_optimizer,
            self.d_optimizer,
            self.objective.initial,
            averages.names(self.ema),
        )(key)

    @jax.named_scope("d_update")
    def d_step(
        self,
        state: GANState,
        real,
        labels,
        z,
        gen_labels,
        key=None,
        update=0,
        g_params=None,
        due=None,
    ) -> tuple[GANState, Metrics]:
        """One discriminator update.

        Args:
          state: the state before.
          real: images [B, H, W, C] in [-1, 1].
          labels: their classes, int32 [B].
          z: latents of the fakes [B, dim_z].
          gen_labels: classes of the fakes, int32 [B].
          key: for objectives that draw; that of the run by default.
          update: D updates since the last one of G, in [0, num_d_steps).
          g_params: G's whole parameters, where they were gathered before.
          due: whether penalties are due, where that is known while the program is made.

        Returns:
          (state, metrics): those of the objective, such as d_loss, and d_grad_norm; scalars.
        """
        g, d = state.generator, state.discriminator
        key = state.key if key is None else key
        update = state.step * self.num_d_steps + update
        d_params = sharding.gather_weights(d.params, self.mesh)
        if g_params is None:
            g_params = sharding.gather_weights(g.params, self.mesh)
        parts = self.accumulation_steps
        discriminator, d_apart = microbatches.apart(self.discriminator, d_params, self.mesh, parts)

        def microbatch(carry, batch):
            g_spectral, g_stats, d_spectral, kept, part = carry
            real, labels, z, gen_labels = batch
            of_g = (self.generator, g_params, g_spectral, g_stats, z, gen_labels)
            (fake, g_new), nearby = generate(*of_g), near(*of_g, self.mesh)

            def loss_fn(params):
                params = stages.stop_gradient(params, self.d_frozen)
                own_key = jax.random.fold_in(key, part)
                dropout_key = judge.dropout_key(self.discriminator, own_key)
                D = Judge(discriminator, params, d_spectral, self.mesh, dropout_key)
                batch = (real, labels, fake, gen_labels, own_key, update)
                loss, metrics, new = self.objective.d_update(D, *batch, kept, nearby, due)
                return loss, (D.spectral, new, metrics)

            grads, (*d_new, metrics) = jax.grad(loss_fn, has_aux=True)(d_apart)
            carry = (g_new["spectral"], g_new["batch_stats"], *d_new, part + 1)
            return carry, grads, metrics

        carry = (g.spectral, g.batch_stats, d.spectral, state.objective, jnp.zeros((), jnp.int32))
        batch = (real, labels, z, gen_labels)
        carry, grads, metrics = microbatches.accumulate(
            microbatch, d.params, carry, batch, self.mesh, parts
        )
        g_spectral, g_stats, d_spectral, kept, _ = carry
        grads = self._regularize(grads, d_params, self.regularizer.d_orthogonal, self.d_frozen)
        metrics["d_grad_norm"] = optax.global_norm(grads)
        params, opt_state = optimizers.update(self.d_optimizer, grads, d.opt_state, d.params)
        clamp = self.regularizer.d_sigma_clamp
        params = self._clamp(params, clamp, d_spectral, self.d_frozen)
        d = d.replace(params=params, spectral=d_spectral, opt_state=opt_state)
        g = g.replace(spectral=g_spectral, batch_stats=g_stats)
        objective = self.objective.settle(kept, update)
        return state.replace(generator=g, discriminator=d, objective=objective), metrics

    @jax.named_scope("g_update")
    def g_step(
        self, state: GANState, z, gen_labels, real=None, labels=None, key=None, g_params=None
    ) -> tuple[GANState, Metrics]:
        """One generator update, its average, and the step counter.

        Args:
          state: the state before.
          z: latents [B, dim_z].
          gen_labels: classes, int32 [B].
          real, labels: as many images [B, H, W, C] and their classes, where the objective is
            paired.
          key: for objectives that draw; that of the run by default.
          g_params: as in `d_step`.

        Returns:
          (state, metrics): those of the objective, such as g_loss, and g_grad_norm; scalars.
        """
        g, d = state.generator, state.discriminator
        key = state.key if key is None else key
        d_params = sharding.gather_weights(d.params, self.mesh)
        if g_params is None:
            g_params = sharding.gather_weights(g.params, self.mesh)
        parts = self.accumulation_steps
        generator, g_apart = microbatches.apart(self.generator, g_params, self.mesh, parts)

        def microbatch(carry, batch):
            g_spectral, g_stats, d_spectral, part = carry
            z, gen_labels, real, labels = batch

            def loss_fn(params):
                of_g = (generator, params, g_spectral, g_stats, z, gen_labels)
                (fake, g_new), nearby = generate(*of_g), near(*of_g, self.mesh)
                own_key = jax.random.fold_in(key, part)
                dropout_key = judge.dropout_key(self.discriminator, own_key)
                D = Judge(self.discriminator, d_params, d_spectral, self.mesh, dropout_key)
                batch = (fake, gen_labels, real, labels, own_key)
                loss, metrics = self.objective.g_objective(D, *batch, state.objective, nearby)
                carry = (g_new["spectral"], g_new["batch_stats"], D.spectral, part + 1)
                return loss, (carry, metrics)

            grads, (carry, metrics) = jax.grad(loss_fn, has_aux=True)(g_apart)
            return carry, grads, metrics

        carry = (g.spectral, g.batch_stats, d.spectral, jnp.zeros((), jnp.int32))
        batch = (z, gen_labels, real, labels)
        carry, grads, metrics = microbatches.accumulate(
            microbatch, g.params, carry, batch, self.mesh, parts
        )
        g_spectral, g_stats, d_spectral, _ = carry
        grads = self._regularize(grads, g_params, self.regularizer.g_orthogonal)
        if self.group_spectral:
            metrics["g_group_spectral"], extra = self.group_spectral(g_params, g_spectral)
            grads = jax.tree.map(jnp.add, grads, sharding.scatter_weights(extra, self.mesh))
        metrics["g_grad_norm"] = optax.global_norm(grads)
        params, opt_state = optimizers.update(self.g_optimizer, grads, g.opt_state, g.params)
        params = self._clamp(params, self.regularizer.g_sigma_clamp, g_spectral)
        g = g.replace(params=params, spectral=g_spectral, batch_stats=g_stats, opt_state=opt_state)
        d = d.replace(spectral=d_spectral)
        state = state.replace(step=state.step + 1, generator=g, discriminator=d)
        return state_lib.averaged(state, self.ema), metrics

    def train_step(
        self, state: GANState, batch: dict[str, jax.Array], due: tuple[bool, ...] | None = None
    ) -> tuple[GANState, Metrics]:
        """`num_d_steps` D updates and one G update, with fresh latents for each.

        Where the objective is paired, the fakes of an update have the classes of its real images,
        and the G update takes the real images of the last D update.

        Args:
          state: the state before.
          batch: image uint8 [num_d_steps, B, H, W, C] and label int32 [num_d_steps, B], sharded
            over B.
          due: whether penalties are due in each of the D updates, where that is known while the
            program is made.

        Returns:
          (state, metrics): those of `d_step`, averaged over its updates, and of `g_step`.
        """
        labels = batch["label"]
        n, b = labels.shape
        key = jax.random.fold_in(state.key, state.step)
        z_key, label_key, d_key, g_key = (jax.random.fold_in(key, role) for role in range(4))
        dtype = np.promote_types(self.generator.settings.param_dtype, np.float32)
        # Drawn for all updates at once and outside the scan, where a drawn array has no sharding.
        shape, classes = (n + 1, b), self.generator.num_classes
        z = latents.sample(z_key, (*shape, self.generator.dim_z), dtype, self.z_distribution)
        gen_labels = fake_labels.draw(label_key, shape, classes, self.label_ends)
        z, gen_labels = sharding.constrain_batch((z, gen_labels), self.mesh, axis=1)
        real = batch["image"].astype(dtype) / 127.5 - 1.0
        # Once for all updates: G's weights stay the same until its own.
        g_params = sharding.gather_weights(state.generator.params, self.mesh)

        def one(state, inputs, due=None):
            i, inputs = inputs
            inputs = sharding.constrain_batch(inputs, self.mesh)
            return self.d_step(state, *inputs, jax.random.fold_in(d_key, i), i, g_params, due)

        d_labels = labels if self.objective.paired else gen_labels[:n]
        inputs = (jnp.arange(n), (real, labels, z[:n], d_labels))
        if n == 1:
            state, d_metrics = one(state, jax.tree.map(lambda x: x[0], inputs), due and due[0])
        else:
            unroll = microbatches.unroll(self.mesh)
            run = jitted.one_by_one(due) if due else functools.partial(jax.lax.scan, unroll=unroll)
            state, d_metrics = run(one, state, inputs)
            d_metrics = jax.tree.map(jnp.mean, d_metrics)
        if self.objective.paired:
            g_batch = (labels[n - 1], real[n - 1], labels[n - 1])
        else:
            g_batch = (gen_labels[n], None, None)
        state, g_metrics = self.g_step(state, z[n], *g_batch, g_key, g_params)
        return state, d_metrics | g_metrics

    def _regularize(self, grads: Any, params: Any, strength: float, frozen=frozenset()) -> Any:
        if strength == 0:
            return grads
        # On the raw weights, after accumulation, as the peer does; the shared embedding is exempt.
        form, exempt = self.regularizer.orthogonal_form, ("shared", *frozen)
        extra = regularizers.orthogonal_gradient(params, strength, form, exempt)
        extra = sharding.scatter_weights(extra, self.mesh)
        return jax.tree.map(lambda g, e: g + e.astype(g.dtype), grads, extra)

    def _clamp(self, params: Any, clamp: float | None, spectral: Any, frozen=frozenset()) -> Any:
        form = self.regularizer.sigma_clamp_form
        return sigma_clamp.after_update(params, clamp, form, spectral, frozen, self.mesh)


jit_train_step = jitted.jit_train_step
