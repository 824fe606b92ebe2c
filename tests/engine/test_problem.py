"""Opening a problem: what fits is identified by content alone, what does not is said in one sentence."""

import copy
import shutil

import numpy as np
import pytest
import torch
from torch import nn
from training_problems import USER_CODE, experiment, opened, own, reproducible, spec_of

from hptune.engine import numerics as numerics_module
from hptune.engine.numerics import first_numerics, for_cost, resolve_device
from hptune.engine.problem import open_objects, open_problem
from hptune.engine.trainer import run_trial
from hptune.errors import ConfigError, DataError, HptuneError, UserCodeError
from hptune.trial import Numerics

torch.set_num_threads(1)


@pytest.fixture
def code(tmp_path):
    file = tmp_path / "my code" / "own.py"
    file.parent.mkdir()
    file.write_text(USER_CODE)
    return str(file)


# ---- forms of input


@pytest.mark.parametrize(
    ("data", "model", "blocks"),
    [
        ("arrays", "Net", {}),
        ("pairs", "Two", {}),
        ("dicts", "Two", {}),
        ("items", "Net", {}),
        ("sentences", "Bag", {"collate": "pad"}),
        ("arrays", "Net", {"step": "by_hand"}),
        ("sentences", "Bag", {"collate": "whole", "step": "by_dict", "metric": "none"}),
    ],
    ids=["tensor", "tuple", "dict", "dataset", "collate", "step", "collate and step"],
)
def test_every_form_of_input_trains(code, data, model, blocks):
    extra = {"with_data": {"collate": {"target": f"{code}:{blocks['collate']}"}}} if "collate" in blocks else {}
    extra |= {"step": {"target": f"{code}:{blocks['step']}"}} if "step" in blocks else {}
    extra |= {"metric": blocks["metric"]} if "metric" in blocks else {}
    problem = open_problem(own(code, data=data, model=model, **extra))
    record = run_trial(problem, spec_of(problem, batch_size=16, steps=30)).record
    assert record.status == "completed", record.error
    assert record.train_loss < record.curve.train_loss[0]


def test_a_step_of_the_users_gives_what_loss_and_model_give(code):
    plain, stepped = open_problem(own(code)), open_problem(own(code, step={"target": f"{code}:by_hand"}))
    assert plain.task.task_id != stepped.task.task_id
    a, b = (run_trial(problem, spec_of(plain)).record for problem in (plain, stepped))
    assert (a.val_loss, a.metric, a.train_loss) == (b.val_loss, b.metric, b.train_loss)


@pytest.mark.parametrize(("loss", "columns", "outputs"), [("mse", 1, 1), ("mse", 3, 3), ("bce_with_logits", 1, 1), ("cross_entropy", 1, 2)])
def test_outputs_follow_from_data_and_loss(tmp_path, loss, columns, outputs):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 80) if loss != "mse" else rng.normal(size=(80, columns) if columns > 1 else 80).astype(np.float32)
    np.savez(tmp_path / "d.npz", x_train=rng.normal(size=(80, 5)).astype(np.float32), y_train=y)
    data = {"name": "arrays", "path": str(tmp_path / "d.npz")}
    problem = opened(data=data, model={"name": "linear"}, loss=loss, metric="none", baseline={"batch_size": 8})
    assert problem.task.parameters == 6 * outputs
    assert run_trial(problem, spec_of(problem, batch_size=8, lr=0.01)).record.status == "completed"


# ---- identity


def test_moving_a_folder_changes_no_id(code, tmp_path):
    folder = tmp_path / "elsewhere" / "deep"
    shutil.copytree(tmp_path / "my code", folder)
    a, b = open_problem(own(code)).task, open_problem(own(str(folder / "own.py"))).task
    assert a.task_id == b.task_id
    assert str(tmp_path) not in repr(a.identity)


@pytest.mark.parametrize(
    "blocks",
    [
        {"model": {"name": "mlp", "args": {"hidden": [17]}}},
        {"model": {"name": "mlp", "args": {"hidden": [16]}, "freeze": ["1.bias"]}},
        {"loss": {"name": "cross_entropy", "args": {"label_smoothing": 0.1}}},
        {"metric": "none"},
        {"optimizer": {"name": "adamw"}},
        {"optimizer": {"gradient_clip": 1.0}},
        {"data": {"name": "digits", "limit": 500}},
    ],
    ids=str,
)
def test_what_changes_numbers_changes_the_id(blocks):
    assert opened(**blocks).task.task_id != opened().task.task_id


