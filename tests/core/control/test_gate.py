"""Tasks that want locks, as the plane sees them: who waits, who is asked to try, and that nobody else waits for them."""

import random

import pytest

from agentflow.core.control.commands import (
    Batch,
    CancelRun,
    ClientOp,
    Completion,
    ErrorReport,
    RegisterWorker,
    Report,
    Settlement,
    SubmitRun,
    TaskKind,
    TaskOptions,
    WorkerLost,
)
from agentflow.core.control.gate import ASK_AGAIN_SECS, FORGET_SECS
from agentflow.core.control.image import load, save
from agentflow.core.control.plane import Plane
from agentflow.core.control.runs import State

HELD = ErrorReport("LockHeld", "lock held by notebook (token 7)")
DONE, FAILED, DECLINED = Settlement.COMPLETED, Settlement.FAILED, Settlement.DECLINED


class Bench:
    """A plane with one worker or more; each command is given to a plane made from its image, too."""

    def __init__(self):
        self.plane = Plane()
        self.number = 0
        self.under_way = {}

    def apply(self, *ops, at=None):
        batch = Batch(self.plane.at if at is None else at, ops)
        twin = load(save(self.plane))
        (*_, answer) = (None, *self.plane.apply(batch))
        self.plane.check_invariants()
        twin.apply(batch)
        assert save(twin) == save(self.plane)
        placed = []
        for start in self.plane.take_effects()[0]:
            self.under_way[start.run.ids[start.task]] = start
            placed.append(start.run.ids[start.task])
        self.placed = placed
        return None if answer is None else answer.result

    def client(self, command, **when):
        self.number += 1
        return self.apply(ClientOp("c", self.number, 1, command), **when)

    def submit(self, tasks, priority=(), **more):
        """Tasks by id with the locks that they want; none waits for another."""
        options = tuple(
            TaskOptions(locks=tuple(sorted(locks)), priority=dict(priority).get(task, 2))
            for task, locks in tasks.items()
        )
        command = SubmitRun(
            key=f"k{self.number}",
            name="flow",
            ids=tuple(tasks),
            dependencies=((),) * len(tasks),
            options=options,
            option_of=tuple(range(len(tasks))),
        )
        return self.client(command, **more)

    def report(self, task, how, at=None, **more):
        start = self.under_way.pop(task)
        error = HELD if how is DECLINED else ErrorReport("ValueError", "x") if how is FAILED else None
        completion = Completion(start.attempt, how, 0.0, 0.0, error=error, **more)
        self.apply(Report(start.worker, 1, (completion,)), at=at)


@pytest.fixture
def bench():
    bench = Bench()
    bench.apply(RegisterWorker("worker-1", 1, slots=3))
    return bench


def test_of_tasks_that_want_one_lock_one_is_placed_and_the_others_take_no_slot(bench):
    bench.submit({"a": ["etl"], "b": ["etl"], "c": ["etl"], "free": [], "other": ["x"]})
    assert bench.placed == ["a", "free", "other"]
    bench.report("a", DONE)
    assert bench.placed == ["b"]
    bench.report("b", FAILED)
    assert bench.placed == ["c"]
    bench.apply(WorkerLost("worker-1", 1))
    bench.apply(RegisterWorker("worker-1", 2, slots=3))
    assert set(bench.placed) == {"c", "free", "other"}


def test_tasks_that_share_one_of_several_locks_follow_one_another(bench):
    bench.submit({"ab": ["a", "b"], "bc": ["b", "c"], "cd": ["c", "d"], "d": ["d"]})
    assert bench.placed == ["ab", "cd"]
    bench.report("ab", DONE)
    assert bench.placed == [], "c is still wanted"
    bench.report("cd", DONE)
    assert bench.placed == ["bc", "d"]


def test_a_declined_attempt_gives_its_slot_back_and_is_no_try(bench):
    run = bench.submit({"a": ["etl"], "b": ["etl"]})
    assert bench.placed == ["a"]
    bench.report("a", DECLINED)
    tables = bench.plane.runs[run]
    assert bench.placed == []
    assert State(tables.state[0]) is State.READY
    assert (tables.tries, tables.history, tables.failures) == ([0, 0], [], {})
    assert bench.plane.workers["worker-1"].open_slots == 3
    assert bench.plane.gate.held_up[("etl",)].reason == HELD.message


