"""The lock of a workdir: who is refused, who is dead, and what is left behind."""

import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
import types

import pytest
from etils import epath

from biggan_jax.errors import UserError
from biggan_jax.storage import lock, running
from tests import runs
from tests.conftest import FULL
from tests.storage.test_paths import URL, bucket, google  # noqa: F401 (fixtures)

HOLD = """
import os, sys, time
from biggan_jax.storage import lock
with lock.held(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
    if sys.argv[2:]:
        os._exit(1)
"""


def elsewhere(workdir, **changes):
    """The claim of a run on another machine; its path."""
    record = running.this_process() | {"host": "away", "pid": 7, "machine": "other pid:[1]"}
    path = workdir / "lock" / "0123.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(lock._text(record | changes, 0))
    return path


def taken(workdir) -> bool:
    with lock.Lock(workdir).taken():
        return True


def files(folder) -> dict:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(lock, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(lock, "WITHDRAWN_SECONDS", 0.05)


@pytest.mark.parametrize("new", [False, True], ids=["resumed", "nothing saved yet"])
def test_a_second_train_is_refused_and_touches_nothing(run_copy, tmp_path, capsys, new):
    workdir = tmp_path / "new" if new else run_copy
    with open(run_copy / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "images_seen": 80}\n')  # the first is ahead of its checkpoint
    with lock.Lock(workdir).taken():
        before = files(workdir)
        assert runs.train(workdir, "--config.num_steps=9", "--config.log_every_steps=2") == 2
        runs.assert_one_error(
            capsys.readouterr(),
            f"{workdir} is in use: process {os.getpid()} on .* has been training there for 0 s",
            rf"`kill {os.getpid()}` on .*or choose another --workdir",
        )
        assert files(workdir) == before
    assert not (workdir / "lock").exists() and workdir.exists() != new


@pytest.mark.parametrize("kind", ["file", "link", "pipe", "above"])
def test_no_folder_in_the_place_of_one(tmp_path, kind):
    at = tmp_path / "run" / "lock"
    at.parent.mkdir()
    if kind == "link":
        at.symlink_to("nowhere")
    elif kind == "pipe":
        os.mkfifo(at)
    else:
        at.write_text("")
    workdir, remedy = (at / "run", "choose another") if kind == "above" else (at.parent, "remove")
    with pytest.raises(UserError, match=f"lock is no folder: {remedy}"):
        taken(workdir)


def test_a_dead_owner_on_this_machine(tmp_path):
    """Killed, or killed and not yet waited for, or its number is that of a later process."""
    command = [sys.executable, "-c", HOLD, tmp_path / "run", "killed"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=runs.ROOT
    )
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(UserError, match=rf"process {process.pid} on"):
        taken(tmp_path / "run")
    process.stdin.close()
    process.stdout.read()
    while running.started(process.pid) is not None:
        time.sleep(0.01)
    # The dead process is still in the table.
    assert taken(tmp_path / "run") and not (tmp_path / "run" / "lock").exists()
    process.wait()

    here = running.this_process()
    path = elsewhere(tmp_path / "reused", **here | {"pid": os.getppid(), "started": "1"})
    assert taken(tmp_path / "reused") and not path.exists()
    elsewhere(
        tmp_path / "same", **here | {"pid": os.getppid(), "started": running.started(os.getppid())}
    )
    with pytest.raises(UserError, match=f"process {os.getppid()} on"):
        taken(tmp_path / "same")
    # In a new container of the same name this process may have the number of the dead one.
    elsewhere(tmp_path / "own", **here)
    assert taken(tmp_path / "own")


def test_an_owner_on_another_machine_is_heard(tmp_path, quick, capsys):
    """Its process and its clock say nothing here: it lives as long as it renews its claim."""
    path = elsewhere(tmp_path, since=time.time() - 7200, pid=os.getpid())
    assert taken(tmp_path) and not path.exists()
    told = capsys.readouterr().err
    assert f"process {os.getpid()} on away 2 h ago: waiting 0.3 s for a sign of life" in told
    assert "taken over" in told

    path = elsewhere(tmp_path)
    record = json.loads(path.read_text())
    over = threading.Event()
    owner = types.SimpleNamespace(_path=path, _record=record)
    beats = threading.Thread(target=lock.Lock._beat, args=(owner, over))
    beats.start()
    with pytest.raises(UserError, match=r"process 7 on away has been training .*`kill 7` on away"):
        taken(tmp_path)
    over.set()
    beats.join()
    path.write_text("torn")
    assert taken(tmp_path)


def test_taken_over_while_it_was_suspended(tmp_path, quick):
    """The sleeper wakes, makes no claim anew, and saves nothing."""
    one = lock.Lock(tmp_path)
    with one.taken():
        one.check()
        one._path.unlink()
        deadline = time.monotonic() + 5
        while not one._lost and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(OSError, match="was taken over by another run"):
            one.check()
        assert taken(tmp_path)


@pytest.mark.parametrize("remote", [False, True])
def test_at_the_same_instant_one_gets_it(tmp_path, quick, monkeypatch, request, remote):
    """Threads stand for processes, since each has claims of its own: all see each other's."""
    if remote:
        request.getfixturevalue("bucket")
    workdir, winners, losers = URL if remote else tmp_path / "run", [], []
    together, done = threading.Barrier(6), threading.Event()

    def work():
        one = lock.Lock(workdir)
        together.wait()
        try:
            with one.taken():
                winners.append(one)
                done.wait(20)
        except UserError as error:
            losers.append(str(error))
        if len(losers) == 5:
            done.set()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1 and len(losers) == 5
    assert not list(epath.Path(workdir).glob("lock/*.json"))


def test_in_a_bucket(bucket, quick, capsys):  # noqa: F811
    with lock.Lock(URL).taken():
        assert runs.train(URL) == 2
        runs.assert_one_error(capsys.readouterr(), f"{URL} is in use: process {os.getpid()} on")
        assert {path.split("/")[-2] for path in bucket.writes} == {"lock"}
        claim = epath.Path(bucket.writes[0])
        before, deadline = claim.read_bytes(), time.monotonic() + 5
        while claim.read_bytes() == before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert claim.read_bytes() != before
    assert not claim.exists()


def test_released_by_every_end_but_a_kill(tmp_path, monkeypatch, capsys):
    """Bad data, Ctrl-C and a failure inside of a run; SIGTERM ends the process from its handler."""
    from biggan_jax.training import hooks

    ends = ((KeyboardInterrupt(), 130), (OSError("full"), 1), (UserError("bad"), 2))
    for error, code in ends if FULL else ends[1:2]:

        def fail(run, error=error):
            assert list((tmp_path / "run" / "lock").iterdir())
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(hooks, "build", fail)
            assert runs.train(tmp_path / "run") == code
        assert not (tmp_path / "run" / "lock").exists()
    code = HOLD.replace(
        "with lock",
        "from biggan_jax.parallel import signals\nwith signals.exit_on_sigterm(), lock",
    )
    command = [sys.executable, "-c", code, tmp_path / "new"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=runs.ROOT
    )
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(UserError) as refused:
        taken(tmp_path / "new")
    subprocess.run(shlex.split(re.search("`(.+?)`", str(refused.value))[1]), check=True)
    assert process.wait(20) == 75 and not (tmp_path / "new").exists()
