"""Where trials run. No executor changes a result."""

from hptune.executors.factory import make_executor, make_ray_executor, resolve

__all__ = ["make_executor", "make_ray_executor", "resolve"]
