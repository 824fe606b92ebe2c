"""What the Python exports share: constants, stand-ins for what is the user's, `make_optimizer` and `make_scheduler`."""

from __future__ import annotations

from hptune.report.export_settings import Settings

CONSTANTS = """\
EPOCHS = {epochs!r}
BATCH_SIZE = {batch_size!r}
{micro_batch}LR = {lr!r}  # the maximum
MOMENTUM = {momentum!r}{beta_note}
MOMENTUM_MIN = {momentum_min!r}
WEIGHT_DECAY = {weight_decay!r}
"""

MICRO_BATCH = "MICRO_BATCH = {micro_batch!r}  # samples a forward pass; {pieces} of them are a batch\n"

STAND_INS = '''

# YOURS: the next three are stand-ins, with which this file runs as it is. Below them nothing needs a change.


def make_model():
    """Your model."""
    return {model}


def make_dataset():
    """Your training samples, a map-style dataset{of_what}."""
    x = torch.randn(8 * BATCH_SIZE, 8)
    y = {labels}
    return {dataset}


def loss_function(output, target):
    """{loss_note}"""
    return torch.nn.functional.{loss}


def steps_for(dataset):
    """Optimizer steps of EPOCHS epochs; the ragged last batch of an epoch is dropped."""
    if len(dataset) < BATCH_SIZE:
        raise ValueError(f"the {{len(dataset)}} training samples are fewer than a batch of {{BATCH_SIZE}}")
    return max(1, round(EPOCHS * (len(dataset) // BATCH_SIZE)))
'''

PLAIN_PARAMETERS = '''

def parameters(model):
    """The parameters to train; all are decayed, biases and normalization too."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
'''

GROUPED_PARAMETERS = '''

GROUPS = {groups!r}  # name pattern, factor on LR, factor on weight decay; the last match counts
DECAY_BIAS_AND_NORM = {decay_bias_and_norm!r}


def parameters(model):
    """The parameters to train, in groups of one ratio each to the common learning rate and weight decay."""
    norms = (torch.nn.modules.batchnorm._NormBase, torch.nn.LayerNorm, torch.nn.GroupNorm, torch.nn.RMSNorm)
    groups = {{}}
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
            group = {{"params": [], "lr": LR * lr_factor, "weight_decay": WEIGHT_DECAY * decay_factor}}
            groups.setdefault((lr_factor, decay_factor), group)["params"].append(parameter)
    return list(groups.values())
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

def make_scheduler(optimizer, steps):
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

def schedule(step, steps):
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

def schedule(step, steps):
    """Learning rate and momentum of an optimizer step: both constant."""
    return LR, MOMENTUM
'''

STEP_DECAY = '''

def schedule(step, steps):
    """Learning rate and momentum of an optimizer step (0 ... steps - 1): the rate drops at each milestone."""
    drops = sum(step >= round(milestone * steps) for milestone in {milestones!r})
    return LR * {gamma!r} ** drops, MOMENTUM
'''

LAMBDA_LR = '''

class Scheduler(torch.optim.lr_scheduler.LambdaLR):
    """Sets the learning rate, and the momentum with it; call step() after every optimizer step."""

    def __init__(self, optimizer, steps):
        self.steps = steps
        super().__init__(optimizer, lambda step: schedule(min(step, steps - 1), steps)[0] / LR)

    def step(self, epoch=None):
        super().step(epoch)
        momentum = schedule(min(self.last_epoch, self.steps - 1), self.steps)[1]
        for group in self.optimizer.param_groups:
            {set_momentum}


def make_scheduler(optimizer, steps):
    """The schedule of the search."""
    return Scheduler(optimizer, steps)
'''

HOW_TO = """\
`python FILE` runs as it is, on stand-ins for model and data: put your own in where it says YOURS.{shadow}"""

LOSSES = {
    "cross_entropy": "cross_entropy(output, target{arguments})",
    "mse": "mse_loss(output.reshape(target.shape), target{arguments})",
    "l1": "l1_loss(output.reshape(target.shape), target{arguments})",
    "smooth_l1": "smooth_l1_loss(output.reshape(target.shape), target{arguments})",
    "bce_with_logits": "binary_cross_entropy_with_logits(output.reshape(target.shape), target{arguments})",
}


def definitions(settings: Settings, *imports: str, library: str = "", keyed: bool = False) -> str:
    """Header, imports, constants, the user's parts, `make_optimizer(model)` and `make_scheduler(optimizer, steps)`.

    `imports`: lines beside those needed here. `library`: what a file of that name would hide. `keyed`: samples are dicts and the model
    returns the loss (wrapped in `ReturnsLoss`).
    """
    h, optimizer, pieces = settings.hyperparameters, settings.optimizer, settings.accumulation
    grouped = bool(optimizer.groups) or not optimizer.decay_bias_and_norm
    constants = CONSTANTS.format(
        epochs=settings.epochs,
        batch_size=h.batch_size,
        micro_batch=MICRO_BATCH.format(micro_batch=h.batch_size // pieces, pieces=pieces) if pieces > 1 else "",
        lr=h.lr,
        momentum=h.momentum,
        momentum_min=h.momentum_min,
        weight_decay=h.weight_decay,
        beta_note="  # AdamW's beta1" if optimizer.name == "adamw" else "",
    )
    groups = [(group.match, group.lr_factor, group.decay_factor) for group in optimizer.groups]
    parameters = GROUPED_PARAMETERS.format(groups=groups, decay_bias_and_norm=optimizer.decay_bias_and_norm)
    lines = sorted({"import torch", *imports, *(["import fnmatch"] if grouped else [])}, key=_import_order)
    return "".join(
        [
            settings.comment(HOW_TO.format(shadow=f" FILE must not be named {library}.py." if library else "")),
            "\n" + "".join(f"{line}\n" for line in lines) + "\n",
            constants,
            _stand_ins(settings, keyed=keyed),
            parameters if grouped else PLAIN_PARAMETERS,
            SGD.format(nesterov=optimizer.nesterov and h.momentum > 0)
            if optimizer.name == "sgd"
            else ADAMW.format(beta2=optimizer.beta2, eps=optimizer.eps),
            _scheduler(settings),
        ]
    )


def _import_order(line: str) -> tuple[bool, str]:
    """`import` before `from`, each in alphabetical order."""
    return line.startswith("from"), line


def _stand_ins(settings: Settings, *, keyed: bool) -> str:
    known = settings.loss is not None and settings.loss.name is not None
    name, arguments = "cross_entropy", ""
    if settings.loss is not None and settings.loss.name is not None:
        name = settings.loss.name
        arguments = "".join(f", {key}={value!r}" for key, value in settings.loss.args.items())
    classes = name == "cross_entropy"
    model = f"torch.nn.Linear(8, {2 if classes else 1})"
    return STAND_INS.format(
        model=f"ReturnsLoss({model})" if keyed else model,
        of_what=" of dicts with what the model's forward takes" if keyed else " of (x, y)",
        labels="(x[:, 0] > 0).long()" if classes else "(x[:, 0] > 0).float()",
        dataset='[{"x": a, "labels": b} for a, b in zip(x, y)]' if keyed else "torch.utils.data.TensorDataset(x, y)",
        loss=LOSSES[name].format(arguments=arguments),
        loss_note="The loss of the search." if known else "Your loss; this one only stands in for it.",
    )


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
