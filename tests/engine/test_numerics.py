"""Which GPUs worker processes are confined to, as far as this can be seen without any."""

import pytest
import torch

from hptune.engine.numerics import pins

ALIKE = ("H200", "H200", "H200", "H200")


@pytest.fixture
def gpus(monkeypatch):
    """Have torch see GPUs of these models."""

    def see(*models, visible=None):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(models))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(models))
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: models[i])
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return see


def devices(*arguments):
    return [pin["CUDA_VISIBLE_DEVICES"] for pin in pins(*arguments)]


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_gpu_gets_workers_of_its_own(gpus, name):
    gpus(*ALIKE)
    assert devices(name) == ["0", "1", "2", "3"]


def test_gpus_keep_the_names_they_are_given_by(gpus):
    gpus("H200", "H200", visible="GPU-7a,5")
    assert devices("auto") == ["GPU-7a", "5"]


def test_only_gpus_of_one_model_are_used(gpus):
    gpus("H200", "T4", "H200")
    assert devices("auto") == ["0", "2"]


def test_trials_on_several_gpus_get_groups_of_them(gpus):
    gpus(*ALIKE, "H200")
    assert devices("auto", 2) == ["0,1", "2,3"]
    assert devices("auto", 3) == [], "the first three are taken without a word"
    gpus("H200", "T4", "H200")
    assert devices("auto", 2) == ["0,2"]


def test_one_gpu_and_one_that_is_named_confine_nobody(gpus):
    gpus(*ALIKE)
    assert devices("cuda:1") == devices("cpu") == []
    gpus("H200")
    assert devices("auto") == []
    gpus()
    assert devices("auto") == []
