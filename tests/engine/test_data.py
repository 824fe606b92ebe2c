from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Subset, TensorDataset

from hptune.config.schema import Data
from hptune.engine.data import DatasetPart, Part, TensorPart, batches, load_parts, parts_from_objects
from hptune.engine.datasets import Items, identify
from hptune.errors import ConfigError, DataError

torch.set_num_threads(1)
CPU = torch.device("cpu")
SECTION = Data(target="unused.py:load")


def load(seed=0, **section):
    return load_parts(Data(**section), seed=seed, device=CPU)


def given(train, val=None, test=None, seed=0, **section):
    return parts_from_objects(train, val, test, section=SECTION.model_copy(update=section), seed=seed, device=CPU)


def everything(part: Part):
    return part.take(torch.arange(len(part)))


def pair(samples=40, classes=4, seed=0):
    return np.random.default_rng(seed).normal(size=(samples, 3)), np.arange(samples) % classes


def random_states():
    return random.getstate(), [*map(str, np.random.get_state()[1:3])], torch.get_rng_state().tolist()


class Rows:
    """A map-style Dataset of its own kind; `noise` says whose random state it adds."""

    def __init__(self, samples=40, noise=None, target=lambda i: i % 4):
        self.samples, self.noise, self.target, self.reads = samples, noise, target, 0

    def __len__(self):
        return self.samples

    def __getitem__(self, index):
        self.reads += 1
        return np.full(3, index, np.float64) + (self.noise() if self.noise else 0), self.target(index)


def test_digits_are_divided_and_normalized_by_the_training_part():
    parts = load(name="digits")
    assert (len(parts.train), len(parts.val), len(parts.test)) == (1079, 359, 359)
    assert (parts.classes, parts.sample_shape, parts.target_shape) == (10, (1, 8, 8), ())
    x, y = everything(parts.train)
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    assert x.mean().item() == pytest.approx(0, abs=1e-5)
    assert x.std(unbiased=False).item() == pytest.approx(1, abs=1e-5)
    assert abs(everything(parts.val)[0].mean().item()) > 1e-5
    assert 0 < parts.mean[0] * 255 < 16


def test_the_same_seed_gives_the_same_parts_and_fingerprint():
    first, again, other = load(name="digits"), load(name="digits"), load(name="digits", seed=1)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert torch.equal(everything(first.val)[0], everything(again.val)[0])
    assert load(name="digits", limit=200).fingerprint != first.fingerprint


def test_a_limit_holds_for_training_samples_before_the_split():
    parts = load(name="digits", limit=100)
    assert (len(parts.train), len(parts.val), len(parts.test)) == (60, 20, 20)
    assert everything(parts.train)[1].bincount().tolist() == [6] * 10
    numbered = given((np.arange(200.0)[:, None], np.arange(200) % 4), limit=100)
    held = [set(everything(part)[0].flatten().tolist()) for part in (numbered.train, numbered.val, numbered.test)]
    assert len(set.union(*held)) == 100
    assert max(set.union(*held)) > 150


def test_parts_of_the_sources_own_are_kept():
    parts = given(pair(40), pair(12, seed=1), pair(8, seed=2), limit=20)
    assert (len(parts.train), len(parts.val), len(parts.test)) == (20, 12, 8)


def test_a_missing_test_part_is_held_out_of_training():
    parts = given(pair(40), pair(12))
    assert (len(parts.train), len(parts.val), len(parts.test)) == (32, 12, 8)
    assert given(pair(40), pair(12), test_fraction=0.0).test is None


def test_a_sorted_validation_part_comes_in_a_fair_order():
    x, y = pair(40)
    order = np.argsort(y, kind="stable")
    val = given(pair(40), (x[order], y[order])).val
    assert val.take(torch.arange(8))[1].bincount().tolist() == [2, 2, 2, 2]


def test_under_time_every_part_keeps_its_order():
    steps = np.arange(20.0)[:, None]
    parts = given((steps, steps), split="time")
    assert [everything(part)[0].flatten().tolist() for part in (parts.train, parts.val, parts.test)] == [
        list(range(12)), list(range(12, 16)), list(range(16, 20)),
    ]  # fmt: skip
    own = given((steps, steps), (steps, steps), split="time")
    assert everything(own.val)[0].flatten().tolist() == list(range(20))


def test_groups_of_an_npz_stay_whole(tmp_path):
    group = np.arange(60) // 6
    np.savez(tmp_path / "a.npz", x_train=group[:, None].astype(np.float32), y_train=np.arange(60) % 2, patient=group)
    parts = load(name="arrays", path=str(tmp_path / "a.npz"), split={"group": "patient"})
    held = [set(everything(part)[0].flatten().tolist()) for part in (parts.train, parts.val, parts.test)]
    assert [len(names) for names in held] == [6, 2, 2]
    assert len(set.union(*held)) == 10
    limited = load(name="arrays", path=str(tmp_path / "a.npz"), split={"group": "patient"}, limit=40)
    held = [set(everything(part)[0].flatten().tolist()) for part in (limited.train, limited.val, limited.test)]
    assert sum(map(len, held)) == len(set.union(*held))


