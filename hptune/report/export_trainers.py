"""Lightning, fastai, and Hugging Face's Trainer: loops that take PyTorch's optimizer and scheduler as they are."""

from __future__ import annotations

import math

from hptune.report.export_parts import definitions
from hptune.report.export_settings import Settings

LIGHTNING = '''

class Recommended(lightning.LightningModule):
    """Trains `model` as recommended; a module of your own needs no more than this `configure_optimizers`."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = loss_function(self.model(x), y)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        optimizer = make_optimizer(self.model)
        scheduler = make_scheduler(optimizer, self.trainer.max_steps)
        return {{"optimizer": optimizer, "lr_scheduler": {{"scheduler": scheduler, "interval": "step"}}}}


def make_loader(dataset):
    """Its batches{loader_note}."""
    return torch.utils.data.DataLoader(dataset, batch_size={loader_size}, shuffle=True, drop_last=True)


def make_trainer(dataset, **keywords):
    """A Trainer of the right length."""
    return lightning.Trainer(
        max_epochs=-1,
        max_steps=steps_for(dataset),{lines}
        **keywords,
    )


if __name__ == "__main__":
    lightning.seed_everything({seed!r})
    dataset = make_dataset()
    make_trainer(dataset, logger=False, enable_checkpointing=False).fit(Recommended(make_model()), make_loader(dataset))
'''

HUGGINGFACE = '''

class ReturnsLoss(torch.nn.Module):
    """Gives a PyTorch model the Trainer's form: keywords in, the loss out. A model of transformers has it already."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, labels):
        output = self.model(x)
        return {{"loss": loss_function(output, labels), "logits": output}}


{whole_batches}def make_arguments(dataset, output_dir="out", **keywords):
    """TrainingArguments; the batch size is that of all devices together, divide it by their number."""
    return transformers.TrainingArguments(
        output_dir=output_dir,
        max_steps=steps_for(dataset),
        per_device_train_batch_size={loader_size},{accumulation}
        learning_rate=LR,
        weight_decay=WEIGHT_DECAY,
        max_grad_norm={clip!r},{clip_note}
        bf16={bf16!r},
        fp16={fp16!r},{skip_note}
        dataloader_drop_last=True,
        seed={seed!r},
        **keywords,
    )


def make_trainer(model, dataset, arguments, **keywords):
    """A Trainer with the optimizer and the schedule of the search: lr_scheduler_type has no 1cycle and moves no momentum."""
    optimizer = make_optimizer(model.model if isinstance(model, ReturnsLoss) else model)
    optimizers = (optimizer, make_scheduler(optimizer, arguments.max_steps))
    return {trainer}(model=model, args=arguments, train_dataset=dataset, optimizers=optimizers, **keywords)


if __name__ == "__main__":
    transformers.set_seed({seed!r})
    dataset = make_dataset()
    make_trainer(make_model(), dataset, make_arguments(dataset, save_strategy="no", report_to="none")).train()
'''

WHOLE_BATCHES = '''\
class WholeBatches(transformers.Trainer):
    """A Trainer whose epochs end with a whole batch: their last update would be of fewer pieces, or of more."""

    def _get_train_sampler(self, *_):
        samples = len(self.train_dataset) // BATCH_SIZE * BATCH_SIZE
        return torch.utils.data.RandomSampler(self.train_dataset, num_samples=samples)


'''

FASTAI = '''

class Recommended(Callback):
    """Gives a Learner's fit the optimizer and the schedule of the search, and ends it after so many optimizer steps.

    fastai's own SGD has no Nesterov momentum and decouples weight decay; its schedules are written for whole epochs.
    """

    order, run_valid = 60, False  # after the Recorder, so that the last batch is recorded

    def __init__(self, steps):
        self.steps = steps

    def before_fit(self):
        self.learn.opt = OptimWrapper(opt=make_optimizer(self.learn.model))
        self.scheduler = make_scheduler(self.learn.opt.opt, self.steps)
        self.overflowed = False

    def after_cancel_step(self):
        self.overflowed = True  # fp16 skipped the update: the schedule waits

    def after_step(self):
        if not self.overflowed:
            self.scheduler.step()
        self.overflowed = False

    def after_batch(self):
        if self.scheduler.last_epoch >= self.steps and self.iter + 1 < self.n_iter:
            raise CancelTrainException()  # ends the epoch here, and goes on to its validation


def fit(learn, steps=None):
    """Train a Learner as recommended, for EPOCHS epochs of its data; its loader drops the last batch (drop_last=True)."""
    steps = steps or steps_for(learn.dls.train.dataset)
    learn.fit(math.ceil(EPOCHS), cbs=[Recommended(steps){callbacks}])
{one_cycle}

if __name__ == "__main__":
    torch.manual_seed({seed!r})
    dataset = make_dataset()
    dls = DataLoaders.from_dsets(dataset, dataset, bs={loader_size})
    fit(Learner(dls, make_model(), loss_func=loss_function))
'''

