"""`biggan look attention`: where chosen points of an image attend to, SAGAN's figure 5."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from biggan_jax.errors import UserError
from biggan_jax.pictures import attention_figure, formats
from biggan_jax.pictures.size import Size
from biggan_jax.sampling import generator as generator_lib
from biggan_jax.sampling import load
from biggan_jax.sampling.classes import described
from biggan_jax.sampling.discriminator import LoadedDiscriminator
from biggan_jax.sampling.given_images import read_images
from biggan_jax.sampling.look import rows as rows_lib
from biggan_jax.sampling.look.rows import Rows
from biggan_jax.storage import paths

ROWS, POINTS = 6, 5  # of an attention figure when no numbers were asked for


@dataclasses.dataclass(frozen=True)
class View:
    """What is looked at.

    Attributes:
      player: the network whose attention it is.
      images: [N, H, W, C], uint8 or floating in [-1, 1].
      labels: class ids [N]; None where they are unknown.
      maps: {layer: [N, Q, K]}.
    """

    player: generator_lib.LoadedGenerator | LoadedDiscriminator
    images: np.ndarray
    labels: np.ndarray | None
    maps: dict[str, np.ndarray]


def draw(
    directory: str | Path,
    out: Path,
    *,
    rows: Rows,
    size: Size,
    layer: str | None = None,
    points: str | None = None,
    num_points: int | None = None,
    discriminator: bool = False,
    images: Sequence[Path] = (),
) -> dict:
    """Draws SAGAN's figure: samples, query points, and where each point attends to.

    Args:
      directory: a workdir or a model directory.
      out: `F.png` or another of `pictures.formats`.
      rows: which samples, a row each; 6 by default.
      size: of the picture.
      layer: such as 'attention_16'; by default the one of the highest resolution.
      points: 'r,c;r,c', rows and columns in image pixels from the top left; None picks those whose
        maps differ most, anew for each sample.
      num_points: points to pick, by default 5; not with `points`.
      discriminator: look into D instead of G.
      images: PNG or JPEG files or folders that D looks at; none gives it the samples of G.

    Returns:
      {step, layer, layers, gamma, rows: [{class, name, points, distance}]}: points are the image
      pixels of the dots, the distance is the mean total variation distance of the maps shown.

    Raises:
      UserError: for a model without attention, an unknown layer, points outside the image, or an
        unusable directory or image.

    References:
      Zhang et al. 2019, "Self-Attention GANs", figure 5.
    """
    if images and not discriminator:
        raise UserError("--images are for the discriminator: add --discriminator, or leave it out")
    if discriminator:
        view = view_discriminator(directory, rows, layer, images)
    else:
        view = view_generator(directory, rows, layer)
    layer = layer or max(view.maps, key=lambda name: view.maps[name].shape[1])
    maps = view.maps[layer]
    queries = choose_queries(maps, points, num_points, view.player.resolution)
    labels = None
    if view.labels is not None and view.player.num_classes > 1:
        labels = [int(c) for c in view.labels]
    names = None if labels is None else rows_lib.named(labels, view.player)
    figure = attention_figure.draw(view.images, queries, maps, names, size=size)
    paths.write_bytes(out, formats.encode(figure, out, size.dpi))
    return {
        "step": view.player.step,
        "layer": layer,
        "layers": sorted(view.maps),
        "gamma": view.player.gammas[layer],
        "rows": rows_of(queries, maps, labels, view.player),
    }


def rows_of(
    queries: list[list[int]],
    maps: np.ndarray,
    labels: list[int] | None,
    player: generator_lib.LoadedGenerator | LoadedDiscriminator,
) -> list[dict]:
    """{points, distance, class, name} of every row of a figure; see `draw`."""
    rows, size = [], player.resolution
    for row, beta in zip(queries, maps, strict=True):
        points = [pixel_of(query, maps.shape[1], size) for query in row]
        distance = attention_figure.mean_distance(beta[row])
        rows.append({"points": points, "distance": distance})
    for row, label in zip(rows, labels or [], strict=labels is not None):
        row |= rows_lib.class_of(label, player)
    return rows


def text(result: dict) -> str:
    """What `draw` found, for a person."""
    lines = [f"{result['layer']} (of {', '.join(result['layers'])}): gamma {result['gamma']:.4f}"]
    for i, row in enumerate(result["rows"], start=1):
        of = f" (class {row['class']})" if "class" in row else ""
        if row.get("name", str(row.get("class"))) != str(row.get("class")):
            of = f" (class {row['class']}, {described(0, [row['name']])})"
        points = " ".join(f"{r},{c}" for r, c in row["points"])
        lines.append(
            f"row {i}{of}: the maps of {points} differ by {row['distance']:.2f} "
            "(total variation; 0 equal, 1 disjoint)"
        )
    return "\n".join(lines)


def view_generator(directory: str | Path, rows: Rows, layer: str | None) -> View:
    """Samples of G and its attention while it made them."""
    generator = rows.load(directory)
    check_layer(layer, generator.gammas, "generator", "g_attention")
    z, labels = rows.latents(generator, ROWS)
    return View(generator, generator(z, labels), labels, generator.attention(z, labels))


def view_discriminator(
    directory: str | Path, rows: Rows, layer: str | None, files: Sequence[Path]
) -> View:
    """Files, or samples of G, and D's attention to them."""
    d = load.load_discriminator(directory, step=rows.step)
    check_layer(layer, d.gammas, "discriminator", "d_attention")
    if files:
        images = read_images(files, d.resolution, d.channels)
        # D meets the class after its last block only: any one gives the same maps.
        classes = np.zeros(len(images), np.int32)
        floats = images.astype(np.float32) / 127.5 - 1
        return View(d, images, None, d.attention(floats, classes))
    # The very step, also where a run goes on meanwhile.
    step = rows.step if d.step is None else d.step
    generator = dataclasses.replace(rows, step=step).load(directory)
    z, labels = rows.latents(generator, ROWS)
    images = generator(z, labels)
    return View(d, images, labels, d.attention(images, labels))