def test_regression_is_split_at_random_and_says_so():
    x, _ = pair()
    parts = given((x, x[:, :1]))
    assert (parts.classes, parts.target_shape) == (0, (1,))
    assert everything(parts.train)[1].dtype == torch.float32
    assert "random" in " ".join(parts.notes)
    assert given((x, x[:, 0])).target_shape == ()


@pytest.mark.parametrize(
    ("x", "dtype", "shape"),
    [
        (np.zeros((40, 5), np.float64), torch.float32, (5,)),
        (np.zeros((40, 5), np.float16), torch.float32, (5,)),
        (torch.zeros(40, 5, dtype=torch.bfloat16), torch.float32, (5,)),
        (np.zeros((40, 5), np.int32), torch.int64, (5,)),
        (np.zeros((40, 5), np.uint16), torch.int64, (5,)),
        (np.zeros((40, 5), ">f4"), torch.float32, (5,)),
        (np.zeros((40, 5), bool), torch.bool, (5,)),
        (np.zeros((40, 3, 6, 6), np.float32), torch.float32, (3, 6, 6)),
        (np.zeros((40, 6, 6), np.uint8), torch.float32, (1, 6, 6)),
        (np.zeros((40, 6, 5, 3), np.uint8), torch.float32, (3, 6, 5)),
        (np.zeros((40, 4, 6, 5), np.uint8), torch.float32, (4, 6, 5)),
        ([[0.0, 1.0]] * 40, torch.float32, (2,)),
        (np.zeros((80, 5))[::2], torch.float32, (5,)),
        (torch.zeros(40, 5, requires_grad=True), torch.float32, (5,)),
        (np.broadcast_to(np.float32(1), (40, 5)), torch.float32, (5,)),
        (np.frombuffer(bytes(40 * 4), np.float32)[:, None], torch.float32, (1,)),
    ],
)
def test_what_comes_in_and_what_the_model_gets(x, dtype, shape):
    parts = given((x, np.arange(40) % 2))
    batch = everything(parts.train)[0]
    assert (batch.dtype, tuple(batch.shape[1:]), parts.sample_shape) == (dtype, shape, shape)
    assert not batch.requires_grad


def test_channels_last_images_keep_their_pixels_in_place():
    x = np.random.default_rng(0).integers(0, 256, (30, 6, 5, 3), np.uint8)
    parts = given((x, np.arange(30) % 2), (x, np.arange(30) % 2), (x, np.arange(30) % 2), split="time")
    batch = everything(parts.train)[0]
    flat = x.reshape(-1, 3) / 255
    assert parts.mean == pytest.approx(flat.mean(0))
    assert parts.std == pytest.approx(flat.std(0))
    expected = (x / 255 - flat.mean(0)) / flat.std(0)
    assert np.allclose(batch.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-5)


def test_constant_pixels_stay_finite():
    batch = everything(given((np.full((20, 4, 4), 9, np.uint8), np.arange(20) % 2)).train)[0]
    assert torch.equal(batch, torch.zeros_like(batch))


@pytest.mark.parametrize("shape", [(20, 3, 8, 3), (20, 7, 8, 9)])
def test_a_doubtful_layout_must_be_given(shape):
    data = (np.zeros(shape, np.uint8), np.arange(20) % 2)
    with pytest.raises(DataError, match=r"data\.layout"):
        given(data)
    assert given(data, layout="channels_first").sample_shape == shape[1:]
    assert given(data, layout="channels_last").sample_shape == (shape[3], *shape[1:3])


def test_tuples_and_dicts_reach_the_model_as_they_are():
    x, y = pair()
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4), np.uint8)
    parts = given(({"image": images, "mask": x > 0}, y))
    batch = parts.train.take(torch.tensor([0, 2]))[0]
    assert {key: (value.dtype, value.shape) for key, value in batch.items()} == {
        "image": (torch.float32, (2, 1, 4, 4)),
        "mask": (torch.bool, (2, 3)),
    }
    assert parts.sample_shape is None
    assert parts.mean is None
    batch = given(((x, images), y)).train.take(torch.tensor([0, 2]))[0]
    assert isinstance(batch, tuple)
    assert [leaf.shape for leaf in batch] == [(2, 3), (2, 1, 4, 4)]


