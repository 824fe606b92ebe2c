"""Damaged files of every kind a user could have: reading one gives the data, or an InputError that names it in one short message.

Warnings are errors in this suite, so a library's warning that leaks fails these tests too.
"""

from __future__ import annotations

import io
import os
import pickle
import random
import re
import resource
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hptune.config.schema import Data
from hptune.engine.data import load_parts
from hptune.engine.sources import load_source
from hptune.engine.weights import load_weights, read_weights
from hptune.errors import ConfigError, DataError, InputError

torch.set_num_threads(1)
LONGEST = 600  # characters of a message, the path aside
HTML = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>\n"


@dataclass(frozen=True)
class Kind:
    """A kind of file: its name, what it holds, and how hptune reads it where it lies in a folder of its own.

    `checksums`: whether it has them, so that what is read must be what was written.
    """

    name: str
    content: bytes
    read: Callable[[Path], Any]
    checksums: bool = False


def npz(*, compressed: bool) -> bytes:
    file = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(file, x_train=np.linspace(0, 1, 18, dtype=np.float32).reshape(6, 3), y_train=np.array([0, 1, 0, 1, 0, 1]))
    return file.getvalue()


def read_npz(path: Path) -> Any:
    train = load_source(Data(name="arrays", path=str(path))).train
    return train.x.tolist(), train.y.tolist()


