"""The report opened in a real browser: it is whole, offline and handy, and what a run's texts say is shown and never run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fabricated import TASK, fabricate, many_trials, sweep_key
from surfaces import Surface

from hptune.report import load
from hptune.report.charts import make_figures
from hptune.report.html import render
from hptune.trial import TrialRecord, TrialSpec

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (path := shutil.which(name))), None)
if BROWSER is None:
    pytest.skip("no Chromium on the PATH: the report was not seen in a browser", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright: the report was not seen in a browser")

RUNS = "document.documentElement.setAttribute('data-run', '1')"
ATTACKS = (
    f'<img src=x onerror="{RUNS}">',
    f"</script><script>{RUNS}</script>",
    f'\'"><svg onload="{RUNS}">',
    f"{{{{ {RUNS} }}}}",
    f"javascript:{RUNS}",
    f"</style><script>{RUNS}</script>",
    f"--><script>{RUNS}</script>",
)
DRAWN = "html[data-drawn=all]"
BRIGHTNESS = "getComputedStyle({}).{}.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0) / 3"
Open = Callable[..., Any]


class Hostile(Surface):
    """Trials of which one fails with an attack as its error."""

    def __call__(self, spec: TrialSpec) -> TrialRecord:
        record = super().__call__(spec)
        return replace(record, error=ATTACKS[0]) if spec.repetition else record


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Open]:
    """Opens a page until its charts are drawn; fails the test where a page says, asks for or throws anything at all."""
    troubles: list[str] = []
    contexts = []

    def opened(page: Path, *, drawn: bool = True, **settings: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(60_000)
        tab.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: troubles.append(str(error)))
        tab.on("request", lambda request: request.url == page.as_uri() or troubles.append(f"asked for {request.url}"))
        tab.goto(page.as_uri())
        if drawn:
            tab.wait_for_selector(DRAWN, state="attached")
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate(tmp_path_factory.mktemp("browser") / "run")


@pytest.fixture(scope="module")
def report(folder: Path) -> Path:
    return write(folder.parent / "a report.html", load(folder))


def write(path: Path, run: Any) -> Path:
    path.write_text(render(run, make_figures(run)), encoding="utf-8")
    return path


def column(tab: Any, title: str) -> list[str]:
    titles = tab.locator("#trial-table th").all_inner_texts()
    place = next(i for i, text in enumerate(titles, start=1) if text.strip(" ▲▼↕") == title)
    return list(tab.locator(f"#trial-table tbody td:nth-child({place})").all_inner_texts())


def test_every_chart_is_drawn_and_answers_the_mouse(visit: Open, report: Path) -> None:
    tab = visit(report)
    assert tab.locator("[data-spec]").count() == tab.locator("[data-spec] svg").count() >= 14
    point = tab.locator("[data-spec=lr_range] .mark-symbol.role-mark path").nth(3)
    point.scroll_into_view_if_needed()
    point.hover(force=True)
    tip = tab.locator("#vg-tooltip-element.visible").inner_text()
    assert "lr" in tip
    assert "loss" in tip


def test_trials_are_sorted_by_click_and_by_keyboard(visit: Open, report: Path) -> None:
    tab = visit(report, drawn=False)
    head = tab.locator("#trial-table th", has=tab.locator("button", has_text="val loss")).first
    head.locator("button").click()
    rising = [float(text) for text in column(tab, "val loss")]
    assert rising == sorted(rising)
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").focus()
    tab.keyboard.press("Enter")
    losses = [float(text) for text in column(tab, "val loss")]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > rising[0]
    assert tab.locator("#trial-table th[aria-sort]").count() == 1
    assert head.get_attribute("aria-sort") == "descending"


def test_trials_are_filtered_and_turned_over(visit: Open, folder: Path, report: Path) -> None:
    tab = visit(report, drawn=False)
    total = len(load(folder).records)
    assert tab.locator("#trial-table tbody tr").count() == 25
    tab.locator("#trial-on").click()
    assert column(tab, "#")[0] == "26"
    tab.fill("#trial-filter", "momentum completed")
    assert set(column(tab, "stage")) == {"Momentum"}
    assert f"filtered from {total}" in tab.inner_text("#trial-count")
    tab.fill("#trial-filter", "no such trial")
    assert tab.locator("#trial-table tbody tr").count() == 0


def test_the_curves_of_any_trials_stand_side_by_side(visit: Open, report: Path) -> None:
    tab = visit(report)
    assert tab.locator("#curve-legend li").count() == 2, "what is recommended and the baseline are there at first"
    for box in tab.locator("#trial-table tbody input").all()[4:6]:
        box.focus()
        tab.keyboard.press("Space")
    tab.wait_for_function("document.querySelectorAll('#curves .mark-line path').length === 8")
    assert "Curves of 4 chosen trials" in tab.inner_text("#curve-count")
    tab.locator("#curves-apart").focus()
    tab.keyboard.press("Space")
    tab.wait_for_function("document.querySelectorAll('#curves svg').length === 4")
    tab.locator("#curve-legend button").first.click()
    tab.wait_for_function("document.querySelectorAll('#curves svg').length === 3")
    tab.locator("#curves-reset").click()
    tab.wait_for_function("document.querySelectorAll('#curves svg').length === 2")
    assert tab.locator("#trial-table tbody input:checked").count() <= 2


def test_dark_mode_reaches_the_charts(visit: Open, report: Path) -> None:
    tab = visit(report, color_scheme="dark")
    label = "document.querySelector('[data-spec=momentum] .role-axis-label text')"
    assert tab.evaluate(BRIGHTNESS.format("document.body", "backgroundColor")) < 60
    assert tab.evaluate(BRIGHTNESS.format(label, "fill")) > 180
    tab.emulate_media(media="print", color_scheme="dark")
    assert tab.evaluate(BRIGHTNESS.format("document.body", "backgroundColor")) == 255
    assert tab.evaluate(BRIGHTNESS.format(label, "fill")) < 60


def test_a_phone_has_nothing_beyond_its_edge(visit: Open, report: Path) -> None:
    tab = visit(report, viewport={"width": 390, "height": 844})
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    widths = tab.evaluate("[...document.querySelectorAll('[data-spec] svg')].map((svg) => svg.getBoundingClientRect().right)")
    assert max(widths) <= 390


def test_paper_has_everything(visit: Open, folder: Path, report: Path) -> None:
    tab = visit(report, viewport={"width": 700, "height": 1000})
    tab.emulate_media(media="print")
    tab.wait_for_function(f"document.querySelectorAll('#trial-table tbody tr').length === {len(load(folder).records)}")
    seen = "[...document.querySelectorAll('{}')].every((part) => part.getClientRects()[0] && getComputedStyle(part).overflowX !== 'auto')"
    assert tab.evaluate(seen.format("section, figure svg, .scroll, #config pre"))
    assert not tab.locator("nav").is_visible()
    edges = "[...document.querySelectorAll('table, svg')].map((part) => part.getBoundingClientRect().right)"
    assert max(tab.evaluate(edges)) <= 700


def test_it_can_be_walked_by_landmarks_and_keyboard(visit: Open, report: Path) -> None:
    tab = visit(report, drawn=False)
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the report"
    assert tab.evaluate("document.querySelectorAll('header, nav[aria-label], main').length") == 3
    nameless = "[...document.querySelectorAll('{}')].filter((part) => !part.{}).length"
    assert tab.evaluate(nameless.format("section", "getAttribute('aria-labelledby')")) == 0
    assert tab.evaluate(nameless.format("table", "caption?.textContent.trim()")) == 0
    assert tab.evaluate(nameless.format("th", "getAttribute('scope')")) == 0
    assert tab.evaluate(nameless.format(".chart", "getAttribute('aria-label')")) == 0


def test_settings_can_be_copied(visit: Open, report: Path) -> None:
    tab = visit(report, drawn=False, permissions=["clipboard-read", "clipboard-write"])
    tab.locator("[data-copy=settings]").click()
    tab.wait_for_selector("[data-copy=settings]:has-text('Copied')")
    assert tab.evaluate("navigator.clipboard.readText()").startswith("hyperparameters:\n  lr: ")


def test_without_scripts_the_numbers_are_there(browser: Any, folder: Path, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(report.as_uri())
    text = tab.locator("body").inner_text()
    context.close()
    assert "figures/ beside this file" in text
    best = min((record for record in load(folder).records if record.usable), key=lambda record: record.val_loss)
    assert best.trial_id in text


@pytest.mark.slow
def test_a_run_of_five_thousand_trials_opens(visit: Open, folder: Path) -> None:
    run = many_trials(load(folder), sweeps=5, candidates=20, seeds=50)
    assert len(run.records) > 5000
    page = write(folder.parent / "many.html", run)
    assert page.stat().st_size < 10_000_000
    tab = visit(page, drawn=False)
    tab.wait_for_selector("[data-spec] svg")
    assert tab.locator("tr").count() < 500
    tab.fill("#trial-filter", "sweep.3")
    assert f"of 1000, filtered from {len(run.records)}" in tab.inner_text("#trial-count")


@pytest.mark.parametrize("stop_after", [0, 9])
def test_a_run_that_is_not_finished_opens(visit: Open, tmp_path: Path, stop_after: int) -> None:
    tab = visit(write(tmp_path / "report.html", load(fabricate(tmp_path / "run", stop_after=stop_after))), drawn=stop_after > 0)
    assert tab.locator(".warn").first.is_visible()
    assert tab.locator("#curve-count").inner_text()


def test_no_script_of_a_config_a_file_or_an_exception_runs(browser: Any, tmp_path: Path) -> None:
    """Not even without the page's policy, which would stop it: every text is escaped."""
    folder = fabricate(tmp_path / "a run", surface=Hostile(), only=["lr_range", "momentum"], task=replace(TASK, notes=ATTACKS))
    sweep_key(folder, "model.args.kind", [*ATTACKS, "plain"])
    (folder / "environment.json").write_text(json.dumps({"platform": ATTACKS[0], "invocations": [{"command": ["hptune", *ATTACKS]}]}))
    with (folder / "config.yaml").open("a") as file:
        file.writelines(f"# {attack}\n" for attack in ATTACKS)
    context = browser.new_context(bypass_csp=True)
    tab = context.new_page()
    tab.goto(write(tmp_path / "report.html", load(folder)).as_uri())
    tab.wait_for_selector(DRAWN, state="attached")
    tips = set()
    for mark in tab.locator("[data-spec='model.args.kind'] .mark-symbol.role-mark path").all()[:12]:
        mark.hover(force=True)
        tips |= set(tab.locator("#vg-tooltip-element.visible").all_inner_texts())
    for head in tab.locator("#trial-table th button").all():
        head.click()
    tab.fill("#trial-filter", "onerror")
    assert ATTACKS[0] in column(tab, "error")
    assert any("alert" in tip or "document" in tip for tip in tips), "no chart shows what it is hovered over"
    assert not tab.evaluate("document.documentElement.hasAttribute('data-run')")
    text = tab.locator("body").inner_text()
    context.close()
    for attack in ATTACKS:
        assert attack in text, "the text is not shown"


def test_the_browser_would_have_seen_a_script_run(browser: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(f"<html><body>{ATTACKS[0]}</body></html>")
    tab = browser.new_page()
    tab.goto(page.as_uri())
    tab.wait_for_selector("html[data-run='1']", state="attached")
    tab.close()
