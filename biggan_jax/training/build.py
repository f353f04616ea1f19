"""From a config to the bound training step, the same for all who train, time, plan or count it."""

import flax.linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict, FrozenConfigDict

from biggan_jax import models
from biggan_jax.models import latents, stages
from biggan_jax.training import fake_labels, group_spectral, objectives, optimizers
from biggan_jax.training.step import TrainStep


def train_step(
    config: ConfigDict,
    mesh: Mesh,
    *,
    fused: bool = True,
    players: tuple[nn.Module, nn.Module] | None = None,
) -> TrainStep:
    """Builds models, objective and optimizers of a config.

    Args:
      config: a full config with `model.num_classes` set.
      mesh: from `sharding.make_mesh`.
      fused: as `models.build` takes it.
      players: (generator, discriminator) in place of those of the config.

    Returns:
      The bound step; nothing is initialised or compiled.

    Raises:
      UserError: for a setting outside its domain, more frozen blocks than D has, or counts of other
        classes than the model's.
    """
    generator, discriminator = players or models.build(
        config.model,
        dtype=config.compute_dtype,
        fused=fused,
        remat=config.remat,
        bn_group_size=config.bn_group_size,
        mesh=mesh,
    )
    latents.check_distribution(config.model.z_distribution)
    frozen = stages.frozen_modules(discriminator, generator.channels, config.finetune.freeze_d)
    o = config.optimizer
    d_optimizer = optimizers.freeze(optimizers.adam(o, o.d_lr, config.num_d_steps), frozen)
    return TrainStep(
        generator,
        discriminator,
        g_optimizer=optimizers.clip(optimizers.adam(o, o.g_lr), o.clip_norm),
        d_optimizer=optimizers.clip(d_optimizer, o.clip_norm),
        objective=objectives.of_config(config, mesh),
        mesh=mesh,
        num_d_steps=config.num_d_steps,
        accumulation_steps=config.accumulation_steps,
        regularizer=FrozenConfigDict(config.regularizer),
        ema=FrozenConfigDict(config.ema),
        z_distribution=config.model.z_distribution,
        d_frozen=frozen,
        label_ends=fake_labels.ends(config),
        group_spectral=group_spectral.of_config(config, generator),
    )
