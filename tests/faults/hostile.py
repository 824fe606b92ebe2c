"""What configs, command lines and Python code may hold that a loader could stumble over, and mutations that put it into real configs."""

import collections
import copy
import datetime
import decimal
import enum
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hptune.config.presets import preset_files, preset_names

CONFIGS = Path(__file__).parents[2] / "configs"
SOURCES = [path.read_text(encoding="utf-8") for path in sorted(CONFIGS.glob("*.yaml"))]
SOURCES += [next(iter(preset_files(name).values())) for name in preset_names()]

BYTES = [
    b"\0", b"\xef\xbb\xbf", b"\t", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\xff", b"\x85", b"\r", b"\n", b"\x1b[2J", b":", b": ", b"- ", b"#",
    b"'", b'"', b"{", b"}", b"[", b"]", b",", b"&a ", b"*a", b"!", b"!!", b"%", b"@", b"|", b">", b"? ", b"\\", b"${",
    b"\xf0\x9f\x98\x80", b"\n---\n", b"\n...\n", b"x" * 5000, b"1" * 5000, b"[" * 2000, b"\n" * 2000, b" " * 2000,
]  # fmt: skip
"""What the first level puts between and over the bytes of a config."""

SCALARS = [
    "1" + "0" * 400, "1" + "0" * 5000, "-" + "9" * 310, "0x" + "f" * 5000, "1" * 3000 + "x", "." + "1" * 3000 + "e", "1e999", "-1e999",
    ".nan", ".inf", "-.inf", "-0.0", "0", "-1", "1e-320", "1_0_0", "0x1F", "0o17", "017", "1:30", "2024-01-01", "2024-01-01T00:00:00Z",
    "true", "off", "No", "", "~", "null", "''", '""', "!!python/object:os.system x", "!!python/object/apply:os.system ['touch pwned']",
    "!!python/name:os.system", "!!int x", "!!int '5'", "!!float 1", "!!str", "!!null x", "!!bool maybe", "!!set {a, b}", "!!binary aGk=",
    "!<tag:yaml.org,2002:map> {}", "!x!y z", "*a", "&a 1", "&a", "&a [*a]", "{<<: *a}", "{<<: {lr: 1}}", "<<: *a", "<<", "? ", "? [a]",
    "- ", "|", ">-", "---", "...", "%YAML 1.1", "@", "`", "${HOME}", "${NOT_SET_AT_ALL}", "${", "${}", "$${", "$${HOME}",
    "a${HPTUNE_DATA}b", "${HPTUNE_DATA}", "${A\nB}", "${" * 500, "x" * 3000, "x" * 100_000, "'" + "'' " * 5000 + "'", '"a\\0b"',
    '"a\\nb"', '"\\e[2J"', '"\\ud800"', '"\\UFFFFFFFF"', '"\\U00110000"', '"\\x"', '"\\uD83D\\uDE00"', "../../x", "/etc/passwd", "a/b",
    "..", ".", "CON", "con.txt", "LPT9", "~", "'~root/x'", "'~nobody-at-all/x.py:f'", '"~\\0/x.py:f"', "x.py:f", "/x/y.py:f",
    '"a\\0b.py:f"', "'" + "d/" * 3000 + "x.py:f'", "'" + "n" * 300 + ".py:f'", "a.b:c", ":", "a:", ":b", "./..:f", "'a b.py:load'",
    "custom.py:load", "👩‍👩‍👧", "שלום", "e\u0301" * 40, "𝒳" * 100, "n" * 101, "größe 1", "\u202egpj", "\u2028", "\x85", "\ufeff", "cuda:٣",
    "cuda:99999999999", "cuda:" + "9" * 500, "٣m", "9" * 400 + "m", "1.5h", "[]", "{}", "[[[[1]]]]", "[" * 40 + "]" * 40,
    "[" + "1," * 3000 + "]", "[" + "0.9," * 12_000 + "]", "{" + ", ".join(f"k{i}: {i}" for i in range(300)) + "}", "{a: {b: {c: 1}}}",
    "{name: x, args: {a: 1}}", "[{match: a}]",
]  # fmt: skip
"""What the second level puts where a value stands."""

LINES = [
    "? a\n: b", "<<: *a", "<<: {seeds: 3}", "<<: [{seeds: 3}, {seed: 1}]", "a: &a {lr: 0.1}", "b: *a", "'<on>': 1", "'<x': 1", "'': 1",
    "' ': 1", "'a.b': 1", "? " + "k" * 3000 + "\n: 1", "'k\\0': 1", '"k\\0": 1', '"k\\n": 1', "1: 2", "~: 1", "[a]: 1", "{a: b}: 1",
    "!!str a: b", "- a", "---", "...", "%YAML 1.1", "\t", " # c", "seeds: 3", "seeds: 3\nseeds: 4", "name: ../../x", "name: /tmp/x",
    "name: ''", "name: NUL", 'name: "a\\0b"', "stages: off", "stages: {lr_range: {}}", "data:", "model:", "hyperparameters: {lr: 1}",
    "step: {}", "step: {target: 'a:b'}", "metric: {mode: min}", "optimizer: {groups: [{}]}",
]  # fmt: skip
"""What the second level puts between the lines of a config."""

HEADS = [
    "%YAML 1.1\n---\n",
    f"%YAML 1.{'9' * 5000}\n---\n",
    "%TAG ! tag:x,2000:\n---\n",
    "---\n",
    "\ufeff",
    "# \u2028\n",
    "a: &a {lr: 0.1}\n",
    "--- {}\n--- {}\n",
]


class Colour(enum.StrEnum):
    """A text that is not exactly a `str`."""

    RED = "red"


class Size(enum.IntEnum):
    """A number that is not exactly an `int`."""

    BIG = 64


class BytesPath:
    """A path whose text is bytes."""

    def __fspath__(self) -> bytes:
        return b"x\xff.npz"


def nested(depth: int, inside: Any = 1) -> Any:
    for level in range(depth):
        inside = [inside] if level % 2 else {"k": inside}
    return inside


def endless() -> list[Any]:
    items: list[Any] = [1]
    items.append(items)
    return items


PLAIN: list[Any] = [
    None, True, False, 0, 1, -1, 7, 0.5, -0.0, 1e300, float("inf"), float("nan"), 10**400, 10**310, 2**63, "", " ", "x", "off", "1e5",
    "10", "~", "<<", "${", "$${", "${HOME}", "${NOT_SET_AT_ALL}", "a\0b", "a\nb", "\ud800", "\udcff", "😀" * 90, "x" * 200_000,
    "'" * 60_000, "../..", "a" * 260 + ".py:f", [], {}, [[]], {"": 1}, {"a.b": {"c": 1}}, {"name": "digits"},
    {"target": "custom.py:load"}, {"group": "a"}, {"<on>": 1}, [1, "a", None], [0.9] * 4000, list(range(9000)),
    {f"k{i}": i for i in range(500)}, {"k" * 5000: 1}, {"k\0\n\x1b": 1}, {"\ud800": 1}, [{"match": "a"}], ["x" * 300] * 2000,
]  # fmt: skip
"""Plain values: what the third level puts in the place of any part of a config, and what Python code may give."""

ODD: list[Callable[[], Any]] = [
    lambda: 10**5000, lambda: -(10**4400), lambda: nested(25), lambda: nested(60), lambda: nested(20_000), endless,
    lambda: {1: 2, None: 3, (1, 2): 4}, lambda: {1, 2}, lambda: b"bytes", object, lambda: int, lambda: print, lambda: Path("a b.npz"),
    lambda: Path("a\0b"), lambda: Path("/"), BytesPath, lambda: Colour.RED, lambda: Size.BIG, lambda: np.float32(0.1),
    lambda: np.int64(3), lambda: np.bool_(True), lambda: np.str_("x"), lambda: np.array(3), lambda: np.array([1, 2]),
    lambda: np.datetime64("2024"), lambda: np.float64("nan"), lambda: decimal.Decimal(1), lambda: 1j, lambda: datetime.date(2024, 1, 1),
    lambda: (1, 2), lambda: (i for i in "ab"), lambda: collections.OrderedDict(a=1), lambda: collections.UserDict(a=1),
    lambda: collections.UserString("x"),
]  # fmt: skip
"""What only Python code can give."""

KEYS = [
    "", ".", "..", "a..b", " ", "a", "a" * 10_000, ".".join("a" * 3000), "stages.0", "stages", "stages.momentum.values.0",
    "stages.momentum.values." + "9" * 5000, "stages.momentum.values.٠", "stages.momentum.values.-1", "stages.momentum.values.²",
    "data.name.x", "data", "data.args", "data.args.x.y.z", "model", "model.name", "model.args.a b", "name", "name.x", "seed",
    "baseline.lr", "baseline.learning_rate", "optimizer.groups.0.match", "optimizer.groups", "budget.search", "loss.args.x", "a\0b",
    "a\nb", "\x1b[2J", "\ud800", "<on>", "data.<x", "stages.<off>", "ünï.cödé", "hyperparameters.lr", "device", "executor.workers",
    " seeds ", "metric.target",
]  # fmt: skip
"""Keys for `--set` and `with_value`."""


def mutated_bytes(rng: random.Random) -> bytes:
    """A config with bytes flipped, inserted, deleted, doubled, or cut off."""
    data = bytearray(rng.choice(SOURCES).encode())
    for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 2, 10, 100)))
        match rng.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at:at] = rng.choice(BYTES)
            case 2:
                del data[at:end]
            case 3:
                data[at:at] = data[at:end] * rng.choice((1, 2, 50))
            case 4:
                data[at:end] = rng.choice(BYTES)
            case 5 if rng.random() < 0.2:
                del data[at:]
    return bytes(data)


