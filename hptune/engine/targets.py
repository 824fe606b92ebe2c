"""The user's own code: loading `target:` names, calling them, and telling their mistakes from ours.

A target is `/absolute/file.py:name` or `package.module:name`. While a file loads, and from then on, its directory is importable, as
if it were run as a script. What is hashed for the identity of trials is what ran: a file, or a module beside it, that changed since
it was loaded is loaded again.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from hptune.engine.provenance import source_files
from hptune.errors import HptuneError, UserCodeError

LONGEST_MESSAGE = 600  # characters of the user's exception that are shown
_LIBRARIES = tuple(
    {str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {str(Path(__file__).resolve().parents[1]), str(Path(torch.__file__).resolve().parents[1])}
)
_SOURCE_OF: dict[str, str] = {}  # module name of a loaded file -> hash of the source it was loaded from


def load_target(target: str) -> Any:
    """Return the object that `target` names, loading its module where it is not loaded yet or has changed.

    Raises UserCodeError where there is no such file, module or name, or where loading raises.
    """
    where, _, name = target.rpartition(":")
    module = _load_file(Path(where), target) if _is_file(where) else _load_module(where, target)
    if not hasattr(module, name):
        names = [known for known in vars(module) if not known.startswith("_")]
        close = difflib.get_close_matches(name, names, n=1)
        hint = f": did you mean {close[0]!r}?" if close else f": it has {', '.join(sorted(names)[:10]) or 'no public names'}"
        raise UserCodeError(f"there is no {name!r} in {where}{hint}")
    return getattr(module, name)


def bind_target(target: str, args: Mapping[str, Any], *, positional: int = 0) -> Callable[..., Any]:
    """Return `target` as a callable of `positional` arguments, with the config's `args` filled in as keywords.

    Raises UserCodeError where it is not callable or its signature does not take these arguments.
    """
    function = load_target(target)
    if not callable(function):
        raise UserCodeError(f"{target} is a {type(function).__name__}, not a function or class that can be called")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have none: the call itself will tell
        return functools.partial(function, **args)
    try:
        signature.bind(*[None] * positional, **args)
    except TypeError as error:
        given = [f"{positional} positional"] * bool(positional) + [f"args {', '.join(args)}"] * bool(args)
        name = getattr(function, "__name__", "it")
        unknown = [key for key in args if key not in signature.parameters]
        close = difflib.get_close_matches(unknown[0], signature.parameters, n=1) if unknown else []
        message = f"{target} is called with {' and '.join(given) or 'no arguments'}, but its signature is "
        message += f"{name}{signature}: {error}" + (f" (did you mean {close[0]!r} by {unknown[0]!r}?)" if close else "")
        raise UserCodeError(message, where=definition(function)) from error
    return functools.partial(function, **args)


def call_target(target: str, args: Mapping[str, Any], *, what: str) -> Any:
    """Call `target` with `args`; `what` says what for ("loading the data")."""
    function = bind_target(target, args)
    with user_code(what, target):
        return function()


@contextmanager
def user_code(what: str, target: str) -> Iterator[None]:
    """Turn an exception inside the user's code into a UserCodeError that names its deepest line of theirs.

    HptuneErrors, interruption and lack of memory pass through: they are not mistakes of that code.
    """
    try:
        yield
    except (HptuneError, torch.OutOfMemoryError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        text = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
        text = text if len(text) <= LONGEST_MESSAGE else text[:LONGEST_MESSAGE] + " …"
        message = f"your code raised {type(error).__name__}{': ' if text else ''}{text}"
        raise UserCodeError(f"{message} ({what}, {target})", where=blamed_line(error)) from error


def blamed_line(error: BaseException) -> str | None:
    """`file:line` of the deepest frame in the user's own files, or None where there is no such frame."""
    if isinstance(error, SyntaxError) and error.filename and error.filename != "<unknown>":
        return f"{error.filename}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_users_file(frame.filename)]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None


