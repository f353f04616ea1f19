"""Settings that a config changes to no effect."""

from collections.abc import Iterator
from typing import NamedTuple

from ml_collections import ConfigDict

from biggan_jax.config import augmentation, default_config
from biggan_jax.config.flat import flatten

_ATTENTION = ("attention_kind", "attention_form", "attention_reduction")
_EMBEDDING = ("shared_embedding", "hierarchical_z", "shared_dim", "cond_order")
# Entries of `model` that a family does not read.
_UNREAD = {
    "biggan": ("deep_blocks",),
    "sagan": (*_EMBEDDING, "deep_blocks"),
    "sngan": (*_EMBEDDING, "deep_blocks", "width_table"),
    "dcgan": (*_EMBEDDING, "deep_blocks", "width_table", "d_thin", "d_skip", *_ATTENTION),
}
_STAGED = ("records:", "tfds:")  # sources that lie in shards, which a process can copy
# Strengths of what `regularizer.every_steps` is about.
_LAZY = ("r1", "r2", "wgan_gp", "dragan", "consistency", "consistency_fake", "zcr_d")
# What is done anyway, which a config may say.
_SAID = {
    "model.shared_embedding": False,
    "model.hierarchical_z": False,
    "ema.start_step": 0,
    "optimizer.schedule": "constant",
}


class Finding(NamedTuple):
    """One setting without effect.

    Attributes:
      key: the setting.
      why: it has none, as a clause.
      remedy: what to do about it.
    """

    key: str
    why: str
    remedy: str


def without(config: ConfigDict) -> list[Finding]:
    """Finds the settings that differ from their defaults and change nothing.

    Args:
      config: a full config; `model.num_classes` may be unset.

    Returns:
      What was found, in the order of the settings; nothing for a packaged config.
    """
    default, given = flatten(default_config()), flatten(config)
    found = {}
    for key, why, remedy in (
        *_of_model(given),
        *_of_game(given),
        *_of_data(given),
        *_of_schedule(given),
    ):
        if given[key] != default[key] and given[key] != _SAID.get(key):
            found.setdefault(key, Finding(key, why, remedy))
    if given["ema.decay"] > 0 and given["ema.start_step"] >= given["num_steps"]:
        found["ema.decay"] = Finding(
            "ema.decay",
            f"the average starts after ema.start_step = {given['ema.start_step']:,} of the "
            f"{given['num_steps']:,} steps and is a copy of the raw weights",
            "lower --config.ema.start_step",
        )
    return [found[key] for key in given if key in found]


def line(finding: Finding) -> str:
    """A finding for a person."""
    return f"{finding.key} has no effect: {finding.why}; {finding.remedy}"


def _of_model(given: dict) -> Iterator[tuple[str, str, str]]:
    name = given["model.name"]
    for key in _UNREAD.get(name, ()):
        yield f"model.{key}", f"{name} does not read it", "leave it out"
    if given["model.num_classes"] == 1:
        yield "model.shared_dim", "there is one class and no embedding", "leave it out"
    if not given["model.shared_embedding"]:
        yield "model.shared_dim", "model.shared_embedding is False", "leave it out"
    if not given["model.hierarchical_z"]:
        yield "model.cond_order", "model.hierarchical_z is False", "leave it out"
    if not given["model.g_attention"] and not given["model.d_attention"]:
        for key in _ATTENTION:
            yield f"model.{key}", "no block has attention", "set --config.model.g_attention"
    elif given["model.attention_kind"] == "residual":
        for key in _ATTENTION[1:]:
            yield f"model.{key}", "model.attention_kind is residual", "leave it out"
    if not given["model.g_spectral_norm"] and not given["model.d_spectral_norm"]:
        for key in ("sn_eps", "sn_iterations", "sn_eval"):
            yield f"model.{key}", "neither player has spectral norm", "leave it out"


