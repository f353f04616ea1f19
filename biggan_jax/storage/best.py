"""The best scored state of a run, copied aside: `WORKDIR/best/`, a model directory with its score.

It holds config.json, weights/ and `score.json` {step, metric, score, scores, protocol}. It is no
checkpoint, so no retention policy and no later command can delete it.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from biggan_jax.parallel import processes
from biggan_jax.storage import integrity, json_file, paths, replacement
from biggan_jax.storage.directory import BEST
from biggan_jax.storage.weights import NETWORKS, save_weights

SCORE = "score.json"
METRIC = "fid"  # the score that decides; lower is better


def keep(
    workdir: str | Path,
    step: int,
    state: Any,
    config: Mapping[str, Any],
    scores: Mapping[str, float],
    protocol: Mapping[str, Any] | None = None,
) -> bool:
    """Copies a training state aside when its score is the best so far.

    All processes of a run call it; the arrays may lie on several of them.

    Args:
      workdir: of the run.
      step: finished training steps.
      state: a `training.state.GANState`.
      config: the full config of the run as a nested dict.
      scores: name -> value; where `METRIC` is missing or not finite nothing is kept.
      protocol: how the scores were measured.

    Returns:
      Whether it became the best; an equal or worse score keeps the old one.

    Raises:
      OSError: it could not be written; the old best one is still there.
    """
    networks = {name: getattr(state, part).variables for name, part in NETWORKS.items()}
    networks |= {name: average.variables for name, average in state.averages.items()}
    return keep_networks(workdir, step, networks, config, scores, protocol)


def keep_networks(
    workdir: str | Path,
    step: int,
    networks: Mapping[str, Mapping[str, Any]],
    config: Mapping[str, Any],
    scores: Mapping[str, float],
    protocol: Mapping[str, Any] | None = None,
) -> bool:
    """Copies any of the networks aside when their score is the best so far; see `keep`.

    A best one that cannot be compared, since its protocol was another or its score is unreadable,
    is not deleted but set aside as `best.earlier`, `best.earlier-2` and so on.

    Args:
      workdir: where `best/` lies.
      step: finished training steps.
      networks: variables by the name of their weights: any of `g`, `g_ema`, `d` and of the other
        averages of G (`config.averages`).
      config, scores, protocol: see `keep`.

    Returns:
      Whether it became the best.

    Raises:
      OSError: it could not be written.
    """
    path = integrity.absolute(workdir) / BEST
    score = scores.get(METRIC)
    score = float("nan") if score is None else float(score)
    record = {"step": int(step), "metric": METRIC, "score": score}
    finite = {name: float(x) if math.isfinite(x) else None for name, x in scores.items()}
    record |= {"scores": finite, "protocol": protocol and dict(protocol)}
    better = False
    if processes.is_main():  # it alone decides: others may see a shared folder late
        replacement.prepare(path)
        better = _is_better(read(workdir), record)
    if not processes.from_main(better):
        return False
    fresh = path.with_name(f"{BEST}.new")
    for name, variables in networks.items():
        filled = {k: v for k, v in variables.items() if jax.tree.leaves(v)}
        save_weights(fresh, name, filled, {"config": dict(config)})
    if processes.is_main():
        paths.write_bytes(fresh / "config.json", _json(config))
        paths.write_bytes(fresh / SCORE, _json(record))
        if not _is_comparable(read(workdir), record):
            _set_aside(path)
        replacement.commit(path)
    processes.barrier()
    return True


def read(workdir: str | Path) -> dict[str, Any] | None:
    """Reads the score of the best state.

    Args:
      workdir: of the run.

    Returns:
      {step, metric, score, scores, protocol}; None where there is none.
    """
    path = replacement.whole(integrity.absolute(workdir) / BEST) / SCORE
    try:
        record = json_file.read(path)
        whole = type(record["step"]) is int and math.isfinite(record["score"])
        return record if whole and isinstance(record["scores"], dict) else None
    except (
        FileNotFoundError,
        NotADirectoryError,
        ValueError,
        TypeError,
        KeyError,
        ArithmeticError,
    ):
        return None


def _is_better(old: dict[str, Any] | None, new: dict[str, Any]) -> bool:
    if not math.isfinite(new["score"]):
        return False
    return old is None or not _is_comparable(old, new) or new["score"] < old["score"]


def _is_comparable(old: dict[str, Any] | None, new: dict[str, Any]) -> bool:
    if old is None or old.get("metric") != new["metric"]:
        return False
    return _fingerprint(old.get("protocol")) == _fingerprint(new["protocol"])


def _fingerprint(protocol: Any) -> Any:
    """What tells protocols apart: their fingerprint leaves out the step and the model's name."""
    plain = json.loads(json.dumps(protocol))
    return plain.get("fingerprint", plain) if isinstance(plain, dict) else plain


def _set_aside(path: Any) -> None:
    """Copies a best state that cannot be compared to a name that nothing else writes to."""
    if not path.is_dir():
        return
    aside, copies = path.with_name(f"{BEST}.earlier"), 1
    while aside.exists():
        copies += 1
        aside = path.with_name(f"{BEST}.earlier-{copies}")
    # Not renamed: a kill before the new one has the name would leave none of it.
    replacement.copy(path, replacement.prepare(aside))
    replacement.commit(aside)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
