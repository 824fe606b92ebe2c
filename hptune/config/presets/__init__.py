"""Commented starter configs for `hptune init`."""

from __future__ import annotations

from importlib import resources

from hptune.config.fields import suggestion
from hptune.config.presets import example
from hptune.errors import ConfigError

PRESETS = ("digits", "mnist", "cifar10", "image-folder", "arrays", "custom")


def preset_names() -> tuple[str, ...]:
    """The names `hptune init --preset` knows."""
    return PRESETS


def preset(name: str) -> str:
    """Return the starter config `name` as YAML text; raises ConfigError for an unknown name."""
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}{suggestion(name, PRESETS)} (one of {', '.join(PRESETS)})", where="--preset")
    return resources.files(__package__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def preset_files(name: str) -> dict[str, str]:
    """Return the files of a preset by name: the config, first, and the Python file it refers to, if it does."""
    files = {f"{name}.yaml": preset(name)}
    if name == "custom":
        files[example.FILE] = example.CODE
    return files
