"""fastai and timm: tools with schedules of their own. What does not map is said in a comment."""

from __future__ import annotations

import shlex
from itertools import pairwise
from textwrap import indent

from hptune.report.export_settings import Settings

FASTAI = """\
{comment}
from functools import partial

import torch
{imports}

EPOCHS = {epochs!r}
BATCH_SIZE = {batch_size!r}  # DataLoaders(..., bs=BATCH_SIZE, drop_last=True)
LR = {lr!r}  # the maximum
MOMENTUM = {momentum!r}
MOMENTUM_MIN = {momentum_min!r}
WEIGHT_DECAY = {weight_decay!r}

# PyTorch's own optimizer: fastai's SGD has no Nesterov momentum and decouples weight decay by default.
opt_func = partial(OptimWrapper, opt={optimizer})


def fit(learn):
    \"\"\"`learn = Learner(dls, model, loss_func=..., opt_func=opt_func, wd_bn_bias={wd_bn_bias!r})`, then `fit(learn)`.\"\"\"
{fit}
"""

FIT_ONE_CYCLE = """\
    learn.fit_one_cycle(
        EPOCHS,
        lr_max=LR,
        div={lr_ratio!r},
        div_final={div_final!r},  # from the maximum; fastai has no separate ratio for the base LR
        pct_start={warmup_fraction!r},
        wd=WEIGHT_DECAY,
        moms=(MOMENTUM, MOMENTUM_MIN, MOMENTUM),{clip}
    )"""

FIT_SCHEDULED = """\
    rates = {lr}
    momenta = {momentum}
    learn.fit(EPOCHS, lr=LR, wd=WEIGHT_DECAY, cbs=[ParamScheduler({{"lr": rates, "mom": momenta}}){clip}])"""

TIMM = """\
{comment}
{command}
"""


def fastai(settings: Settings) -> str:
    """`fit_one_cycle` for shape `torch`; the other shapes from fastai's own pieces, in `fit`."""
    h, o, s = settings.hyperparameters, settings.optimizer, settings.schedule
    clip = f"GradientClip({o.gradient_clip!r})" if o.gradient_clip is not None else ""
    notes = [] if settings.epochs == round(settings.epochs) else [f"fastai counts whole epochs: {settings.epochs:g} were rounded."]
    if o.groups:
        notes.append("Groups with their own ratios (optimizer.groups) need a splitter and slices of LR: they are not in this snippet.")
    if settings.numerics.precision != "fp32":
        notes.append(f"Call learn.{'to_bf16' if settings.numerics.precision == 'bf16' else 'to_fp16'}() before fit.")
    if s.kind == "one_cycle" and s.shape == "torch":
        fit = FIT_ONE_CYCLE.format(
            lr_ratio=s.lr_ratio,
            div_final=s.lr_ratio * s.tail_ratio,
            warmup_fraction=s.warmup_fraction,
            clip=f"\n        cbs=[{clip}]," if clip else "",
        )
    else:
        lr, momentum = _fastai_schedule(settings)
        fit = FIT_SCHEDULED.format(lr=lr, momentum=momentum, clip=f", {clip}" if clip else "")
    sgd = f"torch.optim.SGD, momentum=MOMENTUM, nesterov={o.nesterov and h.momentum > 0!r}, lr=LR, weight_decay=WEIGHT_DECAY"
    adamw = f"torch.optim.AdamW, betas=(MOMENTUM, {o.beta2!r}), eps={o.eps!r}, lr=LR, weight_decay=WEIGHT_DECAY"
    return FASTAI.format(
        comment=settings.comment(*notes),
        imports="from fastai.callback.all import *\nfrom fastai.optimizer import OptimWrapper",
        epochs=max(1, round(settings.epochs)),
        batch_size=h.batch_size,
        lr=h.lr,
        momentum=h.momentum,
        momentum_min=h.momentum_min,
        weight_decay=h.weight_decay,
        optimizer=sgd if o.name == "sgd" else adamw,
        wd_bn_bias=o.decay_bias_and_norm,
        fit=fit,
    )


