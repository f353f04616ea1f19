"""Replaces a folder by a new one so that a kill at any instant leaves the old or the new one whole.

The new folder is written as `NAME.new`. A local one then takes its name by two renames, between
which the old one is `NAME.old`. A bucket moves a folder object by object; there the marker
`NAME.copying` says that `NAME.new` is the whole one until all of it has been copied to `NAME`.
"""

from typing import Any

from biggan_jax.storage import paths

ENDS = (".new", ".old", ".copying")


def prepare(path: Any) -> Any:
    """Ends a replacement that a kill interrupted, and clears the place for a new one.

    Args:
      path: the folder that will be replaced, as an absolute `etils.epath.Path`.

    Returns:
      The path to write the new folder to; nothing is there now.
    """
    fresh, old, marker = _beside(path)
    if marker.exists():
        _copy(path)
    if old.is_dir():
        if path.is_dir():
            old.rmtree()
        else:
            old.rename(path)
    if fresh.is_dir():
        fresh.rmtree()
    return fresh


def commit(path: Any) -> None:
    """Puts the finished `NAME.new` in the place of the folder.

    Args:
      path: the folder, on which `prepare` was called.
    """
    fresh, old, marker = _beside(path)
    if paths.is_remote(path):
        paths.write_bytes(marker, b"")
        _copy(path)
        fresh.rmtree()
        return
    if path.is_dir():
        path.rename(old)
    fresh.rename(path)
    if old.is_dir():
        old.rmtree()


def whole(path: Any) -> Any:
    """Finds the folder, also where a kill interrupted its replacement; changes nothing.

    Args:
      path: the folder.

    Returns:
      The path at which all of it can be read: `path` itself, also where there is none at all.
    """
    fresh, old, marker = _beside(path)
    if paths.is_remote(path):
        return fresh if marker.exists() else path
    return old if not path.is_dir() and old.is_dir() else path


def name_of(path: Any) -> str:
    """Names the folder that a path, found on the disk, is or is a part of the replacement of."""
    return path.stem if path.suffix in ENDS else path.name


def copy(source: Any, target: Any) -> None:
    """Copies a folder and all in it.

    Args:
      source: the folder.
      target: its new name; created when missing.
    """
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        if entry.is_dir():
            copy(entry, target / entry.name)
        else:
            entry.copy(target / entry.name, overwrite=True)


def _beside(path: Any) -> tuple[Any, Any, Any]:
    return tuple(path.with_name(path.name + end) for end in ENDS)


def _copy(path: Any) -> None:
    """Copies `NAME.new` to `NAME`; may be repeated from the start at any time."""
    fresh, _, marker = _beside(path)
    if path.is_dir():
        path.rmtree()
    copy(fresh, path)
    marker.unlink()
