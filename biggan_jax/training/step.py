"""The training step: pure functions of a state and a batch.

`d_step` and `g_step` are deterministic in their arguments; only `train_step` draws latents and
labels. Every D step also advances G's spectral vectors and running statistics (its forward is a
training forward), every G step advances D's spectral vectors. D sees real and fake images in one
call. With accumulation each microbatch is one forward with its own batch statistics.

Where the mesh splits the weights, each step gathers them before the forward passes and goes on with
the device's own part of the gradients, so that optimizer and average work on parts alone.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from biggan_jax.models import latents, stages
from biggan_jax.parallel import sharding
from biggan_jax.training import losses, microbatches, optimizers, regularizers
from biggan_jax.training import state as state_lib
from biggan_jax.training.state import GANState

Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """The two players' updates with everything but the state and the batch bound.

    Build it by `build`. Attributes are documented there.
    """

    generator: nn.Module
    discriminator: nn.Module
    g_optimizer: optax.GradientTransformation
    d_optimizer: optax.GradientTransformation
    loss: losses.GANLoss
    mesh: Mesh
    num_d_steps: int = 1
    accumulation_steps: int = 1
    g_orthogonal: float = 0.0
    d_orthogonal: float = 0.0
    orthogonal_form: str = "off_diagonal"
    ema_decay: float = 0.9999
    ema_start_step: int = 0
    z_distribution: str = "normal"
    d_frozen: frozenset[str] = frozenset()  # top-level modules of D that are never updated

    def init(self, key: jax.Array) -> GANState:
        """A fresh state; a pure function of the key."""
        return state_lib.initializer(
            self.generator, self.discriminator, self.g_optimizer, self.d_optimizer
        )(key)

    def d_step(self, state: GANState, real, labels, z, gen_labels) -> tuple[GANState, Metrics]:
        """One discriminator update.

        Args:
          state: the state before.
          real: images [B, H, W, C] in [-1, 1].
          labels: their classes, int32 [B].
          z: latents of the fakes [B, dim_z].
          gen_labels: classes of the fakes, int32 [B].

        Returns:
          (state, metrics): d_loss, d_loss_real, d_loss_fake, mean logits d_real and d_fake,
          d_grad_norm; scalars.
        """
        g, d = state.generator, state.discriminator
        g_params, d_params = sharding.gather_weights((g.params, d.params), self.mesh)

        def microbatch(carry, batch):
            g_spectral, g_stats, d_spectral = carry
            real, labels, z, gen_labels = batch
            fake, g_new = self.generator.apply(
                {"params": g_params, "spectral": g_spectral, "batch_stats": g_stats},
                z, gen_labels, train=True, mutable=["spectral", "batch_stats"],
            )  # fmt: skip
            images = microbatches.interleave(fake, real.astype(fake.dtype), self.mesh)
            classes = microbatches.interleave(gen_labels, labels, self.mesh)

            def loss_fn(params):
                logits, d_new = self.discriminator.apply(
                    {"params": stages.stop_gradient(params, self.d_frozen), "spectral": d_spectral},
                    images, classes, train=True, mutable=["spectral"],
                )  # fmt: skip
                fake_logits, real_logits = logits.reshape(-1, 2).T
                loss_real, loss_fake = self.loss.d_loss(real_logits, fake_logits)
                metrics = {
                    "d_loss": loss_real + loss_fake,
                    "d_loss_real": loss_real,
                    "d_loss_fake": loss_fake,
                    "d_real": real_logits.mean(),
                    "d_fake": fake_logits.mean(),
                }
                return loss_real + loss_fake, (d_new["spectral"], metrics)

            grads, (d_spectral, metrics) = jax.grad(loss_fn, has_aux=True)(d_params)
            return (g_new["spectral"], g_new["batch_stats"], d_spectral), grads, metrics

        carry = (g.spectral, g.batch_stats, d.spectral)
        batch = (real, labels, z, gen_labels)
        carry, grads, metrics = microbatches.accumulate(
            microbatch, d.params, carry, batch, self.mesh, self.accumulation_steps
        )
        g_spectral, g_stats, d_spectral = carry
        grads = self._regularize(grads, d_params, self.d_orthogonal, self.d_frozen)
        metrics["d_grad_norm"] = optax.global_norm(grads)
        params, opt_state = optimizers.update(self.d_optimizer, grads, d.opt_state, d.params)
        d = d.replace(params=params, spectral=d_spectral, opt_state=opt_state)
        g = g.replace(spectral=g_spectral, batch_stats=g_stats)
        return state.replace(generator=g, discriminator=d), metrics

    def g_step(self, state: GANState, z, gen_labels) -> tuple[GANState, Metrics]:
        """One generator update, its average, and the step counter.

        Args:
          state: the state before.
          z: latents [B, dim_z].
          gen_labels: classes, int32 [B].

        Returns:
          (state, metrics): g_loss, g_grad_norm; scalars.
        """
        g, d = state.generator, state.discriminator
        g_params, d_params = sharding.gather_weights((g.params, d.params), self.mesh)

        def microbatch(carry, batch):
            g_spectral, g_stats, d_spectral = carry
            z, gen_labels = batch

            def loss_fn(params):
                fake, g_new = self.generator.apply(
                    {"params": params, "spectral": g_spectral, "batch_stats": g_stats},
                    z, gen_labels, train=True, mutable=["spectral", "batch_stats"],
                )  # fmt: skip
                logits, d_new = self.discriminator.apply(
                    {"params": d_params, "spectral": d_spectral},
                    fake, gen_labels, train=True, mutable=["spectral"],
                )  # fmt: skip
                loss = self.loss.g_loss(logits)
                carry = (g_new["spectral"], g_new["batch_stats"], d_new["spectral"])
                return loss, (carry, {"g_loss": loss})

            grads, (carry, metrics) = jax.grad(loss_fn, has_aux=True)(g_params)
            return carry, grads, metrics

        carry = (g.spectral, g.batch_stats, d.spectral)
        carry, grads, metrics = microbatches.accumulate(
            microbatch, g.params, carry, (z, gen_labels), self.mesh, self.accumulation_steps
        )
        g_spectral, g_stats, d_spectral = carry
        grads = self._regularize(grads, g_params, self.g_orthogonal)
        metrics["g_grad_norm"] = optax.global_norm(grads)
        params, opt_state = optimizers.update(self.g_optimizer, grads, g.opt_state, g.params)
        g = g.replace(params=params, spectral=g_spectral, batch_stats=g_stats, opt_state=opt_state)
        step = state.step + 1
        # A decay of 0 keeps the average a copy of G until start_step, counted from 1 as the peer.
        decay = jnp.where(step < self.ema_start_step, 0.0, self.ema_decay)
        state = state.replace(
            step=step,
            generator=g,
            discriminator=d.replace(spectral=d_spectral),
            ema=state_lib.update_average(state.ema, g, decay),
        )
        return state, metrics

    def train_step(self, state: GANState, batch: dict[str, jax.Array]) -> tuple[GANState, Metrics]:
        """`num_d_steps` D updates and one G update, with fresh latents for each.

        Args:
          state: the state before.
          batch: image uint8 [num_d_steps, B, H, W, C] and label int32 [num_d_steps, B], sharded
            over B.

        Returns:
          (state, metrics): those of `d_step`, averaged over its updates, and of `g_step`.
        """
        n, b = batch["label"].shape
        key = jax.random.fold_in(state.key, state.step)
        z_key, label_key = (jax.random.fold_in(key, role) for role in range(2))
        dtype = np.promote_types(self.generator.settings.param_dtype, np.float32)
        # Drawn for all updates at once and outside the scan, where a drawn array has no sharding.
        shape, classes = (n + 1, b), self.generator.num_classes
        z = latents.sample(z_key, (*shape, self.generator.dim_z), dtype, self.z_distribution)
        gen_labels = jax.random.randint(label_key, shape, 0, classes, jnp.int32)
        z, gen_labels = sharding.constrain_batch((z, gen_labels), self.mesh, axis=1)
        real = batch["image"].astype(dtype) / 127.5 - 1.0

        def one(state, inputs):
            inputs = sharding.constrain_batch(inputs, self.mesh)
            return self.d_step(state, *inputs)

        inputs = (real, batch["label"], z[:n], gen_labels[:n])
        if n == 1:
            state, d_metrics = one(state, jax.tree.map(lambda x: x[0], inputs))
        else:
            unroll = microbatches.unroll(self.mesh)
            state, d_metrics = jax.lax.scan(one, state, inputs, unroll=unroll)
            d_metrics = jax.tree.map(jnp.mean, d_metrics)
        state, g_metrics = self.g_step(state, z[n], gen_labels[n])
        return state, d_metrics | g_metrics

    def _regularize(self, grads: Any, params: Any, strength: float, frozen=frozenset()) -> Any:
        if strength == 0:
            return grads
        # On the raw weights, after accumulation, as the peer does; the shared embedding is exempt.
        form, exempt = self.orthogonal_form, ("shared", *frozen)
        extra = regularizers.orthogonal_gradient(params, strength, form, exempt)
        extra = sharding.scatter_weights(extra, self.mesh)
        return jax.tree.map(lambda g, e: g + e.astype(g.dtype), grads, extra)


def build(
    generator: nn.Module,
    discriminator: nn.Module,
    mesh: Mesh,
    *,
    loss: str,
    g_lr: float,
    d_lr: float,
    beta1: float,
    beta2: float,
    adam_eps: float,
    lr_decay: tuple[int, int] | None = None,
    num_d_steps: int = 1,
    freeze_d: int = 0,
    **settings,
) -> TrainStep:
    """Binds models, optimizers and settings into a `TrainStep`.

    Args:
      generator, discriminator: from `models.build`.
      mesh: from `sharding.make_mesh`.
      loss: a name of `losses.LOSSES`.
      g_lr, d_lr: Adam's learning rates; two of them are TTUR (Heusel et al. 2017).
      beta1, beta2, adam_eps: Adam's other settings, the same for both.
      lr_decay: generator updates (start, end) between which both rates fall to 0; None: constant.
      num_d_steps: D updates for one of G.
      freeze_d: how many of D's first blocks, those nearest the image, are never updated.
      **settings: accumulation_steps (microbatches of one update), g_orthogonal and d_orthogonal
        (beta, 0 is off), orthogonal_form, ema_decay, ema_start_step (generator updates),
        z_distribution (a name of `latents.DISTRIBUTIONS`).

    Raises:
      UserError: for an unknown loss or distribution, or more frozen blocks than D has.
    """
    adam = lambda lr, n: optimizers.adam(
        lr, beta1=beta1, beta2=beta2, eps=adam_eps, decay=lr_decay, updates_per_step=n
    )
    latents.check_distribution(settings.get("z_distribution", "normal"))
    frozen = stages.frozen_modules(discriminator, generator.channels, freeze_d)
    return TrainStep(
        generator, discriminator, adam(g_lr, 1), optimizers.freeze(adam(d_lr, num_d_steps), frozen),
        losses.get(loss), mesh, num_d_steps, d_frozen=frozen, **settings,
    )  # fmt: skip


def jit_train_step(train_step: TrainStep) -> Callable:
    """The one jitted step: state donated and sharded as `state.shardings` says, batch sharded,
    metrics replicated."""
    mesh = train_step.mesh
    state = state_lib.shardings(train_step.init, mesh)
    return jax.jit(
        train_step.train_step,
        in_shardings=(state, sharding.over_batch(mesh, axis=1)),
        out_shardings=(state, sharding.replicated(mesh)),
        donate_argnums=0,
    )
