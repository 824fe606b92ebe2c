"""Telling other tools of a run while it goes on. Whatever happens to them, the run goes on.

Every tracker works in a thread of its own, so that it costs a search no time, however slow it is. A ledger in `tracking/<tool>/` says
what a tool has got: the same command given again sends what is missing, and nothing twice.
"""

from __future__ import annotations

import importlib
import importlib.util
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hptune.analysis.recommendation import Conclusion
from hptune.errors import ConfigError, said_by
from hptune.store.ledger import Ledger
from hptune.trial import TrialRecord, content_hash

if TYPE_CHECKING:
    from hptune.report.run import Run
    from hptune.report.trackers.tracker import Tracker

CLASSES = {"tensorboard": "TensorBoard", "mlflow": "Mlflow", "wandb": "Wandb"}
"""Each tool's package, and what speaks to it in the module of the same name here."""
PATIENCE = 60.0  # seconds that a finished run waits for all trackers together
Opener = Callable[[Path, str, str], "Tracker"]
"""Opens a tracker in a folder for a run of a name, `place` being where the last one was."""
Message = Callable[["Tracker", Ledger], None]


def require(names: Iterable[str]) -> None:
    """Raise ConfigError for a tracker whose package is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"{name} is not installed: pip install 'hptune[{name}]', or leave it out", key="tracking")


def opener(name: str) -> Opener:
    """What opens the tracker `name`; its package is imported when it is called."""

    def open_tracker(folder: Path, title: str, known: str) -> Tracker:
        made: Tracker = getattr(importlib.import_module(f"{__name__}.{name}"), CLASSES[name])(folder, title, known)
        return made

    return open_tracker


class Tracking:
    """The trackers of one command; `folder(name)` is where a tracker's ledger and files are. Use as a context manager."""

    def __init__(
        self, names: Collection[str], folder: Callable[[str], Path], title: str, *, find: Callable[[str], Opener] = opener
    ) -> None:
        self.names = tuple(dict.fromkeys(names))
        self._remarks: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._couriers = [Courier(name, find(name), folder(name), title, self._remarks.put) for name in self.names]

    def trial(self, stage: str, record: TrialRecord, value: Any = None) -> None:
        """Tell of a trial, unless it is known; `value` is what a key sweep gave to its key."""
        self._tell(lambda tracker, ledger: ledger.once(f"trial {record.trial_id}", lambda: tracker.trial(stage, record, value)))

    def conclusion(self, conclusion: Conclusion) -> None:
        """Tell what a stage found, unless just this is known."""
        key = f"conclusion {content_hash(conclusion.to_json())}"
        self._tell(lambda tracker, ledger: ledger.once(key, lambda: tracker.conclusion(conclusion)))

    def result(self, run: Run) -> None:
        """Tell of what was written in the end."""
        self._tell(lambda tracker, _: tracker.result(run))

    def remarks(self) -> list[str]:
        """What went wrong since this was last asked, a sentence each."""
        said = []
        while not self._remarks.empty():
            said.append(self._remarks.get())
        return said

    def close(self, patience: float = PATIENCE) -> None:
        """Wait until all is told, though no longer than `patience` seconds."""
        end = time.monotonic() + patience
        for courier in self._couriers:
            courier.stop()
        for courier in self._couriers:
            if not courier.ended(max(0.0, end - time.monotonic())):
                self._remarks.put(f"{courier.name} has not taken everything within {patience:g} s: the same command sends the rest")

    def _tell(self, message: Message) -> None:
        for courier in self._couriers:
            courier.tell(message)


class Courier:
    """A thread that tells one tracker; the first error ends it, and `complain` gets a sentence about it."""

    def __init__(self, name: str, open_tracker: Opener, folder: Path, title: str, complain: Callable[[str], None]) -> None:
        self.name, self._complain = name, complain
        self._open, self._folder, self._title = open_tracker, folder, title
        self._messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"hptune-{name}", daemon=True)  # one that hangs must not keep the program
        self._thread.start()

    def tell(self, message: Message) -> None:
        """Have `message` delivered, in its turn."""
        if self._thread.is_alive():
            self._messages.put(message)

    def stop(self) -> None:
        """Let the thread end once everything is told."""
        self._messages.put(None)

    def ended(self, within: float) -> bool:
        """Whether the thread ends within so many seconds."""
        self._thread.join(within)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with Ledger(self._folder / "sent.txt") as ledger:
                tracker = self._open(self._folder, self._title, ledger.place)
                ledger.begin(tracker.place)
                while (message := self._messages.get()) is not None:
                    message(tracker, ledger)
                tracker.close()
        except Exception as error:
            self._complain(f"tracking by {self.name} ended: {said_by(error)}; the run goes on, and the same command sends what is missing")
