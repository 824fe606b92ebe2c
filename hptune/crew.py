"""Who performs a run's trials: an executor that fits device and data, and what leads its workers to the data."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hptune.config.schema import Experiment
from hptune.errors import HptuneError
from hptune.executors import make_executor, make_ray_executor, resolve
from hptune.executors.base import Executor, Failure
from hptune.executors.needs import Needs
from hptune.executors.process import EVERYWHERE
from hptune.travel import Luggage
from hptune.trial import Opening, Task

if TYPE_CHECKING:
    from hptune.engine.problem import Problem
    from hptune.executors.ray import RayExecutor

LOADING = 4  # times as long as this process took a worker may take to open the data, before it seems to hang
MOST_WORKERS = 16  # processes on one GPU
FLOPS_THAT_FILL = 10**11  # of a step: a fraction of a millisecond of a fast GPU, as long as launching its kernels takes


class Crew(Protocol):
    """An executor whose workers are told what they need.

    `experiments`, `leads`: by task id, what goes with each trial of that task. `most_workers`: trials at once that are to be tried on each
    device to find what it does best with; 1 where that is settled.
    """

    executor: Executor
    task: Task
    experiments: dict[str, Experiment]
    leads: dict[str, Any]
    most_workers: int

    def open(self, experiment: Experiment) -> Task:
        """Open a variant of the experiment, and have the workers able to. Raises what is wrong with it."""
        ...


class LocalCrew:
    """Workers on this machine, which opens the problem itself; those on a CPU load their code meanwhile.

    `starts`: whether there is anything to do for them; `alone`: this process does all the work. The data lie where all worker processes
    read them.
    """

    def __init__(self, experiment: Experiment, stack: contextlib.ExitStack, *, starts: bool, alone: bool) -> None:
        from hptune.engine.numerics import resolve_device
        from hptune.engine.problem import open_problem

        self._experiment, self._alone = experiment, alone
        began = time.monotonic()
        device = resolve_device(experiment.device).type
        executor = stack.enter_context(self._executor(device)) if device == "cpu" else None
        if executor is not None and starts:
            executor.start()
        self.problem: Problem = open_problem(experiment)
        self.task = self.problem.task
        self.most_workers = 1
        if executor is None:
            room = self._leaves_room()
            executor = stack.enter_context(self._executor(device, room=room))
            self.most_workers = MOST_WORKERS if room and experiment.executor.workers == "auto" else 1
            if starts and executor.places > 1:
                executor.start()
        elif self.task.numerics.threads > 1 and experiment.executor.workers == "auto":
            _, executor.workers = resolve(
                experiment.executor.name, "auto", device, threads=self.task.numerics.threads * experiment.executor.devices_per_trial
            )
            if starts:
                executor.resize(executor.workers)
        self.executor: Executor = executor
        if executor.heartbeat is not None:  # a worker may have to open the same data, beside others
            executor.heartbeat = max(executor.heartbeat, LOADING * (time.monotonic() - began))
        self._lead = self._share(stack)
        self.experiments: dict[str, Experiment] = {}
        self.leads: dict[str, Any] = {self.task.task_id: self._lead}

    def open(self, experiment: Experiment) -> Task:
        """See `Crew.open`."""
        from hptune.engine.problem import open_problem

        task = open_problem(experiment).task
        self.experiments[task.task_id], self.leads[task.task_id] = experiment, self._lead
        return task

    def _executor(self, device: str, *, room: bool = False) -> Executor:
        from hptune.engine.worker import perform

        section = self._experiment.executor
        together = section.devices_per_trial
        devices = _gpus(self._experiment.device, together) if device == "cuda" else EVERYWHERE
        threads = section.threads if isinstance(section.threads, int) else 1  # as far as the config says
        name, workers = resolve(section.name, section.workers, device, threads=threads * together, room=room, places=len(devices))
        return make_executor("serial" if self._alone else name, perform, workers, threads, section.heartbeat_seconds, devices)

    def _leaves_room(self) -> bool:
        """Whether one trial is too little work for a GPU, so that several at once may get more done."""
        flops = self.task.flops * self._experiment.baseline_hyperparameters().batch_size
        return self.task.numerics.device == "cuda" and self.task.numerics.replicas == 1 and 0 < flops < FLOPS_THAT_FILL

    def _share(self, stack: contextlib.ExitStack) -> Any:
        """Put the data where several worker processes read them too, and return what leads them there; None where there are none."""
        if self.executor.workers == 1:
            return None
        from hptune.engine.sharing import shared

        self.problem, handle = stack.enter_context(shared(self.problem))
        return handle


class RayCrew:
    """Workers on a Ray cluster. This process reads the data, once; a worker opens the problem, on the device that trials will have.

    The data go to each node once, through the cluster's object store. With them, and the code, which travels too, a worker needs no file
    of this machine; only Datasets of the user's are opened where they are read.
    """

    most_workers = 1  # several on one GPU: executor.gpus_per_trial

    def __init__(self, experiment: Experiment, stack: contextlib.ExitStack, *, starts: bool) -> None:
        from hptune.engine.worker import perform

        began = time.monotonic()
        section = experiment.executor
        self._luggage = Luggage(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hptune-"))))
        self._luggage.pack(experiment)
        self._boxes: dict[str, Any] = {}
        self.executor: RayExecutor = stack.enter_context(
            make_ray_executor(
                perform,
                None if section.workers == "auto" else section.workers,
                needs=_needs(experiment),
                threads=section.threads if isinstance(section.threads, int) else 1,
                heartbeat=section.heartbeat_seconds,
                address=section.address,
                folder=self._luggage.root,
            )
        )
        if starts:
            self.executor.start()
        self.experiments: dict[str, Experiment] = {}
        self.leads: dict[str, Any] = {}
        self.task = self.open(experiment)
        if self.executor.heartbeat is not None:
            self.executor.heartbeat = max(self.executor.heartbeat, LOADING * (time.monotonic() - began))
        cpus = float(self.task.numerics.threads * section.devices_per_trial)
        self.executor.adapt(cpus=cpus if section.cpus_per_trial == "auto" else None)

    def open(self, experiment: Experiment) -> Task:
        """See `Crew.open`."""
        from hptune.engine.sharing import data_key
        from hptune.engine.shipping import Shipment

        if self._luggage.pack(experiment):
            self.executor.carry(self._luggage.root)
        there = self._luggage.unpacked(experiment)
        lead = Shipment(key=data_key(there), box=self._box(experiment), folders=self._luggage.folders)
        [(_, task)] = self.executor.map([(there, Opening(), lead)])
        if isinstance(task, Failure):
            raise HptuneError(f"a worker cannot open data and model: {task.error.strip().splitlines()[-1]}")
        assert isinstance(task, Task)
        self.experiments[task.task_id], self.leads[task.task_id] = there, replace(lead, identity=task.identity)
        return task

    def _box(self, experiment: Experiment) -> Any:
        """What leads workers to the data, which are read here and stored once; None for Datasets."""
        import torch

        from hptune.engine.data import load_parts
        from hptune.engine.sharing import data_key
        from hptune.engine.shipping import pack

        key = data_key(experiment)
        if key not in self._boxes:
            parcel = pack(load_parts(experiment.data, seed=experiment.seed, device=torch.device("cpu")))
            self._boxes[key] = self.executor.store(parcel) if parcel is not None else None
        return self._boxes[key]


def _needs(experiment: Experiment) -> Needs:
    """What a trial takes of a cluster, as far as the config says."""
    section = experiment.executor
    together = float(section.devices_per_trial)
    cpus = together if section.cpus_per_trial == "auto" else section.cpus_per_trial
    if experiment.device == "cpu":
        return Needs(cpus=cpus)
    return Needs(cpus=cpus, gpus_if_any=together) if section.gpus_per_trial == "auto" else Needs(cpus=cpus, gpus=section.gpus_per_trial)


def _gpus(name: str, together: int) -> Sequence[Mapping[str, str]]:
    from hptune.engine.numerics import pins

    return pins(name, together) or EVERYWHERE


def open_crew(experiment: Experiment, stack: contextlib.ExitStack, *, starts: bool, alone: bool) -> LocalCrew | RayCrew:
    """Open data and model, and have workers ready, until `stack` is left. `starts`, `alone`: see `LocalCrew`."""
    if experiment.executor.name == "ray" and not alone:
        return RayCrew(experiment, stack, starts=starts)
    return LocalCrew(experiment, stack, starts=starts, alone=alone)
