"""What would go wrong in a run or surprise, found before it starts: `biggan doctor`."""

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from biggan_jax import config as config_lib
from biggan_jax import data
from biggan_jax.config import domains, effect
from biggan_jax.config.flat import flatten
from biggan_jax.data.finding import Finding
from biggan_jax.errors import UserError
from biggan_jax.parallel import sharding
from biggan_jax.planning import machine
from biggan_jax.planning.estimate import Footprint, flops_per_image, footprint
from biggan_jax.storage import checkpoint, paths, steps
from biggan_jax.training import build, finetune, run_data
from biggan_jax.training import workdir as workdir_lib

SLACK = 1.5  # a compiled step of this package was up to 1.6 times as large as the estimate
LONG_DAYS = 30.0
# Before one of these words a refusal goes on to the remedy.
_REMEDY = re.compile(
    r"[:;] (?=(?:add|change|choose|copy|correct|export|give|import|install|leave|lower|make|move"
    r"|name|pass|prepare|put|remove|repair|restore|run|sample|set|start|take|train|unpack|use|write)\b)"
)


@dataclasses.dataclass
class Examination:
    """What was found.

    Attributes:
      problems: those that stop a run first.
      facts: lines for a person.
      images, classes: of the data; None where it cannot be opened.
    """

    problems: list[Finding] = dataclasses.field(default_factory=list)
    facts: list[str] = dataclasses.field(default_factory=list)
    images: int | None = None
    classes: int | None = None

    def attempt(self, where: str, function: Callable, *args: Any, **kwargs: Any) -> Any:
        """What a function returns; None, and a problem more, where the user has to act first."""
        try:
            return function(*args, **kwargs)
        except (UserError, OSError) as error:
            self.problems.append(_stopping(error, where))
        return None

    def note(self, what: str, where: str, remedy: str, *, stops: bool = False) -> None:
        """Adds a problem."""
        self.problems.append(Finding(what, where, remedy, stops))

    def sorted(self) -> list[Finding]:
        """The problems, each once, those that stop a run first."""
        return sorted(dict.fromkeys(self.problems), key=lambda problem: not problem.stops)


