"""From a ranking to a conclusion, the same way in every stage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hptune.analysis.causes import findings
from hptune.analysis.ranking import Ranking, Row, disagreement
from hptune.analysis.recommendation import Conclusion
from hptune.analysis.wording import format_number
from hptune.trial import TrialRecord, is_result


def conclusion(
    stage: str,
    ranking: Ranking,
    done: Sequence[TrialRecord],
    chosen: Row | None,
    *,
    sentence: str,
    notes: Sequence[str] = (),
    detail: Mapping[str, Any] | None = None,
) -> Conclusion:
    """Assemble a stage's conclusion: `chosen` is the row that goes on; costs are summed over all its trials."""
    causes = [finding.sentence for finding in findings(ranking, chosen)] if chosen else []
    remarks = [disagreement(ranking), failures(done), without_metric(ranking, done)]
    return Conclusion(
        stage=stage,
        sentence=sentence,
        notes=(*notes, *causes, *(remark for remark in remarks if remark)),
        chosen=chosen.hyperparameters if chosen else None,
        rows=(ranking.choose(chosen) if chosen else ranking).rows,
        noise=ranking.noise,
        trials=len(done),
        samples=sum(record.samples for record in done),
        seconds=sum(record.seconds for record in done),
        detail=detail or {},
    )


def failures(done: Sequence[TrialRecord]) -> str | None:
    """A sentence on trials that raised, with the first error."""
    failed = [record for record in done if record.status == "failed"]
    return f"{len(failed)} of {len(done)} trials failed: {failed[0].error}" if failed else None


def without_metric(ranking: Ranking, done: Sequence[TrialRecord]) -> str | None:
    """A sentence on trials with a loss but no finite metric; where all of them are NaN and the loss is ranked by, none was asked for."""
    usable = [record for record in done if record.usable]
    lost = [record for record in usable if not is_result(record.metric)]
    if not lost or (ranking.criterion == "val_loss" and all(math.isnan(record.metric) for record in usable)):
        return None
    effect = ": they cannot win" if ranking.criterion == "metric" else ""
    return f"{len(lost)} of {len(done)} trials ended without a finite metric{effect}"


def comparison(name: str, ranking: Ranking, chosen: Row, *, preferred: str) -> str:
    """One sentence on a sweep: the value that goes on, its loss, what it was told apart from, and why it was preferred."""
    value = format_number(dict(chosen.values)[name])
    rows = [row for row in ranking.rows if row is not chosen]
    worse = sum(row.verdict not in ("best", "tied") for row in rows)
    text = f"{name.replace('_', ' ')} {value} goes on: loss {format_number(chosen.val_loss)}{interval(chosen)}"
    if ranking.best is not chosen and ranking.best is not None:
        best = ranking.best
        text += (
            f", {preferred} than {format_number(dict(best.values)[name])}, whose loss {format_number(best.val_loss)} is within the noise"
        )
    if rows:
        others = "the other" if len(rows) == 1 else f"the {len(rows)} others"
        shown = others if worse == len(rows) else f"{worse} of {others}"
        text += f"; {shown} shown to be worse" if worse else f"; not told apart from {others}"
    return text


def interval(row: Row) -> str:
    """` [low, high]`, or nothing where no interval can be given."""
    if row.val_loss_low != row.val_loss_low:
        return ""
    return f" [{format_number(row.val_loss_low)}, {format_number(row.val_loss_high)}]"


def nothing_usable(what: str, ranking: Ranking, done: Sequence[TrialRecord]) -> str:
    """The sentence of a stage in which nothing can be ranked: how its trials ended, and why the first that diverged did."""
    wanting = {record.trial_id for record in done if ranking.criterion == "metric" and record.usable and not is_result(record.metric)}
    ends = sorted({"completed without a finite metric" if record.trial_id in wanting else record.status for record in done})
    reason = next((f" ({record.error})" for record in done if record.status == "diverged" and record.error), "")
    return f"no {what} gave a usable {'metric' if wanting else 'loss'}: {', '.join(ends) or 'nothing was run'}{reason}"