def mutated_text(rng: random.Random) -> str:
    """A config with values, lines or its head replaced by what YAML, Python or file systems may stumble over."""
    text = rng.choice(SOURCES)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        match rng.randrange(5):
            case 0 | 1 | 2:
                spans = [match.span(1) for match in re.finditer(r"[:\[,]\s+([^\s,{}\[\]#:]+)", text)] or [(0, 0)]
                start, end = rng.choice(spans)
                text = text[:start] + rng.choice(SCALARS) + text[end:]
            case 3:
                lines = text.split("\n")
                lines.insert(rng.randrange(len(lines) + 1), rng.choice(("", "", "  ")) + rng.choice(LINES))
                text = "\n".join(lines)
            case 4 if rng.random() < 0.3:
                text = rng.choice(HEADS) + text
    return text


def mutated_tree(rng: random.Random, odd: bool = False) -> Any:
    """A config as a tree, some parts replaced, dropped, renamed or wrapped; `odd`: also by what no file can hold."""
    tree = yaml.safe_load(rng.choice(SOURCES))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = list(containers(tree))
        if not places:
            return tree
        place = rng.choice(places)
        slot = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        match rng.randrange(6):
            case 0 | 1 | 2:
                place[slot] = rng.choice(ODD)() if odd and rng.random() < 0.5 else copy.deepcopy(rng.choice(PLAIN))
            case 3:
                del place[slot]
            case 4 if isinstance(place, dict):
                place[near_miss(rng, str(slot))] = place[slot]
                if rng.random() < 0.5:
                    del place[slot]
            case 5:
                place[slot] = nested(rng.choice((1, 2, 10, 28, 40)), place[slot])
    return tree


def containers(tree: Any) -> list[Any]:
    """The lists and mappings of `tree` that hold something."""
    found, ahead = [], [tree]
    while ahead and len(found) < 100:
        value = ahead.pop(0)
        if isinstance(value, dict | list) and value:
            found.append(value)
            ahead += list(value.values()) if isinstance(value, dict) else value
    return found


def near_miss(rng: random.Random, key: str) -> str:
    at = rng.randrange(len(key) + 1)
    return rng.choice(
        (key[:at] + key[at + 1 :], key[:at] + rng.choice("ax_. \0\n<ü") + key[at:], key.upper(), key * 30, f"<{key}", f"{key}.")
    )
