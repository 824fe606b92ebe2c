from __future__ import annotations

import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from hptune.config.schema import Data
from hptune.engine.sources import load_source
from hptune.errors import ConfigError, DataError, UserCodeError

torch.set_num_threads(1)
TWO = {"x_train": np.ones((6, 3), np.float32), "y_train": np.array([0, 1, 0, 1, 0, 1])}


def npz(tmp_path: Path, **arrays) -> Data:
    path = tmp_path / "my data.npz"
    np.savez(path, **arrays)
    return Data(name="arrays", path=str(path))


def idx(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(">HBB", 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes())


def write_mnist(root: Path, folder: str = "MNIST") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    held = {}
    for name, samples in (("train", 30), ("t10k", 10)):
        held[name] = rng.integers(0, 256, (samples, 28, 28), np.uint8)
        idx(root / folder / "raw" / f"{name}-images-idx3-ubyte", held[name])
        idx(root / folder / "raw" / f"{name}-labels-idx1-ubyte", (np.arange(samples) % 10).astype(np.uint8))
    return held


def write_image(file: Path, size=(6, 4), mode="RGB", value=7) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 255)).save(file)


def test_digits_are_gray_images_without_a_test_part():
    source = load_source(Data(name="digits"))
    assert list(source.parts) == ["train"]
    assert source.train.x.shape == (1797, 1, 8, 8)
    assert source.train.x.dtype == torch.uint8
    assert int(source.train.x.max()) == 16
    assert source.train.y.unique().tolist() == list(range(10))


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_the_raw_layout_of_torchvision_is_read(tmp_path, name, folder):
    held = write_mnist(tmp_path, folder)
    source = load_source(Data(name=name, root=str(tmp_path)))
    assert np.array_equal(source.train.x[:, 0].numpy(), held["train"])
    assert np.array_equal(source.parts["test"].x[:, 0].numpy(), held["t10k"])
    assert source.train.y[:3].tolist() == [0, 1, 2]


def test_without_a_root_the_folder_data_is_read(tmp_path, monkeypatch):
    write_mnist(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    assert len(load_source(Data(name="mnist")).train) == 30


def test_cifar_is_read_from_its_batches(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 3, 32, 32), np.uint8)
    batch = pickle.dumps({"data": images.reshape(5, -1), "fine_labels": [0, 1, 2, 3, 4]})
    meta = pickle.dumps({"fine_label_names": list("abcde")})
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name, content in (("train", batch), ("test", batch), ("meta", meta)):
        (folder / name).write_bytes(content)
    kind = torchvision.datasets.CIFAR100
    monkeypatch.setattr(kind, "train_list", [("train", hashlib.md5(batch).hexdigest())])
    monkeypatch.setattr(kind, "test_list", [("test", hashlib.md5(batch).hexdigest())])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": hashlib.md5(meta).hexdigest()})
    assert np.array_equal(load_source(Data(name="cifar100", root=str(tmp_path))).train.x.numpy(), images)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mnist", ["MNIST/raw", "t10k-labels-idx1-ubyte", "download: true"]),
        ("cifar10", ["cifar-10-batches-py", "data_batch_5", "test_batch", "batches.meta", "download: true"]),
        ("cifar100", ["cifar-100-python", "train", "meta", "download: true"]),
    ],
)
def test_missing_files_are_listed_with_their_place(tmp_path, name, said):
    with pytest.raises(DataError) as caught:
        load_source(Data(name=name, root=str(tmp_path)))
    assert all(words in str(caught.value) for words in [str(tmp_path), *said]), caught.value


def test_a_download_that_fails_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["file:///nowhere/"])
    with pytest.raises(DataError, match=r"could not be downloaded .*put train-images-idx3-ubyte"):
        load_source(Data(name="mnist", root=str(tmp_path), download=True))


