"""Tasks that run again, values that come and go, tasks that bring tasks, and runs that feed runs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.core.control.again import LINEAGE_LIMIT
from agentflow.core.control.commands import (
    CancelRun,
    Denied,
    ErrorReport,
    ForgetRun,
    Grown,
    RetryRun,
    Settlement,
    TaskOptions,
)
from agentflow.core.control.runs import State
from agentflow.core.nodes.master import order_for
from agentflow.core.nodes.messages import growth_of

BOOM = ErrorReport("ValueError", "boom")


def finish(bench, run, **sizes):
    """Let everything that is placed complete, and what that lets run; give the order."""
    done = []
    while starts := bench.take():
        for start in starts:
            name = start.run.ids[start.task]
            done.append(name)
            bench.report(start, bytes=sizes.get(name, 1))
    return done


# --- retrying -------------------------------------------------------------------------------------------------


def failed_chain(bench):
    bench.workers()
    run = bench.submit({"a": [], "b": ["a"], "c": ["b"], "x": []})
    for start in bench.take():
        if start.run.ids[start.task] == "x":
            bench.report(start)
        else:
            bench.report(start)
    (b,) = bench.take()
    bench.report(b, Settlement.FAILED, error=BOOM)
    assert bench.plane.runs[run].done
    return run


def test_a_retry_runs_again_what_failed_and_what_never_ran_and_nothing_else(bench):
    run = failed_chain(bench)
    assert bench.client(RetryRun(run))[1] == 2
    assert not bench.plane.runs[run].done
    assert finish(bench, run) == ["b", "c"]
    assert bench.plane.runs[run].done
    assert not bench.plane.runs[run].errors


def test_a_retry_of_everything_runs_everything_again(bench):
    run = failed_chain(bench)
    assert bench.client(RetryRun(run, everything=True))[1] == 4
    assert sorted(finish(bench, run)) == ["a", "b", "c", "x"]


def test_a_retry_of_named_tasks_leaves_the_others(bench):
    run = failed_chain(bench)
    assert bench.client(RetryRun(run, ("x",)))[1] == 1
    assert finish(bench, run) == ["x"]
    assert bench.state(run, "b") is State.FAILED


def test_a_cancelled_run_can_be_retried(bench):
    bench.workers(slots=1)
    run = bench.submit({"a": [], "b": [], "c": ["b"]})
    bench.take()
    bench.client(CancelRun(run))
    assert bench.client(RetryRun(run))[1] == 3
    assert sorted(finish(bench, run)) == ["a", "b", "c"]
    assert bench.plane.queue.depth == [0] * 5


def test_what_is_under_way_or_unknown_is_not_retried(bench):
    bench.workers()
    run = bench.submit({"a": []})
    assert bench.client(RetryRun(run, ("a",))).error == "Refused"
    assert bench.client(RetryRun(run, ("z",))).error == "NoSuchTask"
    assert bench.client(RetryRun("run-9")).error == "NoSuchTask"
    assert bench.client(RetryRun(run))[1] == 0


# --- values that go ---------------------------------------------------------------------------------------------


def test_without_keep_a_value_goes_when_the_last_task_that_takes_it_has_settled(bench):
    bench.workers()
    run = bench.submit({"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}, keep=(3,), budget=0)
    tables = bench.plane.runs[run]
    (a,) = bench.take()
    bench.report(a, bytes=10)
    b, c = bench.take()
    bench.report(b, bytes=10)
    assert list(tables.released) == []
    bench.report(c, bytes=10)
    assert list(tables.released) == [0]
    finish(bench, run)
    assert sorted(tables.released) == [0, 1, 2], "the end is kept"


def test_what_fits_the_budget_stays_and_the_longest_unneeded_goes_first(bench):
    bench.workers(slots=1)
    names = {f"t{i}": [] if not i else [f"t{i - 1}"] for i in range(6)}
    run = bench.submit(names, keep=(5,), budget=250)
    finish(bench, run, **dict.fromkeys(names, 100))
    assert list(bench.plane.runs[run].released) == [0, 1, 2], "two values of 100 fit 250"


def test_all_is_kept_where_all_is_to_be_kept(bench):
    bench.workers()
    run = bench.submit({"a": [], "b": ["a"]}, budget=-1)
    finish(bench, run, a=1 << 50)
    assert not bench.plane.runs[run].released


def test_a_retry_computes_again_what_was_released_and_is_needed(bench):
    bench.workers()
    run = bench.submit({"a": [], "b": ["a"], "c": ["b"]}, keep=(2,), budget=0)
    finish(bench, run)
    assert sorted(bench.plane.runs[run].released) == [0, 1]
    assert bench.client(RetryRun(run, ("c",)))[1] == 1
    assert finish(bench, run) == ["a", "b", "c"]


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_no_task_ever_starts_without_its_inputs_whatever_goes(bench_type, data):
    """Random graphs, budgets, losses and retries: each order's inputs are values that are there."""
    bench = bench_type()
    bench.workers(2, slots=2)
    size = data.draw(st.integers(1, 7))
    tasks = {
        f"t{i}": [f"t{j}" for j in data.draw(st.lists(st.integers(0, i - 1), unique=True, max_size=3))]
        if i
        else []
        for i in range(size)
    }
    run = bench.submit(tasks, keep=(size - 1,), budget=data.draw(st.sampled_from((-1, 0, 15))))
    tables, losses, under_way = bench.plane.runs[run], 0, []
    for _ in range(400):
        under_way += [(start, order_for(start)) for start in bench.take()]
        if not under_way:
            assert tables.done
            if data.draw(st.booleans()):
                break
            bench.client(RetryRun(run, everything=data.draw(st.booleans())))
            if tables.done:
                break
            continue
        start, order = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
        there = {each for each, attempt in order.inputs if attempt >= 0}
        assert there == set(tables.dependencies[start.task])
        if there and losses < LINEAGE_LIMIT and data.draw(st.booleans()):
            losses += 1
            bench.report(start, Settlement.FAILED, lost=(data.draw(st.sampled_from(sorted(there))),))
        else:
            bench.report(start, bytes=data.draw(st.integers(0, 9)))
    assert tables.done
    assert all(tables.state[task] == State.COMPLETED for task in range(size))


