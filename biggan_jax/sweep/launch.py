"""The commands of a sweep: filled in, started one after another, stopped together."""

import collections
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from biggan_jax import errors
from biggan_jax.errors import UserError
from biggan_jax.parallel import signals
from biggan_jax.sweep.runs import Run, is_finished

FIELDS = ("config", "workdir", "overrides", "name")  # of a command's template
COMMAND = (
    f"{shlex.quote(sys.executable)} -m biggan_jax train --config {{config}} --workdir {{workdir}} "
    "{overrides}"
)
STOPS = {
    errors.EXIT_INTERRUPTED: errors.EXIT_INTERRUPTED,
    errors.EXIT_TERMINATED: errors.EXIT_TERMINATED,
    # Killed by a signal before the run could take care of it.
    -signal.SIGINT: errors.EXIT_INTERRUPTED,
    -signal.SIGTERM: errors.EXIT_TERMINATED,
}


def command_line(template: str, config: str, run: Run) -> str:
    """A command for a run, as a line for a shell.

    Args:
      template: a command with {workdir}, {overrides} and, where wanted, {config} and {name}.
      config: the config file.
      run: what fills the template.

    Returns:
      The line, every field but the overrides quoted as one word.

    Raises:
      UserError: the template leaves out the workdir or the overrides.
    """
    overrides = [*run.arguments, *([] if run.seeds is None else [f"--seeds={run.seeds}"])]
    values = dict(
        zip(FIELDS, (config, str(run.workdir), shlex.join(overrides), run.name), strict=True)
    )
    for field in ("workdir", "overrides"):
        if f"{{{field}}}" not in template:
            raise UserError(f"--command has no {{{field}}}: each run needs its own")

    def fill(match: re.Match) -> str:
        value = values[match[1]]
        return value if match[1] == "overrides" else shlex.quote(value)

    return re.sub(rf"\{{({'|'.join(FIELDS)})\}}", fill, template)


def split_command(line: str) -> list[str]:
    """A command line as arguments; UserError when it is malformed or its program is missing."""
    try:
        arguments = shlex.split(line)
    except ValueError as e:
        raise UserError(f"--command: {e}") from e
    if shutil.which(arguments[0]) is None:
        raise UserError(f"--command: there is no program {arguments[0]!r}; put it on the PATH")
    return arguments


def run_all(runs: Sequence[Run], template: str, config: str) -> int:
    """Runs what is unfinished, one after another, on this machine.

    Args:
      runs: their `state`, `exit_code` and `error` are set.
      template: see `command_line`.
      config: the config file.

    Returns:
      0; 1 when a run failed; 130 or 75 when Ctrl-C or SIGTERM stopped the sweep or one of its runs,
      so that the same command continues.

    Raises:
      UserError: a command that cannot be started.
    """
    commands = [split_command(command_line(template, config, run)) for run in runs]
    with signals.StopRequest() as stop:
        for number, (run, command) in enumerate(zip(runs, commands, strict=True), 1):
            if is_finished(run):
                run.state = "finished"
                continue
            if stop.exit_code is not None:
                return stop.exit_code
            _tell(f"[{number}/{len(runs)}] {run.name}")
            run.workdir.parent.mkdir(parents=True, exist_ok=True)
            run.exit_code, last = _call(command, stop)
            if run.exit_code == 0:
                run.state = "finished" if is_finished(run) else "unfinished"
                continue
            code = STOPS.get(run.exit_code, stop.exit_code)
            if code is not None:
                run.state = "stopped"
                return code
            run.state, run.error = "failed", last
            _tell(f"{run.name}: failed with exit code {run.exit_code}; the sweep goes on")
    return int(any(run.state == "failed" for run in runs))


def _call(command: Sequence[str], stop: signals.StopRequest) -> tuple[int, str]:
    """(exit code, last line) of a command, whose output goes to stderr; passes on a stop."""
    # A group of its own: a Ctrl-C on the terminal would reach it twice, and the second one insists.
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        process_group=0,
    )
    lines: collections.deque[str] = collections.deque([""], maxlen=1)

    def read() -> None:
        for line in process.stdout:
            sys.stderr.write(line)
            sys.stderr.flush()
            if line.strip():
                lines.append(line.strip())

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    told = False
    try:
        while reader.is_alive() or process.poll() is None:
            if stop.exit_code is not None and not told:
                interrupted = stop.exit_code == errors.EXIT_INTERRUPTED
                _signal(process, signal.SIGINT if interrupted else signal.SIGTERM)
                told = True
            time.sleep(0.05)
    except KeyboardInterrupt:
        _signal(process, signal.SIGINT)
        process.wait()
        return errors.EXIT_INTERRUPTED, lines[0]
    return process.returncode, lines[0]


def _signal(process: subprocess.Popen, number: int) -> None:
    """Sends a signal to a command and all that it started, if they are still there."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
