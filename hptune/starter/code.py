"""What a Python file holds that a config could name: models, data functions, losses, metrics. The file is read, never run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hptune.config.fields import suggestion
from hptune.errors import InputError, said_by

Role = Literal["model", "data", "loss", "metric"]
LONGEST_SOURCE = 60  # characters of a default or an annotation that are shown
MAKES_MODEL = re.compile(r"(^|_)(model|net|network|classifier|regressor)s?$|^(make|build|create|get)_?(model|net)", re.IGNORECASE)
MAKES_DATA = re.compile(r"(^|_)(data|datasets?|splits?|arrays|samples)($|_)|^load$|^(load|get|make|read|prepare)_?data", re.IGNORECASE)
MAKES_LOADERS = re.compile(r"loaders?($|_)", re.IGNORECASE)
IS_LOSS = re.compile(r"loss|criterion", re.IGNORECASE)
IS_METRIC = re.compile(r"acc(uracy)?($|_)|metric|error|score|(^|_)(f1|auc|iou|dice|r2|mae|rmse|explained)($|_)", re.IGNORECASE)
MODULES = re.compile(r"(Module|Sequential|PreTrainedModel)$")
RUNS_TRAINING = re.compile(r"^(main|train|fit|run)\w*$")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter that a config can give: its annotation and default as they stand in the source, None where there is none."""

    name: str
    annotation: str | None
    default: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A name of the module: where it stands, what calling it takes. `parameters` are None where the source does not tell."""

    name: str
    line: int
    kind: Literal["class", "function", "value", "import"]
    parameters: tuple[Parameter, ...] | None = None
    role: Role | None = None
    sure: bool = True

    @property
    def needed(self) -> tuple[Parameter, ...]:
        """The parameters without a default."""
        return tuple(parameter for parameter in self.parameters or () if parameter.default is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A file as read: its names in the order they stand, whether more may come from elsewhere (`import *`), and what running it does.

    `runs`: line and source of what looks like a training that starts when the file is imported.
    """

    file: Path
    tree: ast.Module
    definitions: dict[str, Definition]
    open_ended: bool
    runs: tuple[int, str] | None

    def named(self, name: str) -> Definition | None:
        """The definition of `name`; None where it may come from an `import *`. Raises InputError where the file has no such name."""
        if name in self.definitions or self.open_ended:
            return self.definitions.get(name)
        public = [known for known in self.definitions if not known.startswith("_")]
        own = [known for known in public if self.definitions[known].kind != "import"]
        hint = suggestion(name, public) or f": it has {', '.join(own[:10]) or 'no names of its own'}"
        raise InputError(f"there is no {name!r} in {self.file}{hint}")

    def of_role(self, role: Role) -> list[Definition]:
        """What looks like a `role`: those that surely do, or else those that may."""
        found = [each for each in self.definitions.values() if each.role == role]
        return [each for each in found if each.sure] or found


