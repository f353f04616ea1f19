"""A data set of TFDS that is not prepared yet: it is downloaded and prepared, or refused."""

import contextlib
import socket
import sys
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from biggan_jax.data import quiet
from biggan_jax.data.source import one_line
from biggan_jax.errors import UserError


def make_readable(builder: tfds.core.DatasetBuilder, name: str) -> None:
    """Prepares the data set if need be, and checks that it has random access."""
    if not is_prepared(builder):
        _prepare(builder, name)
    formats = builder.info.available_file_formats()
    if not formats & tfds.core.FileFormat.with_random_access():
        stored = ", ".join(sorted(f.value for f in formats)) or "an unknown format"
        raise UserError(
            f"{builder.data_dir} was prepared as {stored}, which has no random access; prepare it "
            "with file_format='array_record' into another folder and set TFDS_DATA_DIR to that"
        )


def is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    """Whether its files are there."""
    with quiet.loggers("absl"):  # TFDS warns of a folder that is not there yet
        return builder.is_prepared()


def check_manual_files(builder: tfds.core.DatasetBuilder, name: str) -> None:
    """Refuses a data set whose files nobody has put where TFDS looks for them."""
    wanted = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
    folder = Path(builder.data_dir).parents[len(Path(builder.info.full_name).parts) - 1]
    folder = folder / "downloads" / "manual"  # the default of TFDS's DownloadConfig
    if not wanted or (folder.is_dir() and any(folder.iterdir())):
        return
    lacks = "is empty" if folder.is_dir() else "does not exist"
    raise UserError(
        f"TFDS data set {name!r} is not prepared in {builder.data_dir}, and {folder}, from which "
        f"it would be made, {lacks}: put there what TFDS asks for ({' '.join(wanted.split())}), or "
        "set TFDS_DATA_DIR to the folder where it was prepared"
    )


def _prepare(builder: tfds.core.DatasetBuilder, name: str) -> None:
    check_manual_files(builder, name)
    try:
        # TFDS prints its progress to stdout, which belongs to the caller's own output.
        with contextlib.redirect_stdout(sys.stderr), no_retries_when_offline(builder):
            builder.download_and_prepare(file_format="array_record")
    except Exception as error:  # builders raise what they like
        if _lacks_tensorflow(error):
            raise UserError(
                f"TFDS data set {name!r} is not prepared in {builder.data_dir}, and its builder "
                "needs TensorFlow: pip install 'biggan_jax[tensorflow]', or set TFDS_DATA_DIR to "
                "the folder where it was prepared"
            ) from error
        raise UserError(
            f"TFDS data set {name!r} is not prepared in {builder.data_dir} and preparing it failed "
            f"({one_line(error)}); prepare it with file_format='array_record' where there is a "
            "network and set TFDS_DATA_DIR to the folder"
        ) from error


def _lacks_tensorflow(error: BaseException | None) -> bool:
    """Whether an error comes from importing TensorFlow where there is none."""
    while error is not None:
        if isinstance(error, ImportError) and "tensorflow" in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def no_retries_when_offline(builder: tfds.core.DatasetBuilder):
    """Where no download host has an address, ten retries only waste three minutes.

    Files that were downloaded before are still used, so being offline is no error here.
    """
    from tensorflow_datasets.core.download import downloader

    if not _offline(builder.url_infos or {}) or not hasattr(downloader, "MAX_RETRIES"):
        yield
        return
    retries, downloader.MAX_RETRIES = downloader.MAX_RETRIES, 0
    try:
        yield
    finally:
        downloader.MAX_RETRIES = retries


def _offline(urls: Sequence[str]) -> bool:
    hosts = {urllib.parse.urlsplit(url).hostname for url in urls} - {None}
    if not hosts or urllib.request.getproxies():  # a proxy resolves names itself
        return False
    for host in sorted(hosts)[:3]:
        with contextlib.suppress(OSError):
            socket.getaddrinfo(host, 443)
            return False
    return True
