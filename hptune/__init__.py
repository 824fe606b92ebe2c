"""hptune finds good training settings for PyTorch by short, staged experiments, and says why.

From Python: `hptune.run(config)`, `hptune.lr_range_test(model, train, val)`, `hptune.load_run(path)`. They are imported on first use, so
that `import hptune` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hptune.version import __version__

if TYPE_CHECKING:
    from hptune.api import LrRangeTest, lr_range_test, run
    from hptune.report.reading import load as load_run
    from hptune.report.run import Run

__all__ = ["LrRangeTest", "Run", "__version__", "load_run", "lr_range_test", "run"]

_HOMES = {
    "run": ("hptune.api", "run"),
    "lr_range_test": ("hptune.api", "lr_range_test"),
    "LrRangeTest": ("hptune.api", "LrRangeTest"),
    "Run": ("hptune.report.run", "Run"),
    "load_run": ("hptune.report.reading", "load"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hptune' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