def _of_game(given: dict) -> Iterator[tuple[str, str, str]]:
    strength = {name: given[f"regularizer.{name}"] for name in _LAZY}
    if not any(strength.values()):
        yield "regularizer.every_steps", "there is no penalty", "set --config.regularizer.r1"
    if not strength["consistency"] and not strength["consistency_fake"]:
        why = "there is no consistency regularization"
        yield "regularizer.consistency_flip", why, "set --config.regularizer.consistency"
    if not strength["zcr_d"] and not given["regularizer.zcr_g"]:
        yield "regularizer.zcr_sigma", "there is no zCR", "set --config.regularizer.zcr_d"
    if not given["regularizer.g_group_spectral"]:
        for key in ("g_spectral_groups", "g_spectral_beta"):
            why = "regularizer.g_group_spectral is 0"
            yield f"regularizer.{key}", why, "set --config.regularizer.g_group_spectral"
    if not given["regularizer.lecam"]:
        for key in ("lecam_decay", "lecam_start_step"):
            yield f"regularizer.{key}", "regularizer.lecam is 0", "set --config.regularizer.lecam"
    elif given["regularizer.lecam_start_step"] >= given["num_steps"]:
        why = f"it starts after lecam_start_step = {given['regularizer.lecam_start_step']:,} steps"
        yield "regularizer.lecam", why, "lower --config.regularizer.lecam_start_step"
    if not given["regularizer.g_orthogonal"] and not given["regularizer.d_orthogonal"]:
        why = "there is no orthogonal regularization"
        yield "regularizer.orthogonal_form", why, "set --config.regularizer.g_orthogonal"
    if given["regularizer.g_sigma_clamp"] is None and given["regularizer.d_sigma_clamp"] is None:
        why = "no singular value is clamped"
        yield "regularizer.sigma_clamp_form", why, "set --config.regularizer.g_sigma_clamp"
    if given["loss"] == "relativistic":
        why = "with the relativistic loss each fake has the class of a real image"
        yield "data.fake_labels", why, "leave it out"
    if given["model.num_classes"] == 1:
        yield "data.fake_labels", "the model has no classes", "leave it out"
    yield from _of_augmentation(given)
    if given["init_from"] is None:
        for key in (key for key in given if key.startswith("finetune.")):
            yield key, "the run starts with random weights", "set --config.init_from"
    action = given["guard.action"]
    for key in (key for key in given if key.startswith("guard.") and key != "guard.action"):
        if action == "off":
            yield key, "guard.action is off", "leave it out"
        elif action != "rollback" and "rollback" in key:
            yield key, f"guard.action is {action}", "set --config.guard.action=rollback"
    if not given["ema.decay"] and not given["ema.decays"]:
        yield "ema.start_step", "ema.decay is 0: there is no average", "leave it out"


def _of_augmentation(given: dict) -> Iterator[tuple[str, str, str]]:
    policy = given["augment.policy"]
    if policy == "none":
        for key in (key for key in given if key.startswith("augment.")):
            yield key, "augment.policy is none", "set --config.augment.policy=diffaugment"
        return
    other = {"diffaugment": "groups", "ada": "ops"}.get(policy)
    yield f"augment.{other}", f"augment.policy is {policy}", "leave it out"
    probability, target = given["augment.probability"], given["augment.target"]
    if not augmentation.is_controlled(policy, probability, target):
        for key in ("augment.every_steps", "augment.ramp_images", "augment.heuristic"):
            yield key, "the probability is fixed", "set --config.augment.target=0.6"


def _of_data(given: dict) -> Iterator[tuple[str, str, str]]:
    source = given["data.source"]
    if source is not None and not source.startswith(_STAGED):
        for key in ("data.stage", "data.stage_gb"):
            yield key, f"{source} has no shards to copy", "leave it out"
    if given["data.stage"] is None:
        yield "data.stage_gb", "data.stage is unset", "set --config.data.stage"


def _of_schedule(given: dict) -> Iterator[tuple[str, str, str]]:
    steps = given["num_steps"]
    if given["eval_every_steps"] is None:
        for key in ("eval_samples", "eval_features"):
            yield key, "no step is scored", "set --config.eval_every_steps"
    elif given["eval_every_steps"] > steps:
        why = f"the run has {steps:,} steps"
        yield "eval_every_steps", why, f"set --config.eval_every_steps={steps} or less"
    if (given["monitor_every_steps"] or 0) > steps:
        why = f"the run has {steps:,} steps"
        yield "monitor_every_steps", why, f"set --config.monitor_every_steps={steps} or less"
    start = given["optimizer.decay_start_step"]
    if start is not None and given["optimizer.schedule"] == "constant":
        for key in ("decay_start_step", "decay_end_step"):
            why = "optimizer.schedule is constant"
            yield f"optimizer.{key}", why, "set --config.optimizer.schedule=linear"
    elif start is not None and start >= steps:
        why = f"the rates would fall from step {start:,}, and the run has {steps:,} steps"
        for key in ("decay_start_step", "decay_end_step", "schedule"):
            yield f"optimizer.{key}", why, "lower --config.optimizer.decay_start_step"
