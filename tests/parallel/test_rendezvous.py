"""Processes that look for each other: what does not fit is one line, and never JAX's abort."""

import contextlib
import random
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


def meet_all(told: list[tuple[int, int]], timeout: float = 10) -> list[BaseException | None]:
    """What `meet` raises for every (num_processes, process_id), each in a thread."""
    address, raised = f"localhost:{runs.free_port()}", [None] * len(told)

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
    port = runs.free_port()
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
    port = runs.free_port()
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
        with connect(port) as stranger:
            stranger.sendall(text)
    rendezvous.meet(f"localhost:{port}", 2, 1, 10)
    waiting.join()


HELLO = b'{"process_id": %s, "num_processes": %s}\n'
NOISE = [
    *(HELLO % pair for pair in [
        (b"[1]", b"2"), (b'"1"', b"2"), (b"1", b"2.0"), (b"true", b"2"), (b"null", b"null"),
        (b"{}", b"{}"), (b"-1", b"2"), (b"0", b"2"), (b"2", b"2"), (b"1", b"1e999"), (b"1", b"NaN"),
        (b"1", b"9" * 5000), (b"1" * 4000, b"2" * 4000), (b"[" * 30000, b"2"),
    ]),
    *(HELLO[:-1] + b', "more": 1}\n', HELLO * 2, b'{"process_id": 1}\n', b"{}\n", b"[]\n", b"{\n"),
    *(b"\n", b"\x00" * 100, b'{"\xff\xfe": 1}\n', b"{" * 30000 + b"\n", b"{" + b"x" * 2**20),
    *(b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"", b'{"process_id":'),
]  # fmt: skip


def connect(port: int) -> socket.socket:
    """A connection to whoever is about to listen there."""
    deadline = time.monotonic() + 5
    while True:
        try:
            return socket.create_connection(("localhost", port), 1)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "process 0 has ended"
            time.sleep(0.01)


def test_noise_on_the_port_is_nothing():
    """Wrong types, long or unfinished lines, binary, and those who say nothing and stay."""
    rng = random.Random(0)
    noise = [*NOISE, *(b"{" * rng.randint(0, 1) + rng.randbytes(200) + b"\n" for _ in range(50))]
    # As many as keep an answer waiting for minutes where one is heard after the other.
    port, raised, started = runs.free_port(), [], time.monotonic()

    def zero():
        try:
            rendezvous.meet(f"localhost:{port}", 2, 0, 30)
        except BaseException as error:
            raised.append(error)

    waiting = threading.Thread(target=zero)
    waiting.start()
    with contextlib.ExitStack() as stack:
        for text in (*noise, *[b""] * 20, *[b'{"process_id": 1'] * 20):
            stranger = stack.enter_context(connect(port))
            with contextlib.suppress(OSError):  # hung up on before the end
                stranger.sendall(text)
            if text and rng.random() < 0.3:
                stranger.close()
        rendezvous.meet(f"localhost:{port}", 2, 1, 30)
        waiting.join()
    assert not raised and time.monotonic() - started < 10


@pytest.mark.parametrize("answer", [
    b'{"problem": 5, "lost": null}\n', b'{"problem": "two\\nlines", "lost": null}\n', b'{"x": 1}\n',
    b'{"problem": "alone"}\n', b'[]\n', b"{" * 30000 + b"\n",
])  # fmt: skip
def test_an_answer_that_is_none(monkeypatch, answer):
    monkeypatch.setattr(rendezvous, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(rendezvous, "ANSWER_SECONDS", 0.1)
    port = runs.free_port()

    def serve(other):
        with contextlib.suppress(OSError):  # closed at the end
            while True:
                connection, _ = other.accept()
                with connection:
                    connection.recv(100)
                    connection.sendall(answer)

    with socket.create_server(("", port)) as other:
        threading.Thread(target=serve, args=(other,), daemon=True).start()
        with pytest.raises(UserError, match="no coordinator at"):
            rendezvous.meet(f"localhost:{port}", 2, 1, 0.3)
        other.shutdown(socket.SHUT_RDWR)


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
        ("--num-processes=two", "--num-processes: 'two' is no whole number"),
        ("--heartbeat-timeout=0", "--heartbeat-timeout is 0"),
    ],
)
def test_bad_flags(tmp_path, capsys, flags, words):
    arguments = ["train", f"--config={runs.DIGITS}", f"--workdir={tmp_path}/run", *flags.split()]
    assert cli.main(arguments) == 2
    runs.assert_one_error(capsys.readouterr(), words)
    assert not (tmp_path / "run").exists()


def test_an_unreachable_coordinator_is_named(tmp_path, capsys):
    address = f"localhost:{runs.free_port()}"
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
