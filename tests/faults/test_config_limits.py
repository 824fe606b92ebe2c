"""What a config may hold and how large it may be: refused by rule, with one short message, never by running out of time or memory."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hostile import Colour, Size

from hptune.config.loader import dump_config, from_tree, load_config, parse_values, with_value
from hptune.config.reading import NUMBERS, read_yaml
from hptune.errors import ConfigError

HEAD = "data: {name: digits}\n"
MINIMAL = HEAD + "model: mlp\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a space in its name."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def loaded_args(value: str) -> Any:
    """What a model's argument `x` is when the config says `x: value`; it must come back from the config as it is written out."""
    Path("c.yaml").write_text(f"{HEAD}model:\n  name: mlp\n  args:\n    x: {value}\n", encoding="utf-8")
    loaded = load_config("c.yaml")
    Path("out").mkdir(exist_ok=True)
    Path("out/c.yaml").write_text(dump_config(loaded, Path("out")), encoding="utf-8")
    assert load_config("out/c.yaml").experiment == loaded.experiment
    return loaded.experiment.model.args["x"]


def message(text: str, *overrides: str) -> str:
    Path("c.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_config("c.yaml", overrides)
    words = str(error.value)
    assert "\n" not in words
    assert len(words) < 1000
    return words


def python_message(args: Any) -> str:
    with pytest.raises(ConfigError) as error:
        from_tree({"data": {"name": "digits"}, "model": {"name": "mlp", "args": args}}, Path())
    return str(error.value)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="a device of Unix")
def test_a_device_that_never_ends_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^/dev/zero: has more than 200,000 bytes: is it a config file\?$"):
        load_config("/dev/zero")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Unix has them")
def test_a_pipe_is_read_to_its_end() -> None:
    os.mkfifo("pipe.yaml")
    long = MINIMAL + "# a comment\n" * 10_000  # more than a pipe holds at a time
    writer = threading.Thread(target=lambda: Path("pipe.yaml").write_text(long))
    writer.start()
    assert load_config("pipe.yaml").experiment.name == "pipe"
    writer.join()


