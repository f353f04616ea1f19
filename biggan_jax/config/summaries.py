"""What the carried configs are for, in a line each."""

import ast
from typing import NamedTuple

from biggan_jax.config import carried, config_file


class Summary(NamedTuple):
    """One config in a line.

    Attributes:
      name: as `--config` takes it.
      resolution: of its images, pixels.
      model: family of its networks.
      about: one sentence.
    """

    name: str
    resolution: int
    model: str
    about: str


def read() -> list[Summary]:
    """One line for each, by resolution and then by name."""
    found = []
    for name in carried.files():
        model = config_file.load(name, []).model
        docstring = ast.get_docstring(ast.parse(carried.text(name))) or name
        about = " ".join(docstring.split("\n\n")[0].split())
        found.append(Summary(name, model.resolution, model.name, about))
    return sorted(found, key=lambda one: (one.resolution, one.name))