def test_tokens_have_as_many_classes_as_the_largest_one_in_any_part():
    tokens = np.arange(80).reshape(20, 4)
    parts = given((tokens, tokens), (tokens + 5, tokens + 5))
    assert parts.classes == 85


X, Y = pair()
NAN = X.copy()
NAN[7, 1] = np.nan
NAN[9, 2] = np.inf


@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        ((X[:0], Y[:0]), None, "train part .* is empty"),
        ((X, Y), (X[:0], Y[:0]), "val part .* is empty"),
        ((X[:, :0], Y), None, "hold no values"),
        ((NAN, Y), None, r"x of the train part .* 2 values that are NaN or infinite, the first at index \(7, 1\)"),
        ((X, Y), (NAN, Y), "x of the val part"),
        ((X, NAN[:, 1]), None, r"y of the train part .* 1 values .* index 7"),
        ((X, Y[:-1]), None, "x of the train part .* has 40 samples, y has 39"),
        (((X, X[:3]), Y), None, r"x\[1\] of the train part .* has 3 samples"),
        (([[1.0], [1.0, 2.0]], [0, 1]), None, "ragged"),
        ((np.array([{}, {}]), [0, 1]), None, "holds Python objects"),
        ((X + 1j, Y), None, "complex"),
        ((X, Y.astype(str)), None, "holds text"),
        ((3.0, Y), None, "single number"),
        (((), Y), None, "empty tuple"),
        (({1: X}, Y), None, "must be words"),
        ((X, {"a": Y}), None, "y of the train part .* is a dict"),
        ((X.astype(np.uint8), Y), None, "uint8 of shape"),
        ((X, Y * 0), None, "only one class, label 0"),
        ((X, Y - 1), None, "label -1: labels count from 0"),
        ((X, Y), (X, Y + 1), r"val part .* 10 labels that the train part lacks, such as 4: its labels are 0, 1, 2, 3"),
        ((X, Y), (X, Y * 0.5), "y of .* is int64 .* in the train part but float32"),
        ((X, Y), (X[:, :2], Y), r"x of .* float32 of shape \(40, 3\) in the train part but float32 of shape \(40, 2\) in the val part"),
        ((X, Y), ((X,), Y), "the train part .* has y, x, the val part y, x"),
        ((X[:2], Y[:2]), None, "cannot be divided"),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused(train, val, said):
    with pytest.raises(DataError, match=said):
        given(train, val)


def test_labels_that_never_occur_are_noted():
    parts = given((X, np.arange(40) % 2 * 9))
    assert parts.classes == 10
    assert any("only 2 occur" in note for note in parts.notes)


def test_classes_lost_to_the_split_are_noted():
    y = np.array([0, 1] * 16 + [2] * 8)
    assert any("1 classes (2)" in note for note in given((X, y), split="time").notes)
    assert not given((X, y)).notes


def test_a_limit_beyond_the_data_is_noted():
    assert any("all are used" in note for note in given((X, Y), limit=1000).notes)


def test_every_value_counts_in_the_fingerprint():
    first = given((X, Y)).fingerprint
    changed = X.copy()
    changed[3, 1] += 1e-3
    assert given((changed, Y)).fingerprint != first
    assert given((X, Y[::-1])).fingerprint != first
    assert given((X.astype(np.float32), Y.astype(np.int8))).fingerprint == first


def test_a_tensor_dataset_is_held_as_tensors():
    whole = TensorDataset(torch.tensor(X, dtype=torch.float32), torch.tensor(Y))
    parts = given(whole, Subset(whole, [0, 1, 2, 3]))
    assert isinstance(parts.train, TensorPart)
    assert len(parts.val) == 4
    assert parts.classes == 4


def test_a_dataset_is_split_and_read_by_item():
    parts = given(Rows())
    assert isinstance(parts.train, DatasetPart)
    assert (len(parts.train), len(parts.val), len(parts.test)) == (24, 8, 8)
    assert (parts.classes, parts.sample_shape, parts.target_shape) == (4, (3,), ())
    x, y = everything(parts.val)
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert torch.equal(x[:, 0].long() % 4, y)
    assert y.bincount().tolist() == [2, 2, 2, 2]


def test_a_targets_attribute_spares_reading_every_item():
    rows = Rows(samples=5000)
    rows.targets = [i % 4 for i in range(5000)]
    assert given(rows).classes == 4
    assert given(Subset(rows, list(range(0, 5000, 2)))).classes == 3
    assert rows.reads < 500


def test_a_targets_attribute_that_contradicts_the_items_does_not_count():
    rows = Rows()
    rows.targets = [i % 4 + 7 for i in range(40)]
    assert given(rows).classes == 4


def test_a_dataset_with_other_targets_has_no_classes():
    parts = given(Rows(target=lambda i: i / 7))
    assert parts.classes == 0
    assert everything(parts.train)[1].dtype == torch.float32


