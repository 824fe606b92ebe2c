"""Writing a resolved config as YAML that any reader takes for the same values."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import yaml

from hptune.confidential import as_variables
from hptune.config.expansion import escape, has_variable
from hptune.config.fields import Section
from hptune.config.reading import NUMBERS, TAG
from hptune.config.tree import Tree

WIDTH = 120
PLAIN = re.compile(r"[A-Za-z_./~][\w./:~+-]*[\w/]")


class _Dumper(yaml.SafeDumper):
    """Quotes also the texts that only our reader takes for numbers, such as `1e5`."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Text with the rarer line breaks goes in double quotes, where they are escaped: elsewhere PyYAML folds them."""
        return self.represent_scalar(f"{TAG}str", data, style='"' if re.search("[\x85\u2028\u2029]", data) else None)


_Dumper.add_representer(str, _Dumper.represent_str)
for _tag, _form, _first in NUMBERS:
    _Dumper.add_implicit_resolver(TAG + _tag, _form, list(_first))


def to_yaml(tree: Tree, comments: Sequence[str] = ()) -> str:
    """Return `tree` as YAML in its own key order, innermost blocks on one line, after `comments` as lines with `#`.

    Floats are written with the digits that give exactly the same float back.
    """
    lines = [line for comment in comments for line in comment.splitlines() or [""]]
    head = "".join(f"# {line}".rstrip() + "\n" for line in lines)
    return head + yaml.dump(tree, Dumper=_Dumper, default_flow_style=None, sort_keys=False, allow_unicode=True, width=WIDTH)


def inline(value: Any) -> str:
    """Return `value` as YAML on one line, numbers as short as they can be said: `{hidden: [64, 64], lr: 1e-3}`."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{inline(key)}: {inline(inside)}" for key, inside in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(inline, value)) + "]"
    if isinstance(value, float):
        return _short(value)
    if isinstance(value, str) and PLAIN.fullmatch(value):  # PyYAML quotes every colon, though one inside a word needs none
        without = value.replace(":", "")
        return value if _flow(without) == without else _flow(value)
    return _flow(value)


def _flow(value: Any) -> str:
    return yaml.dump([value], Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=10**9).strip()[1:-1]


def _short(value: float) -> str:
    text = min((f"{value:g}", re.sub(r"\.?0*e\+?(-?)0*", r"e\1", f"{value:e}")), key=len)
    return text if float(text) == value else repr(value)


def as_written(resolved: Any, raw: Any) -> Any:
    """Return plain values that expand to `resolved`: a text in which `raw` has a variable stays as it was written.

    A secret that the shell has put in already (`--set data.args.token=$TOKEN`) goes back to its variable.
    """
    if isinstance(raw, str) and has_variable(raw):
        return raw
    if isinstance(resolved, dict):
        return {key: as_written(value, raw.get(key) if isinstance(raw, dict) else None) for key, value in resolved.items()}
    if isinstance(resolved, list):
        same = isinstance(raw, list) and len(raw) == len(resolved)
        return [as_written(value, raw[i] if same else None) for i, value in enumerate(resolved)]
    return as_variables(escape(resolved), os.environ) if isinstance(resolved, str) else resolved


def shortened(component: Section) -> Any:
    """A component with what does not apply left out; the plain name where there is nothing else to say."""
    block = {key: value for key, value in component.model_dump().items() if value is not None and not (key == "args" and not value)}
    return block["name"] if set(block) == {"name"} else block
