"""report.html: one file that needs no network, summary first. The context is built purely, then rendered."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from hptune.report.charts import Figure
from hptune.report.frames import cost_frame
from hptune.report.page_tables import (
    best_trials,
    clue_table,
    cost_table,
    environment_table,
    recommendation_table,
    stage_table,
)
from hptune.report.recommended import verdict
from hptune.report.run import Run, StageResult
from hptune.report.titles import HYPERPARAMETERS, title_of
from hptune.report.trial_data import ROWS, trial_data
from hptune.report.why import gain_range, metric_name, why
from hptune.store.layout import write_atomic
from hptune.version import __version__

STATES = {
    "empty": "Nothing was run yet: no trial has ended.",
    "unfinished": "This run is unfinished: what follows rests on the trials so far.",
    "failed": "This run failed: a stage ended without a usable loss.",
    "finished": "",
}
UNSAFE = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
TEMPLATES = "templates"
SCRIPTS = ("charts.js", "curves.js", "trials.js", "page.js")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
LOOK: dict[str, Any] = {"width": "container", "background": "transparent", "autosize": {"type": "fit-x", "contains": "padding"}}


def render(run: Run, figures: Mapping[str, Sequence[Figure]]) -> str:
    """Return the report's HTML with `charts.make_figures(run)`."""
    return _template("report.html.j2").render(context(run, figures))


def summary(run: Run) -> str:
    """Return a piece of HTML for a notebook: what is recommended, and each stage's sentence."""
    return _template("notebook.html.j2").render(
        name=run.name,
        state=STATES[run.state],
        verdict=_verdict(run),
        why=why(run),
        recommendation=recommendation_table(run),
        sentences=[(title_of(stage.name), stage.conclusion.sentence) for stage in run.stages if stage.conclusion is not None],
    )


def write_html(run: Run, figures: Mapping[str, Sequence[Figure]]) -> None:
    """Write `report.html`."""
    write_atomic(run.layout.report, render(run, figures))


def context(run: Run, figures: Mapping[str, Sequence[Figure]]) -> dict[str, Any]:
    """Everything the template shows, as text, tables and figures."""
    everything = [figure for own in figures.values() for figure in own]
    scripts = [*([vega_scripts()] if everything else []), own_script()]
    trials = {**trial_data(run), "look": {**LOOK, "config": _config(everything)}}
    return {
        "name": run.name,
        "version": __version__,
        "state": STATES[run.state],
        "notes": (*run.notes, *(offer.sentence for offer in run.recommendation.offers)) if run.recommendation else run.notes,
        "verdict": _verdict(run),
        "tone": "good" if run.recommendation and run.recommendation.better else "plain",
        "why": why(run),
        "tiles": _tiles(run),
        "recommendation": recommendation_table(run),
        "settings": _settings(run),
        "train": shlex.join(["hptune", "train", str(run.layout.recommended)]),
        "sections": [_section(stage, figures[stage.name], metric_name(run)) for stage in run.stages],
        "clues": clue_table(run),
        "cost_figures": figures[""],
        "cost": cost_table(run),
        "trials": trials,
        "best_trials": best_trials(run),
        "left_out": f"The first {ROWS:,} of {len(run.records):,} trials are here." if len(run.records) > ROWS else "",
        "config": run.config_text,
        "environment": environment_table(run.environment),
        "commands": _commands(run),
        "repeat": f"hptune run {shlex.quote(str(run.layout.config))} --run-dir {shlex.quote(str(run.layout.root) + '-again')}",
        "specs": script_json({figure.name: _spec(figure) for figure in everything}),
        "trial_json": script_json(trials),
        "style": Markup(_asset("report.css")),
        "scripts": [Markup(script) for script in scripts],
        "script_hashes": Markup(" ".join(_source_hash(script) for script in scripts)),
    }


def script_json(value: Any) -> Markup:
    """JSON that can stand inside `<script>`: no text in it can end the element or begin a comment."""
    return Markup(json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).translate(UNSAFE))


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hptune.report", TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)


