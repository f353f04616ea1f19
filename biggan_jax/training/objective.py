"""What the two players minimise, put together of a loss, penalties, terms and augmentation."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from biggan_jax.training import consistency, losses
from biggan_jax.training.logit_terms import LogitTerm, Seen, State
from biggan_jax.training.penalties import Network

Metrics = dict[str, jax.Array]
Near = Callable[[jax.Array, float], jax.Array]  # (key, sigma) -> images, see `judge.near`
AUGMENT = 2**31 + 1  # what is folded into the key of an update for the draws of augmentation


@dataclasses.dataclass(frozen=True)
class Objective:
    """What the two players minimise.

    Attributes:
      d: `d(D, real, real_labels, fake, fake_labels, key) -> (loss, metrics)`.
      g: `g(D, fake, fake_labels, real, real_labels, key) -> (loss, metrics)`.
      paired: real and generated images are compared one with one: the fakes of an update take the
        labels of its real images, and G's objective is given real images too. Otherwise the fakes'
        labels are drawn, and g's `real` and `real_labels` are None.
      penalties: {name: (strength, penalty)} added to what D minimises, where
        `penalty(D, real, real_labels, fake, fake_labels, key)` is a scalar.
      penalty_every_steps: of so many D updates one has the penalties, times this number.
      terms: what is added for the logits of D's forward, and may keep scalars between updates.
      augment: `augment(D, key, state) -> D`, the network that judges augmented images in its place;
        None leaves images as they are.
      latent: zCR, which asks G for the images of latents near those of the fakes; None without it.
    """

    d: Callable[..., tuple[jax.Array, Metrics]]
    g: Callable[..., tuple[jax.Array, Metrics]]
    paired: bool = False
    penalties: dict[str, tuple[float, Callable[..., jax.Array]]] = dataclasses.field(
        default_factory=dict
    )
    penalty_every_steps: int = 1
    terms: tuple[LogitTerm, ...] = ()
    augment: Callable[[Network, jax.Array, State], Network] | None = None
    latent: consistency.Latent | None = None

    @property
    def is_lazy(self) -> bool:
        """Whether D updates with penalties alternate with others without."""
        has_any = bool(self.penalties) or bool(self.latent and self.latent.d)
        return has_any and self.penalty_every_steps > 1

    @property
    def initial(self) -> dict[str, float]:
        """What the terms keep, at the start of a run: scalars by name, {} where none keeps any."""
        return {name: value for term in self.terms for name, value in term.initial.items()}

    def d_objective(
        self, D: Network, real, real_labels, fake, fake_labels, key: jax.Array, update: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """What D minimises in one update: `d` and the penalties that are due.

        Args:
          D: the discriminator at its parameters; with SAN's head it has a `direction` (`judge`).
          real, real_labels: images [B, H, W, C] in [-1, 1] and their classes [B].
          fake, fake_labels: the same of the generator.
          key: of this update.
          update: D updates done before this one, an integer.

        Returns:
          (loss, metrics): a scalar; scalars by name, `d_loss` being the loss, and each penalty as
          it entered the loss: 0 in updates without.
        """
        images = (real, real_labels, fake, fake_labels)
        return self.d_update(D, *images, key, update, self.initial)[:2]

    def d_update(
        self,
        D: Network,
        real,
        real_labels,
        fake,
        fake_labels,
        key: jax.Array,
        update: jax.Array,
        state: State,
        near: Near | None = None,
        due: bool | None = None,
    ) -> tuple[jax.Array, Metrics, State]:
        """`d_objective` where terms have been kept: (loss, metrics, their state after it).

        `near` makes the images of latents near those of the fakes, where there is zCR. Whether
        penalties are due is a matter of `update` unless `due` says so while the program is made.
        """
        images = (real, real_labels, fake, fake_labels)
        direct, D = D, self._judge(D, key, state)
        loss, metrics = self.d(D, *images, key)
        direction = getattr(direct, "direction", None)
        if direction is not None:
            fake_half, real_half = direction.reshape(-1, 2).T  # as `joint_logits` has them
            metrics = metrics | {"san_direction": losses.san_direction(real_half, fake_half)}
            loss = loss + metrics["san_direction"]
        if self.penalties or (self.latent and self.latent.d):
            found = self._penalties(D, images, key, update, near, due)
            loss, metrics = loss + sum(found.values()), metrics | found
        for term in self.terms:
            extra, found, state = term.of_logits(*D.logits, state, update)
            loss, metrics = loss if extra is None else loss + extra, metrics | found
        return loss, metrics | {"d_loss": loss}, state

    def settle(self, state: State, update: jax.Array) -> State:
        """The state of the terms once all microbatches of a D update have been seen."""
        for term in self.terms:
            state = term.settle(state, update)
        return state

    def g_objective(
        self,
        D: Network,
        fake,
        fake_labels,
        real,
        real_labels,
        key: jax.Array,
        state: State | None = None,
        near: Near | None = None,
    ) -> tuple[jax.Array, Metrics]:
        """What G minimises; arguments as `g` and `d_update`, and `g_loss` among the metrics."""
        D = self._judge(D, key, self.initial if state is None else state)
        loss, metrics = self.g(D, fake, fake_labels, real, real_labels, key)
        if self.latent and self.latent.g:
            found = self.latent.of_g(fake, self._near(near, key))
            loss, metrics = loss + found, metrics | {"zcr_g": found}
        return loss, metrics | {"g_loss": loss}

    def _judge(self, D: Network, key: jax.Array, state: State) -> Network:
        if self.augment is not None:
            D = self.augment(D, jax.random.fold_in(key, AUGMENT), state)
        return Seen(D) if self.terms or self.penalties or self.latent else D

    def _near(self, near: Near, key: jax.Array) -> jax.Array:
        return near(jax.random.fold_in(key, consistency.LATENTS), self.latent.sigma)

    def _penalties(
        self,
        D: Network,
        images: tuple,
        key: jax.Array,
        update: jax.Array,
        near: Near | None,
        due: bool | None,
    ) -> Metrics:
        every = self.penalty_every_steps

        def compute() -> Metrics:
            found = {
                name: every * strength * penalty(D, *images, jax.random.fold_in(key, i))
                for i, (name, (strength, penalty)) in enumerate(self.penalties.items(), 1)
            }
            if self.latent and self.latent.d:
                found["zcr_d"] = every * self.latent.of_d(D, self._near(near, key), images[3])
            return found

        if every == 1:
            return compute()
        # In every program, also where it is not needed: each call of D draws by its number.
        shapes = jax.eval_shape(compute)
        if due:
            return compute()

        def nothing() -> Metrics:
            return {name: jnp.zeros(x.shape, x.dtype) for name, x in shapes.items()}

        if due is not None:
            return nothing()
        return jax.lax.cond(update % every == 0, compute, nothing)
