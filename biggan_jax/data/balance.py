"""A stream whose classes come more evenly than the data have them.

The position of an example in the stream says which it is, without anything before it being read or
kept: a block of positions holds each class as often as its share asks, in an order of its own, and
draw t of a class is entry t of the endless shuffled epochs of its images.
"""

import functools
import itertools
import threading

import numpy as np

# Keep these draws apart from other users of the same seed.
_ORDER_KEY = 0x6F72646572 << 64
_EPOCHS_KEY = 0x65706F636873 << 64
_PHILOX_WORDS = 4  # of 64 bits per counter value
_BLOCK = 2**16  # positions that are laid out at once, where the data have more images
_WHOLE = 2**40  # the weight of the most frequent class, a whole number: equal on any processor
_KEPT_BLOCKS = 4  # of the readers' threads, which may stand on both sides of a border


def shares(counts: np.ndarray, balance: float) -> np.ndarray:
    """The share of each class in a balanced stream.

    Args:
      counts: examples of each class, at least 0 [num_classes], not all 0.
      balance: 0 is the shares of the data, 1 the same share for each class that has examples; in
        between they are proportional to counts ** (1 - balance).

    Returns:
      float64 [num_classes], of sum 1.

    References:
      Mahajan et al. 2018, "Exploring the Limits of Weakly Supervised Pretraining", section 2.2, has
      the square root, a balance of 0.5.
    """
    weights = _weights(counts, balance)
    return np.array([float(weight) for weight in weights]) / float(sum(weights))


def _weights(counts: np.ndarray, balance: float) -> list[int]:
    """Whole numbers in the ratio of the shares."""
    counts = np.asarray(counts, np.float64)
    relative = np.where(counts > 0, (counts / counts.max()) ** (1.0 - balance), 0.0)
    return [int(weight) for weight in np.rint(relative * _WHOLE)]


class BalancedOrder:
    """Which example stands at a position of the balanced stream, a pure function of the seed.

    In a block each class has its exact share, up to less than one example that the next blocks make
    up for. Every image of a class is drawn once before one of them is drawn again.

    Args:
      labels: the class of every example that is in the stream, int [n], n > 0.
      num_classes: number of classes; those without an example are never drawn.
      balance: more than 0, up to 1; see `shares`.
      seed: in [0, 2**32).

    Attributes:
      block: positions of a block: as many as there are examples, but no more than 65,536 unless the
        rarest class needs more to be in every block.
    """

    def __init__(self, labels: np.ndarray, num_classes: int, balance: float, seed: int):
        counts = np.bincount(labels, minlength=num_classes)
        weights = [weight for weight in _weights(counts, balance) if weight]
        self._ends = list(itertools.accumulate(weights))  # in Python: they exceed 64 bits below
        self.block = max(min(len(labels), _BLOCK), -(-self._ends[-1] // min(weights)))
        self._seed = seed
        by_class = np.argsort(labels, kind="stable")
        self._members = np.split(by_class, np.cumsum(counts[counts > 0])[:-1])
        self._lock = threading.Lock()
        self._of_block = functools.lru_cache(_KEPT_BLOCKS)(self._lay_out)

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The examples at some positions.

        Args:
          positions: whole numbers, at least 0 [n].

        Returns:
          Indices into the labels, int64 [n].
        """
        blocks, offsets = np.divmod(np.asarray(positions, np.int64), self.block)
        found = np.empty(len(blocks), np.int64)
        for number in np.unique(blocks):
            with self._lock:  # all threads stand in the same block
                laid_out = self._of_block(int(number))
            found[blocks == number] = laid_out[offsets[blocks == number]]
        return found

    def _lay_out(self, number: int) -> np.ndarray:
        """The examples of a block, int64 [block]."""
        before, after = self._drawn(number), self._drawn(number + 1)
        drawn = [
            members[self._entries(c, len(members), before[c], after[c])]
            for c, members in enumerate(self._members)
        ]
        classes = np.repeat(np.arange(len(drawn)), [len(indices) for indices in drawn])
        words = np.random.Philox(key=_ORDER_KEY | self._seed, counter=number << 128)
        classes = classes[np.argsort(words.random_raw(self.block), kind="stable")]
        laid_out = np.empty(self.block, np.int64)
        # In turn, so that no image of a class is two draws ahead of another at any position.
        laid_out[np.argsort(classes, kind="stable")] = np.concatenate(drawn)
        return laid_out

    def _drawn(self, blocks: int) -> list[int]:
        """How often each class is drawn in the first blocks: its share of them."""
        ends = [blocks * self.block * end // self._ends[-1] for end in self._ends]
        return [end - start for start, end in zip([0, *ends], ends, strict=False)]

    def _entries(self, c: int, count: int, start: int, stop: int) -> np.ndarray:
        """Draws `start` to `stop` from endless shuffled epochs of `count` images of class `c`."""
        first, last = start // count, -(-stop // count)
        # Words of a counter-based generator at the epochs' own places, sorted: Grain's shuffle of a
        # handful takes milliseconds an entry.
        at, skipped = divmod(first * count, _PHILOX_WORDS)
        words = np.random.Philox(key=_EPOCHS_KEY | self._seed, counter=(c << 128) + at)
        keys = words.random_raw(skipped + (last - first) * count)[skipped:]
        epochs = np.argsort(keys.reshape(-1, count), axis=1, kind="stable")
        return epochs.ravel()[start - first * count : stop - first * count]
