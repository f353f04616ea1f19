"""Sections of the page of a run that show pictures and curves."""

import dataclasses
import re

import numpy as np

from biggan_jax.evaluation import run_parts, run_tables
from biggan_jax.evaluation.run_files import Curve, Metrics, is_step
from biggan_jax.evaluation.run_history import History
from biggan_jax.evaluation.run_parts import Section, Table, present
from biggan_jax.pictures import curves
from biggan_jax.pictures.plots import VARIETY
from biggan_jax.pictures.spectra import TITLES

SAMPLES, ABANDONED = 6, 4  # pictures
OTHERS = 12  # metrics that no other section shows
LISTED_LAYERS = 300
LOSSES = {"d_loss": "D", "g_loss": "G"}
SIDES = {"d_loss_real": "real images", "d_loss_fake": "samples"}
LOGITS = {
    "d_real": "real images, in training",
    "d_fake": "samples, in training",
    "monitor/d/logit_train": "training images, at rest",
    "monitor/d/logit_held_out": "held-out images, at rest",
}
ACCURACY = {
    "monitor/d/accuracy_train": "training images",
    "monitor/d/accuracy_held_out": "held-out images",
}
GRADIENTS = {"d_grad_norm": "D", "g_grad_norm": "G"}
SPEED = {"images_per_second": "real images per second"}
SCORES = {
    "fid": "FID (lower is better)",
    "is_mean": "Inception score (higher is better)",
    "kid": "KID (lower is better)",
    "intra_fid": "Intra-class FID (lower is better)",
    "class_accuracy": "Class accuracy (share of samples)",
}
SMALL = {"fid", "kid", "intra_fid"}  # a small score is a good one
SPREAD_OF = re.compile(r"eval/.+_(?:std|standard_error)")
_SIGMA = re.compile(r"monitor/([gd])/((?:raw_)?sigma0)/(.+)")


def samples(run: History) -> Section:
    """Samples of the same latents over training, the real images, and what was abandoned."""
    section = Section("samples", "Samples")
    sizes = run.config.get("batch_size"), run.config.get("num_d_steps")
    per_step = sizes[0] * sizes[1] if all(map(is_step, sizes)) else 0
    for step, path in run_parts.spread(run.samples, SAMPLES):
        seen = f", {step * per_step:,} real images seen" if per_step else ""
        alt = f"Samples of the averaged weights at step {step:,}, a class a row"
        section.pictures.append(run_parts.picture(path, f"step {step:,}{seen}", alt, run.notes))
    if run.real is not None:
        alt = "Real training images, sorted by class"
        section.pictures.append(run_parts.picture(run.real, "real images", alt, run.notes))
    for attempt in run.attempts[-ABANDONED:]:
        if attempt.samples is not None:
            step, path = attempt.samples
            caption = f"abandoned attempt {attempt.number}: step {step:,}"
            section.pictures.append(run_parts.picture(path, caption, caption, run.notes))
    section.pictures = present(section.pictures)
    if not run.samples:
        section.text.append("This run has left no samples.")
    else:
        section.text.append("Averaged weights, the same latents at every step, a class a row.")
    return section


def losses(run: History) -> Section:
    """Losses, logits, norms of the gradients, and what D makes of held-out images."""
    share = {"y": "share of positive logits", "limits": (-0.03, 1.03)}
    title = "Accuracy of D on real images"
    accuracy = run_parts.plot(run, "accuracy", title, ACCURACY, **share)
    norms = {"y": "global norm", "log": True}
    parts = (
        run_parts.plot(run, "losses", "Losses", LOSSES, y="loss"),
        run_parts.plot(run, "sides", "Loss of D by its two sides", SIDES, y="loss of D"),
        run_parts.plot(run, "logits", "Logits of D", LOGITS, y="mean logit"),
        run_parts.plot(run, "gradients", "Gradient norms", GRADIENTS, **norms),
        accuracy,
    )
    section = Section("losses", "Losses, logits and gradients", plots=present(parts))
    if accuracy is not None:
        section.text.append(
            "Where the accuracy on held-out images falls while that on training images stays, D "
            "judges its training images by heart."
        )
    return section


def scores(run: History) -> Section:
    """What was scored while training, one plot a score."""
    section = Section("scores", "Scores")
    rows = []
    for key in [key for key in run.metrics if key.startswith("eval/")]:
        if SPREAD_OF.fullmatch(key):
            continue
        name = key.removeprefix("eval/")
        title = SCORES.get(name, f"{name.replace('_', ' ').capitalize()} (higher is better)")[:80]
        slug = f"score{len(rows)}"
        y = _short(name)
        section.plots += present([run_parts.plot(run, slug, title, {key: y}, y=y)])
        rows.append((title, *_ends(run.metrics[key], name in SMALL)))
    if rows:
        section.tables.append(Table(("score", "last", "best", "at step"), rows))
        section.text.append(
            f"Of {_number(run.config.get('eval_samples'))} samples of the averaged weights."
        )
    section.tables += run_tables.followed(run)
    return section


def spectra(run: History) -> Section:
    """The largest singular value of every layer: of the weight itself, and as the layer uses it."""
    section = Section("spectra", "Spectra by layer")
    shown = {"raw_sigma0": "before spectral normalisation", "sigma0": "as the layer uses it"}
    for kind, words in shown.items():
        for player in ("g", "d"):
            layers = _layers(run.metrics, player, kind)
            if not layers:
                continue
            found = run_parts.plot(
                run,
                f"{kind.replace('_', '')}{player}",
                f"sigma0 of the {TITLES[player]}, {words}",
                layers,
                y="largest singular value",
                colors=curves.ramp(len(layers)),
                log=True,
            )
            section.plots.append(_with_ends(run, found, layers))
            if kind == "raw_sigma0":
                section.tables.append(_layer_table(run.metrics, player, layers))
    if section.plots:
        section.text.append(
            "One line a layer, from the first (blue) to the last (orange); the paper's figure 3."
        )
    return section