def test_a_config_of_reasonable_size_loads_and_comes_back() -> None:
    assert loaded_args(f"[{'0.123456, ' * 4000}]") == [0.123456] * 4000
    assert loaded_args(f"'{'word ' * 10_000}'") == "word " * 10_000
    assert len(loaded_args("\n" + "".join(f"      - [{i}, [a, [b]]]\n" for i in range(600)))) == 600


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (MINIMAL + "#" * 200_000, "c.yaml: has more than 200,000 bytes"),
        (f"a: [{'[],' * 30_000}]", "c.yaml:1: broken YAML: more than 5,000 keys and values"),
        (f"{MINIMAL}z: [{'1,' * 5_200}]", "c.yaml:3: z.4991: the config has more than 5,000 keys and values"),
        (f"{MINIMAL}z: &a {'x' * 10_000}\ny: [{'*a,' * 100}]", "written out, the config takes more than 180,000 bytes"),
        (MINIMAL + 'z: "' + "x" * 100_000 + '"', "c.yaml:3: z: written out, the config takes more than 180,000 bytes"),
        (f"? {'k' * 1000}\n: 1", "c.yaml:1: a key has at most 200 characters, not 1,000"),
        (f"{MINIMAL}z: {'9' * 301}", "c.yaml:3: '99999999999999999999 … 99999999999999999999' cannot be read as !!int"),
        (f"{MINIMAL}z: 0x{'f' * 290}", "c.yaml:3: z: a number has at most 300 digits"),
        (f"{MINIMAL}z: &a {'1' * 50_000}.\ny: [{'*a,' * 4000}]", "cannot be read as !!float"),
        ('a: "\\UFFFFFFFF"', "c.yaml:1: broken YAML: an escaped character or a version that does not exist"),
        ('\na: "\\U00110000"', "c.yaml:2: broken YAML: an escaped character"),
        (f"%YAML 1.{'1' * 5000}\n---\na: 1", "c.yaml:1: broken YAML: an escaped character or a version"),
        (MINIMAL + 'z: "\\ud800"', r"c.yaml:3: z: '\ud800' is no Unicode text"),
        (f"a: *{'b' * 10_000}", "c.yaml:1: broken YAML: found undefined alias"),
        (f"a: !{'b' * 10_000} c", "c.yaml:1: the tag !bbb"),
    ],
)
def test_what_is_too_large_or_no_text_is_refused_with_its_line(text: str, words: str) -> None:
    assert words in message(text)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"loss: {'x' * 10_000}", "c.yaml:3: loss: unknown name 'xxx"),
        (f"seeds: {'x' * 10_000}", "c.yaml:3: seeds: needs a whole number, got the text 'xxx"),
        (f"seeds: {'9' * 300}", "c.yaml:3: seeds: must be at most 1,000, got 999"),
        (f"data: {{name: digits, augment: [{'x' * 10_000}]}}", "c.yaml:3: data.augment: unknown augmentation 'xxx"),
        (f"step: {{target: {'x' * 10_000}}}", "c.yaml:3: step.target: 'xxx"),
        (f"step: {{target: '{'x' * 10_000}.py:f'}}", "is no path that a file system takes"),
        (f"step: {{target: '{'x/' * 5_000}y.py:f'}}", "is no path that a file system takes"),
        (f"rank_by: ${{{'X' * 10_000}}}", "c.yaml:3: rank_by: the environment variable XXX"),
        (f"rank_by: ${{{'-' * 10_000}}}", "c.yaml:3: rank_by: '${---"),
        (f"{'k' * 200}: 1", "c.yaml:3: kkk"),
        (f"stages: {{weight_decay: {{values: {2 * list(range(2000))}}}}}", "the values repeat themselves: 0.0, 1.0, 2.0"),
        ('"k\\n\\e[2J": 1', r"c.yaml:3: k\n\x1b[2J: unknown key 'k\n\x1b[2J'"),
        ('loss: "\\e[2J"', r"c.yaml:3: loss: unknown name '\x1b[2J'"),
        ("'<x': 1", "c.yaml:3: <x: unknown key '<x'"),
        ("'<on>': 1", "c.yaml:3: <on>: unknown key '<on>'"),
        ("stages: {refine: {'<on>': 1}}", "c.yaml:3: stages.refine.<on>: unknown key '<on>'"),
        ("budget: {search: 99999999999h}", "c.yaml:3: budget.search: needs short runs (16) or wall time"),
        ("budget: {search: ٣m}", "c.yaml:3: budget.search: needs short runs (16) or wall time"),
        ("device: cuda:٣", "c.yaml:3: device: needs auto, cpu, cuda, cuda:N or mps"),
        ("device: cuda:999", "c.yaml:3: device: needs auto, cpu, cuda, cuda:N or mps"),
    ],
)
def test_messages_are_short_and_printable(line: str, words: str) -> None:
    assert words in message(("#\nmodel: mlp\n" if line.startswith("data") else MINIMAL) + line)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (f"{'a' * 10_000}=1", "--set: aaa"),
        (f"{'a.' * 10_000}a=1", "--set: a.a.a"),
        (f"{'a' * 10_000}", "--set: needs key.path=value, such as baseline.lr=0.05, got 'aaa"),
        (f"a..{'b' * 10_000}=1", "is no key: write names joined by dots"),
        (f"stages.momentum.values.{'9' * 5000}=1", "there is no item 99999999999999999999 … "),
        ("stages.momentum.values.٠=1", "there is no item ٠: the list has 1 item, counted from 0"),
        (f"model.args.{'a.' * 20}a={'[' * 20 + ']' * 20}", "nested deeper than 30 levels"),
        ("\ud800=1", r"--set: \ud800: '\ud800' is no Unicode text"),
    ],
)
def test_hostile_overrides(override: str, words: str) -> None:
    assert words in message(MINIMAL + "stages: {momentum: {values: [0.9]}}\n", override)


def test_many_overrides_together_keep_the_limits() -> None:
    assert "more than 5,000 keys and values" in message(MINIMAL, *(f"model.args.a{i}=[{'1,' * 2000}]" for i in range(3)))


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ("data: {name: mnist, root: ''}\nmodel: mlp", "c.yaml:1: data.root: must not be empty"),
        ("data: {name: arrays, path: ''}\nmodel: mlp", "c.yaml:1: data.path: must not be empty"),
        (HEAD + "model: {name: mlp, pretrained: ''}", "c.yaml:2: model.pretrained: must not be empty"),
        ('data: {name: arrays, path: "a\\0b"}\nmodel: mlp', r"c.yaml:1: data.path: 'a\x00b' is no path that a file system takes"),
        ('data: {name: arrays, path: "~\\0"}\nmodel: mlp', r"c.yaml:1: data.path: '~\x00' is no path that a file system takes"),
        (f"data: {{name: mnist, root: {'x' * 256}}}\nmodel: mlp", "x' is no path that a file system takes"),
        (f"data: {{name: mnist, root: {'x/' * 2100}}}\nmodel: mlp", "x' is no path that a file system takes"),
        ('data: {target: "a\\0b.py:f"}\nmodel: mlp', r"c.yaml:1: data.target: 'a\x00b.py:f' is no path that a file system takes"),
    ],
)
def test_paths_that_no_file_system_takes(block: str, words: str) -> None:
    assert words in message(block)


def test_number_forms_try_no_text_twice() -> None:
    """A form with two ways to split digits tries them all: hours for these texts, which end in no number."""
    for text in ("1" * 200_000 + "x", "1_" * 100_000 + ".x", "." + "1" * 200_000 + "x", "1." + "1" * 200_000 + "ex"):
        assert [tag for tag, form, _ in NUMBERS if form.match(text)] == []
    assert [read_yaml(text, str).value for text in ("1_0.5_0", "1.", ".5", "1e3", "1.e-3")] == [10.5, 1.0, 0.5, 1000.0, 1e-3]


