"""How much arithmetic a piece of work is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


def count_flops(work: Callable[[], object]) -> int:
    """Do `work`, and return how many floating-point operations its matrix products, convolutions and attention took."""
    counter = FlopCounter()
    with counter:
        work()
    return counter.total


class FlopCounter(TorchDispatchMode):
    """Within it `total` grows by the floating-point operations of matrix products, convolutions and attention, backward ones included.

    By the formulas of torch's `FlopCounterMode`, which also imports torch's compiler: seconds, where this takes none.
    """

    supports_higher_order_operators = True
    total: int = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Whether to keep the compiler out of the method below, which importing it would be for."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Run the operator, and count it where there is a formula."""
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(getattr(func, "_overloadpacket", None))
        if count is not None:
            self.total += int(count(*args, **(kwargs or {}), out_val=result))
        return result
