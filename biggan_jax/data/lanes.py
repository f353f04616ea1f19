"""Which record stands in which column of a batch, where records are written in lanes.

Record i belongs to lane i mod L. The columns of a batch and the lanes are cut into as many groups
as the batch size and L have in common, so that a host that has every H-th part of the columns has
just that part of the lanes, for every H that divides both.
"""

import functools
import math

import numpy as np

from biggan_jax.errors import UserError

# Keeps these draws apart from other users of the same seed.
_LANES_KEY = 0x6C616E6573 << 64
_LANE_PLACE, _EPOCH_PLACE = 192, 128  # bits of the counter: a lane's epoch has 2**128 words
DEFAULT_LANES = 1024
LARGE_BYTES = 32 << 30  # of raw pixels: from here on records are written in lanes unless asked
_FEWEST = 256  # records of a lane, where their number is chosen


def default_count(records: int, raw_bytes: int, workers: int = 0) -> int:
    """How many lanes a data set is written in when nobody says.

    Args:
      records: examples of the source.
      raw_bytes: their pixels and labels.
      workers: that share the lanes; 0 where one process writes all.

    Returns:
      1024 from 32 GiB on, less where a lane would have fewer than 256 records; 0, no lanes, for
      fewer bytes without workers; with them enough for each to have some.
    """
    if raw_bytes < LARGE_BYTES and not workers:
        return 0
    fitting = 1 << max(0, (records // _FEWEST).bit_length() - 1)
    return max(min(DEFAULT_LANES, fitting), 1 << max(0, workers - 1).bit_length())


def of_records(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the records of a data set stand that is stored one lane after another.

    Args:
      counts: records of each lane [L].

    Returns:
      (lane of each record, its place in the stored order), int64 [n] each. The records are those of
      the source in its order: the first of every lane, then the second of every lane, and so on.
    """
    lanes = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum(counts) - counts
    depth = np.arange(len(lanes)) - starts[lanes]
    places = np.lexsort((lanes, depth))
    return lanes[places], places


def check_processes(num_lanes: int, batch_size: int, process_count: int) -> None:
    """Refuses a number of processes among which columns and lanes cannot be divided.

    Raises:
      UserError: it does not divide both; the line names the nearest numbers that do.
    """
    common = math.gcd(num_lanes, batch_size)
    if common % process_count == 0:
        return
    fitting = [n for n in range(1, common + 1) if common % n == 0]
    below = [n for n in fitting if n < process_count][-1:]
    above = [n for n in fitting if n > process_count][:1]
    raise UserError(
        f"the records lie in {num_lanes} lanes and --config.batch_size={batch_size}, which do not "
        f"both divide among {process_count} processes: run "
        f"{' or '.join(map(str, below + above))} of them"
    )


def check_filled(lane_of: np.ndarray, num_lanes: int) -> np.ndarray:
    """Counts the images of every lane.

    Args:
      lane_of: the lane of each image in the stream, int [n].
      num_lanes: L.

    Returns:
      int [L].

    Raises:
      UserError: a lane has none.
    """
    counts = np.bincount(lane_of, minlength=num_lanes)
    if not counts.all():
        raise UserError(
            f"lane {np.flatnonzero(counts == 0)[0]} of {num_lanes} has no image to train on "
            f"({len(lane_of):,} in all): prepare the data in fewer lanes"
        )
    return counts


class LaneOrder:
    """Which example stands at a row and column of the stream, a pure function of the seed.

    With B columns, L lanes and G their greatest common divisor, the B / G columns of group g read
    the L / G lanes of group g: example s of the group, counted along its columns and then down the
    rows, is the next one of lane s mod (L / G). So every lane is read as often as any other, and
    draw t of a lane is entry t of the endless shuffled epochs of its own records.

    Args:
      lane_of: the lane of every example of the source, int [n].
      num_lanes: L.
      batch_size: B, columns of a row over all processes.
      seed: in [0, 2**32).
      kept: examples that are in the stream, sorted; all of them if absent.

    Raises:
      UserError: a lane has no example in the stream.
    """

    def __init__(
        self,
        lane_of: np.ndarray,
        num_lanes: int,
        batch_size: int,
        seed: int,
        kept: np.ndarray | None = None,
    ):
        kept = np.arange(len(lane_of)) if kept is None else kept
        counts = check_filled(lane_of[kept], num_lanes)
        by_lane = kept[np.argsort(lane_of[kept], kind="stable")]
        self._members = np.split(by_lane, np.cumsum(counts)[:-1])
        self._seed = seed
        groups = math.gcd(num_lanes, batch_size)
        self._columns, self._lanes = batch_size // groups, num_lanes // groups
        # Of every lane the epoch in which it is, and the next one for threads that read ahead.
        self._epoch = functools.lru_cache(2 * num_lanes + 2)(self._shuffled)

    @property
    def period(self) -> int:
        """Rows after which every column has read each of its lanes."""
        return self._lanes

    def __call__(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The examples at some rows and columns of the endless stream.

        Args:
          rows: whole numbers, at least 0 [R].
          columns: in [0, B) [C].

        Returns:
          Indices of examples, int64 [R, C].
        """
        lane_RC, draw_RC = self._draws(rows, columns)
        found = np.empty(lane_RC.shape, np.int64)
        draws = zip(lane_RC.ravel().tolist(), draw_RC.ravel().tolist(), strict=True)
        for at, (lane, draw) in enumerate(draws):
            epoch, place = divmod(draw, len(self._members[lane]))
            found.flat[at] = self._epoch(lane, epoch)[place]
        return found

    def members(self, row: int, columns: np.ndarray) -> list[np.ndarray]:
        """The examples of the lanes of some columns, a lane's together, in the order of first use.

        Args:
          row: of the stream, where the use begins.
          columns: in [0, B) [C].
        """
        lanes, _ = self._draws(row + np.arange(self.period), columns)
        return [self._members[lane] for lane in dict.fromkeys(lanes.ravel().tolist())]

    def _draws(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(lane, number of the draw from it) at rows and columns, int64 [R, C] each."""
        group, column = np.divmod(np.asarray(columns, np.int64), self._columns)
        in_group = np.asarray(rows, np.int64)[:, None] * self._columns + column[None]
        draw, lane = np.divmod(in_group, self._lanes)
        return group[None] * self._lanes + lane, draw

    def _shuffled(self, lane: int, epoch: int) -> np.ndarray:
        """The examples of a lane in the order of one of its epochs."""
        members = self._members[lane]
        counter = (lane << _LANE_PLACE) + (epoch << _EPOCH_PLACE)
        words = np.random.Philox(key=_LANES_KEY | self._seed, counter=counter)
        return members[np.argsort(words.random_raw(len(members)), kind="stable")]
