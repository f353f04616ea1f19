"""Models on the Hugging Face Hub: hf://USER/REPO[@REVISION], read and written by huggingface_hub.

What is fetched lies in huggingface_hub's own cache, and is taken from there where the hub cannot be
reached. HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE work as it documents them.
"""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from biggan_jax.errors import UserError, some

PREFIX = "hf://"
FORM = "hf://USER/REPO or hf://USER/REPO@REVISION"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
# No pickles, which can run code, and nothing of what else people keep beside a model.
FETCHED = (CONFIG, WEIGHTS, "score.json", "weights/*")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
LOGIN = "log in by `hf auth login`, or set HF_TOKEN"
ANSWER_SECONDS = 10.0  # for the hub to begin its first answer
_PART = re.compile(r"[A-Za-z0-9](?:[\w.-]*\w)?")


class Address(NamedTuple):
    """Where a model lies on the hub.

    Attributes:
      repo: USER/REPO.
      revision: a branch, a tag or a commit; None is the main branch.
    """

    repo: str
    revision: str | None

    def __str__(self) -> str:
        return PREFIX + self.repo + (f"@{self.revision}" if self.revision else "")


def is_address(text: str | os.PathLike) -> bool:
    """Whether a name is one of the hub; a `Path` of it, which has lost a slash, is one too."""
    return os.fspath(text).startswith("hf:/")


def parse(text: str | os.PathLike) -> Address:
    """Reads an address.

    Args:
      text: hf://USER/REPO, with @REVISION where another than the main branch is meant.

    Returns:
      The address.

    Raises:
      UserError: it is none.
    """
    rest = os.fspath(text).removeprefix("hf:").strip("/")
    repo, at, revision = rest.partition("@")
    parts = repo.split("/")
    whole = is_address(text) and len(parts) == 2 and all(_PART.fullmatch(part) for part in parts)
    if not whole or (at and not re.fullmatch(r"[^\s@]+", revision)) or ".." in repo:
        raise UserError(f"{os.fspath(text)} is no model of the hub: write {FORM}")
    return Address(repo, revision or None)


def fetch(address: Address) -> Path:
    """Fetches a model directory, or finds it in huggingface_hub's cache.

    Args:
      address: of the model.

    Returns:
      The folder, which is not to be written to.

    Raises:
      UserError: huggingface_hub is not installed, the hub does not give the files, or there is no
        model of ours.
    """
    hub = _library()
    with _told(address, "read"):
        folder = _fetched(address, hub)
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"{address} holds no {CONFIG}, and so no model of biggan_jax: give one that "
            f"`biggan export --push {PREFIX}USER/REPO` has written"
        )
    if not (folder / WEIGHTS).is_file() and not (folder / "weights").is_dir():
        files: list[str] = []
        with contextlib.suppress(UserError), _told(address, "read"):
            files = _api(hub).list_repo_files(address.repo, revision=address.revision)
        raise UserError(_without_weights(address, files))
    return folder


def push(address: Address, folder: Path, message: str) -> str:
    """Writes all files of a folder into a repository as one commit; makes it where there is none.

    Args:
      address: of the repository; its revision is a branch.
      folder: the files.
      message: of the commit.

    Returns:
      The web address of the commit.

    Raises:
      UserError: huggingface_hub is not installed, or the hub does not take the files.
    """
    hub = _library()
    api = _api(hub)
    with _told(address, "write"):
        try:
            api.model_info(address.repo, timeout=ANSWER_SECONDS)
        except Exception as error:
            if _status(error) is None:  # no answer; anything else the next request says better
                raise
        api.create_repo(address.repo, exist_ok=True)
        if address.revision:
            api.create_branch(address.repo, branch=address.revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=address.repo,
            folder_path=folder,
            revision=address.revision,
            commit_message=message,
        )
    return str(commit.commit_url)


def check() -> None:
    """Raises UserError unless huggingface_hub is installed."""
    _library()


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(
            f"{PREFIX} addresses need huggingface_hub, which is not installed: pip install "
            "'biggan_jax[hub]'"
        ) from None
    return huggingface_hub


def _api(hub: Any) -> Any:
    return hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)


def _fetched(address: Address, hub: Any) -> Path:
    """The folder in the cache; as it was fetched before where the hub gives no answer now."""
    revision, problem = address.revision or "main", None
    try:
        # Of its requests this one alone can have a limit; without one they wait for ever.
        _api(hub).model_info(address.repo, revision=revision, timeout=ANSWER_SECONDS)
    except Exception as error:
        status = _status(error)
        if status is not None and status < 500 and status != 429:
            raise
        problem = error
    try:
        found = hub.snapshot_download(
            address.repo,
            revision=revision,
            allow_patterns=list(FETCHED),
            endpoint=os.environ.get("HF_ENDPOINT") or None,
            local_files_only=problem is not None,
        )
    except FileNotFoundError:
        if problem is not None:
            raise problem from None
        raise
    return Path(found)


