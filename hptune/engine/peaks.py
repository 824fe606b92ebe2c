"""What GPUs can compute at most, by their makers' data sheets, to set what a model reaches against."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hptune.trial import Numerics

TERA = 1e12


@dataclass(frozen=True, slots=True)
class Peak:
    """Dense peak rates in TFLOP/s, accumulating in fp32: `half` for bf16 and fp16, `single` for fp32 as run here (TF32 where there is it).

    `bf16`: whether bf16 is computed at that rate; older chips only emulate it.
    """

    half: float
    single: float
    bf16: bool = True


PEAKS = {
    ("B200",): Peak(2250, 1125),
    ("GH200",): Peak(989, 494),
    ("H200",): Peak(989, 494),
    ("H200", "NVL"): Peak(835, 417),
    ("H100",): Peak(989, 494),
    ("H100", "NVL"): Peak(835, 417),
    ("H100", "PCIe"): Peak(756, 378),
    ("A100",): Peak(312, 156),
    ("A30",): Peak(165, 82),
    ("A40",): Peak(149.7, 74.8),
    ("A10",): Peak(125, 62.5),
    ("A10G",): Peak(70, 35),
    ("L4",): Peak(121, 60),
    ("L40",): Peak(181, 90.5),
    ("L40S",): Peak(362, 183),
    ("T4",): Peak(65, 8.1, bf16=False),
    ("V100",): Peak(125, 15.7, bf16=False),
    ("V100", "PCIE"): Peak(112, 14, bf16=False),
    ("RTX", "3090"): Peak(71, 35.6),
    ("RTX", "4090"): Peak(165, 82.6),
    ("RTX", "5090"): Peak(209.5, 104.8),
}
"""By words of the device's name: the entry with most of them counts."""
OTHER_CHIPS = {"Laptop", "MIG", "D", "Ti", "SUPER"}
"""Words of names whose chip is another one, or a part of one."""


def peak_flops(numerics: Numerics) -> float | None:
    """Peak FLOP/s of a CUDA device at the precision of `numerics`; None where the table does not know it."""
    words = set(re.split(r"[\s-]+", numerics.device_model))
    if numerics.device != "cuda" or words & OTHER_CHIPS:
        return None
    known = max((name for name in PEAKS if words.issuperset(name)), key=len, default=None)
    if known is None:
        return None
    peak = PEAKS[known]
    if numerics.precision == "fp32":
        return peak.single * TERA
    return peak.half * TERA if peak.bf16 or numerics.precision == "fp16" else None
