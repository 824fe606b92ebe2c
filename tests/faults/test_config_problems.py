"""Configs that load and still cannot be trained: opening data and model ends in one message that says what would be right."""

from pathlib import Path
from typing import Any

import pytest

from hptune.config.loader import from_tree
from hptune.engine.problem import open_problem
from hptune.errors import InputError

DIGITS = {"name": "digits", "limit": 200}


def refused(**keys: Any) -> str:
    """What is said of a config of 200 digits with `keys`."""
    with pytest.raises(InputError) as error:
        open_problem(from_tree({"data": DIGITS, "model": "mlp", "device": "cpu", **keys}, Path()).experiment)
    words = str(error.value)
    assert "\n" not in words
    assert len(words) < 1000
    return words


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"name": "mlp", "args": {"hidden": [10**15]}}, "model.args: mlp of this size does not fit into memory: make it smaller"),
        ({"name": "small_cnn", "args": {"width": 10**15}}, "model.args: small_cnn of this size does not fit into memory: make it smaller"),
        ({"name": "small_cnn", "args": {"width": 10**30}}, "model.args: small_cnn does not take these: "),
        ({"name": "mobilenet_v2", "args": {"width_mult": 1e300}}, "model.args: torchvision's mobilenet_v2 does not take these: "),
        ({"name": "resnet18", "args": {"width_per_group": 10**9}}, "torchvision's resnet18 does not take these: BasicBlock only supports"),
        ({"name": "resnet50", "args": {"replace_stride_with_dilation": 3}}, "torchvision's resnet50 does not take these: "),
        ({"name": "mlp", "args": {"hidden": [1.5] * 2000}}, "model.args.hidden: mlp needs a list of whole numbers of at least 1, got [1.5"),
        ({"name": "mlp", "args": {"x" * 200: 1}}, "model.args: mlp has no argument 'xxx"),
        ({"name": "x" * 10_000}, "model.name: unknown model 'xxx"),
        ({"name": "mlp", "freeze": ["x" * 10_000]}, "model.freeze: no parameter is named like 'xxx"),
        ({"target": "os:environ"}, "os:environ is a _Environ, not a function or class that can be called"),
        ({"target": "builtins:object"}, "model target builtins:object returned object, not a torch.nn.Module"),
        ({"target": "sys:exit"}, "your code raised SystemExit (building the model, sys:exit)"),
    ],
)
def test_models_that_cannot_be_built(model: dict[str, Any], words: str) -> None:
    assert words in refused(model=model)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("builtins:print", "loss target builtins:print returned NoneType, not a tensor"),
        ("sys:exit", "sys:exit is called with 2 positional, but its signature is exit("),
        ("math:hypot", "your code raised"),
    ],
)
def test_functions_built_into_python_are_no_losses(target: str, words: str) -> None:
    """They come from no file: identifying them by their source must not look for one."""
    assert words in refused(loss={"target": target})
