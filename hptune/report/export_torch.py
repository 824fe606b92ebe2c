"""PyTorch, and the two tools that take a PyTorch optimizer and scheduler as they are: Lightning and Hugging Face's Trainer."""

from __future__ import annotations

from hptune.report.export_settings import Settings

CONSTANTS = """\
EPOCHS = {epochs!r}
BATCH_SIZE = {batch_size!r}
TRAIN_SAMPLES = {train_samples!r}  # of the search's training part: put in your own number
STEPS = max(1, round(EPOCHS * (TRAIN_SAMPLES // BATCH_SIZE)))  # the ragged last batch of an epoch is dropped
LR = {lr!r}  # the maximum
MOMENTUM = {momentum!r}{beta_note}
MOMENTUM_MIN = {momentum_min!r}
WEIGHT_DECAY = {weight_decay!r}
"""

PLAIN_PARAMETERS = '''
def parameters(model):
    """The parameters to train; all are decayed, biases and normalization too."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
'''

GROUPED_PARAMETERS = '''
GROUPS = {groups!r}  # name pattern, factor on LR, factor on weight decay; the last match counts
DECAY_BIAS_AND_NORM = {decay_bias_and_norm!r}


def parameters(model):
    """The parameters to train, each with its own ratio to the common learning rate and weight decay."""
    norms = (torch.nn.modules.batchnorm._NormBase, torch.nn.LayerNorm, torch.nn.GroupNorm, torch.nn.RMSNorm)
    groups = []
    for name, parameter in model.named_parameters():
        lr_factor, decay_factor = 1.0, 1.0
        for pattern, lr, decay in GROUPS:
            if fnmatch.fnmatchcase(name, pattern):
                lr_factor, decay_factor = lr, decay
        owner = model.get_submodule(name.rpartition(".")[0])
        own_norm = "norm" in type(owner).__name__.lower() and parameter.ndim <= 1
        if not DECAY_BIAS_AND_NORM and (name.endswith("bias") or isinstance(owner, norms) or own_norm):
            decay_factor = 0.0
        if parameter.requires_grad:
            groups.append({{"params": [parameter], "lr": LR * lr_factor, "weight_decay": WEIGHT_DECAY * decay_factor}})
    return groups
'''

SGD = '''

def make_optimizer(model):
    """SGD with momentum and coupled L2 weight decay."""
    return torch.optim.SGD(parameters(model), lr=LR, momentum=MOMENTUM, nesterov={nesterov!r}, weight_decay=WEIGHT_DECAY)
'''

ADAMW = '''

def make_optimizer(model):
    """AdamW; momentum is its beta1."""
    return torch.optim.AdamW(parameters(model), lr=LR, betas=(MOMENTUM, {beta2!r}), eps={eps!r}, weight_decay=WEIGHT_DECAY)
'''

ONE_CYCLE_LR = '''

def make_scheduler(optimizer, steps=STEPS):
    """1cycle with cosine phases; call step() after every optimizer step."""
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=steps,
        pct_start={warmup_fraction!r},
        anneal_strategy="cos",
        base_momentum=MOMENTUM_MIN,
        max_momentum=MOMENTUM,
        div_factor={lr_ratio!r},
        final_div_factor={tail_ratio!r},
        three_phase={three_phase!r},
    )
'''

LINEAR = '''

def schedule(step, steps=STEPS):
    """Learning rate and momentum of an optimizer step (0 ... steps - 1): up, down to about zero, then a constant tail."""
    base = LR / {lr_ratio!r}
    last = base / {tail_ratio!r}
    tail = min(round({tail_fraction!r} * steps), steps - 1)
    peak = min(round({warmup_fraction!r} * steps), steps - tail)
    if step >= steps - tail:
        return last, MOMENTUM
    if step < peak:
        share = step / peak
        return max(base + share * (LR - base), last), MOMENTUM + share * (MOMENTUM_MIN - MOMENTUM)
    share = (step - peak) / (steps - tail - peak)
    return max(LR * (1 - share), last), MOMENTUM_MIN + share * (MOMENTUM - MOMENTUM_MIN)
'''

