"""Signs of life: whatever works in this process says that it goes on, and whoever watches the process can tell.

A worker that hangs in a lock or in a device's driver is alive for the operating system. Only work that says so itself shows that it
is not.
"""

from __future__ import annotations


class Pulse:
    """Counts signs of life."""

    __slots__ = ("beats",)

    def __init__(self) -> None:
        self.beats = 0

    def beat(self) -> None:
        """Say that the work goes on; it costs nothing, and is said at every step, evaluated batch and item read."""
        self.beats += 1


PULSE = Pulse()
"""This process's own."""