def test_names_of_config_files_that_are_no_names() -> None:
    for path, words in [("a\0b.yaml", r"a\\x00b\.yaml: is no name of a file"), ("n" * 300, r"nnn.*: cannot be read: File name too long")]:
        with pytest.raises(ConfigError, match=f"^{words}$"):
            load_config(path)


@pytest.mark.skipif(os.name != "posix" or os.uname().sysname == "Darwin", reason="file systems that take any bytes")
def test_file_names_that_are_not_utf8() -> None:
    folder = Path(os.fsdecode(b"f\xff"))
    folder.mkdir()
    (folder / os.fsdecode(b"c\xff.yaml")).write_text(MINIMAL)
    loaded = load_config(folder / os.fsdecode(b"c\xff.yaml"))
    assert loaded.experiment.name == "c-"
    assert "name: c-\n" in dump_config(loaded, folder)
    (folder / "mine.py").write_text("")
    (folder / "c.yaml").write_text(HEAD + "model: {target: 'mine.py:Net'}\n")
    text = dump_config(load_config(folder / "c.yaml"), folder)
    assert "mine.py:Net" in text
    assert "udcff" not in text.lower()
    (folder / "c.yaml").write_text(HEAD + "model: {target: 'min.py:Net'}\n")
    with pytest.raises(ConfigError, match=r"^f\\udcff/c\.yaml:2: model\.target: there is no file min\.py in .*/f\\udcff: did you mean"):
        load_config(folder / "c.yaml")


def test_variables_keep_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("H_LONG", "x" * 50_000)
    monkeypatch.setenv("H_BYTES", os.fsdecode(b"\xff"))
    monkeypatch.setenv("H_DIGITS", "9" * 299 + "0" * 2)
    assert "takes more than 180,000 bytes" in message(MINIMAL + "z:\n" + "- ${H_LONG}\n" * 4)
    assert r"c.yaml:3: z: '\udcff' is no Unicode text" in message(MINIMAL + "z: ${H_BYTES}")
    assert "c.yaml:3: seeds: needs a whole number, got the text '999" in message(MINIMAL + "seeds: ${H_DIGITS}")


class TextAsBytes:
    """A path whose text is bytes, of UTF-8 characters."""

    def __fspath__(self) -> bytes:
        return b"x.npz"


def test_values_from_python_become_exactly_what_yaml_knows() -> None:
    given = {"a": Colour.RED, "b": Size.BIG, "c": TextAsBytes(), 1: True}
    loaded = from_tree({"data": {"name": "digits"}, "model": {"name": "mlp", "args": given}}, Path())
    assert loaded.experiment.model.args == {"a": "red", "b": 64, "c": "x.npz", "1": True}
    assert {type(value) for value in loaded.experiment.model.args.values()} == {str, int, bool}
    assert "{a: red, b: 64, c: x.npz, '1': true}" in dump_config(loaded, Path())


def test_values_from_python_that_no_file_holds() -> None:
    endless: list[Any] = []
    endless.append(endless)
    bomb: Any = [1]
    for _ in range(25):
        bomb = [bomb] * 10
    for args, words in [
        ({"x": 10**5000}, "model.args.x: a number has at most 300 digits"),
        ({10**5000: 1}, "model.args: a number has at most 300 digits"),
        ({"x": endless}, "nested deeper than 30 levels"),
        ({"x": bomb}, "written out, the config takes more than 180,000 bytes"),
        ({(1, 2): 1}, "model.args: a key must be text, not a tuple"),
        ({"k" * 300: 1}, "a key has at most 200 characters, not 300"),
        ({"x": "\ud800"}, r"model.args.x: '\ud800' is no Unicode text"),
        ({"x": b"a"}, "model.args.x: a config holds text, numbers, lists and mappings, not a bytes"),
    ]:
        assert words in python_message(args)


def test_the_deepest_config_comes_back() -> None:
    value: Any = 1
    for _ in range(26):  # inside the config, its model and its args
        value = [value]
    assert loaded_args(str(value)) == value
    assert "nested deeper than 30 levels" in python_message({"x": [value]})
    assert "nested deeper than 30 levels" in message(f"{HEAD}model: {{name: mlp, args: {{x: [{value}]}}}}")


def test_values_to_sweep_keep_the_limits() -> None:
    loaded = from_tree({"data": {"name": "digits"}, "model": "mlp"}, Path())
    with pytest.raises(ConfigError, match=r"model\.args\.width: a number has at most 300 digits"):
        with_value(loaded, "model.args.width", 10**300)
    with pytest.raises(ConfigError, match=r"^--values: broken YAML: more than 5,000 keys and values"):
        parse_values("1," * 50_000)


def test_a_target_in_a_folder_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", denied)
    assert message(HEAD + "model: {target: 'a/b.py:Net'}").endswith("c.yaml:2: model.target: a/b.py cannot be read: Permission denied")