def timm(settings: Settings) -> str:
    """Arguments of timm's `train.py`: the nearest it has, since it knows neither 1cycle's linear form nor a moving momentum."""
    h, o, s = settings.hyperparameters, settings.optimizer, settings.schedule
    words = ["python", "train.py", "DATA_DIR", "--model", settings.model.name or "MODEL"]
    words += ["--epochs", f"{max(1, round(settings.epochs))}", "--batch-size", f"{h.batch_size}", "--seed", f"{settings.seed}"]
    words += ["--lr", f"{h.lr!r}", "--weight-decay", f"{h.weight_decay!r}"]
    if o.name == "sgd":
        words += ["--opt", "sgd" if o.nesterov else "momentum", "--momentum", f"{h.momentum!r}"]
    else:
        words += ["--opt", "adamw", "--opt-betas", f"{h.momentum!r}", f"{o.beta2!r}", "--opt-eps", f"{o.eps!r}"]
    if o.gradient_clip is not None:
        words += ["--clip-grad", f"{o.gradient_clip!r}"]
    if settings.numerics.precision != "fp32":
        words += ["--amp", "--amp-dtype", "bfloat16" if settings.numerics.precision == "bf16" else "float16"]
    schedule, notes = _timm_schedule(settings)
    if s.kind == "one_cycle" and h.momentum_min != h.momentum:
        notes.append(f"timm holds the momentum: it was moved between {h.momentum!r} and {h.momentum_min!r} in the search.")
    notes.append("--batch-size is that of one device: divide it by the number of devices.")
    if o.decay_bias_and_norm:
        notes.append("timm leaves biases and normalization undecayed; the search decayed them too.")
    if o.groups:
        notes.append("Groups with their own ratios (optimizer.groups) have no counterpart among timm's arguments.")
    return TIMM.format(comment=settings.comment(*notes).rstrip(), command=_wrapped([*words, *schedule]))


def _fastai_schedule(settings: Settings) -> tuple[str, str]:
    """Learning rate and momentum over the share of the run, as fastai's schedules."""
    s = settings.schedule
    hold = "SchedNo(MOMENTUM, MOMENTUM)"
    if s.kind == "constant":
        return "SchedNo(LR, LR)", hold
    if s.kind == "step":
        levels = [f"LR * {s.gamma**drops!r}" for drops in range(len(s.milestones) + 1)]
        shares = [end - start for start, end in pairwise([0.0, *s.milestones])]
        return _combined(shares, [f"SchedNo({level}, {level})" for level in levels]), hold
    base, last = f"LR / {s.lr_ratio!r}", f"LR / {s.lr_ratio * s.tail_ratio!r}"
    if s.shape == "linear":
        shares = [s.warmup_fraction, 1 - s.warmup_fraction - s.tail_fraction]
        form, bottom, end = "SchedLin", "0.0", f"SchedNo({last}, {last})"
    else:
        shares = [s.warmup_fraction, s.warmup_fraction]
        form, bottom, end = "SchedCos", base, f"SchedCos({base}, {last})"
    lr = [f"{form}({base}, LR)", f"{form}(LR, {bottom})", end]
    momentum = [f"{form}(MOMENTUM, MOMENTUM_MIN)", f"{form}(MOMENTUM_MIN, MOMENTUM)", hold]
    return _combined(shares, lr), _combined(shares, momentum)


def _combined(shares: list[float], parts: list[str]) -> str:
    """`parts` one after the other; the last takes the rest of the run, so that the shares add up to exactly 1."""
    rest = 1 - sum(shares)
    if rest < 1e-9:
        shares, parts, rest = shares[:-1], parts[: len(shares)], 1 - sum(shares[:-1])
    lines = "".join(f"        {part},\n" for part in parts)
    return f"combine_scheds(\n        {[*shares, rest]!r},\n        [\n{indent(lines, '    ')}        ],\n    )"


def _timm_schedule(settings: Settings) -> tuple[list[str], list[str]]:
    """The schedule in timm's arguments, and what about them is only near."""
    h, s = settings.hyperparameters, settings.schedule
    epochs = max(1, round(settings.epochs))
    if s.kind == "constant":
        return ["--sched", "step", "--decay-epochs", f"{epochs + 1}", "--warmup-epochs", "0"], []
    if s.kind == "step":
        milestones = [f"{round(m * epochs)}" for m in s.milestones]
        return ["--sched", "multistep", "--decay-milestones", *milestones, "--decay-rate", f"{s.gamma!r}", "--warmup-epochs", "0"], []
    warmup = max(1, round(s.warmup_fraction * epochs))
    base = h.lr / s.lr_ratio
    words = ["--sched", "cosine", "--sched-on-updates", "--warmup-epochs", f"{warmup}", "--warmup-prefix", "--warmup-lr", f"{base:.6g}"]
    note = "timm has no 1cycle: a linear warm-up to the maximum and a cosine down to the final LR come nearest."
    return [*words, "--min-lr", f"{base / s.tail_ratio:.6g}", "--cooldown-epochs", "0"], [note]


def _wrapped(words: list[str]) -> str:
    """A command over several lines, one option a line."""
    text = ""
    for word in words:
        text += (" \\\n  " if word.startswith("--") else " " if text else "") + shlex.quote(word)
    return text
