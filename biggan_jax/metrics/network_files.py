"""A features network on disk: one `.npz` with its weights, what is known of them, and a digest.

One file of one pass, rather than a checkpoint: the 472 arrays of Inception load in a tenth of a
second.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from biggan_jax.errors import UserError
from biggan_jax.metrics import archives


def to_bytes(variables: Any, meta: dict[str, Any]) -> bytes:
    """Gives the contents of the `.npz` of a network.

    Args:
      variables: a nested dict of arrays.
      meta: what JSON can hold.

    Returns:
      What `load` reads from a file.
    """
    record = json.dumps({"meta": meta, "weights_digest": weights_digest(variables)})
    return archives.to_bytes({"record": np.array(record)} | _flat(variables))


def load(path: Path, cure: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads a file of `to_bytes`.

    Args:
      path: the `.npz`.
      cure: what to do about a damaged file, for the message.

    Returns:
      (variables on the host, meta).

    Raises:
      FileNotFoundError: there is no file.
      UserError: it is damaged.
    """
    try:
        arrays, _ = archives.read(path)
        record = json.loads(str(arrays.pop("record")))
        meta, digest = record["meta"], record["weights_digest"]
        if not isinstance(meta, dict):
            raise TypeError("`meta` is no object")
    except FileNotFoundError:
        raise
    except archives.ChangedError as e:
        raise UserError(f"{path} is damaged: {cure}") from e
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as e:
        raise UserError(f"{path} cannot be read ({e}): {cure}") from e
    try:
        variables = traverse_util.unflatten_dict(arrays, sep="/")
        whole = weights_digest(variables) == digest
    except (TypeError, ValueError, KeyError, AttributeError):  # names that are no paths of a tree
        whole = False
    if not whole:
        raise UserError(f"{path} is damaged: {cure}")
    return variables, meta


def weights_digest(tree: Any) -> str:
    """Digest of the weights of a network.

    Args:
      tree: a nested dict of arrays.

    Returns:
      64 hexadecimal digits: sha256 over names, shapes, dtypes and bytes in the order of the names.
    """
    digest = hashlib.sha256()
    for path, leaf in sorted(_flat(tree).items()):
        digest.update(f"{path} {leaf.shape} {leaf.dtype.name}\n".encode())
        digest.update(np.ascontiguousarray(leaf))
    return digest.hexdigest()


def _flat(tree: Any) -> dict[str, np.ndarray]:
    """A nested dict of arrays as {names joined by '/': array on the host}."""
    flat = traverse_util.flatten_dict(jax.device_get(tree), sep="/")
    return {name: np.asarray(leaf) for name, leaf in flat.items()}