def image(form: str, **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    picture = Image.fromarray(pixels).convert("L" if form == "PGM" else "RGB")
    file = io.BytesIO()
    picture.save(file, "PPM" if form == "PGM" else form, **options)
    return file.getvalue()


def animation() -> bytes:
    frames = [Image.fromarray(np.random.default_rng(seed).integers(0, 256, (5, 7), np.uint8)) for seed in range(3)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=50)
    return file.getvalue()


def read_images(path: Path) -> Any:
    """The image at `path` as class `b`, and a good one as class `a`; resized, so that every header leads on to the pixels."""
    good = path.parent.parent / "a" / "good.png"
    if not good.exists():
        good.parent.mkdir()
        Image.new("RGB", (3, 3), (1, 2, 3)).save(good)
    return load_source(Data(name="image_folder", root=str(path.parent.parent), size=4))


def idx(values: np.ndarray) -> bytes:
    return struct.pack(">HBB", 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


IDX = {
    f"{part}-{what}-ubyte": idx(values)
    for part in ("train", "t10k")
    for what, values in (("images-idx3", np.arange(96, dtype=np.uint8).reshape(6, 4, 4)), ("labels-idx1", np.arange(6, dtype=np.uint8) % 2))
}


def read_mnist(path: Path) -> Any:
    for name, content in IDX.items():
        if name != path.name and not (path.parent / name).exists():
            (path.parent / name).write_bytes(content)
    return load_source(Data(name="mnist", root=str(path.parent.parent.parent)))


def weights(**options: Any) -> bytes:
    torch.manual_seed(0)
    file = io.BytesIO()
    torch.save(nn.Linear(3, 2).state_dict(), file, **options)
    return file.getvalue()


def read_pretrained(path: Path) -> Any:
    return {name: tensor.tolist() for name, tensor in read_weights(str(path)).items()}


KINDS = [
    Kind("stored.npz", npz(compressed=False), read_npz, checksums=True),
    Kind("compressed.npz", npz(compressed=True), read_npz, checksums=True),
    *(Kind(f"b/1.{form.lower()}", image(form), read_images) for form in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "PGM")),
    Kind("b/progressive.jpg", image("JPEG", progressive=True), read_images),
    Kind("b/lossless.webp", image("WEBP", lossless=True), read_images),
    Kind("b/deflated.tif", image("TIFF", compression="tiff_adobe_deflate"), read_images),
    Kind("b/lzw.tif", image("TIFF", compression="tiff_lzw"), read_images),
    Kind("b/animated.gif", animation(), read_images),
    *(Kind(f"MNIST/raw/{name}", content, read_mnist) for name, content in IDX.items() if name.startswith("train")),
    Kind("weights.pt", weights(), read_pretrained, checksums=True),
    Kind("old-weights.pt", weights(_use_new_zipfile_serialization=False), read_pretrained),
]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def damages(content: bytes, rng: random.Random, *, all_of_them: bool) -> Iterator[tuple[str, bytes]]:
    """What can have happened to `content`, each with words for it: every truncation and every flipped bit, or some of them."""
    cuts, bits = range(len(content)), range(8 * len(content))
    for length in cuts if all_of_them else _some(cuts, 60, rng):
        yield f"cut to {length} bytes", content[:length]
    for bit in bits if all_of_them else _some(bits, 90, rng):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        yield f"bit {bit} flipped", bytes(damaged)
    for _ in range(300 if all_of_them else 12):
        start, length = rng.randrange(len(content)), rng.randrange(1, 40)
        for what, run in (("zeros", bytes(length)), ("ones", b"\xff" * length), ("noise", rng.randbytes(length))):
            yield f"{length} bytes of {what} at {start}", (content[:start] + run + content[start + length :])[: len(content)]
        yield f"{length} bytes lost at {start}", content[:start] + content[start + length :]
    for length in (1, 4, 22, 500):
        yield f"{length} bytes of noise before", rng.randbytes(length) + content
        yield f"{length} bytes of noise after", content + rng.randbytes(length)
        yield f"{length} bytes of noise only", rng.randbytes(length)
    yield "twice", content + content
    yield "a page before", HTML + content
    yield "only a page", HTML
    yield "nothing", b""
    yield "zeros only", bytes(len(content))
    yield "line ends of another system", content.replace(b"\n", b"\r\n")
    yield "taken for Latin-1 text", content.decode("latin-1").encode()
    yield "taken for UTF-8 text", content.decode("utf-8", "replace").encode()


def _some(values: range, number: int, rng: random.Random) -> list[int]:
    return sorted(rng.sample(values, min(number, len(values))))


def refusal(kind: Kind, path: Path, expected: Any = None) -> str | None:
    """What reading `path` was refused with, None where it was read, as `expected` if given. Other exceptions go through."""
    try:
        found = kind.read(path)
        assert expected is None or found == expected
    except InputError as error:
        message = str(error)
        assert path.name in message, message
        assert len(message.replace(str(path.parent), "")) <= LONGEST, message
        assert "\n" not in message, message
        assert "allow_pickle" not in message, "a library's advice to read the file unsafely must not reach the user"
        return message
    return None


def check_all(kind: Kind, path: Path, *, all_of_them: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(kind.content)
    expected = kind.read(path) if kind.checksums else None
    for what, content in damages(kind.content, random.Random(kind.name), all_of_them=all_of_them):
        path.write_bytes(content)
        try:
            refusal(kind, path, expected)
        except Exception as error:
            pytest.fail(f"{kind.name}, {what}: {type(error).__name__}: {error}")


@kinds
def test_the_undamaged_file_is_read(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / kind.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(kind.content)
    assert refusal(kind, path) is None


@kinds
def test_whatever_happened_to_its_bytes_the_data_or_one_message_comes(tmp_path: Path, kind: Kind) -> None:
    check_all(kind, tmp_path / kind.name, all_of_them=False)


@pytest.mark.slow
@kinds
def test_every_truncation_and_every_flipped_bit(tmp_path: Path, kind: Kind) -> None:
    check_all(kind, tmp_path / kind.name, all_of_them=True)


@kinds
def test_a_directory_in_its_place_is_refused(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / kind.name
    path.mkdir(parents=True)
    assert refusal(kind, path) is not None


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.read is not read_images and kind.read is not read_mnist], ids=lambda kind: kind.name
)
def test_a_missing_file_is_said_to_be_missing(tmp_path: Path, kind: Kind) -> None:
    message = refusal(kind, tmp_path / kind.name)
    assert message is not None
    assert "there is no file" in message


@kinds
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / kind.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(kind.content)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    message = refusal(kind, path)
    assert message is not None
    assert "Permission denied" in message


@pytest.mark.parametrize("closed", [".", "a"])
@pytest.mark.parametrize("name", ["image_folder", "mnist"])
def test_a_folder_that_may_not_be_searched_is_refused(tmp_path: Path, name: str, closed: str) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / closed).chmod(0)
    try:
        if os.access(root / closed, os.X_OK):
            pytest.skip("this user may search every folder")
        with pytest.raises(DataError, match=re.escape(str(root))):
            load_source(Data(name=name, root=str(root / "a")))
    finally:
        (root / closed).chmod(0o700)


@pytest.mark.parametrize("name", ["a b.npz", "größe 数据.npz", "new\nline.npz", "-x.npz", "100%.npz"])
def test_odd_file_names_are_read_and_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(npz(compressed=True))
    assert len(load_source(Data(name="arrays", path=str(path))).train) == 6
    path.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        load_source(Data(name="arrays", path=str(path)))
    assert name in str(caught.value)


def test_an_interrupt_while_reading_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_arguments: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    for kind, name in ((KINDS[0], "numpy.load"), (KINDS[2], "PIL.Image.open"), (KINDS[-1], "torch.load")):
        path = tmp_path / kind.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kind.content)
        with monkeypatch.context() as patch:
            patch.setattr(name, interrupt)
            with pytest.raises(KeyboardInterrupt):
                kind.read(path)


