"""Where compiled code is kept: nowhere that somebody else can put something first."""

import os
import stat

from hptune.engine.step import CODE_CACHE, keep_compiled_code_private


def test_the_compilers_cache_is_the_users_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(CODE_CACHE, "x")  # so that it is put back afterwards
    monkeypatch.delenv(CODE_CACHE)
    keep_compiled_code_private()
    folder = tmp_path / "hptune" / "compiled"
    assert os.environ[CODE_CACHE] == str(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_was_chosen_stays(tmp_path, monkeypatch):
    monkeypatch.setenv(CODE_CACHE, str(tmp_path))
    keep_compiled_code_private()
    assert os.environ[CODE_CACHE] == str(tmp_path)


def test_without_a_cache_folder_it_has_an_unpredictable_name(tmp_path, monkeypatch):
    (tmp_path / "a file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names = set()
    for _ in range(2):
        monkeypatch.setenv(CODE_CACHE, "x")
        monkeypatch.delenv(CODE_CACHE)
        keep_compiled_code_private()
        names.add(os.environ[CODE_CACHE])
    assert len(names) == 2
