"""The config loader survives anything: mutated configs end in a loaded config or in one message, never in another exception.

Example `k` of a level is made by `random.Random(f"{level} {k}")`, so every run sees the same ones. HPTUNE_FUZZ sets how many there
are (`HPTUNE_FUZZ=20000 pytest -s tests/faults/test_config_fuzz.py` also prints the slowest).
"""

import os
import random
import re
import shutil
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hostile import CONFIGS, KEYS, LINES, ODD, PLAIN, SCALARS, SOURCES, mutated_bytes, mutated_text, mutated_tree

from hptune.config.loader import LoadedConfig, dump_config, from_tree, load_config, with_value
from hptune.config.presets import preset_files
from hptune.errors import InputError

EXAMPLES = int(os.environ.get("HPTUNE_FUZZ", "500"))
LONGEST_MESSAGE = 3000
LINES_OF_A_MESSAGE = 3
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def from_file(folder: Path, content: bytes, overrides: list[str]) -> Callable[[], LoadedConfig]:
    (folder / "größe 1.yaml").write_bytes(content)
    return lambda: load_config(folder / "größe 1.yaml", overrides)


def example(level: str, number: int, folder: Path) -> Callable[[], LoadedConfig]:
    """What loads example `number` of a level."""
    rng = random.Random(f"{level} {number}")
    match level:
        case "bytes":
            return from_file(folder, mutated_bytes(rng), [])
        case "text":
            return from_file(folder, mutated_text(rng).encode("utf-8", "surrogatepass"), [])
        case "tree":
            tree = mutated_tree(rng)
            text = yaml.safe_dump(tree, allow_unicode=rng.random() < 0.5, default_flow_style=rng.choice((None, True, False)))
            return from_file(folder, text.encode("utf-8", "surrogatepass"), [])
        case "set":
            overrides = [f"{rng.choice(KEYS)}={rng.choice((*SCALARS, *LINES))}" for _ in range(rng.choice((1, 1, 2, 3)))]
            overrides += rng.sample(["", "=", "a", "=1", "a=", "seeds=3"], rng.choice((0, 0, 0, 1)))
            return from_file(folder, rng.choice(SOURCES).encode(), overrides)
        case "python":
            tree = mutated_tree(rng, odd=True)
            return lambda: from_tree(tree, folder)
        case _:
            key, value = rng.choice(KEYS), rng.choice(ODD)() if rng.random() < 0.5 else rng.choice(PLAIN)
            load = from_file(folder, rng.choice(SOURCES).encode(), [])
            return lambda: with_value(load(), key, value)


def complaint(load: Callable[[], LoadedConfig], folder: Path) -> str | None:
    """What is wrong with how loading ends; None for a loaded config that comes back from its file, and for one good message."""
    try:
        loaded = load()
    except InputError as error:
        return wrong_with(str(error)) if error.exit_status == 2 else f"ends with exit status {error.exit_status}"
    except Exception as error:
        return f"raised {type(error).__name__} at {origin(error)}: {str(error)[:60]}"
    try:
        (folder / "out").mkdir(exist_ok=True)
        (folder / "out" / "config.yaml").write_text(dump_config(loaded, folder / "out"), encoding="utf-8")
        again = load_config(folder / "out" / "config.yaml").experiment
    except Exception as error:
        return f"did not come back, {type(error).__name__} at {origin(error)}: {str(error)[-60:]}"
    return (
        None if repr(again) == repr(loaded.experiment) else "came back as another experiment"
    )  # nan differs from itself, its text does not


def origin(error: Exception) -> str:
    """The last function of ours that `error` came through."""
    return [frame.name for frame in traceback.extract_tb(error.__traceback__) if "hptune" in frame.filename][-1]


def wrong_with(message: str) -> str | None:
    if not message.strip():
        return "the message is empty"
    if len(message) > LONGEST_MESSAGE or message.count("\n") >= LINES_OF_A_MESSAGE:
        return f"the message is long: {len(message)} characters, {message[:80]!r}"
    return f"the message holds control characters: {message[:80]!r}" if CONTROL.search(message) else None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a space in its name and the files that the configs refer to."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    shutil.copy(CONFIGS / "custom.py", folder)
    for name, code in list(preset_files("custom").items())[1:]:
        (folder / name).write_text(code, encoding="utf-8")
    monkeypatch.setenv("HPTUNE_DATA", "/some data")
    monkeypatch.delenv("NOT_SET_AT_ALL", raising=False)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("level", ["bytes", "text", "tree", "set", "python", "value"])
def test_a_mutated_config_ends_in_a_config_or_in_one_message(folder: Path, level: str) -> None:
    complaints: dict[str, list[int]] = {}
    slowest = (0.0, -1)
    for number in range(-(-EXAMPLES // 6)):
        load = example(level, number, folder)
        ends: list[float] = []

        def timed(load: Callable[[], LoadedConfig] = load, ends: list[float] = ends) -> LoadedConfig:
            start = time.perf_counter()
            try:
                return load()
            finally:
                ends.append(time.perf_counter() - start)

        found = complaint(timed, folder)
        slowest = max(slowest, (ends[0], number))
        if found is not None:
            complaints.setdefault(found, []).append(number)
    print(f"{level}: {number + 1} configs, slowest {slowest[0]:.2f} s (number {slowest[1]})")
    assert not Path("pwned").exists()
    assert not complaints, "\n".join(f"{what} (numbers {numbers[:5]}, {len(numbers)} in all)" for what, numbers in complaints.items())
