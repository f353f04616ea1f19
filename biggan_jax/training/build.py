"""From a config to the bound training step, the same for all who train, time, plan or count it."""

from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from biggan_jax import models
from biggan_jax.training import step


def train_step(config: ConfigDict, mesh: Mesh, *, fused: bool = True) -> step.TrainStep:
    """Builds models, losses and optimizers of a config.

    Args:
      config: a full config with `model.num_classes` set.
      mesh: from `sharding.make_mesh`.
      fused: as `models.build` takes it.

    Raises:
      UserError: for a setting outside its domain.
    """
    players = models.build(
        config.model,
        dtype=config.compute_dtype,
        fused=fused,
        remat=config.remat,
        bn_group_size=config.bn_group_size,
    )
    return step.build(*players, mesh, **step_settings(config))


def step_settings(config: ConfigDict) -> dict[str, Any]:
    """The part of the config that `step.build` takes, as explicit arguments."""
    o = config.optimizer
    return {
        "loss": config.loss,
        "num_d_steps": config.num_d_steps,
        "accumulation_steps": config.accumulation_steps,
        "g_lr": config.optimizer.g_lr,
        "d_lr": config.optimizer.d_lr,
        "beta1": config.optimizer.beta1,
        "beta2": config.optimizer.beta2,
        "adam_eps": config.optimizer.eps,
        "lr_decay": None if o.decay_end_step is None else (o.decay_start_step, o.decay_end_step),
        "g_orthogonal": config.regularizer.g_orthogonal,
        "d_orthogonal": config.regularizer.d_orthogonal,
        "orthogonal_form": config.regularizer.orthogonal_form,
        "ema_decay": config.ema.decay,
        "ema_start_step": config.ema.start_step,
        "z_distribution": config.model.z_distribution,
        "freeze_d": config.finetune.freeze_d,
    }
