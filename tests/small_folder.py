"""A folder of few pictures in classes, as users have it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def make(path: Path, counts: Sequence[int]) -> tuple[str, str]:
    """Folders of classes with so many pictures of 8 pixels; the overrides that train on them."""
    rng = np.random.default_rng(0)
    for c, count in enumerate(counts):
        (path / f"class_{c}").mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(pixels).save(path / f"class_{c}" / f"{i}.png")
    return f"--config.data.source=folder:{path}", "--config.model.num_classes=None"
