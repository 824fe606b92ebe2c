"""The report opened in a real browser: what a config, a file or an exception says is shown, and never run."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from fabricated import TASK, fabricate, sweep_key
from surfaces import Surface

from hptune.report import load, write_report
from hptune.trial import TrialRecord, TrialSpec

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (path := shutil.which(name))), None)
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
HOVER = """
<script>
addEventListener("load", () => setTimeout(() => {
  const tips = new Set();
  for (const mark of document.querySelectorAll("svg path, svg text")) {
    const box = mark.getBoundingClientRect();
    const at = {bubbles: true, clientX: box.left + box.width / 2, clientY: box.top + box.height / 2};
    for (const event of [new PointerEvent("pointermove", at), new MouseEvent("mousemove", at)]) mark.dispatchEvent(event);
    const tip = document.querySelector("#vg-tooltip-element.visible");
    if (tip) tips.add(tip.textContent);
  }
  document.documentElement.setAttribute("data-tooltips", [...tips].join(" | "));
  for (const head of document.querySelectorAll(".sortable th")) head.click();
}, 1500));
</script>
"""


class Hostile(Surface):
    """Trials of which one fails with an attack as its error."""

    def __call__(self, spec: TrialSpec) -> TrialRecord:
        record = super().__call__(spec)
        return replace(record, error=ATTACKS[0]) if spec.repetition else record


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH: what a browser makes of hostile text was not seen")
def test_no_script_of_a_config_a_file_or_an_exception_runs(tmp_path: Path) -> None:
    folder = fabricate(tmp_path / "a run", surface=Hostile(), task=replace(TASK, notes=ATTACKS))
    sweep_key(folder, "model.args.kind", [*ATTACKS, "plain"])
    (folder / "environment.json").write_text(json.dumps({"platform": ATTACKS[0], "invocations": [{"command": ["hptune", *ATTACKS]}]}))
    with (folder / "config.yaml").open("a") as file:
        file.writelines(f"# {attack}\n" for attack in ATTACKS)
    write_report(load(folder))
    page = folder / "report.html"
    page.write_text(HOVER.join(page.read_text().rsplit("</body>", 1)))
    seen = dom(page, tmp_path / "profile")
    tooltips = seen.partition('data-tooltips="')[2].partition('"')[0]
    assert "plain" in tooltips, "no chart was drawn, or none shows what it is hovered over"
    assert 'data-run="1"' not in seen
    for attack in ATTACKS:
        assert html.escape(attack, quote=False) in seen, "the text is not shown"


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH")
def test_the_browser_would_have_seen_a_script_run(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(f"<html><body>{ATTACKS[0]}</body></html>")
    assert 'data-run="1"' in dom(page, tmp_path / "profile")


def dom(page: Path, profile: Path) -> str:
    """The page as it stands after its scripts ran."""
    switches = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")
    command = [str(BROWSER), *switches, f"--user-data-dir={profile}", "--virtual-time-budget=8000", "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
