"""One deterministic stream of batches out of any source."""

import threading

import numpy as np

from biggan_jax.config import domains
from biggan_jax.data import lanes
from biggan_jax.data.balance import BalancedOrder
from biggan_jax.data.source import Source
from biggan_jax.errors import UserError

# Grain's defaults (16 threads, 500 batches) are slower on few cores and hold far more memory.
NUM_THREADS = 2
PREFETCH_BATCHES = 4

# Keeps the flips' generator apart from other users of the same seed.
_FLIP_KEY = 0x666C6970 << 64
_PHILOX_BITS = 256  # bits per counter value


class Batches:
    """An endless iterator over shuffled epochs, read ahead by threads.

    Global batch k is a pure function of (seed, k). It has num_d_steps rows of batch_size examples,
    one row per discriminator step, taken from one shuffled epoch after another, so a batch may
    cross from one epoch into the next. Every epoch has its own permutation. Process p reads only
    its own batch_size / process_count columns of each row. A resume is a new stream from a later
    `start_step`: nothing needs saving, and the number of processes may change.

    With a `balance` the classes come more evenly than the source has them, and every image of a
    class as often as any other of it (`balance.BalancedOrder`); the rest holds all the same.
    Of a source in lanes a column reads its own lanes alone, each in its own shuffled epochs
    (`lanes.LaneOrder`).

    Args:
      source: where the examples come from; those of `source.held_out` are left out.
      seed: in [0, 2**32).
      batch_size: examples in one row over all processes.
      num_d_steps: rows per batch.
      flip: mirror each example left to right with probability 1/2; the coin belongs to the
        position in the global stream.
      start_step: index of the first batch; skipping is free.
      process_index: this process, in [0, process_count).
      process_count: number of processes that read one stream together.
      balance: 0 takes every example once an epoch; up to 1, see `balance.shares`.
      labels: of all examples of the source, int [n], for a balance; read from it if absent.

    Raises:
      UserError: a number is out of its domain, batch_size or the lanes do not divide by
        process_count, or a balance is asked of a source in lanes.
    """

    def __init__(
        self,
        source: Source,
        *,
        seed: int,
        batch_size: int,
        num_d_steps: int = 1,
        flip: bool = False,
        start_step: int = 0,
        process_index: int = 0,
        process_count: int = 1,
        balance: float = 0.0,
        labels: np.ndarray | None = None,
    ):
        _check_numbers(seed, batch_size, num_d_steps, balance)
        check_lanes(source, batch_size, process_count, balance)
        if batch_size % process_count:
            raise UserError(
                f"--config.batch_size={batch_size} does not divide among {process_count} "
                f"processes; choose a multiple of {process_count}"
            )
        if not 0 <= process_index < process_count or start_step < 0:
            raise ValueError(f"{process_index=} of {process_count=} from {start_step=}")
        import grain

        self._source, self._seed, self._flip = source, seed, flip
        self._batch_size, self._num_d_steps = batch_size, num_d_steps
        self._own_size = batch_size // process_count
        self._process_index = process_index
        # A block is one process's columns of one row, so every process_count-th block is ours.
        # Of held-out examples none is in the stream: it runs over the positions of the others.
        self._kept = None if source.held_out is None else np.flatnonzero(~source.held_out)
        count = len(source) if self._kept is None else len(self._kept)
        blocks = grain.MapDataset.range(count).seed(seed).shuffle().repeat()
        blocks = blocks.batch(self._own_size, drop_remainder=True)
        own_blocks = blocks[process_index::process_count]
        self._indices = own_blocks.batch(num_d_steps, drop_remainder=True)
        read_ahead = grain.ReadOptions(
            num_threads=NUM_THREADS, prefetch_buffer_size=PREFETCH_BATCHES
        )
        self._order = self._balanced(labels, balance) if balance else None
        self._lanes = self._in_lanes()
        steps = grain.MapDataset.range(len(self._indices)).map(self.batch_at)
        self._iterator = iter(steps.to_iter_dataset(read_ahead))
        self._lock = threading.Lock()
        source.expect(self._first(start_step), self._others(start_step), tell=process_index == 0)
        self._seek(start_step)

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        with self._lock:
            try:
                batch = next(self._iterator)
            except (Exception, KeyboardInterrupt):
                # Grain has dropped the failed batch: without this the next call would skip it.
                self._seek(self._step)
                raise
            self._step += 1
            return batch

    def batch_at(self, step: int) -> dict[str, np.ndarray]:
        """Reads this process's part of one batch, independently of the iterator.

        Args:
          step: index of the batch, at least 0.

        Returns:
          image uint8 [num_d_steps, batch_size / process_count, resolution, resolution, channels],
          label int32 [num_d_steps, batch_size / process_count].

        Raises:
          UserError: a record is unreadable, or a label is no class.
        """
        index_DB = self._indices_of(int(step))
        images, labels = self._source.read(index_DB.ravel())
        _check_labels(labels, index_DB.ravel(), self._source)
        if self._flip:
            _mirror(images, self._flips(int(step)))
        return {
            "image": images.reshape(*index_DB.shape, *images.shape[1:]),
            "label": labels.reshape(index_DB.shape),
        }

    def close(self) -> None:
        """Stops reading ahead; the stream yields no further batch."""
        self._iterator.close()

    def _seek(self, step: int) -> None:
        self._step = step
        self._iterator.set_state({"next_index": step})

    def _balanced(self, labels: np.ndarray | None, balance: float) -> BalancedOrder:
        """The order of the examples in the stream by their labels."""
        source = self._source
        labels = source.labels_of(np.arange(len(source))) if labels is None else labels
        _check_labels(labels, np.arange(len(source)), source)
        labels = labels if self._kept is None else labels[self._kept]
        return BalancedOrder(labels, source.num_classes, balance, self._seed)

    def _in_lanes(self) -> lanes.LaneOrder | None:
        """The order of the examples of a source in lanes."""
        source = self._source
        if not source.num_lanes:
            return None
        return lanes.LaneOrder(
            source.lane_of, source.num_lanes, self._batch_size, self._seed, self._kept
        )

    def _indices_of(self, step: int) -> np.ndarray:
        """Examples of this process's part of a batch, int [num_d_steps, own]."""
        if self._lanes is not None:
            return self._lanes(self._rows(step), self._columns())
        if self._order is None:
            index_DB = self._indices[step]
        else:
            position_DB = self._starts(step)[:, None] + np.arange(self._own_size)
            index_DB = self._order(position_DB.ravel()).reshape(position_DB.shape)
        return index_DB if self._kept is None else self._kept[index_DB]

    def _first(self, step: int) -> np.ndarray:
        """Examples that are read ahead from a batch on, in the order of their use."""
        ahead = range(step, step + PREFETCH_BATCHES)
        return np.concatenate([self._indices_of(k).ravel() for k in ahead])

    def _others(self, step: int) -> np.ndarray:
        """All examples that this process may ever read, those first that are used first."""
        if self._lanes is not None:
            row = step * self._num_d_steps
            return np.concatenate(self._lanes.members(row, self._columns()))
        return np.arange(len(self._source)) if self._kept is None else self._kept

    def _columns(self) -> np.ndarray:
        """This process's columns of each row."""
        return self._process_index * self._own_size + np.arange(self._own_size)

    def _rows(self, step: int) -> np.ndarray:
        """The rows of a batch, counted from the first one of the stream."""
        return step * self._num_d_steps + np.arange(self._num_d_steps)

    def _starts(self, step: int) -> np.ndarray:
        """Positions in the global stream of this process's first example of each row."""
        return self._rows(step) * self._batch_size + self._process_index * self._own_size

    def _flips(self, step: int) -> np.ndarray:
        """One coin per example of this process's part of a batch, bool [num_d_steps * own]."""
        starts = self._starts(step)
        return np.concatenate([flip_coins(self._seed, int(s), self._own_size) for s in starts])


