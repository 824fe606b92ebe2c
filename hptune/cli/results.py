"""Tables of results for the terminal, from conclusions and the recommendation. Pure text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hptune.cli import words
from hptune.cli.tables import Column, Table
from hptune.trial import Task

if TYPE_CHECKING:
    from hptune.analysis.ranking import Row
    from hptune.analysis.recommendation import Conclusion, Recommendation
    from hptune.estimate import Check


def finding(conclusion: Conclusion) -> str:
    """A stage's sentence, which says by itself what it is about."""
    title = words.title(conclusion.stage)
    return conclusion.sentence if conclusion.sentence.startswith(title) else f"{title}: {conclusion.sentence}"


def stage_table(conclusion: Conclusion, metric: str = "metric") -> Table:
    """The ranked table of a stage; the row that goes on is marked."""
    rows = conclusion.rows
    swept = [name for name, _ in rows[0].values] if rows else []
    columns = [
        Column(title="", importance=8, words=True),
        Column(title="rank", importance=4),
        *(Column(title=name.replace("_", " "), importance=10 if i == 0 else 7, words=name == "candidate") for i, name in enumerate(swept)),
        Column(title="val loss", importance=9),
        Column(title="95 %", importance=6),
        Column(title=metric, importance=7),
        Column(title="train loss", importance=3),
        Column(title="seeds", importance=5),
        Column(title="verdict", importance=8, words=True),
        Column(title="clue", importance=4, words=True),
        Column(title="steps", importance=2),
        Column(title="samples/s", importance=1),
        Column(title="seconds", importance=2),
    ]
    cells = tuple(_cells(rank, row) for rank, row in enumerate(rows, start=1))
    return Table(columns=tuple(columns), rows=cells, marked=frozenset(i for i, row in enumerate(rows) if row.chosen))


def recommendation_table(recommendation: Recommendation, epochs: float | None = None) -> Table:
    """Each hyper-parameter: the baseline's value, the recommended one, and where it came from; `epochs`: the config's own length."""
    origin = dict(recommendation.sources)
    rows = []
    for name, label in words.LABELS.items():
        own, found = getattr(recommendation.baseline, name), getattr(recommendation.hyperparameters, name)
        source = origin.get(name, "baseline")
        rows.append((label, words.number(own), words.number(found), words.title(source)))
    if epochs is not None and epochs != recommendation.epochs:
        rows.append(("epochs", words.number(epochs), words.number(recommendation.epochs), "the same time at the new batch size"))
    columns = (
        Column(title="hyper-parameter", importance=10, words=True),
        Column(title="baseline", importance=8),
        Column(title="recommended", importance=9),
        Column(title="from", importance=7, prose=True),
    )
    changed = frozenset(i for i, row in enumerate(rows) if row[1] != row[2])
    return Table(columns=columns, rows=tuple(rows), marked=changed)


def gain_sentence(recommendation: Recommendation) -> str:
    """What the recommendation is worth, and how far that was shown."""
    if not recommendation.confirmed:
        return "not confirmed: no training at full length has compared it with the baseline yet"
    gain = recommendation.gain
    if recommendation.hyperparameters == recommendation.baseline:
        return "at full length no candidate beat the baseline: keep the baseline"
    if gain is None:
        return "at full length the baseline gave no usable loss; the recommendation did"
    text = f"at full length the validation loss is {words.number(gain['ratio'])} times the baseline's"
    if gain["low"] == gain["low"]:
        text += f" (95 %: {words.number(gain['low'])} to {words.number(gain['high'])})"
    return text + (": better than the baseline" if recommendation.better else "; that it is better than the baseline is not shown")


def _cells(rank: int, row: Row) -> tuple[str, ...]:
    low, high = words.number(row.val_loss_low), words.number(row.val_loss_high)
    return (
        "→" if row.chosen else "",
        str(rank),
        *(words.number(value) for _, value in row.values),
        words.number(row.val_loss),
        f"{low} to {high}" if low and high else "",
        words.number(row.metric),
        words.number(row.train_loss),
        str(row.seeds),
        row.verdict.replace("_", " "),
        row.clue,
        str(row.steps),
        words.number(row.samples_per_second),
        words.number(row.seconds),
    )


def facts_line(task: Task | Check) -> str:
    """Data, model and device in one line."""
    numerics = task.numerics
    samples = f"{task.train_samples:,} training, {task.val_samples:,} validation"
    samples += f", {task.test_samples:,} test samples" if task.test_samples else " samples"
    kind = f"{task.classes} classes" if task.classes else "regression"
    return f"{samples}; {kind}; {words.count(task.parameters, 'parameter')}; {words.device(numerics)}, {words.numerics(numerics)}"


def estimate_table(check: Check) -> Table:
    """What each stage is expected to cost."""
    columns = (
        Column(title="stage", importance=10, words=True),
        Column(title="trials", importance=8),
        Column(title="steps", importance=6),
        Column(title="samples", importance=5),
        Column(title="longest, epochs", importance=7),
        Column(title="time", importance=9),
    )
    cells = [
        (words.title(s.stage), f"{s.trials:,}", f"{s.steps:,}", f"{s.samples:,}", f"{s.longest:.3g}", words.duration(s.seconds))
        for s in check.stages
    ]
    return Table(columns=columns, rows=tuple(cells))


def runs_table(summaries: Sequence[Mapping[str, Any]]) -> Table:
    """A list of runs, as `documents.run_summary` describes each."""
    columns = (
        Column(title="run", importance=10, words=True),
        Column(title="state", importance=9, words=True),
        Column(title="stages", importance=5),
        Column(title="confirmed", importance=7, words=True),
        Column(title="trials", importance=6),
        Column(title="time", importance=7),
        Column(title="best loss", importance=8),
        Column(title="best metric", importance=7),
        Column(title="recommended", importance=4, words=True),
    )
    return Table(columns=columns, rows=tuple(_run_cells(summary) for summary in summaries))


def differing_keys(a: Mapping[str, Any], b: Mapping[str, Any], inside: str = "") -> list[str]:
    """Dotted keys whose values differ between two configs."""
    keys: list[str] = []
    for name in dict.fromkeys((*a, *b)):
        one, other = a.get(name), b.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            keys += differing_keys(one, other, f"{inside}{name}.")
        elif one != other:
            keys.append(f"{inside}{name}")
    return keys


def _run_cells(summary: Mapping[str, Any]) -> tuple[str, ...]:
    if "error" in summary:
        return (summary["run_dir"], summary["state"], "", "", "", "", "", "", summary["error"])
    found = summary["recommendation"]
    recommended = ""
    if found:
        recommended = f"LR {words.number(found['lr'])}, batch {found['batch_size']}, momentum {words.number(found['momentum'])}, "
        recommended += f"wd {words.number(found['weight_decay'])}"
    return (
        summary["run_dir"],
        summary["state"],
        str(len(summary["stages_done"])),
        "yes" if summary["confirmed"] else "no",
        str(summary["trials"]),
        words.duration(summary["seconds"]),
        words.number(summary["best_loss"]),
        words.number(summary["best_metric"]),
        recommended,
    )
