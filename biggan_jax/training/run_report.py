"""The report that a run leaves at its end, however it ends."""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from typing import Any

from biggan_jax.errors import EXIT_INTERRUPTED, EXIT_TERMINATED
from biggan_jax.evaluation import run_files, run_page, run_sessions
from biggan_jax.parallel import devices, processes
from biggan_jax.training.progress import NonFiniteError
from biggan_jax.training.setup import Run

# (outcome, who stopped it) of an exit code.
ENDS = {
    0: ("finished", None),
    EXIT_INTERRUPTED: ("stopped", "Ctrl-C"),
    EXIT_TERMINATED: ("stopped", "SIGTERM"),
}


@dataclasses.dataclass
class Ending:
    """How a session of a run ended.

    Attributes:
      run: the present one, which is another after a rollback.
      result: of its training, where it came to one.
    """

    run: Run
    result: dict[str, Any] | None = None


@contextlib.contextmanager
def written(run: Run) -> Iterator[Ending]:
    """A context of a training session at whose end process 0 writes the report of the run.

    It is written after an error too, and after Ctrl-C or SIGTERM, but not after a kill. What goes
    wrong in writing it is one warning, and changes nothing else.

    Args:
      run: from `setup.prepare`.

    Yields:
      What gets the result of the training; the path of the report is added to it as `report`. Its
      `run` is to be replaced where a rollback makes another one.
    """
    ending = Ending(run)
    if not run.config.report or not processes.is_main():
        yield ending
        return
    told = devices.describe(list(run.train_step.mesh.devices.flat))
    with _warned("the start of this session was not recorded"):
        run_sessions.begin(run.workdir, run.start, told, run.report.lines())
    try:
        yield ending
    except BaseException as error:
        outcome = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
        path = _write(run, ending.run.log.step, outcome, _reason(error))
        if path is not None:
            print(f"report: {path}", file=sys.stderr)
        raise
    outcome, by = ENDS.get(ending.result["exit_code"], ("stopped", "the guard"))
    path = _write(run, ending.result["step"], outcome, by)
    if path is not None:
        ending.result["report"] = path


def _write(run: Run, step: int, outcome: str, reason: str | None) -> str | None:
    """Writes how the session ended, and the page; None, and a warning, where it cannot be."""
    with _warned("the report of this run was not written"):
        run.owned.check()
        run_sessions.end(run.workdir, step, outcome, reason)
        result = run_page.write(run.workdir)
        for note in result["notes"]:
            print(f"report: note: {note}", file=sys.stderr)
        return result["out"]
    return None


@contextlib.contextmanager
def _warned(what: str) -> Iterator[None]:
    """A context whose errors are one warning."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:  # the run itself has ended already
        why = run_files.reason(error) if isinstance(error, OSError) else _reason(error)
        print(f"warning: {what}: {why}", file=sys.stderr)


def _reason(error: BaseException) -> str:
    """Why a run failed, in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return "Ctrl-C"
    if isinstance(error, NonFiniteError):
        return text.partition(":")[0]  # behind it stands what to do
    return (text or type(error).__name__)[:400]
