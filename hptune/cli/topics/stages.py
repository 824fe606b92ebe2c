"""The stages of the method, one text each."""

from __future__ import annotations

from hptune.cli.words import number


def lr_range() -> str:
    """Stage 1."""
    from hptune.analysis.curves import MINIMUM_OVER_BEST, SMOOTHING
    from hptune.stages.lr_range import BRACKETS, MIN_RAMP_STEPS, RANGE_POINTS, RANGE_SAMPLES, SAME, SPREAD, TEXTBOOK_LR

    return f"""
        The LR rises from stages.lr_range.min_lr to max_lr over a short run (at least {MIN_RAMP_STEPS} steps: a faster ramp is itself
        unstable), momentum held still. Validation loss is measured at {RANGE_POINTS} points on a fixed subset of at most {RANGE_SAMPLES}
        samples. Each seed has a ramp of its own; a tight budget pays for fewer.

        The curves are smoothed over {SMOOTHING:g} decades of LR, not over steps, so that nothing lags. The suggestion is where the losses
        are lowest, the geometric mean of validation and training loss, divided by {MINIMUM_OVER_BEST:g}: a 1cycle run does best a little
        below. The steepest point is never used; it measures as the worst rule.

        Range tests alone are known to mislead, so the suggestion is checked by short 1cycle runs beside your own LR and a textbook one
        ({number(TEXTBOOK_LR["sgd"])} for SGD, {number(TEXTBOOK_LR["adamw"])} for AdamW). Whichever is best gets neighbours at {SPREAD:g}
        times and 1/{SPREAD:g} of it until it lies between two others, in at most {BRACKETS} rounds. LRs closer than a factor of {SAME:g}
        are one candidate, and nothing is tried above an LR that failed. The best LR that was checked goes on.

        The paper (sections 4.1 and 5) takes the maximum from the range test itself, ramps linearly, and its author's tests were as long
        as whole trainings. Run again, shorter ones did as well and linear ones worse (hptune explain paper). Here the ramp is
        exponential unless the config says linear, as long as a short run, and decides nothing but where the checks begin.
        """


def batch_size() -> str:
    """Stage 2."""
    from hptune.stages.batch_size import CLIFF, LR_EXPONENT, LR_FACTORS, MAX_SPEED, MOST_RATES, NEAR, SATURATED, TOLERANCE
    from hptune.trial import STEPS_TIMED

    scaled = ", ".join(f"{factor:g}" for factor in sorted(LR_FACTORS))
    return f"""
        Batch sizes are compared at equal compute time (the paper's remark 4): equal epochs flatter small batches, equal steps large ones.
        The time of a step is measured once for each size, over {STEPS_TIMED} steps, and journalled; a size that processes samples faster
        gets as many more of them, up to {MAX_SPEED:g} times. Speeds within a factor of {TOLERANCE:g} count as equal. With compare:
        samples all sizes get equal samples, and this stage looks at no clock.

        Each other size gets an LR of its own. The LR found so far is scaled by the ratio of sizes to the power {LR_EXPONENT["sgd"]:g}
        (SGD) or {LR_EXPONENT["adamw"]:g} (AdamW) and tried at {scaled} times that; the best size's LR is then searched until it lies
        between two others, or about {MOST_RATES} were tried. Ranking by the loss, an LR whose next higher one leaves over {CLIFF:g} times
        the loss, or none, gives way to the next lower one if that costs at most {100 * (NEAR - 1):g} %. Under a search budget sizes are
        seen at their scaled LR alone, one after another as long as they get better.

        Left out are sizes beyond the training part and, at equal time, those of which not even one sample fits in memory, and those above
        the smallest size with {100 * SATURATED:g} % of the best throughput and above the present one: they buy no time. The lowest loss
        goes on, a larger size where the difference is within the noise (hptune explain statistics).

        The paper (section 4.2) takes the largest batch that memory allows. Run again the largest was the worst (hptune explain paper): here
        a large batch has to earn its place.
        """


def momentum() -> str:
    """Stage 3."""
    from hptune.config.sections import MomentumStage

    default = MomentumStage()
    return f"""
        Short 1cycle runs compare the values of stages.momentum.values ({", ".join(f"{value:g}" for value in default.values)} by default)
        and your own. In each run momentum falls from the value to stages.momentum.minimum ({default.minimum:g} by default) while the LR
        rises, and returns while the LR falls. For AdamW momentum is beta1.

        The LR stays as it was found: under cycled momentum the best one hardly moves with the maximum. The lowest loss goes on, a lower
        momentum where the difference is within the noise, since it is the safer one.

        The values, the way down and the short runs are the paper's (sections 4.3 and 5). A momentum range test does not work (Fig. 7b), so
        that there is none. The paper finds the result nearly insensitive to the minimum; run again it is not (hptune explain paper), but
        much of what it changes is the effective LR, which has a stage of its own, so that it is not searched. By the paper's own Table 1
        cycled momentum never significantly beats the best constant value: what it saves is the search for that value. Under schedule:
        constant or step momentum is constant, at the value.
        """


