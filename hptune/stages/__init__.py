"""The stages of the method, each a pure planner: knowledge and records in, specs and a conclusion out."""

from __future__ import annotations

from hptune.stages.base import STAGES, Knowledge, Stage
from hptune.stages.batch_size import BatchSize
from hptune.stages.confirm import Confirm
from hptune.stages.key_sweep import KeySweep
from hptune.stages.lr_range import LrRange
from hptune.stages.momentum import Momentum
from hptune.stages.refine import Refine, Suggest
from hptune.stages.weight_decay import WeightDecay

__all__ = ["STAGES", "Knowledge", "Stage", "Suggest", "stage_named"]


def stage_named(name: str, suggest: Suggest | None = None) -> Stage:
    """Return the stage called `name`; any other name is the config key of a sweep. Only refine's planning needs `suggest`."""
    stages: dict[str, Stage] = {
        stage.name: stage for stage in (LrRange(), BatchSize(), Momentum(), WeightDecay(), Refine(suggest), Confirm())
    }
    return stages.get(name) or KeySweep(name)
