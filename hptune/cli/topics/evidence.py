"""How trials are compared and what may be said of them."""

from __future__ import annotations

import math


def statistics() -> str:
    """Noise, choosing, claiming."""
    from hptune.analysis.candidates import FAR_OFF
    from hptune.analysis.race import RACE_CONFIDENCE, RACE_DEVIATIONS, RACE_SHARE
    from hptune.analysis.scale import CONFIDENCE, MIN_DF, NEAR

    return f"""
        Repetition k of every candidate shares initialization, data order and augmentation: they are compared in pairs. A
        model of log validation loss with one effect for each candidate and one for each seed gives adjusted means. Its residuals, pooled
        over all candidates of the short runs so far, give one standard deviation: two or three seeds of one candidate say nothing of its
        noise. Refine's longer runs and confirm have their own. Candidates more than {math.exp(FAR_OFF):.3g} times the lowest loss count
        only where the others tell too little. With rank_by: metric the same is done with the metric.

        Choosing: the lowest adjusted mean goes on. A safer or cheaper candidate is preferred only within one standard error of the
        difference and at most {100 * NEAR:g} % of the loss.

        Claiming: "worse", or "better than the baseline", takes a simultaneous {100 * CONFIDENCE:g} % comparison of all candidates
        (Tukey-Kramer). Below {MIN_DF} degrees of freedom there is no interval and no claim.

        Seeds: all candidates run on the first seed. The next one, up to the config's seeds, goes to those that completed and lie within
        {RACE_DEVIATIONS:g} standard deviations of a difference of two trials, or {100 * RACE_SHARE:g} % of the loss, of the best, or are
        not told apart from it at {100 * RACE_CONFIDENCE:g} %. Until noise is known, all within a factor of {math.exp(FAR_OFF):.3g}. These
        rounds are complete or not run.

        The paper compares means of 4 runs by eye. Seed noise is larger than it looks there: arXiv 2304.01910.
        """


def verdicts() -> str:
    """The words in the column `verdict`."""
    from hptune.analysis.scale import CONFIDENCE
    from hptune.trial import LARGEST, StopRule

    rule = StopRule()
    return f"""
        best: the lowest adjusted mean. worse: shown to be worse than the best by the simultaneous {100 * CONFIDENCE:g} % comparison.
        tied: not shown to be worse, which is not the same as equal; without enough degrees of freedom everything beside the best is tied.

        diverged: a loss was NaN, infinite or above {LARGEST:g}, or the training loss, averaged over {rule.window} steps, rose above
        {rule.factor:g} times that of the untrained model (in an LR range test, which uses its own averages: times the lowest so far). The
        trial ends there and is a result, not an error. out_of_memory: it did not fit in memory, in smaller pieces either where these
        could be tried; one that ran out of memory beside others was first tried again alone. failed: an exception, a worker lost twice,
        or no finite metric where the ranking goes by the metric.

        A candidate counts as the worst of what its seeds came to (diverged, then out_of_memory, then failed): an LR that works on one
        seed of two is not one to recommend.

        The row with the arrow is the one that goes on. It need not be the best one: hptune explain statistics says when another is
        preferred. Verdicts come from the comparison alone; clues never change one. The paper has no such words: it compares means of
        repeated runs.
        """


def clues() -> str:
    """The words in the column `clue`, and causes."""
    from hptune.analysis.diagnosis import FALL, GAP, LEARNED, MIN_POINTS, RECOVERED, RELAPSE, RISE, SPIKE

    return f"""
        A clue is one word on a trial's curve of at least {MIN_POINTS} validation points, after the paper's remarks 1 and 2 (Fig. 1). The
        first of these that fits:

        unstable: it diverged, or a loss was not finite; or validation loss rose in mid-run above {SPIKE:g} times its first value and then
        came back by a factor of more than {RECOVERED:g}, or training loss rose with it; or training loss went above {RELAPSE:g} times its
        lowest so far, back above half of its first.

        overfitting: validation loss ends above {RISE:g} times its lowest while training loss fell. Where training loss did not fall, it
        is unstable.

        underfitting: validation loss ends at most {GAP:g} times the training loss, and either training loss is still above {LEARNED:g}
        times its first value, or validation loss is at most {FALL:g} times what it was at two thirds of the run.

        balanced: none of these. The paper looks for a flat end of the validation loss; under 1cycle it falls there in any case, so that a
        fall alone is no clue here.

        A candidate has the clue that most of its seeds agree on, the more serious one where two are equally frequent. Losses that are not
        all positive have none.

        "LR too small", "regularization too weak" and their opposites are not read from one curve, where they look alike, but from two
        candidates that differ in one value and that the ranking tells apart (or, for a larger LR, from one that diverged). Clues and
        causes decide nothing: hptune explain paper.
        """
