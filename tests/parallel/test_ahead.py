"""Programs that are compiled while something else is done."""

import threading

import jax
import jax.numpy as jnp
import pytest

from biggan_jax.parallel import ahead, sharding


@pytest.fixture
def compiles(monkeypatch):
    """The threads in which something was compiled."""
    found, compile_ = [], jax.stages.Lowered.compile

    def compile(self, *args, **kwargs):
        found.append(threading.current_thread())
        return compile_(self, *args, **kwargs)

    monkeypatch.setattr(jax.stages.Lowered, "compile", compile)
    return found


def test_it_is_compiled_once_in_a_thread_of_its_own(compiles, caplog):
    traced, said = [], "Finished XLA compilation"
    jitted = jax.jit(lambda x: traced.append(x) or 2 * x)
    call = ahead.compiled(jitted, jax.ShapeDtypeStruct((3,), jnp.float32))
    x = jnp.arange(3.0)
    with jax.log_compiles():
        for _ in range(2):
            assert call(x).tolist() == [0.0, 2.0, 4.0]
        assert said not in caplog.text  # in this thread
        jax.jit(lambda x: 3 * x)(x)
        assert said in caplog.text
    assert len(traced) == 1 and jitted._cache_size() == 1
    (thread,) = compiles
    assert thread is not threading.main_thread() and not thread.is_alive()
    assert not ahead.is_compiling()


def test_where_the_thread_fails_the_first_call_compiles(monkeypatch, capfd):
    jitted, release = jax.jit(lambda x: x), threading.Event()

    def compile(self, *args, **kwargs):
        assert release.wait(10)
        raise MemoryError("no room")

    monkeypatch.setattr(jax.stages.Lowered, "compile", compile)
    call = ahead.compiled(jitted, jax.ShapeDtypeStruct((), jnp.float32))
    assert ahead.is_compiling()
    release.set()
    assert call(jnp.float32(3)) == 3  # and an error would be raised here
    assert not ahead.is_compiling() and "no room" not in capfd.readouterr().err


def test_where_it_is_possible(monkeypatch):
    mesh = sharding.make_mesh((-1, 1))
    assert ahead.is_possible(mesh)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert not ahead.is_possible(mesh)
