"""From a run directory to tables, charts, a report and exports. Nothing here trains, and nothing imports torch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from hptune.report.reading import load
from hptune.report.recommended import write_recommended
from hptune.report.run import Run, StageResult
from hptune.report.tables import write_tables

__all__ = ["Run", "StageResult", "load", "write_report", "write_results", "write_tables"]


def write_results(run: Run) -> None:
    """Write the tables and, where there is a recommendation, `recommended.yaml`."""
    write_tables(run)
    write_recommended(run)


def write_report(run: Run) -> None:
    """Write `report.html` and the PNG figures."""
    from hptune.report.charts import make_figures, write_figures
    from hptune.report.html import vega_scripts, write_html

    with ThreadPoolExecutor(max_workers=1) as beside:
        beside.submit(vega_scripts)  # takes as long as all figures, on another core
        figures = make_figures(run)
        write_figures(run, figures)
    write_html(run, figures)
