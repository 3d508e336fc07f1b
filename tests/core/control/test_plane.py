"""The control plane, driven through its one door: batches in, starts and answers out."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.core.control.commands import (
    AttemptState,
    Backoff,
    CancelRun,
    ClientOp,
    Denied,
    DrainWorker,
    ErrorReport,
    ForgetRun,
    KeyCas,
    KeyGet,
    KeySet,
    RegisterWorker,
    RemoveWorker,
    Settlement,
    SubmitRun,
    TaskOptions,
    WorkerLost,
)
from agentflow.core.control.plane import POISON_DEATHS
from agentflow.core.control.runs import State
from agentflow.core.control.triggers import RULES, Decision, decide

BOOM = ErrorReport("ValueError", "boom")


def test_a_diamond_runs_its_top_once_and_its_bottom_last(bench):
    bench.workers()
    run = bench.submit({"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]})
    (a,) = bench.take()
    bench.report(a)
    b, c = bench.take()
    bench.report(c)
    assert bench.take() == []
    bench.report(b)
    (d,) = bench.take()
    bench.report(d)
    assert bench.plane.runs[run].done
    assert [row.task for row in bench.plane.runs[run].history] == [0, 2, 1, 3]


def test_an_empty_workflow_is_done_at_once(bench):
    run = bench.submit({})
    assert bench.plane.runs[run].done


def test_a_repeated_completion_changes_nothing(bench):
    bench.workers()
    run = bench.submit({"a": [], "b": ["a"]})
    (a,) = bench.take()
    bench.report(a)
    bench.report(a)
    bench.report(a, Settlement.FAILED, error=BOOM)
    assert bench.state(run, "a") is State.COMPLETED
    assert bench.plane.refused_completions == 2
    assert len(bench.plane.runs[run].history) == 1


def test_a_lost_worker_gives_its_tasks_back_and_is_not_believed_any_more(bench):
    bench.workers(2, slots=1)
    run = bench.submit({"a": [], "b": []})
    a, b = bench.take()
    bench.apply(WorkerLost(a.worker, 1, "silent"))
    assert bench.state(run, "a") is State.READY
    bench.report(a)
    assert bench.state(run, "a") is State.READY, "a report from a worker declared dead is refused"
    bench.report(b)
    (again,) = bench.take()
    assert again.attempt > b.attempt
    assert again.worker == b.worker
    bench.report(again)
    rows = bench.plane.runs[run].history
    assert [row.state for row in rows] == [AttemptState.LOST, AttemptState.COMPLETED, AttemptState.COMPLETED]


def test_a_worker_in_a_new_life_has_lost_what_it_ran(bench):
    bench.workers(1, slots=2)
    bench.submit({"a": []})
    (first,) = bench.take()
    bench.apply(RegisterWorker("worker-1", 2, slots=2))
    (second,) = bench.take()
    assert second.task == first.task
    assert second.attempt != first.attempt


def test_an_older_life_cannot_register_over_a_newer_one(bench):
    bench.apply(RegisterWorker("worker-1", 3))
    bench.apply(RegisterWorker("worker-1", 2, slots=99))
    assert bench.plane.workers["worker-1"].epoch == 3


def test_a_task_that_kills_its_workers_is_failed_and_innocents_are_not(bench):
    bench.workers(POISON_DEATHS + 1, slots=1)
    run = bench.submit({"poison": [], "after": ["poison"]})
    for _ in range(POISON_DEATHS):
        (start,) = bench.take()
        bench.apply(WorkerLost(start.worker, 1))
    assert bench.state(run, "poison") is State.FAILED
    assert bench.state(run, "after") is State.SKIPPED
    assert "3 workers died" in bench.plane.runs[run].errors[0].message


def test_a_failed_task_is_tried_again_until_its_retries_are_used_up(bench):
    bench.workers()
    run = bench.submit({"a": []}, {"a": TaskOptions(retries=2)})
    for _ in range(3):
        (start,) = bench.take()
        bench.report(start, Settlement.FAILED, error=BOOM)
    assert bench.take() == []
    assert bench.state(run, "a") is State.FAILED
    assert [row.error.message for row in bench.plane.runs[run].history] == ["boom"] * 3


def test_an_error_not_worth_a_retry_fails_at_once(bench):
    bench.workers()
    run = bench.submit({"a": []}, {"a": TaskOptions(retries=2)})
    (start,) = bench.take()
    bench.report(start, Settlement.FAILED, error=ErrorReport("ValueError", "boom", retry=False))
    assert bench.state(run, "a") is State.FAILED


def test_back_off_doubles_and_is_kept_in_the_commands_time(bench):
    bench.workers()
    options = TaskOptions(retries=3, backoff=Backoff(base=1.0, factor=2.0, maximum=3.0))
    run = bench.submit({"a": []}, {"a": options}, at=10.0)
    at, delays = 10.0, []
    for _ in range(3):
        (start,) = bench.take()
        bench.report(start, Settlement.FAILED, error=BOOM, at=at)
        assert bench.state(run, "a") is State.RETRYING
        delays.append(bench.plane.deadline - at)
        bench.apply(at=bench.plane.deadline - 0.01)
        assert bench.take() == []
        at = bench.plane.deadline
        bench.apply(at=at)
    assert delays == [1.0, 2.0, 3.0]
    assert math.isinf(bench.plane.deadline)


def test_jitter_shortens_a_delay_by_no_more_than_its_share(bench):
    bench.workers(1, slots=50)
    options = TaskOptions(retries=1, backoff=Backoff(base=10.0, jitter=0.5))
    bench.submit({f"t{i}": [] for i in range(50)}, {f"t{i}": options for i in range(50)})
    for start in bench.take():
        bench.report(start, Settlement.FAILED, error=BOOM)
    due = sorted(entry[0] for entry in bench.plane.delayed)
    assert all(5.0 <= at <= 10.0 for at in due)
    assert len(set(due)) > 40


def test_a_timed_out_attempt_is_ended_and_its_late_result_refused(bench):
    bench.workers()
    run = bench.submit({"a": []}, {"a": TaskOptions(timeout=5.0, retries=1)}, at=1.0)
    (first,) = bench.take()
    assert bench.plane.deadline == 6.0
    bench.apply(at=6.0)
    assert [stop.attempt for stop in bench.stops] == [first.attempt]
    (second,) = bench.take()
    bench.report(first)
    assert bench.state(run, "a") is State.RUNNING
    bench.report(second)
    assert bench.state(run, "a") is State.COMPLETED
    first_row = bench.plane.runs[run].history[0]
    assert first_row.state is AttemptState.TIMED_OUT
    assert "5 s" in first_row.error.message


def test_a_finished_attempt_leaves_no_deadline_behind(bench):
    bench.workers()
    bench.submit({"a": []}, {"a": TaskOptions(timeout=5.0)})
    bench.report(bench.take()[0])
    assert math.isinf(bench.plane.deadline)


def test_cancelling_ends_every_stage_of_a_task(bench):
    bench.workers(1, slots=1)
    run = bench.submit({"running": [], "ready": [], "pending": ["ready"]})
    (start,) = bench.take()
    assert bench.client(CancelRun(run)) == 3
    assert [stop.attempt for stop in bench.stops] == [start.attempt]
    assert {bench.state(run, task) for task in ("running", "ready", "pending")} == {State.CANCELLED}
    assert bench.client(CancelRun(run)) == 0
    bench.report(start)
    assert bench.state(run, "running") is State.CANCELLED
    other = bench.submit({"x": []})
    (x,) = bench.take()
    assert (x.run.id, x.run.ids[x.task]) == (other, "x"), "a cancelled task no longer waits in the queue"


def test_the_first_failure_is_named_through_any_depth(bench):
    bench.workers()
    run = bench.submit({"a": [], "b": ["a"], "c": ["b"], "d": ["c"]})
    bench.report(bench.take()[0], Settlement.FAILED, error=BOOM)
    tables = bench.plane.runs[run]
    assert tables.root == {1: 0, 2: 0, 3: 0}
    assert tables.done


def test_a_chain_of_ten_thousand_failures_needs_no_recursion(bench):
    bench.workers()
    tasks = {"t0": []} | {f"t{i}": [f"t{i - 1}"] for i in range(1, 10_000)}
    run = bench.submit(tasks)
    bench.report(bench.take()[0], Settlement.FAILED, error=BOOM)
    assert bench.plane.runs[run].counts[State.SKIPPED] == 9_999


@pytest.mark.parametrize(
    ("rule", "after_success", "after_failure"),
    [
        ("all_success", State.RUNNING, State.SKIPPED),
        ("all_done", State.RUNNING, State.RUNNING),
        ("all_failed", State.SKIPPED, State.RUNNING),
        ("one_success", State.RUNNING, State.SKIPPED),
        ("one_failed", State.SKIPPED, State.RUNNING),
        ("none_failed", State.RUNNING, State.SKIPPED),
    ],
)
def test_each_trigger_rule_decides_by_how_its_one_dependency_ended(
    bench_type, rule, after_success, after_failure
):
    for settlement, expected in ((Settlement.COMPLETED, after_success), (Settlement.FAILED, after_failure)):
        bench = bench_type()
        bench.workers()
        run = bench.submit({"a": [], "b": ["a"]}, {"b": TaskOptions(when=rule)})
        error = BOOM if settlement is Settlement.FAILED else None
        bench.report(bench.take()[0], settlement, error=error)
        assert bench.state(run, "b") is expected


def test_always_does_not_wait(bench):
    bench.workers()
    bench.submit({"a": [], "b": ["a"]}, {"b": TaskOptions(when="always")})
    assert bench.names() == ["a", "b"]


@given(st.sampled_from(RULES), st.integers(1, 4), st.data())
def test_a_rule_never_changes_its_mind_once_it_has_decided(rule, total, data):
    ends = data.draw(st.lists(st.sampled_from("sfk"), min_size=total, max_size=total))
    decided = Decision.WAIT
    for seen in range(total + 1):
        so_far = ends[:seen]
        decision = decide(rule, total, so_far.count("s"), so_far.count("f"), so_far.count("k"))
        if decided is not Decision.WAIT and rule != "always":
            assert decision is decided
        decided = decision
    assert decided is not Decision.WAIT, "when every dependency has settled, the rule has decided"


def test_higher_priority_goes_first_and_waiting_makes_up_for_it(bench):
    low, urgent = TaskOptions(priority=1), TaskOptions(priority=4)
    bench.submit({"old-low": []}, {"old-low": low}, at=0.0)
    bench.submit({"urgent": []}, {"urgent": urgent}, at=74.0)
    bench.submit({"late-urgent": []}, {"late-urgent": urgent}, at=76.0)
    bench.workers(1, slots=1)
    order = []
    while placed := bench.take():
        order.append(placed[0].run.ids[placed[0].task])
        bench.report(placed[0])
    assert order == ["urgent", "old-low", "late-urgent"]


def test_equal_scores_are_served_in_order_of_entry(bench):
    bench.submit({f"t{i}": [] for i in range(20)})
    bench.workers(1, slots=20)
    assert bench.names() == [f"t{i}" for i in range(20)]


def test_groups_isolate_and_a_task_nobody_can_take_blocks_no_other(bench):
    run = bench.submit(
        {"gpu": [], "plain": []}, {"gpu": TaskOptions(group="gpu", priority=4), "plain": TaskOptions()}
    )
    bench.workers(1, slots=1)
    assert bench.names() == ["plain"]
    bench.apply(RegisterWorker("g", 1, group="gpu"))
    assert bench.names() == ["gpu"]
    assert bench.state(run, "gpu") is State.RUNNING


def test_resources_are_taken_and_given_back(bench):
    bench.apply(RegisterWorker("w", 1, slots=4, resources=(("gpu", 1.0),)))
    half = TaskOptions(resources=(("gpu", 0.5),))
    bench.submit({f"t{i}": [] for i in range(3)}, {f"t{i}": half for i in range(3)})
    first, _ = placed = bench.take()
    assert len(placed) == 2
    bench.report(first)
    assert len(bench.take()) == 1


def test_attributes_are_required_exactly(bench):
    bench.apply(RegisterWorker("arm", 1, attributes=(("arch", "arm64"),)))
    bench.submit({"t": []}, {"t": TaskOptions(requires=(("arch", "x86_64"),))})
    assert bench.take() == []
    bench.apply(RegisterWorker("amd", 1, attributes=(("arch", "x86_64"),)))
    assert [start.worker for start in bench.take()] == ["amd"]


def test_tasks_spread_over_the_least_loaded_workers(bench):
    bench.workers(3, slots=4)
    bench.submit({f"t{i}": [] for i in range(6)})
    assert [start.worker for start in bench.take()] == [f"worker-{i}" for i in (1, 2, 3, 1, 2, 3)]


def test_a_draining_worker_finishes_and_takes_nothing_new(bench):
    bench.workers(1, slots=2)
    bench.submit({"a": []})
    (a,) = bench.take()
    bench.client(DrainWorker("worker-1"))
    run = bench.submit({"b": []})
    assert bench.take() == []
    bench.report(a)
    assert bench.state("run-1", "a") is State.COMPLETED
    bench.workers(2)
    assert bench.state(run, "b") is State.RUNNING


def test_removing_a_worker_blames_no_task_for_it(bench):
    bench.workers(1)
    run = bench.submit({"a": []})
    for epoch in range(2, POISON_DEATHS + 3):
        bench.client(RemoveWorker("worker-1"))
        bench.apply(RegisterWorker("worker-1", epoch))
    assert bench.state(run, "a") is State.RUNNING


def test_unknown_workers_and_runs_are_refused_by_name(bench):
    assert bench.client(DrainWorker("w9")).error == "NoSuchNode"
    assert isinstance(bench.client(CancelRun("run-9")), Denied)
    assert bench.client(ForgetRun("run-9")) is None


def test_a_run_is_forgotten_only_when_it_is_done(bench):
    bench.workers()
    run = bench.submit({"a": []}, key="k")
    assert isinstance(bench.client(ForgetRun(run)), Denied)
    bench.report(bench.take()[0])
    assert bench.client(ForgetRun(run)) is None
    assert run not in bench.plane.runs


def test_a_submission_with_a_known_key_is_the_same_run(bench):
    first = bench.submit({"a": []}, key="etl")
    assert bench.submit({"a": []}, key="etl") == first
    assert bench.submit({"a": []}, key="other") != first


def test_a_numbered_command_takes_effect_once_however_often_it_is_sent(bench):
    op = ClientOp("c", 7, 7, KeyCas("n", None, 1))
    assert bench.apply(op) == [True]
    assert bench.apply(op) == [True], "the repeated command gets the first answer, not a new one"
    assert bench.apply(ClientOp("d", 7, 7, KeyCas("n", None, 1))) == [False]


def test_keys_are_set_read_and_swapped(bench):
    assert bench.client(KeyGet("x")) is None
    bench.client(KeySet("x", {"a": [1, None]}))
    assert bench.client(KeyGet("x")) == {"a": [1, None]}
    assert bench.client(KeyCas("x", 2, 3)) is False
    assert bench.client(KeyCas("x", {"a": [1, None]}, 3)) is True
    assert bench.client(KeyGet("x")) == 3


def test_time_never_goes_back(bench):
    bench.apply(at=5.0)
    bench.apply(at=3.0)
    assert bench.plane.at == 5.0


def test_an_expander_adds_a_task_for_each_item_and_the_gatherer_waits_for_all(bench):
    bench.workers()
    submit = SubmitRun(
        "", "flow", ("load", "parts/items", "parts", "sum"), ((), (0,), (1,), (2,)), (TaskOptions(),),
        expands=((1, 2),),
    )  # fmt: skip
    run = bench.client(submit)
    bench.report(bench.take()[0])
    (expand,) = bench.take()
    bench.report(expand, items=3)
    items = bench.take()
    tables = bench.plane.runs[run]
    assert [tables.ids[start.task] for start in items] == ["parts[0]", "parts[1]", "parts[2]"]
    for start in items[:2]:
        bench.report(start)
    assert bench.take() == []
    bench.report(items[2])
    assert bench.names() == ["parts"]


def test_an_empty_expansion_gathers_nothing_and_goes_on(bench):
    bench.workers()
    submit = SubmitRun("", "f", ("e", "g"), ((), (0,)), (TaskOptions(),), expands=((0, 1),))
    bench.client(submit)
    bench.report(bench.take()[0], items=0)
    assert bench.names() == ["g"]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), size=st.integers(1, 25))
def test_any_graph_with_any_failures_settles_every_task_as_its_rules_say(bench_type, seed, size):
    """Drive random graphs, retries, worker deaths and rules; compare the end with a recursive model."""
    rng = random.Random(seed)
    names = [f"t{i}" for i in range(size)]
    tasks = {n: rng.sample(names[:i], rng.randint(0, min(i, 3))) for i, n in enumerate(names)}
    rules = [r for r in RULES if r != "always"]
    options = {n: TaskOptions(retries=rng.randint(0, 1), when=rng.choice(rules)) for n in names}
    fails = {n: rng.random() < 0.3 for n in names}
    bench = bench_type()
    bench.workers(2, slots=3)
    run = bench.submit(tasks, options)
    tables = bench.plane.runs[run]
    at, epoch, completed = 0.0, 1, []
    while not tables.done:
        at += 0.1
        starts = [s for s in bench.take() if s.attempt in bench.plane.live]
        if rng.random() < 0.2 and starts:
            epoch += 1
            bench.apply(WorkerLost("worker-1", bench.plane.workers["worker-1"].epoch), at=at)
            bench.apply(RegisterWorker("worker-1", epoch, slots=3), at=at)
        rng.shuffle(starts)
        for start in starts:
            name = tables.ids[start.task]
            settlement = Settlement.FAILED if fails[name] else Settlement.COMPLETED
            if start.attempt in bench.plane.live and settlement is Settlement.COMPLETED:
                completed.append(name)
            bench.report(start, settlement, error=BOOM if fails[name] else None, at=at)
        if not starts and not bench.placed:
            bench.apply(at=max(at, min(bench.plane.deadline, at + 1)))
    assert len(completed) == len(set(completed)), "a completion counts once"

    ends: dict[str, str] = {}
    for name in names:
        kinds = [ends[d] for d in tasks[name]]
        # A poisoned task is failed too; the model takes that from the tables.
        poisoned = tables.deaths.get(names.index(name), 0) >= POISON_DEATHS
        decision = decide(
            options[name].when, len(kinds), kinds.count("ok"),
            kinds.count("failed") + kinds.count("upstream"), kinds.count("skipped"),
        )  # fmt: skip
        if decision is Decision.RUN:
            ends[name] = "failed" if fails[name] or poisoned else "ok"
        else:
            assert decision is Decision.SKIP
            ends[name] = "upstream" if names.index(name) in tables.root else "skipped"
    for i, name in enumerate(names):
        expected = {"ok": State.COMPLETED, "failed": State.FAILED}.get(ends[name], State.SKIPPED)
        assert State(tables.state[i]) is expected, name