def weight_decay() -> str:
    """Stage 4."""
    from hptune.stages.weight_decay import EXTENSIONS, WORTH_BISECTING

    return f"""
        Short 1cycle runs compare the values of stages.weight_decay.values and your own, the decay constant through a run. Zero is a
        candidate of its own. While all values within one standard error of the best lie at the same edge of the grid, it grows by a
        decade there, {EXTENSIONS} times at most. Then the exponent is bisected: between the best and each neighbour comes the value
        halfway on the log scale, to one significant figure, unless the two are closer than a factor of {WORTH_BISECTING:g}. The grid and
        its bisection are the paper's (sections 4.4 and 5).

        The lowest loss goes on; among those within the noise the middle one on the log scale, and zero only where no other value is among
        them.

        Beside each value stands its timescale in epochs at the peak LR: the time over which weight decay forgets. It is 1/(LR·WD) steps
        for AdamW, whose decay is decoupled (arXiv 2405.13698), and (1 - momentum)/(LR·WD) for SGD, whose decay is L2 in the gradient.

        The paper also reads weight decay from range tests at several values and from branches at the peak LR (Fig. 12); this tool does
        neither. Run again, branches found it, and range tests one that was a little worse (hptune explain paper). Short runs do not see the
        overfitting that weight decay is needed for: hptune explain transfer.
        """


def refine() -> str:
    """Stage 5."""
    from hptune.analysis.recommendation import DECAY_STEP
    from hptune.config.sections import Refine
    from hptune.stages.refine import (
        DECAY_REACH,
        FEWEST_LONGER,
        LR_REACH,
        MOMENTUM_REACH,
        MOST_LONGER,
        ROUND,
        SHORTEST_LONGER,
        ZERO_DECAY_REACH,
    )
    from hptune.stages.rounds import DISAGREEING

    low, high = ZERO_DECAY_REACH
    return f"""
        Not in the paper. The stages before vary one or two values at a time in short runs; this one varies them jointly, in longer runs
        where it can. Without a search budget it makes stages.refine.trials runs ({Refine().trials} by default), at full length from
        {FEWEST_LONGER} on. With one, what is left buys {FEWEST_LONGER} to {MOST_LONGER} runs, as many as still come near the full length,
        and more only at that length; runs that would be shorter than {SHORTEST_LONGER:g} short runs are short runs.

        In longer runs the best so far, carried over to their length, is tried beside {DECAY_STEP:g} times its weight decay and beside half
        and twice its LR at the same LR·WD, which is a start and no law (hptune explain paper); less weight decay, or more regularization
        still, comes in by what these show and by what there is room for. Anything beyond is proposed by Optuna's TPE sampler, told of the
        earlier trials in its box, at most {ROUND} at a time: within a factor of {LR_REACH:g} of the LR, {DECAY_REACH:g} of the weight decay
        ({number(low)} to {number(high)} where that is zero), {MOMENTUM_REACH:g} of 1 - momentum, and one batch size up or down among those
        whose speed was measured.

        Longer runs have seeds of their own. There the best so far stays unless another is better by more than one standard error of the
        seeds and by more than the validation part's sampling makes of luck; short of the full length, more regularization need only be
        better. A higher LR goes on only if a second seed agrees within {100 * DISAGREEING:g} %, unless the config has one seed.
        """


def confirm() -> str:
    """Stage 6."""
    from hptune.analysis.recommendation import DECAY_STEP
    from hptune.analysis.scale import CONFIDENCE
    from hptune.config.sections import Confirm
    from hptune.stages.confirm import SHARES

    default = Confirm()
    trainings = default.seeds * (default.finalists + 1)
    shares = " and ".join(f"{share:g}" for share in SHARES)
    return f"""
        Short runs cannot show what only the full length shows: overfitting, above all. So a few finalists train at full length on seeds
        that no earlier stage has used, the same for all: your baseline, the recommendation, the same with {DECAY_STEP:g} times the weight
        decay ("regularized"), the best of the short runs, and what refine could not tell from its best, up to stages.confirm.finalists
        different ones ({default.finalists} by default) besides the baseline. With {default.seeds} seeds, the default, these are at most
        {trainings} trainings; the search budget does not pay for them.

        The lowest adjusted mean is recommended, but the baseline stays where it lies within one pooled standard error of it. That the
        winner is better than the baseline is said only where a simultaneous {100 * CONFIDENCE:g} % comparison shows it; where it is not
        shown, the output says that. Noise of short runs is not used here.

        A winner other than the baseline also trains at {shares} of the length, which tells how much shorter a training still reaches the
        baseline's loss. Where there is a test part, the search measures it in these runs only. It is shown with the errors from seeds and
        from the sample, and decides nothing.

        The paper reports 4 runs a number and compares them by their spread; its four runs differ in batch size too, as the author's logs
        show.
        """


def key_sweep() -> str:
    """A sweep of any other key."""
    return """
        hptune sweep KEY CONFIG --values a,b,c compares values of any config key that changes a single training, such as
        model.args.dropout, by the machinery of the stages: short 1cycle runs on paired seeds, noise pooled with that of the search,
        further seeds for values still in the race.

        It starts from what the finished stages of the run directory have settled, and otherwise from the baseline. A value that is shown
        to be better than the config's own is offered with the recommendation, with the option that would search and train with it. It is
        never made part of the recommendation: LR and weight decay were found with the other value, and the best ones may move. A
        difference that is not shown is not offered.

        hptune sweep batch-size, momentum and wd are the stages themselves, not key sweeps. The paper's remark 3 is why a key sweep is
        worth the trouble: dropout, augmentation, weight decay, LR and batch size all regularize, and the sum has to suit the data and the
        architecture.
        """
