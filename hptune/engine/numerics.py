"""What decides floating-point results besides the mathematics: device, precision, threads, memory format; by fixed rules.

No rule looks at a clock, so that the same config on the same machine gives the same `Numerics`, hence the same trial ids.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from hptune.config.schema import Experiment
from hptune.errors import ConfigError
from hptune.trial import Numerics

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
CPU_INFO = Path("/proc/cpuinfo")


def resolve_device(name: str) -> torch.device:
    """Return the device that `auto`, `cpu`, `cuda`, `cuda:N` or `mps` means here.

    `auto` is the first CUDA device, else the CPU: small nets, the common case of a search, gain nothing from MPS. Raises ConfigError
    where the device asked for is not there.
    """
    if name == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = device.index if device.index is not None else 0
        if index >= count:
            raise ConfigError(f"there is no {name} here: use {_present()}", key="device")
        return torch.device("cuda", index)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"there is no mps here: use {_present()}", key="device")
    return device


def settle_numerics(experiment: Experiment, device: torch.device, model: nn.Module) -> Numerics:
    """Return the numerics of every trial of `experiment` on `device`.

    Precision `auto` is bf16 where it pays: on CUDA with native bf16, and for convolutional nets on CPUs with bf16 instructions; fp32
    elsewhere. Convolutional nets are channels-last on CUDA, and on the CPU in bf16. Threads `auto` is one: a search runs one trial a core.
    """
    convolutional = any(isinstance(module, nn.Conv2d) for module in model.modules())
    if experiment.precision == "fp16" and device.type == "cpu":
        raise ConfigError("fp16 is for CUDA devices: use bf16, fp32 or auto on a CPU", key="precision")
    precision = _auto_precision(device, convolutional) if experiment.precision == "auto" else experiment.precision
    threads = experiment.executor.threads
    return Numerics(
        device=device.type,
        device_model=device_model(device),
        precision=precision,
        threads=threads if isinstance(threads, int) else 1,
        channels_last=convolutional and (device.type == "cuda" or (device.type == "cpu" and precision == "bf16")),
    )


def device_model(device: torch.device) -> str:
    """The device's name as its maker gives it, such as `AMD EPYC 7B13`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if CPU_INFO.is_file():
        for line in CPU_INFO.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@contextmanager
def in_force(numerics: Numerics) -> Iterator[None]:
    """Set this process to `numerics` and put every setting back after.

    Denormals are flushed to zero: decaying moments of idle units fall into them, and CPUs compute with them many times slower.
    """
    threads, flushed = torch.get_num_threads(), _flushes_denormals()
    exact, warn_only = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill, matmul = torch._C._get_deterministic_fill_uninitialized_memory(), torch.get_float32_matmul_precision()
    torch.set_num_threads(numerics.threads)
    torch.set_flush_denormal(True)
    if numerics.device == "cpu" and numerics.threads > 1:  # with one thread every sum already has one order
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch._C._set_deterministic_fill_uninitialized_memory(False)
    if numerics.device == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushed)
        torch.use_deterministic_algorithms(exact, warn_only=warn_only)
        torch._C._set_deterministic_fill_uninitialized_memory(fill)
        if numerics.device == "cuda":
            torch.set_float32_matmul_precision(matmul)


def autocast(numerics: Numerics) -> AbstractContextManager[object]:
    """The context of forward pass and loss: none in fp32."""
    dtype = DTYPES.get(numerics.precision)
    return nullcontext() if dtype is None else torch.autocast(numerics.device, dtype=dtype)


def _auto_precision(device: torch.device, convolutional: bool) -> Precision:
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    native = device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return "bf16" if native and convolutional else "fp32"


def _flushes_denormals() -> bool:
    return float(torch.full((), 2.0**-127) * 1.0) == 0.0


def _present() -> str:
    names = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    names += ["mps"] if torch.backends.mps.is_available() else []
    return " or ".join(["auto", "cpu", *names])
