from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import threading
import weakref

import pytest

from agentflow.errors import InvalidConfig
from agentflow.executors import ThreadRunner
from agentflow.executors.threads import BRISK, Brigade


def test_threads_start_as_they_are_needed_and_bear_the_workers_name(runners, ends):
    runner = runners("threads", slots=8)
    before = threading.active_count()
    for key in range(20):
        runner.start(key, lambda: threading.current_thread().name, ends)
        assert ends.outcome().value == "w1/0"
        # The thread reports before it is free again, so a second one may be called for; eight are not.
    assert threading.active_count() - before <= 3


def test_work_never_waits_beside_a_free_slot(runners, ends):
    runner = runners("threads", slots=4)
    for round_ in range(50):
        together = threading.Barrier(4)
        for key in range(4):
            runner.start(4 * round_ + key, lambda together=together: together.wait(20), ends)
        ends.take(4)


def test_a_key_cannot_wait_twice(runners, ends):
    runner = runners("threads", slots=1)
    begun, go = threading.Event(), threading.Event()
    runner.start(1, lambda: (begun.set(), go.wait(20)), ends)
    begun.wait(20)
    runner.start(2, lambda: 2, ends)
    with pytest.raises(InvalidConfig, match="the key 2"):
        runner.start(2, lambda: 3, ends)
    go.set()
    assert ends.take(2)[2].value == 2


def test_a_task_that_ended_keeps_nothing_alive(runners, ends):
    class Big:
        pass

    runner = runners("threads", slots=1)
    argument, result = Big(), Big()
    seen = [weakref.ref(argument), weakref.ref(result)]
    runner.start(1, lambda held=argument, value=result: value, ends)
    del argument, result
    key, outcome = ends.next()
    runner.start(2, lambda: None, ends)
    ends.next()
    del key, outcome
    assert [ref() for ref in seen] == [None, None]


def test_an_errors_traceback_begins_in_the_users_function(runners, ends):
    runner = runners("threads", slots=1)

    def mine():
        raise ValueError("here")

    runner.start(1, mine, ends)
    trace = ends.outcome().error.__traceback__
    assert trace.tb_frame.f_code is mine.__code__
    assert trace.tb_next is None


def test_an_error_makes_no_circle_that_only_the_collector_breaks(runners, ends):
    class Big:
        pass

    runner = runners("threads", slots=1)
    big = Big()
    seen = weakref.ref(big)

    def mine(held):
        raise ValueError("here")

    gc.disable()
    try:
        runner.start(1, lambda held=big: mine(held), ends)
        del big
        ends.next()
        runner.start(2, lambda: None, ends)
        ends.next()
        assert seen() is None
    finally:
        gc.enable()


def test_a_thread_that_was_replaced_ends_with_its_work(runners, ends):
    runner = runners("threads", slots=1)
    begun, go, threads = threading.Event(), threading.Event(), []
    runner.start(1, lambda: (threads.append(threading.current_thread()), begun.set(), go.wait(20)), ends)
    begun.wait(20)
    assert runner.replace(1) == "w1/0"
    runner.start(2, lambda: threading.current_thread().name, ends)
    assert ends.outcome().value == "w1/1"
    go.set()
    threads[0].join(20)
    assert not threads[0].is_alive()


def test_close_names_a_replaced_thread_that_still_runs(ends):
    runner = ThreadRunner("w1", 1)
    begun, go = threading.Event(), threading.Event()
    runner.start(1, lambda: (begun.set(), go.wait(20)), ends)
    begun.wait(20)
    runner.replace(1)
    assert runner.close(0.5) == ["w1/0"]
    go.set()
    assert runner.close(20) == []


def test_close_may_be_called_from_a_report(ends):
    runner = ThreadRunner("w1", 1)
    runner.start(1, lambda: 1, lambda key, outcome: ends(key, runner.close(0)))
    assert ends.outcome() == ["w1/0"]
    assert runner.close(20) == []


