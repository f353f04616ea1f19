"""Workdirs written by hand, for tests of what is read from them."""

import html.parser
import json
from pathlib import Path

import numpy as np

from biggan_jax.config import flatten
from biggan_jax.pictures import grids
from biggan_jax.storage import guard_log
from tests import runs

EVENTS = (
    {"step": 4, "state": "warning", "signal": "gap", "value": 2.5, "action": "warn", "attempt": 0,
     "text": "the gap has grown"},
    {"step": 6, "state": "collapsed", "signal": "diversity", "value": 0.1, "action": "rollback",
     "attempt": 0, "text": "samples are alike"},
    {"step": 6, "state": "rolled_back", "signal": "diversity", "value": 0.1, "action": "rollback",
     "attempt": 0, "text": "back to step 2", "to_step": 2, "limit": 0.3, "unknown": [1],
     "changes": {"optimizer.d_lr": [8e-4, 4e-4]}},
)  # fmt: skip


def jsonl(path: Path, lines) -> None:
    """Writes one object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_events(workdir: Path, events) -> None:
    """Writes guard.jsonl, sealed."""
    sealed = []
    for event in events:
        sealed.append(guard_log.seal(event, sealed[-1]["check"] if sealed else ""))
    guard_log.write(workdir, sealed)


def metrics(start: int, stop: int, scale: float = 1.0) -> list[dict]:
    """Lines as a run writes them, with monitors and scores."""
    lines = []
    for step in range(start, stop):
        line = {
            "step": step,
            "images_seen": 16 * step,
            "d_loss": scale * 1.5,
            "g_loss": scale * 0.2,
        }
        line |= {"d_real": 0.4, "d_fake": -0.3 * scale, "d_grad_norm": 3.0, "g_grad_norm": 2.0}
        lines.append(line | {"images_per_second": 90.0 + step, "r1_penalty": 0.01})
        values = {f"monitor/{p}/{kind}/block_{i}": scale + 0.1 * i + 0.01 * step
                  for p in "gd" for kind in ("sigma0", "raw_sigma0") for i in range(2)}  # fmt: skip
        values |= {"monitor/g/gain_min/bn": 0.5, "monitor/g/gain_max/bn": 1.5}
        values |= {"monitor/d/accuracy_train": 0.9, "monitor/d/accuracy_held_out": 0.6}
        lines.append({"step": step, "images_seen": 16 * step} | values)
    return lines + [{"step": stop - 1, "eval/fid": 3.5, "eval/is_mean": 2.0, "eval/is_std": 0.1}]


def picture(path: Path, shade: int) -> None:
    """A grid of samples as a run leaves it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = np.full((4, 8, 8, 1), shade, np.uint8)
    path.write_bytes(grids.png(grids.grid(images, 2)))


def make(workdir: Path, *overrides: str, last: int = 8) -> Path:
    """A run of `last` steps of 8, with samples and monitors, without a guard and checkpoints."""
    config = runs.tiny_config("--config.num_steps=8", "--config.model.num_classes=10", *overrides)
    workdir.mkdir(parents=True)
    (workdir / "config.json").write_text(json.dumps(config.to_dict()))
    jsonl(workdir / "metrics.jsonl", metrics(1, last + 1))
    for step in range(1, last + 1):
        picture(workdir / "samples" / f"step_{step:08d}.png", 20 * step)
    picture(workdir / "samples" / "real.png", 9)
    assert flatten(config)["num_steps"] == 8
    return workdir


def rolled_back(workdir: Path) -> Path:
    """The same after a warning and a rollback from step 6 to step 2."""
    make(workdir)
    write_events(workdir, EVENTS)
    jsonl(workdir / "abandoned" / "0" / "metrics.jsonl", metrics(3, 7, scale=7.0))
    picture(workdir / "abandoned" / "0" / "samples" / "step_00000006.png", 250)
    return workdir


class Page(html.parser.HTMLParser):
    """What a browser would make of a page: its elements, texts and what it would load."""

    VOID = ("meta", "link", "img", "line", "path", "use", "rect", "image")

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text, self._open = "", []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self._open.pop() == tag, tag

    def handle_data(self, data):
        if "style" not in self._open:
            self.text += data

    def all(self, tag: str) -> list[dict]:
        """The attributes of every element of a kind."""
        return [attrs for name, attrs in self.elements if name == tag]

    def sections(self) -> list[str]:
        """Their names."""
        return [attrs["id"] for attrs in self.all("section")]

    def plots(self) -> list[str]:
        """The titles of the plots."""
        return [a["aria-label"] for a in self.all("figure") if a.get("role") == "group"]