# --- .npz files that somebody made so, or that came from elsewhere ---


def member(values: Any, **header: Any) -> bytes:
    """An .npy of `values`, whose header says something else where `header` does."""
    array = np.asarray(values)
    file = io.BytesIO()
    said = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape, **header}
    np.lib.format.write_array_header_1_0(file, said)
    return file.getvalue() + array.tobytes()


X, Y = np.linspace(0, 1, 60, dtype=np.float32).reshape(20, 3), np.arange(20) % 2


def archive(path: Path, *members: tuple[str, bytes]) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        warnings.simplefilter("ignore")  # on two members of one name
        for name, content in members:
            file.writestr(name, content)
    return path


def patched(path: Path, offset: int, value: int) -> None:
    """Write `value` into the two bytes of every member's headers that begin `offset` bytes into the local one."""
    content = bytearray(path.read_bytes())
    for signature, further in ((b"PK\3\4", 0), (b"PK\1\2", 2)):
        at = content.find(signature)
        while at >= 0:
            struct.pack_into("<H", content, at + offset + further, value)
            at = content.find(signature, at + 4)
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (member(np.zeros(3, np.float32), shape=(10**15,)), r"x_train of .* does not fit into main memory.*damaged.*(PiB|TiB)"),
        (member(np.zeros(3, np.float32), shape=(10**15, 10**15)), "cannot be read"),
        (member(np.zeros(3, np.float32), shape=(-20, 3)), "cannot be read"),
        (member(np.zeros(3, np.float32), shape=(10**40,)), "cannot be read"),
        (member(np.zeros(3, "S1"), descr="|S0", shape=(10**15,)), "holds text"),
        (member(np.zeros(3, "V1"), descr="|V0", shape=(10**15,)), "holds values of type"),
        (member(X, descr="|O"), "x_train of .* holds Python objects"),
        (member(X, descr=[("a", "|O")]), "x_train of .* holds Python objects"),
        (member(X, descr="nonsense"), "cannot be read"),
        (member(X, descr=[("a", "<f4"), ("a", "<f4")]), "cannot be read"),
        (member(X, descr=[("a" * 9000, "<f4")]), "holds values of type"),
        (member(X, descr=[("a" * 60000, "<f4")]), "x_train of .* has a header longer than is safe to read"),
        (member(X, fortran_order="yes"), "cannot be read"),
        (b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 16, "cannot be read"),
        (b"\x93NUMPY\x02\x00\x00\x20\x00\x00" + b"(" * 8192, "cannot be read"),
        (b"\x93NUMPY\x01\x00\x10\x00{'shape': \x00\x00\x00\x00\x00\x00", "cannot be read"),
        (b"\x93NUMPY\x03\x00\x10\x00\x00\x00" + b"\xff" * 16, "cannot be read"),
        (b"\x93NUMPY\x09\x09", "cannot be read"),
        (b"\x93NUMPY", "cannot be read"),
        (HTML, "has no x_train: it holds y_train"),
        (b"", "has no x_train: it holds y_train"),
    ],
)
def test_an_array_whose_header_is_wrong_is_refused_without_memory(tmp_path: Path, x: bytes, said: str) -> None:
    path = archive(tmp_path / "a.npz", ("x_train.npy", x), ("y_train.npy", member(Y)))
    with pytest.raises(DataError, match=said) as caught:
        load_source(Data(name="arrays", path=str(path)))
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < LONGEST
    assert "allow_pickle" not in str(caught.value)


