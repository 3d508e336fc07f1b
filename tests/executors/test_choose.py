from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from agentflow.errors import InvalidConfig
from agentflow.executors import ExecutorRunner, InlineRunner, ThreadRunner, runner_for


def make(spec, **keywords):
    return runner_for(spec, **{"name": "w1", "slots": 2} | keywords)


def test_words_name_our_own_runners():
    assert isinstance(make("threads"), ThreadRunner)
    assert isinstance(make("inline"), InlineRunner)


def test_processes_are_found_when_asked_for():
    pytest.importorskip("loky")
    runner = make("processes")
    assert type(runner).__name__ == "ProcessRunner"
    assert runner.close(1) == []


def test_an_executor_that_is_passed_stays_its_owners():
    with ThreadPoolExecutor(1) as pool:
        runner = make(pool)
        assert isinstance(runner, ExecutorRunner)
        assert runner.close(1) == []
        assert pool.submit(int).result() == 0


def test_a_callable_makes_one_for_each_worker_which_is_shut_down_with_it():
    made = {}

    def executor_for(name):
        made[name] = ThreadPoolExecutor(1)
        return made[name]

    runners = [make(executor_for, name=name) for name in ("w1", "w2")]
    assert list(made) == ["w1", "w2"]
    for runner in runners:
        assert runner.close(1) == []
    with pytest.raises(RuntimeError, match="after shutdown"):
        made["w1"].submit(int)


def test_a_callable_may_answer_with_a_word_or_a_runner():
    assert isinstance(make(lambda name: "threads"), ThreadRunner)
    inline = InlineRunner()
    assert make(lambda name: inline) is inline
    assert make(inline) is inline


def test_a_client_that_offers_an_executor_is_asked_for_it():
    class Client:
        def get_executor(self):
            return ThreadPoolExecutor(1)

    assert isinstance(make(Client()), ExecutorRunner)


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("thread", "'threads', 'processes'"),
        (3, "'threads', 'processes'"),
        (None, "'threads', 'processes'"),
        (ThreadPoolExecutor, r"did you mean ThreadPoolExecutor\(\)"),
        (lambda name: None, "for w1: None"),
        (lambda name: lambda name: "threads", "for w1"),
    ],
)
def test_what_cannot_run_anything_is_refused_with_what_can(spec, hint):
    with pytest.raises(InvalidConfig, match=hint) as refused:
        make(spec)
    assert refused.value.field == "executor"


def test_a_worker_without_slots_is_refused():
    with pytest.raises(InvalidConfig, match="slot"):
        make("threads", slots=0)