def gains(run: History) -> Section:
    """Gains of the batch norms and gamma of the attention."""
    section = Section("gains", "Gains and attention")
    extremes = {}
    for kind, reduce in (("min", np.minimum), ("max", np.maximum)):
        names = [key for key in run.metrics if key.startswith(f"monitor/g/gain_{kind}/")]
        if names:
            extremes[kind] = _over_layers([run.metrics[key] for key in names], reduce)
    shown = {"min": "smallest of all layers", "max": "largest of all layers"}
    title = "Gains of the batch norms of G"
    of_all = dataclasses.replace(run, metrics=extremes, attempts=[], fork=None)
    section.plots += present([run_parts.plot(of_all, "gains", title, shown, y="gain")])
    gammas = {
        key: f"{key.split('/')[1].upper()} {key.split('/', 3)[3]}"
        for key in run.metrics
        if re.fullmatch(r"monitor/[gd]/gamma/.+", key)
    }
    title = "gamma of the attention"
    section.plots += present([run_parts.plot(run, "gamma", title, gammas, y="gamma")])
    return section


def throughput(run: History) -> Section:
    """Real images a second."""
    options = {"y": "images per second", "limits": (0, None)}
    found = run_parts.plot(run, "speed", "Throughput", SPEED, **options)
    section = Section("throughput", "Throughput", plots=present([found]))
    if found is not None and "images_per_second" in run.metrics:
        values = run.metrics["images_per_second"].values
        if np.isfinite(values).any():
            median = np.nanmedian(values)
            section.text.append(
                f"Median {median:,.4g} real images per second, without saving and scoring."
            )
    return section


def others(run: History) -> Section:
    """Metrics that no other section shows."""
    section = Section("others", "Other metrics")
    drawn = {*LOSSES, *SIDES, *LOGITS, *ACCURACY, *GRADIENTS, *SPEED}
    rest = [
        key
        for key in sorted(run.metrics)
        if key not in drawn and not key.startswith(("eval/", "monitor/", "augment/"))
    ]
    for i, key in enumerate(rest[:OTHERS]):
        title = key[:80]
        section.plots += present([run_parts.plot(run, f"other{i}", title, {key: title}, y="value")])
    if len(rest) > OTHERS:
        names = ", ".join(key[:80] for key in rest[OTHERS : OTHERS + 60])
        section.text.append(f"metrics.jsonl has more of them: {names}.")
    return section


def _layers(metrics: Metrics, player: str, kind: str) -> dict[str, str]:
    """{metric: layer} of one value of one player, layers from the first to the last."""
    matches = (_SIGMA.fullmatch(key) for key in metrics)
    return {m[0]: m[3][:80] for m in matches if m and m[1] == player and m[2] == kind}


def _with_ends(run: History, found: run_parts.Plot, layers: dict[str, str]) -> run_parts.Plot:
    """The plot with a legend of the first and the last layer, and not of two hundred."""
    names, colors = list(layers.values()), curves.ramp(len(layers))
    own = [(f"first: {names[0]}", colors[0], "solid")]
    own += [(f"last: {names[-1]}", colors[-1], "solid")] if len(names) > 1 else []
    if any(key in attempt.metrics for attempt in run.attempts for key in layers):
        own.append(run_parts.ABANDONED)
    if run.fork is not None and any(key in run.fork.metrics for key in layers):
        own.append(("parent", curves.GREY, "solid"))
    return dataclasses.replace(found, legend=own)


def _layer_table(metrics: Metrics, player: str, layers: dict[str, str]) -> Table:
    rows = []
    for key, layer in list(layers.items())[:LISTED_LAYERS]:
        values = metrics[key].values[np.isfinite(metrics[key].values)]
        ends = (values[0], values[-1], values.max()) if len(values) else ()
        rows.append((layer, *(f"{value:.4g}" for value in ends)))
    title = f"sigma0 of every layer of the {TITLES[player]}, before spectral normalisation"
    return Table(("layer", "first", "last", "largest"), rows, title, folded=True)


def _over_layers(layers: list[Curve], reduce: np.ufunc) -> Curve:
    """The least or the largest value of all layers at every step that has any."""
    steps = np.unique(np.concatenate([curve.steps for curve in layers]))
    values = np.full(len(steps), np.inf if reduce is np.minimum else -np.inf)
    for curve in layers:
        reduce.at(values, np.searchsorted(steps, curve.steps), curve.values)
    return Curve(steps, np.where(np.isfinite(values), values, np.nan))


def _ends(curve: Curve, small: bool) -> tuple[str, str, str]:
    """(the last value, the best one, its step), as texts."""
    if not np.isfinite(curve.values).any():
        return "not finite", "", ""
    at = int(np.nanargmin(curve.values) if small else np.nanargmax(curve.values))
    return f"{curve.values[-1]:.4g}", f"{curve.values[at]:.4g}", f"{curve.steps[at]:,}"


def _short(name: str) -> str:
    """A score beside its axis: of others than the known ones a font may lack the letters."""
    known = {"fid": "FID", "is_mean": "IS", "kid": "KID", "intra_fid": "FID within classes"}
    return name.replace("_", " ") if name in VARIETY else known.get(name, "score")


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "some"
