"""What decides floating-point results besides the mathematics: device, precision, threads, memory format; by fixed rules.

No rule looks at a clock, so that the same config on the same machine gives the same `Numerics`, hence the same trial ids.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from torch import nn

from hptune.config.schema import Experiment
from hptune.config.sections import ExecutorSection
from hptune.cores import available_cores
from hptune.engine.ranks import in_a_gang
from hptune.errors import ConfigError
from hptune.trial import Numerics

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
CPU_INFO = Path("/proc/cpuinfo")

LARGEST_CHANNELS_LAST = 600_000
"""Weights of a convolution. Of 17 nets in fp32 on a CPU with AVX2, those with none larger took 0.65 to 0.96 times as long channels-last,
most of them 0.75; those with larger ones (512 channels) 1.07 to 1.21 times."""
FLOPS_OF_A_THREAD = 20 * 10**9
"""Of a step: about half a second of one core. Below, threads of one trial gain less than another trial beside it."""
MOST_THREADS = 16
FLOPS_WORTH_COMPILING = 3 * 10**16
"""For each shape: some minutes of a fast GPU, of which a compiled step saves a part; compiling takes most of a minute."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
SHORT_RUNS = 40  # of a search at the default settings


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


def pins(name: str, together: int = 1) -> tuple[dict[str, str], ...]:
    """For each GPU that `name` (a config's device) leaves open, or each group of so many `together`: the environment that confines a
    process to it; empty where there is one alone, which a process takes by itself.
    """
    device = resolve_device(name)
    if name not in ("auto", "cuda") or device.type != "cuda":
        return ()
    visible = os.environ.get(VISIBLE, "")
    names = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    alike = _alike()
    groups = [alike[i : i + together] for i in range(0, len(alike) - together + 1, together)]
    if groups == [list(range(together))]:
        return ()
    return tuple({VISIBLE: ",".join(names[i] for i in group)} for group in groups)


def _alike() -> list[int]:
    """The GPUs of the same model as the first: numbers depend on the model."""
    return [i for i in range(torch.cuda.device_count()) if torch.cuda.get_device_name(i) == torch.cuda.get_device_name(0)]


def first_numerics(experiment: Experiment, device: torch.device, model: nn.Module) -> Numerics:
    """Return what can be said of an experiment's numerics before its first step was tried; `for_cost` completes it.

    Precision `auto` is bf16 where it pays: on CUDA with native bf16, and for convolutional nets on CPUs with bf16 instructions; fp32
    elsewhere. Convolutional nets are channels-last on CUDA and in bf16; in fp32 on a CPU too, but for wide convolutions.
    """
    _check_devices(experiment, device)
    kernels = [module.weight.numel() for module in model.modules() if isinstance(module, nn.Conv2d)]
    if experiment.precision == "fp16" and device.type == "cpu":
        raise ConfigError("fp16 is for CUDA devices: use bf16, fp32 or auto on a CPU", key="precision")
    precision = _auto_precision(device, bool(kernels)) if experiment.precision == "auto" else experiment.precision
    section = experiment.executor
    fast_on_cpu = device.type == "cpu" and (precision == "bf16" or max(kernels, default=0) <= LARGEST_CHANNELS_LAST)
    return Numerics(
        device=device.type,
        device_model=device_model(device),
        precision=precision,
        threads=section.threads if isinstance(section.threads, int) else 1,
        channels_last=bool(kernels) and (device.type == "cuda" or fast_on_cpu),
        micro_batch=section.micro_batch if isinstance(section.micro_batch, int) else None,
        replicas=section.devices_per_trial,
        sync_batch_norm=_syncs_batch_norm(section, device, model),
    )


def for_cost(numerics: Numerics, experiment: Experiment, *, flops: int, train_samples: int) -> Numerics:
    """Return `numerics` with what goes by the cost of the work: CPU threads of a trial, and whether its step is compiled.

    `flops`: floating-point operations of forward and backward pass for one training sample.
    """
    section = experiment.executor
    threads, compiled = numerics.threads, section.compile is True
    if section.threads == "auto" and numerics.device == "cpu":
        of_a_step = flops * numerics.share(experiment.baseline_hyperparameters().batch_size)
        threads = max(1, min(of_a_step // FLOPS_OF_A_THREAD, available_cores() // numerics.replicas, MOST_THREADS))
    if section.compile == "auto" and numerics.device == "cuda":
        compiled = flops * train_samples * _planned_epochs(experiment) >= FLOPS_WORTH_COMPILING * _shapes(experiment)
    return replace(numerics, threads=threads, compiled=compiled)


def _planned_epochs(experiment: Experiment) -> float:
    """About how many epochs a search trains in all."""
    confirm = experiment.stages.confirm
    full = confirm.seeds * (confirm.finalists + 1) if confirm else 1
    return SHORT_RUNS * experiment.budget.short_epochs + full * experiment.budget.epochs


def _shapes(experiment: Experiment) -> int:
    """How many batch sizes will be compiled for."""
    sizes = {experiment.baseline_hyperparameters().batch_size}
    return len(sizes | set(experiment.stages.batch_size.values if experiment.stages.batch_size else ()))


def _check_devices(experiment: Experiment, device: torch.device) -> None:
    """Raise ConfigError where a trial cannot have `executor.devices_per_trial` devices. A rank sees its own only."""
    wanted, key = experiment.executor.devices_per_trial, "executor.devices_per_trial"
    if wanted == 1 or in_a_gang():
        return
    if device.type not in ("cpu", "cuda") or not dist.is_available():
        raise ConfigError(f"{wanted} devices for one trial: this torch can do that on cuda and cpu, and not on {device.type}", key=key)
    if device.type == "cuda":
        there = len(_alike())
        if wanted > there:
            raise ConfigError(f"{wanted} is more than the {there} CUDA device{'s' if there > 1 else ''} that can be used here", key=key)
        if experiment.device.startswith("cuda:"):
            raise ConfigError(f"{experiment.device} is one device, and a trial is to have {wanted}: use cuda", key="device")


def _syncs_batch_norm(section: ExecutorSection, device: torch.device, model: nn.Module) -> bool:
    """Whether batch norm is to see the samples of all devices; without several, or without batch norm, there is nothing to do."""
    if not section.sync_batch_norm or section.devices_per_trial == 1:
        return False
    if device.type != "cuda":
        raise ConfigError("batch norm over several devices is for CUDA: leave it out on a CPU", key="executor.sync_batch_norm")
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


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
    exact = torch.get_deterministic_debug_mode()
    fill, matmul = torch._C._get_deterministic_fill_uninitialized_memory(), torch.get_float32_matmul_precision()
    torch.set_num_threads(numerics.threads)
    torch.set_flush_denormal(True)
    if numerics.device == "cpu" and numerics.threads > 1:  # with one thread every sum already has one order
        torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms would do the same, and import the compiler: seconds
        torch._C._set_deterministic_fill_uninitialized_memory(False)
    if numerics.device == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushed)
        torch.set_deterministic_debug_mode(exact)
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
