"""Whose failure is it? Messages as jax 0.10.2's runtime gave them, others as its source has them.

Those of lost peers come from runs of two processes, one of which was killed in a collective
operation, a barrier or a request to the coordination service.
"""

import threading

import jax
import pytest

from biggan_jax.parallel import distributed, peers

RUNTIME = jax.errors.JaxRuntimeError

LOST = [
    "UNKNOWN: Gloo all-reduce failed: [external/gloo/gloo/transport/tcp/pair.cc:538] Read error "
    "[127.0.0.1]:24462: Connection reset by peer",
    "INTERNAL: Error dispatching computation: Error dispatching computation: Gloo all-reduce "
    "failed: [external/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer "
    "[127.0.0.1]:2699",
    "UNKNOWN: Gloo AllGather failed: [external/gloo/gloo/transport/tcp/pair.cc:547] Connection "
    "closed by peer [10.0.0.2]:2699",
    "UNKNOWN: Gloo context initialization failed: UNAVAILABLE: Socket closed\nAdditional GRPC "
    "error information from remote target coordination_service while calling "
    "/xla.coordination.CoordinationService/GetKeyValue:\n:UNKNOWN:Error received from peer  "
    '{grpc_message:"Socket closed", grpc_status:14}',
    "INTERNAL: Barrier failed because: task is set to ERROR: UNAVAILABLE: Task 1 heartbeat "
    "timeout. This indicates that the remote task has failed, got preempted, or crashed "
    "unexpectedly. Check the task logs for an earlier error or scheduler events (e.g. preemption, "
    "eviction) to debug further. [type.googleapis.com/tensorflow.CoordinationServiceError='']. "
    "Barrier Id: b1::0, Task: 1\n\nRPC: /xla.coordination.CoordinationService/Barrier",
    "UNAVAILABLE: Socket closed\nAdditional GRPC error information from remote target "
    "coordination_service while calling /xla.coordination.CoordinationService/GetKeyValue:\n"
    ':UNKNOWN:Error received from peer  {grpc_status:14, grpc_message:"Socket closed"}',
    "UNAVAILABLE: recvmsg:Connection reset by peer\nAdditional GRPC error information from remote "
    "target coordination_service while calling /xla.coordination.CoordinationService/Barrier:\n",
    "UNAVAILABLE: Failed to send RPC to coordination service. Either the leader task was "
    "preempted/died/restarted unexpectedly or this task is experiencing network issues.",
    "UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):\n1\nThe tasks "
    "have crashed.",
    "INTERNAL: NCCL operation ncclGroupEnd() failed: remote process exited or there was a network "
    "error. Last NCCL warning(error) log entry (may be unrelated) ''.",
]

OWN = [
    "RESOURCE_EXHAUSTED: Out of memory allocating 70368744177664 bytes.",
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
    "Used 17.20G of 15.75G hbm. Largest program allocations in hbm: 1. Size: 2.0G Operator: "
    'op_name="jit(train_step)/optimization_barrier" Shape: f32[2048]',
    "RESOURCE_EXHAUSTED: Gloo all-reduce failed: Out of memory: Connection closed by peer",
    "INTERNAL: during context [Unknown]: Expected collective task barrier of the peer, lookup "
    "failed; heartbeat of %optimization-barrier.7 in coordination",
    "INTERNAL: CpuCallback error calling callback: Traceback (most recent call last):\n"
    '  File "x.py", line 8, in <module>\nValueError: Barrier failed because: task is set to ERROR',
    "INVALID_ARGUMENT: No such compile option: 'xla_collective_timeout'",
    "NOT_FOUND: No FFI handler registered for barrier on a platform Host (canonical host)",
    "UNIMPLEMENTED: collective-permute is not supported on this platform; peer tasks",
    "UNAVAILABLE: TPU initialization failed: the TPU is already in use by process with pid 1234",
    "INTERNAL: NCCL operation ncclGroupEnd() failed: unhandled cuda error (run with "
    "NCCL_DEBUG=INFO for details). Last NCCL warning(error) log entry (may be unrelated) ''.",
    # Nobody knows who is late: the others may be waiting for this process.
    "DEADLINE_EXCEEDED: Barrier timed out. Id: b1::0. This usually happens because a task "
    "triggered the barrier too early or too slowly.",
    "UNKNOWN: Gloo context initialization failed: DEADLINE_EXCEEDED: GetKeyValue() timed out with "
    "key: cpu:gloo/0,2048/1 and duration: 29.99999994s",
]


def raised(text: str, error_class=RUNTIME) -> BaseException:
    try:
        raise error_class(text)
    except error_class as error:
        return error


@pytest.mark.parametrize("text", LOST, ids=range(len(LOST)))
def test_a_lost_peer(text):
    assert peers.is_lost(raised(text))
    assert not peers.is_lost(raised(text, ValueError))  # whoever quotes it is not the runtime


@pytest.mark.parametrize("text", OWN, ids=range(len(OWN)))
def test_a_failure_of_this_process(text):
    assert not peers.is_lost(raised(text))


def chained(first: BaseException, then: BaseException) -> BaseException:
    """`then`, raised while `first` was being handled."""
    try:
        try:
            raise first
        finally:
            raise then
    except type(then) as error:
        return error


def test_the_first_error_decides():
    lost, own = RUNTIME(LOST[4]), RUNTIME(OWN[0])
    assert not peers.is_lost(chained(own, RUNTIME(LOST[4])))  # barriers fail after one's own end
    assert peers.is_lost(chained(lost, RuntimeError("could not close the file")))
    assert peers.is_lost(chained(KeyError("found later"), RUNTIME(LOST[0])))
    assert not peers.is_lost(None)


class Ended(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("text", [LOST[4], OWN[1]])
def test_the_traceback_of_ones_own_failure_is_shown(monkeypatch, capsys, text):
    def end(code):
        raise Ended(code)

    monkeypatch.setattr(distributed, "_exit", end)
    monkeypatch.setattr(distributed, "_ending", threading.Lock())
    monkeypatch.setattr(distributed, "LINGER_SECONDS", 0.0)
    with pytest.raises(Ended, match="1"):
        distributed._leave(raised(text))
    said = capsys.readouterr().err
    if text in LOST:
        assert said.startswith("biggan: a peer process was lost (INTERNAL: Barrier failed")
        assert said.count("\n") == 1
    else:
        assert "Traceback" in said and "in raised" in said and "optimization_barrier" in said
        assert "lost" not in said