def test_work_that_ends_while_close_waits_is_reported(ends):
    runner = ThreadRunner("w1", 1)
    begun, go = threading.Event(), threading.Event()
    runner.start(1, lambda: (begun.set(), go.wait(20)), ends)
    begun.wait(20)
    closer = threading.Thread(target=lambda: ends("closed", runner.close(20)))
    closer.start()
    go.set()
    assert [ends.next()[0], ends.next()] == [1, ("closed", [])]
    closer.join()


def test_a_task_that_never_ends_does_not_keep_the_interpreter_from_exiting():
    code = """
import threading
from agentflow.executors import ThreadRunner
from agentflow.executors.threads import BRISK, Brigade
begun = threading.Event()
runner = ThreadRunner("w1", 2)
runner.start(1, lambda: (begun.set(), threading.Event().wait()), print)
begun.wait()
print("bye")
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (child.returncode, child.stdout, child.stderr) == (0, "bye\n", "")


def test_under_the_worst_scheduling_each_call_ends_once_or_was_taken_back(runners, ends):
    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        runner = runners("threads", slots=3)
        taken_back = itertools.count()
        count = 0
        for key in range(3000):
            runner.start(key, lambda key=key: key, ends)
            if key % 3 == 0 and runner.abandon(key):
                next(taken_back)
                count += 1
        outcomes = ends.take(3000 - count)
        assert len(outcomes) == 3000 - next(taken_back)
        assert all(outcome.value == key for key, outcome in outcomes.items())
    finally:
        sys.setswitchinterval(old)


def test_a_task_costs_little(runners):
    runner, count, last = runners("threads", slots=4), itertools.count(1), threading.Event()
    import time

    def done(key, outcome):
        if next(count) == 20_000:
            last.set()

    begin = time.process_time()
    for key in range(20_000):
        runner.start(key, int, done)
    last.wait(20)
    # About 4 microseconds of processor time here; what fails this is a lock or a wake-up per task.
    assert (time.process_time() - begin) / 20_000 < 40e-6


class TestBrigade:
    """Runners whose threads help one another while tasks are brief."""

    @pytest.fixture
    def brigade(self):
        brigade = Brigade()
        members = [ThreadRunner(f"w{i}", slots=2, brigade=brigade) for i in (1, 2)]
        yield members
        for runner in members:
            assert runner.close(5.0) == []

    def brisk(self, runner, ends):
        for key in range(BRISK + 4):
            runner.start(-1 - key, lambda: None, ends)
            ends.outcome()

    def test_brief_work_in_a_burst_is_done_whoever_is_awake(self, brigade, ends):
        for runner in brigade:
            self.brisk(runner, ends)
        for key in range(200):
            brigade[key % 2].start(key, lambda: None, ends)
        assert sorted(ends.next()[0] for _ in range(200)) == list(range(200))

    def test_work_behind_a_task_that_blocks_goes_on_after_a_nudge(self, brigade, ends):
        runner = brigade[0]
        self.brisk(runner, ends)
        gate = threading.Event()
        runner.start(1, lambda: gate.wait(20), ends)
        runner.start(2, lambda: "free", ends)
        while runner.nudge() is not None:
            pass
        assert ends.outcome().value == "free"
        gate.set()
        assert ends.outcome().value is True

    def test_what_no_thread_took_up_is_given_back_once(self, brigade, ends):
        runner = brigade[0]
        self.brisk(runner, ends)
        gate, begun = threading.Event(), threading.Semaphore(0)
        for key in (1, 2):
            runner.start(key, lambda: begun.release() or gate.wait(20), ends)
            runner.nudge()
            assert begun.acquire(timeout=20)
        for key in (3, 4, 5):
            runner.start(key, lambda: "never", ends)
        assert runner.abandon(4)
        assert [key for key, _ in runner.take_back()] == [3, 5]
        assert runner.take_back() == []
        gate.set()
        assert sorted(ends.next()[0] for _ in range(2)) == [1, 2]

    def test_a_slot_is_replaced_whoever_helps_with_its_work(self, brigade, ends):
        runner = brigade[0]
        gate, begun = threading.Event(), threading.Event()
        runner.start(1, lambda: begun.set() or gate.wait(20), ends)
        assert begun.wait(20)
        assert brigade[1].replace(1) == "w1/0"
        gate.set()
        assert ends.next()[0] == 1
