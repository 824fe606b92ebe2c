"""Stage 6: a few finalists and the baseline at full length on fresh, paired seeds.

Short runs mislead where the full length overfits or the best LR falls with length, so what is recommended is settled here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hptune.analysis.candidates import NO_NOISE
from hptune.analysis.ranking import Ranking, Row
from hptune.analysis.recommendation import Conclusion
from hptune.analysis.sampling import block_error
from hptune.analysis.wording import format_number
from hptune.stages.base import Knowledge
from hptune.stages.conclusions import conclusion, nothing_usable
from hptune.stages.rounds import ranked
from hptune.trial import Hyperparameters, TrialRecord, TrialSpec, is_result

BASELINE = "baseline"
SHARES = (0.5, 0.25)  # shorter trainings of the recommended configuration


class Confirm:
    """Trains `settings["finalists"]`, pairs of (candidate name, hyper-parameters) with the baseline among them."""

    name = "confirm"

    def plan(self, knowledge: Knowledge, done: Sequence[TrialRecord]) -> list[TrialSpec]:
        """Every finalist on every seed; then the winner, where it is not the baseline, at half and a quarter of the length."""
        known = {record.trial_id for record in done}
        if missing := [spec for spec in _full_runs(knowledge) if spec.trial_id not in known]:
            return missing
        winner = self._winner(self._ranking(knowledge, done))
        if winner is None or _name(winner) == BASELINE:
            return []
        shorter = [knowledge.full_run(winner.hyperparameters, seed, share) for share in SHARES for seed in _seeds(knowledge)]
        return list({spec.trial_id: spec for spec in shorter if spec.trial_id not in known}.values())

    def conclude(self, knowledge: Knowledge, done: Sequence[TrialRecord]) -> Conclusion:
        """Recommend the lowest adjusted mean, the baseline winning what lies within one pooled standard error.

        That a candidate is *better* than the baseline is said only where the simultaneous 95 % comparison shows it (DESIGN 8).
        """
        ranking = self._ranking(knowledge, done)
        winner = self._winner(ranking)
        if winner is None:
            return conclusion(self.name, ranking, done, None, sentence=nothing_usable("finalist", ranking, done))
        baseline = next((row for row in ranking.rows if _name(row) == BASELINE), None)
        detail: dict[str, Any] = {"winner": _name(winner)}
        if baseline is None or not math.isfinite(baseline.val_loss):
            sentence = f"{_name(winner)} is recommended: loss {format_number(winner.val_loss)}; the baseline gave no usable loss"
            return conclusion(self.name, ranking, done, winner, sentence=sentence, detail=detail)
        if winner is baseline:
            detail["better"] = False
            sentence = f"the baseline stays (loss {format_number(baseline.val_loss)}): no finalist beat it by more than one standard error"
            return conclusion(self.name, ranking, done, winner, sentence=sentence, detail=detail)
        gain = ranking.compare(winner, baseline)
        detail |= {"better": gain.better, "gain": {"ratio": gain.ratio, "low": gain.low, "high": gain.high}}
        detail["test"] = test_gain(winner, baseline, done)
        detail["shorter"] = self._shorter(knowledge, winner, done)
        notes = [note for note in (_test_sentence(detail["test"]), _shorter_sentence(detail["shorter"], baseline.val_loss)) if note]
        sentence = _gain_sentence(winner, baseline, detail)
        return conclusion(self.name, ranking, done, winner, sentence=sentence, notes=notes, detail=detail)

    def _ranking(self, k: Knowledge, done: Sequence[TrialRecord]) -> Ranking:
        """Rank the full-length runs; noise of short runs does not carry over to them."""
        names = {h: name for name, h in _finalists(k).items()}
        full = {spec.trial_id for spec in _full_runs(k)}
        own = [record for record in done if record.trial_id in full]
        return ranked(k, own, lambda spec: (("candidate", names[spec.hyperparameters]),), prior=NO_NOISE)

    def _winner(self, ranking: Ranking) -> Row | None:
        if ranking.best is None:
            return None
        baseline = next((row for row in ranking.rows if _name(row) == BASELINE), None)
        if baseline is not None and ranking.within_standard_error(baseline):
            return baseline
        return ranking.best

    def _shorter(self, k: Knowledge, winner: Row, done: Sequence[TrialRecord]) -> list[tuple[float, float]]:
        """(share of the length, mean loss) of the winner's shorter trainings."""
        found = []
        for share in SHARES:
            steps = k.full_run(winner.hyperparameters, 0, share).steps
            losses = [r.val_loss for r in done if r.spec.hyperparameters == winner.hyperparameters and r.spec.steps == steps and r.usable]
            if losses:
                found.append((share, sum(losses) / len(losses)))
        return found


