"""Where compiled programs are kept, and what becomes of damaged ones."""

import os
import subprocess
import sys
import zlib

import jax
import pytest

from experiments import compilation_cache

PROGRAM = """
import pathlib, sys
import jax
from experiments import compilation_cache
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name.endswith("/cache_hits")))
compilation_cache.use(None, pathlib.Path(sys.argv[1]))
print(jax.jit(lambda x: x + 1)(2.0), sum(hits))
"""


@pytest.fixture(autouse=True)
def _cache_on(monkeypatch):
    """On, as it is for users, until the test ends; these tests compile nothing here."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    names = (
        "jax_enable_compilation_cache",
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
    )
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_enable_compilation_cache", True)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def use(flag, workdir):
    compilation_cache.use(flag, workdir)
    return jax.config.jax_compilation_cache_dir


def test_default_is_beside_the_workdir_and_made_later(tmp_path):
    assert use(None, tmp_path / "runs" / "one") == str(tmp_path / "runs" / ".jax_cache")
    assert not list(tmp_path.iterdir())


def test_flag_comes_before_the_environment_and_that_before_the_default(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "environment"))
    assert use(None, tmp_path / "one") == str(tmp_path / "environment")
    assert use(str(tmp_path / "flag"), tmp_path / "one") == str(tmp_path / "flag")


def test_empty_flag_keeps_nothing(tmp_path, capsys):
    use(str(tmp_path), tmp_path / "one")
    assert use("", tmp_path / "one") is None
    assert not capsys.readouterr().err


def test_place_that_can_not_be_used_is_said_and_ends_nothing(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert use(str(tmp_path / "file" / "programs"), tmp_path / "one") is None
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'file'} is none" in line
    assert "--compilation_cache=DIR" in line


def test_directory_that_others_can_write_is_used_only_if_named(tmp_path, capsys):
    place = tmp_path / ".jax_cache"
    place.mkdir()
    place.chmod(0o777)
    assert use(None, tmp_path / "one") is None
    assert "can be written by others" in capsys.readouterr().err
    assert use(str(place), tmp_path / "one") == str(place)


def test_incomplete_programs_are_removed_and_others_kept(tmp_path):
    whole = zlib.compress(os.urandom(1009))
    contents = {"whole": whole, "cut": whole[:500], "empty": b"", "zeros": bytes(1009)}
    for name, content in contents.items():
        (tmp_path / f"{name}-cache").write_bytes(content)
    (tmp_path / "other.txt").write_bytes(b"")
    use(str(tmp_path), tmp_path / "one")
    assert {path.name for path in tmp_path.iterdir()} == {".checked", "other.txt", "whole-cache"}


def test_oldest_programs_go_when_there_are_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr(compilation_cache, "_MAX_BYTES", 25)
    for age, name in enumerate(("newest", "middle", "oldest")):
        entry = tmp_path / f"{name}-cache"
        entry.write_bytes(zlib.compress(b"13"))  # 10 bytes.
        os.utime(entry, (10**9 - age, 10**9 - age))
    use(str(tmp_path), tmp_path / "one")
    assert {path.name for path in tmp_path.glob("*-cache")} == {"newest-cache", "middle-cache"}


def test_second_process_loads_what_the_first_compiled(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "run")]
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "true"}
    results = [
        subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert [value for value, _ in results] == ["3.0", "3.0"]
    assert results[0][1] == "0"
    assert int(results[1][1]) > 0
