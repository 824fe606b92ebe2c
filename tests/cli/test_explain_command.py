"""What `hptune explain` says, that it fits a terminal, and that its numbers are those the code decides by."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from conftest import Hptune

from hptune.cli.topics import TOPICS, evidence, paper, running, search, stages
from hptune.config.sections import Confirm
from hptune.stages import STAGES

OF_THE_PAPER = re.compile(r"1cycle|arXiv \d{4}\.\d{5}|sections? \d(\.\d)?( and \d)?|Fig\. \d+b?|Table \d|remarks? \d( and \d)?|4 runs")
OF_FORMULAS_AND_EXAMPLES = re.compile(r"stages? \d( to \d)?|1/|1 - momentum|beta1|L2|--budget (16|20m)|exit status 2")


@pytest.mark.parametrize("topic", [topic for topic in TOPICS if topic != "json"])
def test_a_topic_takes_a_screen_of_80_columns(hptune: Hptune, topic: str) -> None:
    answer = hptune("explain", topic)
    title, blank, *lines = answer.out.splitlines()
    assert (answer.status, answer.err, blank) == (0, "", "")
    assert title == f"{topic}: {TOPICS[topic].title}"
    assert 8 <= len(lines) <= 25
    assert max(map(len, lines)) <= 80
    assert lines[-1].endswith(".")
    assert not re.search(r"[{}]|\bnan\b|\d{7}", answer.out), "what formatting may leave"


def test_a_terminal_wraps_the_paragraphs_itself(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from hptune.cli.console import Console

    console = Console()
    console.terminal.width = 40
    monkeypatch.setattr(type(console.terminal), "is_terminal", True)
    console.prose("one " * 30 + "\n\nnext")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 40
    assert [line.strip() for line in lines[-2:]] == ["", "next"]


def test_without_a_topic_all_are_listed(hptune: Hptune) -> None:
    answer = hptune("explain")
    assert answer.status == 0
    assert [line.split()[0] for line in answer.out.splitlines()[1:-1]] == list(TOPICS)
    assert all(topic.title in answer.out for topic in TOPICS.values())
    assert max(map(len, answer.out.splitlines())) <= 80


def test_the_help_lists_the_same_topics(hptune: Hptune) -> None:
    told = " ".join(re.sub("[│╭╮╰╯─]", " ", hptune("explain", "--help").out).split())
    assert f"{', '.join(TOPICS)}." in told


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_a_topic_by_either_spelling(hptune: Hptune, stage: str) -> None:
    assert hptune("explain", stage).out == hptune("explain", stage.replace("_", "-")).out != ""


@pytest.mark.parametrize(("given", "meant"), [("wd", "weight-decay"), ("1cycle", "one-cycle"), ("Momentum", "momentum")])
def test_other_names_of_a_topic(hptune: Hptune, given: str, meant: str) -> None:
    assert hptune("explain", given).out.startswith(f"{meant}: ")


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ("one-cycl", "error: there is no topic 'one-cycl'; did you mean one-cycle?\n"),
        ("astrology", "error: there is no topic 'astrology'; hptune explain lists those there are\n"),
    ],
)
def test_an_unknown_topic_is_a_mistake(hptune: Hptune, given: str, answer: str) -> None:
    assert (hptune("explain", given).status, hptune("explain", given).err) == (2, answer)


def test_json_has_topic_title_and_text(hptune: Hptune) -> None:
    found = json.loads(hptune("explain", "wd", "--json").out)
    assert found == {"topic": "weight-decay", "title": TOPICS["weight-decay"].title, "text": TOPICS["weight-decay"].text(), "schemas": {}}
    listed = json.loads(hptune("explain", "--json").out)
    assert listed == [{"topic": topic.name, "title": topic.title} for topic in TOPICS.values()]


def test_no_text_needs_torch_or_optuna() -> None:
    code = (
        "import sys; from hptune.cli.topics import TOPICS; [t.text() for t in TOPICS.values()]; "
        "print([m for m in ('torch', 'optuna', 'sklearn', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_references_to_other_topics_lead_somewhere() -> None:
    for topic in TOPICS.values():
        assert set(re.findall(r"hptune explain ([a-z][a-z-]*[a-z])", topic.text())) <= TOPICS.keys()


CONSTANTS = [
    ("lr-range", "hptune.stages.lr_range.MIN_RAMP_STEPS", 61, "at least 61 steps"),
    ("lr-range", "hptune.stages.lr_range.RANGE_POINTS", 25, "at 25 points"),
    ("lr-range", "hptune.stages.lr_range.TEXTBOOK_LR", {"sgd": 0.3, "adamw": 2e-3}, "(0.3 for SGD, 0.002 for AdamW)"),
    ("lr-range", "hptune.analysis.curves.MINIMUM_OVER_BEST", 1.7, "divided by 1.7"),
    ("batch-size", "hptune.stages.batch_size.TOLERANCE", 1.25, "within a factor of 1.25 count as equal"),
    ("batch-size", "hptune.stages.batch_size.NEAR", 1.07, "at most 7 %"),
    ("batch-size", "hptune.stages.batch_size.LR_EXPONENT", {"sgd": 0.8, "adamw": 0.6}, "0.8 (SGD) or 0.6 (AdamW)"),
    ("weight-decay", "hptune.stages.weight_decay.EXTENSIONS", 3, "3 times at most"),
    ("refine", "hptune.analysis.recommendation.DECAY_STEP", 3.5, "3.5 times its weight decay"),
    ("refine", "hptune.stages.refine.FEWEST_LONGER", 4, "at full length from 4 on"),
    ("confirm", "hptune.analysis.recommendation.DECAY_STEP", 3.5, "3.5 times the weight decay"),
    ("confirm", "hptune.stages.confirm.SHARES", (0.6, 0.3), "0.6 and 0.3 of the length"),
    ("budget", "hptune.knowledge.SMALL", 17, "From 17 short runs on"),
    ("statistics", "hptune.analysis.scale.MIN_DF", 5, "Below 5 degrees of freedom"),
    ("statistics", "hptune.analysis.scale.NEAR", 0.02, "at most 2 % of the loss"),
    ("statistics", "hptune.analysis.scale.CONFIDENCE", 0.9, "simultaneous 90 % comparison"),
    ("verdicts", "hptune.trial.LARGEST", 1e90, "above 1e+90"),
    ("clues", "hptune.analysis.diagnosis.RISE", 1.06, "above 1.06 times its lowest"),
    ("clues", "hptune.analysis.diagnosis.GAP", 1.3, "at most 1.3 times the training loss"),
    ("continuing", "hptune.store.journal.FORMAT", 9, "newer format than 9"),
    ("executors", "hptune.calibration.WORTH_DOUBLING", 1.25, "grow by at least 25 %"),
]


@pytest.mark.parametrize(("topic", "constant", "value", "said"), CONSTANTS, ids=lambda part: str(part)[:40])
def test_a_changed_constant_changes_the_text(monkeypatch: pytest.MonkeyPatch, topic: str, constant: str, value: Any, said: str) -> None:
    assert said not in TOPICS[topic].text()
    monkeypatch.setattr(constant, value)
    assert said in TOPICS[topic].text()


def test_defaults_are_those_of_the_config() -> None:
    default = Confirm()
    text = TOPICS["confirm"].text()
    assert f"({default.finalists} by default)" in text
    assert f"With {default.seeds} seeds" in text


@pytest.mark.parametrize("module", [stages, search, evidence, paper, running], ids=lambda module: module.__name__.rpartition(".")[2])
def test_no_number_of_the_code_is_typed_a_second_time(module: ModuleType) -> None:
    for text in typed(module):
        left = OF_FORMULAS_AND_EXAMPLES.sub("", OF_THE_PAPER.sub("", " ".join(text.split())))
        assert re.findall(r".{0,20}\d.{0,20}", left) == []


def typed(module: ModuleType) -> Iterator[str]:
    """What stands in the texts of a module as it is: what their functions return, without what is put in."""
    for function in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(function, ast.Return):
            parts = function.value.values if isinstance(function.value, ast.JoinedStr) else [function.value]
            yield "…".join(str(part.value) for part in parts if isinstance(part, ast.Constant))
