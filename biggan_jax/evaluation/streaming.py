"""Sums over a stream of samples, so that memory does not grow with their number."""

import numpy as np

from biggan_jax.metrics.moments import Moments

SPLITS = 10  # of the Inception score (Salimans et al. 2016)


class InceptionScore:
    """Inception score of a stream whose length is known; equals `scores.inception_score`.

    Args:
      samples: rows in all.
      splits: parts of consecutive rows that are scored apart.
    """

    def __init__(self, samples: int, splits: int = SPLITS):
        self._ends = np.array([(i + 1) * samples // splits for i in range(splits)])
        self._marginals: np.ndarray | None = None
        self._negative_entropies = np.zeros(splits)
        self._seen = 0

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
        split = np.searchsorted(self._ends, self._seen + np.arange(len(p)), side="right")
        np.add.at(self._marginals, split, p)
        np.add.at(self._negative_entropies, split, (p * log_p).sum(axis=1))
        self._seen += len(p)

    def result(self) -> tuple[float, float]:
        """(mean, standard deviation) over the splits."""
        assert self._seen == self._ends[-1], (self._seen, self._ends)
        sizes = np.diff(self._ends, prepend=0)
        marginals = self._marginals / sizes[:, None]
        # p log p -> 0: classes whose probability underflows to 0 add nothing.
        logs = np.log(np.where(marginals > 0, marginals, 1.0))
        values = np.exp(self._negative_entropies / sizes - (marginals * logs).sum(axis=1))
        return float(values.mean()), float(values.std())


class Fakes:
    """What the scores need of all generated samples.

    Attributes:
      moments: of all features.
      inception_score: of all logits.
      features: float32 [M, d], those of the first M samples.
      labels: int32 [M], the classes that these were asked to show.
      asked: int [K], samples asked for in each class.
      correct: int [K], those that the network assigns to the class that was asked for.
    """

    def __init__(self, samples: int, dim: int, num_classes: int, keep: int):
        self.moments = Moments(dim)
        self.inception_score = InceptionScore(samples)
        self.features = np.empty((min(samples, keep), dim), np.float32)
        self.labels = np.empty(len(self.features), np.int32)
        self.asked = np.zeros(num_classes, np.int64)
        self.correct = np.zeros(num_classes, np.int64)

    def add(self, features: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> None:
        """Takes in a batch.

        Args:
          features: [N, d].
          logits: [N, classes of the network].
          labels: [N], the classes asked for.
        """
        room = slice(self.moments.count, min(self.moments.count + len(labels), len(self.labels)))
        count = max(room.stop - room.start, 0)
        if count:
            self.features[room], self.labels[room] = features[:count], labels[:count]
        self.moments.add(features)
        self.inception_score.add(logits)
        self.asked += np.bincount(labels, minlength=len(self.asked))
        right = labels[logits.argmax(axis=1) == labels]
        self.correct += np.bincount(right, minlength=len(self.asked))