def is_users_file(filename: str) -> bool:
    """Whether a source file is neither hptune's, nor the standard library's, nor an installed package's."""
    if filename.startswith("<"):
        return False
    path = Path(filename).resolve()
    return not any(path.is_relative_to(library) for library in _LIBRARIES) and "site-packages" not in path.parts


def definition(function: Any) -> str | None:
    """`file:line` where a function or class is defined, where Python can tell."""
    try:
        return f"{inspect.getsourcefile(function)}:{inspect.getsourcelines(function)[1]}"
    except (OSError, TypeError):
        return None


def source_hash(target: str) -> str:
    """SHA-256 (hexadecimal) of the source that `target` runs.

    For a file: it and the modules and packages beside it that it imports, directly or through each other. For a package of the
    user's: all its modules. For an installed package: its name and version.
    """
    where, _, _ = target.rpartition(":")
    if _is_file(where):
        return files_hash(source_files(Path(where)), Path(where).parent)
    module = _load_module(where, target)
    top = sys.modules[where.partition(".")[0]]
    origin = getattr(module, "__file__", None) or ""
    if not origin or not is_users_file(origin):  # what is built into Python has no file
        version = getattr(top, "__version__", "") or ".".join(map(str, sys.version_info[:3]))
        return hashlib.sha256(f"{where} {version}".encode()).hexdigest()
    roots = [Path(folder) for folder in getattr(top, "__path__", [])]
    files = [file for root in roots for file in sorted(root.rglob("*.py"))] or [Path(origin)]
    return files_hash(files, roots[0] if roots else Path(origin).parent)


def object_hash(value: object) -> str:
    """SHA-256 of where an object's class comes from: its name, and its file's content where the file is the user's."""
    kind = type(value)
    digest = hashlib.sha256(f"{kind.__module__}.{kind.__qualname__}".encode())
    try:
        file = inspect.getsourcefile(kind)
    except TypeError:  # defined where there is no file, as in a notebook
        file = None
    if file is not None and is_users_file(file) and Path(file).is_file():
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()


def files_hash(files: list[Path], root: Path) -> str:
    """SHA-256 of the files' paths below `root` and their content."""
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _is_file(where: str) -> bool:
    return where.endswith(".py") or "/" in where or "\\" in where


def _load_file(path: Path, target: str) -> ModuleType:
    """Load a file under a module name made from its path, so that files of one name in two folders do not clash."""
    if not path.is_file():
        raise UserCodeError(f"there is no file {path} (target {target})")
    path = path.resolve()
    name = f"hptune_user_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}_{path.stem}"
    files = source_files(path)
    source = files_hash(files, path.parent)
    if name in sys.modules and _SOURCE_OF[name] == source:
        return sys.modules[name]
    _forget_neighbours(path, reload=name in sys.modules)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        with user_code("loading its module", target):
            exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    _SOURCE_OF[name] = source
    return module


def _forget_neighbours(path: Path, *, reload: bool) -> None:
    """Drop loaded modules whose names the file would import from its own folder: another folder's, and on reloading its own."""
    importlib.invalidate_caches()
    for stem in {file.stem for file in path.parent.glob("*.py")} | {init.parent.name for init in path.parent.glob("*/__init__.py")}:
        file = getattr(sys.modules.get(stem), "__file__", None)
        if file is not None and is_users_file(file) and (reload or not Path(file).resolve().is_relative_to(path.parent)):
            for name in [name for name in sys.modules if name == stem or name.startswith(f"{stem}.")]:
                del sys.modules[name]


def _load_module(where: str, target: str) -> ModuleType:
    """Import a module by its dotted name; the current directory counts, as it does for `python -m`."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    with user_code("importing it", target):
        try:
            return importlib.import_module(where)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{where}.".startswith(f"{error.name}."):
                raise
            raise UserCodeError(
                f"there is no module {error.name!r} (target {target}): install it, or write path/to/file.py:name"
            ) from error
