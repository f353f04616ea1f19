"""clu's interface of metric writers, for writers that do without TensorFlow.

The first line of `clu.metric_writers` loads TensorFlow, which the interface itself has no use for;
tests hold the methods here against clu's.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np


class MetricWriter:
    """The methods of `clu.metric_writers.MetricWriter`; each does nothing unless overridden.

    So a writer has the methods for what it has a place for, and can be told everything.
    """

    def write_summaries(
        self, step: int, values: Mapping[str, Any], metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Takes arbitrary tensors of a step, name -> array."""

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Takes numbers of a step, name -> number."""

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Takes pictures of a step, name -> uint8 [H, W, C]."""

    def write_videos(self, step: int, videos: Mapping[str, np.ndarray]) -> None:
        """Takes videos of a step, name -> uint8 [T, H, W, C]."""

    def write_audios(
        self, step: int, audios: Mapping[str, np.ndarray], *, sample_rate: int
    ) -> None:
        """Takes sounds of a step, name -> [T, channels], at so many samples a second."""

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Takes texts of a step, name -> text."""

    def write_histograms(
        self,
        step: int,
        arrays: Mapping[str, np.ndarray],
        num_buckets: Mapping[str, int] | None = None,
    ) -> None:
        """Takes distributions of a step, name -> values."""

    def write_pointcloud(
        self,
        step: int,
        point_clouds: Mapping[str, np.ndarray],
        *,
        point_colors: Mapping[str, np.ndarray] | None = None,
        configs: Mapping[str, Any] | None = None,
    ) -> None:
        """Takes clouds of points of a step, name -> [N, 3]."""

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Takes the settings of the run, name -> value; once."""

    def flush(self) -> None:
        """Waits until everything is where it is kept."""

    def close(self) -> None:
        """Flushes and ends; no other method is called afterwards."""