def test_a_damaged_raw_file_is_a_data_error(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03")
    with pytest.raises(DataError, match="is damaged"):
        load_source(Data(name="mnist", root=str(tmp_path)))


def test_image_folders_become_parts_with_classes_by_name(tmp_path):
    for part, value in (("train", 1), ("val", 2), ("test", 3)):
        for name in ("zebra", "ant"):
            write_image(tmp_path / part / name / "a b.png", value=value)
    source = load_source(Data(name="image_folder", root=str(tmp_path)))
    assert list(source.parts) == ["train", "val", "test"]
    assert source.train.x.shape == (2, 3, 4, 6)
    assert source.train.x[0, :, 0, 0].tolist() == [1, 0, 255]
    assert source.train.y.tolist() == [0, 1]
    assert source.parts["val"].x[0, 0, 0, 0] == 2


def test_one_folder_of_gray_images_is_one_part_of_one_channel(tmp_path):
    for name in ("a", "b"):
        write_image(tmp_path / name / "1.png", mode="L")
    source = load_source(Data(name="image_folder", root=str(tmp_path)))
    assert list(source.parts) == ["train"]
    assert source.train.x.shape == (2, 1, 4, 6)


def test_size_makes_squares_of_images_of_any_size(tmp_path):
    write_image(tmp_path / "a" / "1.png", size=(6, 4))
    write_image(tmp_path / "b" / "1.jpg", size=(9, 9))
    section = {"name": "image_folder", "root": str(tmp_path)}
    with pytest.raises(DataError, match=r"6×4 but .* 9×9: set data\.size"):
        load_source(Data(**section))
    assert load_source(Data(**section, size=5)).train.x.shape == (2, 3, 5, 5)


def damage(tmp_path):
    file = tmp_path / "a" / "1.png"
    file.write_bytes(file.read_bytes()[:-30])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (damage, r"1\.png cannot be read as an image"),
        (lambda root: (root / "a" / "1.png").write_text("no image"), r"1\.png cannot be read as an image"),
        (lambda root: (root / "empty").mkdir(), r"empty holds no images"),
        (lambda root: write_image(root / "val" / "a" / "1.png"), r"no train folder"),
        (lambda root: [write_image(root / part / name / "1.png") for part, name in (("train", "a"), ("val", "cat"))], r"cat is a class"),
        (lambda root: (root / "train").mkdir(), r"train has no subfolders"),
    ],
)
def test_folders_that_cannot_be_used_are_refused(tmp_path, change, said):
    for name in ("a", "b"):
        write_image(tmp_path / name / "1.png")
    change(tmp_path)
    with pytest.raises(DataError, match=said):
        load_source(Data(name="image_folder", root=str(tmp_path)))


def test_a_missing_image_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        load_source(Data(name="image_folder", root=str(tmp_path / "nowhere")))


def test_an_npz_gives_the_parts_it_holds(tmp_path):
    source = load_source(npz(tmp_path, **TWO, x_test=np.zeros((2, 3)), y_test=np.array([1, 0])))
    assert list(source.parts) == ["train", "test"]
    assert source.parts["test"].x.dtype == torch.float32


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": 1, "labels": 2}, r"has no x_train and y_train: it holds labels, x"),
        ({"x_train": np.ones((2, 2))}, r"has no y_train"),
        ({**TWO, "x_val": np.ones((2, 3))}, r"has no y_val: it holds x_train, x_val, y_train"),
        ({**TWO, "x_train": np.array([[1], [1, 2]] * 3, dtype=object)}, r"x_train of .* holds Python objects"),
        ({**TWO, "x_train": np.array(list("abcdef"))}, r"x of the train part of .* holds text"),
    ],
)
def test_an_npz_of_another_form_says_what_it_holds(tmp_path, arrays, said):
    with pytest.raises(DataError, match=said):
        load_source(npz(tmp_path, **arrays))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no file"),
        (b"", "cannot be read"),
        (b"some text", "cannot be read"),
        (b"PK\x03\x04 torn", "cannot be read"),
        ("npy", "single array"),
    ],
)
def test_a_file_that_is_no_npz_is_refused(tmp_path, content, said):
    path = tmp_path / "x.npz"
    if content == "npy":
        with path.open("wb") as file:
            np.save(file, np.ones(3))
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=said):
        load_source(Data(name="arrays", path=str(path)))