def test_the_lock_is_asked_for_again_after_a_while_by_the_same_task(bench):
    bench.submit({"a": ["etl"], "b": ["etl"]}, at=1.0)
    for asked in range(3):
        at = 1.0 + asked * ASK_AGAIN_SECS
        bench.report("a", DECLINED, at=at)
        assert bench.plane.deadline == at + ASK_AGAIN_SECS
        bench.apply(at=at + ASK_AGAIN_SECS - 0.01)
        assert bench.placed == []
        bench.apply(at=at + ASK_AGAIN_SECS)
        assert bench.placed == ["a"], "it keeps its place before b"
        assert bench.plane.gate.held_up[("etl",)].since == 1.0
    bench.report("a", DONE)
    assert bench.placed == ["b"]
    assert bench.plane.gate.held_up == {}
    assert bench.plane.deadline == float("inf")


def test_other_tasks_do_not_wait_for_those_that_wait_for_a_lock(bench):
    bench.submit({"a": ["etl"]}, priority={"a": 4})
    bench.report("a", DECLINED)
    bench.submit({"low": [], "lower": []}, priority={"low": 1, "lower": 1})
    assert bench.placed == ["low", "lower"]


def test_a_new_task_for_the_same_lock_waits_behind_the_older_one(bench):
    bench.submit({"a": ["etl"]}, at=1.0)
    bench.report("a", DECLINED, at=1.0)
    bench.submit({"b": ["etl"]}, at=1.2)
    bench.apply(at=1.0 + ASK_AGAIN_SECS)
    assert bench.placed == ["a"]


def test_what_was_asked_for_by_a_cancelled_task_is_forgotten(bench):
    run = bench.submit({"a": ["etl"]}, at=1.0)
    bench.report("a", DECLINED, at=1.0)
    bench.client(CancelRun(run))
    assert bench.plane.gate.held_up
    bench.apply(at=1.0 + ASK_AGAIN_SECS + FORGET_SECS)
    assert bench.plane.gate.held_up == {}


def test_the_locks_of_a_map_are_its_items(bench):
    command = SubmitRun(
        key="map",
        name="flow",
        ids=("m/items", "m"),
        dependencies=((), (0,)),
        options=(TaskOptions(locks=("etl",)),),
        expands=((0, 1),),
    )
    run = bench.plane.runs[bench.client(command)]
    assert bench.plane.gate.wanted == {}
    bench.report("m/items", DONE, items=2)
    assert bench.placed == ["m[0]"]
    assert run.kind(2) is TaskKind.ITEM
    bench.report("m[0]", DONE)
    bench.report("m[1]", DONE)
    assert bench.placed == ["m"]
    assert bench.plane.gate.wanted == {}


def test_many_locks_leave_no_lanes_behind(bench):
    bench.submit({f"t{i}": [f"user-{i}"] for i in range(60)})
    while bench.under_way:
        bench.report(next(iter(bench.under_way)), DONE)
    bench.apply()
    assert not bench.plane.queue.demands()
    assert not bench.plane.queue._lanes


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_declined_failed_or_lost_every_task_ends(seed):
    rng, bench, epochs = random.Random(seed), Bench(), [0, 0]
    locks = {f"t{i}": rng.sample("abc", rng.randint(0, 2)) for i in range(12)}
    run = bench.plane.runs[bench.submit(locks)]
    for turn in range(2000):
        if run.done:
            break
        now = turn * 0.2
        for worker in (1, 2):
            if epochs[worker - 1] == 0 or rng.random() < 0.03:
                if epochs[worker - 1]:
                    bench.apply(WorkerLost(f"worker-{worker}", epochs[worker - 1]), at=now)
                epochs[worker - 1] += 1
                bench.apply(RegisterWorker(f"worker-{worker}", epochs[worker - 1], slots=2), at=now)
        for attempt, live in list(bench.plane.live.items()):
            task, worker = run.ids[live.task], live.worker
            how = rng.choice([DONE, DONE, FAILED, DECLINED] if locks[task] else [DONE, FAILED])
            error = HELD if how is DECLINED else ErrorReport("ValueError", "x") if how is FAILED else None
            report = Report(worker.id, worker.epoch, (Completion(attempt, how, now, now, error=error),))
            bench.apply(report, at=now)
        bench.apply(at=now)
    assert run.done, "nothing waits for ever"
    assert not bench.plane.gate.wanted
