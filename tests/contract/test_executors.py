"""One suite for every executor, then what only worker processes can suffer."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import executor_work as work
import pytest

from hptune.cores import available_cores
from hptune.errors import ConfigError, DeviceLostError, HptuneError, InputError, UserCodeError
from hptune.executors import make_executor, resolve
from hptune.executors.base import Executor, Failure
from hptune.executors.needs import Needs
from hptune.executors.pool import Pool
from hptune.executors.process import ProcessExecutor
from hptune.executors.serial import SerialExecutor

PATIENCE = 20.0  # seconds after which something that should have happened never will
MakeExecutor = Callable[[Callable[[Any], Any]], Executor]
MakePool = Callable[..., Any]
RAY = pytest.mark.xdist_group("ray")  # one cluster is enough


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """A Ray cluster of two CPUs on this machine, which every executor of these tests joins."""
    ray = pytest.importorskip("ray")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ray's own
        here = {"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}}
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", runtime_env=here)
        yield
        ray.shutdown()


@pytest.fixture(params=[("serial", 1), ("process", 2), pytest.param(("ray", 2), marks=RAY)], ids=["serial", "process", "ray"])
def make(request: pytest.FixtureRequest) -> Iterator[MakeExecutor]:
    """A factory of executors that are closed after the test."""
    made: list[Executor] = []
    if request.param[0] == "ray":
        request.getfixturevalue("cluster")

    def factory(function: Callable[[Any], Any]) -> Executor:
        name, workers = request.param
        made.append(make_executor(name, function, workers=workers, threads=1))
        return made[-1]

    yield factory
    for executor in made:
        executor.close()


@pytest.fixture(params=["process", pytest.param("ray", marks=[pytest.mark.slow, RAY])])
def pool(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """A factory of executors with workers of their own, which are closed after the test."""
    made: list[Executor] = []
    if request.param == "ray":
        request.getfixturevalue("cluster")

    def factory(function: Callable[[Any], Any], workers: int, *, heartbeat: float | None = None) -> Executor:
        made.append(make_executor(request.param, function, workers=workers, threads=1, heartbeat=heartbeat))
        return made[-1]

    yield factory
    for executor in made:
        executor.close()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def pids(executor: Any) -> list[int]:
    """The processes of the workers that there are, and on a cluster have begun."""
    if isinstance(executor, ProcessExecutor):
        return [worker.process.pid or 0 for worker in executor._pool]
    return [worker.found.pid for worker in executor._pool if worker.found]


def started(executor: Any) -> list[int]:
    """The processes of the workers once all have begun."""
    executor.start()
    while not all(worker.ready for worker in executor._pool):
        executor._collect()
    return pids(executor)


def test_every_item_has_one_result(make: MakeExecutor) -> None:
    with make(work.square) as executor:
        assert sorted(executor.map(range(9))) == [(i, i * i) for i in range(9)]


def test_no_items_no_results(make: MakeExecutor) -> None:
    assert list(make(work.square).map([])) == []


def test_map_can_be_called_again(make: MakeExecutor) -> None:
    executor = make(work.square)
    for size in (1, 5, 0, 3):
        assert sorted(executor.map(range(size))) == [(i, i * i) for i in range(size)]


def test_any_size_maps_all_items(make: MakeExecutor) -> None:
    executor = make(work.square)
    for workers in (3, 1, 2):
        executor.resize(workers)
        assert sorted(executor.map(range(5))) == [(i, i * i) for i in range(5)]


def test_workers_are_spread_over_the_devices_and_stay_so() -> None:
    devices = [{"CUDA_VISIBLE_DEVICES": "3"}, {"CUDA_VISIBLE_DEVICES": "GPU-5"}]
    with ProcessExecutor(work.device_of, 4, devices=devices) as executor:
        assert executor.places == 2
        started(executor)
        assert sorted(device for _, device in executor.map([0.2] * 4)) == ["3", "3", "GPU-5", "GPU-5"]
        executor.resize(2)
        assert sorted(device for _, device in executor.map([0.2] * 2)) == ["3", "GPU-5"]
        (first, second) = pids(executor)
        os.kill(second, signal.SIGKILL)
        wait_until(lambda: not alive(second))
        list(executor.map([0.2] * 2))  # shows that it is gone
        started(executor)
        assert sorted(device for _, device in executor.map([0.2] * 2)) == ["3", "GPU-5"]
        assert first in pids(executor)


def test_a_resized_pool_gives_each_worker_an_item_at_once() -> None:
    with ProcessExecutor(work.process_id, 1) as executor:
        first = {pid for _, pid in executor.map([0])}
        executor.resize(3)
        assert executor.workers == 3
        assert len({pid for _, pid in executor.map([0.2, 0.2, 0.2])}) == 3
        before = pids(executor)
        executor.resize(1)
        assert {pid for _, pid in executor.map([0, 0])} == first
        wait_until(lambda: not any(alive(pid) for pid in before if pid not in first))


def test_resizing_says_why_workers_cannot_start() -> None:
    with ProcessExecutor(work.process_id, 1) as executor:
        executor._work = b"not a pickle"
        with pytest.raises(HptuneError, match="cannot load their code"):
            executor.resize(2)


def test_an_exception_is_a_result(make: MakeExecutor) -> None:
    results = dict(make(work.square_unless_negative).map([1, -2, 3]))
    assert (results[0], results[2]) == (1, 9)
    assert isinstance(results[1], Failure)
    assert not results[1].died
    assert results[1].error.splitlines()[0] == "Traceback (most recent call last):"
    assert results[1].error.splitlines()[-1] == "ValueError: -2 is negative"
    assert "executor_work.py" in results[1].error


def test_sys_exit_in_the_work_ends_its_item_only(make: MakeExecutor) -> None:
    results = dict(make(work.quit_or_square).map([-1, 2]))
    assert results[1] == 4
    assert results[0].error.splitlines()[-1] == "SystemExit: user code called sys.exit"


def test_an_input_error_reaches_the_caller_as_it_was(make: MakeExecutor) -> None:
    executor = make(work.refuse)
    with pytest.raises(ConfigError) as config:
        list(executor.map(["config"]))
    assert str(config.value) == "c.yaml:3: model.args.width: is no number"
    assert (config.value.message, config.value.where, config.value.key) == ("is no number", "c.yaml:3", "model.args.width")
    with pytest.raises(UserCodeError) as user:
        list(executor.map(["user", "fine"]))
    assert (str(user.value), user.value.where) == ("models.py:7: ZeroDivisionError: division by zero", "models.py:7")
    with pytest.raises(InputError, match=r"^one two$"):
        list(executor.map(["odd"]))
    assert list(executor.map(["fine"])) == [(0, None)]


def test_left_early_it_can_go_on_with_other_items(make: MakeExecutor) -> None:
    executor = make(work.square)
    results = executor.map(range(20))
    next(results)
    results.close()
    assert sorted(executor.map([5, 6])) == [(0, 25), (1, 36)]


def test_starting_and_closing_are_harmless_whenever(make: MakeExecutor) -> None:
    executor = make(work.square)
    executor.close()
    executor.start()
    executor.close()
    executor.close()
    assert list(executor.map([3])) == [(0, 9)]
    executor.close()


def test_what_the_work_prints_goes_to_standard_error(make: MakeExecutor, capfd: pytest.CaptureFixture[str]) -> None:
    executor = make(work.chatter) if isinstance(make(work.square), Pool) else make(print)
    list(executor.map([1]))
    executor.close()
    out, err = capfd.readouterr()
    assert out == ""
    if isinstance(executor, Pool):
        assert sorted(line.split(") ")[-1] for line in err.splitlines()) == ["C says 1", "a child says", "python says 1"]
    else:
        assert err == "1\n"


def test_what_is_wanted_comes_before_what_is_spare(make: MakeExecutor) -> None:
    executor = make(work.square)
    spare = [executor.submit(i, spare=True) for i in (1, 2, 3)]
    wanted = executor.submit(4)
    executor.want(spare[1])
    results = dict(executor.results())
    assert results[wanted] == 16
    assert results[spare[1]] == 4
    left = executor.withdraw()
    assert set(left) <= {spare[0], spare[2]}
    executor.want(spare[0])  # it is forgotten or done: no harm
    late = executor.submit(5)
    results |= dict(executor.results())
    assert results[late] == 25
    assert not set(left) & set(results)


def test_nobody_is_idle_in_a_single_process() -> None:
    with SerialExecutor(work.square) as executor:
        assert executor.idle == 0
        executor.submit(2, spare=True)
        assert list(executor.results()) == []


def test_idle_workers_take_spare_items_and_go_on_with_them(pool: MakePool, tmp_path: Path) -> None:
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    executor = pool(work.wait_for, 2)
    started(executor)
    assert executor.idle == 2
    wanted, spare = executor.submit(first), executor.submit("", spare=True)
    assert executor.idle == 0
    results = executor.results()
    assert next(results) == (spare, None)
    assert executor.idle == 1
    slow = executor.submit(second, spare=True)
    Path(first).touch()
    assert list(results) == [(wanted, None)], "what is spare was waited for"
    assert executor.withdraw() == [], "it was not begun"
    Path(second).touch()
    again = executor.submit("")
    got = dict(executor.results())
    if slow not in got:
        got |= dict([*executor.map([]), *executor.results()])  # map waits for it
    assert set(got) == {again, slow}


def test_items_mapped_have_no_others_beside_them(pool: MakePool, tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    executor = pool(work.wait_or_look, 2)
    started(executor)
    wanted, spare = executor.submit(("look", mark)), executor.submit(("wait", mark), spare=True)
    assert list(executor.results()) == [(wanted, False)]
    threading.Timer(0.5, Path(mark).touch).start()
    assert dict(executor.map([("look", mark)] * 2)) == {0: True, 1: True}, "they ran beside what is spare"
    assert dict(executor.results()) == {spare: True}, "a result was lost"


def test_an_interrupt_passes_through_the_serial_executor() -> None:
    with pytest.raises(KeyboardInterrupt):
        list(SerialExecutor(work.interrupt).map([1]))


def test_there_are_no_more_workers_than_items(pool: MakePool) -> None:
    with pool(work.pid, 4) as executor:
        (result,) = executor.map([None])
        assert pids(executor) == [result[1]]


def test_workers_run_side_by_side_and_stay_warm(pool: MakePool, tmp_path: Path) -> None:
    with pool(work.meet, 2) as executor:
        first = {result for _, result in executor.map([(str(tmp_path), 2)] * 4)}
        assert first == set(pids(executor))
        assert len(first) == 2
        assert {result for _, result in executor.map([(str(tmp_path), 2)] * 4)} <= first
        assert os.getpid() not in first


def test_results_come_as_they_are_done(pool: MakePool, tmp_path: Path) -> None:
    with pool(work.wait_for, 2) as executor:
        results = executor.map([str(tmp_path / "mark"), "", ""])
        assert [next(results)[0], next(results)[0]] == [1, 2]
        (tmp_path / "mark").touch()
        assert next(results)[0] == 0


def test_workers_get_their_threads_and_this_process_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with ProcessExecutor(work.environment, 1, threads=3) as executor:
        assert list(executor.map(["OMP_NUM_THREADS", "MKL_NUM_THREADS"])) == [(0, "3"), (1, "3")]
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


@pytest.mark.parametrize(("how", "text"), [("exit", "exit code 3"), ("kill", "exit code -9 (killed")])
def test_a_dead_worker_costs_its_item_one_retry(pool: MakePool, tmp_path: Path, how: str, text: str) -> None:
    with pool(work.die, 2) as executor:
        results = dict(executor.map([("fine", str(tmp_path)), (how, str(tmp_path)), ("fine", str(tmp_path)), ("fine", str(tmp_path))]))
    assert [results[i] for i in (0, 2, 3)] == ["fine"] * 3
    assert isinstance(results[1], Failure)
    assert results[1].died
    assert (text if isinstance(executor, ProcessExecutor) else "the end of its process") in results[1].error
    marks = [path.name for path in tmp_path.iterdir() if path.name.startswith(how)]
    assert len(marks) == 2, "not one retry, or not in another process"


@pytest.mark.parametrize("how", ["lock", "C"])
def test_a_hung_worker_is_replaced_and_its_item_given_to_one_more(pool: MakePool, how: str) -> None:
    with pool(work.hang_or_square, 2, heartbeat=2.5) as executor:
        first = started(executor)
        results = dict(executor.map([("", 1), (how, 2), ("", 3), ("", 4)]))
        assert [results[i] for i in (0, 2, 3)] == [1, 9, 16]
        assert isinstance(results[1], Failure)
        assert results[1].died
        assert "it cost two worker" in results[1].error
        assert "no sign of life for" in results[1].error
        hung = [pid for pid in first if pid not in pids(executor)]
        assert hung, "nobody was replaced"
        assert not any(alive(pid) for pid in hung)


def test_a_slow_worker_that_gives_signs_of_life_is_left_alone(pool: MakePool) -> None:
    with pool(work.hang_or_square, 1, heartbeat=2.5) as executor:
        first = started(executor)
        assert list(executor.map([("beat", 2), ("", 3)])) == [(0, 4), (1, 9)]  # beats for twice that time
        assert pids(executor) == first


def test_more_time_can_be_given_to_workers_that_have_started() -> None:
    with ProcessExecutor(work.hang_or_square, 1, heartbeat=1.0) as executor:
        executor.start()
        first = pids(executor)
        executor.heartbeat = 60.0
        assert list(executor.map([("silent", 2)])) == [(0, 4)]
        assert pids(executor) == first


def test_an_idle_worker_owes_no_sign_of_life(pool: MakePool) -> None:
    with pool(work.hang_or_square, 2, heartbeat=2.5) as executor:
        first = started(executor)
        assert dict(executor.map([("beat", 2), ("", 3)])) == {0: 4, 1: 9}  # the second is done and waits
        assert pids(executor) == first


def test_workers_that_hang_before_they_are_ready_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hangs.py").write_text("import os, time\ndef f(item): return 1\nif os.environ.get('IN_WORKER_HANG'): time.sleep(3600)\n")
    monkeypatch.syspath_prepend(tmp_path)
    function = importlib.import_module("hangs").f
    monkeypatch.setenv("IN_WORKER_HANG", "1")
    monkeypatch.setattr("hptune.executors.worker.STARTING", 1.0)
    with ProcessExecutor(function, 1, heartbeat=1.0) as executor, pytest.raises(HptuneError, match="no sign of life for"):
        list(executor.map([1]))


def test_a_worker_that_lost_its_device_is_replaced(pool: MakePool) -> None:
    with pool(work.lose_the_device, 1) as executor:
        results = dict(executor.map([1, -1, 2]))
        assert isinstance(results[1], Failure)
        assert results[1].died
        assert "device-side assert triggered" in results[1].error
        assert str(results[0]) not in results[1].error, "the second attempt was not made by a fresh process"
        assert results[2] != results[0]


def test_a_lost_device_ends_the_serial_executor_after_its_item() -> None:
    results = SerialExecutor(work.lose_the_device).map([1, -1, 2])
    assert next(results)[1] == os.getpid()
    index, failure = next(results)
    assert (index, failure.died) == (1, True)
    with pytest.raises(DeviceLostError, match=r"device-side assert triggered.*give the same command again"):
        next(results)


def test_an_item_that_kills_only_once_succeeds(pool: MakePool, tmp_path: Path) -> None:
    with pool(work.die_once, 2) as executor:
        assert sorted(executor.map([(i, str(tmp_path)) for i in range(6)])) == [(i, i) for i in range(6)]


def test_an_idle_worker_that_is_killed_is_replaced(pool: MakePool) -> None:
    with pool(work.square, 1) as executor:
        for _ in range(3):
            assert list(executor.map([2])) == [(0, 4)]
            (pid,) = pids(executor)
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: not alive(pid))


def test_a_death_shows_even_where_a_child_keeps_the_pipe_open(tmp_path: Path) -> None:
    with ProcessExecutor(work.leave_a_child_and_die, 1) as executor:
        ((_, result),) = executor.map([str(tmp_path)])
    for path in tmp_path.iterdir():
        os.kill(int(path.name), signal.SIGKILL)
    assert "exit code 5" in result.error


def test_a_result_that_cannot_travel_is_a_failure(pool: MakePool) -> None:
    with pool(work.unsendable, 1) as executor:
        results = dict(executor.map(["lambda", "unreadable", "fine"]))
    assert "the result cannot be sent" in results[0].error
    assert "the result cannot be read" in results[1].error
    assert results[2] == 1


def test_an_item_that_cannot_travel_is_the_callers_mistake(pool: MakePool) -> None:
    with pool(work.square, 1) as executor:
        with pytest.raises((AttributeError, TypeError), match=r"pickle"):
            list(executor.map([threading.Lock()]))
        assert list(executor.map([2])) == [(0, 4)]


@pytest.mark.parametrize("leave", ["close", "error"])
def test_leaving_early_ends_the_busy_workers(pool: MakePool, tmp_path: Path, leave: str) -> None:
    executor = pool(work.hang_if_told, 2)
    results = executor.map([(True, str(tmp_path)), (False, str(tmp_path)), (True, str(tmp_path))])
    assert next(results) == (1, "done")
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    busy = pids(executor)
    assert len(busy) == 2
    if leave == "close":
        results.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            results.throw(KeyboardInterrupt())
    if not isinstance(executor, ProcessExecutor):  # its cluster ends them in a moment
        wait_until(lambda: not any(alive(pid) for pid in busy))
    assert not any(alive(pid) for pid in busy)
    executor.close()


def test_close_ends_workers_that_have_not_even_started() -> None:
    executor = ProcessExecutor(work.square, 3)
    executor.start()
    started = pids(executor)
    executor.close()
    assert len(started) == 3
    assert not any(alive(pid) for pid in started)


def script(folder: Path, text: str) -> list[str]:
    """A program that uses the executor, as the command that runs it; the work functions lie beside this file."""
    path = folder / "a script.py"
    path.write_text(f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n{text}")
    return [sys.executable, str(path)]


HANGING = """
import executor_work as work
from hptune.executors.process import ProcessExecutor
if __name__ == "__main__":
    executor = ProcessExecutor(work.hang, 2)
    list(executor.map([sys.argv[1]] * 2))
