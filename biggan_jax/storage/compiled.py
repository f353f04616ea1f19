"""Compiled programs, kept between runs: JAX's persistent compilation cache around one command.

A library must not change the JAX configuration of the program that imports it, so nothing here
happens at an import or in `load_generator`: the command line enters `kept`, and so can anyone.
"""

import contextlib
import hashlib
import os
import platform
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from biggan_jax.errors import UserError

VARIABLE = "BIGGAN_CACHE"
OFF = ("off", "0", "no", "false")
# Of all programs together. The step of a narrow model takes 1 MB, that of BigGAN-512 about 20.
LIMIT_BYTES = 1 << 30
# JAX leaves out what compiles in less than a second: most programs of a start, together seconds.
SMALL_TOO = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
_SUFFIX = "-cache"  # of JAX's entries, `jit_NAME-KEY-cache`
_MESSAGE = re.compile(r"Error (reading|writing) persistent compilation cache entry for '(.+?)': ")


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """A context whose compiled programs are kept in a folder, and taken from there.

    The folder is `root`'s, for processors like this one. Where JAX has been told of a folder
    (JAX_COMPILATION_CACHE_DIR), that one is used as it is, and where its cache was switched off
    (JAX_ENABLE_COMPILATION_CACHE) or this one is (BIGGAN_CACHE=off), none. A folder that cannot be
    written is one warning, a damaged entry is removed and compiled again. Several processes may
    share a folder. At the end JAX's settings are again what they were.

    Raises:
      UserError: BIGGAN_CACHE names no absolute folder.
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    new = {name: v for name, v in _settings().items() if getattr(jax.config, name) != v}
    old = {name: getattr(jax.config, name) for name in new}

    def update(settings: dict) -> None:
        for name, value in settings.items():
            jax.config.update(name, value)
        if settings:
            compilation_cache.reset_cache()  # it reads them once

    with _Notices(new.get("jax_compilation_cache_dir")).heard():
        update(new)
        try:
            yield
        finally:
            update(old)


def root() -> Path:
    """The folder of all kept programs.

    Returns:
      What BIGGAN_CACHE names, or `biggan_jax/programs` in $XDG_CACHE_HOME or ~/.cache.

    Raises:
      UserError: BIGGAN_CACHE is no absolute path.
    """
    given = os.environ.get(VARIABLE, "")
    if given:
        path = Path(given).expanduser()
        if not path.is_absolute():  # a misspelt 'off' would become a folder where one stands
            raise UserError(f"{VARIABLE} is {given!r}; set it to off or to an absolute folder")
        return path
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The standard has relative paths ignored.
    base = Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()
    return base / "biggan_jax" / "programs"


def bound(folder: Path, limit: int = LIMIT_BYTES) -> None:
    """Removes the programs that were not used for the longest time until the others fit.

    JAX's own limit, jax_compilation_cache_max_size, is not used: it needs another package, takes a
    lock for every program, which network disks may not have, and keeps nothing any more once a
    killed process has left a program without its time.

    Args:
      folder: of all programs.
      limit: bytes that may stay.
    """
    found = []
    for path in folder.rglob(f"*{_SUFFIX}"):
        with contextlib.suppress(OSError):  # another process removed it
            stat = path.stat()
            found.append((max(stat.st_atime, stat.st_mtime), stat.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= limit:
            return
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size


class Answers:
    """What the cache answered; see `answers`.

    Attributes:
      hits: programs that were there.
      misses: programs that were compiled.
    """

    hits = misses = 0


@contextlib.contextmanager
def answers() -> Iterator[Answers]:
    """A context that counts what the cache, where there is one, answers within it."""
    from jax import monitoring

    found = Answers()

    def count(event: str, **_) -> None:
        found.hits += event == "/jax/compilation_cache/cache_hits"
        found.misses += event == "/jax/compilation_cache/cache_misses"

    monitoring.register_event_listener(count)
    try:
        yield found
    finally:
        monitoring.unregister_event_listener(count)


def tell(message: Warning | str) -> bool:
    """Takes a Python warning, if it is one of the cache, and says what a user can do.

    Args:
      message: of the warning.

    Returns:
      Whether it was one of the cache: then nobody else needs to show it.
    """
    return any([notices.take(str(message)) for notices in _listening])


def _settings() -> dict[str, str | bool | float]:
    """Settings of JAX for the command; {} where they stay as they are."""
    import jax

    if not jax.config.jax_enable_compilation_cache:
        return {}
    if os.environ.get(VARIABLE, "").strip().lower() in OFF:
        return {"jax_enable_compilation_cache": False}
    small = {name: v for name, v in SMALL_TOO.items() if name.upper() not in os.environ}
    own = jax.config.jax_compilation_cache_dir
    if own:
        return {} if "://" in own else small  # a bucket is slower than a small compilation
    folder = root()
    try:
        place = folder / _processor()
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: no home directory
        _warn(folder, getattr(error, "strerror", None) or str(error))
        return {}
    bound(folder)
    return small | {"jax_compilation_cache_dir": str(place)}


def _processor() -> str:
    """Names processors that run each other's machine code.

    A home directory may be that of several machines, and a program compiled for AVX-512 ends a
    process on a processor without it; JAX's key may not tell them apart.
    """
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        # x86 has flags, Arm has Features; every core has the same line.
        features = {line for line in lines if line.lower().startswith(("flags", "features"))}
        if features:
            text = "\n".join(sorted(features))
            return f"{platform.machine()}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return f"{platform.machine()}-{platform.system().lower()}"


def _warn(folder: str | Path, reason: str) -> None:
    print(
        f"warning: compiled programs are not kept in {folder} ({reason}): set "
        f"{VARIABLE} to another folder, or to off",
        file=sys.stderr,
    )


_listening: list["_Notices"] = []


class _Notices:
    """Turns JAX's warning about every single program into one line, or repairs the cause."""

    def __init__(self, folder: str | None):
        self._folder, self._told = folder, False

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        with warnings.catch_warnings():
            show = warnings.showwarning

            def showwarning(message, *args, **kwargs) -> None:
                if not tell(message):
                    show(message, *args, **kwargs)

            warnings.showwarning = showwarning
            _listening.append(self)
            try:
                yield
            finally:
                _listening.remove(self)

    def take(self, message: str) -> bool:
        found = _MESSAGE.match(message)
        if found is None:
            return False
        verb, program = found.groups()
        if verb == "reading" and self._folder is not None and self._remove(program):
            return True  # compiled again and kept, right after this
        if not self._told:
            _warn(self._folder or "JAX_COMPILATION_CACHE_DIR", message[found.end() :])
            self._told = True
        return True

    def _remove(self, program: str) -> bool:
        """Removes what may be the damaged entry; JAX would not write over it."""
        entries = [p for p in Path(self._folder).iterdir() if p.name.startswith(f"{program}-")]
        try:
            for path in entries:
                path.unlink(missing_ok=True)
        except OSError:
            return False
        return bool(entries)