@pytest.mark.parametrize("blocks", [{"optimizer": {"beta2": 0.9}}, {"name": "other"}, {"seeds": 5}, {"budget": {"epochs": 3.0}}], ids=str)
def test_what_changes_no_number_keeps_the_id(blocks):
    assert opened(**blocks).task.task_id == opened().task.task_id


def test_edited_code_changes_the_id(code, tmp_path):
    before = open_problem(own(code)).task.task_id
    (tmp_path / "my code" / "own.py").write_text(USER_CODE.replace("nn.ReLU()", "nn.Tanh()"))
    assert open_problem(own(code)).task.task_id != before


def test_pretrained_weights_are_loaded_for_every_trial_and_count_by_content(code, tmp_path):
    model = open_problem(own(code)).make_model()
    ids = []
    for value in (0.25, 0.5):
        path = tmp_path / f"weights {value}.pt"
        torch.save({name: torch.full_like(tensor, value) for name, tensor in model.state_dict().items()}, path)
        problem = open_problem(own(code, with_model={"pretrained": str(path)}))
        ids.append(problem.task.task_id)
        assert all((p == value).all() for p in problem.make_model().parameters())
    assert len(set(ids)) == 2


# ---- mistakes


def message_of(error, problem):
    with pytest.raises(error) as caught:
        open_problem(problem)
    return str(caught.value)


def test_a_batch_larger_than_the_training_part():
    message = message_of(ConfigError, experiment(baseline={"batch_size": 2000}))
    assert message == "baseline.batch_size: 2000 is more than the 1079 training samples: use at most 1079"
    assert message_of(ConfigError, experiment(hyperparameters={"batch_size": 2000})).startswith("hyperparameters.batch_size: 2000")


def test_a_model_with_too_few_outputs():
    config = experiment(model={"target": "torch.nn:Sequential"})
    assert "no parameters" in message_of(UserCodeError, config)


def test_labels_beyond_the_models_outputs(code):
    data = {"target": f"{code}:arrays"}
    config = experiment(data=data, model={"target": f"{code}:Net", "args": {"outputs": 1}})
    assert message_of(ConfigError, config) == "model: the model has 1 outputs, but labels go up to 1: it needs 2 outputs"


def test_a_model_of_the_users_that_does_not_fit_the_data(code):
    message = message_of(UserCodeError, experiment(model={"target": f"{code}:Net"}))
    assert message.startswith(f"{code}:")
    assert "your code raised RuntimeError" in message


def test_a_model_cut_off_from_the_loss(code):
    assert "does not depend on any trained parameter" in message_of(ConfigError, own(code, model="Detached"))


def test_inputs_that_overflow(code):
    message = message_of(HptuneError, own(code, data="huge"))
    assert "untrained model's output is not finite" in message
    assert "scale them" in message


def test_items_that_hold_nan(code):
    assert "NaN" in message_of(DataError, own(code, data="poisoned"))


def test_a_step_that_returns_no_pair(code):
    message = message_of(UserCodeError, own(code, step={"target": f"{code}:bare_loss"}))
    assert "return (loss, output)" in message


def test_batches_that_are_no_pairs_need_a_step(code):
    config = own(code, data="sentences", model="Bag", with_data={"collate": {"target": f"{code}:whole"}})
    assert "give a step target" in message_of(UserCodeError, config)


def test_a_batch_that_does_not_fit_into_memory(code):
    message = message_of(ConfigError, own(code, model="Tires", args={"calls": 0, "error": "memory"}))
    assert message == "baseline.batch_size: a batch of 64 samples does not fit into memory: use less"


# ---- device and precision


def test_devices_that_are_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:1", "mps"):
        with pytest.raises(ConfigError, match=f"device: there is no {name} here: use auto or cpu"):
            resolve_device(name)


def test_a_second_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_device("cuda") == torch.device("cuda", 0)
    with pytest.raises(ConfigError, match="there is no cuda:1 here: use auto or cpu or cuda:0"):
        resolve_device("cuda:1")


@pytest.mark.parametrize(
    ("native", "asked", "model", "precision", "channels_last"),
    [
        (True, "auto", nn.Conv2d(1, 1, 1), "bf16", True),
        (True, "auto", nn.Linear(1, 1), "fp32", False),
        (False, "auto", nn.Conv2d(1, 1, 1), "fp32", True),
        (False, "bf16", nn.Conv2d(1, 1, 1), "bf16", True),
        (True, "fp32", nn.Conv2d(1, 1, 1), "fp32", True),
        (False, "auto", nn.Conv2d(512, 512, 3), "fp32", False),
        (True, "auto", nn.Conv2d(512, 512, 3), "bf16", True),
    ],
)
def test_precision_on_the_cpu_is_a_fixed_rule(monkeypatch, native, asked, model, precision, channels_last):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    settled = first_numerics(experiment(precision=asked), torch.device("cpu"), model)
    assert (settled.precision, settled.channels_last, settled.threads) == (precision, channels_last, 1)


