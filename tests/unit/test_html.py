"""report.html: complete, self-contained, and harmless whatever text is in a run."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fabricated import TASK, TREE, fabricate, sweep_key
from surfaces import Surface

from hptune import report
from hptune.errors import StageError
from hptune.report.charts import make_figures
from hptune.report.html import render, script_json
from hptune.store.journal import Journal
from hptune.store.layout import RunLayout

ATTACK = "</script><script>alert(1)</script><!--"
LOADS = re.compile(r"<(?:script|link|img|iframe|object)[^>]+(?:src|href|data)=[\"']?(?:https?:)?//")


class Page(HTMLParser):
    """Counts elements and gathers text; `scripts` holds each script's type and content."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.scripts: list[list[str]] = []
        self.text = ""
        self._in_script = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append([dict(attrs).get("type") or "", ""])

    def handle_endtag(self, tag: str) -> None:
        self._in_script = self._in_script and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1][1] += data
        else:
            self.text += data


def html_of(folder: Path) -> str:
    run = report.load(folder)
    return render(run, make_figures(run))


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    return html_of(fabricate(tmp_path_factory.mktemp("html") / "run"))


def test_the_summary_comes_first_and_every_part_is_there(html: str) -> None:
    page = Page(html)
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", html.partition("<script type=")[0])
    assert headings == [
        "Recommendation", "Learning rate", "Batch size", "Momentum", "Weight decay", "Joint refinement", "Confirmation at full length",
        "Clues", "Cost", "All trials", "Resolved config", "Environment", "How to repeat it",
    ]  # fmt: skip
    assert page.counts["table"] >= 10
    assert "Better than the baseline at full length" in page.text
    assert "Weight decay 0.001 goes on" in page.text
    assert "the validation part is small" in page.text
    assert "search_epochs: 2" in page.text
    assert "hptune run 'my config.yaml'" in page.text
    assert "--run-dir" in page.text
    assert page.text.count("hptune run 'my config.yaml'") == 1


def test_every_chart_on_the_page_has_its_specification(html: str) -> None:
    places = re.findall(r'data-spec="([^"]+)"', html)
    specs = json.loads(next(content for kind, content in Page(html).scripts if kind == "application/json"))
    assert sorted(specs) == sorted(places)
    assert {"lr_range", "weight_decay", "confirm_gain", "confirm", "confirm_shorter", "confirm_curves", "cost"} <= set(places)
    assert all(spec["width"] == "container" for spec in specs.values())


def test_nothing_is_loaded_from_a_network(html: str) -> None:
    assert not LOADS.search(html)
    assert "default-src 'none'" in html
    assert "unsafe-eval" not in html
    assert "vegaEmbed=" in html.replace(" ", "")
    assert len(html.encode()) < 2_000_000


@pytest.mark.parametrize("text", [ATTACK, "<!-- <script>", "a & b", "\u2028"])
def test_json_in_a_script_cannot_end_it(text: str) -> None:
    written = script_json({"x": text})
    assert not set("<>&\u2028") & set(written)
    assert json.loads(written) == {"x": text}


def test_text_of_a_run_stays_text(tmp_path: Path) -> None:
    folder = fabricate(tmp_path / "run", only=["lr_range"], task=replace(TASK, notes=(ATTACK,)))
    sweep_key(folder, "model.args.kind", [ATTACK, "plain"])
    (folder / "environment.json").write_text(json.dumps({"platform": ATTACK, "invocations": [{"command": ["hptune", ATTACK]}]}))
    with (folder / "config.yaml").open("a") as file:
        file.write(f"# {ATTACK}\n")
    html = html_of(folder)
    page = Page(html)
    assert "alert(1)" not in "".join(content for kind, content in page.scripts if kind != "application/json")
    assert page.counts["script"] == 4
    assert page.text.count(ATTACK) >= 5


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    text = Page(html_of(fabricate(tmp_path / "run", stop_after=9))).text
    assert "This run is unfinished" in text
    assert re.search(r"Unfinished: \d+ of \d+ planned trials are done", text)
    assert "There is no recommendation yet" in text


def test_a_failed_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(StageError):
        fabricate(tmp_path / "run", surface=Surface(diverges_above=0.0))
    text = Page(html_of(tmp_path / "run")).text
    assert "This run failed" in text
    assert "diverged" in text


def test_an_empty_run_has_a_report_too(tmp_path: Path) -> None:
    with Journal(RunLayout(tmp_path).journal):
        pass
    html = html_of(tmp_path)
    assert "Nothing was run yet" in html
    assert Page(html).counts["table"] >= 3


@pytest.mark.parametrize("surface", [Surface(lr=0.1, weight_decay=1e-4, noise=0.2, seed_effect=0.5)])
def test_what_is_not_shown_is_not_claimed(tmp_path: Path, surface: Surface) -> None:
    text = Page(html_of(fabricate(tmp_path / "run", surface=surface))).text
    assert "Better than the baseline" not in text
    assert "is not shown" in text or "it stays" in text


def test_short_runs_alone_are_called_unconfirmed(tmp_path: Path) -> None:
    folder = fabricate(tmp_path / "run", stages={**TREE["stages"], "refine": False, "confirm": False})
    assert "Not confirmed" in Page(html_of(folder)).text
