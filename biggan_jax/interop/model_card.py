"""What is told of a model that travels: metadata, a card for people, a picture of its samples."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from biggan_jax import __version__
from biggan_jax.errors import UserError
from biggan_jax.pictures import grids
from biggan_jax.sampling.classes import described as class_text
from biggan_jax.sampling.generator import LoadedGenerator
from biggan_jax.storage import best, hub, json_file, published

CARD, SAMPLES = "model_card.md", "samples.png"
ROWS, COLUMNS = 10, 8  # of the picture
LISTED = 20  # classes that the card spells out


def describe(
    generator: LoadedGenerator,
    directory: str | Path,
    *,
    weights: str = "ema",
    truncation: float | None = None,
    truncation_kind: str = "resample",
) -> dict[str, Any]:
    """What a user of the exported model must know, as JSON values.

    Args:
      generator: as it is exported.
      directory: that it was loaded from; the scores of its last evaluation are taken along.
      weights: `ema`, `raw` or the name of another average.
      truncation: threshold that is advised for its latents; None is none.
      truncation_kind: `resample` or `scale`.

    Returns:
      {model, name, resolution, channels, num_classes, class_names, dim_z, z_distribution,
      truncation, truncation_kind, bn_mode, weights, step, data, scores, protocol, version}; scores
      and protocol are None where the directory holds no evaluation.
    """
    config, model = generator.config, generator.config.model
    section = config.get("data") or {}
    kept = ("source", "class_counts", "flip", "balance", "holdout")
    evaluated = _evaluation(Path(directory), generator.step)
    return {
        "model": model.name,
        "name": published.name(directory),
        "resolution": generator.resolution,
        "channels": generator.channels,
        "num_classes": generator.num_classes,
        "class_names": list(generator.class_names),
        "dim_z": generator.dim_z,
        "z_distribution": model.z_distribution,
        "truncation": truncation,
        "truncation_kind": truncation_kind if truncation is not None else None,
        "bn_mode": generator.bn_mode,
        "weights": weights,
        "step": generator.step,
        "data": published.without_places({k: _plain(section[k]) for k in kept if k in section}),
        "scores": evaluated.get("scores"),
        "protocol": published.without_places(evaluated.get("protocol")),
        "version": __version__,
    }


def files(
    generator: LoadedGenerator,
    metadata: dict[str, Any],
    program: str,
    license: str,
    before: str = "",
) -> dict[str, bytes]:
    """The card and its picture, by their file names, which begin with `before`."""
    return {
        before + CARD: card(metadata, program, license, before + SAMPLES).encode(),
        before + SAMPLES: grids.png(_samples(generator, metadata)),
    }


def card(metadata: dict[str, Any], program: str, license: str, samples: str = SAMPLES) -> str:
    """A model card in Markdown, with the header that the Hugging Face Hub reads.

    Args:
      metadata: of `describe`.
      program: file name of the exported model; `model.safetensors` of a model directory.
      license: an SPDX name.
      samples: file name of the picture.
    """
    m = metadata
    size = f"{m['resolution']} x {m['resolution']}"
    colour = "grey" if m["channels"] == 1 else "RGB"
    step = f", {m['step']:,} steps" if m["step"] is not None else ""
    truncation = "none"
    if m["truncation"] is not None:
        truncation = f"{m['truncation']} ({m['truncation_kind']})"
    folded = "" if program == hub.WEIGHTS else ", spectral norm folded into the weights"
    rows = {
        "model": f"{m['model']}, {size} pixels, {colour}",
        "classes": _classes(m),
        "latents": f"{m['dim_z']}, {m['z_distribution']}; advised truncation: {truncation}",
        "weights": f"{m['weights']}{step}",
        "batch norm": f"{m['bn_mode']} statistics{folded}",
        "made by": f"biggan_jax {m['version']}",
    }
    lines = ["---", f"license: {license}", "library_name: biggan_jax", "tags:"]
    lines += ["- gan", "- biggan", "- image-generation", "- class-conditional", "---", ""]
    lines += [f"# {m['name']}", "", f"![samples]({quote(samples)})", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows.items()]
    lines += ["", "## Data", "", *_data(m), "", "## Scores", "", *_scores(m), "", "## Use", ""]
    return "\n".join([*lines, *_use(m, program), ""])


def _classes(m: dict[str, Any]) -> str:
    names = [class_text(i, m["class_names"]) for i in range(len(m["class_names"]))]
    shown = ", ".join(names[:LISTED])
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{m['num_classes']}" + (f": {shown}{more}" if names else "")


def _data(m: dict[str, Any]) -> list[str]:
    data = m["data"]
    if not data.get("source"):
        return ["Not known: the model was imported, or its config names no data."]
    lines = [f"Trained on `{data['source']}`."]
    counts = data.get("class_counts") or []
    if counts:
        lines.append(
            f"{sum(counts):,} images; {min(counts):,} in the smallest class, {max(counts):,} in "
            "the largest."
        )
    if data.get("holdout"):
        lines.append(f"A share of {data['holdout']:g} was kept out of training.")
    return lines


def _scores(m: dict[str, Any]) -> list[str]:
    if not m["scores"]:
        return ["None yet: `biggan evaluate` measures them before an export."]
    p = m["protocol"]
    lines = ["| score | value |", "|---|---|"]
    lines += [f"| {name} | {value:.5g} |" for name, value in m["scores"].items()]
    real = f"{p['real_count']:,} images" if p.get("real_count") else "statistics"
    lines += [
        "",
        f"{p['samples']:,} samples against {real} of `{p['real']}`, {p['features']} features, "
        f"truncation {p['truncation']}, {p['bn_mode']} batch norm, {p['weights']} weights; "
        f"protocol {p['fingerprint']}. Scores of other protocols cannot be compared with these.",
    ]
    return lines


def _use(m: dict[str, Any], program: str) -> list[str]:
    draw = f"z = numpy.random.default_rng(0).normal(size=(4, {m['dim_z']})).astype('float32')"
    labels = f"labels = numpy.arange(4, dtype='int32') % {m['num_classes']}"
    if program == hub.WEIGHTS:
        truncation = (
            "" if m["truncation"] is None else f", {m['truncation']}, {m['truncation_kind']!r}"
        )
        run = [
            "# pip install 'biggan_jax[hub]'",
            "import numpy",
            "from biggan_jax import load_generator",
            "",
            f"generator = load_generator({m.get('address', '.')!r})",
            f"z = generator.sample_z(0, 4{truncation})",
            labels,
            "images = generator(z, labels)",
        ]
    elif program.endswith(".onnx"):
        run = [
            "import numpy, onnxruntime",
            "",
            draw,
            labels,
            f"session = onnxruntime.InferenceSession({program!r})",
            "(images,) = session.run(None, {'z': z, 'labels': labels})",
        ]
    else:
        run = [
            "import jax, numpy",
            "",
            draw,
            labels,
            f"with open({program!r}, 'rb') as file:",
            "    generator = jax.export.deserialize(bytearray(file.read()))",
            "images = generator.call(z, labels)",
        ]
    shape = f"[4, {m['resolution']}, {m['resolution']}, {m['channels']}]"
    return ["```python", *run, f"# float32 {shape} in [-1, 1]", "```"]


def _samples(generator: LoadedGenerator, metadata: dict[str, Any]):
    """A grid of samples, a class a row."""
    k = generator.num_classes
    ids = np.unique(np.linspace(0, k - 1, min(k, ROWS)).astype(np.int32))
    rows = len(ids) if k > 1 else COLUMNS
    labels = np.repeat(ids, COLUMNS) if k > 1 else np.zeros(rows * COLUMNS, np.int32)
    kind = metadata["truncation_kind"] or "resample"
    z = generator.sample_z(0, len(labels), metadata["truncation"], kind)
    names = [class_text(i, generator.class_names) for i in ids] if k > 1 else None
    return grids.grid(generator(z, labels), COLUMNS, row_labels=names)


def _evaluation(directory: Path, step: int | None) -> dict[str, Any]:
    """The last evaluation of this very step, or the score that a run's best state has."""
    for read in (_reported, _of_best):
        found = read(directory)
        if found and (found["protocol"].get("step") == step):
            return found
    return {}


def _reported(directory: Path) -> dict[str, Any]:
    file = directory / "report" / "evaluation.json"
    try:
        found = json_file.read(file)
        return {name: found[name] for name in ("scores", "protocol")}
    except (UserError, OSError, ValueError, KeyError, TypeError):
        return {}


def _of_best(directory: Path) -> dict[str, Any]:
    try:
        found = best.read(directory)
        return {name: found[name] for name in ("scores", "protocol")}
    except (UserError, OSError, ValueError, KeyError, TypeError):
        return {}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value


def read_license(text: str) -> str:
    """An SPDX name as it was given, or UserError where it would break the card's header."""
    if not text.strip() or any(c in text for c in "\n:#"):
        raise UserError(f"--license {text!r}: give an SPDX name, such as cc-by-4.0 or mit")
    return text.strip()
