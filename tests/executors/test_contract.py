"""What every runner promises."""

from __future__ import annotations

import asyncio
import decimal
import os
import sys
import threading
import time

import pytest

from agentflow.errors import Closed, InvalidConfig
from agentflow.executors import ExecutorRunner, Runner, ThreadRunner

KINDS = ["inline", "threads", "pool", "processes"]
REAL = ["threads", "pool"]


@pytest.fixture(params=KINDS)
def runner(request, runners):
    return runners(request.param)


def test_a_call_ends_in_one_report_of_its_value(runner, ends):
    assert isinstance(runner, Runner)
    for key in range(20):
        runner.start(key, lambda key=key: key * key, ends)
    assert {key: outcome.value for key, outcome in ends.take(20).items()} == {k: k * k for k in range(20)}
    assert ends.queue.empty()


def test_none_is_a_result(runner, ends):
    runner.start(1, lambda: None, ends)
    outcome = ends.outcome()
    assert (outcome.ok, outcome.value, outcome.error) == (True, None, None)


@pytest.mark.parametrize(
    "error",
    [ValueError("no"), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(1), MemoryError()],
)
def test_nothing_a_task_raises_ends_its_thread(runner, ends, error):
    def task():
        raise error

    for key in range(4):
        runner.start(key, task, ends)
    for outcome in ends.take(4).values():
        assert (type(outcome.error), outcome.error.args) == (type(error), error.args)
        assert not outcome.ok
    runner.start(5, lambda: "alive", ends)
    assert ends.outcome().value == "alive"


def test_a_coroutine_is_run_to_its_end(runner, ends):
    async def double(x):
        await asyncio.sleep(0)
        return 2 * x

    async def fail():
        await asyncio.sleep(0)
        raise LookupError("inside")

    runner.start(1, lambda: double(21), ends)
    assert ends.outcome().value == 42
    runner.start(2, fail, ends)
    assert isinstance(ends.outcome().error, LookupError)


def test_a_coroutine_may_be_run_beside_a_loop_that_runs(runners, ends):
    async def inner():
        return "inner"

    async def outer():
        runners("inline").start(1, inner, ends)

    asyncio.run(outer())
    assert ends.outcome().value == "inner"


def test_the_time_and_the_processor_time_of_the_call_are_told(runners, ends):
    offset = 1000.0

    def busy():
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass

    for kind in KINDS:
        runner = runners(kind, clock=lambda: time.monotonic() + offset)
        before = time.monotonic() + offset
        runner.start(1, busy, ends)
        outcome = ends.outcome()
        assert before <= outcome.finished <= time.monotonic() + offset
        assert outcome.finished - outcome.started >= 0.02
        assert 0.01 <= outcome.cpu_s <= outcome.finished - outcome.started + 0.01, kind


@pytest.mark.parametrize("kind", ["threads", "pool", "processes"])
def test_what_a_task_prints_is_kept_with_it(runners, ends, kind, capsys):
    runner = runners(kind)

    def task(word):
        print(word)
        print("trouble", file=sys.stderr)
        sys.stdout.flush()

    for key in range(8):
        runner.start(key, lambda key=key: task(f"task {key}"), ends)
    for key, outcome in ends.take(8).items():
        assert outcome.stdout == f"task {key}\ntrouble\n"
    runner.start(9, lambda: None, ends)
    assert ends.outcome().stdout == ""
    assert capsys.readouterr() == ("", "")


def test_a_closed_runner_takes_nothing(runner, ends):
    runner.start(1, lambda: 1, ends)
    ends.outcome()
    assert runner.close(5) == []
    assert runner.close(5) == []
    with pytest.raises(Closed):
        runner.start(2, lambda: 2, ends)


def test_what_one_task_sets_in_its_context_the_next_does_not_see(runners, ends):
    for kind in ("inline", "threads", "pool"):
        runner = runners(kind, **({} if kind == "inline" else {"slots": 1}))
        before = decimal.getcontext().prec
        runner.start(1, lambda: setattr(decimal.getcontext(), "prec", 3), ends)
        ends.outcome()
        runner.start(2, lambda: decimal.getcontext().prec, ends)
        assert ends.outcome().value == before


@pytest.mark.parametrize("kind", REAL)
def test_as_many_run_at_once_as_there_are_slots_and_no_more(runners, ends, kind):
    runner = runners(kind, slots=3)
    together, go, running = threading.Barrier(4), threading.Event(), []

    def meet():
        running.append(1)
        together.wait(20)
        go.wait(20)
        running.pop()

    for key in range(3):
        runner.start(key, meet, ends)
    runner.start(3, lambda: len(running), ends)
    together.wait(20)
    assert len(running) == 3
    assert ends.queue.empty()
    go.set()
    assert ends.take(4)[3].value < 3


