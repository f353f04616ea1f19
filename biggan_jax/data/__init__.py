"""Image sources, one deterministic batch stream, prepared records and the data report."""

from biggan_jax.data.record_writer import prepare
from biggan_jax.data.report import DataReport, data_report
from biggan_jax.data.source import Source
from biggan_jax.data.spec import open_source
from biggan_jax.data.stream import Batches

__all__ = ["Batches", "DataReport", "Source", "data_report", "open_source", "prepare"]
