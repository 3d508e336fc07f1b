from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from functools import partial

import psutil
import pytest

from agentflow.errors import PeerDown, RemoteError, TaskCancelled, Unpicklable
from agentflow.executors import ProcessRunner

pytest.importorskip("loky")


@pytest.fixture
def runner():
    made = ProcessRunner("w1", 2)
    yield made
    assert made.close(20) == []


@pytest.fixture
def wait_for_file(tmp_path):
    """Tell a process's pid apart from another's by a pipe: the child writes, the test reads."""
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def read():
        with path.open() as pipe:
            return pipe.read()

    read.path = str(path)
    return read


def test_a_task_runs_in_another_process_which_is_used_again(runner, ends):
    for key in range(5):
        runner.start(key, os.getpid, ends)
        outcome = ends.outcome()
        pid = outcome.value
        assert pid != os.getpid()
        assert outcome.thread == f"process {pid}"
    runner.start(9, os.getpid, ends)
    assert ends.outcome().value == pid


def test_functions_of_a_notebook_travel_with_what_they_hold(runner, ends):
    factor = 3

    class Local:
        value = 7

    def scale(thing, by):
        return thing.value * factor * by

    runner.start(1, partial(scale, Local(), by=2), ends)
    assert ends.outcome().value == 42


def test_what_cannot_travel_is_named(runner, ends):
    lock = threading.Lock()

    def use():
        return lock

    runner.start(1, use, ends)
    error = ends.outcome().error
    assert isinstance(error, Unpicklable)
    assert error.culprit == "variable 'lock' of use() (a lock)"
    runner.start(2, partial(len, [1, {"a": lock}]), ends)
    assert ends.outcome().error.culprit == "argument 1 of len(), item 1, item 'a' (a lock)"
    runner.start(3, lambda: threading.Lock(), ends)
    assert "the result cannot be sent" in str(ends.outcome().error)
    runner.start(4, lambda: "on", ends)
    assert ends.outcome().value == "on"


def test_an_error_comes_with_the_traceback_of_the_other_side(runner, ends):
    def fail():
        raise LookupError("over there")

    runner.start(1, fail, ends)
    error = ends.outcome().error
    assert isinstance(error, LookupError)
    assert isinstance(error.__cause__, RemoteError)
    assert "in fail" in error.__cause__.report


def test_an_error_that_cannot_travel_arrives_as_its_text(runner, ends):
    class Demanding(Exception):
        def __init__(self, first, second):
            super().__init__(f"{first}-{second}")

    class Holding(Exception):
        pass

    def demanding():
        raise Demanding(1, 2)

    def holding():
        raise Holding(threading.Lock())

    runner.start(1, demanding, ends)
    assert str(ends.outcome().error) == "Demanding: 1-2"
    runner.start(2, holding, ends)
    outcome = ends.outcome()
    assert isinstance(outcome.error, RemoteError)
    assert "Holding" in outcome.error.report


def test_a_result_that_cannot_be_read_here_is_an_error_of_its_task(runner, ends):
    class Fragile:
        def __reduce__(self):
            return int, ("not a number",)

    runner.start(1, Fragile, ends)
    assert "cannot be read here: ValueError" in str(ends.outcome().error)


def test_a_process_that_dies_fails_its_own_task_only(runner, ends, wait_for_file):
    runner.start(1, partial(_announce_and_wait, wait_for_file.path), ends)
    pid = int(wait_for_file())
    runner.start(2, partial(os._exit, 3), ends)
    key, outcome = ends.next()
    assert key == 2
    assert isinstance(outcome.error, PeerDown)
    runner.start(3, os.getpid, ends)
    assert ends.outcome().ok
    os.kill(pid, signal.SIGKILL)
    key, outcome = ends.next()
    assert key == 1
    assert isinstance(outcome.error, PeerDown)


def test_a_process_that_died_while_idle_costs_no_task(runner, ends):
    runner.start(1, os.getpid, ends)
    pid = ends.outcome().value
    process = psutil.Process(pid)
    os.kill(pid, signal.SIGKILL)
    process.wait(20)
    pool = runner._idle[0]
    pool._executor_manager_thread.join(20)
    runner.start(2, os.getpid, ends)
    assert ends.outcome().value != pid


def test_replace_kills_the_process_and_its_children(runner, ends, wait_for_file):
    runner.start(1, partial(_announce_child_and_wait, wait_for_file.path), ends)
    pids = [int(word) for word in wait_for_file().split()]
    assert all(psutil.pid_exists(pid) for pid in pids)
    processes = [psutil.Process(pid) for pid in pids]
    assert runner.replace(1) is None
    assert isinstance(ends.outcome().error, TaskCancelled)
    assert psutil.wait_procs(processes, timeout=20)[1] == []
    assert runner.replace(1) is None
    runner.start(2, os.getpid, ends)
    assert ends.outcome().value not in pids


def test_work_that_waits_can_be_taken_back(ends, wait_for_file):
    runner = ProcessRunner("w1", 1)
    runner.start(1, partial(_announce_and_wait, wait_for_file.path), ends)
    wait_for_file()
    runner.start(2, os.getpid, ends)
    assert runner.abandon(2) is True
    assert runner.abandon(1) is False
    runner.replace(1)
    assert ends.next()[0] == 1
    assert runner.close(20) == []
    assert ends.queue.empty()


def test_close_kills_what_does_not_end(ends, wait_for_file):
    runner = ProcessRunner("w1", 1)
    runner.start(1, partial(_announce_and_wait, wait_for_file.path), ends)
    pid = int(wait_for_file())
    assert runner.close(0) == []
    assert not psutil.pid_exists(pid)


def test_an_interrupt_of_the_kernel_does_not_interrupt_the_processes(runner, ends, wait_for_file):
    runner.start(1, partial(_announce_and_interrupt_self, wait_for_file.path), ends)
    wait_for_file()
    assert ends.outcome().value == "unharmed"


def test_a_task_that_never_ends_does_not_keep_the_interpreter_from_exiting(wait_for_file):
    code = """
import os, sys, threading
from agentflow.executors import ProcessRunner

runner = ProcessRunner("w1", 2)
ended = threading.Event()
runner.start(1, os.getpid, lambda key, outcome: ended.set())
ended.wait()
path = sys.argv[1]
def task():
    with open(path, "w") as pipe:
        pipe.write(str(os.getpid()))
    import time
    time.sleep(1000)
runner.start(2, task, print)
with open(path) as pipe:
    print(pipe.read())
"""
    command = [sys.executable, "-c", code, wait_for_file.path]
    child = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (child.returncode, child.stderr) == (0, "")
    assert not psutil.pid_exists(int(child.stdout))


def test_without_loky_the_pip_line_is_named(monkeypatch):
    from agentflow.errors import MissingExtra

    monkeypatch.setitem(sys.modules, "loky", None)
    with pytest.raises(MissingExtra, match=r"agentflow\[processes\]"):
        ProcessRunner("w1", 1)


def _announce_and_wait(path):
    with open(path, "w") as pipe:
        pipe.write(str(os.getpid()))
    threading.Event().wait()


def _announce_child_and_wait(path):
    child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
    with open(path, "w") as pipe:
        pipe.write(f"{os.getpid()} {child.pid}")
    child.wait()


def _announce_and_interrupt_self(path):
    with open(path, "w") as pipe:
        pipe.write(str(os.getpid()))
    os.kill(os.getpid(), signal.SIGINT)
    return "unharmed"
