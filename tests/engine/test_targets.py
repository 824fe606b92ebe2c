from __future__ import annotations

import pickle
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from hptune.engine.targets import bind_target, call_target, load_target, object_hash, source_hash, user_code
from hptune.errors import ConfigError, UserCodeError

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _imports_are_restored():
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if not name.startswith(("hptune.", "torch")):
            del sys.modules[name]


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text))
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a folder"


def test_a_file_may_import_modules_beside_it_now_and_later(folder):
    write(folder, "beside_now.py", "value = 3\n")
    write(folder, "beside_later.py", "value = 4\n")
    file = write(
        folder, "mine.py", "import beside_now\ndef f():\n    import beside_later\n    return beside_now.value, beside_later.value\n"
    )
    assert call_target(f"{file}:f", {}, what="a test") == (3, 4)


def test_instances_of_a_files_classes_survive_pickling(folder):
    file = write(folder, "mine.py", "from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: int\n")
    point = load_target(f"{file}:Point")(3)
    assert pickle.loads(pickle.dumps(point)) == point


def test_files_and_neighbours_of_one_name_in_two_folders_do_not_clash(folder):
    files = []
    for number in (1, 2):
        write(folder / str(number), "shared_helper.py", f"value = {number}\n")
        files.append(write(folder / str(number), "mine.py", "import shared_helper\ndef f():\n    return shared_helper.value\n"))
    loaded = [load_target(f"{file}:f") for file in files]
    assert [f() for f in loaded] == [1, 2]


def test_a_target_loaded_twice_is_the_same_object_until_its_source_changes(folder):
    write(folder, "helper_of_it.py", "value = 1\n")
    file = write(folder, "mine.py", "import helper_of_it\nclass Net:\n    value = helper_of_it.value\n")
    first, before = load_target(f"{file}:Net"), source_hash(f"{file}:Net")
    assert load_target(f"{file}:Net") is first
    write(folder, "helper_of_it.py", "value = 1000\n")
    assert source_hash(f"{file}:Net") != before
    assert load_target(f"{file}:Net").value == 1000


def test_the_hash_covers_what_the_file_imports_and_nothing_else(folder):
    write(folder, "direct.py", "import indirect\n")
    write(folder, "indirect.py", "value = 1\n")
    write(folder, "package/__init__.py", "")
    write(folder, "package/inner.py", "value = 1\n")
    write(folder, "unrelated.py", "value = 1\n")
    file = write(folder, "mine.py", "import direct\nfrom package.inner import value\ndef f(): ...\n")
    target = f"{file}:f"
    before = source_hash(target)
    write(folder, "unrelated.py", "value = 2\n")
    assert source_hash(target) == before
    for name in ("indirect.py", "package/inner.py", "mine.py"):
        (folder / name).write_text((folder / name).read_text() + "# changed\n")
        assert source_hash(target) != before, name
        before = source_hash(target)


def test_the_hash_does_not_depend_on_where_the_folder_is(tmp_path):
    hashes = [source_hash(f"{write(tmp_path / name, 'mine.py', 'def f(): ...')}:f") for name in ("here", "there")]
    assert hashes[0] == hashes[1]


def test_computed_imports_count_everything_beside_the_file(folder):
    file = write(folder, "mine.py", "from importlib import import_module\ndef f(): ...\n")
    before = source_hash(f"{file}:f")
    write(folder, "plugin.py", "value = 1\n")
    assert source_hash(f"{file}:f") != before


def test_package_targets_are_found_from_the_current_directory_and_hashed_whole(folder, monkeypatch):
    write(folder, "my_package_under_test/__init__.py", "")
    write(folder, "my_package_under_test/nets.py", "def f():\n    return 5\n")
    other = write(folder, "my_package_under_test/other.py", "")
    monkeypatch.chdir(folder)
    assert load_target("my_package_under_test.nets:f")() == 5
    before = source_hash("my_package_under_test.nets:f")
    other.write_text("# changed\n")
    assert source_hash("my_package_under_test.nets:f") != before


def test_an_installed_package_is_hashed_by_its_version(monkeypatch):
    before = source_hash("torch.nn:Linear")
    monkeypatch.setattr(torch, "__version__", "0.0")
    assert source_hash("torch.nn:Linear") != before


