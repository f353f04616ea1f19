"""The cache of compiled programs: on by default, bounded, and never in the way."""

import os
import re
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

from biggan_jax import cli
from biggan_jax.errors import UserError
from biggan_jax.storage import compiled
from tests import runs


@pytest.fixture(autouse=True)
def like_a_users_process(monkeypatch, tmp_path):
    """JAX as it starts in a process of a user, and a home directory of this test."""
    fresh = {
        "jax_enable_compilation_cache": True,
        "jax_compilation_cache_dir": None,
        "jax_persistent_cache_min_compile_time_secs": 1.0,
        "jax_persistent_cache_min_entry_size_bytes": 0,
    }
    for name in (compiled.VARIABLE, "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with runs.cache_settings(fresh):
        yield


def compile_anew(constant: float = 1.0) -> compiled.Answers:
    """What the cache answers to a program that this process has not compiled yet."""
    with compiled.answers() as answers:
        jax.jit(lambda x: x * constant + 0.25).lower(np.float32(2)).compile()
    return answers


def entries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*-cache"))


def test_kept_in_the_home_directory_and_settings_are_put_back(tmp_path):
    folder = tmp_path / "home" / ".cache" / "biggan_jax" / "programs"
    with compiled.kept():
        assert compile_anew().misses == 1
    assert len(entries(folder)) == 1  # however short the compilation
    with compiled.kept():
        assert compile_anew().hits == 1
        assert compile_anew(1.5).hits == 0
    assert jax.config.jax_compilation_cache_dir is None
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 1.0
    compile_anew(2.5)  # not kept: the command is over
    assert len(entries(folder)) == 2


@pytest.mark.parametrize(
    ("name", "folder"), [("XDG_CACHE_HOME", "x/biggan_jax/programs"), ("BIGGAN_CACHE", "x")]
)
def test_other_folders(monkeypatch, tmp_path, name, folder):
    monkeypatch.setenv(name, str(tmp_path / "x"))
    assert compiled.root() == tmp_path / folder
    with compiled.kept():
        compile_anew()
    assert len(entries(tmp_path / folder)) == 1 and not (tmp_path / "home").exists()


def test_off(monkeypatch, tmp_path):
    monkeypatch.setenv("BIGGAN_CACHE", "Off")
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "of_jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    with compiled.kept():
        found = compile_anew()
    assert found.hits == found.misses == 0 and list(tmp_path.iterdir()) == []
    assert jax.config.jax_enable_compilation_cache


def test_a_folder_of_jax_is_used_as_it_is(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "of_jax"))
    with compiled.kept():
        compile_anew()
    assert len(entries(tmp_path / "of_jax")) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["of_jax"]


def test_switched_off_in_jax(tmp_path):
    jax.config.update("jax_enable_compilation_cache", False)
    with compiled.kept():
        assert not compile_anew().hits
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_off_is_no_folder(monkeypatch, capsys):
    monkeypatch.setenv("BIGGAN_CACHE", "of")
    with pytest.raises(UserError, match="BIGGAN_CACHE is 'of'; set it to off or"):
        compiled.root()
    assert cli.main(["sample", "--from", "nowhere", "--out", "a.png"]) == 2
    runs.assert_one_error(capsys.readouterr(), "BIGGAN_CACHE is 'of'")


def test_a_folder_that_cannot_be_written_is_one_warning(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BIGGAN_CACHE", str(tmp_path / "file"))
    with compiled.kept():
        compile_anew()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and re.search(r"file .*set BIGGAN_CACHE to another folder", lines[0])


def test_a_full_disk_is_one_warning(monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jax._src.lru_cache.LRUCache.put", full)
    with compiled.kept(), warnings.catch_warnings():
        warnings.simplefilter("always")
        compile_anew()
        compile_anew(1.5)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "No space left on device" in lines[0]


def test_a_damaged_entry_is_compiled_again_and_kept(tmp_path, capsys):
    with compiled.kept():
        compile_anew()
    (entry,) = entries(tmp_path)
    whole = entry.read_bytes()
    entry.write_bytes(whole[: len(whole) // 2])  # as a killed process leaves it
    with compiled.kept():
        assert compile_anew().hits == 0
        assert compile_anew().hits == 1
    assert capsys.readouterr().err == ""


def test_the_longest_unused_are_removed(tmp_path):
    for age, name in enumerate("cab"):
        path = tmp_path / "cpu" / f"jit_{name}-cache"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"0" * 100)
        os.utime(path, (1000 - age, 1000 - age))
    (tmp_path / "other").write_bytes(b"0" * 1000)
    compiled.bound(tmp_path, limit=200)
    assert [path.name for path in entries(tmp_path)] == ["jit_a-cache", "jit_c-cache"]
    compiled.bound(tmp_path, limit=199)
    assert [path.name for path in entries(tmp_path)] == ["jit_c-cache"]
    assert (tmp_path / "other").exists()


def test_processors_of_other_features_have_folders_of_their_own(monkeypatch):
    names = set()
    for features in ("fma avx2", "fma avx2 avx512f", None):
        text = None if features is None else f"processor: 0\nflags\t\t: {features}\n"

        def read(path, text=text, **_):
            if text is None:
                raise FileNotFoundError
            return text

        monkeypatch.setattr(Path, "read_text", read)
        names.add(compiled._processor())
    assert len(names) == 3


@pytest.mark.full
def test_a_program_depends_on_neither_workdir_nor_seed(trained, cache_dir, tmp_path, capsys):
    jax.clear_caches()  # as in a new process
    runs.OF_TRAINED.clear()
    with runs.cached_compiles(cache_dir), compiled.answers() as answers:
        assert runs.train(tmp_path / "other", "--config.seed=5") == 0
    assert answers.hits > 4 and answers.misses == 0
