"""Published peaks of the TPU generations, and the names of their topologies.

Peaks are what the vendor prints; no program reaches all of them at once, so a time computed from
them is a lower bound.
"""

import dataclasses
import math
import re

from biggan_jax import errors
from biggan_jax.errors import UserError

GIB = 2**30
TFLOPS = 1e12
GB = 1e9

_2D = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_3D = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16")


@dataclasses.dataclass(frozen=True)
class Chip:
    """One TPU generation; every figure is for one chip.

    Attributes:
      kind: JAX's `device_kind`.
      flops: peak of the matrix units in bfloat16, FLOP/s (float32 convolutions run there too, in
        bfloat16 passes).
      hbm_bytes: what the compiler lets a program use (libtpu 0.0.42.1; a little less or more than
        the printed 8, 16, 32, 95 and 96 GiB of a device).
      hbm_bandwidth: bytes/s.
      ici_bandwidth: bytes/s that leave the chip over all its links, one way.
      dcn_bandwidth: bytes/s that leave the chip over the data-center network, or None where no
        figure is published.
      devices: JAX devices of one chip.
      shapes: common topologies, for suggestions.
      source: where the peaks stand.
    """

    kind: str
    flops: float
    hbm_bytes: int
    hbm_bandwidth: float
    ici_bandwidth: float
    dcn_bandwidth: float | None
    devices: int
    shapes: tuple[str, ...]
    source: str


def _docs(page: str) -> str:
    return f"https://docs.cloud.google.com/tpu/docs/{page}"


_NORRIE = "Norrie et al. 2021, The Design Process for Google's Training Chips, IEEE Micro 41(2)"
_JOUPPI = "Jouppi et al. 2023, TPU v4, ISCA, table 4"

# ICI: links x one-way rate (v2 to v4), or half of the printed bidirectional figure. v4 is one
# device of two cores (`megacore`), as Cloud TPU runs it.
CHIPS = {
    "v2": Chip("TPU v2", 46 * TFLOPS, 2 * int(7.48 * GIB), 700 * GB, 4 * 62 * GB, None, 2,
               _2D[2:], _NORRIE),
    "v3": Chip("TPU v3", 123 * TFLOPS, 2 * int(15.48 * GIB), 900 * GB, 4 * 82 * GB, None, 2,
               (*_2D[2:], "16x32", "32x32"), _NORRIE),
    "v4": Chip("TPU v4", 275 * TFLOPS, int(30.75 * GIB), 1200 * GB, 6 * 50 * GB, None, 1,
               _3D, _JOUPPI),
    "v5e": Chip("TPU v5 lite", 197 * TFLOPS, int(15.75 * GIB), 819 * GB, 200 * GB, 25 / 8 * GB, 1,
                ("1x1", *_2D), _docs("v5e")),
    "v5p": Chip("TPU v5", 459 * TFLOPS, int(95.74 * GIB), 2765 * GB, 600 * GB, 50 / 8 * GB, 1,
                _3D, _docs("v5p")),
    "v6e": Chip("TPU v6 lite", 918 * TFLOPS, int(31.25 * GIB), 1640 * GB, 400 * GB, 100 / 8 * GB,
                1, ("1x1", *_2D), _docs("v6e")),
    "tpu7x": Chip("TPU7x", 2307 * TFLOPS, 2 * int(94.75 * GIB), 7380 * GB, 600 * GB, 100 / 8 * GB,
                  2, _3D, _docs("tpu7x")),
}  # fmt: skip
# What Cloud TPU's accelerator types and common speech call them.
_ALIASES = {"v5litepod": "v5e", "v5": "v5p", "v6": "v6e", "v7": "tpu7x", "v7x": "tpu7x",
            "ironwood": "tpu7x", "trillium": "v6e"}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice shape of one generation: `Topology("v4", (4, 4, 4))` has 64 chips."""

    generation: str
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """As the compiler takes it: 'v4:4x4x4'."""
        return f"{self.generation}:{'x'.join(map(str, self.shape))}"

    @property
    def chips(self) -> int:
        """Chips of one slice."""
        return math.prod(self.shape)

    @property
    def chip(self) -> Chip:
        """Its row of the table."""
        return CHIPS[self.generation]


def parse(name: str) -> Topology:
    """Reads a topology name.

    Args:
      name: GENERATION:SHAPE, such as v4:4x4x4 (chips along each axis) or v5e:16x16.

    Returns:
      The topology.

    Raises:
      UserError: for a name that no generation has, with the nearest ones.
    """
    match = re.fullmatch(r"(\w+):([1-9]\d*(?:x[1-9]\d*){1,2})", name)
    if match and match[1] in CHIPS:
        shape = tuple(int(n) for n in match[2].split("x"))
        if len(shape) == len(CHIPS[match[1]].shapes[0].split("x")):
            return Topology(match[1], shape)
    raise unknown(name)


def unknown(name: str, reason: str = "") -> UserError:
    """The error for a topology that cannot be planned, naming the nearest that can."""
    why = f" ({reason})" if reason else ""
    return UserError(f"unknown topology {name!r}{why}; nearest: {', '.join(nearest(name))}: set "
                     "--topology GENERATION:SHAPE")  # fmt: skip


def nearest(name: str, count: int = 4) -> list[str]:
    """Known topologies most like `name`: of its generation, and near its number of chips."""
    head, *sizes = re.split(r"[:\-x_ ]+", name.lower())
    if head in ("tpu7", "7"):
        head = "tpu7x"
    generation = _ALIASES.get(head, head)
    if generation not in CHIPS:
        close = errors.nearest(generation, [*CHIPS, *_ALIASES]) or "v4"
        generation = _ALIASES.get(close, close)
    sizes = [int(n) for n in sizes if n.isdigit() and int(n) > 0]
    # An accelerator type (v4-128) counts cores where a chip has two of them.
    wanted = math.prod(sizes) if sizes else 64
    if len(sizes) == 1 and generation in ("v2", "v3", "v4", "v5p", "tpu7x"):
        wanted = max(wanted // 2, 1)
    known = [parse(f"{generation}:{shape}") for shape in CHIPS[generation].shapes]
    known.sort(key=lambda t: abs(math.log(t.chips / wanted)))
    return [t.name for t in known[:count]]
