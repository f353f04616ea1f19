"""Test session: 8 fake CPU devices, rank promotion refused, strict dtypes.

With BIGGAN_FULL_TESTS=1 (`make test-full`) programs are compiled at XLA's default optimization
level, as users' are, and the tests marked `full` run too. A variable and no option: XLA reads its
flags before pytest reads its options.
"""

import importlib.metadata
import os
import signal

FULL = os.environ.get("BIGGAN_FULL_TESTS", "") not in ("", "0")
FLAGS = ["--xla_force_host_platform_device_count=8"]
if not FULL:
    # Tests compile far more than they compute: these halve the time of the suite.
    FLAGS += ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
    if importlib.metadata.version("jaxlib").startswith("0.10."):
        # Later versions end the process at a flag they no longer know.
        FLAGS.append("--xla_cpu_use_fusion_emitters=false")

# Both are read once, when the backend starts: set them before anything imports jax.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
for flag in FLAGS:
    if flag.split("=")[0] not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()

from pathlib import Path  # noqa: E402

import jax  # noqa: E402
import pytest  # noqa: E402

from biggan_jax.cli import garbage  # noqa: E402

garbage.collect_rarely()
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
# A stale entry of a user's cache must never decide a test; `runs.programs` has one of its own.
jax.config.update("jax_enable_compilation_cache", False)
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "False"  # of the processes that tests start

# As in a shell: nohup ignores the one and a script's `&` the other, in all that a test starts too.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config):
    config.addinivalue_line("markers", "full: takes longer; runs in `make test-full` alone")


def pytest_collection_modifyitems(items):
    if not FULL:
        skip = pytest.mark.skip(reason="takes longer: BIGGAN_FULL_TESTS=1, as `make test-full`")
        for item in items:
            if item.get_closest_marker("full"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """Folder of the peers' numerical fixtures; the test is skipped where it is not checked out."""
    for base in (ROOT, ROOT.parent):
        path = base / "shared" / "reference" / "fixtures"
        if path.is_dir():
            return path
    pytest.skip("the peers' fixtures are not checked out (shared/reference/fixtures)")


from tests.runs import cache_dir, programs, run_copy, trained  # noqa: E402, F401