@pytest.mark.parametrize("kind", REAL)
def test_work_that_was_taken_back_never_runs(runners, ends, kind):
    runner = runners(kind, slots=1)
    begun, go, ran = threading.Event(), threading.Event(), []
    runner.start(1, lambda: (begun.set(), go.wait(20)), ends)
    begun.wait(20)
    for key in (2, 3):
        runner.start(key, lambda key=key: ran.append(key), ends)
    assert runner.abandon(2) is True
    assert runner.abandon(2) is False
    assert runner.abandon(1) is False
    go.set()
    assert set(ends.take(2)) == {1, 3}
    assert ran == [3]
    assert runner.abandon(3) is False
    assert runner.abandon(99) is False


@pytest.mark.parametrize("kind", REAL)
def test_a_key_may_be_taken_back_and_used_again(runners, ends, kind):
    runner = runners(kind, slots=1)
    begun, go = threading.Event(), threading.Event()
    runner.start(1, lambda: (begun.set(), go.wait(20)), ends)
    begun.wait(20)
    runner.start(2, lambda: "old", ends)
    assert runner.abandon(2)
    runner.start(2, lambda: "new", ends)
    go.set()
    assert ends.take(2)[2].value == "new"
    assert ends.queue.empty()


@pytest.mark.parametrize("kind", REAL)
def test_work_that_does_not_end_is_named_by_close_and_no_longer_reported(ends, kind):
    begun, go = threading.Event(), threading.Event()
    if kind == "threads":
        runner, name = ThreadRunner("w1", 1), "w1/0"
    else:
        from concurrent.futures import ThreadPoolExecutor

        pool = ThreadPoolExecutor(1)
        runner, name = ExecutorRunner("w1", pool, 1), "w1, call 1"
    runner.start(1, lambda: (begun.set(), go.wait(20)), ends)
    runner.start(2, lambda: begun.clear(), ends)
    begun.wait(20)
    assert runner.close(0) == [name]
    go.set()
    assert runner.close(20) == []
    if kind == "pool":
        pool.shutdown()
    assert begun.is_set()
    assert ends.queue.empty()


@pytest.mark.parametrize("kind", REAL)
def test_the_slot_of_work_that_runs_too_long_can_be_given_to_other_work(runners, ends, kind):
    if kind == "pool":
        from concurrent.futures import ThreadPoolExecutor

        pool = ThreadPoolExecutor(4)
        runner = ExecutorRunner("w1", pool, 1, owns=True)
    else:
        runner = ThreadRunner("w1", 1)
    begun, go = threading.Event(), threading.Event()
    runner.start(1, lambda: (begun.set(), go.wait(20), "late")[2], ends)
    begun.wait(20)
    assert runner.replace(1) == {"threads": "w1/0", "pool": "w1, call 1"}[kind]
    assert runner.replace(1) is None
    assert runner.replace(99) is None
    for key in (2, 3):
        runner.start(key, lambda: threading.current_thread().name, ends)
    assert set(ends.take(2)) == {2, 3}
    go.set()
    assert ends.next()[1].value == "late"
    runner.start(4, lambda: "on", ends)
    assert ends.next()[1].value == "on"
    assert runner.close(20) == []


@pytest.mark.parametrize("kind", REAL)
def test_a_report_that_raises_does_not_end_the_runner(runners, ends, kind, caplog):
    runner = runners(kind, slots=1)

    def broken(key, outcome):
        ends(key, outcome)
        raise KeyboardInterrupt

    runner.start(1, lambda: 1, broken)
    ends.next()
    runner.start(2, lambda: 2, ends)
    assert ends.outcome().value == 2
    assert "could not report the end of 1" in caplog.text


@pytest.mark.parametrize("kind", ["threads", "pool", "processes"])
@pytest.mark.parametrize("slots", [0, -1])
def test_a_runner_without_slots_is_refused(runners, kind, slots):
    with pytest.raises((InvalidConfig, ValueError)):
        runners(kind, slots=slots)


@pytest.mark.parametrize("kind", REAL)
def test_work_may_be_started_from_a_report(runners, ends, kind):
    runner = runners(kind, slots=2)
    left = iter(range(5000))

    def again(key, outcome):
        following = next(left, None)
        if following is None:
            ends(key, outcome)
        else:
            runner.start(1000 + following, os.getpid, again)

    runner.start(0, os.getpid, again)
    assert ends.outcome().value == os.getpid()
