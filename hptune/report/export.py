"""The recommendation in other tools' own forms, as text to copy or save."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from hptune.errors import InputError
from hptune.report.export_settings import settings_of
from hptune.report.export_study import optuna
from hptune.report.export_timm import timm
from hptune.report.export_torch import pytorch
from hptune.report.export_trainers import fastai, huggingface, lightning
from hptune.report.run import Run

_TORCH_LIKE = {"pytorch": pytorch, "lightning": lightning, "fastai": fastai, "huggingface": huggingface, "timm": timm}
TARGETS = (*_TORCH_LIKE, "optuna")
"""The names `export` knows."""


def export(run: Run, to: str) -> str:
    """Return the recommendation of `run` for the tool `to`: Python, or for timm a command line.

    Raises InputError for a tool it does not know, and where there is no recommendation yet.
    """
    if to not in TARGETS:
        near = difflib.get_close_matches(to, TARGETS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"cannot export to {to!r}: use one of {', '.join(TARGETS)}{hint}")
    settings = settings_of(run)
    write: Callable[[], str] = (lambda: optuna(run, settings)) if to == "optuna" else (lambda: _TORCH_LIKE[to](settings))
    return write()
