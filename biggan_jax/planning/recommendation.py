"""Settings that were chosen, each with its reason."""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from biggan_jax.config import default_config, flatten
from biggan_jax.parallel import sharding
from biggan_jax.planning.estimate import flops_per_image
from biggan_jax.training import build

SLOWER = 1.5  # a step is about so many times as slow as its products of matrices


@dataclasses.dataclass
class Recommendation:
    """Settings for a data set and a machine.

    Attributes:
      config: the whole, `model.num_classes` filled in.
      reasons: {setting: why}, of all that was looked at, in that order.
      notes: what the user should know besides.
      step_seconds: measured.
      measuring_seconds: that took, compiling included.
      speed: FLOPs that the machine does in a second, as far as products of matrices tell.
    """

    config: ConfigDict
    reasons: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    step_seconds: float = 0.0
    measuring_seconds: float = 0.0
    speed: float = 0.0

    def choose(self, key: str, value: Any, why: str) -> None:
        """Sets a setting, with the reason."""
        self.config.update_from_flattened_dict({key: value})
        self.reasons[key] = why

    def leave(self, key: str) -> None:
        """Takes a choice back: the setting has its default, and no reason."""
        if self.reasons.pop(key, None) is not None:
            self.config.update_from_flattened_dict({key: flatten(default_config())[key]})

    @property
    def images_per_step(self) -> int:
        """Real images of one update of G."""
        return self.config.batch_size * self.config.num_d_steps

    def images(self, seconds: float) -> float:
        """Real images that a run sees in a time, as its FLOPs and the machine's speed tell."""
        step = build.train_step(self.config, sharding.make_mesh(self.config.mesh))
        flops = flops_per_image(step) * self.config.batch_size
        return self.images_per_step * seconds * self.speed / (SLOWER * flops)

    def measured_speed(self) -> float:
        """The `speed` with which `images` tells what was measured."""
        seen = self.images_per_step / self.step_seconds
        return self.speed * seen / self.images(1.0)

    def settings(self) -> dict[str, Any]:
        """{setting: value} of those with a reason that differ from their defaults."""
        default, own = flatten(default_config()), flatten(self.config)
        return {key: own[key] for key in self.reasons if own[key] != default[key]}

    def lines(self) -> list[str]:
        """What was chosen and why, for a person; settings with one reason on one line."""
        grouped: dict[str, list[str]] = {}
        for key, value in self.settings().items():
            grouped.setdefault(self.reasons[key], []).append(f"{key} = {literal(value)}")
        return [f"  {', '.join(settings)}: {why}" for why, settings in grouped.items()]


def literal(value: Any) -> str:
    """A value as Python has it, text in double quotes where that is as plain."""
    text = repr(value)
    if isinstance(value, str) and text[0] == "'" and '"' not in text:
        return f'"{text[1:-1]}"'
    return text
