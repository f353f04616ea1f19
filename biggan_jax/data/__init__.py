"""Image sources, one deterministic batch stream, prepared records and the data report."""

import importlib

# Lazy: a help text reads `kinds` alone, and must not wait for numpy.
_HOMES = {
    "Batches": "stream",
    "DataReport": "report",
    "Source": "source",
    "absolute": "spec",
    "check_lanes": "stream",
    "choices": "spec",
    "data_report": "report",
    "hold_out": "holdout",
    "open_source": "spec",
    "prepare": "record_writer",
}


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"biggan_jax.data.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'biggan_jax.data' has no attribute {name!r}")
