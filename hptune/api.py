"""The same from Python, for notebooks and scripts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hptune.analysis.curves import RangeSummary, read_ramp, summarize_ranges
from hptune.config.loader import LoadedConfig, from_tree, load_config, with_value
from hptune.report.run import Run
from hptune.running import Event
from hptune.session import open_session

if TYPE_CHECKING:
    import pandas as pd


def run(
    config: str | Path | Mapping[str, Any],
    *,
    run_dir: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    stages: Sequence[str] | None = None,
    fresh: bool = False,
    on_event: Callable[[Event], None] | None = None,
) -> Run:
    """Run all stages (or `stages`) of a config file or mapping; return the finished run, as `load_run` would.

    `config`: a path, or the same content as a mapping, relative paths in it being of the current folder. `run_dir`: where the results
    go, by default `runs/<name>`; a run that is there already continues, and what is done is not done twice. `fresh`: start over
    instead, the old directory being renamed. `overrides` maps dotted keys to values, as `--set` does. `stages`: names in order, such
    as `["lr_range", "momentum"]`. `on_event` is called with each event of `hptune.running` as it happens.

    Scripts that start worker processes need the usual `if __name__ == "__main__":` guard. Raises the errors of `hptune.errors`:
    ConfigError, DataError and UserCodeError before anything is written, StageError where no trial of a stage gave a result,
    LockedError where another process writes the directory.

    >>> import hptune
    >>> config = {
    ...     "name": "tiny",
    ...     "data": {"name": "digits", "limit": 300},
    ...     "model": "linear",
    ...     "budget": {"epochs": 2, "search_epochs": 1},
    ...     "device": "cpu",
    ...     "executor": {"name": "serial"},
    ... }
    >>> run = hptune.run(config, stages=["lr_range", "weight_decay"], overrides={"seeds": 1})
    >>> run.state
    'finished'
    >>> run.recommendation.hyperparameters.batch_size
    64
    >>> hptune.run({**config, "optimiser": "adamw"})
    Traceback (most recent call last):
    hptune.errors.ConfigError: optimiser: unknown key 'optimiser': did you mean 'optimizer'?
    """
    loaded = _load(config, overrides)
    with open_session(loaded, run_dir=Path(run_dir) if run_dir is not None else None, fresh=fresh, command=("hptune.run",)) as session:
        for event in session.run(stages):
            if on_event is not None:
                on_event(event)
        finished = session.finish()
    for remark in session.tracking.remarks():
        warnings.warn(remark, stacklevel=2)
    return finished


@dataclass(frozen=True, slots=True, kw_only=True)
class LrRangeTest:
    """What an in-memory LR range test found.

    `summary`: the suggestion with the LRs it rests on, and a `sentence` that says so. `curves`: a data frame with one row a validation
    point: `repetition`, `step` (steps done), `lr`, `train_loss` (mean since the point before), `val_loss`.
    """

    summary: RangeSummary
    curves: pd.DataFrame

    @property
    def lr_max(self) -> float | None:
        """The suggested maximum learning rate for 1cycle; None where the loss never fell."""
        return self.summary.lr_max


def lr_range_test(
    model: Any,
    train: Any,
    val: Any,
    *,
    loss: Any = "cross_entropy",
    optimizer: str = "sgd",
    batch_size: int = 64,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    epochs: float = 1.0,
    min_lr: float = 1e-4,
    max_lr: float = 10.0,
    seeds: int = 1,
    device: str = "auto",
) -> LrRangeTest:
    """Run LR range tests on objects in memory (arXiv 1506.01186, section 3.3); nothing is written and `model` is left as it was.

    `model`: an `nn.Module`; each ramp trains a copy of it. `train` and `val`: pairs of arrays or tensors `(x, y)`, samples along the
    first axis, or map-style Datasets. `loss`: a built-in name (cross_entropy, mse, l1, smooth_l1, bce_with_logits) or
    `f(output, target)`, a 0-dim tensor. `optimizer` (sgd or adamw), `batch_size`, `momentum` and `weight_decay` stay as given. `epochs`:
    length of one ramp, in which the LR rises exponentially from `min_lr` to `max_lr`. `seeds`: ramps, each on its own data order.
    `device`: auto, cpu, cuda, cuda:N or mps.

    Raises ConfigError for a value out of range, DataError for data that cannot be trained on, UserCodeError where model or loss raise.

    >>> import hptune, torch
    >>> from sklearn.datasets import load_digits
    >>> x, y = load_digits(return_X_y=True)
    >>> x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
    >>> _ = torch.manual_seed(0)
    >>> found = hptune.lr_range_test(torch.nn.Linear(64, 10), (x[:1400], y[:1400]), (x[1400:], y[1400:]), epochs=2, device="cpu")
    >>> 0.01 < found.lr_max < 10
    True
    >>> list(found.curves.columns)
    ['repetition', 'step', 'lr', 'train_loss', 'val_loss']
    """
    from hptune.engine.problem import open_objects
    from hptune.engine.trainer import run_trial
    from hptune.knowledge import Progress, stage_knowledge
    from hptune.stages.lr_range import LrRange

    tree = {
        "data": {"name": "digits"},  # replaced by the objects below
        "model": {"name": "linear"},
        "optimizer": {"name": optimizer},
        "baseline": {"lr": min(max_lr, 0.1), "batch_size": batch_size, "momentum": momentum, "weight_decay": weight_decay},
        "budget": {"epochs": epochs, "search_epochs": epochs},
        "seeds": seeds,
        "stages": {"lr_range": {"min_lr": min_lr, "max_lr": max_lr}},
        "device": device,
    }
    experiment = from_tree(tree, Path.cwd()).experiment
    problem = open_objects(model, train, val, loss=loss, experiment=experiment)
    settings = experiment.stages.lr_range.model_dump() if experiment.stages.lr_range else {}
    knowledge = stage_knowledge("lr_range", experiment, problem.task, Progress(), settings=settings)
    records = [run_trial(problem, spec).record for spec in LrRange().plan(knowledge, [])]
    summary = summarize_ranges([read_ramp(r.curve) for r in records], min_lr=min_lr, max_lr=max_lr)
    return LrRangeTest(summary=summary, curves=_frame(records))


def _frame(records: Sequence[Any]) -> pd.DataFrame:
    import pandas as pd

    parts = [
        pd.DataFrame(
            {
                "repetition": r.spec.repetition,
                "step": r.curve.step,
                "lr": r.curve.lr,
                "train_loss": r.curve.train_loss,
                "val_loss": r.curve.val_loss,
            }
        )
        for r in records
    ]
    return pd.concat(parts, ignore_index=True)


def _load(config: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None) -> LoadedConfig:
    loaded = from_tree(config, Path.cwd()) if isinstance(config, Mapping) else load_config(config)
    for key, value in (overrides or {}).items():
        loaded = with_value(loaded, key, value)
    return loaded
