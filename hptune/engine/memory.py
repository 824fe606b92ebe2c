"""Memory: its lack, recognized whichever allocator reports it; given back; and how much was used. And a device that is lost."""

from __future__ import annotations

import gc
import sys

import torch

REPORTS = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What torch's allocators and libraries say in a plain RuntimeError."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or what it was raised from, means that the device's or the main memory did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, RuntimeError) and any(report in str(error) for report in REPORTS):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


def is_lost(error: BaseException, device: torch.device) -> bool:
    """Whether nothing more can be computed on the device in this process: after a failed assertion in a kernel, or a bad address."""
    if device.type != "cuda" or not isinstance(error, RuntimeError):
        return False
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:  # the error stays, whatever is asked for
        return True
    return False


def free_memory(device: torch.device) -> None:
    """Give back what nobody holds any more; call it once the exception and its frames are gone."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def share_in_use(device: torch.device) -> float:
    """The part of the device's memory that is taken, by whichever process; 0 where that cannot be asked."""
    if device.type != "cuda":
        return 0.0
    free, total = torch.cuda.mem_get_info(device)
    return 1 - free / total


def reset_peak_memory(device: torch.device) -> None:
    """Begin to measure anew, where `peak_memory` can: on CUDA."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """Most bytes in use at a time: on CUDA of tensors since the last reset, on CPUs of the whole process since it began.

    None where nothing tells.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _process_peak() if device.type == "cpu" else None


def _process_peak() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # elsewhere it counts KiB
