"""What a score was measured with, as named fields and a fingerprint over them."""

import hashlib
import json
from typing import Any

# A model or samples, its step, whether its average is one yet, where the same data lie (their
# digest counts), what its training left out of them, what it may have copied, and how their classes
# were found may differ in a comparison.
SUBJECT = (
    *("model", "step", "average", "real", "real_held_out", "memorisation", "classes"),
    *("fake", "fake_digest", "fingerprint"),
)


def seal(fields: dict[str, Any]) -> dict[str, Any]:
    """Adds the fingerprint.

    Args:
      fields: JSON values by name.

    Returns:
      The fields and `fingerprint`, 16 hexadecimal digits over all but `SUBJECT`: two scores may be
      compared where it is equal.
    """
    compared = {name: value for name, value in fields.items() if name not in SUBJECT}
    text = json.dumps(compared, sort_keys=True)
    return fields | {"fingerprint": hashlib.sha256(text.encode()).hexdigest()[:16]}


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Fields in which two protocols differ, apart from their subjects.

    Args:
      a: a protocol.
      b: another.

    Returns:
      'name a -> b' for each, in alphabetical order; a field that one lacks is None there.
    """
    return [
        f"{name} {_short(a.get(name))} -> {_short(b.get(name))}"
        for name in sorted(a.keys() | b.keys())
        if name not in SUBJECT and a.get(name) != b.get(name)
    ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."  # a digest
