"""Images in folders, one subfolder a class, decoded once into uint8 tensors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from hptune.engine.arrays import Arrays
from hptune.errors import DataError
from hptune.pulse import PULSE

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
PARTS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class _Form:
    """What every image is brought to: PIL's mode `L` (gray) or `RGB`, and (width, height)."""

    mode: str
    size: tuple[int, int]


def read_image_folder(root: Path, size: int | None) -> dict[str, Arrays]:
    """Return the parts found: `train` from `root/train` (with `val` and `test` beside it), or from the class folders in `root` itself.

    Images come out as uint8 (samples, 1 or 3, height, width): one channel where all are gray. `size` makes them square; without
    it all must have one size. Classes are numbered by the sorted names of the training part's folders. Raises DataError for missing
    or empty folders, folders of unknown classes, damaged images, and differing sizes.
    """
    folders = _part_folders(root)
    classes = _class_folders(folders["train"])
    files = {part: _files(folder, classes) for part, folder in folders.items()}
    form = _common_form([file for found in files.values() for file, _ in found], size)
    return {part: _decode(found, form) for part, found in files.items()}


def _part_folders(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        raise DataError(f"there is no folder {root}: data.root must hold one subfolder of images a class, or train/ and val/ with those")
    parts = {part: root / part for part in PARTS if (root / part).is_dir()}
    if not parts:
        return {"train": root}
    if "train" not in parts:
        raise DataError(f"{root} has {' and '.join(parts)} but no train folder: put the training images into {root / 'train'}")
    return parts


def _class_folders(folder: Path) -> list[str]:
    names = sorted(child.name for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    if not names:
        raise DataError(f"{folder} has no subfolders: give it one subfolder of images for each class")
    return names


def _files(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """The image files of one part with their class numbers, sorted by path."""
    found = []
    for name in _class_folders(folder):
        if name not in classes:
            raise DataError(f"{folder / name} is a class that the training part does not have: its classes are {', '.join(classes[:10])}")
        images = sorted(f for f in (folder / name).rglob("*") if f.suffix.lower() in EXTENSIONS and not f.name.startswith("."))
        if not images:
            raise DataError(f"{folder / name} holds no images: put files such as .png or .jpg into it, or remove it")
        found += [(file, classes.index(name)) for file in images]
    return found


def _common_form(files: list[Path], size: int | None) -> _Form:
    """Read every header: gray only where all are gray; one size, or `size` squared."""
    headers = [_header(file) for file in files]
    mode = "L" if all(header.mode in ("1", "L") for header in headers) else "RGB"
    if size is not None:
        return _Form(mode, (size, size))
    first = headers[0].size
    for file, header in zip(files, headers, strict=True):
        if header.size != first:
            shown = " but ".join(f"{path} is {width}×{height}" for path, (width, height) in ((files[0], first), (file, header.size)))
            raise DataError(f"images differ in size: {shown}: set data.size to the pixels of the square they are resized to")
    return _Form(mode, first)


def _header(file: Path) -> _Form:
    try:
        with Image.open(file) as image:
            return _Form(image.mode, image.size)
    except (OSError, SyntaxError, ValueError) as error:
        raise _damaged(file, error) from error


def _decode(files: list[tuple[Path, int]], form: _Form) -> Arrays:
    width, height = form.size
    images = np.empty((len(files), len(form.mode), height, width), np.uint8)

    def fill(at: int) -> None:
        images[at] = _pixels(files[at][0], form)

    with ThreadPoolExecutor() as pool:  # decoding releases the interpreter
        list(pool.map(fill, range(len(files))))
    return Arrays(torch.from_numpy(images), torch.tensor([label for _, label in files]))


def _pixels(file: Path, form: _Form) -> NDArray[np.uint8]:
    """One image as (channels, height, width)."""
    PULSE.beat()
    try:
        with Image.open(file) as image:
            converted = image.convert(form.mode)
    except (OSError, SyntaxError, ValueError) as error:
        raise _damaged(file, error) from error
    if converted.size != form.size:
        converted = converted.resize(form.size, Image.Resampling.BILINEAR)
    pixels = np.asarray(converted)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _damaged(file: Path, error: Exception) -> DataError:
    return DataError(f"{file} cannot be read as an image ({error}): replace or remove it")
