"""Whether tasks and dependencies make a graph that can be run: nothing missing, no circle.

Law: what is refused here is named: the dependency and who asked for it, or the whole circle in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from agentflow.core.scheduling.links import LARGE, Links, positions_of
from agentflow.errors import CycleInWorkflow, MissingDependency
from agentflow.ids import TaskId


def link(ids: Sequence[TaskId], dependencies: Sequence[Sequence[TaskId]]) -> Links:
    """Turn names into positions, refusing a dependency that is not there, or a circle.

    Parameters
    ----------
    ids : sequence of str
        The tasks.
    dependencies : sequence
        What each of them waits for, in the same order.

    Examples
    --------
    >>> list(link(["a", "b"], [[], ["a"]]).before(1))
    [0]
    >>> link(["a", "b"], [["b"], ["a"]])
    Traceback (most recent call last):
        ...
    agentflow.errors.CycleInWorkflow: tasks wait for one another in a circle: a -> b -> a; take one of these
    dependencies away
    """
    counts = list(map(len, dependencies))
    flat = None
    if len(ids) >= LARGE:
        flat = positions_of(ids, chain.from_iterable(dependencies), sum(counts))
    if flat is not None:
        links = Links(counts, flat)
    else:
        position = dict(zip(ids, range(len(ids)), strict=True))
        try:
            links = Links(counts, map(position.__getitem__, chain.from_iterable(dependencies)))
        except (KeyError, TypeError):
            for task, names in zip(ids, dependencies, strict=True):
                given: Sequence[object] = names
                for name in given:
                    if not isinstance(name, str) or name not in position:
                        raise missing(task, name) from None
            raise
    check_circles(links, ids)
    return links


def check_circles(links: Links, ids: Sequence[TaskId]) -> None:
    """Refuse tasks that wait for one another in a circle."""
    if not links.is_acyclic:
        cycle = find_cycle([links.before(task) for task in range(len(links))])
        raise in_a_circle([ids[task] for task in cycle])


def missing(task: TaskId, dependency: object) -> MissingDependency:
    """Say that a task waits for one that is not there."""
    return MissingDependency(
        f"{task!r} waits for {dependency!r}, and there is no such task; add it, or take it out of the "
        f"dependencies",
        task=task,
        dependency=dependency,
    )


def in_a_circle(cycle: Sequence[TaskId]) -> CycleInWorkflow:
    """Say that tasks wait for one another in a circle."""
    shown = [*cycle[:20], "..."] if len(cycle) > 20 else cycle
    if len(cycle) == 1:
        text = f"{cycle[0]!r} waits for itself; take that dependency away"
    else:
        text = (
            f"tasks wait for one another in a circle: {' -> '.join([*shown, cycle[0]])}; "
            f"take one of these dependencies away"
        )
    return CycleInWorkflow(text, cycle=tuple(cycle))


def find_cycle(before: Sequence[Sequence[int]]) -> list[int]:
    """Find a circle among tasks given by position, each before the one that waits for it.

    Returns
    -------
    list of int
        Begins with the earliest of its tasks; empty if there is no circle.

    Examples
    --------
    >>> find_cycle([[], [0, 3], [1], [2]]), find_cycle([[], [0]])
    ([1, 2, 3], [])
    """
    unseen, open_, closed = 0, 1, 2
    colour = bytearray(len(before))
    for start in range(len(before)):
        if colour[start] != unseen:
            continue
        colour[start] = open_
        path, branches = [start], [iter(before[start])]
        while path:
            for task in branches[-1]:
                if colour[task] == open_:
                    cycle = path[path.index(task) :]
                    cycle.reverse()
                    least = cycle.index(min(cycle))
                    return cycle[least:] + cycle[:least]
                if colour[task] == unseen:
                    colour[task] = open_
                    path.append(task)
                    branches.append(iter(before[task]))
                    break
            else:
                branches.pop()
                colour[path.pop()] = closed
    return []