def of_data(
    found: Examination, source: Any, images_per_step: int | None = None, balance: float = 0.0
) -> None:
    """Looks at a source: its layout and counts, and a sample of its pictures.

    Args:
      found: gets the problems, the facts, and the number of images and classes.
      source: an open `data.Source`.
      images_per_step: real images of one update of G, where it is known.
      balance: `data.balance` of the stream.
    """
    from biggan_jax.data import findings, report

    found.images, found.classes = len(source), source.num_classes
    if source.histogram_is_cheap:
        described = found.attempt(source.spec, report.data_report, source)
        if described is None:
            return
        held_out = _held_out(source)
        described = dataclasses.replace(described, balance=balance, held_out=held_out)
        found.facts += described.facts()
        histogram = np.array(described.histogram)
    else:  # a scan of all labels would take minutes: every class is taken for as large
        found.facts.append(f"data {source.spec}: {len(source):,} images, {found.classes:,} classes")
        histogram, held_out = np.full(source.num_classes, len(source) // source.num_classes), ()
    listed = found.attempt(
        source.spec,
        findings.find,
        source,
        histogram,
        images_per_step=images_per_step,
        balance=balance,
        held_out=held_out,
        thorough=True,
    )
    found.problems += listed or ()


def _held_out(source: Any) -> tuple[int, ...]:
    """Held-out examples of each class; none where nothing is held out, or labels must be read."""
    if source.held_out is None or not source.labels_are_cheap:
        return ()
    labels = source.labels_of(np.flatnonzero(source.held_out))
    return tuple(np.bincount(labels, minlength=source.num_classes).tolist())


def of_config(found: Examination, config: ConfigDict, workdir: Path | None = None) -> None:
    """Looks at a config and what it asks for: data, batch, memory, device, disk, files.

    Args:
      found: gets what was found.
      config: a full config; `model.num_classes` is filled in from the data.
      workdir: where the run would be kept; need not exist. None looks at the disk of the current
        folder.
    """
    _within_domains(found, config)
    mesh = found.attempt("mesh", sharding.make_mesh, config.mesh)
    if mesh is not None:
        found.attempt("batch_size", config_lib.validate, config, mesh.size)
    for setting in effect.without(config):
        found.note(f"{setting.key} has no effect: {setting.why}", setting.key, setting.remedy)
    source = _open(found, config)
    if source is not None:
        of_data(found, source, config.batch_size * config.num_d_steps, config.data.balance)
        found.attempt("model.num_classes", run_data.fill_classes, config, source)
        of_stream = config.batch_size, jax.process_count(), config.data.balance
        found.attempt("data.source", data.check_lanes, source, *of_stream)
    if workdir is not None:
        found.attempt("workdir", _check_workdir, config, paths.absolute(workdir))
    _check_files(found, config)
    if config.model.num_classes is None:
        config.model.num_classes = 1  # only to go on: what lacks is said above
    train_step = mesh and found.attempt("model", build.train_step, config, mesh)
    if train_step:
        needs = footprint(train_step)
        _check_memory(found, config, mesh, needs)
        _check_disk(found, config, workdir or Path(), needs)
        _check_time(found, config, train_step)


def _within_domains(found: Examination, config: ConfigDict) -> None:
    """Names every setting outside its domain, and goes on as if it had its default."""
    default = flatten(config_lib.default_config())
    for key, value in flatten(config).items():
        before = len(found.problems)
        found.attempt(key, domains.check, {key: value})
        if len(found.problems) > before:
            config.update_from_flattened_dict({key: default[key]})


def _check_workdir(config: ConfigDict, workdir: Path) -> None:
    """Raises UserError where `train` would refuse a workdir, or the run that it holds."""
    workdir_lib.check_place(workdir)
    checkpoints = checkpoint.Checkpoints(workdir / "checkpoints")
    if checkpoints.latest_step() is not None:
        same = config.copy_and_resolve_references()  # it fills in what the run was made from
        workdir_lib.check(same, workdir, checkpoints, False)


def _open(found: Examination, config: ConfigDict) -> Any:
    """The data as `train` opens them; None where that fails, or would download them."""
    kind, _, argument = (config.data.source or "").partition(":")
    if kind == "tfds":
        from biggan_jax.data import tfds_source

        before = len(found.problems)
        if lacks := found.attempt("data.source", tfds_source.to_prepare, argument):
            remedy = "`biggan train` downloads and prepares it at its start"
            found.note(lacks, "data.source", remedy)
        if len(found.problems) > before:
            return None
    return found.attempt("data.source", run_data.opened, config)


def _stopping(error: UserError | OSError, where: str) -> Finding:
    """A refusal, cut where it goes on to say what to do."""
    text = str(error)
    for cut in _REMEDY.finditer(text):
        what = text[: cut.start()]
        if what.count("(") == what.count(")"):  # not inside a parenthesis
            return Finding(what, where, text[cut.end() :], True)
    return Finding(text, where, f"correct {where}", True)


def _check_files(found: Examination, config: ConfigDict) -> None:
    """Weights and statistics that the run will read."""
    found.attempt("finetune", finetune.check, config)
    if config.init_from is not None:
        directory, step = steps.split(config.init_from)
        found.attempt("init_from", steps.find, directory, step)
    if config.eval_every_steps is None:
        return
    from biggan_jax.evaluation import inputs
    from biggan_jax.metrics import classifier, dinov2

    name = inputs.features_name(config.eval_features, None, config.model.channels)
    if name == "classifier" and found.classes == 1:
        what = f"{config.data.source} has a single class, so no classifier can be fitted"
        found.note(what, "eval_features", "set --config.eval_features=inception", stops=True)
    network: Any = classifier.Classifier
    if name == "inception":
        network = found.attempt("eval_features", inputs.open_inception, None)
    elif name == "dinov2":
        network = found.attempt("eval_features", dinov2.DINOv2.load, inputs.dinov2_directory(None))
    if network is None:
        return
    dimensions = network.feature_dim
    if config.eval_samples <= dimensions:
        found.note(
            f"eval_samples is {config.eval_samples:,} for the {dimensions:,} dimensions of {name} "
            "features, whose covariance needs more",
            "eval_samples",
            f"set --config.eval_samples={dimensions + 1} or more",
            stops=True,
        )


def _check_memory(found: Examination, config: ConfigDict, mesh: Mesh, needs: Footprint) -> None:
    needed, have = needs.on_device(config, mesh), machine.memory()
    what = f"a step needs about {size(needed)} on each device"
    found.facts.append(f"memory: {what}" + (f", {size(have)} are there" if have else ""))
    if have is None or SLACK * needed <= have:
        return
    lower = ", or ".join(
        f"--config.{key}"
        for key in ("batch_size=N with a smaller N", "accumulation_steps=N", "remat=all")
    )
    found.note(
        f"{what}, and XLA up to {SLACK:g} times as much, but {size(have)} are there",
        "batch_size",
        f"set {lower}",
        stops=needed > have,
    )


def _check_disk(found: Examination, config: ConfigDict, workdir: Path, needs: Footprint) -> None:
    if paths.is_remote(workdir):
        return
    at = Path(workdir).absolute()
    while not at.exists():
        at = at.parent
    # One more is written before the oldest goes; the best state has no optimizers.
    copies = config.keep_checkpoints + 1 + (config.eval_every_steps is not None)
    needed, free = copies * needs.state, shutil.disk_usage(at).free
    found.facts.append(f"disk: checkpoints need about {size(needed)}, {size(free)} are free")
    if needed > free:
        found.note(
            f"checkpoints need about {size(needed)} ({copies} of {size(needs.state)}), but "
            f"{size(free)} are free",
            str(at),
            "free space, choose another --workdir, or set --config.keep_checkpoints=1",
            stops=2 * needs.state > free,
        )


def _check_time(found: Examination, config: ConfigDict, train_step: Any) -> None:
    """On a CPU, whose speed a product of matrices tells in a moment."""
    if jax.default_backend() != "cpu":
        return
    flops = flops_per_image(train_step) * config.batch_size
    seconds = flops / machine.flops_per_second()
    total = seconds * config.num_steps
    found.facts.append(
        f"time: a step takes at least {duration(seconds)}, all {config.num_steps:,} of them at "
        f"least {duration(total)}"
    )
    if total > LONG_DAYS * 86400:
        found.note(
            f"on this processor the run takes at least {duration(total)}",
            "num_steps",
            "train on an accelerator (docs/launching.md), or make model.ch, model.resolution or "
            "num_steps smaller",
        )


def size(count: float) -> str:
    """Bytes for a person."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 999.5 or unit == "GB":  # what rounds to 1,000 is 1 of the next unit
            return f"{count:,.3g} {unit}" if count < 999.5 else f"{count:,.0f} {unit}"
        count /= 1000
    raise AssertionError


def duration(seconds: float) -> str:
    """A time for a person, in the largest unit of which there is one."""
    for unit, length in (("years", 365.25 * 86400), ("days", 86400), ("hours", 3600), ("min", 60)):
        if seconds >= length:
            number = seconds / length
            return f"{number:,.0f} {unit}" if number >= 9.95 else f"{number:.2g} {unit}"
    return f"{seconds:,.2g} s"