def _status(error: BaseException) -> int | None:
    """The HTTP status of an answer; None where there was none."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _without_weights(address: Address, files: list[str]) -> str:
    pickles = [name for name in files if name.lower().endswith(PICKLES)]
    others = [name for name in files if name.endswith(".safetensors")]
    line = f"{address} holds no {WEIGHTS}"
    if pickles:
        line += f" but {some(pickles)}: a pickle can run code and is not read; "
        return line + "convert it by `biggan import`, and push that by `biggan export --push`"
    line += f" but {some(others)}" if others else ""
    return f"{line}: it is no model that `biggan export --push` has written whole; push it again"


@contextlib.contextmanager
def _told(address: Address, what: str) -> Iterator[None]:
    """A context in which what goes wrong with the hub is a UserError, and nothing else is said.

    Args:
      address: that is asked for.
      what: 'read' or 'write'.
    """
    from huggingface_hub import utils as bars
    from huggingface_hub.utils import logging as theirs  # which sets the level as it is loaded

    logger = theirs.get_logger()
    level, shown = logger.level, not bars.are_progress_bars_disabled()
    logger.setLevel(logging.CRITICAL)
    if shown and not sys.stderr.isatty():
        bars.disable_progress_bars()
    try:
        yield
    except (UserError, MemoryError, AssertionError):
        raise
    except Exception as error:  # of huggingface_hub, its HTTP client or its transfer library
        raise _as_user_error(address, error, what) from error
    finally:
        logger.setLevel(level)
        if shown:
            bars.enable_progress_bars()


def _as_user_error(address: Address, error: Exception, what: str) -> Exception:
    chain = list(_causes(error))
    for cause in chain:
        code = _status(cause)
        if code is not None:
            return UserError(_answered(address, cause, code, what))
    text = " ".join(str(chain[-1]).split())[:200]
    if any(type(cause).__name__ == "OfflineModeIsEnabled" for cause in chain):
        return UserError(f"{address} is not in the cache, and HF_HUB_OFFLINE is set: unset it")
    if re.search("Consistency check|incomplete|peer closed|IncompleteRead", str(error)):
        return UserError(f"{address}: a file came truncated ({text}): try again")
    if isinstance(error, OSError) and error.errno is not None:
        return error  # of this machine's disk
    names = " ".join(base.__name__ for cause in chain for base in type(cause).__mro__)
    if re.search("Timeout|ConnectError|NetworkError|TransportError|ConnectionError", names):
        endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
        return UserError(
            f"{address}: {endpoint} cannot be reached ({text or type(chain[-1]).__name__}): is "
            "this machine on the network? What was fetched before is read without it"
        )
    # An answer that is no JSON, or lacks what every answer of a hub has.
    unread = isinstance(error, (ValueError, KeyError, TypeError, AttributeError))
    if (unread and "Repo id" not in str(error)) or "TooManyRedirects" in names:
        return UserError(
            f"{address}: the hub's answer cannot be read ({text}): is HF_ENDPOINT right?"
        )
    return UserError(f"{address}: {text or type(error).__name__}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _answered(address: Address, error: BaseException, code: int, what: str) -> str:
    """What an answer of the hub means; it names a repository that one may not see as missing."""
    name = type(error).__name__
    if name == "RevisionNotFoundError":
        return (
            f"{address}: {address.repo} has no branch, tag or commit {address.revision or 'main'}"
        )
    if name == "GatedRepoError" or code == 403:
        may = "ask its owner for access" if what == "read" else "take a token that may write to it"
        return f"{address}: the hub answered {code}, this account may not {what} it: {may}"
    if code == 401:
        there = "there is no such repository, or it is private" if what == "read" else "no login"
        return f"{address}: the hub answered 401 ({there}): {LOGIN}"
    if code == 404:
        branch = f", or it has no revision {address.revision}" if address.revision else ""
        return (
            f"{address}: the hub answered 404, there is no such repository{branch}: correct the "
            f"name; where it is private, {LOGIN}"
        )
    if code == 429:
        return f"{address}: the hub answered 429, too many requests: wait some minutes, or {LOGIN}"
    return f"{address}: the hub answered {code}: try again later"
