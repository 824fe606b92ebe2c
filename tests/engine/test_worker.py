"""A worker's items: opened once, shared where possible, refused where code or data changed since they were planned."""

import gc
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_problems import USER_CODE, experiment, own, reproducible, spec_of

from hptune.engine import worker
from hptune.engine.problem import find_open, open_problem
from hptune.engine.trainer import run_trial
from hptune.engine.worker import perform
from hptune.errors import ConfigError, InputError
from hptune.trial import Calibration, CalibrationRequest

torch.set_num_threads(1)


@pytest.fixture
def opened_problems(monkeypatch):
    """The experiments opened by the worker, each with whether it was given data that are there already."""
    calls = []

    def counting(config, parts=None):
        calls.append((config, parts is not None))
        return open_problem(config, parts)

    monkeypatch.setattr(worker, "open_problem", counting)
    return calls


def sent(value):
    """What arrives in another process."""
    return pickle.loads(pickle.dumps(value))


def planned(config):
    """A spec for `config` from a process that is gone."""
    spec = spec_of(open_problem(config), steps=6)
    gc.collect()
    assert find_open(config) is None
    return spec


def test_a_trial_gives_what_it_gives_elsewhere(opened_problems):
    config = experiment()
    spec = planned(config)
    outcomes = [perform(sent((config, spec))) for _ in range(2)]
    assert len(opened_problems) == 1
    assert outcomes[0].record.worker == os.getpid()
    elsewhere = sent(run_trial(open_problem(config), spec))
    assert [reproducible(outcome) for outcome in outcomes] == [reproducible(elsewhere)] * 2


def test_a_problem_that_is_open_in_the_process_is_used(opened_problems):
    config = experiment()
    problem = open_problem(config)
    perform(sent((config, spec_of(problem, steps=4))))
    assert opened_problems == []


def test_variants_share_their_data(opened_problems):
    configs = [experiment(model={"name": "mlp", "args": {"hidden": [width]}}) for width in (4, 8)]
    for config in configs:
        perform((config, planned(config)))
    assert [shared for _, shared in opened_problems] == [False, True]


def test_other_data_are_not_shared(opened_problems):
    configs = [experiment(data={"name": "digits", "limit": limit}) for limit in (300, 400)]
    for config in configs:
        assert perform((config, planned(config))).record.status == "completed"
    assert [shared for _, shared in opened_problems] == [False, False]


def test_a_worker_keeps_a_few_problems_only(monkeypatch):
    monkeypatch.setattr(worker, "KEPT", 1)
    configs = [experiment(model={"name": "mlp", "args": {"hidden": [width]}}) for width in (4, 8)]
    for config in configs:
        perform((config, planned(config)))
    assert [problem.experiment for problem in worker._kept.values()] == configs[-1:]


def test_a_calibration(opened_problems):
    config = experiment()
    spec = planned(config)
    request = CalibrationRequest(hyperparameters=spec.hyperparameters, numerics=spec.numerics, steps=2)
    calibration = perform(sent((config, request)))
    assert isinstance(calibration, Calibration)
    assert calibration.seconds_per_step > 0


def test_code_that_changed_since_planning_is_refused(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(USER_CODE)
    config = own(str(file))
    spec = planned(config)
    file.write_text(USER_CODE.replace("nn.ReLU()", "nn.Tanh()"))
    with pytest.raises(InputError, match="give the command again"):
        perform((config, spec))


def test_a_new_plan_after_an_edit_is_served_by_the_same_worker(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(USER_CODE)
    config = own(str(file))
    old = perform((config, planned(config)))
    file.write_text(USER_CODE.replace("nn.ReLU()", "nn.Tanh()"))
    new = perform((config, planned(config)))
    assert new.record.status == "completed"
    assert new.record.val_loss != old.record.val_loss


def test_wrong_input_is_raised():
    with pytest.raises(ConfigError, match="unknown model"):
        perform((experiment(model={"name": "no_such"}), spec_of(open_problem(experiment()))))


def test_a_worker_trains_without_libraries_that_it_does_not_need(tmp_path):
    (tmp_path / "own.py").write_text(USER_CODE)
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from training_problems import own, spec_of
from hptune.engine.problem import open_problem
from hptune.engine.worker import perform
config = own({str(tmp_path / "own.py")!r})
assert perform((config, spec_of(open_problem(config), steps=4))).record.status == "completed"
print([name for name in ("sklearn", "torchvision", "scipy", "pandas", "sympy", "torch._dynamo") if name in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