def test_fp16_is_not_for_the_cpu():
    assert message_of(ConfigError, experiment(precision="fp16")).startswith("precision: fp16 is for CUDA")


def test_threads_are_part_of_the_numerics():
    assert opened(executor={"threads": 2}).task.numerics.threads == 2


def test_the_cpu_has_a_name_where_the_system_tells_none(monkeypatch, tmp_path):
    monkeypatch.setattr(numerics_module, "CPU_INFO", tmp_path / "none")
    assert opened().task.numerics.device_model


# ---- objects in memory


def objects():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 4)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), (x[:80], y[:80]), (x[80:], y[80:])


def test_objects_train_as_copies():
    model, train, val = objects()
    before = copy.deepcopy(model.state_dict())
    problem = open_objects(model, train, val, experiment=experiment())
    first = run_trial(problem, spec_of(problem, batch_size=16))
    assert first.record.status == "completed"
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert reproducible(run_trial(problem, spec_of(problem, batch_size=16))) == reproducible(first)


def test_trials_of_objects_start_from_the_given_weights():
    model, train, val = objects()
    problem = open_objects(model, train, val, experiment=experiment())
    assert all(torch.equal(a, b) for a, b in zip(problem.make_model().parameters(), model.parameters(), strict=True))


def test_a_loss_at_hand():
    model, train, val = objects()
    problem = open_objects(model, train, val, loss=nn.CrossEntropyLoss(label_smoothing=0.1), experiment=experiment())
    assert run_trial(problem, spec_of(problem, batch_size=16)).record.status == "completed"


def test_a_model_at_hand_that_does_not_fit():
    _, train, val = objects()
    with pytest.raises(UserCodeError, match="shapes cannot be multiplied"):
        open_objects(nn.Linear(5, 2), train, val, experiment=experiment())


def test_a_loss_at_hand_that_is_no_number():
    model, train, val = objects()
    with pytest.raises(ConfigError, match="loss: the loss must return one number"):
        open_objects(model, train, val, loss=nn.CrossEntropyLoss(reduction="none"), experiment=experiment())


# ---- numerics that the first step settles


def test_threads_and_compilation_go_by_the_cost_of_a_step(monkeypatch):
    monkeypatch.setattr(numerics_module, "available_cores", lambda: 32)
    cpu, cuda = Numerics(), Numerics(device="cuda")
    config = experiment(baseline={"batch_size": 100})

    def settled(numerics, flops, samples=10_000, **blocks):
        found = for_cost(numerics, experiment(baseline={"batch_size": 100}, **blocks), flops=flops, train_samples=samples)
        return found.threads, found.compiled

    assert settled(cpu, 10**8) == (1, False)  # half of what keeps a thread busy
    assert settled(cpu, 10**9) == (5, False)
    assert settled(cpu, 10**12) == (numerics_module.MOST_THREADS, False)
    assert settled(cpu, 10**12, executor={"threads": 1}) == (1, False)
    assert settled(cpu, 10**3, executor={"compile": True}) == (1, True)
    assert settled(cuda, 10**12) == (1, True)
    assert settled(cuda, 10**12, executor={"compile": False}) == (1, False)
    assert settled(cuda, 10**6) == (1, False)
    sizes = len({100, *config.stages.batch_size.values})
    epochs = 40 * 6 + 5 * 4 * 30
    enough = numerics_module.FLOPS_WORTH_COMPILING * sizes // (epochs * 10_000)
    assert [settled(cuda, flops)[1] for flops in (int(0.99 * enough), int(1.01 * enough))] == [False, True]


def test_a_network_that_takes_no_channels_last_images_gets_contiguous_ones(tmp_path):
    (tmp_path / "own.py").write_text(
        "from torch import nn\n"
        "class Views(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4 * 36, 10)\n"
        "    def forward(self, x):\n"
        "        return self.head(self.conv(x).view(len(x), -1))\n"
    )
    task = opened(model={"target": f"{tmp_path / 'own.py'}:Views"}).task
    assert not task.numerics.channels_last
    assert any("channels-last" in note for note in task.notes)
    assert opened(model={"name": "small_cnn"}).task.numerics.channels_last


