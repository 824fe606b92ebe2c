"""Damaged files of every kind a user could have: reading one gives the data, or an InputError that names it in one short message.

Warnings are errors in this suite, so a library's warning that leaks fails these tests too.
"""

from __future__ import annotations

import io
import random
import struct
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
from hptune.engine.sources import load_source
from hptune.engine.weights import read_weights
from hptune.errors import InputError

torch.set_num_threads(1)
LONGEST = 600  # characters of a message, the path aside
HTML = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>\n"


@dataclass(frozen=True)
class Kind:
    """A kind of file: its name, what it holds, and how hptune reads it where it lies in a folder of its own."""

    name: str
    content: bytes
    read: Callable[[Path], Any]


def npz(*, compressed: bool) -> bytes:
    file = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(file, x_train=np.linspace(0, 1, 18, dtype=np.float32).reshape(6, 3), y_train=np.array([0, 1, 0, 1, 0, 1]))
    return file.getvalue()


def read_npz(path: Path) -> Any:
    return load_source(Data(name="arrays", path=str(path)))


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
    return read_weights(str(path))


KINDS = [
    Kind("stored.npz", npz(compressed=False), read_npz),
    Kind("compressed.npz", npz(compressed=True), read_npz),
    *(Kind(f"b/1.{form.lower()}", image(form), read_images) for form in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "PGM")),
    Kind("b/progressive.jpg", image("JPEG", progressive=True), read_images),
    Kind("b/lossless.webp", image("WEBP", lossless=True), read_images),
    Kind("b/deflated.tif", image("TIFF", compression="tiff_adobe_deflate"), read_images),
    Kind("b/lzw.tif", image("TIFF", compression="tiff_lzw"), read_images),
    Kind("b/animated.gif", animation(), read_images),
    *(Kind(f"MNIST/raw/{name}", content, read_mnist) for name, content in IDX.items() if name.startswith("train")),
    Kind("weights.pt", weights(), read_pretrained),
    Kind("old-weights.pt", weights(_use_new_zipfile_serialization=False), read_pretrained),
]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def damages(content: bytes, rng: random.Random, *, all_of_them: bool) -> Iterator[tuple[str, bytes]]:
    """What can have happened to `content`, each with words for it: every truncation and every flipped bit, or some of them."""
    cuts, bits = range(len(content)), range(8 * len(content))
    for length in cuts if all_of_them else _some(cuts, 120, rng):
        yield f"cut to {length} bytes", content[:length]
    for bit in bits if all_of_them else _some(bits, 180, rng):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        yield f"bit {bit} flipped", bytes(damaged)
    for _ in range(300 if all_of_them else 30):
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


def refusal(kind: Kind, path: Path) -> str | None:
    """What reading `path` was refused with, None where it was read. Any exception but an InputError goes through."""
    try:
        kind.read(path)
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
    for what, content in damages(kind.content, random.Random(kind.name), all_of_them=all_of_them):
        path.write_bytes(content)
        try:
            refusal(kind, path)
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
