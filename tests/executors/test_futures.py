from __future__ import annotations

import os
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest

from agentflow.errors import PeerDown, TaskCancelled, Unpicklable
from agentflow.executors import ExecutorRunner


class ByHand(Executor):
    """An executor whose calls run when the test says so."""

    def __init__(self):
        self.calls = []
        self.is_down = False

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        self.calls.append((future, fn, kwargs))
        return future

    def run(self, number=0):
        future, fn, _ = self.calls.pop(number)
        future.set_result(fn())

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.is_down = True


@pytest.fixture
def by_hand():
    return ByHand()


def test_the_executor_is_given_no_more_than_there_are_slots(by_hand, ends):
    runner = ExecutorRunner("w1", by_hand, 2)
    for key in range(5):
        runner.start(key, lambda key=key: key, ends)
    order = []
    while by_hand.calls:
        assert len(by_hand.calls) <= 2
        by_hand.run()
        order.append(ends.outcome().value)
    assert order == [0, 1, 2, 3, 4]


def test_keywords_for_the_engine_reach_its_submit(by_hand, ends):
    runner = ExecutorRunner("w1", by_hand, 1, submit={"resources": {"GPU": 1}})
    runner.start(1, int, ends)
    assert by_hand.calls[0][2] == {"resources": {"GPU": 1}}


def test_what_the_engine_cancels_is_reported_as_cancelled(by_hand, ends):
    runner = ExecutorRunner("w1", by_hand, 1)
    runner.start(1, int, ends)
    runner.start(2, lambda: "next", ends)
    # A foreign engine may say "cancelled" of work that had begun, so this is no "surely never ran".
    assert runner.abandon(1) is False
    key, outcome = ends.next()
    assert key == 1
    assert isinstance(outcome.error, TaskCancelled)
    by_hand.run(1)
    assert ends.outcome().value == "next"


def test_an_executor_that_refuses_fails_the_task_and_not_the_runner(ends):
    class Refusing(ByHand):
        def submit(self, fn, /, *args, **kwargs):
            raise RuntimeError("cannot schedule new futures after shutdown")

    runner = ExecutorRunner("w1", Refusing(), 1)
    for key in range(2000):
        runner.start(key, int, ends)
        assert "cannot schedule" in str(ends.outcome().error)
    assert runner.close(1) == []


def test_an_executor_that_runs_at_once_needs_no_recursion(ends):
    class AtOnce(ByHand):
        def submit(self, fn, /, *args, **kwargs):
            future = Future()
            future.set_result(fn())
            return future

    runner = ExecutorRunner("w1", AtOnce(), 1)
    left = iter(range(5000))

    def again(key, outcome):
        for following in left:
            runner.start(1 + following, int, again)
            return
        ends(key, outcome)

    runner.start(0, int, again)
    assert ends.outcome().value == 0


def test_an_executor_that_was_passed_is_not_shut_down(by_hand, ends):
    ExecutorRunner("w1", by_hand, 1).close(0)
    assert not by_hand.is_down
    ExecutorRunner("w1", by_hand, 1, owns=True).close(0)
    assert by_hand.is_down


def test_close_names_what_the_engine_still_runs(ends):
    begun, go = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        runner = ExecutorRunner("w1", pool, 2)
        runner.start(1, lambda: (begun.set(), go.wait(20)), ends)
        begun.wait(20)
        runner.start(2, int, ends)
        assert runner.close(0) == ["w1, call 1"]
        go.set()
    assert [key for key, _ in ends.queue.queue] == [2]  # cancelled while the runner closed


@pytest.fixture
def process_pool():
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        yield pool


def test_a_standard_process_pool_runs_what_it_could_not_pickle_itself(process_pool, ends):
    runner = ExecutorRunner("w1", process_pool, 2)
    factor = 3
    runner.start(1, lambda: (print("there"), os.getpid(), factor * 14)[1:], ends)
    outcome = ends.outcome()
    assert outcome.value[1] == 42
    assert outcome.value[0] != os.getpid()
    assert outcome.stdout == "there\n"
    assert outcome.thread == f"process {outcome.value[0]}"
    assert 0 <= outcome.finished - outcome.started < 20


def test_a_standard_process_pool_names_what_cannot_travel(process_pool, ends):
    runner = ExecutorRunner("w1", process_pool, 2)
    lock = threading.Lock()
    runner.start(1, lambda: lock, ends)
    assert isinstance(ends.outcome().error, Unpicklable)
    runner.start(2, threading.Lock, ends)
    assert isinstance(ends.outcome().error, Unpicklable)

    def fail():
        raise KeyError("far")

    runner.start(3, fail, ends)
    error = ends.outcome().error
    assert isinstance(error, KeyError)
    assert "in fail" in error.__cause__.report


def test_a_pool_whose_process_died_says_so(process_pool, ends):
    runner = ExecutorRunner("w1", process_pool, 2)
    runner.start(1, lambda: os._exit(3), ends)
    assert isinstance(ends.outcome().error, PeerDown)
