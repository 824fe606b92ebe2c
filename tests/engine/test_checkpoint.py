"""Checkpoints: whole or not at all, two kept, damage noticed."""

import pytest
import torch

from hptune.engine import checkpoint
from hptune.engine.checkpoint import Checkpoints, write_tensors
from hptune.errors import RunDirectoryError

torch.set_num_threads(1)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "a run" / "checkpoints"


def state(value):
    return {"weights": torch.full((2000,), float(value)), "done": value}


def test_the_newest_of_two_kept_ones_is_read(folder):
    saved = Checkpoints(folder, "abc")
    for step in (5, 90, 1000):
        saved.save(step, state(step))
    found, warnings = saved.newest()
    assert found is not None
    assert found["done"] == 1000
    assert torch.equal(found["weights"], torch.full((2000,), 1000.0))
    assert warnings == ()
    assert sorted(path.name for path in folder.iterdir()) == ["abc-000000090.pt", "abc-000001000.pt"]


def test_nothing_saved_is_nothing_found(folder):
    assert Checkpoints(folder, "abc").newest() == (None, ())


def test_other_trials_are_left_alone(folder):
    Checkpoints(folder, "other").save(1, state(1))
    saved = Checkpoints(folder, "abc")
    assert saved.newest() == (None, ())
    for step in (1, 2, 3):
        saved.save(step, state(step))
    found, _ = Checkpoints(folder, "other").newest()
    assert found is not None


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [flipped, lambda content: content[: len(content) // 2], lambda _: b""], ids=["flipped", "torn", "empty"])
def test_a_damaged_one_falls_back_to_the_one_before(folder, damage):
    saved = Checkpoints(folder, "abc")
    saved.save(1, state(1))
    saved.save(2, state(2))
    newest = folder / "abc-000000002.pt"
    newest.write_bytes(damage(newest.read_bytes()))
    found, warnings = saved.newest()
    assert found is not None
    assert found["done"] == 1
    assert warnings == (f"{newest} is damaged and was passed over",)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(folder, monkeypatch):
    path = folder / "weights.pt"
    write_tensors(path, state(1))

    def full_disk(content, file):
        file.write(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(checkpoint.torch, "save", full_disk)
    with pytest.raises(RunDirectoryError, match=r"cannot write .*weights\.pt: PytorchStreamWriter failed"):
        write_tensors(path, state(2))
    assert torch.load(path, weights_only=True)["done"] == 1
    assert [file.name for file in folder.iterdir()] == ["weights.pt"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="cannot write"):
        write_tensors(tmp_path / "file" / "weights.pt", state(1))
