"""Sums over a stream of samples, so that memory does not grow with their number."""

import jax
import numpy as np

from biggan_jax.metrics.moments import Moments
from biggan_jax.parallel import processes

SPLITS = 10  # of the Inception score (Salimans et al. 2016)


class InceptionScore:
    """Inception score of a stream whose length is known; equals `scores.inception_score`.

    Args:
      num_samples: rows in all.
      splits: parts of consecutive rows that are scored apart.
      first: number of the first row that is added.
    """

    def __init__(self, num_samples: int, splits: int = SPLITS, first: int = 0):
        self._ends = np.array([(i + 1) * num_samples // splits for i in range(splits)])
        self._marginals: np.ndarray | None = None
        self._negative_entropies = np.zeros(splits)
        self._first = self._next = first

    def add(self, logits: np.ndarray) -> None:
        """Takes in a batch.

        Args:
          logits: [N, classes], finite.
        """
        x = np.asarray(logits, np.float64)
        log_p = x - x.max(axis=1, keepdims=True)
        log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
        p = np.exp(log_p)
        if self._marginals is None:
            self._marginals = np.zeros((len(self._ends), p.shape[1]))
        split = np.searchsorted(self._ends, self._next + np.arange(len(p)), side="right")
        np.add.at(self._marginals, split, p)
        np.add.at(self._negative_entropies, split, (p * log_p).sum(axis=1))
        self._next += len(p)

    def joined(self) -> "InceptionScore":
        """The score of the rows of all processes, which all call it."""
        own = self._marginals
        classes = max(processes.gather(0 if own is None else own.shape[1]))
        whole = InceptionScore(int(self._ends[-1]), len(self._ends))
        whole._marginals = processes.total(
            np.zeros((len(self._ends), classes)) if own is None else own
        )
        whole._negative_entropies = processes.total(self._negative_entropies)
        whole._next = sum(processes.gather(self._next - self._first))
        return whole

    def result(self) -> tuple[float, float]:
        """(mean, standard deviation) over the splits."""
        assert self._next == self._ends[-1], (self._next, self._ends)
        sizes = np.diff(self._ends, prepend=0)
        marginals = self._marginals / sizes[:, None]
        # p log p -> 0: classes whose probability underflows to 0 add nothing.
        logs = np.log(np.where(marginals > 0, marginals, 1.0))
        values = np.exp(self._negative_entropies / sizes - (marginals * logs).sum(axis=1))
        return float(values.mean()), float(values.std())


class Fakes:
    """What the scores need of all generated samples, or of the share of one process.

    Args:
      num_samples: in all.
      dim: of the features.
      num_classes: K of the generator.
      keep: features to keep at most.
      share: numbers of the samples that are added here; all of them if absent.

    Attributes:
      moments: of all features.
      inception_score: of all logits.
      features: float32 [M, d], those of the share's samples among the first `keep`.
      labels: int32 [M], the classes that these were asked to show.
      asked: int [K], samples asked for in each class.
      correct: int [K], those that the network assigns to the class that was asked for.
    """

    def __init__(
        self, num_samples: int, dim: int, num_classes: int, keep: int, share: range | None = None
    ):
        share = range(num_samples) if share is None else share
        self._shape = num_samples, dim, num_classes, keep
        self.moments = Moments(dim)
        self.inception_score = InceptionScore(num_samples, first=share.start)
        kept = range(num_samples)[:keep]
        own = range(min(share.start, len(kept)), min(share.stop, len(kept)))
        self.features = np.empty((len(own), dim), np.float32)
        self.labels = np.empty(len(own), np.int32)
        self.asked = np.zeros(num_classes, np.int64)
        self.correct = np.zeros(num_classes, np.int64)

    def joined(self) -> "Fakes":
        """The samples of all processes; all of them call it, and get the same.

        Returns:
          What one process would have summed, to rounding; itself in a run of one process.
        """
        if jax.process_count() == 1:
            return self
        whole = Fakes(*self._shape)
        whole.moments = joined_moments(self.moments)
        whole.inception_score = self.inception_score.joined()
        whole.features = processes.concatenated(self.features)
        whole.labels = processes.concatenated(self.labels)
        whole.asked = processes.total(self.asked)
        whole.correct = processes.total(self.correct)
        return whole

    def add(self, features: np.ndarray, logits: np.ndarray | None, labels: np.ndarray) -> None:
        """Takes in a batch.

        Args:
          features: [N, d].
          logits: [N, classes of the network]; None of a network that has none.
          labels: [N], the classes asked for.
        """
        room = slice(self.moments.count, min(self.moments.count + len(labels), len(self.labels)))
        count = max(room.stop - room.start, 0)
        if count:
            self.features[room], self.labels[room] = features[:count], labels[:count]
        self.moments.add(features)
        self.asked += np.bincount(labels, minlength=len(self.asked))
        if logits is None:
            return
        self.inception_score.add(logits)
        right = labels[logits.argmax(axis=1) == labels]
        self.correct += np.bincount(right, minlength=len(self.asked))


def joined_moments(own: Moments) -> Moments:
    """The moments of the samples of all processes, which all call it.

    They are moved to the common mean before they are added, so that a large common offset costs no
    digits here either (Chan, Golub, LeVeque 1983, eq. 2.1).
    """
    whole = Moments(own.dim)
    whole.count = sum(processes.gather(own.count))
    if whole.count:
        whole.mean = processes.total(own.mean * (own.count / whole.count))
    delta = own.mean - whole.mean if own.count else np.zeros(own.dim)
    whole.scatter = processes.total(own.scatter + own.count * np.outer(delta, delta))
    return whole
