"""The examples in the docstrings of the public names, run as they stand."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator

import pytest
import torch

import hptune
import hptune.api
import hptune.report.reading
import hptune.report.run

NAMES = [name for name in hptune.__all__ if not name.startswith("__")]
EXAMPLES = [
    example
    for module in (hptune.api, hptune.report.reading, hptune.report.run)
    for example in doctest.DocTestFinder().find(module)
    if example.examples
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A current folder with the run of `hptune.run`'s own example."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("examples"))
        patch.setattr("hptune.report.write_report", lambda run: None)  # drawing figures takes most of the time
        torch.set_num_threads(1)
        assert complaints(next(example for example in EXAMPLES if example.name == "hptune.api.run")) == ""
        yield


def complaints(example: doctest.DocTest) -> str:
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(example, out=said.append, clear_globs=False)
    return "".join(said)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("example", [each for each in EXAMPLES if each.name != "hptune.api.run"], ids=lambda example: example.name)
def test_an_example_does_what_it_says(example: doctest.DocTest) -> None:
    assert complaints(example) == ""


def test_every_public_function_has_an_example_and_names_its_arguments() -> None:
    with_examples = {example.name.rpartition(".")[2] for example in EXAMPLES}
    functions = {name: found for name in NAMES if inspect.isfunction(found := getattr(hptune, name))}
    assert {found.__name__ for found in functions.values()} == {"run", "lr_range_test", "load"} <= with_examples
    for function in functions.values():
        said = inspect.getdoc(function) or ""
        assert [name for name in inspect.signature(function).parameters if f"`{name}`" not in said and f"{name}=" not in said] == []
    public = [name for name, found in vars(hptune.Run).items() if isinstance(found, property) or inspect.isfunction(found)]
    asked = [name for name in public if not name.startswith("_") and name not in ("state", "conclusions")]
    assert set(asked) <= with_examples
