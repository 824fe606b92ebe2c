"""What travels to the machines of a cluster: hptune itself, the user's code, local weights; and the config as it reads there.

All of it is copied into one folder, which the executor takes to every node, where it is the workers' current folder. Data sets that
are arrays travel by themselves (`engine.shipping`), so workers need no file of the driver's machine.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hptune.config.fields import Section, is_file_target
from hptune.config.schema import Experiment
from hptune.engine.provenance import source_files

OWN = Path(__file__).parent
SMALL = 10**6  # bytes of a file that travels because it lies beside the user's code
MANY = 200  # files beside it that do


@dataclass(slots=True)
class Luggage:
    """A folder to travel. `folders`: names in it, and whose copies they are. `holds`: the places that were packed."""

    root: Path
    folders: dict[str, str] = field(default_factory=dict)
    holds: set[str] = field(default_factory=set)

    def pack(self, experiment: Experiment) -> bool:
        """Copy what trials of `experiment` need and is not in it yet; return whether there was anything.

        That is hptune, the targets' files with small ones that lie beside them (hidden ones, where secrets are, stay), packages of the
        user's, weights.
        """
        places = {str(OWN), *(target.rpartition(":")[0] for target in user_code(experiment)), experiment.model.pretrained or str(OWN)}
        new, self.holds = places - self.holds, self.holds | places
        for place in sorted(new):
            where = Path(place)
            if where == OWN:
                _copy(sorted(OWN.rglob("*")), OWN, self.root / OWN.name)
            elif place == experiment.model.pretrained:
                _copy([where], where.parent, self._folder(where.parent))
            elif is_file_target(f"{place}:name"):
                beside = [file for file in sorted(where.parent.glob("[!.]*"))[:MANY] if file.suffix != ".py" and _is_small(file)]
                _copy([*source_files(where), *beside], where.parent, self._folder(where.parent))
            else:
                self._pack_module(place.partition(".")[0])
        return bool(new)

    def unpacked(self, experiment: Experiment) -> Experiment:
        """The same config with the places that files have on a node, relative to its workers' current folder."""

        def there(path: str) -> str:
            folder = next((name for name, home in self.folders.items() if home == str(Path(path).parent)), None)
            return path if folder is None else f"{folder}/{Path(path).name}"

        def changed(key: str, value: str) -> str:
            if key == "target" and is_file_target(value):
                where, _, name = value.rpartition(":")
                return f"{there(where)}:{name}"
            return there(value) if key == "pretrained" else value

        return _with_texts(experiment, changed)

    def _folder(self, home: Path) -> Path:
        """The folder that is to hold copies of files in `home`."""
        known = next((name for name, place in self.folders.items() if place == str(home)), None)
        name = known or f"code{len(self.folders)}"
        self.folders[name] = str(home)
        return self.root / name

    def _pack_module(self, name: str) -> None:
        """Copy a top-level module or package where it is the user's: neither installed nor Python's own."""
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin) if spec is not None and spec.origin and spec.has_location else None
        if origin is None or {"site-packages", "dist-packages"} & set(origin.parts) or origin.is_relative_to(Path(shutil.__file__).parent):
            return
        root = origin.parent if origin.name == "__init__.py" else origin
        _copy([file for file in sorted(root.rglob("*")) if _is_small(file)] if root.is_dir() else [root], root.parent, self.root)


def user_code(experiment: Experiment) -> tuple[str, ...]:
    """The targets whose code a run executes."""
    holders = (experiment.data, experiment.data.collate, experiment.model, experiment.loss, experiment.metric, experiment.step)
    return tuple(dict.fromkeys(holder.target for holder in holders if holder is not None and holder.target is not None))


def _with_texts(section: Experiment, change: Callable[[str, str], str]) -> Experiment:
    """A copy in which every text is as `change` has it, given its key; nothing is validated anew."""

    def copied(part: Section) -> Section:
        updates: dict[str, object] = {}
        for key in type(part).model_fields:
            value = getattr(part, key)
            if isinstance(value, Section):
                updates[key] = copied(value)
            elif isinstance(value, str):
                updates[key] = change(key, value)
        return part.model_copy(update=updates)

    result = copied(section)
    assert isinstance(result, Experiment)
    return result


def _copy(files: list[Path], root: Path, to: Path) -> None:
    """Copy `files`, which lie below `root`, to the same places below `to`."""
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts:
            target = to / file.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def _is_small(path: Path) -> bool:
    return path.is_file() and path.stat().st_size <= SMALL
