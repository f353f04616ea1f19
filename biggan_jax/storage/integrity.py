"""Verified storage of one tree of arrays: a digest per array, written with it, compared on reading.

A stored tree is a directory with two Orbax items: `state`, the arrays, and `meta`, a JSON record of
the caller's meta, the shape, dtype and digest of every array, and a seal over the record itself.
Orbax restores flipped bytes without a word; the digests are what notices.
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import traverse_util

from biggan_jax.errors import UserError, some
from biggan_jax.parallel import processes
from biggan_jax.storage import orbax_noise, paths
from biggan_jax.storage.digest import digests, digests_and_broken, named_leaves
from biggan_jax.storage.orbax_import import ocp

# Reading fails for these reasons although what is stored may be whole: they are not corruption.
_ENVIRONMENT = {errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE}
_BUCKET_REFUSALS = ("unavailable", "deadlineexceeded", "permissiondenied", "unauthenticated")


class CorruptError(Exception):
    """What is stored cannot be trusted; the message is the reason, in one line."""


class NotFiniteError(Exception):
    """What is stored is what was saved, but weights hold NaN or infinity.

    Attributes:
      names: their paths.
    """

    def __init__(self, names: list[str]):
        super().__init__(f"NaN or infinity in {some(names)}")
        self.names = names


def save_args(state: Any, meta: dict) -> ocp.args.Composite:
    """Builds what Orbax is to save: the arrays and their record.

    Args:
      state: a tree of arrays, numpy arrays and Python numbers.
      meta: anything JSON can hold.

    Returns:
      Arguments for an Orbax save.
    """
    values = digests(state)
    arrays = {
        p: _description(leaf) | {"digest": values[p]} for p, leaf in named_leaves(state).items()
    }
    record = json.loads(json.dumps({"meta": meta, "arrays": arrays}))
    record["seal"] = seal(record)
    args = ocp.args
    return args.Composite(state=args.StandardSave(state), meta=args.JsonSave(record))


@orbax_noise.silenced()
def read_record(path: epath.Path) -> dict:
    """Reads the record of a stored tree.

    Args:
      path: its directory.

    Returns:
      `meta` and `arrays` {path: {shape, dtype, digest}}.

    Raises:
      CorruptError: the record is missing or damaged.
      OSError: it exists but cannot be read.
    """
    try:
        record = ocp.JsonCheckpointHandler().restore(path / "meta")
        sealed = record.pop("seal")
    except Exception as error:
        _raise_environment(error, path)
        raise CorruptError(f"its record is unreadable ({_one_line(error)})") from error
    if sealed != seal(record):
        raise CorruptError("its record does not match its seal")
    return record


@orbax_noise.silenced()
def read(
    path: epath.Path, target: Any, *, whole: bool, optional: Callable[[str], bool] = lambda _: False
) -> tuple[Any, dict]:
    """Reads arrays and compares them with their digests.

    Args:
      path: directory of the stored tree.
      target: what to read, as a tree of `jax.ShapeDtypeStruct`; one without a sharding goes to
        the default device.
      whole: whether the target must cover all that is stored.
      optional: says of the name of an array whether one side may lack it: what the target lacks is
        not read, what is not stored comes back as zeros.

    Returns:
      A tree like the target and the meta it was stored with.

    Raises:
      CorruptError: something is missing or differs from its digest.
      NotFiniteError: weights hold NaN or infinity.
      OSError: it exists but cannot be read.
      UserError: it is intact as far as known, and does not fit the target.
    """
    problem = None
    try:
        record = read_record(path)
        target = jax.tree.map(_placed, target)
        absent = _check_fit(path, record["arrays"], named_leaves(target), whole, optional)
        tree = _restore(path / "state", _held(target, record["arrays"]) if whole else target)
        tree = _complete(tree, target, absent)
    except (UserError, MemoryError):
        raise
    except CorruptError as error:
        problem = str(error)
    except Exception as error:
        _raise_environment(error, path)
        problem = _one_line(error)
    # All processes fall back or none: the digests below are a computation they share.
    if any(processes.gather(problem is not None)):
        raise CorruptError(problem or "another process cannot read it")
    values, broken = digests_and_broken(tree)
    arrays = record["arrays"]
    differing = [name for name, x in arrays.items() if values.get(name, x["digest"]) != x["digest"]]
    # Each process has digested its own copy of what lies on all.
    all_differing = sorted(set().union(*processes.gather(differing)))
    if all_differing:
        raise CorruptError(f"bits differ from those saved in {some(all_differing)}")
    all_broken = sorted(set().union(*processes.gather(broken)))
    if all_broken:
        raise NotFiniteError(all_broken)
    return tree, record["meta"]


def nested_target(record: dict) -> dict:
    """Builds the target that reads a whole stored tree as a nested dict on the default device.

    Args:
      record: what `read_record` returns.

    Returns:
      A nested dict of `jax.ShapeDtypeStruct`.
    """
    flat = {
        name: jax.ShapeDtypeStruct(array["shape"], jnp.dtype(array["dtype"]))
        for name, array in record["arrays"].items()
    }
    return traverse_util.unflatten_dict(flat, sep="/")


def raise_as_os_error(error: Exception, what: str, path: epath.Path) -> NoReturn:
    """Raises a failed write as an OSError when the disk is the reason, else as it is.

    Args:
      error: what Orbax raised. tensorstore reports a full disk as a ValueError that ends in
        `[os_error_code='28']`; directories and JSON files raise an OSError of their own.
      what: what failed, for the message.
      path: the directory, for the message.
    """
    code = _errno(error)
    if code is None and paths.is_remote(path):
        raise OSError(f"{what}: {path}: {_one_line(error)}") from error
    if code is None:
        raise error
    raise OSError(code, f"{what} ({os.strerror(code)})", os.fspath(path)) from error


def absolute(directory: epath.PathLike) -> epath.Path:
    """A path as Orbax wants it: absolute, where it is no bucket address such as gs://bucket/run."""
    return epath.Path(os.fspath(paths.absolute(directory)))


