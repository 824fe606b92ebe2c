"""From a run directory to tables, charts, a report and exports. Nothing here trains, and nothing imports torch."""