CONSTANT = '''

def schedule(step, steps=STEPS):
    """Learning rate and momentum of an optimizer step: both constant."""
    return LR, MOMENTUM
'''

STEP_DECAY = '''

def schedule(step, steps=STEPS):
    """Learning rate and momentum of an optimizer step (0 ... steps - 1): the rate drops at each milestone."""
    drops = sum(step >= round(milestone * steps) for milestone in {milestones!r})
    return LR * {gamma!r} ** drops, MOMENTUM
'''

LAMBDA_LR = '''

class Scheduler(torch.optim.lr_scheduler.LambdaLR):
    """Sets the learning rate, and the momentum with it; call step() after every optimizer step."""

    def __init__(self, optimizer, steps=STEPS):
        self.steps = steps
        super().__init__(optimizer, lambda step: schedule(min(step, steps - 1), steps)[0] / LR)

    def step(self, epoch=None):
        super().step(epoch)
        momentum = schedule(min(self.last_epoch, self.steps - 1), self.steps)[1]
        for group in self.optimizer.param_groups:
            {set_momentum}


def make_scheduler(optimizer, steps=STEPS):
    """The schedule of the search."""
    return Scheduler(optimizer, steps)
'''

TRAIN = '''

def train(model, loss_function, dataset, device="cpu"):
    """Train `model` on a map-style dataset of (x, y)."""
    model.to(device).train()
    optimizer = make_optimizer(model)
    scheduler = make_scheduler(optimizer)
    loader = torch.utils.data.DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=True, drop_last=True)
    batches = itertools.chain.from_iterable(itertools.repeat(loader)){scaler}
    for x, y in itertools.islice(batches, STEPS):
        optimizer.zero_grad()
{forward}{clip}{update}
        scheduler.step()
'''

SCALED_UPDATE = """
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        if scaler.get_scale() < scale:
            continue  # the step was skipped: the schedule waits"""

LIGHTNING = '''

class Recommended(lightning.LightningModule):
    """Derive your module from this one; `training_step` and the data are yours (batches of BATCH_SIZE, drop_last=True)."""

    def configure_optimizers(self):
        optimizer = make_optimizer(self)
        return {{"optimizer": optimizer, "lr_scheduler": {{"scheduler": make_scheduler(optimizer), "interval": "step"}}}}


def make_trainer(**keywords):
    """A Trainer of the right length, precision and gradient clipping."""
    return lightning.Trainer(max_epochs=-1, max_steps=STEPS, precision={precision!r}, gradient_clip_val={clip!r}, **keywords)
'''

HUGGINGFACE = '''

def make_arguments(output_dir="out", **keywords):
    """TrainingArguments; the batch size is that of all devices together, divide it by their number."""
    return transformers.TrainingArguments(
        output_dir=output_dir,
        max_steps=STEPS,
        per_device_train_batch_size=BATCH_SIZE,
        learning_rate=LR,
        weight_decay=WEIGHT_DECAY,
        max_grad_norm={clip!r},{clip_note}
        bf16={bf16!r},
        fp16={fp16!r},
        dataloader_drop_last=True,
        seed={seed!r},
        **keywords,
    )


def make_trainer(model, arguments, **keywords):
    """A Trainer with the optimizer and the schedule of the search: lr_scheduler_type has no 1cycle and moves no momentum."""
    optimizer = make_optimizer(model)
    return transformers.Trainer(model=model, args=arguments, optimizers=(optimizer, make_scheduler(optimizer)), **keywords)
'''


def pytorch(settings: Settings) -> str:
    """Optimizer, schedule with the momentum's cycle, and a training loop."""
    clip = settings.optimizer.gradient_clip
    scaled = settings.numerics.precision == "fp16"
    lines = f"\n        torch.nn.utils.clip_grad_norm_(model.parameters(), {clip!r})" if clip is not None else ""
    if scaled and clip is not None:
        lines = "\n        scaler.unscale_(optimizer)" + lines
    loop = TRAIN.format(
        scaler="\n    scaler = torch.amp.GradScaler(device)" if scaled else "",
        forward=_forward(settings),
        clip=lines,
        update=SCALED_UPDATE if scaled else "\n        optimizer.step()",
    )
    return _definitions(settings, "itertools") + loop


