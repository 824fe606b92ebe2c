"""JSON schemas of what --json prints, one a document: a contract for scripts, from which `hptune explain json` lists the keys.

Every object has exactly the keys named here. What is not known, or no finite number, is null.
"""

from __future__ import annotations

from collections.abc import Mapping

from hptune.cli.schema_parts import Schema, flag, hyperparameters, keyed, number, or_null, several, text, thing, whole, words

STATE = words("where it stands; failed: nothing usable was found", "empty", "unfinished", "failed", "finished")
NUMERICS = {
    "device": text("cpu, cuda or mps"),
    "device_model": text("its name; empty where not known"),
    "precision": words("of the arithmetic", "fp32", "bf16", "fp16"),
    "threads": whole("CPU threads of one trial"),
    "channels_last": flag("memory format of images"),
    "micro_batch": whole("samples at once, where a batch is computed in pieces", null=True),
    "compiled": flag("by torch.compile"),
    "replicas": whole("devices that train one network together"),
    "sync_batch_norm": flag("batch norm sees the samples of all of them"),
}
ROW: Schema = {
    **thing(
        "a row of tables/<stage>.csv; swept values stand under their own names",
        rank=whole("1 is best"),
        val_loss=number("final validation loss, mean over seeds adjusted for common-seed effects"),
        val_loss_low=number("lower end of its 95 % interval"),
        val_loss_high=number("upper end"),
        metric=number("adjusted mean over seeds"),
        train_loss=number("mean over seeds"),
        seeds=whole("completed trials"),
        chosen={"enum": ["yes", None], "description": "yes on the row that goes on"},
        verdict=words("how it compares", "best", "tied", "worse", "diverged", "out_of_memory", "failed"),
        clue=text("underfitting, overfitting, balanced or unstable", null=True),
        steps=whole("optimizer steps of a trial"),
        samples=whole("training samples of a trial"),
        samples_per_second=number("training samples a second"),
        seconds=number("of all its trials", null=False),
    ),
    "additionalProperties": {"type": ["number", "string", "boolean", "null"], "description": "a swept value"},
}
STAGE = thing(
    "a stage",
    state=STATE,
    trials=whole("trials done"),
    planned=whole("trials planned so far"),
    sentence=text("what it found", null=True),
    notes=several(text("a sentence"), "what to know beside it"),
    chosen=or_null(hyperparameters("what goes on")),
    samples=whole("training samples of its trials"),
    seconds=number("of its trials", null=False),
    table=several(ROW, "candidates, best first"),
)
GAIN = or_null(
    thing(
        "ratio of validation losses, recommended over baseline",
        ratio=number("the ratio"),
        low=number("lower end of its 95 % interval"),
        high=number("upper end"),
    )
)
RECOMMENDATION = or_null(
    thing(
        "null before a stage is finished",
        hyperparameters=hyperparameters("to train with"),
        baseline=hyperparameters("the config's own"),
        short=hyperparameters("best of the short runs"),
        epochs=number("length of the full training", null=False),
        sources=keyed(text("baseline, or a stage"), "hyper-parameter: where its value came from"),
        evidence=several(text("a sentence"), "what each stage found"),
        confirmed=flag("whether full-length trainings compared it with the baseline"),
        better=flag("whether they showed it to be better", null=True),
        gain=GAIN,
        offers=several(
            thing(
                "a value of another key that did better",
                key=text("config key"),
                value={"description": "its value"},
                sentence=text("with its numbers"),
            ),
            "found by sweeps; no part of the configuration",
        ),
        file=text("path of recommended.yaml"),
    )
)
RUN = thing(
    "a run",
    name=text("the config's name"),
    run_dir=text("path of the run directory"),
    state=STATE,
    stages=keyed(STAGE, "by name: lr_range, batch_size, …, or the key of a sweep"),
    recommendation=RECOMMENDATION,
    notes=several(text("a sentence"), "what to know of the run"),
)
SUMMARY: Schema = {
    "description": "a run, or a run directory that cannot be read",
    "anyOf": [
        thing(
            "a run",
            run_dir=text("path of the run directory"),
            name=text("the config's name"),
            state=STATE,
            stages_done=several(text("a stage"), "stages that are finished"),
            confirmed=flag("whether the recommendation was compared with the baseline"),
            trials=whole("trials done"),
            seconds=number("of all its trials", null=False),
            best_loss=number("lowest validation loss in its tables"),
            metric=text("the metric's name", null=True),
            best_metric=number("best metric in its tables"),
            recommendation=or_null(hyperparameters("recommended")),
        ),
        thing(
            "a run directory that cannot be read",
            run_dir=text("its path"),
            name=text("its name"),
            state=words("what is wrong", "unreadable"),
            error=text("why"),
        ),
    ],
}
COMPARISON = thing(
    "runs side by side",
    runs=several(
        thing(
            "a run",
            run_dir=text("path of the run directory"),
            name=text("the config's name"),
            state=STATE,
            trials=whole("trials done"),
            samples=whole("training samples of all of them"),
            seconds=number("of all of them", null=False),
            recommendation=or_null(hyperparameters("recommended", epochs=number("length of the full training", null=False))),
            confirmed=flag("whether it was compared with the run's own baseline"),
            better=flag("whether it was shown to be better", null=True),
            gain=GAIN,
            confirm=or_null(
                thing(
                    "what confirm saw of the candidate that is recommended",
                    candidate=text("its name"),
                    val_loss=number("final validation loss"),
                    val_loss_low=number("lower end of its 95 % interval"),
                    val_loss_high=number("upper end"),
                    metric=number("on the validation part"),
                    train_loss=number("mean over seeds"),
                    seeds=whole("completed trials"),
                    test_loss=number("on the test part"),
                    test_metric=number("on the test part"),
                )
            ),
            notes=several(text("a sentence"), "what to know of the run"),
        ),
        "in the order given",
    ),
    settings=keyed(several({"description": "a value; null where a run has none"}, "one value a run"), "config keys that differ"),
    differences=several(
        thing(
            "the recommendation against the first run's, by what both runs' finalists did on the same seeds",
            why_not=text("why nothing can be said", null=True),
            same=flag("whether the two are one", null=True),
            claim=flag("whether they differ beyond noise", null=True),
            better=flag("whether this one is shown to be better", null=True),
            seeds=whole("seeds that both ran on", null=True),
            ratio=number("of validation losses, this one's over the first one's"),
            low=number("lower end of its 95 % interval"),
            high=number("upper end"),
        ),
        "one for each run after the first",
    ),
    notes=several(text("a sentence"), "what to know before comparing"),
)
TRAINING = thing(
    "a full training",
    run_dir=text("path of the run directory"),
    weights=text("path of the weights"),
    status=words("how it ended", "completed", "diverged", "out_of_memory", "failed"),
    val_loss=number("final validation loss"),
    metric=number("final metric"),
    best_val_loss=number("lowest on the way"),
    best_metric=number("best on the way"),
    train_loss=number("at the end"),
    test_loss=number("on the test part"),
    test_metric=number("on the test part"),
    steps=whole("optimizer steps"),
    samples=whole("training samples"),
    seconds=number("it took", null=False),
    device=text("it ran on"),
    error=text("what went wrong", null=True),
    hyperparameters=hyperparameters("trained with"),
)
CHECK = thing(
    "a config as it would run",
    name=text("the config's name"),
    run_dir=text("where a run would go"),
    device=text("cpu, cuda or mps"),
    device_model=text("its name; empty where not known"),
    precision=text("of the arithmetic"),
    numerics=thing("how numbers are computed", **NUMERICS),
    train_samples=whole("training samples"),
    val_samples=whole("validation samples"),
    test_samples=whole("test samples; 0 without a test part"),
    classes=whole("0 for regression"),
    parameters=whole("of the model"),
    workers=whole("trials at a time"),
    seconds_per_step=number("at the baseline's batch size"),
    memory=whole("bytes at most so far", null=True),
    stages=several(
        thing(
            "what a stage is expected to cost",
            stage=text("its name"),
            trials=whole("trials"),
            steps=whole("optimizer steps"),
            samples=whole("training samples"),
            longest=number("epochs of its longest run", null=False),
            seconds=number("expected"),
        ),
        "in their order",
    ),
    seconds=number("expected for all of it"),
    user_code=several(text("a target"), "your code that a run executes"),
    code_files=several(text("a path"), "the files it consists of"),
    notes=several(text("a sentence"), "what will go wrong or be left out"),
)
OUTLINE = thing(
    "a config, nothing it names opened or run",
    name=text("the config's name"),
    run_dir=text("where a run would go"),
    stages=several(text("a stage"), "that a run goes through"),
    code=several(text("a path or module"), "what a run executes"),
    files=several(text("a path"), "what a run reads"),
    variables=several(text("a name"), "environment variables in the config"),
    config=text("the resolved config, YAML"),
)
SHARES = keyed(number("a share", null=False), "reading, augmentation, python: share of a step's time, where measured")
SPEEDS = thing(
    "speeds by batch size",
    name=text("the config's name"),
    **NUMERICS,
    train_samples=whole("training samples"),
    parameters=whole("of the model"),
    rows=several(
        thing(
            "a batch size",
            batch_size=whole("samples a step"),
            status=words("whether it was measured", "measured", "out_of_memory", "failed", "not_tried"),
            seconds=number("median of a whole step"),
            compute_seconds=number("of it, on the device"),
            reading_seconds=number("bringing a batch there"),
            augmentation_seconds=number("augmenting it"),
            steps=whole("timed"),
            spread=number("half the quartiles' distance over the median"),
            flops=number("of a step"),
            peak_flops=number("of the device, a second"),
            memory=whole("peak bytes", null=True),
            error=text("what went wrong", null=True),
            samples_per_second=number("of whole steps"),
            outside_compute=number("share of a step's time"),
            outside=SHARES,
            flops_per_second=number("of whole steps"),
            peak_share=number("of the device's peak"),
        ),
        "smallest first",
    ),
    sentences=several(text("a sentence"), "what they say"),
    notes=several(text("a sentence"), "what to know beside it"),
)
STANDING = thing(
    "where a run stands",
    run_dir=text("path of the run directory"),
    held_by=text("the process that writes it", null=True),
    seconds_since_record=number("since the journal was last written"),
    trials=whole("trials done"),
    stages_concluded=whole("from all their planned trials"),
    stage=text("the one planned last", null=True),
    planned=whole("its trials planned so far"),
    done=whole("of these"),
    samples_per_second=number("of the workers at their latest trials"),
    best=or_null(
        hyperparameters(
            "the stage's best candidate so far",
            val_loss=number("mean over seeds, adjusted", null=False),
            val_loss_low=number("lower end of its 95 % interval"),
            val_loss_high=number("upper end"),
        )
    ),
    findings=several(text("a sentence"), "what each stage found"),
)
TOPICS = several(thing("a topic", topic=text("its name"), title=text("one line on it")), "all topics")
TOPIC = thing(
    "a topic",
    topic=text("its name"),
    title=text("one line on it"),
    text=text("its paragraphs, a line each"),
    schemas=keyed({"type": "object", "description": "a JSON schema"}, "of the topic json: document, its schema; empty elsewhere"),
)

DOCUMENTS: Mapping[str, tuple[str, Schema]] = {
    "run": ("show, recommend, run, lr-range, sweep", RUN),
    "runs": ("runs", several(SUMMARY, "run directories in a folder")),
    "comparison": ("compare", COMPARISON),
    "standing": ("watch --once", STANDING),
    "training": ("train", TRAINING),
    "check": ("check", CHECK),
    "outline": ("check --no-code", OUTLINE),
    "speeds": ("bench", SPEEDS),
    "topics": ("explain", TOPICS),
    "topic": ("explain TOPIC", TOPIC),
}
"""Document -> the commands that print it, and its schema."""