@pytest.mark.parametrize(
    ("offset", "value", "said"),
    [(6, 1, "encrypted"), (6, 0x40, "encryption"), (6, 0x20, "patched"), (8, 97, "compression"), (8, 14, "CRC"), (4, 99, "version")],
)
def test_an_archive_that_cannot_be_unpacked_is_refused_with_the_reason(tmp_path: Path, offset: int, value: int, said: str) -> None:
    path = archive(tmp_path / "a.npz", ("x_train.npy", member(X)), ("y_train.npy", member(Y)))
    patched(path, offset, value)
    with pytest.raises(DataError, match=f"cannot be read as an .npz file .*{said}"):
        load_source(Data(name="arrays", path=str(path)))


def test_two_arrays_of_one_name_are_refused(tmp_path: Path) -> None:
    for second in ("x_train.npy", "x_train"):
        path = archive(tmp_path / "a.npz", ("x_train.npy", member(X)), ("y_train.npy", member(Y)), (second, member(X + 1)))
        with pytest.raises(DataError, match="several arrays under the name x_train"):
            load_source(Data(name="arrays", path=str(path)))


def test_members_that_are_no_arrays_are_passed_over(tmp_path: Path) -> None:
    both = [("x_train.npy", member(X)), ("y_train.npy", member(Y))]
    path = archive(tmp_path / "a.npz", *both, ("README.txt", b"from the lab"), ("patient", b"no array"), ("folder/", b""))
    assert len(load_source(Data(name="arrays", path=str(path))).train) == 20
    with pytest.raises(ConfigError, match="has no array 'patient': it holds x_train, y_train"):
        load_source(Data(name="arrays", path=str(path), split={"group": "patient"}))


