"""The questions of `hptune init` on a terminal: Enter takes what stands in brackets, Ctrl-C leaves nothing behind."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.prompt import Prompt
from rich.text import Text

from hptune.cli.console import Console
from hptune.errors import InputError

if TYPE_CHECKING:
    from hptune.starter.compose import Plan, Wishes

DATA = {
    "digits": "8x8 images that come along: to try things out",
    "mnist": "downloaded; or type fashion_mnist",
    "cifar10": "downloaded; or type cifar100",
    "folder": "your pictures, one folder a class",
    "arrays": "an .npz file with x_train and y_train",
    "code": "a function of yours that returns (train, val)",
}
MODELS = {
    "small_cnn": "a small convolutional network, for images",
    "mlp": "fully connected layers, for tables",
    "torchvision": "a published network, such as resnet18",
    "code": "a model of yours",
}
WHERE = {
    "folder": "where are the pictures",
    "arrays": "where is the .npz file",
    "torchvision": "which network",
    "code": "where is it, as FILE.py:NAME",
}
SETTINGS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "epochs": ("how many epochs does a full training have", float),
    "optimizer": ("which optimizer do you use now (sgd or adamw)", str),
    "lr": ("which learning rate", float),
    "batch_size": ("which batch size", int),
    "weight_decay": ("which weight decay", float),
}
NO_LIMIT = "no limit"


def ask(console: Console, file: Path) -> Plan:
    """Return what the user wants for the config `file`; each answer is looked into when it is given, and asked for again if wrong."""
    from hptune.starter.compose import Wishes

    asking = _Asking(console, file)
    console.say("Enter takes what stands in parentheses; Ctrl-C leaves nothing behind.", "dim")
    wishes, made = asking.until_right(Wishes(), "data", lambda: asking.choice("What data?", DATA, "digits"))
    network = made.found.model or "code"
    kind = network if network in MODELS else "torchvision"
    wishes, made = asking.until_right(wishes, "model", lambda: asking.choice("What model?", MODELS, kind, {"torchvision": network}))
    console.say("What you use now is the baseline, which the search must beat.", "bold")
    for name, (question, typed) in SETTINGS.items():
        usual = getattr(made.settings, name)
        wishes, made = asking.until_right(wishes, name, functools.partial(asking.value, question, typed, usual))
    _, made = asking.until_right(wishes, "budget", lambda: asking.budget("What may the search cost (20m, 2h; or 40, in short runs)"))
    return made


class _Asking:
    """Asks, and remembers which sentences on what was found were said already."""

    def __init__(self, console: Console, file: Path) -> None:
        self.console, self.file = console, file
        self.said: set[str] = set()

    def until_right(self, wishes: Wishes, name: str, question: Callable[[], Any]) -> tuple[Wishes, Plan]:
        """Ask for the wish `name` until it can be settled; say what was found."""
        from hptune.starter.compose import plan

        while True:
            try:
                more = wishes.but(**{name: question()})
                made = plan(more, self.file)
            except InputError as error:
                self.console.say(f"{error}", "red")
                continue
            if name in ("data", "model"):
                self._tell(made.sentences)
            return more, made

    def choice(self, question: str, choices: Mapping[str, str], usual: str, places: Mapping[str, str] | None = None) -> str:
        """One of `choices` by its number or word, and where it is, if that is to be said; or anything else, as it was typed."""
        self.console.say(question, "bold")
        width = max(map(len, choices))
        self.console.verbatim([f"  {number}  {word.ljust(width)}  {text}" for number, (word, text) in enumerate(choices.items(), start=1)])
        answer = self._word("number or word", usual)
        words = list(choices)
        if answer.isdecimal():
            if not 1 <= int(answer) <= len(words):
                raise InputError(f"there is no {answer}: type a number from 1 to {len(words)}, or a word")
            answer = words[int(answer) - 1]
        near = difflib.get_close_matches(answer, words, n=1)
        answer = near[0] if near and not Path(answer).exists() else answer
        return self._place(answer, (places or {}).get(answer)) if answer in WHERE else answer

    def value(self, question: str, typed: Callable[[str], Any], usual: Any) -> Any:
        """A number or a word."""
        answer = self._word(question, f"{usual:g}" if isinstance(usual, float) else str(usual))
        try:
            return typed(answer)
        except ValueError:
            raise InputError(f"{answer} is no {'whole ' if typed is int else ''}number") from None

    def budget(self, question: str) -> str | None:
        """A budget, or None for no limit."""
        answer = self._word(question, NO_LIMIT)
        return None if answer in (NO_LIMIT, "no", "none") else answer

    def _place(self, kind: str, usual: str | None) -> str:
        """Where the data or the model are; for a Python file, what in it."""
        from hptune.starter.own import candidates_named

        answer = self._word(WHERE[kind], usual)
        if not answer.endswith(".py"):
            return answer
        return self._word(
            f"which name ({', '.join(candidates_named(answer)) or 'nothing in it looks like one'})", None, prefix=f"{answer}:"
        )

    def _word(self, question: str, usual: str | None, prefix: str = "") -> str:
        """One line of an answer; the end of the input ends the program as Ctrl-C does."""
        try:
            while True:
                given = Prompt.ask(Text(question), console=self.console.terminal, default=usual or "", show_default=bool(usual))
                if given.strip():
                    return prefix + given.strip()
        except EOFError:
            raise KeyboardInterrupt from None

    def _tell(self, sentences: tuple[str, ...]) -> None:
        for sentence in sentences:
            if sentence not in self.said:
                self.console.say(f"  {sentence}", "yellow" if sentence.startswith("note: ") else "green")
        self.said |= set(sentences)