def flip_coins(seed: int, start: int, count: int) -> np.ndarray:
    """Fair coins at consecutive positions of an endless sequence.

    Args:
      seed: in [0, 2**32).
      start: first position, at least 0.
      count: number of coins.

    Returns:
      bool [count]; the coin at a position depends on (seed, position) alone.
    """
    first, offset = divmod(start, _PHILOX_BITS)
    num_counters = -(-(offset + count) // _PHILOX_BITS)
    words = np.random.Philox(counter=first, key=_FLIP_KEY | seed).random_raw(4 * num_counters)
    bits = np.unpackbits(words.astype("<u8").view(np.uint8), bitorder="little")
    return bits[offset : offset + count].astype(bool)


def _mirror(images: np.ndarray, chosen: np.ndarray) -> None:
    """Mirrors the chosen images left to right, in place."""
    # One image and one channel at a time: a reversed view copies byte by byte, which is quicker
    # than pixels of three bytes, and one image stays in the caches.
    before = np.empty_like(images[0])
    for i in np.flatnonzero(chosen):
        before[:] = images[i]
        for c in range(images.shape[-1]):
            images[i, :, :, c] = before[:, ::-1, c]


def _check_numbers(seed: int, batch_size: int, num_d_steps: int, balance: float) -> None:
    numbers = {"seed": seed, "batch_size": batch_size, "num_d_steps": num_d_steps}
    domains.check(numbers | {"data.balance": balance})


def check_lanes(source: Source, batch_size: int, process_count: int, balance: float) -> None:
    """Raises UserError for a stream that a source in lanes cannot give; see `Batches`."""
    if source.num_lanes:
        lanes.check_processes(source.num_lanes, batch_size, process_count)
        kept = slice(None) if source.held_out is None else ~source.held_out
        lanes.check_filled(source.lane_of[kept], source.num_lanes)
        if balance:
            raise UserError(
                f"{source.spec}: --config.data.balance={balance:g} draws a class from all images, "
                f"and a column of a batch reads its own of {source.num_lanes} lanes: set "
                "--config.data.balance=0, or prepare the data again without lanes"
            )


def _check_labels(labels: np.ndarray, indices: np.ndarray, source: Source) -> None:
    """A label beyond the classes would make the losses NaN, a negative one train another class."""
    if labels.min() >= 0 and labels.max() < source.num_classes:
        return
    bad = np.flatnonzero((labels < 0) | (labels >= source.num_classes))[0]
    raise UserError(
        f"{source.spec}: example {indices[bad]} has label {labels[bad]}, outside 0 to "
        f"{source.num_classes - 1}; choose another split or correct the labels"
    )