FIT_ONE_CYCLE = '''

def fit_one_cycle(learn):
    """fastai's own form of it: whole epochs, and an LR within {near:.2%} of the maximum of the search's over {steps} steps."""
    learn.opt_func = lambda _, **keywords: OptimWrapper(opt=make_optimizer(learn.model))
    learn.create_opt()
    learn.fit_one_cycle(
        {epochs!r},
        lr_max=[group["lr"] for group in learn.opt.opt.param_groups],
        div={lr_ratio!r},
        div_final={div_final!r},  # from the maximum
        pct_start={warmup_fraction!r},
        moms=(MOMENTUM, MOMENTUM_MIN, MOMENTUM),
        cbs=[{callbacks}],
    )
'''


def lightning(settings: Settings) -> str:
    """A LightningModule with `configure_optimizers`, and a Trainer."""
    precision, clip, pieces = settings.numerics.precision, settings.optimizer.gradient_clip, settings.accumulation
    word = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[precision]
    lines = [f'precision="{word}"']
    if clip is not None:
        lines.append(f"gradient_clip_val={clip!r}")
    if pieces > 1:
        lines.append(f"accumulate_grad_batches={pieces}")
        lines.append(f"limit_train_batches={pieces} * (len(dataset) // BATCH_SIZE)")  # else an epoch's last update is of fewer pieces
    if precision == "fp16":
        lines.append("# An update that fp16 skips counts as a step here; in the search it did not.")
    return definitions(settings, "import lightning", library="lightning") + LIGHTNING.format(
        loader_note=f"; {pieces} of them make one optimizer step" if pieces > 1 else "",
        loader_size=_loader_size(settings),
        lines="".join(f"\n        {line}{'' if line.startswith('#') else ','}" for line in lines),
        seed=settings.seed,
    )


def huggingface(settings: Settings) -> str:
    """TrainingArguments, and a Trainer that is given the optimizer and the schedule."""
    clip, pieces = settings.optimizer.gradient_clip, settings.accumulation
    return definitions(settings, "import transformers", library="transformers", keyed=True) + HUGGINGFACE.format(
        whole_batches=WHOLE_BATCHES if pieces > 1 else "",
        trainer="WholeBatches" if pieces > 1 else "transformers.Trainer",
        loader_size=_loader_size(settings),
        accumulation=f"\n        gradient_accumulation_steps={pieces}," if pieces > 1 else "",
        clip=0.0 if clip is None else clip,
        clip_note="  # no clipping, as in the search; the default would be 1.0" if clip is None else "",
        bf16=settings.numerics.precision == "bf16",
        fp16=settings.numerics.precision == "fp16",
        skip_note="  # an update that it skips counts as a step here; in the search it did not"
        if settings.numerics.precision == "fp16"
        else "",
        seed=settings.seed,
    )


def fastai(settings: Settings) -> str:
    """A callback for `Learner.fit`; beside it `fit_one_cycle`, for the shape that is nearly the same."""
    imports = {"fastai.basics": ["Callback", "CancelTrainException", "DataLoaders", "Learner", "OptimWrapper"]}
    callbacks = []
    if settings.numerics.precision != "fp32":
        imports["fastai.callback.fp16"] = ["AMPMode", "MixedPrecision"]
        callbacks.append(f"MixedPrecision(amp_mode=AMPMode.{settings.numerics.precision.upper()})")
    if settings.optimizer.gradient_clip is not None:
        imports.setdefault("fastai.callback.training", []).append("GradientClip")
        callbacks.append(f"GradientClip({settings.optimizer.gradient_clip!r})")
    if settings.accumulation > 1:
        imports.setdefault("fastai.callback.training", []).insert(0, "GradientAccumulation")
        callbacks.append("GradientAccumulation(BATCH_SIZE)")
    s, one_cycle = settings.schedule, ""
    if s.kind == "one_cycle" and s.shape == "torch":
        imports["fastai.callback.schedule"] = []  # which gives the Learner its fit_one_cycle
        one_cycle = FIT_ONE_CYCLE.format(
            near=math.pi / 2 / (min(s.warmup_fraction, 1 - s.warmup_fraction) * settings.steps),  # a step's share of a phase
            steps=settings.steps,
            epochs=max(1, round(settings.epochs)),
            lr_ratio=s.lr_ratio,
            div_final=s.lr_ratio * s.tail_ratio,
            warmup_fraction=s.warmup_fraction,
            callbacks=", ".join(callbacks),
        )
    lines = [f"from {module} import {', '.join(names)}" if names else f"import {module}" for module, names in imports.items()]
    return definitions(settings, "import math", *lines, library="fastai") + FASTAI.format(
        callbacks="".join(f", {callback}" for callback in callbacks),
        one_cycle=one_cycle,
        loader_size=_loader_size(settings),
        seed=settings.seed,
    )


def _loader_size(settings: Settings) -> str:
    return "MICRO_BATCH" if settings.accumulation > 1 else "BATCH_SIZE"
