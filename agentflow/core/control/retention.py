"""Which values are still needed, and which may go.

Law: a value is released only when every task that takes it has settled, nobody asked to keep it, and the
run holds more bytes of values that nobody needs than its budget allows; the one longest without need first.

Counting who needs what costs something for every edge, so it begins when a run first holds more than its
budget. Most never do.
"""

from __future__ import annotations

from agentflow.core.control.runs import SETTLED, RunState, State


def note_value(run: RunState, task: int, size: int) -> None:
    """Count a value that was made, just before its task settles."""
    run.held += size
    if run.needed:
        run.sizes[task] = size
    elif run.held > run.budget >= 0:
        _begin_counting(run)
        run.sizes[task] = size


def note_end(run: RunState, task: int) -> list[int]:
    """Count a task that settled out of those that need values; give the tasks whose values are released."""
    for each in run.dependencies[task]:
        run.needed[each] -= 1
        _spare(run, each)
    _spare(run, task)
    return _release(run)


def note_need(run: RunState, task: int) -> None:
    """Count a task that is to run, or to run again, among those that need values."""
    if run.needed:
        for each in run.dependencies[task]:
            run.needed[each] += 1
            _unspare(run, each)
        _unspare(run, task)
        run.sizes.pop(task, None)


def _spare(run: RunState, task: int) -> None:
    if (
        not run.needed[task]
        and run.state[task] == State.COMPLETED
        and task in run.sizes
        and task not in run.keep
        and task not in run.idle
    ):
        run.idle[task] = None
        run.spare += run.sizes[task]


def _unspare(run: RunState, task: int) -> None:
    if task in run.idle:
        del run.idle[task]
        run.spare -= run.sizes[task]


def _release(run: RunState) -> list[int]:
    gone: list[int] = []
    for task in run.idle:
        if run.spare <= run.budget:
            break
        size = run.sizes.pop(task)
        run.spare -= size
        run.held -= size
        gone.append(task)
    for task in gone:
        del run.idle[task]
        run.released[task] = None
    return gone


def _begin_counting(run: RunState) -> None:
    run.needed = [0] * len(run.ids)
    for task, dependencies in enumerate(run.dependencies):
        if run.state[task] not in SETTLED:
            for each in dependencies:
                run.needed[each] += 1
    for row in run.history:
        if run.value[row.task] == row.attempt and run.state[row.task] == State.COMPLETED:
            run.sizes[row.task] = row.bytes
    for task in run.changes:
        _spare(run, task)
