"""The data of a run: opened, described, and checked against the config."""

from pathlib import Path

from ml_collections import ConfigDict

from biggan_jax import data, models
from biggan_jax.errors import UserError
from biggan_jax.parallel import processes
from biggan_jax.storage import label_counts, paths


def open_source(config: ConfigDict, workdir: Path) -> tuple[data.Source, data.DataReport]:
    """Opens the data, fills `model.num_classes`, and checks it against the data."""
    models.check_resolution(config.model)
    source = data.open_source(
        config.data.source,
        resolution=config.model.resolution,
        channels=config.model.channels,
        on_bad_record=config.data.on_bad_record,
    )
    cache = paths.cache_folder(workdir)
    report = label_counts.cached_report(source, cache, write=processes.is_main())
    seen = {"digest": report.digest[:12], "number of images": report.examples}
    processes.check_same(f"data.source {config.data.source}", seen, "give all the same data")
    asked = config.model.num_classes
    if asked is None:
        config.model.num_classes = source.num_classes
    elif asked not in (1, source.num_classes):
        raise UserError(
            f"model.num_classes is {asked}, but {config.data.source} has {source.num_classes} "
            f"classes (labels {report.label_min} to {report.label_max}): set "
            f"--config.model.num_classes={source.num_classes} (or 1 for an unconditional model)"
        )
    _fill_names(config, source)
    return source, report


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
