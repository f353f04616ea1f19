"""The domain of every setting, stated once: what may be written, and what the refusal says.

A word that names an entry of a registry (a loss, a family of models, an initialiser, a kind of data
source) is checked by the room that owns the registry.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from biggan_jax.errors import UserError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Range:
    """The finite numbers from `low` to below `high`.

    Attributes:
      low, high: the ends.
      closed: `high` itself belongs to it.
      above: `low` itself does not.
    """

    low: float
    high: float = math.inf
    closed: bool = False
    above: bool = False

    def __contains__(self, value: float) -> bool:
        if self.above and value == self.low:
            return False
        return self.low <= value < self.high or (self.closed and value == self.high)

    def __str__(self) -> str:
        if self.above and self.high == math.inf:
            return f"more than {self.low}"
        if self.above:
            return f"more than {self.low} and {'up to' if self.closed else 'below'} {self.high}"
        if self.high == math.inf:
            return f"{self.low} or more"
        return f"a value from {self.low} to {'' if self.closed else 'below '}{self.high}"


class Choice(tuple):
    """The words, or the numbers, that a setting may be."""

    def __new__(cls, *values: str | int):
        return super().__new__(cls, values)

    def __str__(self) -> str:
        *most, last = map(str, self)
        return f"{', '.join(most)} or {last}"


@dataclasses.dataclass(frozen=True)
class Each:
    """The sequences of different numbers.

    Attributes:
      domain: of each of them.
      kind: int or float.
      repeats: whether a number may stand there twice.
    """

    domain: Range
    kind: type
    repeats: bool = False

    def __contains__(self, values: tuple) -> bool:
        kinds = (int,) if self.kind is int else (int, float)
        numbers = all(isinstance(x, kinds) and not isinstance(x, bool) for x in values)
        once = self.repeats or len(set(values)) == len(values)
        return numbers and once and all(x in self.domain for x in values)

    def __str__(self) -> str:
        return f"numbers, each {self.domain}{'' if self.repeats else ', none twice'}"


@dataclasses.dataclass(frozen=True)
class Words:
    """The sequences of different words.

    Attributes:
      choice: what each of them is.
      needed: the one that is always among them.
    """

    choice: Choice
    needed: str

    def __contains__(self, values: tuple) -> bool:
        known = all(value in self.choice for value in values)
        return known and len(set(values)) == len(values) and self.needed in values

    def __str__(self) -> str:
        return f"words, each {self.choice}, none twice, and {self.needed} among them"


AT_LEAST_0 = Range(0)
AT_LEAST_1 = Range(1)
ABOVE_0 = Range(0, above=True)
STEP = Range(0, 2**31)  # what is compared with the count of steps, an int32, in a compiled step
MOST_BITS = 63  # of a whole number
LARGEST_SIDE = 8192  # pixels: an image of three channels takes 200 MB

# Setting -> what it may be; an unset one is not looked at. `config.default_config` says what each
# is for.
DOMAINS: dict[str, Range | Choice | Each | Words] = {
    "seed": Range(0, 2**32),
    "batch_size": Range(1, 2**20, closed=True),  # beyond, only a slip of the keyboard
    "num_d_steps": AT_LEAST_1,
    "accumulation_steps": AT_LEAST_1,
    "num_steps": Range(1, 2**31),
    "log_every_steps": AT_LEAST_1,
    "checkpoint_every_steps": AT_LEAST_1,
    "sample_every_steps": AT_LEAST_1,
    "monitor_every_steps": AT_LEAST_1,
    "eval_every_steps": AT_LEAST_1,
    "eval_samples": AT_LEAST_1,
    "eval_features": Choice("inception", "dinov2", "classifier"),
    "keep_checkpoints": AT_LEAST_1,
    "writers": Words(Choice("jsonl", "tensorboard", "wandb"), "jsonl"),
    "compute_dtype": Choice("float32", "bfloat16"),
    "bn_group_size": Range(2),
    "model.resolution": Range(1, LARGEST_SIDE, closed=True),
    "model.channels": Choice(1, 3),
    "model.ch": AT_LEAST_1,
    "model.num_classes": AT_LEAST_1,
    "model.dim_z": AT_LEAST_1,
    "model.shared_dim": AT_LEAST_1,
    "model.rgb_width": AT_LEAST_1,
    "model.bn_eps": AT_LEAST_0,
    "model.bn_momentum": Range(0, 1, closed=True),
    "model.bn_variance": Choice("unbiased", "biased"),
    "model.sn_eps": AT_LEAST_0,
    "model.sn_iterations": AT_LEAST_1,
    "model.sn_eval": Choice("iterate", "stored"),
    "model.d_skip": Choice("input", "activated"),
    "model.deep_blocks": Choice("paper", "studiogan"),
    "model.d_dropout": Range(0, 1),
    "model.d_head": Choice("linear", "san"),
    "optimizer.g_lr": AT_LEAST_0,
    "optimizer.d_lr": AT_LEAST_0,
    # A beta of 1 divides by zero in Adam's bias correction.
    "optimizer.beta1": Range(0, 1),
    "optimizer.beta2": Range(0, 1),
    "optimizer.eps": AT_LEAST_0,
    "optimizer.decay_start_step": STEP,
    "optimizer.decay_end_step": Range(1, 2**31),
    "optimizer.schedule": Choice("constant", "linear", "cosine"),
    "optimizer.warmup_steps": STEP,
    "optimizer.clip_norm": ABOVE_0,
    "regularizer.g_orthogonal": AT_LEAST_0,
    "regularizer.d_orthogonal": AT_LEAST_0,
    "regularizer.g_group_spectral": AT_LEAST_0,
    "regularizer.g_spectral_groups": AT_LEAST_1,
    "regularizer.g_spectral_beta": Range(0, 1),
    "regularizer.orthogonal_form": Choice("off_diagonal", "full"),
    "regularizer.g_sigma_clamp": ABOVE_0,
    "regularizer.d_sigma_clamp": ABOVE_0,
    "regularizer.sigma_clamp_form": Choice("value", "ratio"),
    "regularizer.r1": AT_LEAST_0,
    "regularizer.r2": AT_LEAST_0,
    "regularizer.wgan_gp": AT_LEAST_0,
    "regularizer.dragan": AT_LEAST_0,
    "regularizer.consistency": AT_LEAST_0,
    "regularizer.consistency_fake": AT_LEAST_0,
    "regularizer.zcr_d": AT_LEAST_0,
    "regularizer.zcr_g": AT_LEAST_0,
    "regularizer.zcr_sigma": ABOVE_0,
    "regularizer.lecam": AT_LEAST_0,
    "regularizer.lecam_decay": Range(0, 1),
    "regularizer.lecam_start_step": STEP,
    "regularizer.every_steps": AT_LEAST_1,
    "augment.policy": Choice("none", "diffaugment", "ada"),
    "augment.probability": Range(0, 1, closed=True),
    "augment.heuristic": Choice("signs", "held_out"),
    "augment.target": Range(-1, 1, closed=True),
    "augment.every_steps": Range(1, 2**31),
    "augment.ramp_images": AT_LEAST_1,
    "finetune.new_classes": Choice("fresh", "mean"),
    "finetune.freeze_d": AT_LEAST_0,
    "guard.action": Choice("off", "warn", "stop", "rollback"),
    "guard.every_steps": AT_LEAST_1,
    "guard.diversity_every_steps": AT_LEAST_1,
    "guard.max_rollbacks": AT_LEAST_0,
    "guard.on_rollback.lr_factor": Range(0, 1, closed=True, above=True),
    "guard.on_rollback.r1": AT_LEAST_0,
    "ema.decay": Range(0, 1, closed=True),
    "ema.start_step": STEP,
    "ema.decays": Each(Range(0, 1, closed=True), float),
    # Beyond, the profile would forget the newest weights (gamma below 0).
    "ema.profiles": Each(Range(0, 0.28, closed=True, above=True), float),
    "data.balance": Range(0, 1, closed=True),
    "data.fake_labels": Choice("uniform", "data"),
    "data.class_counts": Each(AT_LEAST_0, int, repeats=True),
    "data.holdout": Range(0, 0.5, closed=True),
    "data.on_bad_record": Choice("error", "skip"),
    "data.class_order": Choice("natural", "text"),
    "data.max_pixels": AT_LEAST_1,
    "data.stage_gb": ABOVE_0,
}


def kind_of_parts(key: str) -> type:
    """What the parts of a sequence are: float where its domain says so, else int."""
    domain = DOMAINS.get(key)
    return float if isinstance(domain, Each) and domain.kind is float else int


def check(settings: Mapping[str, Any]) -> None:
    """Checks each of some settings by itself.

    Args:
      settings: {'model.ch': 96, ...}; those without a domain, and unset ones, are not looked at.

    Raises:
      UserError: one line with the first value that lies outside its domain, and the domain.
    """
    for key, value in settings.items():
        domain = DOMAINS.get(key)
        bits = value.bit_length() if isinstance(value, int) else 0
        if bits > MOST_BITS:
            raise UserError(f"{key} has {bits} bits: set --config.{key} to a number of {MOST_BITS}")
        if domain is None or value is None or value in domain:
            continue
        words = isinstance(value, str) and isinstance(domain, Choice)
        hint = did_you_mean(value, map(str, domain)) if words else ""
        finite = not isinstance(value, float) or math.isfinite(value)
        shown = repr(value) if isinstance(value, str) else value
        raise UserError(
            f"{key} is {shown}{hint}; set --config.{key} to "
            f"{domain if finite else f'a finite value, {domain}'}"
        )


def check_option(option: str, key: str, value: Any) -> None:
    """Checks the value of an option that stands for a setting.

    Args:
      option: such as `--resolution`.
      key: the setting, which has a domain.
      value: None where the option was not given.

    Raises:
      UserError: one line with the option, its value and the domain.
    """
    if value is not None and value not in DOMAINS[key]:
        raise UserError(f"{option} is {value}; set it to {DOMAINS[key]}")
