"""report.html: one file that needs no network, summary first. The context is built purely, then rendered."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from hptune.report.charts import Figure, styled
from hptune.report.frames import cost_frame
from hptune.report.recommended import verdict
from hptune.report.run import Run, StageResult
from hptune.report.tables import (
    RECOMMENDATION_COLUMNS,
    TRIAL_COLUMNS,
    Cell,
    Rows,
    format_cell,
    recommendation_rows,
    stage_columns,
    stage_rows,
    trial_rows,
)
from hptune.store.layout import write_atomic
from hptune.version import __version__

TITLES = {
    "lr_range": "Learning rate",
    "batch_size": "Batch size",
    "momentum": "Momentum",
    "weight_decay": "Weight decay",
    "refine": "Joint refinement",
    "confirm": "Confirmation at full length",
}
STATES = {
    "empty": "Nothing was run yet: no trial has ended.",
    "unfinished": "This run is unfinished: what follows rests on the trials so far.",
    "failed": "This run failed: a stage ended without a usable loss.",
    "finished": "",
}
UNSAFE = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table ready to show: `rows` of (cells, whether the row is stressed); `numeric` columns stand right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], bool], ...]
    numeric: tuple[bool, ...]


def render(run: Run, figures: Mapping[str, Sequence[Figure]]) -> str:
    """Return the report's HTML with `charts.make_figures(run)`."""
    return _template("report.html.j2").render(context(run, figures))


def summary(run: Run) -> str:
    """Return a piece of HTML for a notebook: what is recommended, and each stage's sentence."""
    return _template("notebook.html.j2").render(
        name=run.name,
        state=STATES[run.state],
        verdict=_verdict(run),
        recommendation=_recommendation_table(run),
        sentences=[stage.conclusion.sentence for stage in run.stages if stage.conclusion is not None],
    )


def write_html(run: Run, figures: Mapping[str, Sequence[Figure]]) -> None:
    """Write `report.html`."""
    write_atomic(run.layout.report, render(run, figures))


def context(run: Run, figures: Mapping[str, Sequence[Figure]]) -> dict[str, Any]:
    """Everything the template shows, as text, tables and figures."""
    everything = [figure for own in figures.values() for figure in own]
    return {
        "name": run.name,
        "version": __version__,
        "state": STATES[run.state],
        "notes": (*run.notes, *(offer.sentence for offer in run.recommendation.offers)) if run.recommendation else run.notes,
        "verdict": _verdict(run),
        "tone": "good" if run.recommendation and run.recommendation.better else "plain",
        "tiles": _tiles(run),
        "recommendation": _recommendation_table(run),
        "sections": [_section(stage, figures[stage.name]) for stage in run.stages],
        "cost_figures": figures[""],
        "cost": _cost_table(run),
        "trials": table(TRIAL_COLUMNS, trial_rows(run)),
        "config": run.config_text,
        "environment": _environment_table(run.environment),
        "commands": _commands(run),
        "repeat": f"hptune run {shlex.quote(str(run.layout.config))} --run-dir {shlex.quote(str(run.layout.root) + '-again')}",
        "specs": script_json({figure.name: _spec(figure) for figure in everything}),
        "scripts": Markup(vega_scripts()) if everything else "",
    }


def table(columns: Sequence[str], rows: Rows) -> Table:
    """Format rows for reading; a row with `chosen` is stressed, columns without a single value are left out."""
    kept = [name for name in columns if not rows or any(row[name] is not None for row in rows)]
    return Table(
        columns=tuple(name.replace("_", " ") for name in kept),
        rows=tuple((tuple(format_cell(row[name]) for name in kept), row.get("chosen") == "yes") for row in rows),
        numeric=tuple(all(isinstance(row[name], int | float | None) for row in rows) for name in kept),
    )


def script_json(value: Any) -> Markup:
    """JSON that can stand inside `<script>`: no text in it can end the element or begin a comment."""
    return Markup(json.dumps(value, allow_nan=False, ensure_ascii=False).translate(UNSAFE))


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hptune.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)


def _verdict(run: Run) -> str:
    return verdict(run.recommendation) if run.recommendation else "There is no recommendation yet: no stage has finished."


def _section(stage: StageResult, figures: Sequence[Figure]) -> dict[str, Any]:
    conclusion = stage.conclusion
    return {
        "name": stage.name,
        "title": TITLES.get(stage.name, f"Sweep of {stage.name}"),
        "state": stage.state,
        "progress": f"{len(stage.records)} of {stage.planned} planned trials",
        "sentence": conclusion.sentence if conclusion else "No trial of this stage has ended yet.",
        "notes": conclusion.notes if conclusion else (),
        "started_from": [f"{name} from {source}" for name, source in stage.knowledge.sources if source != "baseline"],
        "table": table(stage_columns(conclusion), stage_rows(conclusion)),
        "figures": figures,
    }


def _tiles(run: Run) -> list[tuple[str, str]]:
    """Name and value of what one wants to know first."""
    tiles: list[tuple[str, str]] = []
    if run.recommendation is not None:
        rows = recommendation_rows(run.recommendation, run.conclusions)
        tiles = [(str(row["hyperparameter"]).replace("_", " "), format_cell(row["recommended"])) for row in rows]
    seconds = sum(record.seconds for record in run.records)
    return [*tiles, ("trials", str(len(run.records))), ("training time", _duration(seconds))]


def _recommendation_table(run: Run) -> Table | None:
    if run.recommendation is None:
        return None
    return table(RECOMMENDATION_COLUMNS, recommendation_rows(run.recommendation, run.conclusions))


def _cost_table(run: Run) -> Table:
    frame = cost_frame(run)
    rows: Rows = [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
    total: dict[str, Cell] = {name: sum(row[name] for row in frame.to_dict("records")) for name in frame.columns if name != "stage"}
    return table(tuple(frame.columns), [*rows, {"stage": "all", **total}] if rows else [])


def _environment_table(environment: Mapping[str, Any]) -> Table:
    """Nested entries with dotted names; the command lines are shown apart."""
    rows: Rows = [{"what": name, "value": value} for name, value in _flat("", environment) if not name.startswith("invocations")]
    return table(("what", "value"), rows)


def _flat(prefix: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [entry for key, item in value.items() for entry in _flat(f"{prefix}.{key}" if prefix else str(key), item)]
    return [(prefix, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))]


def _commands(run: Run) -> list[str]:
    """The recorded command lines, oldest first, repetitions left out."""
    invocations = run.environment.get("invocations")
    if not isinstance(invocations, list):
        return []
    commands = [entry.get("command") for entry in invocations if isinstance(entry, Mapping)]
    return list(dict.fromkeys(shlex.join(map(str, command)) for command in commands if isinstance(command, list) and command))


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"


def _spec(figure: Figure) -> dict[str, Any]:
    """The Vega-Lite specification, as wide as its place."""
    spec: dict[str, Any] = styled(figure.chart).to_dict(validate=False)
    return {**spec, "width": "container", "background": "transparent"}


@cache
def vega_scripts() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, from the installed package: seconds at first, then at once."""
    import vl_convert

    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    if "</script" in script.lower():
        raise RuntimeError("the installed vl-convert's scripts cannot stand inside an HTML page")
    return script
