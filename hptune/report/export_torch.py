"""PyTorch itself: optimizer, schedule, and a training loop."""

from __future__ import annotations

from textwrap import indent

from hptune.report.export_parts import definitions
from hptune.report.export_settings import Settings

TRAIN = '''

def train(model, dataset, device="cpu", steps=None):
    """Train `model` on `dataset` for so many optimizer steps, those of EPOCHS epochs if not said; return it."""
    steps = steps or steps_for(dataset)
    model.to(device).train()
    optimizer = make_optimizer(model)
    scheduler = make_scheduler(optimizer, steps)
    loader = torch.utils.data.DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=True, drop_last=True)
    batches = itertools.chain.from_iterable(itertools.repeat(loader)){scaler}
    while (step := scheduler.last_epoch) < steps:  # optimizer steps so far
        x, y = (part.to(device) for part in next(batches))
        optimizer.zero_grad()
{backward}{update}
        scheduler.step()
        if step % max(1, steps // 10) == 0 or step == steps - 1:
            print(f"step {{step + 1}}/{{steps}}  loss {{{shown}.item():.4f}}")
    return model


if __name__ == "__main__":
    torch.manual_seed({seed!r})
    train(make_model(), make_dataset(), "cuda" if torch.cuda.is_available() else "cpu")
'''

PIECES = """\
        total = torch.zeros((), device=device)
        for piece, target in zip(x.split(MICRO_BATCH), y.split(MICRO_BATCH)):
"""

SCALED_UPDATE = """
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        if scaler.get_scale() < scale:
            continue  # the gradients overflowed and the update was skipped: the schedule waits"""


def pytorch(settings: Settings) -> str:
    """Optimizer, schedule with the momentum's cycle, and a training loop."""
    scaled = settings.numerics.precision == "fp16"
    loop = TRAIN.format(
        scaler="\n    scaler = torch.amp.GradScaler(device)" if scaled else "",
        backward=_backward(settings),
        update=_clip(settings) + (SCALED_UPDATE if scaled else "\n        optimizer.step()"),
        shown="loss" if settings.accumulation == 1 else "total",
        seed=settings.seed,
    )
    return definitions(settings, "import itertools") + loop


def _clip(settings: Settings) -> str:
    clip = settings.optimizer.gradient_clip
    if clip is None:
        return ""
    unscaled = "\n        scaler.unscale_(optimizer)" if settings.numerics.precision == "fp16" else ""
    return f"{unscaled}\n        torch.nn.utils.clip_grad_norm_(model.parameters(), {clip!r})"


def _backward(settings: Settings) -> str:
    """Forward and backward pass of a batch, in pieces where the search took it so."""
    precision, pieces = settings.numerics.precision, settings.accumulation
    compute = "loss = loss_function(model(x), y)" if pieces == 1 else f"loss = loss_function(model(piece), target) / {pieces}"
    if precision != "fp32":
        dtype = {"bf16": "torch.bfloat16", "fp16": "torch.float16"}[precision]
        compute = f"with torch.autocast(device, {dtype}):\n    {compute}"
    lines = f"{compute}\n{'scaler.scale(loss).backward()' if precision == 'fp16' else 'loss.backward()'}"
    return indent(lines, " " * 8) if pieces == 1 else PIECES + indent(f"{lines}\ntotal += loss.detach()", " " * 12)