def check_layer(layer: str | None, layers, player: str, setting: str) -> None:
    """Raises UserError unless there is attention, and that layer in particular."""
    if not layers:
        raise UserError(
            f"this {player} has no attention to look at: train one that has, such as by "
            f"`biggan train --config.model.{setting}=16`"
        )
    if layer is not None and layer not in layers:
        raise UserError(
            f"--layer {layer!r}: this {player} has {', '.join(sorted(layers))} (model.{setting})"
        )


def choose_queries(
    maps: np.ndarray, points: str | None, num_points: int | None, size: int
) -> list[list[int]]:
    """Query points of every row: those of `points`, or the ones whose maps differ most.

    Args:
      maps: [N, Q, K].
      points: 'r,c;r,c' in image pixels, or None.
      num_points: points to pick; None is 5.
      size: side of the image in pixels.

    Returns:
      For each row indices into Q.

    Raises:
      UserError: text that names no points, points outside the image, or too many of them.
    """
    most = min(len(attention_figure.COLORS), maps.shape[1])
    if points is None:
        num_points = POINTS if num_points is None else num_points
        if not 1 <= num_points <= most:
            raise UserError(f"--num-points is {num_points}; it must be from 1 to {most}")
        return [attention_figure.choose_queries(m, num_points) for m in maps]
    if num_points is not None:
        raise UserError("--num-points picks points and --points names them: give one of the two")
    try:
        pixels = [tuple(int(v) for v in part.split(",")) for part in points.strip(";").split(";")]
    except ValueError:
        pixels = []
    if not pixels or any(len(p) != 2 for p in pixels):
        raise UserError(f"--points {points!r}: write row,column pairs such as '4,7;20,16'")
    for p in pixels:
        if not all(0 <= v < size for v in p):
            raise UserError(
                f"--points {p[0]},{p[1]} lies outside the image: rows and columns go from 0 to "
                f"{size - 1}"
            )
    if len(pixels) > most:
        raise UserError(f"--points has {len(pixels)} points; give at most {most}")
    side = attention_figure.grid_side(maps.shape[1])
    return [[r * side // size * side + c * side // size for r, c in pixels]] * len(maps)


def pixel_of(query: int, count: int, size: int) -> list[int]:
    """[row, column] of the image pixel at the middle of one of `count` query pixels."""
    side = attention_figure.grid_side(count)
    return [int((v + 0.5) * size / side) for v in divmod(query, side)]
