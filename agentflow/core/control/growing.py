"""Tasks that are added to a run while it goes on: one an item of a late map, or a workflow that a task returned.

Law: what is added is added before the task that found it settles, so nothing that waits for it has run.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentflow.core.control.commands import Grown, TaskKind
from agentflow.core.control.retention import note_need
from agentflow.core.control.runs import Graft, RunState, State, Tally, drop_locks, expand
from agentflow.ids import AttemptId, TaskId


def _extend(run: RunState, ids: Sequence[TaskId], dependencies: Sequence[tuple[int, ...]]) -> list[int]:
    """Append cells for tasks whose options are known already; give their positions."""
    count = len(ids)
    first = len(run.ids)
    run.ids.extend(ids)
    run.dependencies.extend(dependencies)
    run.state.extend(bytes(count))
    run.counts[State.PENDING] += count
    run.left += count
    run.tries.extend([0] * count)
    run.value.extend([-1] * count)
    run.ready_at.extend([-1.0] * count)
    run.settled_at.extend([-1.0] * count)
    if run.needed:
        run.needed.extend([0] * count)
    return list(range(first, first + count))


def add_items(run: RunState, expander: int, items: int) -> str:
    """Add one task for each item that an expander found; say what is wrong if that cannot be.

    The gatherer waits for them too. An expander that is run again finds its tasks there already.
    """
    gather = run.gather_of[expander]
    there = [task for task in run.later.get(expander, ()) if task in run.item_of]
    if there:
        if len(there) == items:
            return ""
        return f"{run.ids[gather]!r} has {len(there)} tasks from before, and there are {items} items now"
    stem = run.ids[gather]
    # The values that the expander itself was given are there for its items too.
    needs = [(expander, *run.dependencies[expander])] * items
    added = _extend(run, [f"{stem}[{i}]" for i in range(items)], needs)
    run.later.setdefault(expander, []).extend(added)
    run.later.update((task, [gather]) for task in added)
    run.option_of.extend([run.item_options[expander]] * items)
    run.waiting.extend([1] * items)
    run.dependencies[gather] = (*run.dependencies[gather], *added)
    run.waiting[gather] += items
    priority = run.priority(expander)
    for i, task in enumerate(added):
        run.kinds[task] = TaskKind.ITEM
        run.item_of[task] = (expander, i)
        if priority != run.option(task).priority:
            run.lifted[task] = priority
        note_need(run, task)
    if run.needed:
        for task in added:
            run.needed[task] += 1
    return ""


def graft(run: RunState, task: int, attempt: AttemptId, grown: Grown) -> tuple[list[int], str]:
    """Put a workflow in a task's place: the task now waits for its ends and takes over their value.

    Returns
    -------
    tuple
        The added tasks that wait for nothing, and what is wrong if it cannot be done.
    """
    stem, base = run.ids[task], len(run.ids)
    ids = [f"{stem}/{each}" for each in grown.ids]
    clash = set(ids).intersection(run.ids)
    if clash:
        return [], f"{stem!r} returned a workflow, and there is a task {min(clash)!r} already"
    needs = [tuple(base + each for each in dependencies) for dependencies in grown.dependencies]
    offset = len(run.options)
    run.options.extend(grown.options)
    added = _extend(run, ids, needs)
    run.option_of.extend(offset + each for each in grown.option_of or [0] * len(ids))
    run.waiting.extend(map(len, needs))
    for expander, gather in grown.expands:
        expand(run, base + expander, base + gather)
    for each in added:
        for before in run.dependencies[each]:
            run.later.setdefault(before, []).append(each)
        if run.option(each).when != "all_success":
            run.tallies[each] = Tally()
        if run.priority(task) > run.option(each).priority:
            run.lifted[each] = run.priority(task)
        note_need(run, each)
    ends = tuple(base + each for each in grown.ends)
    for end in ends:
        run.later.setdefault(end, []).append(task)
    run.grafts[task] = Graft(base, attempt, ends)
    run.within.append((base, base + len(ids), attempt))
    run.kinds[task] = TaskKind.JOIN
    drop_locks(run, task)
    run.dependencies[task] = (*run.dependencies[task], *ends)
    run.tallies.pop(task, None)
    run.waiting[task] = len(ends)
    if run.needed:
        for end in ends:
            run.needed[end] += 1
    return [each for each in added if not run.waiting[each] or run.option(each).when == "always"], ""


def origin_of(run: RunState, task: int) -> tuple[int, AttemptId]:
    """Where the workflow that a task came with begins, and which attempt returned it (-1: the run's own)."""
    if task in run.item_of:
        task = run.item_of[task][0]
    for first, end, attempt in run.within:
        if first <= task < end:
            return first, attempt
    return 0, -1