def read_code(file: Path) -> Code:
    """Read the Python file. Raises InputError where there is none, or where it is not Python."""
    try:
        tree = ast.parse(file.read_bytes(), filename=str(file))
    except FileNotFoundError:
        near = suggestion(file.name, [path.name for path in sorted(file.parent.glob("*.py"))])
        raise InputError(f"there is no file {file}{near}") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    except SyntaxError as error:
        raise InputError(f"{file}:{error.lineno}: not Python: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes, nesting beyond the parser's limit
        raise InputError(f"{file}: not Python: {said_by(error)}") from error
    reader = _Reader(tree)
    return Code(
        file=file,
        tree=tree,
        definitions={each.name: each for each in reader.definitions()},
        open_ended=any(alias.name == "*" for node in reader.body if isinstance(node, ast.ImportFrom) for alias in node.names),
        runs=next(reader.running(), None),
    )


class _Reader:
    """Judges each name of a module by what can be seen of it."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.body = list(_statements(tree.body))
        self.classes = {node.name: node for node in self.body if isinstance(node, ast.ClassDef)}
        self.modules = {name for name in self.classes if self._is_module(name)}
        inside = [node for name in self.modules for part in self.classes[name].body for node in ast.walk(part)]
        self.blocks = {node.id for node in inside if isinstance(node, ast.Name)} & self.modules  # parts of another network

    def definitions(self) -> Iterator[Definition]:
        """One for each name, the last where a name is given several times."""
        for node in self.body:
            if isinstance(node, ast.ClassDef):
                yield self._class(node)
            elif isinstance(node, ast.FunctionDef):
                yield self._function(node)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    name = alias.asname or (alias.name.partition(".")[0] if isinstance(node, ast.Import) else alias.name)
                    yield Definition(name=name, line=node.lineno, kind="import")
            elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    yield from self._value(target, node.value)

    def running(self) -> Iterator[tuple[int, str]]:
        """What looks like a training at module level: a loop that goes backward, or a call of main, train, fit and the like."""
        for node in self.body:
            called = node.value.func if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else None
            if called is not None and RUNS_TRAINING.match(_last(called)):
                yield node.lineno, ast.unparse(node)
            elif isinstance(node, ast.For | ast.While) and any(_last(call.func) == "backward" for call in _calls(node)):
                yield node.lineno, ast.unparse(node).splitlines()[0]

    def _class(self, node: ast.ClassDef) -> Definition:
        role: Role | None = None
        if node.name in self.modules:
            role = "loss" if IS_LOSS.search(node.name) else "model"
        sure = node.name not in self.blocks
        return Definition(name=node.name, line=node.lineno, kind="class", parameters=self._constructor(node.name), role=role, sure=sure)

    def _function(self, node: ast.FunctionDef) -> Definition:
        role, sure = self._role(node)
        return Definition(name=node.name, line=node.lineno, kind="function", parameters=_parameters(node.args), role=role, sure=sure)

    def _role(self, node: ast.FunctionDef) -> tuple[Role | None, bool]:
        """What a function is by its name, its annotation and what it returns."""
        name, returned = node.name, [each.value for each in _own_nodes(node) if isinstance(each, ast.Return) and each.value is not None]
        if name.startswith("_") or RUNS_TRAINING.match(name):
            return None, False
        positional = len(node.args.posonlyargs) + len(node.args.args) - len(node.args.defaults)
        annotated = _last(node.returns) if node.returns is not None else ""
        if annotated in self.modules or annotated == "Module" or (returned and all(self._makes_module(value) for value in returned)):
            return "model", True
        if positional == 2 and IS_LOSS.search(name):
            return "loss", True
        if positional == 2 and IS_METRIC.search(name):
            return "metric", True
        parts = any(isinstance(value, ast.Tuple) and len(value.elts) in (2, 3) for value in returned)
        if MAKES_DATA.search(name) and not MAKES_LOADERS.search(name) and returned:
            return "data", parts
        return ("model", False) if MAKES_MODEL.search(name) else (None, False)

    def _value(self, target: ast.expr, value: ast.expr) -> Iterator[Definition]:
        for name in [each.id for each in ast.walk(target) if isinstance(each, ast.Name)]:
            role: Role | None = "model" if isinstance(target, ast.Name) and self._makes_module(value) else None
            yield Definition(name=name, line=target.lineno, kind="value", role=role, sure=False)

    def _makes_module(self, value: ast.expr) -> bool:
        """Whether an expression is a network by its own words: `Net(…)`, `nn.Sequential(…)`."""
        return isinstance(value, ast.Call) and (_last(value.func) in self.modules or _last(value.func) == "Sequential")

    def _is_module(self, name: str, seen: frozenset[str] = frozenset()) -> bool:
        node = self.classes.get(name)
        if node is None:
            return bool(MODULES.search(name))
        return name not in seen and any(self._is_module(_last(base), seen | {name}) for base in node.bases)

    def _constructor(self, name: str, seen: frozenset[str] = frozenset()) -> tuple[Parameter, ...] | None:
        """The parameters of the first `__init__` among a class and its bases in this file; none for a plain nn.Module."""
        node = self.classes.get(name)
        if node is None or name in seen:
            return () if name == "Module" else None
        made = next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None)
        if made is not None:
            return _parameters(made.args)[1:]
        return self._constructor(_last(node.bases[0]), seen | {name}) if node.bases else ()


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run on import, also those under `if`, `try` and `with`; not under `if __name__ == "__main__"`."""
    for node in body:
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
            yield from _statements(node.orelse)
            continue
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With):
            parts = [node.body, *(getattr(node, name, []) for name in ("orelse", "finalbody"))]
            parts += [handler.body for handler in getattr(node, "handlers", [])]
            for part in parts:
                yield from _statements(part)


def _parameters(args: ast.arguments) -> tuple[Parameter, ...]:
    """What can be given by name, in order; `*args` and `**kwargs` are left out."""
    plain = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(plain) - len(args.defaults)) + list(args.defaults)
    pairs = [*zip(plain, defaults, strict=True), *zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    return tuple(Parameter(arg.arg, _source(arg.annotation), _source(default)) for arg, default in pairs)


def _source(node: ast.expr | None) -> str | None:
    if node is None:
        return None
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= LONGEST_SOURCE else "…"


def _own_nodes(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """The nodes of a function, those of functions inside it left out."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    return (each for each in ast.walk(node) if isinstance(each, ast.Call))


def _last(node: ast.expr) -> str:
    """The last word of a dotted name: `Module` of `nn.Module`, also where it is quoted or subscripted."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.rpartition(".")[2]
    if isinstance(node, ast.Subscript):
        return _last(node.value)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