# --- values that were lost -----------------------------------------------------------------------------------------


def test_a_lost_input_is_computed_again_and_then_its_task(bench):
    bench.workers()
    run = bench.submit({"a": [], "b": ["a"], "c": ["b"]})
    bench.report(bench.take()[0])
    bench.report(bench.take()[0])
    (c,) = bench.take()
    bench.report(c, Settlement.FAILED, lost=(1,))
    (b,) = bench.take()
    assert b.run.ids[b.task] == "b", "a is still there"
    bench.report(b, Settlement.FAILED, lost=(0,))
    assert finish(bench, run) == ["a", "b", "c"]


def test_a_value_that_will_not_stay_is_an_error_and_no_loop(bench):
    bench.workers()
    run = bench.submit({"a": [], "b": ["a"]})
    for _ in range(LINEAGE_LIMIT + 1):
        bench.report(bench.take()[0])
        bench.report(bench.take()[0], Settlement.FAILED, lost=(0,))
    assert bench.state(run, "b") is State.FAILED
    assert bench.plane.runs[run].errors[1].type == "ObjectLost"


def test_a_task_that_waits_in_the_queue_waits_again_when_its_input_is_lost(bench):
    bench.workers(1, slots=1)
    run = bench.submit({"a": [], "b": ["a"], "c": ["a"]})
    bench.report(bench.take()[0])
    (b,) = bench.take()
    assert bench.state(run, "c") is State.READY
    bench.report(b, Settlement.FAILED, lost=(0,))
    assert bench.state(run, "c") is State.PENDING
    assert finish(bench, run)[0] == "a"
    assert bench.state(run, "c") is State.COMPLETED


# --- tasks that bring tasks ----------------------------------------------------------------------------------------


def growth(*ends):
    return Grown(("p", "q"), ((), (0,)), (TaskOptions(),), (), (), ends)


def test_a_task_that_returns_a_workflow_waits_for_it_and_joins_its_ends(bench):
    bench.workers()
    run = bench.submit({"a": [], "b": ["a"]})
    (a,) = bench.take()
    bench.report(a, grown=growth(1))
    tables = bench.plane.runs[run]
    assert tables.ids == ["a", "b", "a/p", "a/q"]
    assert bench.state(run, "a") is State.PENDING
    assert finish(bench, run) == ["a/p", "a/q", "a", "b"]


