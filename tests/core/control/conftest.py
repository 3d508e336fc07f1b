"""A plane, and hands to drive it."""

import pytest

from agentflow.core.control.commands import (
    Batch,
    ClientOp,
    Completion,
    RegisterWorker,
    Report,
    Settlement,
    SubmitRun,
    TaskOptions,
    decode,
    encode,
)
from agentflow.core.control.image import load, save
from agentflow.core.control.plane import Plane
from agentflow.core.control.runs import State


class Bench:
    """A plane, and hands to drive it: every command goes through the codec, as in the log."""

    def __init__(self):
        self.plane = Plane()
        self.number = 0
        self.placed = []

    def apply(self, *ops, at=None):
        at = self.plane.at if at is None else at
        batch = decode(encode(Batch(at, ops)))
        twin = load(save(self.plane))
        answers = self.plane.apply(batch)
        self.plane.check_invariants()
        # A plane made from an image goes on like the one it was taken of.
        twin.apply(batch)
        twin.check_invariants()
        assert save(twin) == save(self.plane)
        starts, self.stops, _ = self.plane.take_effects()
        self.placed.extend(starts)
        return [answer.result for answer in answers]

    def client(self, command, at=None):
        self.number += 1
        return self.apply(ClientOp("c", self.number, 1, command), at=at)[0]

    def workers(self, count=1, slots=4, **more):
        for i in range(count):
            self.apply(RegisterWorker(f"worker-{i + 1}", 1, slots=slots, **more))

    def submit(self, tasks, options=None, key="", at=None, **more):
        """Submit tasks given as {id: [dependency ids]}, with options by id."""
        ids = list(tasks)
        at_of = {task: i for i, task in enumerate(ids)}
        return self.client(
            SubmitRun(
                key=key,
                name="flow",
                ids=tuple(ids),
                dependencies=tuple(tuple(at_of[d] for d in deps) for deps in tasks.values()),
                options=tuple((options or {}).get(task, TaskOptions()) for task in ids),
                option_of=tuple(range(len(ids))),
                **more,
            ),
            at=at,
        )

    def take(self):
        placed, self.placed = self.placed, []
        return placed

    def names(self):
        return [start.run.ids[start.task] for start in self.take()]

    def report(self, start, settlement=Settlement.COMPLETED, at=None, **more):
        worker = self.plane.workers[start.worker]
        self.apply(
            Report(start.worker, worker.epoch, (Completion(start.attempt, settlement, 0.0, 0.0, **more),)),
            at=at,
        )

    def state(self, run, task):
        tables = self.plane.runs[run]
        return State(tables.state[tables.ids.index(task)])


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture(scope="session")
def bench_type():
    return Bench
