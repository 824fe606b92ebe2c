"""Nothing that a user was given by others is unpickled or run: neither by our own calls, nor by those of torchvision."""

from __future__ import annotations

import ast
import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision

import hptune
from hptune.config.schema import Data
from hptune.engine.sources import load_source
from hptune.errors import DataError

PACKAGE = Path(hptune.__file__).parent
MODULES = {"torch", "np", "numpy", "pickle", "yaml", "marshal", "shelve", "joblib", "dill", "cloudpickle", "pd", "pandas"}
SAFE = {("np", "load"): ("allow_pickle", False), ("torch", "load"): ("weights_only", True)}
BETWEEN_OUR_OWN_PROCESSES = {
    ("executors/worker.py", "pickle", "loads"),
    ("executors/station.py", "pickle", "loads"),
    ("engine/gang.py", "pickle", "loads"),
    ("engine/rank.py", "pickle", "loads"),
    ("engine/worker.py", "pickle", "load"),  # of a file in a folder that only its user can enter
}


def reading_calls() -> list[tuple[str, ast.Call, str, str]]:
    """Every call in hptune that makes objects of bytes: its file, the call, and the names in front of and behind the last dot."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            module, name = ast.unparse(node.func.value), node.func.attr
            if module.partition(".")[0] in MODULES and ("load" in name or name in ("Unpickler", "read_pickle", "open")):
                found.append((file.relative_to(PACKAGE).as_posix(), node, module, name))
    return found


def test_every_call_that_could_unpickle_is_told_not_to() -> None:
    for file, call, module, name in reading_calls():
        if (file, module, name) in BETWEEN_OUR_OWN_PROCESSES:
            continue
        assert (module, name) in SAFE, f"{file}:{call.lineno}: {module}.{name}"
        option, value = SAFE[module, name]
        given = {word.arg: word.value.value for word in call.keywords if isinstance(word.value, ast.Constant)}
        assert given.get(option) is value, f"{file}:{call.lineno}: {module}.{name} without {option}={value}"


def test_the_search_for_such_calls_finds_those_there_are() -> None:
    found = {(file, module, name) for file, _, module, name in reading_calls()}
    assert {("engine/npz.py", "np", "load"), ("engine/checkpoint.py", "torch", "load")} <= found
    assert found >= BETWEEN_OUR_OWN_PROCESSES


def test_no_such_function_is_imported_by_its_bare_name() -> None:
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
                names = [name.name for name in node.names if "load" in name.name.lower() and name.name != "DataLoader"]
                assert not names, f"{file}:{node.lineno}"


class Marks:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


FILES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"]


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small CIFAR-10 whose checksums torchvision knows."""
    images = np.random.default_rng(0).integers(0, 256, (4, 3 * 32 * 32), np.uint8)
    batch = pickle.dumps({"data": images, "labels": [0, 1, 2, 3]})
    meta = pickle.dumps({"label_names": list("abcd")})
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_bytes(meta if name == "batches.meta" else batch)
    kind, known = torchvision.datasets.CIFAR10, hashlib.md5(batch).hexdigest()
    monkeypatch.setattr(kind, "train_list", [[name, known] for name in FILES[:5]])
    monkeypatch.setattr(kind, "test_list", [["test_batch", known]])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": hashlib.md5(meta).hexdigest()})
    return folder


@pytest.mark.parametrize("name", FILES)
def test_a_cifar_file_that_somebody_changed_is_refused_before_it_is_unpickled(cifar: Path, name: str) -> None:
    section = Data(name="cifar10", root=str(cifar.parent))
    assert len(load_source(section).train) == 20
    marker = cifar / "marker"
    (cifar / name).write_bytes(pickle.dumps(Marks(marker)))
    with pytest.raises(DataError, match=r"cifar10 in .* is damaged"):
        load_source(section)
    assert not marker.exists()
    pickle.loads((cifar / name).read_bytes())
    assert marker.exists(), "the changed file would have made its mark"
