"""Which source files a user's file consists of, found by reading its imports, without running it."""

from __future__ import annotations

import ast
from pathlib import Path


def source_files(file: Path) -> list[Path]:
    """Return `file` and the modules and packages beside it that it imports, directly or through each other, sorted.

    A file that imports by computed names (`import_module`, `__import__`) counts everything beside it: too much rather than too little.
    """
    folder = file.parent
    found: set[Path] = set()
    waiting = [file]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        found.add(current)
        text = current.read_bytes()
        if b"import_module" in text or b"__import__" in text:
            waiting += [*folder.glob("*.py"), *_packages(folder)]
        for name in _imported(text):
            waiting += [folder / f"{name}.py"] if (folder / f"{name}.py").is_file() else []
            waiting += (folder / name).rglob("*.py") if (folder / name / "__init__.py").is_file() else []
    return sorted(found)


def _imported(text: bytes) -> set[str]:
    """Top-level names of the modules a source imports; none where it does not parse (loading it tells why)."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError):
        return set()
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.partition(".")[0] for name in names}


def _packages(folder: Path) -> list[Path]:
    return [file for init in folder.glob("*/__init__.py") for file in init.parent.rglob("*.py")]
