"""The names of stages and hyper-parameters as people read them."""

from __future__ import annotations

TITLES = {
    "lr_range": "Learning rate",
    "batch_size": "Batch size",
    "momentum": "Momentum",
    "weight_decay": "Weight decay",
    "refine": "Joint refinement",
    "confirm": "Confirmation at full length",
    "not in a plan": "Trained on its own",
}
HYPERPARAMETERS = {
    "lr": "learning rate",
    "batch_size": "batch size",
    "momentum": "momentum",
    "momentum_min": "lowest momentum",
    "weight_decay": "weight decay",
    "epochs": "epochs",
}


def title_of(stage: str) -> str:
    """The title of a stage; a sweep of another config key says so."""
    return TITLES.get(stage, f"Sweep of {stage}")
