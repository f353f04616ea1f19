"""Does an error come from another process of the run, or from this one?"""

import re

import jax

# What a computation says before its reason when it was dispatched ahead of the one that failed.
_PASSED_ON = r"(?:(?:Error (?:dispatching|preparing) computation|Buffer Definition Event): )*"
_SERVICE = r"/(?:xla\.coordination|tensorflow)\.CoordinationService/"

# Whole forms, from the status code on, as the runtime of jax 0.10 to 0.12 gives them. An error of
# this process may well name a task, a barrier or a collective: it has another beginning.
_LOST = re.compile(
    "|".join(
        (
            # Between CPUs: the connection to another process ended within a collective operation.
            rf"(?:UNKNOWN|INTERNAL): {_PASSED_ON}Gloo [\w -]+ failed: .*(?:Connection closed by "
            r"peer|Connection reset by peer|Broken pipe|Socket closed)",
            # Between GPUs: NCCL's ncclRemoteError.
            rf"(?:UNKNOWN|INTERNAL): {_PASSED_ON}NCCL .*remote process exited or there was a "
            "network error",
            # In a barrier: the coordination service has missed the heartbeat of a process.
            r"(?:INTERNAL|UNAVAILABLE|ABORTED): Barrier failed because: task is set to ERROR",
            r"UNAVAILABLE: Task \S+ heartbeat timeout",
            r"UNAVAILABLE: The following tasks are unhealthy \(stopped sending heartbeats\)",
            # The process that holds the service has gone.
            rf"UNAVAILABLE: .*while calling {_SERVICE}",
            r"UNAVAILABLE: Failed to send RPC to coordination service",
        )
    ),
    re.DOTALL,
)


def is_lost(error: BaseException | None) -> bool:
    """Tells whether an exception is what the runtime says when another process is lost.

    The first of the runtime's errors decides, since what fails while it is being handled only
    follows from it: after an out-of-memory error in this process the barriers fail, too.

    Args:
      error: an exception, with what it was raised from or while handling.

    Returns:
      True only for messages that no failure of this process has. A time-out is not one of them:
      the others may be waiting for this very process.
    """
    first = None
    while error is not None:
        if isinstance(error, jax.errors.JaxRuntimeError):
            first = error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return first is not None and _LOST.match(str(first)) is not None
