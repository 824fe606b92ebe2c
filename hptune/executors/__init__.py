"""Where trials run. No executor changes a result."""

from hptune.executors.factory import available_cores, make_executor, resolve

__all__ = ["available_cores", "make_executor", "resolve"]