def test_names_of_any_length_and_number_make_a_short_message(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", *((f"{number}\x1b[31m\n" + "n" * 30000, member(X)) for number in range(300)))
    with pytest.raises(DataError, match="has no x_train and y_train: it holds") as caught:
        load_source(Data(name="arrays", path=str(path)))
    assert len(str(caught.value)) < LONGEST + len(str(path))
    assert str(caught.value).isprintable()


def test_a_header_that_python_2_wrote_is_read(tmp_path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (20L, 3L), }"
    x = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n" + X.tobytes()
    path = archive(tmp_path / "a.npz", ("x_train.npy", x), ("y_train.npy", member(Y)))
    assert torch.equal(load_source(Data(name="arrays", path=str(path))).train.x, torch.from_numpy(X))


def load_table(tmp_path: Path, **arrays: Any) -> Any:
    path = tmp_path / "table.npz"
    np.savez(path, **{"x_train": X, "y_train": Y, **arrays})
    return load_parts(Data(name="arrays", path=str(path)), seed=0, device=torch.device("cpu"))


@pytest.mark.parametrize(
    "arrays",
    [
        {"x_train": X.astype(np.float16)},
        {"x_train": X.astype(">f8")},
        {"x_train": X.astype(np.longdouble)},
        {"x_train": np.asfortranarray(X)},
        {"x_train": np.zeros_like(X)},
        {"x_train": np.full((20, 3), 1e30)},
        {"x_train": np.full((20, 4, 4), 7, np.uint8)},
        {"x_train": np.full((20, 1), 2**63 - 1, np.uint64)},
        {"x_train": X > 0.5},
        {"x_train": X[:, 0]},
        {"y_train": Y.astype(">i2")},
        {"y_train": Y.astype(bool)},
        {"y_train": Y.astype(np.uint64)},
        {"y_train": Y * 0.5},
        {"y_train": Y.astype(np.longdouble)},
        {"y_train": np.zeros(20)},
        {"y_train": Y * 10**12},
        {"unused": np.array(["2020-01-01"], "datetime64[D]")},
        {"unused": np.array(0)},
    ],
    ids=lambda arrays: "-".join(f"{name}-{array.dtype}{array.shape}" for name, array in arrays.items()),
)
def test_tables_of_every_numeric_form_give_finite_batches(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    parts = load_table(tmp_path, **arrays)
    for part in (parts.train, parts.val, parts.test):
        x, y = part.take(torch.arange(len(part)))
        assert x.dtype in (torch.float32, torch.int64, torch.bool)
        assert bool(x.isfinite().all())
        assert bool(y.isfinite().all())


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x_train": np.zeros(20, [("a", "<f4"), ("b", "<i4")])}, "x of the train part of .* holds values of type"),
        ({"x_train": np.zeros((20, 2), "datetime64[s]")}, "holds values of type datetime64"),
        ({"x_train": np.zeros((20, 2), "timedelta64[s]")}, "holds values of type timedelta64"),
        ({"x_train": np.full((20, 2), "a")}, "holds text"),
        ({"x_train": np.full((20, 2), b"a")}, "holds text"),
        ({"x_train": X.astype(np.complex64)}, "complex"),
        ({"x_train": X.astype(np.clongdouble)}, "complex"),
        ({"x_train": X.astype(np.uint8)}, "uint8 of shape"),
        ({"x_train": np.zeros((20, 2, 2, 2, 2), np.uint8)}, "uint8 of shape"),
        ({"x_train": np.array(1.0)}, "x of .* single number"),
        ({"y_train": np.array(1)}, "y of .* single number"),
        ({"x_train": X[:0], "y_train": Y[:0]}, "is empty"),
        ({"x_train": X[:, :0]}, "x of .* hold no values"),
        ({"y_train": np.zeros((20, 0), np.int64)}, "y of .* hold no values"),
        ({"y_train": np.zeros((20, 0))}, "y of .* hold no values"),
        ({"y_train": Y[:-1]}, "20 samples, y has 19"),
        ({"x_train": np.where(X > 0.5, np.nan, X)}, "NaN or infinite"),
        ({"x_train": np.where(X > 0.5, -np.inf, X)}, "NaN or infinite"),
        ({"x_train": X.astype(np.float64) * 1e39}, "float32 ends at 3.4e38"),
        ({"y_train": np.where(Y > 0, np.nan, 0)}, "y of .* NaN or infinite"),
        ({"y_train": Y - 1}, "label -1"),
        ({"y_train": np.zeros(20, np.int64)}, "only one class"),
        ({"x_train": X[:1], "y_train": Y[:1]}, "only one class"),
        ({"y_train": np.full(20, 2**64 - 1, np.uint64)}, r"y of .* the integer 18446744073709551615: .* 2\*\*63 - 1"),
        ({"y_train": np.array(list("ab") * 10)}, "y of .* holds text"),
        ({"x_val": X[:, :2], "y_val": Y}, r"shape \(20, 2\)"),
        ({"x_val": X, "y_val": Y[:, None]}, "the val part"),
    ],
)
def test_tables_that_cannot_be_trained_on_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        load_table(tmp_path, **arrays)
    assert "table.npz" in str(caught.value)


def test_one_sample_cannot_be_divided(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 training samples cannot be divided"):
        load_table(tmp_path, x_train=X[:1], y_train=Y[:1] * 0.5)


# --- images that somebody made so, or that came from elsewhere ---


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, pixels: bytes) -> bytes:
    """A gray PNG of 8 bits that says to be `width` × `height`, whatever its `pixels` are."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def folder_with(tmp_path: Path, name: str, content: bytes | Image.Image, **options: Any) -> Data:
    """A class `b` with one given image beside a class `a` with a good one."""
    for file in (tmp_path / "a" / "good.png", tmp_path / "b" / name):
        file.parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4), 9).save(file.with_name(file.name), "PNG")
    if isinstance(content, bytes):
        (tmp_path / "b" / name).write_bytes(content)
    else:
        content.save(tmp_path / "b" / name, **options)
    return Data(name="image_folder", root=str(tmp_path), size=4)


def pixels_of(tmp_path: Path, name: str, content: bytes | Image.Image, **options: Any) -> torch.Tensor:
    """The second image of the folder, as (channels, height, width)."""
    return load_source(folder_with(tmp_path, name, content, **options)).train.x[1]


def test_a_header_that_claims_a_giant_image_is_refused_before_decoding(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=r"bomb\.png cannot be read as an image .*3600000000 pixels"):
        load_source(folder_with(tmp_path, "bomb.png", png(60_000, 60_000, bytes(1000))))
    for size in ((16_000, 11_000), (2**31 - 1, 2**31 - 1), (1, 2**31 - 1), (0, 5)):
        with pytest.raises(DataError, match=r"bomb\.png cannot be read as an image"):
            load_source(folder_with(tmp_path, "bomb.png", png(*size, bytes(1000))))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_images_that_do_not_fit_into_memory_are_refused_with_how_much_they_need(tmp_path: Path) -> None:
    section = folder_with(tmp_path, "1.png", png(4, 4, bytes(20))).model_copy(update={"size": 10**8})
    with pytest.raises(DataError, match=r"the 2 images in .*, of 100000000×100000000 pixels each, do not fit .*(iB|too big).*data\.size"):
        load_source(section)
    with pytest.raises(DataError, match="do not fit"):
        load_source(section.model_copy(update={"size": 10**15}))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"])
def test_every_mode_that_the_formats_have_is_read(tmp_path: Path, mode: str) -> None:
    for form in ("png", "jpg", "bmp", "gif", "webp", "tif", "ppm"):
        picture = Image.new("RGB", (4, 4), (200, 100, 50)).convert("L" if mode == "LA" else "RGB").convert(mode)
        try:
            picture.save(io.BytesIO(), {"jpg": "JPEG", "tif": "TIFF"}.get(form, form.upper()))
        except (OSError, ValueError):  # this format has no such mode
            continue
        assert pixels_of(tmp_path, f"1.{form}", picture).shape[1:] == (4, 4)


def test_a_palette_with_transparency_is_read(tmp_path: Path) -> None:
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    assert pixels_of(tmp_path, "1.png", picture, transparency=b"\x00\x80")[:, 0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize("form", ["png", "tif", "pgm"])
def test_16_bit_gray_keeps_its_upper_8_bits(tmp_path: Path, form: str) -> None:
    values = np.array([[0, 255, 256, 1000], [4096, 32768, 65280, 65535]] * 2, np.uint16)
    pixels = pixels_of(tmp_path, f"1.{form}", Image.fromarray(values), **({"format": "PPM"} if form == "pgm" else {}))
    assert pixels.tolist() == [(values >> 8).tolist()]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.full((4, 4), 0.5, np.float32), "floating-point"),
        (np.full((4, 4), 70000, np.int32), "more than 16 bits"),
        (np.full((4, 4), -1, np.int32), "more than 16 bits"),
    ],
)
def test_pixels_of_more_than_16_bits_are_refused(tmp_path: Path, values: np.ndarray, said: str) -> None:
    with pytest.raises(DataError, match=rf"1\.tif cannot be read as an image .*{said}"):
        load_source(folder_with(tmp_path, "1.tif", Image.fromarray(values)))


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]
    pixels = pixels_of(tmp_path, "1.gif", frames[0], save_all=True, append_images=frames[1:])
    assert pixels.unique().tolist() == [10]


@pytest.mark.parametrize("orientation", [1, 6, 0, 77])
def test_an_image_with_an_orientation_is_read(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert pixels_of(tmp_path, "1.jpg", Image.new("RGB", (4, 4), (9, 9, 9)), exif=exif).shape == (3, 4, 4)
    broken = exif.tobytes()[:-9]
    assert pixels_of(tmp_path, "1.jpg", Image.new("RGB", (4, 4), (9, 9, 9)), exif=broken).shape == (3, 4, 4)


def test_a_program_named_like_an_image_is_not_given_to_an_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("Ghostscript was called"))
    file = io.BytesIO()
    Image.new("L", (4, 4)).save(file, "EPS")
    with pytest.raises(DataError, match=r"1\.png cannot be read as an image"):
        load_source(folder_with(tmp_path, "1.png", file.getvalue()))


@pytest.mark.parametrize("name", ["empty.png", "empty.gif", "empty.webp", "empty.tif"])
def test_an_empty_file_among_good_ones_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"{re.escape(name)} cannot be read as an image"):
        load_source(folder_with(tmp_path, name, b""))


@pytest.mark.parametrize("name", ["a b.png", "größe 数据.PNG", "new\nline.png", "-x.png", os.fsdecode(b"\xff.png")])
def test_images_of_any_name_are_read_and_named(tmp_path: Path, name: str) -> None:
    assert pixels_of(tmp_path, name, png(4, 4, bytes(20))).shape == (1, 4, 4)
    with pytest.raises(DataError) as caught:
        load_source(folder_with(tmp_path, name, b""))
    assert name in str(caught.value)


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    section = folder_with(tmp_path, "1.png", png(4, 4, bytes(20)))
    for hidden in ("b/._1.png", "b/.ipynb_checkpoints/1.png", ".git/1.png", "b/deep/.thumbnails/x/1.png"):
        (tmp_path / hidden).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / hidden).write_bytes(b"no image")
    assert len(load_source(section).train) == 2


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    section = folder_with(tmp_path, "1.png", png(4, 4, bytes(20)))
    (tmp_path / "b" / "again").symlink_to(tmp_path / "b")
    assert len(load_source(section).train) == 2
    (tmp_path / "b" / "loop.png").symlink_to(tmp_path / "b" / "loop.png")
    with pytest.raises(DataError, match=r"loop\.png cannot be read as an image"):
        load_source(section)


@pytest.mark.parametrize("name", ["cat", "train", "val"])
def test_a_folder_that_is_a_broken_link_is_named_and_not_left_out(tmp_path: Path, name: str) -> None:
    section = folder_with(tmp_path, "1.png", png(4, 4, bytes(20)))
    (tmp_path / name).symlink_to(tmp_path / "moved away")
    with pytest.raises(DataError, match=f"{name} is a link that leads nowhere"):
        load_source(section)


def test_a_link_to_a_folder_of_images_is_a_class(tmp_path: Path) -> None:
    section = folder_with(tmp_path, "1.png", png(4, 4, bytes(20)))
    (tmp_path / "b").rename(tmp_path / ".elsewhere")
    (tmp_path / "b").symlink_to(tmp_path / ".elsewhere")
    assert len(load_source(section).train) == 2


# --- weights that are no weights ---


class Hostile:
    """Something that makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_nothing_but_tensors_is_unpickled_from_weights(tmp_path: Path) -> None:
    for old in (False, True):
        torch.save({"weight": torch.ones(2), "x": Hostile(tmp_path / "marker")}, tmp_path / "w.pt", _use_new_zipfile_serialization=not old)
        with pytest.raises(ConfigError, match=r"w\.pt cannot be loaded as weights \(UnpicklingError\)"):
            read_weights(str(tmp_path / "w.pt"))
    (tmp_path / "w.pt").write_bytes(pickle.dumps(Hostile(tmp_path / "marker")))
    with pytest.raises(ConfigError, match="cannot be loaded as weights"):
        read_weights(str(tmp_path / "w.pt"))
    assert not (tmp_path / "marker").exists()


def test_a_torchscript_archive_is_no_weights(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is on its way out
        torch.jit.save(torch.jit.trace(nn.Linear(3, 2), torch.ones(1, 3)), tmp_path / "w.pt")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(ConfigError, match="cannot be loaded as weights"):
            read_weights(str(tmp_path / "w.pt"))
    assert not seen


def test_a_changed_byte_in_a_weight_is_noticed(tmp_path: Path) -> None:
    content = bytearray(weights())
    torch.manual_seed(0)
    values = nn.Linear(3, 2).weight.detach().numpy().tobytes()
    content[content.find(values) + 3] ^= 0x40
    (tmp_path / "w.pt").write_bytes(bytes(content))
    with pytest.raises(ConfigError, match="cannot be loaded as weights"):
        read_weights(str(tmp_path / "w.pt"))


def test_a_tensor_marked_as_a_folder_is_noticed(tmp_path: Path) -> None:
    """torch would leave its values as they were in memory."""
    content = bytearray(weights())
    content[content.rfind(b"archive/data/0") - 8] ^= 0x10
    (tmp_path / "w.pt").write_bytes(bytes(content))
    with pytest.raises(ConfigError, match="cannot be loaded as weights"):
        read_weights(str(tmp_path / "w.pt"))


@pytest.mark.parametrize("odd", [torch.eye(3).to_sparse(), torch.ones(3, 3, dtype=torch.complex64), torch.ones(3, 3, device="meta")])
def test_tensors_that_cannot_be_copied_into_a_layer_are_left_out(tmp_path: Path, odd: torch.Tensor) -> None:
    torch.save({"weight": odd}, tmp_path / "w.pt")
    with pytest.raises(ConfigError, match="holds no state dict"):
        load_weights(nn.Linear(3, 3), str(tmp_path / "w.pt"))


def test_raw_files_of_different_length_are_refused_with_their_folder(tmp_path: Path) -> None:
    path = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    path.parent.mkdir(parents=True)
    path.write_bytes(idx(np.zeros(5, np.uint8)))
    with pytest.raises(DataError, match=f"the train part of mnist in {re.escape(str(path.parent))} has 6 samples, y has 5"):
        read_mnist(path)
