"""Which claims of Smith's report hold where they were tried again, and what the tool does about it."""

from __future__ import annotations


def paper() -> str:
    """The report, run again: what scripts/results/paper.md has with its figures, in a few words."""
    return """
        The experiments of the paper were run again with this tool, with paired seeds: scripts/results/paper.md in the source repository
        has the figures, and what was not run. So far these are small nets; larger ones may differ.

        What held: training under 1cycle is stable at the LR of the range test; short range tests serve as well as long ones, where
        several seeds are read together; at equal length 1cycle is better than a tuned step schedule, and on MNIST as good as the author's
        schedule in a seventh of the epochs; by loss, falling momentum is as good as the best constant one; a momentum range test is
        useless; branches from the peak LR find a weight decay near the best; what hptune run recommends is better than the author's
        settings.

        What did not hold, and what follows here. A linear ramp suggests LRs that do worse: ramps are exponential. 1cycle in half the
        length of a short step schedule falls behind it: confirm tries what length will do. Momentum's minimum does matter, about half of
        it as an LR in disguise, and under a constant LR falling momentum loses: the minimum stays where the loss was lowest, and without
        a cycle momentum is constant. Larger batches are not better at equal time: they have to earn their place. The best weight decay
        depends on the LR, but LR·WD is no law: in short trainings a low LR underfits and wants less of it. Short runs rank LRs, not
        weight decays, and no training shows its rank before two thirds of it: so weight decay is raised for the full length, refine runs
        longer, and confirm decides. Clues seldom name the right side: they decide nothing.

        Not decided: whether hptune run or Optuna's TPE gets further in ten minutes.
        """
