"""Processes that look for each other: what does not fit is one line, and never JAX's abort."""

import socket
import threading
import time

import pytest

from biggan_jax import cli
from biggan_jax.errors import UserError
from biggan_jax.parallel import distributed, rendezvous
from tests import runs


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(rendezvous, "LATE_SECONDS", 0.2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def meet_all(told: list[tuple[int, int]], timeout: float = 10) -> list[BaseException | None]:
    """What `meet` raises for every (num_processes, process_id), each in a thread."""
    address, raised = f"localhost:{free_port()}", [None] * len(told)

    def one(i: int) -> None:
        try:
            rendezvous.meet(address, *told[i], timeout)
        except (UserError, ConnectionError) as error:
            raised[i] = error

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(told))]
    for thread in reversed(threads):  # process 0 is the last to come
        thread.start()
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    return raised


def test_all_meet_and_leave_the_port_free():
    assert meet_all([(3, 0), (3, 1), (3, 2)]) == [None] * 3
    port = free_port()
    for _ in range(2):  # again at once, as a restart does
        others = threading.Thread(target=rendezvous.meet, args=(f"localhost:{port}", 2, 1, 10))
        others.start()
        rendezvous.meet(f"localhost:{port}", 2, 0, 10)
        others.join()
        with socket.create_server(("", port)):
            pass


def test_a_count_that_disagrees_is_told_to_all():
    raised = meet_all([(3, 0), (2, 1)])
    assert all(isinstance(error, UserError) for error in raised)
    assert len({str(error) for error in raised}) == 1
    words = "process 1 was started with --num-processes=2, process 0 with --num-processes=3"
    assert words in str(raised[0])


def test_one_number_for_two_processes():
    raised = meet_all([(3, 0), (3, 1), (3, 1)])
    assert all("two processes were started with --process-id=1" in str(e) for e in raised)


def test_missing_processes_are_named():
    raised = meet_all([(4, 0), (4, 2)], timeout=0.5)
    assert all(isinstance(error, ConnectionError) for error in raised)
    assert all("2 of 4 processes" in str(e) and "--process-id 1, 3:" in str(e) for e in raised)


def test_strangers_and_an_earlier_run_are_not_the_coordinator(monkeypatch):
    monkeypatch.setattr(rendezvous, "HELLO_SECONDS", 0.2)
    monkeypatch.setattr(rendezvous, "ANSWER_SECONDS", 0.2)
    port = free_port()
    with socket.create_server(("", port)) as earlier:

        def serve():  # as gRPC: its settings first, then it hangs up on what it does not understand
            connection, _ = earlier.accept()
            connection.sendall(b"\x00\x00\x18\x04\x00")
            connection.close()

        threading.Thread(target=serve).start()
        with pytest.raises(UserError, match=f"no coordinator at localhost:{port} within 0.4"):
            rendezvous.meet(f"localhost:{port}", 2, 1, 0.4)
    waiting = threading.Thread(target=rendezvous.meet, args=(f"localhost:{port}", 2, 0, 10))
    waiting.start()
    for text in (b"GET / HTTP/1.1\r\n\r\n", b'{"process_id": 1}\n', b""):
        while True:
            try:
                stranger = socket.create_connection(("localhost", port), 1)
                break
            except ConnectionRefusedError:
                time.sleep(0.01)
        with stranger:
            stranger.sendall(text)
    rendezvous.meet(f"localhost:{port}", 2, 1, 10)
    waiting.join()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--coordinator=h:1", "--coordinator also needs --num-processes and --process-id"),
        ("--process-id=1", "--process-id also needs --coordinator and --num-processes"),
        ("--coordinator=h:1 --num-processes=2", "also needs --process-id"),
        (
            "--coordinator=h:1 --num-processes=2 --process-id=2",
            "--process-id is 2, but --num-processes=2 allows 0 to 1",
        ),
        ("--coordinator=h:1 --num-processes=0 --process-id=0", "--num-processes is 0"),
        ("--coordinator=h --num-processes=2 --process-id=0", "--coordinator=h: give HOST:PORT"),
        ("--coordinator=h:x --num-processes=2 --process-id=0", "--coordinator=h:x: give HOST"),
        ("--num-processes=two", "--num-processes: invalid int value: 'two'"),
        ("--heartbeat-timeout=0", "--heartbeat-timeout is 0"),
    ],
)
def test_bad_flags(tmp_path, capsys, flags, words):
    arguments = ["train", f"--config={runs.DIGITS}", f"--workdir={tmp_path}/run", *flags.split()]
    assert cli.main(arguments) == 2
    runs.assert_one_error(capsys.readouterr(), words)
    assert not (tmp_path / "run").exists()


def test_an_unreachable_coordinator_is_named(tmp_path, capsys):
    address = f"localhost:{free_port()}"
    flags = (f"--coordinator={address}", "--num-processes=2", "--process-id=1")
    arguments = ["train", f"--config={runs.DIGITS}", f"--workdir={tmp_path}", *flags]
    assert cli.main([*arguments, "--connect-timeout=1"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"biggan: no coordinator at {address} within 1 s (Connection refused)")


def test_clusters(monkeypatch):
    step = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NODELIST": "node[1-4]"}
    assert distributed.cluster(step) == ("slurm", "a Slurm step of 4 tasks")
    assert distributed.cluster(step | {"SLURM_STEP_NUM_TASKS": "1"}) is None
    # A batch script outside any step: nobody else runs it.
    assert distributed.cluster({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}) is None

    found = []
    monkeypatch.setattr(distributed.importlib.util, "find_spec", lambda name: found or None)
    monkeypatch.setattr(distributed, "_has_tpu", lambda: False)
    pod = {"TPU_WORKER_HOSTNAMES": "a,b"}
    assert distributed.cluster(pod) is None  # no libtpu
    found.append("libtpu")
    assert distributed.cluster(pod) == ("tpu", "a TPU slice of 2 hosts (TPU_WORKER_HOSTNAMES)")
    assert distributed.cluster(pod | {"JAX_PLATFORMS": "cpu"}) is None
    assert distributed.cluster(pod | {"JAX_PLATFORMS": "tpu,cpu"})[0] == "tpu"
    assert distributed.cluster({"TPU_WORKER_HOSTNAMES": "a"}) is None
    assert distributed.cluster({"MEGASCALE_NUM_SLICES": "2"})[0] == "tpu"
    monkeypatch.setattr(distributed, "_has_tpu", lambda: True)
    assert distributed.cluster({}) == ("tpu", "TPU chips of this host")
