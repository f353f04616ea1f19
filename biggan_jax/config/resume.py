"""Which settings of a run may change when it goes on."""

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from biggan_jax.config.flat import flatten
from biggan_jax.errors import UserError

# A resumed run may change these: they alter how long, how often or where, never what is computed.
RESUMABLE = frozenset(
    {
        "num_steps",
        "*_every_steps",  # of hooks; the penalties' `regularizer.every_steps` is no such name
        "eval_samples",
        "eval_features",
        "keep_checkpoints",
        "mesh",
        "remat",
        "tensorboard",
        "class_names",
        "data.source",
        "data.on_bad_record",
        "data.max_pixels",
    }
)
# And these with `train --allow-change`: the game's rules, never the networks that play it.
CHANGEABLE = (
    *("optimizer.*", "regularizer.*", "augment.*", "guard.*"),
    *("loss", "ema.decay", "seed"),
)
# Where rates that stay the same begin to move, or the reverse, these change what the optimizers
# keep, which no checkpoint can supply.
_STRUCTURAL = tuple(
    f"optimizer.{key}" for key in ("decay_start_step", "decay_end_step", "schedule", "warmup_steps")
)


def rates_move(optimizer: Mapping[str, Any]) -> bool:
    """Whether the learning rates differ between updates, for which the optimizers keep a count.

    Args:
      optimizer: the `optimizer` section of a config; settings that an old one lacks are unset.
    """
    decays = optimizer.get("decay_end_step") is not None
    return bool(optimizer.get("warmup_steps")) or (
        decays and optimizer.get("schedule") != "constant"
    )


class Change(NamedTuple):
    """One setting that a resumed run has otherwise than its workdir."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key} {self.old} -> {self.new}"


def check_resume(
    saved: ConfigDict | dict[str, Any],
    config: ConfigDict | dict[str, Any],
    *,
    allow_change: bool = False,
) -> list[Change]:
    """Checks that a config can continue a run.

    Args:
      saved: the config that the run was made with.
      config: the config that is to continue it.
      allow_change: whether the settings of `CHANGEABLE` may have other values.

    Returns:
      The changes that alter what is computed, sorted by key; none without `allow_change`.

    Raises:
      UserError: one line that names every setting that may not change, with both values.
    """
    old, new = flatten(saved), flatten(config)
    changes = [
        Change(key, old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not _matches(key, RESUMABLE)
    ]
    structural = _rates_move(old) != _rates_move(new)
    fixed = [change for change in changes if not _is_changeable(change, structural)]
    if not changes or (allow_change and not fixed):
        return changes
    if allow_change:
        raise UserError(
            f"--allow-change does not go as far as {_listed(fixed)}: restore these values or "
            "choose another --workdir"
        )
    remedy = "restore these values or choose another --workdir"
    if not fixed:
        remedy = (
            "restore these values, choose another --workdir, or go on with the new values by "
            "--allow-change"
        )
    raise UserError(f"this workdir holds a run of another config ({_listed(changes)}): {remedy}")


def _rates_move(flat: dict[str, Any]) -> bool:
    section = "optimizer."
    return rates_move(
        {k.removeprefix(section): v for k, v in flat.items() if k.startswith(section)}
    )


def _is_changeable(change: Change, structural: bool) -> bool:
    if structural and change.key in _STRUCTURAL:
        return False
    return _matches(change.key, CHANGEABLE)


def _matches(key: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)


def _listed(changes: list[Change]) -> str:
    return "; ".join(map(str, changes))
