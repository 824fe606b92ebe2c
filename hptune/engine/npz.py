"""Reading `.npz` archives, and only numbers from them: nothing is ever unpickled. Needs no torch."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hptune.errors import DataError, said_by

ZIP, NPY = (b"PK\3\4", b"PK\5\6"), b"\x93NUMPY"  # how an .npz (the second one empty) and an .npy begin
HOW_TO_WRITE = "write it with numpy.savez(path, x_train=…, y_train=…)"
OBJECTS = "Python objects (or rows of different length)"


Header = tuple[tuple[int, ...], np.dtype[Any]]
"""Shape and type of an array."""


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays by name. Whatever else the archive has as members (a note, say) is left out. Raises DataError."""
    with _archive(path) as held:
        read = {name: _read_array(held, name, path) for name in held.files}
    return {name: array for name, array in read.items() if isinstance(array, np.ndarray)}


def npz_headers(path: Path) -> dict[str, Header]:
    """Shape and type of the arrays by name, from their headers alone: no array is read, however large. Raises DataError."""
    with _archive(path) as held:
        found = {name: _header(held, name, path) for name in held.files}
    return {name: header for name, header in found.items() if header is not None}


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[Any]:
    """The open archive, as numpy gives it. Whatever goes wrong with it inside the block becomes a DataError that names `path`."""
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a header that Python 2 wrote
            start = file.read(len(NPY))
            if start == NPY:
                raise DataError(f"{path} is a single array, not an .npz: {HOW_TO_WRITE}")
            if not start.startswith(ZIP):  # NumPy would take it for a pickle, and advise to trust it
                raise DataError(f"{path} cannot be read as an .npz file (it does not begin as one): {HOW_TO_WRITE}")
            file.seek(0)
            held = np.load(file, allow_pickle=False)
            twice = [name for name, times in Counter(held.files).items() if times > 1]
            if twice:
                raise DataError(f"{path} holds several arrays under the name {names_shown(twice)}: {HOW_TO_WRITE}")
            yield held
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path} (data.path)") from error
    except Exception as error:  # damaged bytes can make zipfile, its decompressors and NumPy fail anywhere
        raise DataError(f"{path} cannot be read as an .npz file ({said_by(error)}): {HOW_TO_WRITE}") from error


def _header(held: Any, name: str, path: Path) -> Header | None:
    """None for a member that is no array. Raises DataError for objects."""
    member = name if name in held.zip.namelist() else f"{name}.npy"
    with held.zip.open(member) as file:
        if file.read(len(NPY)) != NPY:
            return None
    with held.zip.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(file)
    if kind.hasobject:
        raise DataError(f"{names_shown([name])} of {path} holds {OBJECTS}: save numbers in an array of one shape")
    return shape, kind


def _read_array(held: Mapping[str, Any], name: str, path: Path) -> Any:
    try:
        return held[name]
    except MemoryError as error:
        large = f"{names_shown([name])} of {path} does not fit into main memory, or its header is damaged"
        raise DataError(f"{large} ({said_by(error)}): {HOW_TO_WRITE}") from error
    except ValueError as error:
        if "Object arrays" in str(error):
            raise DataError(f"{names_shown([name])} of {path} holds {OBJECTS}: save numbers in an array of one shape") from error
        if "allow_pickle" in str(error):  # an advice to trust the file
            raise DataError(f"{names_shown([name])} of {path} has a header longer than is safe to read: {HOW_TO_WRITE}") from error
        raise


def names_shown(names: Iterable[str]) -> str:
    """Names as a message shows them: those in a damaged file can be long, many and unprintable."""
    shown = [repr(name)[1:-1][:40] for name in sorted(names)]
    return ", ".join(shown[:8]) + (", …" if len(shown) > 8 else "") or "nothing"
