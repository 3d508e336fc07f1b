"""What the values of runs hold, and a task's inputs once more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agentflow.core.control.ledger import Start
from agentflow.core.control.plane import Plane
from agentflow.core.control.runs import State
from agentflow.core.nodes.master import order_for
from agentflow.core.nodes.messages import Order
from agentflow.errors import NoSuchTask, Refused
from agentflow.ids import RunId

MEMORY_COLUMNS = {"run": "str", "name": "str", "values": "int64", "bytes": "int64", "released": "int64"}
"""Columns of `cluster.memory()`, with their types."""


def memory_rows(plane: Plane) -> Iterator[tuple[Any, ...]]:
    """A row a run: its values that are kept, their bytes, and how many values were released."""
    for run in plane.runs.values():
        sizes = {row.attempt: row.bytes for row in run.history}
        kept = [
            run.value[task]
            for task, state in enumerate(run.state)
            if state == State.COMPLETED and task not in run.released
        ]
        held = sum(sizes.get(attempt, 0) for attempt in kept)
        yield (run.id, run.name, len(kept), held, len(run.released))


def order_again(plane: Plane, run_id: RunId, task: int) -> Order:
    """The order for a task whose inputs are all there, whatever became of it."""
    run = plane.runs.get(run_id)
    if run is None:
        raise NoSuchTask(f"there is no run {run_id!r} any more; it was released", task=run_id)
    name = run.ids[task]
    if task in run.borrowed:
        raise Refused(f"{name!r} stands for a task of another run; run it there")
    waits = [run.ids[each] for each in run.dependencies[task] if run.value[each] < 0]
    if waits and run.option(task).when == "all_success":
        raise Refused(f"{name!r} cannot be called: {waits[0]!r} before it has no value")
    return order_for(Start("here", -1, run, task))