def test_gain(winner: Row, baseline: Row, done: Sequence[TrialRecord]) -> dict[str, float] | None:
    """Mean test losses and metrics of both, and the difference with its two errors: over seeds, and over the test part's blocks."""
    pairs = _paired(winner, baseline, done)
    if not pairs or not all(is_result(record.test_loss) for pair in pairs for record in pair):
        return None
    differences = [a.test_loss - b.test_loss for a, b in pairs]
    mean = sum(differences) / len(differences)
    seed_error = math.sqrt(sum((d - mean) ** 2 for d in differences) / max(1, len(pairs) - 1) / len(pairs)) if len(pairs) > 1 else math.nan
    blocks = [[x - y for x, y in zip(a.test_block_losses, b.test_block_losses, strict=True)] for a, b in pairs]
    return {
        "recommended_loss": sum(a.test_loss for a, _ in pairs) / len(pairs),
        "baseline_loss": sum(b.test_loss for _, b in pairs) / len(pairs),
        "recommended_metric": sum(a.test_metric for a, _ in pairs) / len(pairs),
        "baseline_metric": sum(b.test_metric for _, b in pairs) / len(pairs),
        "difference": mean,
        "seed_error": seed_error,
        "sampling_error": block_error(blocks),
    }


def _paired(winner: Row, baseline: Row, done: Sequence[TrialRecord]) -> list[tuple[TrialRecord, TrialRecord]]:
    of = {row: {r.spec.repetition: r for r in done if r.trial_id in row.trials and r.usable} for row in (winner, baseline)}
    return [(of[winner][rep], of[baseline][rep]) for rep in sorted(of[winner].keys() & of[baseline].keys())]


def _finalists(k: Knowledge) -> dict[str, Hyperparameters]:
    return {name: Hyperparameters(**values) for name, values in k.settings["finalists"]}


def _seeds(k: Knowledge) -> range:
    return range(int(k.settings["seeds"]))


def _full_runs(k: Knowledge) -> list[TrialSpec]:
    return [k.full_run(h, seed) for seed in _seeds(k) for h in _finalists(k).values()]


def _name(row: Row) -> str:
    return str(dict(row.values)["candidate"])


def _gain_sentence(winner: Row, baseline: Row, detail: Mapping[str, Any]) -> str:
    gain = detail["gain"]
    name, shown = _name(winner), detail["better"]
    text = f"{name} is better than the baseline" if shown else f"{name} goes on; that it is better than the baseline is not shown"
    text += f": loss {format_number(winner.val_loss)} against {format_number(baseline.val_loss)}"
    if math.isfinite(gain["ratio"]):
        text += f", ratio {gain['ratio']:.2f}"
    if math.isfinite(gain["low"]):
        text += f" [{gain['low']:.2f}, {gain['high']:.2f}]"
    return f"{text}, {winner.seeds} paired seed{'s' * (winner.seeds > 1)}"


def _test_sentence(test: Mapping[str, float] | None) -> str | None:
    if test is None:
        return None
    text = f"on the test part: loss {format_number(test['recommended_loss'])} against {format_number(test['baseline_loss'])}"
    if math.isfinite(test["recommended_metric"]) and math.isfinite(test["baseline_metric"]):
        text += f", metric {test['recommended_metric']:.4g} against {test['baseline_metric']:.4g}"
    text += f"; the difference in loss {test['difference']:+.3g}"
    errors = [
        f"{test[key]:.2g} {name}"
        for key, name in (("seed_error", "from seeds"), ("sampling_error", "from the test sample"))
        if math.isfinite(test[key])
    ]
    return f"{text}, standard error {' and '.join(errors)}" if errors else text


def _shorter_sentence(shorter: Sequence[tuple[float, float]], baseline_loss: float) -> str | None:
    if not shorter:
        return None
    text = ", ".join(f"{format_number(loss)} at {share:g} of the length" for share, loss in shorter)
    enough = [share for share, loss in shorter if loss <= baseline_loss]
    reach = (
        f"{min(enough):g} of the length reaches the baseline's full-length loss"
        if enough
        else "no shorter length tried reaches the baseline's loss"
    )
    return f"trained shorter: {text}; {reach}"