def test_a_subset_of_a_subset_counts_from_the_first():
    items = Items(Rows(), "rows", np.arange(40), np.arange(40) % 4).subset(np.array([9, 7, 5])).subset(np.array([2, 0]))
    assert items.indices.tolist() == [5, 9]
    assert items.labels.tolist() == [1, 1]


def test_a_datasets_fingerprint_follows_items_and_length():
    first = given(Rows()).fingerprint
    assert given(Rows()).fingerprint == first
    assert given(Rows(samples=41)).fingerprint != first
    assert given(Rows(noise=lambda: 1.0)).fingerprint != first


def test_a_custom_datasets_fingerprint_follows_its_source(tmp_path):
    file = tmp_path / "mine.py"
    text = "class D:\n    def __len__(self): return 20\n    def __getitem__(self, i): return float(i), i % 2\n"
    prints = []
    for changed in ("def load(): return D(), D()\n", "def load():\n    return D(), D()\n"):
        file.write_text("import helper_of_data\n" + text + changed)
        (tmp_path / "helper_of_data.py").write_text("")
        prints.append(load(target=f"{file}:load").fingerprint)
    (tmp_path / "helper_of_data.py").write_text("value = 1\n")
    assert len({*prints, load(target=f"{file}:load").fingerprint}) == 3


@pytest.mark.parametrize("noise", [random.random, np.random.rand, lambda: torch.rand(()).item()])
def test_random_items_neither_change_the_fingerprint_nor_the_random_state(noise):
    rows = Rows(noise=noise)
    rows.targets = [i % 4 for i in range(40)]
    first = given(rows).fingerprint
    noise()
    before = random_states()
    assert identify(Items(rows, "rows", np.arange(40), None)) == identify(Items(rows, "rows", np.arange(40), None))
    assert random_states() == before
    assert given(rows).fingerprint == first


def test_items_with_a_random_state_of_their_own_are_left_out_with_a_note():
    parts = [given(Rows(noise=np.random.default_rng(seed).random)) for seed in (0, 1)]
    assert parts[0].fingerprint == parts[1].fingerprint
    assert any("differ from reading to reading" in note for note in parts[0].notes)


COLLATE = """
import torch
def collate(items, pad=0):
    x = [torch.full((i,), 1.0) for i in items]
    pads = [pad] * len(items)
    return RESULT
"""


def write_collate(tmp_path: Path, result: str) -> dict:
    file = tmp_path / "mine.py"
    file.write_text(COLLATE.replace("RESULT", result))
    return {"target": f"{file}:collate", "args": {"pad": 9}}


class Lengths:
    def __len__(self):
        return 12

    def __getitem__(self, index):
        return index + 1


@pytest.mark.parametrize("result", ["torch.tensor(items), torch.tensor(pads)", "[torch.tensor(items), torch.tensor(pads)]"])
def test_a_collate_of_pairs_gives_input_and_target(tmp_path, result):
    parts = given(Lengths(), collate=Data.model_validate({"target": "a.py:b", "collate": write_collate(tmp_path, result)}).collate)
    batch = parts.train.take(torch.tensor([0, 1]))
    assert isinstance(batch, tuple)
    assert batch[1].tolist() == [9, 9]
    assert len(batch[0]) == 2
    assert parts.classes == 0


def test_a_collate_of_anything_else_is_passed_whole(tmp_path):
    section = Data.model_validate({"target": "a.py:b", "collate": write_collate(tmp_path, "{'boxes': x, 'names': ['a', 'b']}")})
    batch = given(Lengths(), collate=section.collate, split="time").train.take(torch.tensor([0, 1]))
    assert batch["names"] == ["a", "b"]
    assert [len(box) for box in batch["boxes"]] == [1, 2]


def test_batches_cover_a_part_in_order_with_the_ragged_last_one():
    steps = np.arange(20.0)[:, None]
    part = given((steps, steps), split="time").train
    assert [batch[0].flatten().tolist() for batch in batches(part, 5)] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]
    assert [len(batch[1]) for batch in batches(part, 5, limit=7)] == [5, 2]


def test_groups_need_a_file():
    with pytest.raises(ConfigError, match=r"data\.split"):
        given((X, Y), split={"group": "k"})


@pytest.mark.parametrize(("rare", "told"), [(30, True), (31, False)])
def test_uneven_classes_are_told(rare, told):
    labels = torch.tensor([0] * 300 + [1] * rare)
    x = torch.randn(len(labels), 4)
    notes = given((x, labels), (x[-60:], labels[-60:]), (x[-60:], labels[-60:])).notes
    assert any("of the training samples label 1 has 30 and label 0 has 300" in note for note in notes) is told