def lightning(settings: Settings) -> str:
    """A LightningModule's `configure_optimizers` and the Trainer's arguments."""
    precision = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[settings.numerics.precision]
    return _definitions(settings, "lightning") + LIGHTNING.format(precision=precision, clip=settings.optimizer.gradient_clip)


def huggingface(settings: Settings) -> str:
    """TrainingArguments, and a Trainer that is given the optimizer and the schedule."""
    clip = settings.optimizer.gradient_clip
    return _definitions(settings, "transformers") + HUGGINGFACE.format(
        clip=0.0 if clip is None else clip,
        clip_note="  # no clipping, as in the search; the default would be 1.0" if clip is None else "",
        bf16=settings.numerics.precision == "bf16",
        fp16=settings.numerics.precision == "fp16",
        seed=settings.seed,
    )


def _definitions(settings: Settings, *modules: str) -> str:
    """Constants, `make_optimizer(model)` and `make_scheduler(optimizer)`."""
    h, optimizer = settings.hyperparameters, settings.optimizer
    grouped = bool(optimizer.groups) or not optimizer.decay_bias_and_norm
    needed = sorted({"torch", *modules} | ({"fnmatch"} if grouped else set()))
    constants = CONSTANTS.format(
        epochs=settings.epochs,
        batch_size=h.batch_size,
        train_samples=settings.train_samples,
        lr=h.lr,
        momentum=h.momentum,
        momentum_min=h.momentum_min,
        weight_decay=h.weight_decay,
        beta_note="  # AdamW's beta1" if optimizer.name == "adamw" else "",
    )
    groups = [(group.match, group.lr_factor, group.decay_factor) for group in optimizer.groups]
    parts = [
        settings.comment(),
        "".join(f"import {name}\n" for name in needed),
        "\n" + constants,
        GROUPED_PARAMETERS.format(groups=groups, decay_bias_and_norm=optimizer.decay_bias_and_norm) if grouped else "\n" + PLAIN_PARAMETERS,
        SGD.format(nesterov=optimizer.nesterov and h.momentum > 0)
        if optimizer.name == "sgd"
        else ADAMW.format(beta2=optimizer.beta2, eps=optimizer.eps),
        _scheduler(settings),
    ]
    return "\n".join(parts[:2]) + "".join(parts[2:])


def _scheduler(settings: Settings) -> str:
    s = settings.schedule
    if s.kind == "one_cycle" and s.shape != "linear":
        return ONE_CYCLE_LR.format(
            warmup_fraction=s.warmup_fraction, lr_ratio=s.lr_ratio, tail_ratio=s.tail_ratio, three_phase=s.shape == "three_phase"
        )
    forms = {"one_cycle": LINEAR, "constant": CONSTANT, "step": STEP_DECAY}
    function = forms[s.kind].format(
        lr_ratio=s.lr_ratio,
        tail_ratio=s.tail_ratio,
        tail_fraction=s.tail_fraction,
        warmup_fraction=s.warmup_fraction,
        milestones=s.milestones,
        gamma=s.gamma,
    )
    sgd, adamw = 'group["momentum"] = momentum', f'group["betas"] = (momentum, {settings.optimizer.beta2!r})'
    return function + LAMBDA_LR.format(set_momentum=sgd if settings.optimizer.name == "sgd" else adamw)


def _forward(settings: Settings) -> str:
    precision = settings.numerics.precision
    backward = "scaler.scale(loss).backward()" if precision == "fp16" else "loss.backward()"
    compute = "loss = loss_function(model(x.to(device)), y.to(device))"
    if precision == "fp32":
        return f"        {compute}\n        {backward}"
    dtype = {"bf16": "torch.bfloat16", "fp16": "torch.float16"}[precision]
    return f"        with torch.autocast(device, {dtype}):\n            {compute}\n        {backward}"