def test_the_orders_of_tasks_that_were_brought_speak_of_their_own_workflow(bench):
    bench.workers()
    bench.submit({"a": [], "b": ["a"]}, payload="flow")
    (a,) = bench.take()
    bench.report(a, grown=growth(1))
    (p,) = bench.take()
    bench.report(p)
    (q,) = bench.take()
    order = order_for(q)
    assert (order.payload, order.call, order.inputs) == (growth_of(a.attempt), 1, ((0, p.attempt),))
    bench.report(q)
    (join,) = bench.take()
    assert order_for(join).inputs == ((1, q.attempt),)


def test_a_failure_in_what_a_task_brought_is_its_failure(bench):
    bench.workers()
    run = bench.submit({"a": [], "b": ["a"]})
    bench.report(bench.take()[0], grown=growth(1))
    bench.report(bench.take()[0], Settlement.FAILED, error=BOOM)
    tables = bench.plane.runs[run]
    assert tables.done
    assert tables.ids[tables.root[1]] == "a/p"


def test_an_empty_workflow_is_no_value(bench):
    bench.workers()
    run = bench.submit({"a": [], "b": ["a"]})
    bench.report(bench.take()[0], grown=Grown((), (), (TaskOptions(),), (), (), ()))
    assert finish(bench, run) == ["a", "b"]


def test_a_name_that_is_taken_fails_the_task_that_brought_it(bench):
    bench.workers()
    run = bench.submit({"a": [], "a/p": []})
    bench.report(bench.take()[0], grown=growth(1))
    assert bench.state(run, "a") is State.FAILED


# --- runs that feed runs -----------------------------------------------------------------------------------------------


def test_a_run_takes_the_value_of_another_when_it_is_there(bench):
    bench.workers()
    first = bench.submit({"a": [], "b": ["a"]}, keep=(1,), budget=0)
    second = bench.submit({"in": [], "c": ["in"]}, sources=((0, first, "a"),))
    (a,) = bench.take()
    bench.report(a)
    assert bench.plane.runs[second].value[0] == a.attempt
    assert sorted(finish(bench, second)) == ["b", "c"]
    assert not bench.plane.runs[first].released, "a stays for the other run"
    third = bench.submit({"in": [], "c": ["in"]}, sources=((0, first, "b"),))
    assert finish(bench, third) == ["c"]


def test_a_run_that_takes_from_a_failure_says_from_which(bench):
    bench.workers()
    first = bench.submit({"a": []})
    second = bench.submit({"in": [], "c": ["in"]}, sources=((0, first, "a"),))
    bench.report(bench.take()[0], Settlement.FAILED, error=BOOM)
    tables = bench.plane.runs[second]
    assert tables.done
    assert "'a' of run-1" in tables.errors[0].message
    assert "boom" in tables.errors[0].message
    bench.client(RetryRun(first))
    bench.report(bench.take()[0])
    bench.client(RetryRun(second))
    assert finish(bench, second) == ["c"]


def test_a_run_that_others_take_from_is_not_released(bench):
    bench.workers()
    first = bench.submit({"a": []})
    second = bench.submit({"in": [], "c": ["in"]}, sources=((0, first, "a"),))
    bench.report(bench.take()[0])
    refused = bench.client(ForgetRun(first))
    assert isinstance(refused, Denied)
    assert second in refused.message
    finish(bench, second)
    assert bench.client(ForgetRun(first)) is None


def test_what_no_run_has_cannot_be_taken(bench):
    assert bench.submit({"in": []}, sources=((0, "run-7", "a"),)).error == "NoSuchTask"


def test_values_taken_over_need_no_attempt(bench):
    bench.workers()
    run = bench.submit({"a": [], "b": ["a"]}, taken=((0, 99),))
    (b,) = bench.take()
    assert order_for(b).inputs == ((0, 99),)
    bench.report(b)
    assert bench.plane.runs[run].done


# --- priorities ----------------------------------------------------------------------------------------------------


def test_an_urgent_task_lends_its_priority_to_all_it_waits_for(bench):
    bench.submit(
        {"m": [], "low": [], "mid": ["low"], "urgent": ["mid"]},
        {"low": TaskOptions(priority=1), "mid": TaskOptions(priority=1), "urgent": TaskOptions(priority=4)},
    )
    bench.workers(1, slots=1)
    done = finish(bench, "run-1")
    assert done == ["low", "mid", "urgent", "m"]


@pytest.mark.parametrize("above", [2, 3])
def test_inheriting_never_lowers(bench, above):
    run = bench.submit(
        {"a": [], "b": ["a"]}, {"a": TaskOptions(priority=above), "b": TaskOptions(priority=1)}
    )
    assert bench.plane.runs[run].priority(0) == above
