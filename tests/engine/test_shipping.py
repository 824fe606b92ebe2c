"""What goes to other machines: data sets as they are here, code and weights, and messages that name places at home."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_problems import USER_CODE, experiment, own, reproducible, spec_of

from hptune.engine.data import load_parts
from hptune.engine.problem import open_problem
from hptune.engine.sharing import data_key
from hptune.engine.shipping import Shipment, pack, unpack
from hptune.engine.trainer import run_trial
from hptune.engine.worker import perform
from hptune.errors import InputError, UserCodeError
from hptune.travel import SMALL, Luggage
from hptune.trial import Opening

torch.set_num_threads(1)


class Box:
    """Something that lies elsewhere; what is opened can only be read, as what lies in a cluster's store."""

    def __init__(self, thing):
        self.thing = thing

    def open(self):
        buffers = []
        content = pickle.dumps(self.thing, protocol=5, buffer_callback=buffers.append)
        return pickle.loads(content, buffers=[memoryview(bytes(buffer)).toreadonly() for buffer in buffers])


@pytest.fixture
def code(tmp_path):
    folder = tmp_path / "at home"
    folder.mkdir()
    (folder / "mine.py").write_text(USER_CODE)
    return folder / "mine.py"


@pytest.mark.parametrize("data", ["arrays", "pairs", "dicts"])
def test_a_data_set_arrives_as_it_was(code, data):
    config = own(code, data=data)
    parts = load_parts(config.data, seed=0, device=torch.device("cpu"))
    arrived = unpack(Box(pack(parts)).open(), torch.device("cpu"))
    everything = torch.arange(len(parts.train))
    assert len(arrived.val) == len(parts.val)
    torch.testing.assert_close(arrived.train.take(everything), parts.train.take(everything), rtol=0, atol=0)
    assert replace(arrived, train=None, val=None, test=None) == replace(parts, train=None, val=None, test=None)


def test_images_arrive_in_compact_form_with_their_statistics():
    parts = open_problem(experiment()).parts
    arrived = unpack(Box(pack(parts)).open(), torch.device("cpu"))
    assert arrived.train.arrays.x.dtype == torch.uint8
    assert arrived.train.statistics == parts.train.statistics
    assert torch.equal(arrived.val.take(torch.arange(9))[0], parts.val.take(torch.arange(9))[0])


def test_datasets_stay_where_their_code_finds_them(code):
    assert pack(open_problem(own(code, data="items")).parts) is None


def test_trials_there_give_what_they_give_here_and_read_no_data(code, monkeypatch):
    config = own(code)
    problem = open_problem(config)
    spec = spec_of(problem, steps=6)
    expected = reproducible(run_trial(problem, spec))
    lead = Shipment(key=data_key(config), box=Box(pack(problem.parts)))
    del problem
    monkeypatch.setattr("hptune.engine.problem.load_parts", lambda *_, **__: pytest.fail("the data were read"))
    assert perform((config, Opening(), lead)).task_id == spec.task
    outcome = perform((config, spec, lead))
    assert outcome.record.host
    assert reproducible(replace(outcome, record=replace(outcome.record, host=""))) == expected


def test_another_library_there_is_told_by_name(code):
    config = own(code)
    problem = open_problem(config)
    lead = Shipment(key=data_key(config), box=Box(pack(problem.parts)), identity={**problem.task.identity, "torch": "1.0"})
    spec = replace(spec_of(problem, steps=6), task="another")
    with pytest.raises(InputError, match=rf"torch is {torch.__version__.partition('+')[0]}.*, not 1\.0$"):
        perform((config, spec, lead))


@pytest.fixture
def luggage(tmp_path, code):
    """What was packed of a config whose model and weights are the user's, with files beside the code that go with it or do not."""
    (code.parent / "helper.py").write_text("WORD = 'said'\n")
    (code.parent / "unused.py").write_text("")
    (code.parent / "words.txt").write_text("small")
    (code.parent / ".env").write_text("TOKEN=secret")
    (code.parent / "big.bin").write_bytes(bytes(SMALL + 1))
    code.write_text(f"import helper\n{USER_CODE}")
    (tmp_path / "weights").mkdir()
    torch.save({}, tmp_path / "weights" / "w.pt")
    config = own(code)
    model = config.model.model_copy(update={"pretrained": str(tmp_path / "weights" / "w.pt")})
    config = config.model_copy(update={"model": model})
    (tmp_path / "packed").mkdir()
    packed = Luggage(tmp_path / "packed")
    assert packed.pack(config)
    return packed, config


def test_code_weights_and_small_files_travel(luggage, code, tmp_path):
    packed, config = luggage
    there = packed.unpacked(config)
    where, _, name = there.model.target.rpartition(":")
    assert (name, Path(where).name) == (config.model.target.rpartition(":")[2], "mine.py")
    folder = packed.root / Path(where).parent
    assert sorted(path.name for path in folder.iterdir()) == ["helper.py", "mine.py", "words.txt"]
    assert (packed.root / there.model.pretrained).read_bytes() == (tmp_path / "weights" / "w.pt").read_bytes()
    assert there.data.target.rpartition(":")[0] == where
    assert config.model.target.startswith(str(code)), "the config at home was changed"
    assert not packed.pack(config), "it was packed twice"
    (code.parent / "other.py").write_text("Net = None")
    assert packed.pack(config.model_copy(update={"model": config.model.model_copy(update={"target": f"{code.parent / 'other.py'}:Net"})}))
    assert (folder / "other.py").is_file()


def test_hptune_travels_whole(luggage, tmp_path):
    packed, _ = luggage
    command = [sys.executable, "-P", "-c", "import hptune.engine.worker as w; print(w.__file__)"]
    found = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(packed.root)}, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert Path(found.stdout.strip()).is_relative_to(packed.root)


def test_a_package_of_the_users_travels(tmp_path, monkeypatch):
    (tmp_path / "src" / "theirs" / "deep").mkdir(parents=True)
    for name in ("__init__.py", "nets.py", "deep/__init__.py", "table.csv"):
        (tmp_path / "src" / "theirs" / name).write_text("")
    monkeypatch.syspath_prepend(tmp_path / "src")
    (tmp_path / "packed").mkdir()
    packed = Luggage(tmp_path / "packed")
    packed.pack(experiment(model={"target": "theirs.nets:Net"}))
    assert (packed.root / "theirs" / "deep" / "__init__.py").is_file()
    assert (packed.root / "theirs" / "table.csv").is_file()
    packed.pack(experiment(model={"target": "torch.nn:Linear"}))
    assert not (packed.root / "torch").exists()


def test_mistakes_are_named_by_their_places_at_home(luggage, code, monkeypatch):
    packed, config = luggage
    (packed.root / "code0" / "mine.py").write_text("raise ValueError('no')\n")
    monkeypatch.chdir(packed.root)
    there = packed.unpacked(config)
    with pytest.raises(UserCodeError) as error:
        perform((there, Opening(), Shipment(key="other", folders=packed.folders)))
    assert error.value.where == f"{code}:1"
    assert "code0" not in str(error.value)
