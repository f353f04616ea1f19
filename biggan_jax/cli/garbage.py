"""How often Python looks for reference cycles in the process of a command.

Imports and traces make millions of objects that live on. By default the collector visits the
youngest of them after every 700 new ones, and JAX has it call XLA each time.

References:
  Python's documentation, `gc.set_threshold`.
"""

import gc

_THRESHOLDS = 50_000, 20, 50  # new objects, then young and middle collections


def collect_rarely() -> None:
    """Raises the collector's thresholds for the rest of this process.

    None is lowered, and a first one of 0, which turns the collector off, stays.
    """
    given = gc.get_threshold()
    if given[0]:
        gc.set_threshold(*map(max, given, _THRESHOLDS))