def test_a_torn_npz_is_refused(tmp_path):
    section = npz(tmp_path, **TWO)
    path = Path(section.path)
    content = bytearray(path.read_bytes())
    content[80:120] = b"x" * 40
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="cannot be read as an"):
        load_source(section)


@pytest.mark.parametrize(
    ("key", "arrays", "error", "said"),
    [
        ("patients", {"patient": np.arange(6)}, ConfigError, r"data\.split\.group: .*did you mean 'patient'"),
        ("patient", {"patient": np.arange(5)}, DataError, r"patient .* has shape \(5,\)"),
    ],
)
def test_groups_must_be_there_for_every_training_sample(tmp_path, key, arrays, error, said):
    section = npz(tmp_path, **TWO, **arrays).model_copy(update={"split": {"group": key}})
    with pytest.raises(error, match=said):
        load_source(section)


def test_keys_that_do_not_fit_the_source_are_refused(tmp_path):
    for changes, key in (
        ({"split": {"group": "k"}}, r"data\.split"),
        ({"layout": "channels_last"}, r"data\.layout"),
        ({"collate": {"target": "mine.py:collate"}}, r"data\.collate"),
    ):
        with pytest.raises(ConfigError, match=key):
            load_source(Data(name="digits", **changes))


PAIR = """
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
pair = (torch.ones(4, 2), torch.arange(4) % 2)
class Stream(IterableDataset):
    def __iter__(self): return iter([])
"""
DATASET = """
class D:
    def __len__(self): return 4
    def __getitem__(self, i): return RETURNED
def load(): return D(), D()
"""


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("pair[0]", r"returned a Tensor: return \(train, val\)"),
        ("(pair, pair, pair, pair)", "returned 4 values"),
        ("(pair[0], pair[1])", "the train part of .* is a Tensor: give a pair"),
        ("(pair, 3)", "the val part of .* is a int"),
        ("(None, pair)", "the train part of .* is a NoneType"),
        ("(DataLoader(TensorDataset(*pair)), pair)", "is a DataLoader: give its Dataset"),
        ("(Stream(), pair)", "is an IterableDataset"),
        ("(pair, Odd())", "mixes arrays and Datasets"),
        ("(Empty(), Empty())", "the train part of .* is empty"),
        ("(Pictures(), Pictures())", "PIL image.*ToTensor"),
        ("(Bytes(), Bytes())", "uint8 Tensor"),
    ],
)
def test_custom_data_of_another_form_is_refused(tmp_path, returned, said):
    kinds = {"Odd": "float(i), i % 2", "Empty": "i", "Pictures": "__import__('PIL.Image').Image.new('L', (2, 2)), 0"}
    kinds["Bytes"] = "torch.zeros(2, dtype=torch.uint8), 0"
    classes = "".join(
        f"class {name}:\n    def __len__(self): return {0 if name == 'Empty' else 4}\n    def __getitem__(self, i): return {item}\n"
        for name, item in kinds.items()
    )
    file = tmp_path / "mine.py"
    file.write_text(f"{PAIR}{classes}def load():\n    return {returned}\n")
    with pytest.raises(DataError, match=said):
        load_source(Data(target=f"{file}:load"))


def test_an_item_that_raises_is_the_users(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(DATASET.replace("RETURNED", "1 / i"))
    with pytest.raises(UserCodeError, match="your code raised ZeroDivisionError") as caught:
        load_source(Data(target=f"{file}:load"))
    assert caught.value.where == f"{file}:4"


def test_items_that_do_not_stack_point_to_collate(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(DATASET.replace("RETURNED", "(object(), 1)"))
    with pytest.raises(UserCodeError, match=r"data\.collate"):
        load_source(Data(target=f"{file}:load"))
