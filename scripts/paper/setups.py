"""The setups of each scale: a config of configs/paper, the claims that are tried on it, and what the report has for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "paper"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """`name`: of the config file. `margin`: per cent of accuracy within which settings are as good as each other.

    `paper`: the report's figures, by what they are of.
    """

    name: str
    title: str
    claims: tuple[int, ...]
    margin: float = 1.0
    paper: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return CONFIGS / f"{self.name}.yaml"


TABLE_1 = {  # per cent
    "cifar3": {
        "table 1, 1cycle": {"0.95→0.85": 81.3, "0.9→1": 80.2, "0.85": 79.5, "0.9": 80.2, "0.95": 81.2},
        "table 1, constant LR": {"0.95→0.85": 80.8, "0.85": 80.2, "0.9": 81.0, "0.95": 81.0},
        "best decay": "1.8 ×, over plain cyclical LRs",
        "accuracy": "81.3 ± 0.1",
    },
    "resnet56": {
        "table 1, 1cycle": {"0.95→0.85": 92.0, "0.9→1": 91.4, "0.85": 90.8, "0.9": 91.4, "0.95": 92.1},
        "table 1, constant LR": {"0.95→0.85": 89.1, "0.85": 87.8, "0.9": 88.1, "0.95": 88.8},
        "best decay": "3 to 6 ×",
        "accuracy": "92.0 ± 0.2",
    },
}
STEPS: dict[str, Any] = {"baseline": {"schedule": "step", "lr": 0.1, "epochs": (100, 200)}, "cycles": (0.5, 1.0), "steps": (1.0, 2.0)}
TABLE_2: dict[str, dict[str, Any]] = {  # per cent, by schedule and epochs; lengths are of the config's epochs
    "lenet": {
        "table 2": {("step", 85): 99.03, ("1cycle", 12): 99.25},
        "baseline": {"schedule": "inv", "lr": 0.01, "epochs": (85,)},
        "cycles": (1.0,),
        "steps": (1.0,),
        "accuracy": "99.25 ± 0.03",
    },
    "wide_resnet32": {
        "table 2": {("step", 100): 86.7, ("step", 200): 88.7, ("1cycle", 50): 91.3},
        **STEPS,
        "accuracy": "91.3 ± 0.1",
    },
    "densenet40": {
        "table 2": {("step", 100): 91.3, ("step", 200): 92.1, ("1cycle", 50): 91.7},
        **STEPS,
        "accuracy": "91.7 ± 0.3",
    },
    "cifar100": {
        "table 2": {("step", 100): 60.8, ("step", 200): 61.6, ("1cycle", 50): 66.4},
        **STEPS,
        "accuracy": "66.4 ± 0.6",
    },
}
AIRBENCH = (
    "for comparison, training alone with settings found before: 94 % in 2.6 s and 96 % in 27 s of an A100 (KellerJordan/cifar10-airbench)"
)

SCALES: dict[str, tuple[Setup, ...]] = {
    "cpu": (
        Setup(
            name="cifar10_3layer_cpu",
            title="3-layer net, 2,000 images of CIFAR-10, 25 epochs",
            claims=(1, 2, 3, 4, 5, 6, 7),
            paper={**TABLE_1["cifar3"], "accuracy": ""},
        ),
        Setup(name="mnist_lenet", title="LeNet, MNIST, 12 epochs", claims=(2,), margin=0.1, paper=TABLE_2["lenet"]),
        Setup(
            name="fashion_mnist_race",
            title="small CNN, 20,000 images of Fashion-MNIST",
            claims=(8,),
            paper={"minutes": (10,), "pairs": 4, "beside": "one CPU core each"},
        ),
        Setup(
            name="cifar10_race_cpu",
            title="small CNN, 10,000 images of CIFAR-10",
            claims=(8,),
            paper={"minutes": (10,), "pairs": 4, "beside": "one CPU core each"},
        ),
    ),
    "gpu": (
        Setup(
            name="cifar10_3layer",
            title="3-layer net, CIFAR-10, 25 epochs",
            claims=(1, 2, 3, 4, 5, 6, 7),
            margin=0.5,
            paper=TABLE_1["cifar3"],
        ),
        Setup(
            name="cifar10_resnet56",
            title="resnet-56, CIFAR-10, 95 epochs",
            claims=(1, 3, 4, 5, 6, 7),
            margin=0.5,
            paper=TABLE_1["resnet56"],
        ),
        Setup(name="mnist_lenet", title="LeNet, MNIST, 12 epochs", claims=(1, 2, 4, 7), margin=0.1, paper=TABLE_2["lenet"]),
        Setup(
            name="cifar10_wide_resnet32",
            title="wide-resnet-32, CIFAR-10, 50 epochs",
            claims=(2,),
            margin=0.5,
            paper=TABLE_2["wide_resnet32"],
        ),
        Setup(name="cifar10_densenet40", title="densenet-40, CIFAR-10, 50 epochs", claims=(2,), margin=0.5, paper=TABLE_2["densenet40"]),
        Setup(name="cifar100_resnet56", title="resnet-56, CIFAR-100, 50 epochs", claims=(2, 7), margin=0.5, paper=TABLE_2["cifar100"]),
        Setup(
            name="cifar10_race",
            title="resnet-20 of width 32, CIFAR-10",
            claims=(8,),
            paper={"minutes": (2, 10), "pairs": 4, "beside": AIRBENCH},
        ),
    ),
}
