"""A recommendation as a config file, and the commands that use it."""

import shlex
import textwrap
from pathlib import Path

from biggan_jax.data.survey import Survey
from biggan_jax.errors import counts
from biggan_jax.planning.recommendation import Recommendation, literal

WIDTH = 99
PREPARE_FROM = 0.1  # of a step's time that decoding its pictures takes


def commands(found: Recommendation, survey: Survey, folder: Path) -> list[str]:
    """The three commands that follow, with absolute paths; they can be pasted anywhere.

    Args:
      found: the settings.
      survey: what the data are like.
      folder: that of the config file, absolute.

    Returns:
      `prepare` where that is faster, `train`, `report`, and `sample` where there is no `prepare`.
    """
    m, workdir = found.config.model, _free(folder, "run")
    lines, source = [], []
    decoding = survey.read_seconds * found.images_per_step
    if survey.encoded and decoding > PREPARE_FROM * found.step_seconds:
        records = _free(folder, "records")
        size = [f"--resolution={m.resolution}", f"--channels={m.channels}"]
        skip = ["--on-bad-record=skip", f"--out={records}"]
        lines.append(["prepare", f"--source={survey.spec}", *size, *skip])
        source = [f"--config.data.source=records:{records}"]
    lines.append(["train", f"--config={folder / 'config.py'}", f"--workdir={workdir}", *source])
    lines.append(["report", f"--from={workdir}"])
    if not source:
        lines.append(["sample", f"--from={workdir}", f"--out={folder / 'samples.png'}"])
    return [" ".join(map(shell_word, ["biggan", *words])) for words in lines]


def shell_word(text: str) -> str:
    """A word as bash takes it on one line, whatever it holds."""
    if text.isprintable():
        return shlex.quote(text)
    special = {"\\": "\\\\", "'": "\\'"}
    parts = (
        special.get(c, c)
        if c.isprintable()
        else "".join(f"\\x{byte:02x}" for byte in c.encode("utf-8", "surrogateescape"))
        for c in text
    )
    return f"$'{''.join(parts)}'"


def render(found: Recommendation, survey: Survey, follow: list[str]) -> str:
    """A config file that gives the settings, each with its reason.

    Args:
      found: the settings.
      survey: what the data are like.
      follow: the commands that use it.

    Returns:
      Python.
    """
    size = found.config.model.resolution
    images = counts(survey.count, "image", "images")
    classes = counts(survey.num_classes, "class", "classes")
    lines = [
        f'"""{images} of {classes} at {size} x {size} pixels: what `biggan init` chose, and why.',
        "",
        "Change what you like: all other settings are those of `default_config`.",
        '"""',
        "",
        *(f"# {command}" for command in follow),
        "",
        "from biggan_jax.config import default_config",
        "",
        "",
        "def get_config():",
        "    c = default_config()",
    ]
    for key, value in found.settings().items():
        lines += _line(f"    c.{key} = {literal(value)}", found.reasons[key])
    return "\n".join([*lines, "    return c", ""])


def _line(setting: str, why: str) -> list[str]:
    """A setting with its reason behind it, or above it where it is long."""
    if len(setting) + len(why) + 4 <= WIDTH:
        return [f"{setting}  # {why}"]
    return [f"    # {line}" for line in textwrap.wrap(why, WIDTH - 6)] + [setting]


def _free(folder: Path, name: str) -> Path:
    """A place in a folder where nothing is yet."""
    place, number = folder / name, 2
    while place.exists():
        place, number = folder / f"{name}-{number}", number + 1
    return place