def _description(leaf: Any) -> dict:
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}


def seal(record: dict) -> str:
    """The digest of a record, which is kept in it as `seal`."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _placed(leaf: Any) -> Any:
    if not isinstance(leaf, jax.ShapeDtypeStruct) or leaf.sharding is not None:
        return leaf
    (device,) = jnp.zeros(()).devices()
    return leaf.update(sharding=jax.sharding.SingleDeviceSharding(device))


def _check_fit(
    path: epath.Path,
    saved: dict,
    target: dict[str, Any],
    whole: bool,
    optional: Callable[[str], bool],
) -> list[str]:
    """Raises UserError unless what is saved fits the target; the optional names that it lacks."""
    absent = [name for name in target if name not in saved and optional(name)]
    wanted = {n: _description(leaf) for n, leaf in target.items() if n not in absent}
    # The dtype too: Orbax silently casts to the target's.
    differing = [n for n, own in wanted.items() if saved.get(n, {}) | own != saved.get(n)]
    if whole:
        differing += [name for name in saved if name not in wanted and not optional(name)]
    if differing:
        first, *others = differing
        also = f" (also {some(others)})" if others else ""
        raise UserError(
            f"{path} does not fit: {first} is {_show(saved.get(first))} there and "
            f"{_show(wanted.get(first))} here{also}; use the config it was made with"
        )
    return absent


def _show(array: dict | None) -> str:
    return f"{array['dtype']}{array['shape']}" if array else "missing"


def _restore(path: epath.Path, target: Any) -> Any:
    # The handler alone, without a manager: it needs no barrier and cannot write. partial_restore
    # serves both cases, since `_check_fit` has compared the names.
    handler = ocp.PyTreeCheckpointHandler()
    args = ocp.args.PyTreeRestore(
        item=target,
        restore_args=ocp.checkpoint_utils.construct_restore_args(target),
        partial_restore=True,
    )
    tree = handler.restore(path, args=args)
    handler.close()
    return tree


def _held(target: Any, saved: dict) -> Any:
    """The target, None in place of what holds no saved array: Orbax compares types of the empty."""
    names = named_leaves(target)
    absent = {id(leaf) for name, leaf in names.items() if name not in saved}

    def is_bare(x: Any) -> bool:
        return all(id(leaf) in absent for leaf in jax.tree.leaves(x))

    if names.keys() == saved.keys():
        return target
    return jax.tree.map(lambda x: None if is_bare(x) else x, target, is_leaf=is_bare)


def _complete(tree: Any, target: Any, absent: list[str]) -> Any:
    """What Orbax gave as a tree like the target, with zeros for what is not stored.

    A name absent from its own index comes back as the target's struct, without an error.
    """
    names = named_leaves(target) | named_leaves(tree)
    for name, x in names.items():
        if isinstance(x, jax.ShapeDtypeStruct):
            if name not in absent:
                raise CorruptError(f"array {name} is missing")
            names[name] = jnp.zeros(x.shape, x.dtype, device=x.sharding)
    return jax.tree.structure(target).unflatten(names.values())


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:  # tensorstore's own words are below Orbax's
        error = error.__cause__
    return error


def _errno(error: BaseException) -> int | None:
    if isinstance(_root(error), OSError):
        return _root(error).errno
    code = re.search(r"os_error_code='(\d+)'", str(_root(error)))
    return int(code[1]) if code else None


def _raise_environment(error: Exception, path: epath.Path) -> None:
    if _errno(error) in _ENVIRONMENT or _is_bucket_refusal(error, path):
        raise_as_os_error(error, "it cannot be read", path)
    if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
        raise error


def _is_bucket_refusal(error: BaseException, path: epath.Path) -> bool:
    # Of tensorstore (in its text) or TensorFlow (in its class); a retry may find all intact.
    text = f"{type(_root(error)).__name__} {_root(error)}".lower().replace("_", "")
    return paths.is_remote(path) and any(word in text for word in _BUCKET_REFUSALS)


def _one_line(error: BaseException) -> str:
    text = " ".join(f"{type(_root(error)).__name__}: {_root(error)}".split())
    return text if len(text) <= 240 else text[:240] + "..."
