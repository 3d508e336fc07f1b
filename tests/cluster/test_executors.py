"""What runs the tasks: threads, processes, and whatever else can."""

import concurrent.futures
import operator
import os
import threading

import pytest

import agentflow as af
from agentflow.executors import InlineRunner

SOON = 60.0


def square(x):
    return x * x


def pid_of(*_):
    return os.getpid()


def fail(text):
    raise ValueError(text)


def say(text):
    print("hello", text)
    return len(text)


def hold():
    threading.Event().wait(SOON)


def die():
    os._exit(3)


def mixed():
    """A flow that uses every kind of order: calls, items, an expansion, a gathering, and a task of no function."""
    flow = af.Workflow("mixed")
    items = flow.add(range, 4, id="items")
    squares = flow.map(square, items, id="squares")
    total = flow.add(sum, squares, id="total")
    flow.add_task("gate", ["total"])
    flow.add(operator.add, total, 1, after="gate", id="end")
    flow.add(dict, kwargs={"nested": [total, (total,)]}, id="nested")
    return flow


EXPECTED = {"end": 15, "nested": {"nested": [14, (14,)]}, "squares": [0, 1, 4, 9]}


@pytest.fixture
def processes():
    pytest.importorskip("loky", reason="executor='processes' needs loky")
    with af.Cluster(masters=1, workers=1, executor="processes") as cluster:
        yield cluster


def results(run):
    return {task: value for task, value in run.results(timeout=SOON).items() if task in EXPECTED}


def test_processes_run_every_kind_of_task(processes):
    assert results(processes.submit(mixed())) == EXPECTED
    pids = set(processes.map(pid_of, range(4)).result(timeout=SOON))
    assert os.getpid() not in pids
    assert processes.map(pow, [2, 3], [3, 2]).result(timeout=SOON) == [8, 9]


def test_what_a_process_raises_and_prints_comes_home(processes):
    run = processes.submit(fail, "far away")
    with pytest.raises(af.TaskFailed, match="ValueError: far away") as caught:
        run.result(timeout=SOON)
    assert isinstance(caught.value.__cause__, ValueError)
    assert "in fail" in caught.value.traceback
    run = processes.submit(say, "you")
    assert run.result(timeout=SOON) == 3
    assert run.frames.attempts().stdout.item() == "hello you\n"


def test_what_cannot_travel_is_named(processes):
    run = processes.submit(square, threading.Lock())
    with pytest.raises(af.TaskFailed, match=r"Unpicklable.*argument 1 of square\(\)"):
        run.result(timeout=SOON)
    run = processes.submit(threading.Lock)
    with pytest.raises(af.TaskFailed, match=r"Unpicklable.*the result"):
        run.result(timeout=SOON)


def test_a_process_past_its_timeout_is_killed(processes):
    run = processes.submit(hold, timeout=1.0)
    with pytest.raises(af.TaskFailed, match="timeout"):
        run.result(timeout=SOON)
    assert processes.submit(square, 3).result(timeout=SOON) == 9
    assert "Given up" not in processes.diagnose(), "nothing goes on running"


def test_a_process_that_dies_fails_its_own_task_alone(processes):
    flow = af.Workflow("death")
    flow.add(die, id="dies")
    for i in range(3):
        flow.add(square, i, id=f"lives-{i}")
    run = processes.submit(flow)
    assert run.results(errors="skip", timeout=SOON) == {f"lives-{i}": i * i for i in range(3)}
    with pytest.raises(af.TaskFailed, match="PeerDown"):
        run.result("dies")


@pytest.mark.parametrize(
    "make", [concurrent.futures.ThreadPoolExecutor, concurrent.futures.ProcessPoolExecutor]
)
def test_any_executor_runs_the_tasks_and_stays_its_owners(make):
    with make(2) as executor:
        with af.Cluster(masters=1, workers=2, executor=executor) as cluster:
            assert results(cluster.submit(mixed())) == EXPECTED
            with pytest.raises(af.TaskFailed, match="boom"):
                cluster.submit(fail, "boom").result(timeout=SOON)
        assert executor.submit(square, 3).result(SOON) == 9, "it is not shut down with the cluster"


def test_an_executor_a_worker_is_made_by_a_function_and_ends_with_the_worker():
    made = {}

    def make(worker):
        made[worker] = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix=f"pool-{worker}")
        return made[worker]

    with af.Cluster(masters=1, workers=2, executor=make) as cluster:
        cluster.map(square, range(16)).wait(SOON)
        assert set(made) == {"worker-1", "worker-2"}
    for executor in made.values():
        with pytest.raises(RuntimeError):
            executor.submit(square, 1)


def test_a_function_that_gives_no_executor_fails_the_task_and_says_why():
    with af.Cluster(masters=1, workers=1, executor=lambda worker: None) as cluster:
        with pytest.raises(af.TaskFailed, match=r"could not be started.*the executor that"):
            cluster.submit(square, 1).result(timeout=SOON)
        assert cluster.leader


def test_a_runner_of_ones_own_is_used_and_left_open():
    class Counting(InlineRunner):
        count = 0
        is_closed = False

        def start(self, key, call, done):
            self.count += 1
            super().start(key, call, done)

        def close(self, timeout_secs=1.0):
            self.is_closed = True
            return []

    runner = Counting()
    with af.Cluster(masters=1, workers=1, executor=runner) as cluster:
        assert cluster.map(square, range(3)).result(timeout=SOON) == [0, 1, 4]
    assert runner.count == 3
    assert not runner.is_closed


def test_inline_tasks_run_on_the_loop_for_looking_at_one_by_hand():
    with af.Cluster(masters=1, workers=1, executor="inline") as cluster:
        assert results(cluster.submit(mixed())) == EXPECTED
        [name] = set(cluster.map(lambda _: threading.current_thread().name, range(3)).result(timeout=SOON))
        assert name == "agentflow-loop"


def test_threads_are_named_after_their_worker(live):
    names = live.map(lambda _: threading.current_thread().name, range(8)).result(timeout=SOON)
    assert {name.split("/")[0] for name in names} == {"worker-1"}


def test_a_killed_workers_processes_end_with_it(processes):
    [pid] = processes.map(pid_of, [1]).result(timeout=SOON)
    run = processes.submit(hold)
    while "RUNNING" not in set(run.frames.tasks().state):
        pass
    processes.kill("worker-1")
    processes.add_worker()
    assert processes.submit(pid_of).result(timeout=SOON) != pid
    run.cancel()


def test_brief_tasks_behind_long_ones_are_given_to_who_is_free(eventually):
    """What a worker took ahead must not wait for tasks that take long while another worker is idle."""
    gate = threading.Event()
    with af.Cluster(masters=1, workers=2) as cluster:
        cluster.map(abs, range(400)).wait(20)
        assert any(worker.pace for worker in cluster.plane().workers.values())
        flow = af.Workflow("mixed")
        for i in range(4):
            flow.add(gate.wait, 30, id=f"long{i}")
        flow.map(abs, range(200), id="brief")
        run = cluster.submit(flow)
        try:
            assert run.result(flow["brief"], timeout=20) == list(range(200))
        finally:
            gate.set()
        assert run.wait(20).ok
        assert set(run.frames.attempts()["state"]) == {"COMPLETED"}