def test_an_objects_hash_follows_the_file_of_its_class(folder):
    file = write(folder, "mine.py", "class Set: ...\n")
    before = object_hash(load_target(f"{file}:Set")())
    write(folder, "mine.py", "class Set:\n    changed = True\n")
    assert object_hash(load_target(f"{file}:Set")()) != before


@pytest.mark.parametrize(
    ("text", "name", "said", "line"),
    [
        ("def load(n): ...\n", "laod", ["no 'laod'", "did you mean 'load'"], None),
        ("first = 1\n", "zzz", ["no 'zzz'", "it has first"], None),
        ("import os\nraise ValueError('not\\n today')\n", "f", ["your code raised ValueError: not today"], 2),
        ("def f(:\n", "f", ["your code raised SyntaxError"], 1),
        ("import no_such_module_at_all\n", "f", ["ModuleNotFoundError", "no_such_module_at_all"], 1),
        ("import sys\nsys.exit(3)\n", "f", ["your code raised SystemExit: 3"], 2),
    ],
)
def test_a_target_that_does_not_load_says_why_and_where(folder, text, name, said, line):
    file = write(folder, "mine.py", text)
    with pytest.raises(UserCodeError) as caught:
        load_target(f"{file}:{name}")
    assert all(words in str(caught.value) for words in said), caught.value
    assert caught.value.where == (f"{file}:{line}" if line else None)


def test_a_file_that_failed_can_be_mended_and_loaded(folder):
    file = write(folder, "mine.py", "raise ValueError\n")
    with pytest.raises(UserCodeError, match="your code raised ValueError "):
        load_target(f"{file}:f")
    write(folder, "mine.py", "f = 7\n")
    assert load_target(f"{file}:f") == 7


@pytest.mark.parametrize("target", ["/no/such/nofile.py:load", "no_such_package_here.sub:load"])
def test_a_missing_file_or_module_is_named(target):
    with pytest.raises(UserCodeError, match=target.split(":")[0].split(".")[0]):
        load_target(target)


def test_an_exception_is_blamed_on_the_deepest_line_of_the_users(folder):
    write(folder, "deeper.py", "import json\ndef g():\n    json.loads('{')\n")
    file = write(folder, "mine.py", "import deeper\ndef f():\n    deeper.g()\n")
    with pytest.raises(UserCodeError, match="your code raised JSONDecodeError") as caught:
        call_target(f"{file}:f", {}, what="loading the data")
    assert caught.value.where == f"{folder / 'deeper.py'}:3"
    assert "loading the data" in str(caught.value)


@pytest.mark.parametrize("error", [ConfigError("ours"), KeyboardInterrupt(), torch.OutOfMemoryError("full"), MemoryError()])
def test_what_is_no_mistake_of_that_code_passes_through(error):
    with pytest.raises(type(error)) as caught, user_code("a test", "mine.py:f"):
        raise error
    assert caught.value is error


def test_a_very_long_message_is_cut():
    with pytest.raises(UserCodeError) as caught, user_code("a test", "mine.py:f"):
        raise ValueError("x" * 10_000)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("args", "positional", "said"),
    [
        ({"widht": 3}, 0, ["load(width, depth=2)", "'widht'", "did you mean 'width' by 'widht'"]),
        ({}, 0, ["load(width, depth=2)", "missing"]),
        ({"width": 1}, 1, ["1 positional", "multiple values"]),
    ],
)
def test_wrong_arguments_are_answered_with_the_signature(folder, args, positional, said):
    file = write(folder, "mine.py", "\ndef load(width, depth=2): ...\n")
    with pytest.raises(UserCodeError) as caught:
        bind_target(f"{file}:load", args, positional=positional)
    assert all(words in str(caught.value) for words in said), caught.value
    assert caught.value.where == f"{file}:2"


def test_bound_arguments_reach_the_function(folder):
    file = write(folder, "mine.py", "def f(a, *, b):\n    return a - b\n")
    assert bind_target(f"{file}:f", {"b": 2}, positional=1)(5) == 3


def test_what_cannot_be_called_is_refused(folder):
    file = write(folder, "mine.py", "value = 3\n")
    with pytest.raises(UserCodeError, match="is a int, not a function"):
        bind_target(f"{file}:value", {})
