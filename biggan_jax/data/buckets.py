"""Files of a local folder or of a bucket (gs://bucket/folder), and what may be wrong with one.

A bucket has no append and no rename of a file in the making; but an object appears whole. Its
libraries (TensorFlow's file system, Google's client) are loaded only where a path is remote.
"""

import contextlib
import importlib.util
import os
import random
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from biggan_jax.data import quiet
from biggan_jax.errors import UserError

ANSWER_SECONDS = 30.0  # for a bucket to answer at the start; libraries would retry for minutes
ATTEMPTS = 6  # at a request that fails: at a failure of one in ten all fail once in a million
FIRST_WAIT = 0.5  # seconds before the second attempt, twice as many before each later one
_BLOCK_BYTES = 8 << 20  # that are sent at once
# Of requests that would fail again; TensorFlow's errors are known by name.
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_REFUSED_NAMES = ("PermissionDeniedError", "UnauthenticatedError")
_FINAL_NAMES = ("NotFoundError", *_REFUSED_NAMES)
MAY_READ = "give this account the right to read it (in a bucket roles/storage.objectViewer)"
READ = {"storage.buckets.get", "storage.objects.get", "storage.objects.list"}
WRITE = READ | {"storage.objects.create", "storage.objects.delete"}
ROLES = {
    True: "roles/storage.objectAdmin and roles/storage.legacyBucketReader",
    False: "roles/storage.objectViewer and roles/storage.legacyBucketReader",
}


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path lies in a bucket."""
    return "://" in os.fspath(path)


def workdir_path(path: str | os.PathLike) -> Any:
    """The path object of a folder or file.

    Args:
      path: local, or gs://bucket/name.

    Returns:
      A `pathlib.Path` with its `~` expanded, or an `etils.epath.Path` with the same methods for one
      in a bucket.

    Raises:
      UserError: no path at all, an address without a bucket, or of another kind of store.
    """
    text = os.fspath(path)
    if not text.strip():
        raise UserError("a path is empty: give a folder or file, or leave the setting out")
    if not is_remote(path) and not text.startswith("gs:"):  # that is a slip, and no folder
        try:
            return Path(path).expanduser()  # a shell leaves the one of --workdir=~/run alone
        except RuntimeError as error:
            raise UserError(f"{text}: {error}".rstrip(".") + ": write the whole path") from None
    bucket = text.removeprefix("gs://").partition("/")[0]
    if not text.startswith("gs://") or not bucket:
        raise UserError(f"{text} is no folder and no bucket: give a path, or gs://BUCKET/FOLDER")
    # Both greet on stderr otherwise, once loaded.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    from etils import epath

    return epath.Path(text)


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Writes a file; whoever reads the path finds the old one or the whole new one.

    Args:
      path: the file; its directory is created when missing.
      data: its contents.

    Raises:
      OSError: it could not be written; what was there before still is.
    """
    path = workdir_path(path)
    if is_remote(path):
        with bucket_errors(path):
            path.write_bytes(data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of several hosts, whose numbers may be the same, may write it at once.
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(fresh, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # a crash must not leave the new name on an empty file
        os.replace(fresh, path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


def read_bytes(path: Any) -> bytes:
    """Reads a file whole, from a bucket with some attempts.

    Raises:
      FileNotFoundError: there is none.
      OSError: it cannot be read.
    """
    return retried(path, path.read_bytes)


def move(file: Path, path: Any) -> None:
    """Gives a local file its place, to which it is sent where that lies in a bucket.

    Args:
      file: on a local disk; gone afterwards.
      path: of the same disk, or in a bucket.

    Raises:
      OSError: it could not be written.
    """
    if not is_remote(path):
        file.replace(path)
        return

    def send() -> None:
        with open(file, "rb") as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, _BLOCK_BYTES)

    retried(path, send)
    file.unlink()


def retried(path: Any, call: Callable[[], Any]) -> Any:
    """What a request returns; where it fails in a bucket it is made again, a few times.

    Args:
      path: what it is about.
      call: the request.

    Raises:
      FileNotFoundError: there is no such file.
      OSError: it failed as often as `ATTEMPTS`, or will always fail.
    """
    for attempt in range(ATTEMPTS):
        try:
            with bucket_errors(path):
                return call()
        except OSError as error:
            if not is_remote(path) or is_final(error) or attempt == ATTEMPTS - 1:
                raise
        pause(attempt)
    raise AssertionError  # the last attempt returns or raises


def is_final(error: BaseException) -> bool:
    """Whether a request that failed so would fail again."""
    cause = error.__cause__ or error
    return isinstance(error, _FINAL) or type(cause).__name__ in _FINAL_NAMES


def is_refused(error: BaseException) -> bool:
    """Whether an account lacks the permission for a request that failed so."""
    cause = error.__cause__ or error
    return isinstance(error, PermissionError) or type(cause).__name__ in _REFUSED_NAMES


def pause(attempt: int) -> None:
    """Waits after the attempt of that number, not as long as everybody else."""
    time.sleep(FIRST_WAIT * 2**attempt * random.uniform(0.5, 1.0))


@contextlib.contextmanager
def bucket_errors(path: str | os.PathLike) -> Iterator[None]:
    """A context in which an error of a bucket's file system is an OSError of one line."""
    try:
        yield
    except Exception as error:
        if not is_remote(path) or not type(error).__module__.startswith("tensorflow"):
            raise
        raise OSError(f"{os.fspath(path)}: {_reason(error)}") from error


def reach(path: str | os.PathLike, *, write: bool) -> None:
    """Asks a bucket once whether this account may use it; a local path is not looked at.

    Args:
      path: of a workdir or model directory.
      write: whether it will be written to.

    Raises:
      UserError: no such bucket, no permission, no account, or no answer in `ANSWER_SECONDS`. It
        names the bucket, the account and the roles that are missing.
    """
    if not is_remote(path):
        return
    bucket = os.fspath(workdir_path(path)).removeprefix("gs://").partition("/")[0]
    try:
        from google.cloud import storage  # Orbax needs it too
    except ImportError:
        raise _lacking(bucket, "google-cloud-storage") from None
    if not _has_file_system():
        raise _lacking(bucket, "TensorFlow, whose file system reads and writes it")
    answer: list[UserError | None] = []

    def ask() -> None:
        with quiet.loggers("urllib3", "google"):  # they log that they try again
            answer.append(_ask(storage, bucket, write))

    # Finding an account may wait for a metadata server that is not there: not for ever.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    if not answer:
        raise UserError(
            f"gs://{bucket} did not answer in {ANSWER_SECONDS:g} s: is this machine on the "
            "network? Without a service account it needs `gcloud auth application-default login`"
        )
    if answer[0] is not None:
        raise answer[0]


def _has_file_system() -> bool:
    """Whether one is installed that `etils.epath` reads and writes buckets with."""
    return any(importlib.util.find_spec(name) for name in ("tensorflow", "gcsfs"))


def _lacking(bucket: str, what: str) -> UserError:
    return UserError(f"gs://{bucket} needs {what}: pip install 'biggan_jax[gcs]'")


def _ask(storage: Any, bucket: str, write: bool) -> UserError | None:
    """What is wrong with a bucket, from one request."""
    needed = WRITE if write else READ
    account = "this machine's account"
    try:
        client = storage.Client()
        account = getattr(client._credentials, "service_account_email", None) or account
        handle = client.bucket(bucket)
        timeout = ANSWER_SECONDS / 3
        granted = handle.test_iam_permissions(sorted(needed), timeout=timeout, retry=None)
    except Exception as error:
        # By name and code: their classes exist only where Google's client is installed.
        code, name = getattr(error, "code", None), type(error).__name__
        if code == 404:
            return UserError(
                f"there is no bucket gs://{bucket}: correct the name, or create it by `gcloud "
                f"storage buckets create gs://{bucket}`"
            )
        if name == "DefaultCredentialsError":
            return UserError(
                f"gs://{bucket}: no account on this machine may ask for it: run `gcloud auth "
                "application-default login`, set GOOGLE_APPLICATION_CREDENTIALS, or give the "
                "machine a service account"
            )
        if code not in (401, 403):
            return UserError(
                f"gs://{bucket} cannot be reached ({_reason(error)}): is this machine on the "
                "network?"
            )
        granted = ()
    missing = sorted(needed - set(granted))
    if not missing:
        return None
    return UserError(
        f"{account} has no permission for gs://{bucket} ({', '.join(missing)}): give it "
        f"{ROLES[write]} there"
    )


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # The heart of what urllib3 wraps four times.
    heart = re.search(r"Failed to resolve '[^']*'|Connection refused|timed out", lines[0])
    return heart[0] if heart else lines[0][:240].strip()
