"""Images in folders, one subfolder a class, decoded once into uint8 tensors."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from hptune.engine.arrays import Arrays
from hptune.engine.folders import class_folders, image_files, opened, part_folders
from hptune.errors import DataError, said_by
from hptune.pulse import PULSE

GRAY = ("1", "L", "I", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes: of 1, 8 and 16 bits


@dataclass(frozen=True, slots=True)
class _Form:
    """What every image is brought to: PIL's mode `L` (gray) or `RGB`, and (width, height)."""

    mode: str
    size: tuple[int, int]


def read_image_folder(root: Path, size: int | None) -> dict[str, Arrays]:
    """Return the parts found: `train` from `root/train` (with `val` and `test` beside it), or from the class folders in `root` itself.

    Images come out as uint8 (samples, 1 or 3, height, width): one channel where all are gray. `size` makes them square; without
    it all must have one size. Classes are numbered by the sorted names of the training part's folders. Raises DataError for missing
    or empty folders, folders of unknown classes, damaged images, and differing sizes; OSError for a folder that cannot be listed.
    """
    folders = part_folders(root)
    classes = class_folders(folders["train"])
    files = {part: image_files(folder, classes) for part, folder in folders.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on odd metadata, large images and transparency that is left out
        form = _common_form([file for found in files.values() for file, _ in found], size)
        return {part: _decode(found, form, folders[part]) for part, found in files.items()}


def _common_form(files: list[Path], size: int | None) -> _Form:
    """Read every header: gray only where all are gray; one size, or `size` squared."""
    headers = [_header(file) for file in files]
    mode = "L" if all(header.mode in GRAY for header in headers) else "RGB"
    if size is not None:
        return _Form(mode, (size, size))
    first = headers[0].size
    for file, header in zip(files, headers, strict=True):
        if header.size != first:
            shown = " but ".join(f"{path} is {width}×{height}" for path, (width, height) in ((files[0], first), (file, header.size)))
            raise DataError(f"images differ in size: {shown}: set data.size to the pixels of the square they are resized to")
    return _Form(mode, first)


def _header(file: Path) -> _Form:
    with opened(file) as image:
        return _Form(image.mode, image.size)


def _decode(files: list[tuple[Path, int]], form: _Form, folder: Path) -> Arrays:
    width, height = form.size
    try:
        images = np.empty((len(files), len(form.mode), height, width), np.uint8)
    except (MemoryError, ValueError) as error:
        many = f"the {len(files)} images in {folder}, of {width}×{height} pixels each, do not fit into main memory"
        raise DataError(f"{many} ({said_by(error)}): set data.size to fewer pixels") from error

    def fill(at: int) -> None:
        images[at] = _pixels(files[at][0], form)

    with ThreadPoolExecutor() as pool:  # decoding releases the interpreter
        list(pool.map(fill, range(len(files))))
    return Arrays(torch.from_numpy(images), torch.tensor([label for _, label in files]))


def _pixels(file: Path, form: _Form) -> NDArray[np.uint8]:
    """One image as (channels, height, width)."""
    PULSE.beat()
    with opened(file) as image:
        converted = _in_8_bits(image).convert(form.mode)
        if converted.size != form.size:
            converted = converted.resize(form.size, Image.Resampling.BILINEAR)
    pixels = np.asarray(converted)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _in_8_bits(image: Image.Image) -> Image.Image:
    """`image` itself, or the upper 8 of 16 bits where its pixels have as many: Pillow's `convert` would make 255 of all from 255 on."""
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers: save them with 8 or 16 bits, or all images as one float32 array")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("its pixels have more than 16 bits")
    return Image.fromarray((values >> 8).astype(np.uint8))