"""


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_driver(tmp_path: Path, signal_number: signal.Signals) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    driver = subprocess.Popen([*script(tmp_path, HANGING), str(marks)], stderr=subprocess.PIPE, text=True, start_new_session=True)
    with driver:
        try:
            wait_until(lambda: len(list(marks.iterdir())) == 2)
            workers = [int(path.name) for path in marks.iterdir()]
            if signal_number == signal.SIGKILL:
                driver.kill()  # the driver alone
            else:
                os.killpg(driver.pid, signal.SIGINT)  # as Ctrl-C does: everyone hears it
            wait_until(lambda: not any(alive(pid) for pid in workers))
            _, err = driver.communicate(timeout=PATIENCE)
        finally:
            driver.kill()  # leaving the block waits for its end
    assert err.count("Traceback") == (signal_number == signal.SIGINT), f"a worker spoke up:\n{err}"


UNCLOSED = """
import executor_work as work
from hptune.executors.process import ProcessExecutor
if __name__ == "__main__":
    executor = ProcessExecutor(work.square, 1)
    executor.start()
    print(list(executor.map([3])))
"""
UNGUARDED = UNCLOSED.replace('if __name__ == "__main__":', "if True:")


def test_a_program_that_never_closes_its_executor_still_ends(tmp_path: Path) -> None:
    done = subprocess.run(script(tmp_path, UNCLOSED), capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[(0, 9)]\n", "")


def test_a_script_without_a_main_guard_is_told_so(tmp_path: Path) -> None:
    done = subprocess.run(script(tmp_path, UNGUARDED), capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    assert 'a script that starts hptune must do so under `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]


def test_code_that_workers_cannot_load_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text(
        "import os\ndef f(item): return 1\nif os.environ.get('IN_WORKER'): raise ImportError('no libfoo')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    function = importlib.import_module("only_here").f
    monkeypatch.setenv("IN_WORKER", "1")
    with ProcessExecutor(function, 2) as executor, pytest.raises(HptuneError, match="cannot load their code: ImportError: no libfoo"):
        list(executor.map([1, 2]))


def test_workers_do_not_load_torch(pool: MakePool) -> None:
    with pool(work.loaded, 1) as executor:
        assert list(executor.map(["torch", "hptune.executors.worker"])) == [(0, False), (1, True)]


@pytest.mark.parametrize(
    ("needs", "resources", "fitting"),
    [
        (Needs(), {"CPU": 8.0}, 8),
        (Needs(cpus=3), {"CPU": 8.0}, 2),
        (Needs(gpus=1), {"CPU": 8.0}, 0),
        (Needs(gpus=1), {"CPU": 8.0, "GPU": 4.0}, 4),
        (Needs(gpus=2), {"CPU": 8.0, "GPU": 5.0}, 2),
        (Needs(cpus=0.5, gpus=0.3), {"CPU": 8.0, "GPU": 2.0}, 6),
        (Needs(cpus=4, gpus=0.1), {"CPU": 8.0, "GPU": 2.0}, 2),
    ],
)
def test_what_a_node_holds(needs: Needs, resources: dict[str, float], fitting: int) -> None:
    assert needs.fit(resources) == fitting


def test_a_note_of_a_cluster_that_is_gone_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    from hptune.executors.ray import _runs_here

    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert not _runs_here()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{port}\n")
        assert _runs_here()
    assert not _runs_here()


@pytest.mark.parametrize(
    ("asked", "settled"),
    [
        (("auto", "auto", "cpu", 8), ("process", 8)),
        (("auto", "auto", "cpu", 8, 3), ("process", 2)),
        (("auto", "auto", "cpu", 1), ("serial", 1)),
        (("auto", 1, "cpu", 8), ("serial", 1)),
        (("auto", 3, "cpu", 8), ("process", 3)),
        (("auto", "auto", "cuda", 8), ("serial", 1)),
        (("auto", "auto", "mps", 8), ("serial", 1)),
        (("auto", 2, "cuda", 8), ("process", 2)),
        (("process", "auto", "cuda", 8), ("process", 1)),
        (("process", "auto", "cpu", 2, 4), ("process", 1)),
        (("serial", 4, "cpu", 8), ("serial", 1)),
    ],
)
def test_auto_is_settled_by_device_and_cores(asked: tuple[Any, ...], settled: tuple[str, int]) -> None:
    assert resolve(*asked) == settled


def test_each_gpu_gets_a_worker_unless_the_config_says_how_many() -> None:
    assert resolve("auto", "auto", "cuda", places=4) == ("process", 4)
    assert resolve("process", 2, "cuda", places=4) == ("process", 2)
    assert resolve("serial", "auto", "cuda", places=4) == ("serial", 1)


@pytest.mark.parametrize(
    ("asked", "settled"),
    [
        (("auto", "auto", "cuda"), ("process", 1)),
        (("auto", 1, "cuda"), ("serial", 1)),
        (("serial", "auto", "cuda"), ("serial", 1)),
    ],
)
def test_where_one_trial_leaves_room_more_may_follow(asked: tuple[Any, ...], settled: tuple[str, int]) -> None:
    assert resolve(*asked, room=True) == settled


def test_cores_are_those_this_process_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    assert 1 <= available_cores() <= len(allowed)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert resolve("process", "auto", "cpu") == ("process", 1)
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(
    ("name", "text"),
    [("dask", "unknown executor 'dask'")],
)
def test_other_executors_are_refused(name: str, text: str) -> None:
    for refuse in (lambda: resolve(name, "auto", "cpu", 2), lambda: make_executor(name, work.square, workers=2, threads=1)):
        with pytest.raises(ConfigError, match=text):
            refuse()
