"""How numbers and counts are written in sentences and tables: one formatter for all of them."""

from __future__ import annotations

import math

SMALL, LARGE = 1e-3, 1e6  # outside these limits numbers are written with an exponent


def count(amount: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{amount:,} {noun}" if amount == 1 else f"{amount:,} {noun}s"


def format_number(value: float | int | str) -> str:
    """Write a number to three significant digits, small and large ones with an exponent: `0.4`, `1e-04`, `3.16e-04`, `1235`.

    Integers are exact, and text passes as it is, so that any swept value can be written.
    """
    if isinstance(value, str | int):
        return str(value)
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if SMALL <= abs(value) < 1000:
        return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"
    if 1000 <= abs(value) < LARGE:
        return f"{value:.0f}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{exponent}"
