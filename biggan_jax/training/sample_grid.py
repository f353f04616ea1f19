"""Pictures that a run leaves in samples/: real images, and the same latents as training goes on."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from biggan_jax import data
from biggan_jax.parallel import compiler_options, processes, sharding
from biggan_jax.pictures import grids
from biggan_jax.sampling import run_grid
from biggan_jax.sampling.classes import described, names_of
from biggan_jax.sampling.run_grid import GRID, path, rows
from biggan_jax.storage import paths, writers
from biggan_jax.training import step


def save(
    images: np.ndarray,
    done: int,
    workdir: Path,
    writer: writers.Writers,
    config: ConfigDict,
) -> None:
    """Writes samples/step_N.png (process 0), a class a row, and tells the run's writers."""
    if not processes.is_main():
        return
    grid = grids.grid(images, GRID, **_labels([[c] for c in rows(config)], config))
    paths.write_bytes(path(workdir, done), grids.png(grid))
    writer.write_images(done, {"samples": np.asarray(grid)})


def save_real(source: data.Source, batch: dict, workdir: Path, config: ConfigDict) -> None:
    """Writes samples/real.png: real images as the model sees them, sorted by class.

    A row that goes on into other classes is labelled with its first and its last one.
    """
    size = source.resolution
    images = batch["image"].reshape(-1, size, size, source.channels)[: GRID * GRID]
    labels = batch["label"].reshape(-1)[: GRID * GRID]
    order = np.argsort(labels, kind="stable")
    shown = labels[order]
    ends = [shown[i : i + GRID][[0, -1]] for i in range(0, len(shown), GRID)]
    picture = grids.grid(images[order], GRID, **_labels(ends, config))
    paths.write_bytes(workdir / "samples" / "real.png", grids.png(picture))


def _labels(classes: Sequence[Sequence[int]], config: ConfigDict) -> dict:
    """Labels of rows by the classes that they show, as arguments of `grids.grid`."""
    if config.model.num_classes == 1:
        return {}
    names = names_of(config)
    shown = [list(dict.fromkeys(map(int, row))) for row in classes]
    return {
        "row_labels": [" - ".join(described(c, names) for c in row) for row in shown],
        "row_fallbacks": ["class " + " - ".join(map(str, row)) for row in shown],
    }


def sampler(train_step: step.TrainStep, config: ConfigDict):
    """A function of generator variables: a fixed grid of samples, uint8, a class a row."""
    labels = np.repeat(rows(config), GRID)
    # numpy: the same argument of a computation that several processes share. As a constant of it
    # another seed would be another program.
    z = run_grid.draw(config)
    replicated = sharding.replicated(train_step.mesh)

    def forward(variables, z, labels):
        variables = sharding.gather_weights(variables, train_step.mesh)
        return train_step.generator.apply(variables, z, labels, train=False)

    options = compiler_options.of_step(train_step.mesh)
    jitted = jax.jit(forward, out_shardings=replicated, compiler_options=options)
    apply = processes.compile_together(jitted)
    return lambda variables: grids.to_uint8(np.asarray(apply(variables, z, labels)))
