"""Which settings of a run may change when it goes on, or when another run is forked from it."""

import fnmatch
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from biggan_jax.config.flat import flatten
from biggan_jax.errors import UserError

HISTORY = "config_history.jsonl"  # of a workdir: what changed, and from which step

# A resumed run may change these: they alter how long, how often or where, never what is computed.
RESUMABLE = frozenset(
    {
        "num_steps",
        "*_every_steps",  # of hooks; the penalties' `regularizer.every_steps` is no such name
        "guard.every_steps",
        "eval_samples",
        "eval_features",
        "keep_checkpoints",
        "mesh",
        "remat",
        "writers",
        "tensorboard",
        "report",
        "class_names",
        "data.class_counts",  # filled from the data, as the names
        "data.source",
        "data.on_bad_record",
        "data.max_pixels",
        "data.stage",
        "data.stage_gb",
    }
)
# And these with `train --allow-change`: the game's rules, never the networks that play it.
CHANGEABLE = (
    *("optimizer.*", "regularizer.*", "augment.*", "guard.*"),
    *("loss", "ema.*", "seed"),
)
# A fork may change all but these: what its state was made from, and what its arrays mean. Other
# settings of `model` may change as long as no array has another shape (`training.fork`).
UNFORKABLE = ("init_from", "finetune.*", "model.name", "model.cond_order")
# They may change with the data, which they say how to take.
_OF_DATA = ("data.class_order", "data.holdout")


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
    changes = [change for change in differing(saved, config) if not _matches(change.key, RESUMABLE)]
    fixed = [change for change in changes if not _matches(change.key, CHANGEABLE)]
    if not changes or (allow_change and not fixed):
        return changes
    if allow_change:
        raise UserError(
            f"--allow-change does not go as far as {listed(fixed)}: restore these values or "
            "choose another --workdir"
        )
    remedy = "restore these values or choose another --workdir"
    if not fixed:
        remedy = (
            "restore these values, choose another --workdir, or go on with the new values by "
            "--allow-change"
        )
    raise UserError(f"this workdir holds a run of another config ({listed(changes)}): {remedy}")


def check_fork(
    saved: ConfigDict | dict[str, Any], config: ConfigDict | dict[str, Any], *, other_data: bool
) -> list[Change]:
    """Checks that a run of a config can be forked from another run.

    Args:
      saved: the config that the other run had at the fork.
      config: the config of the fork.
      other_data: whether the fork goes on with other data.

    Returns:
      The changes that alter what is computed, sorted by key.

    Raises:
      UserError: one line that names every setting that may not change, with both values.
    """
    changes = [
        change
        for change in differing(saved, config)
        if not _matches(change.key, RESUMABLE) or (other_data and change.key == "data.source")
    ]
    kept = UNFORKABLE if other_data else (*UNFORKABLE, *_OF_DATA)
    fixed = [change for change in changes if _matches(change.key, kept)]
    if fixed:
        raise UserError(
            f"a fork goes on with the networks and the data that it comes from, and does not go "
            f"as far as {listed(fixed)}: restore these values"
        )
    return changes


def differing(
    saved: ConfigDict | dict[str, Any], config: ConfigDict | dict[str, Any]
) -> list[Change]:
    """The settings that two configs have otherwise, sorted by key."""
    old, new = flatten(saved), flatten(config)
    return [
        Change(key, old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def history_line(step: int, changes: Iterable[Change]) -> str:
    """The line of `HISTORY` that says what changed from a step on."""
    settings = {change.key: {"old": change.old, "new": change.new} for change in changes}
    return json.dumps({"step": step, "changes": settings}) + "\n"


def listed(changes: Iterable[Change]) -> str:
    """Several changes in one line."""
    return "; ".join(map(str, changes))


def _matches(key: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)


def may_change(key: str) -> bool:
    """Whether a run can ever have changed a setting after its first step.

    Names and counts of classes can have been changed, but not by a run alone: they come from the
    data.
    """
    return key not in ("class_names", "data.class_counts") and _matches(
        key, (*RESUMABLE, *CHANGEABLE)
    )


def rules_changed(
    saved: ConfigDict | dict[str, Any], config: ConfigDict | dict[str, Any]
) -> list[Change]:
    """The changes that `--allow-change` allows."""
    return [change for change in differing(saved, config) if _matches(change.key, CHANGEABLE)]
