"""What all stages share: the schedule, the budget, and the way from short runs to the full length."""

from __future__ import annotations


def one_cycle() -> str:
    """The schedule of all trials but the ramps."""
    from hptune.config.sections import ScheduleSection

    default = ScheduleSection()
    return f"""
        Every trial but the ramps of the LR range test trains under the config's schedule, 1cycle unless it says constant or step. "LR"
        always means the maximum.

        Shape linear, the default, is what the paper's author ran: from maximum / {default.lr_ratio:g} up to the maximum over
        {default.warmup_fraction:g} of the run, down to about zero, then a constant tail over the last {default.tail_fraction:g} of it, at
        1/{default.tail_ratio:g} of the LR it began with. The paper's text (section 5) has it come down to where it began instead; the
        author's own logs, which this follows, show zero. The numbers are lr_ratio, warmup_fraction, tail_fraction and tail_ratio of the
        schedule block. Shape torch is PyTorch's OneCycleLR with its two cosine phases, three_phase the same class with three_phase=True;
        for both, lr_ratio, tail_ratio and warmup_fraction are its div_factor, final_div_factor and pct_start.

        Momentum mirrors the LR and stays at its maximum in the tail. The author's code lets it fall once more there, which is an
        artifact.

        As in PyTorch, the LR multiplies the velocity. Caffe, which the author used, keeps the LR inside the velocity; the two differ
        while the LR changes.

        Under 1cycle the losses of the middle of a run rank nothing. A trial ends early only where it diverges.
        """


def transfer() -> str:
    """From short runs to longer ones."""
    return """
        Not in the paper. What is best in a short run is not what is best in a long one, so what the search found is carried over to the
        full length by one rule, and shown with both values.

        The maximum LR stays. Weight decay, where the search has settled it, is raised until its timescale at the peak LR (hptune explain
        weight-decay) is no longer than the training: a decay that forgets more slowly than the training lasts has hardly acted, and short
        runs do not see the overfitting it is needed for. It is never lowered by this rule; zero is raised too.

        refine starts from the same rule for runs of its own length. What it then shows to be better than that start goes on to the full
        length; its weight decay changes there by as many times as it did in refine, so that the timescale keeps its share of the
        training.

        The rule was measured on small networks. Whether it holds for yours is what confirm checks: the best of the short runs, before it
        was carried over, is one of its candidates where there is room.
        """


def budget() -> str:
    """What a search costs."""
    from hptune.config.sections import BudgetSection
    from hptune.knowledge import SHARES, SMALL

    default = BudgetSection()
    first, second, third, last = (SHARES[name] for name in ("lr_range", "batch_size", "momentum", "refine"))
    return f"""
        budget.epochs ({default.epochs:g} by default) is the full training, budget.search_epochs one short run: a fifth of it, but at
        least one epoch, unless given. Without a search budget the stages run all that they plan.

        --budget 16, or budget.search, limits stages 1 to 5 in short runs, the unit of cost; --budget 20m limits their wall time. Confirm
        is charged apart. A batch size that runs faster pays less for a sample. A trial that ends early costs what it took, and what an
        earlier stage ran costs nothing. Under a time budget no round begins once the time is spent, and time spent before a kill stays
        spent. A stage that the budget does not reach is passed over with a remark.

        From {SMALL} short runs on, what is left is divided among the stages still to come: {first.part:g} parts to the LR,
        {second.part:g} to the batch size, {third.part:g} each to momentum and weight decay, {last.part:g} to refine. The LR gets its
        first {first.least:g} short runs whatever the rest, and, where others come after it, at most {first.runs:g}, or
        {100 * first.most:.3g} % of the whole if that is more; the batch size at most {second.runs:g}, or {100 * second.most:.3g} %;
        momentum and weight decay {third.runs:g} each, or {100 * third.most:.3g} %. What a stage leaves goes to the next, so that the rest
        ends in refine, whose longer runs show what short ones cannot. Smaller budgets go to LR and batch size first.

        hptune check CONFIG --budget 16 shows what a budget buys, and trains nothing but a few steps. Counting the search itself as cost
        is not in the paper (arXiv 1910.11758).
        """