class TooLarge(nn.Module):
    """Takes `most` samples at once."""

    def __init__(self, most):
        super().__init__()
        self.most, self.layer = most, nn.Linear(64, 10)

    def forward(self, x):
        if len(x) > self.most:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return self.layer(x.flatten(1))


def test_a_batch_that_does_not_fit_is_accumulated_in_the_largest_half_that_does(tmp_path):
    task = _opened_with_memory_for(tmp_path, 20).task
    assert task.numerics.micro_batch == 16
    assert [note for note in task.notes if "16 at a time" in note]
    assert _opened_with_memory_for(tmp_path, 64).task.numerics.micro_batch is None
    with pytest.raises(ConfigError, match="does not fit into memory"):
        _opened_with_memory_for(tmp_path, 0)


def test_micro_batches_of_the_config_are_taken_as_they_are():
    assert opened(executor={"micro_batch": 10}).task.numerics.micro_batch == 10


def _opened_with_memory_for(folder, most):
    import inspect

    (folder / "own.py").write_text("from torch import nn\n" + inspect.getsource(TooLarge))
    return opened(model={"target": f"{folder / 'own.py'}:TooLarge", "args": {"most": most}}, baseline={"batch_size": 64})


@pytest.mark.slow
def test_compiled_trials_train_as_plain_ones_and_compile_once_a_shape():
    torch._dynamo.reset()
    plain, compiled = (opened(model={"name": "small_cnn", "args": {"width": 4}}, executor={"compile": c}) for c in (False, True))
    assert compiled.task.numerics.compiled
    assert not [note for note in compiled.task.notes if "compiled" in note]
    torch._dynamo.utils.counters.clear()
    for size in (32, 48):
        for lr in (0.05, 0.1, 0.2):
            a, b = (run_trial(p, spec_of(p, batch_size=size, lr=lr, steps=12)).record for p in (plain, compiled))
            assert b.status == "completed"
            assert b.val_loss == pytest.approx(a.val_loss, rel=1e-3)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2


@pytest.mark.slow
def test_a_step_that_cannot_be_compiled_trains_uncompiled(monkeypatch):
    def failing(*_, **__):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", failing)
    task = opened(executor={"compile": True}).task
    assert not task.numerics.compiled
    assert "the training step is not compiled: RuntimeError: no compiler here" in task.notes


# ---- numbers that are none


ODD = """
import math

import torch
from torch.nn.functional import cross_entropy


def undefined(output, target):
    return cross_entropy(output, target) * math.nan


def unbounded(output, target):
    return cross_entropy(output, target) - math.inf


def unmeasurable(output, target):
    return cross_entropy(output, target) * (1 if torch.is_grad_enabled() else math.nan)


def no_number(output, target):
    return math.nan


def too_long(output, target):
    return 10**400


def of_one_entry(model, batch):
    output = model(batch[0])
    return cross_entropy(output, batch[1]).reshape(1), output
"""


@pytest.fixture
def odd(tmp_path):
    file = tmp_path / "odd.py"
    file.write_text(ODD)
    return str(file)


@pytest.mark.parametrize(("loss", "value"), [("undefined", "nan"), ("unbounded", "-inf")])
def test_a_loss_that_is_no_number_from_the_first_step_on(odd, loss, value):
    with pytest.raises(ConfigError, match=f"loss: the loss of the untrained model is {value}: the loss does not fit"):
        opened(loss={"target": f"{odd}:{loss}"})


def test_a_loss_that_is_no_number_in_validation_is_noted_before_anything_runs(odd):
    notes = opened(loss={"target": f"{odd}:unmeasurable"}).task.notes
    assert [note for note in notes if note.startswith("after one step at the baseline the validation loss is nan, while the training loss")]
    assert not opened().task.notes


@pytest.mark.parametrize("rank_by", ["metric", "val_loss"])
def test_a_metric_that_is_no_number_is_noted_where_it_is_ranked_by(odd, rank_by):
    notes = opened(metric={"target": f"{odd}:no_number"}, rank_by=rank_by).task.notes
    assert ("after one step at the baseline the metric is nan: a trial that ends so cannot win" in notes) is (rank_by == "metric")


def test_a_metric_beyond_all_floats_is_the_users_mistake(odd):
    with pytest.raises(UserCodeError, match="too_long returned int: return one number"):
        opened(metric={"target": f"{odd}:too_long"})


def test_a_loss_of_one_entry_from_a_step_is_named_by_its_shape(odd):
    with pytest.raises(UserCodeError, match=r"returned a tensor of shape \(1,\) as the loss: return \(loss, output\), the loss a 0-dim"):
        opened(step={"target": f"{odd}:of_one_entry"})
