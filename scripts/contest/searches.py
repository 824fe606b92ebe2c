"""The searches: hptune's stages, the paper's recipe alone, and what others would run instead, each as strong as its users could set it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import optuna

from contest.bench import Bench
from contest.jobs import BATCH_SIZES
from hptune.analysis.recommendation import Longer, recommend, transfer
from hptune.knowledge import stage_knowledge
from hptune.stages import STAGES
from hptune.stages.confirm import BASELINE, Confirm
from hptune.trial import Hyperparameters, TrialRecord, content_hash

RANGES = {  # LR, weight decay
    "sgd": ((1e-4, 10.0), (1e-6, 1e-2)),
    "adamw": ((1e-5, 1e-1), (1e-4, 1.0)),
}
SLACK = (0.01, 0.2)  # 1 - momentum
START_UP = 4  # trials before a model guides the search: few, since one study is read at every budget from 8 on
CONFIRM_SEEDS = 2  # of each finalist and of the baseline
FINALISTS = 3  # besides the baseline, as hptune has
WORST = 3.0  # times the loss of chance: what is worse, divergence included, counts as that
RECIPE = ("lr_range", "batch_size", "momentum", "weight_decay")
MOVED = frozenset(("weight_decay",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search recommends for the full length, and the units it took.

    `candidates`: what a confirmation would compare with the baseline, the best first.
    """

    own: Hyperparameters
    cost: float
    candidates: tuple[Hyperparameters, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A trial of a study: its configuration, its loss (infinite: pruned), its cost in units."""

    own: Hyperparameters
    loss: float
    cost: float


def hptune(bench: Bench, short_runs: float) -> Found:
    """All search stages within the budget, then the transfer to the full length."""
    return _staged(bench, short_runs, STAGES[:-1], carried=True)


def hptune_without_transfer(bench: Bench, short_runs: float) -> Found:
    """The same search; what was best in short runs is taken as it is."""
    return _staged(bench, short_runs, STAGES[:-1], carried=False)


def recipe(bench: Bench, short_runs: float) -> Found:
    """The paper's steps, without a joint refinement and without a transfer."""
    return _staged(bench, short_runs, RECIPE, carried=False)


STAGED: dict[str, Callable[[Bench, float], Found]] = {
    "hptune": hptune,
    "hptune, no transfer": hptune_without_transfer,
    "recipe": recipe,
}


def _staged(bench: Bench, short_runs: float, stages: Sequence[str], *, carried: bool) -> Found:
    experiment = bench.experiment(short_runs=short_runs)
    progress = bench.stages(experiment, stages)
    finished = progress.finished
    found = recommend(
        [stage.conclusion for stage in finished.values()],
        baseline=bench.baseline,
        to=bench.longer,
        epochs={0: experiment.budget.epochs},
    )
    own = bench.baseline if found is None else found.hyperparameters if carried else found.short
    confirm = stage_knowledge("confirm", experiment, bench.problem.task, progress, settings={"seeds": CONFIRM_SEEDS})
    finalists = [Hyperparameters(**values) for name, values in confirm.settings["finalists"] if name != BASELINE]
    cost = bench.cost(record for stage in finished.values() for record in stage.records)
    return Found(own=own, cost=cost, candidates=tuple(finalists))


def confirmed(bench: Bench, found: Found) -> Found:
    """The same search with a confirmation after it: its candidates and the baseline at full length, judged as `hptune run` does."""
    finalists = [(BASELINE, bench.baseline), *((f"candidate_{i}", own) for i, own in enumerate(found.candidates) if own != bench.baseline)]
    settings = {"seeds": CONFIRM_SEEDS, "finalists": [[name, asdict(own)] for name, own in finalists]}
    knowledge = replace(bench.knowledge, settings=settings)
    stage = Confirm()
    records = [bench.trial(spec) for spec in stage.plan(knowledge, [])]
    return Found(own=stage.conclude(knowledge, records).chosen or found.own, cost=found.cost + bench.cost(records))


def _tpe(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=START_UP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """How a study is set up; `baseline`: the untouched configuration is its first trial."""

    sampler: Callable[[int], optuna.samplers.BaseSampler]
    baseline: bool = True
    pruned: bool = False


PEERS = {
    "random": Peer(sampler=lambda seed: optuna.samplers.RandomSampler(seed=seed), baseline=False),
    "tpe, defaults": Peer(sampler=lambda seed: optuna.samplers.TPESampler(seed=seed), baseline=False),
    "tpe": Peer(sampler=_tpe),
    "tpe, no baseline": Peer(sampler=_tpe, baseline=False),
    "gp": Peer(sampler=lambda seed: optuna.samplers.GPSampler(seed=seed, n_startup_trials=START_UP)),
    "hyperband": Peer(sampler=_tpe, pruned=True),
}


def study(bench: Bench, name: str, units: float) -> list[Tried]:
    """The trials of a peer up to a cost; a study that the journal holds is taken from there."""
    key = content_hash([name, units, bench.problem.task.task_id, optuna.__version__])
    known = [entry for entry in bench.journal.state.others.get("study", ()) if entry["key"] == key]
    if not known:
        tried = _run(bench, PEERS[name], units)
        bench.journal.append("study", {"key": key, "name": name, "trials": [asdict(t) for t in tried]})
        return tried
    return [Tried(own=Hyperparameters(**t["own"]), loss=t["loss"], cost=t["cost"]) for t in known[-1]["trials"]]


def read(tried: Sequence[Tried], units: float, *, carried: Longer | None = None) -> Found:
    """The best of the leading trials that cost about `units`; `carried`: the training to carry it over to, as hptune does."""
    spent, within = 0.0, list[Tried]()
    for trial in tried:
        if within and spent + trial.cost / 2 > units:  # to the nearest trial, so that rounding favours nobody
            break
        spent += trial.cost
        within.append(trial)
    ranked: dict[Hyperparameters, Tried] = {}
    for trial in sorted(within, key=lambda trial: trial.loss):
        ranked.setdefault(trial.own, trial)
    best = list(ranked.values())[:FINALISTS]
    candidates = tuple(t.own if carried is None else transfer(t.own, carried, MOVED)[0] for t in best)
    return Found(own=candidates[0], cost=spent, candidates=candidates)


def _run(bench: Bench, peer: Peer, units: float) -> list[Tried]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=6) if peer.pruned else optuna.pruners.NopPruner()
        asked = optuna.create_study(sampler=peer.sampler(bench.problem.experiment.seed), pruner=pruner)
        if peer.baseline:
            asked.enqueue_trial(_params(bench.baseline))
        tried: list[Tried] = []
        while sum(trial.cost for trial in tried) < units:
            tried.append(_ask(bench, asked, pruned=peer.pruned))
    return tried


def _ask(bench: Bench, asked: optuna.Study, *, pruned: bool) -> Tried:
    lr, decay = RANGES[bench.problem.experiment.optimizer.name]
    trial = asked.ask()
    own = bench.baseline.but(
        lr=trial.suggest_float("lr", *lr, log=True),
        batch_size=trial.suggest_categorical("batch_size", BATCH_SIZES),
        momentum=1 - trial.suggest_float("slack", *SLACK, log=True),
        weight_decay=trial.suggest_float("weight_decay", *decay, log=True),
    )
    record = bench.trial(bench.knowledge.short_run(own))
    if pruned:
        losses = record.curve.val_loss
        for at, (step, loss) in enumerate(zip(record.curve.step, losses, strict=True), start=1):
            trial.report(_bounded(bench, loss), at)
            if at < len(losses) and trial.should_prune():
                asked.tell(trial, state=optuna.trial.TrialState.PRUNED)
                return Tried(own=own, loss=math.inf, cost=_cost_up_to(bench, record, step, at))
    loss = _bounded(bench, record.val_loss) if record.usable else WORST * bench.chance
    asked.tell(trial, loss)
    return Tried(own=own, loss=loss, cost=bench.cost_of(record, len(record.curve.step) if pruned else 1))


def _bounded(bench: Bench, loss: float) -> float:
    worst = WORST * bench.chance
    return min(loss, worst) if math.isfinite(loss) else worst


def _cost_up_to(bench: Bench, record: TrialRecord, step: int, measurements: int) -> float:
    return bench.cost_of(replace(record, samples=step * record.spec.hyperparameters.batch_size), measurements)


def _params(own: Hyperparameters) -> dict[str, Any]:
    return {"lr": own.lr, "batch_size": own.batch_size, "slack": 1 - own.momentum, "weight_decay": own.weight_decay}
