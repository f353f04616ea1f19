"""`biggan explore`: a web page that shows what a trained model makes."""

import argparse
import contextlib
import signal
import sys
import threading
import time
import webbrowser
from collections.abc import Iterator

from biggan_jax.cli import options
from biggan_jax.cli.output import say
from biggan_jax.cli.sample import add_truncation_statistics
from biggan_jax.errors import UserError
from biggan_jax.parallel import devices, signals

HOST, PORT = "127.0.0.1", 8765
TICK_SECONDS = 0.2
MISSING = "biggan explore needs Starlette and uvicorn: pip install 'biggan_jax[explore]'"


def add(command) -> None:
    """Adds the command."""
    sub = command("explore", run, "a web page on this machine: look at what a model makes")
    options.add_source(sub)
    add = sub.add_argument
    add(
        "--host",
        default=HOST,
        help=f"address to listen at; default: {HOST}, which only this machine reaches",
    )
    add("--port", type=int, default=PORT, metavar="N", help=f"0 takes a free one; {PORT}")
    add("--open", action="store_true", help="open the page in a browser")
    options.add_latents(sub)
    add("--bn-mode", choices=("running", "standing"), default="running")
    options.add_standing(sub)
    add_truncation_statistics(sub)


def run(args: argparse.Namespace, overrides: list[str]) -> tuple[dict, int]:
    """`biggan explore`: serves until Ctrl-C or SIGTERM."""
    options.no_overrides(overrides)
    try:
        from biggan_jax.sampling import explore_server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn", "anyio"):
            raise
        raise UserError(MISSING) from error
    listener = explore_server.bind(args.host, args.port)
    with contextlib.closing(listener):
        start = time.perf_counter()
        explorer = _explorer(args)
        devices.tell()
        print("compiling what the page needs", file=sys.stderr, flush=True)
        explorer.warm()
        address = explore_server.address(listener, args.host)
        with _ended() as ended, explore_server.Server(explorer, listener, args.host) as server:
            state = "" if explorer.step is None else f", step {explorer.step}"
            say(args, f"{address} shows {args.source}{state}; Ctrl-C ends it")
            if args.open:
                webbrowser.open(address)
            _warn(args)
            if sys.stdout is not None:  # a script that waits for the address reads a pipe
                sys.stdout.flush()
            while not ended.is_set() and server.wait(TICK_SECONDS):
                pass
    seconds = time.perf_counter() - start
    return {"address": address, "step": explorer.step, "seconds": seconds}, 0


def _explorer(args: argparse.Namespace):
    from biggan_jax.sampling.explore import Explorer
    from biggan_jax.storage import truncation_statistics as statistics

    given = options.given(args, "seed", "truncation", "truncation_kind")
    standing = {f"standing_{name}": value for name, value in options.standing(args).items()}
    like_samples = {
        "standing_truncation": args.truncation,
        "standing_kind": given.get("truncation_kind", "resample"),
    }
    rows = args.truncation_statistics
    if rows is None:
        rows = statistics.default(args.source, args.truncation)
    return Explorer(
        args.source,
        step=args.step,
        start=given,
        bn_mode=args.bn_mode,
        truncation_statistics=rows,
        hf_interpolation=args.hf_interpolation,
        **(like_samples | standing),
    )


def _warn(args: argparse.Namespace) -> None:
    from biggan_jax.sampling import explore_guard

    if not explore_guard.is_local(args.host):
        print(
            f"warning: --host {args.host}: whoever reaches this machine can use the page",
            file=sys.stderr,
        )


@contextlib.contextmanager
def _ended() -> Iterator[threading.Event]:
    """A context in which SIGTERM asks for an end, as Ctrl-C does by an exception."""
    event = threading.Event()
    if not signals.handlers_allowed():
        yield event
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)
