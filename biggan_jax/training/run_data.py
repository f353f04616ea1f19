"""The data of a run: opened, described, and checked against the config and the checkpoint."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from biggan_jax import data, models
from biggan_jax.config import augmentation
from biggan_jax.data import findings
from biggan_jax.data.layout import of_layout
from biggan_jax.data.listing import counts
from biggan_jax.errors import UserError
from biggan_jax.parallel import processes
from biggan_jax.storage import json_file, label_counts, paths


def open_source(config: ConfigDict, workdir: Path) -> tuple[data.Source, data.DataReport]:
    """Opens the data, fills `model.num_classes`, and checks it against the data.

    `data.source` is made absolute, so that later commands find it from wherever they start, and
    `data.class_order` is that of the workdir where an older one has the order of older versions.
    """
    if _has_text_order(workdir):
        config.data.class_order = "text"
    source = opened(config)
    data.check_lanes(source, config.batch_size, jax.process_count(), config.data.balance)
    config.data.source = data.absolute(config.data.source)
    cache = paths.cache_folder(workdir)
    report = label_counts.cached_report(source, cache, write=processes.is_main())
    seen = {"digest": report.digest[:12], "number of images": report.examples}
    processes.check_same(f"data.source {config.data.source}", seen, "give all the same data")
    fill_classes(config, source)
    histogram = np.array(report.histogram)
    weighted = config.regularizer.g_group_spectral and config.regularizer.g_spectral_beta
    by_count = config.data.fake_labels == "data" or weighted
    needs_counts = by_count and config.model.num_classes > 1
    if processes.is_main() or needs_counts:
        report = dataclasses.replace(
            report,
            held_out=label_counts.held_out_counts(source, cache),
            balance=config.data.balance,
        )
    if needs_counts:
        config.data.class_counts = tuple(report.in_training().tolist())
    if processes.is_main():
        per_step = config.batch_size * config.num_d_steps
        found = findings.find(
            source,
            histogram,
            images_per_step=per_step,
            balance=config.data.balance,
            held_out=report.held_out,
        )
        report = dataclasses.replace(report, findings=tuple(found))
    return source, report


def batches(
    config: ConfigDict, workdir: Path, source: data.Source, seed: int, start: int
) -> data.Batches:
    """The stream of this process, at the batch of a step; all processes of a run call it."""
    labels = None
    if config.data.balance:
        with processes.main_first():  # where the labels must be read, it keeps them
            labels = label_counts.labels(source, paths.cache_folder(workdir))
    stream = {
        **{"seed": seed, "batch_size": config.batch_size, "num_d_steps": config.num_d_steps},
        **{"flip": config.data.flip, "start_step": start},
        **{"process_index": jax.process_index(), "process_count": jax.process_count()},
        **{"balance": config.data.balance, "labels": labels},
    }
    # The disk of one host may be too small for its shards, and then all must end.
    return processes.together(lambda: data.Batches(source, **stream))


def of_model(batch: dict[str, np.ndarray], config: ConfigDict) -> dict[str, np.ndarray]:
    """A batch with the labels that the model knows: one where it is unconditional."""
    if config.model.num_classes == 1:
        return batch | {"label": np.zeros_like(batch["label"])}
    return batch


def opened(config: ConfigDict) -> data.Source:
    """The data of a config, `data.holdout` of them held out; UserError where they cannot be had."""
    models.check_resolution(config.model)
    source = data.open_source(
        config.data.source,
        resolution=config.model.resolution,
        channels=config.model.channels,
        **data.choices(config.data),
    )
    needed = augmentation.uses_held_out(config.augment)
    without = augmentation.WITHOUT_HELD_OUT if needed else ""
    data.hold_out(source, config.data.holdout, without)
    return source


def fill_classes(config: ConfigDict, source: data.Source) -> None:
    """Fills `model.num_classes` and `class_names`; UserError where they are others."""
    asked = config.model.num_classes
    if asked is None:
        config.model.num_classes = source.num_classes
    elif asked not in (1, source.num_classes):
        raise UserError(
            f"model.num_classes is {asked}, but {config.data.source} has "
            f"{counts(source.num_classes, 'class', 'classes')}{_other_classes(source)}"
        )
    _fill_names(config, source)


def _other_classes(source: data.Source) -> str:
    """What to do about another number of classes: a folder too high up is the usual reason."""
    for finding in of_layout(source):
        return f"; {finding.what}: {finding.remedy}"
    if source.num_classes == 1:
        return ": set --config.model.num_classes=1"
    return (
        f" (labels 0 to {source.num_classes - 1}): set "
        f"--config.model.num_classes={source.num_classes} (or 1 for an unconditional model)"
    )


def _fill_names(config: ConfigDict, source: data.Source) -> None:
    """Gives the config a name for each class of the model; it keeps those that it has."""
    if config.class_names and len(config.class_names) != config.model.num_classes:
        raise UserError(
            f"class_names has {len(config.class_names)} names, but the model "
            f"{config.model.num_classes} classes: give one name a class, or leave "
            "--config.class_names out to take those of the data"
        )
    # An unconditional model of several classes has no use for them.
    if not config.class_names and source.num_classes == config.model.num_classes:
        config.class_names = tuple(map(str, source.class_names))


def _has_text_order(workdir: Path) -> bool:
    """Whether the workdir holds a run whose classes are sorted by text."""
    path = paths.workdir_path(workdir) / "config.json"
    try:
        saved = json_file.read(path)
        return saved["data"].get("class_order", "text") == "text"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # no run, or one that is refused later


def check_resumed(meta: dict[str, Any], source: data.Source) -> None:
    """Checks that a checkpoint was trained on this data.

    Files that were changed since, but are the same as far as the digest tells, are said.

    Args:
      meta: what lies beside the checkpoint's arrays.
      source: the data.

    Raises:
      UserError: it was trained on other data.
    """
    trained_on, digest = meta["data_digest"], source.digest()
    if trained_on not in (digest, source.earlier_digest()):
        raise UserError(
            f"this workdir was trained on other data (digest {trained_on[:12]}, now "
            f"{digest[:12]}): restore --config.data.source or choose another --workdir"
        )
    stamp = meta.get("data_stamp")
    if stamp not in (None, source.stamp()) and processes.is_main():
        print(
            "data: its files were changed or copied since the last checkpoint; names, sizes and "
            "the beginnings of the files are the same",
            file=sys.stderr,
        )