def _verdict(run: Run) -> str:
    return verdict(run.recommendation) if run.recommendation else "There is no recommendation yet: no stage has finished."


def _section(stage: StageResult, figures: Sequence[Figure], metric: str) -> dict[str, Any]:
    conclusion = stage.conclusion
    return {
        "name": stage.name,
        "title": title_of(stage.name),
        "state": stage.state,
        "progress": f"{len(stage.records)} of {stage.planned} planned trials",
        "sentence": _capitalized(conclusion.sentence) if conclusion else "No trial of this stage has ended yet.",
        "notes": [_capitalized(note) for note in conclusion.notes] if conclusion else (),
        "started_from": _started_from(stage),
        "caption": f"{title_of(stage.name)}: candidates, best first; the arrow marks what goes on",
        "table": stage_table(stage, metric),
        "figures": figures,
    }


def _started_from(stage: StageResult) -> list[str]:
    """Earlier stages with the values that came from them."""
    origins: dict[str, list[str]] = {}
    for name, source in stage.knowledge.sources:
        if source != "baseline":
            origins.setdefault(source, []).append(HYPERPARAMETERS.get(name, name))
    return [f"{', '.join(names)} of the stage {title_of(source).lower()}" for source, names in origins.items()]


def _tiles(run: Run) -> list[tuple[str, str, str]]:
    """What one wants to know first: name, value, and what belongs to the value."""
    tiles: list[tuple[str, str, str]] = []
    if run.recommendation is not None and run.recommendation.confirmed:
        change, interval = gain_range(run.recommendation)
        if change:
            tiles.append(("validation loss, against the baseline", change, interval))
    cost = cost_frame(run)
    for title, part in (("search", cost[cost["stage"] != "confirm"]), ("confirmation", cost[cost["stage"] == "confirm"])):
        if part["trials"].sum():
            value = _duration(float(part["seconds"].sum()))
            worth = f"{part['trials'].sum():,} trials, {part['short_runs'].sum():.3g} short runs' worth"
            tiles.append((f"cost of the {title}", value, worth))
    return tiles


def _settings(run: Run) -> str:
    """The recommended settings as the block `hyperparameters` of a config."""
    if run.recommendation is None:
        return ""
    h = run.recommendation.hyperparameters
    return "hyperparameters:\n" + "".join(f"  {name}: {getattr(h, name)}\n" for name in h.__dataclass_fields__)


def _commands(run: Run) -> list[str]:
    """The recorded command lines, oldest first, repetitions left out."""
    invocations = run.environment.get("invocations")
    if not isinstance(invocations, list):
        return []
    commands = [entry.get("command") for entry in invocations if isinstance(entry, Mapping)]
    return list(dict.fromkeys(shlex.join(map(str, command)) for command in commands if isinstance(command, list) and command))


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"


def _spec(figure: Figure) -> dict[str, Any]:
    """The Vega-Lite specification, as wide as its place."""
    return {**figure.spec, **LOOK, "config": {**figure.spec["config"], "font": FONT}}


def _config(figures: Sequence[Figure]) -> dict[str, Any]:
    """The look that the page's own charts share with the others."""
    return _spec(figures[0])["config"] if figures else {}


@cache
def _asset(name: str) -> str:
    return (resources.files("hptune.report") / TEMPLATES / name).read_text(encoding="utf-8")


def own_script() -> str:
    """The page's own script: its files, one after the other, in a scope of their own."""
    return '"use strict";\n{\n' + "\n".join(_asset(name) for name in SCRIPTS) + "}\n"


def _source_hash(script: str) -> str:
    """What the page's policy knows a script by: no other one runs."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


@cache
def vega_scripts() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, from the installed package: seconds at first, then at once."""
    import vl_convert

    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("\r\n", "\n").replace("\r", "\n")
    if "</script" in script.lower() or "<!--" in script:
        raise RuntimeError("the installed vl-convert's scripts cannot stand inside an HTML page")
    return script
