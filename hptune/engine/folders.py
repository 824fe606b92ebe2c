"""How images lie in folders, one subfolder a class; and opening one of them. Needs no torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from hptune.errors import DataError, said_by

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""Pillow goes by content, not by name; among its other formats is one that is given to Ghostscript to run."""
PARTS = ("train", "val", "test")


def part_folders(root: Path) -> dict[str, Path]:
    """The folders of `train` and, where they are, `val` and `test`: below `root`, or `root` itself for train. Raises DataError."""
    if not root.is_dir():
        raise DataError(f"there is no folder {root}: data.root must hold one subfolder of images a class, or train/ and val/ with those")
    parts = {part: root / part for part in PARTS if _is_folder(root / part)}
    if not parts:
        return {"train": root}
    if "train" not in parts:
        raise DataError(f"{root} has {' and '.join(parts)} but no train folder: put the training images into {root / 'train'}")
    return parts


def class_folders(folder: Path) -> list[str]:
    """Names of the subfolders that stand for classes, sorted. Raises DataError where there are none."""
    names = sorted(child.name for child in folder.iterdir() if not child.name.startswith(".") and _is_folder(child))
    if not names:
        raise DataError(f"{folder} has no subfolders: give it one subfolder of images for each class")
    return names


def _is_folder(path: Path) -> bool:
    """Whether `path` is a folder. Raises DataError for a link that leads nowhere, which may stand for a class that is not there."""
    if path.is_symlink() and not path.exists():
        raise DataError(f"{path} is a link that leads nowhere: mend or remove it")
    return path.is_dir()


def image_files(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """The image files of one part with their class numbers, sorted by path."""
    found = []
    for name in class_folders(folder):
        if name not in classes:
            raise DataError(f"{folder / name} is a class that the training part does not have: its classes are {', '.join(classes[:10])}")
        images = sorted(file for file in (folder / name).rglob("*") if _is_image(file, folder / name))
        if not images:
            raise DataError(f"{folder / name} holds no images: put files such as .png or .jpg into it, or remove it")
        found += [(file, classes.index(name)) for file in images]
    return found


def _is_image(file: Path, folder: Path) -> bool:
    """Whether `file` is named like an image and not hidden, nor inside a hidden folder (editors keep copies in such)."""
    return file.suffix.lower() in EXTENSIONS and not any(name.startswith(".") for name in file.relative_to(folder).parts)


@contextlib.contextmanager
def opened(file: Path) -> Iterator[Image.Image]:
    """The image in `file`. Whatever goes wrong with it inside the block becomes a DataError that names it."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            yield image
    except Exception as error:  # damaged bytes can make a decoder fail anywhere, and each format has its own
        raise DataError(f"{file} cannot be read as an image ({said_by(error)}): replace or remove it") from error
