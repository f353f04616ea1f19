"""The top-level modules of a player in the order of their calls, and which of them are blocks."""

import dataclasses
import re

import flax.linen as nn
import jax

from biggan_jax.errors import UserError, counts
from biggan_jax.models import walk

BLOCK = re.compile(r"(?!attention_|residual_)[a-z]+_\d+")  # not attention, which is named by place


@dataclasses.dataclass(frozen=True)
class Stage:
    """One top-level module of a player.

    Attributes:
      name: as in the parameter tree.
      in_size, out_size: pixels of the square feature maps it takes and gives; 1 where it takes or
        gives no map.
    """

    name: str
    in_size: int
    out_size: int

    @property
    def is_block(self) -> bool:
        """Whether it is one of the numbered blocks that a player is a chain of."""
        return BLOCK.fullmatch(self.name) is not None


def generator_stages(generator: nn.Module) -> list[Stage]:
    """Stages of an unbound generator, from z to the image; nothing is computed."""
    return _stages(walk.of_generator(generator))


def discriminator_stages(discriminator: nn.Module, channels: int) -> list[Stage]:
    """Stages of an unbound discriminator, from the image to the logit; nothing is computed."""
    return _stages(walk.of_discriminator(discriminator, channels))


def _stages(found: walk.Walk) -> list[Stage]:
    return [
        Stage(call.path[0], _size(call.inputs[0]), _size(call.output)) for call in found.top_level()
    ]


def _size(x: jax.ShapeDtypeStruct) -> int:
    return x.shape[1] if len(x.shape) == 4 else 1


def frozen_modules(discriminator: nn.Module, channels: int, count: int) -> frozenset[str]:
    """Names of the first `count` blocks of D, and of what stands before and between them.

    Args:
      discriminator: unbound.
      channels: of its images.
      count: 0 freezes nothing.

    Returns:
      Names of top-level modules; none for a count of 0.

    Raises:
      UserError: D has fewer blocks.

    References:
      Mo et al. 2020, "Freeze the Discriminator: a Simple Baseline for Fine-Tuning GANs".
    """
    if count <= 0:
        return frozenset()
    stages = discriminator_stages(discriminator, channels)
    places = [i for i, stage in enumerate(stages) if stage.is_block]
    if count > len(places):
        raise UserError(
            f"finetune.freeze_d is {count}, but this discriminator has "
            f"{counts(len(places), 'block', 'blocks')}: set "
            f"--config.finetune.freeze_d to at most {len(places)}"
        )
    return frozenset(stage.name for stage in stages[: places[count - 1] + 1])


def stop_gradient(params: dict, names: frozenset[str]) -> dict:
    """params with the top-level modules of these names constant: no gradient is computed there."""
    return {
        name: jax.lax.stop_gradient(tree) if name in names else tree
        for name, tree in params.items()
    }
