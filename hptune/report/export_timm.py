"""timm: the arguments of its train.py that come nearest, and how near that is."""

from __future__ import annotations

import math
import shlex

import numpy as np

from hptune.report.export_settings import Settings
from hptune.schedules import Values, step_decay, tabulate

WHERE = """\
For train.py of timm 1.0.12 or newer (github.com/huggingface/pytorch-image-models; the package timm does not bring it).
Put in DATA_DIR{model}; --batch-size is that of one device: divide it by the number of devices."""


def timm(settings: Settings) -> str:
    """A shell command; comments say what its schedule, whole epochs and held momentum leave out, and how far off the LR is."""
    h, s = settings.hyperparameters, settings.schedule
    pieces = settings.accumulation
    schedule, rates, epochs = _schedule(settings)
    words = ["python", "train.py", "--data-dir", "DATA_DIR", "--model", settings.model.name or "MODEL"]
    if settings.classes:
        words += ["--num-classes", f"{settings.classes}"]
    words += ["--batch-size", f"{h.batch_size // pieces}", *(["--grad-accum-steps", f"{pieces}"] if pieces > 1 else [])]
    words += ["--seed", f"{settings.seed}", *_optimizer(settings), *schedule]
    if settings.numerics.precision != "fp32":
        words += ["--amp", "--amp-dtype", "bfloat16" if settings.numerics.precision == "bf16" else "float16"]
    words += ["--smoothing", f"{0.0 if settings.loss is None else settings.loss.args.get('label_smoothing', 0.0)!r}"]
    words += [] if settings.augment else ["--no-aug"]
    notes = [WHERE.format(model=" and MODEL" if settings.model.name is None else "; --model is the search's name, which timm may not know")]
    ours = tabulate(s, steps=len(rates), lr=h.lr, momentum=h.momentum, momentum_min=h.momentum_min).lr
    near = float(np.max(np.abs(rates - ours))) / h.lr
    notes.append(f"The LR is within {_percent(near)} of the maximum of the search's schedule at every one of {len(rates)} steps.")
    if epochs != settings.epochs:
        notes.append(f"timm counts whole epochs: {settings.epochs:g} became {epochs}.")
    if s.kind == "one_cycle" and h.momentum_min != h.momentum:
        notes.append(
            f"timm holds the momentum; the search moved it from {h.momentum!r} to {h.momentum_min!r} and back. "
            "It is held at what goes with the LR's maximum, where more may diverge."
        )
    return f"{settings.comment(*notes, *_left_out(settings))}{_wrapped(words)}\n"


def _percent(share: float) -> str:
    """Rounded up, so that it stays a bound."""
    return f"{np.ceil(share * 1000) / 10:.1f} %" if share > 1e-6 else "0.0 %"


def _left_out(settings: Settings) -> list[str]:
    notes = []
    if settings.optimizer.groups:
        notes.append("Groups with their own ratios (optimizer.groups) have no counterpart among timm's arguments.")
    if settings.augment:
        notes.append("timm augments in its own way: random resized crops, flips, colours (--no-aug: nothing).")
    if settings.loss is None or settings.loss.name != "cross_entropy":
        notes.append("train.py's loss is cross entropy, which is not the search's: change it there.")
    return notes


def _optimizer(settings: Settings) -> list[str]:
    h, o = settings.hyperparameters, settings.optimizer
    momentum = h.momentum_min if settings.schedule.kind == "one_cycle" else h.momentum
    words = ["--lr", f"{h.lr!r}", "--weight-decay", f"{h.weight_decay!r}"]
    if o.name == "sgd":
        words += ["--opt", "sgd" if o.nesterov and momentum > 0 else "momentum", "--momentum", f"{momentum!r}"]
    else:
        words += ["--opt", "adamw", "--opt-betas", f"{momentum!r}", f"{o.beta2!r}", "--opt-eps", f"{o.eps!r}"]
    if o.decay_bias_and_norm:
        words += ["--opt-kwargs", "filter_bias_and_bn=False"]
    if o.gradient_clip is not None:
        words += ["--clip-grad", f"{o.gradient_clip!r}"]
    return words


def _schedule(settings: Settings) -> tuple[list[str], Values, int]:
    """The schedule in timm's arguments, the learning rates it has at each step, and the epochs of the whole training."""
    h, s = settings.hyperparameters, settings.schedule
    pieces = settings.accumulation
    batches = settings.train_samples // (h.batch_size // pieces)
    epochs, per_epoch = max(1, round(settings.epochs)), max(1, math.ceil(batches / pieces))  # an epoch's last update may be of fewer pieces
    if s.kind == "one_cycle":
        words, rates = _one_cycle(settings, epochs, per_epoch)
        return words, rates, epochs
    drops = sorted(round(m * epochs) for m in s.milestones) if s.kind == "step" else []
    by_epoch = step_decay(epochs, lr=h.lr, milestones=tuple(drop / epochs for drop in drops), gamma=s.gamma)
    words = ["--epochs", f"{epochs}", "--warmup-epochs", "0"]
    if drops:  # timm drops the rate one epoch before a milestone
        words += ["--sched", "multistep", "--decay-milestones", *(f"{drop + 1}" for drop in drops), "--decay-rate", f"{s.gamma!r}"]
    else:
        words += ["--sched", "step", "--decay-epochs", f"{epochs + 1}"]
    return words, np.repeat(by_epoch, per_epoch), epochs


def _one_cycle(settings: Settings, epochs: int, per_epoch: int) -> tuple[list[str], Values]:
    """A linear warm-up, then a way down over whole epochs: linear (`poly` of power 1) or a half cosine, then what it ended at."""
    h, s = settings.hyperparameters, settings.schedule
    up, down, hold = _phases(settings, epochs)
    base = h.lr / s.lr_ratio
    low = base if s.shape == "three_phase" else base / s.tail_ratio
    at, top = np.arange(epochs * per_epoch, dtype=np.float64), up * per_epoch
    share = np.clip((at - top) / (down * per_epoch), 0, 1)
    left = 1 - share if s.shape == "linear" else (1 + np.cos(np.pi * share)) / 2
    rates = np.where(at < top, base + (h.lr - base) * at / max(1, top), low + (h.lr - low) * left)
    words = ["--sched", "poly", "--decay-rate", "1.0"] if s.shape == "linear" else ["--sched", "cosine"]
    words += ["--sched-on-updates", "--warmup-prefix", "--warmup-epochs", f"{up}", "--warmup-lr", f"{base:.6g}"]
    return [*words, "--epochs", f"{down}", "--min-lr", f"{low:.6g}", "--cooldown-epochs", f"{hold}"], rates


def _phases(settings: Settings, epochs: int) -> tuple[int, int, int]:
    """Whole epochs of the way up, the way down (`--epochs` of timm, which come on top of the warm-up) and what is held at the end."""
    s = settings.schedule
    if s.shape == "three_phase":
        up = min(round(s.warmup_fraction * epochs), epochs - 1)
        down = max(1, min(up, epochs - up))
        return up, down, epochs - up - down
    hold = min(round(s.tail_fraction * epochs), epochs - 1) if s.shape == "linear" else 0
    up = min(round(s.warmup_fraction * epochs), epochs - hold - 1)
    return up, epochs - hold - up, hold


def _wrapped(words: list[str]) -> str:
    """A command over several lines, one option a line."""
    text = ""
    for word in words:
        text += (" \\\n  " if word.startswith("--") else " " if text else "") + shlex.quote(word)
    return text
