"""How long a graph takes: its longest chain, lower bounds, and list schedules.

Law: no schedule on so many equal slots is shorter than `max(longest chain, work / slots)`; a list schedule
takes less than twice that (Graham 1966).
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Any

import msgspec

from agentflow.core.scheduling.links import Links
from agentflow.errors import InvalidConfig
from agentflow.ids import TaskId


class CriticalPath(msgspec.Struct, frozen=True):
    """The chain of tasks that takes longest, and what follows from it.

    Attributes
    ----------
    tasks : list of str
        The chain, first task first.
    length_secs : float
        How long it takes: no schedule is shorter.
    work_secs : float
        How long all tasks take together.
    slots : int or None
        How many tasks can run at once, if that was asked.
    lower_bound_secs : float
        No schedule on these slots is shorter; without slots, `length_secs`.
    makespan_secs : float
        What a list schedule takes on these slots that prefers the longest remaining chain; without slots,
        `length_secs`.
    """

    tasks: list[TaskId]
    length_secs: float
    work_secs: float
    slots: int | None
    lower_bound_secs: float
    makespan_secs: float

    def __repr__(self) -> str:
        shown = [*self.tasks[:3], "...", self.tasks[-1]] if len(self.tasks) > 5 else self.tasks
        text = f"{self.length_secs:.6g} s: {' -> '.join(shown) or 'no tasks'}"
        if self.slots is not None:
            text += (
                f"; on {self.slots} slot{'s' if self.slots > 1 else ''} at least {self.lower_bound_secs:.6g} s, "
                f"list schedule {self.makespan_secs:.6g} s"
            )
        return f"<CriticalPath {text}>"


def critical_path(
    links: Links, ids: Sequence[TaskId], durations: Sequence[float], slots: int | None = None
) -> CriticalPath:
    """Find the longest chain; with slots, also the lower bound and a list schedule."""
    check_slots(slots)
    ends = links.finish_times(durations)
    length = max(ends, default=0.0)
    chain = _trace(links, ends, length)
    work = float(sum(durations))
    bound = makespan = length
    if slots is not None:
        bound = max(length, work / slots)
        makespan = list_schedule(links, durations, slots, "longest")[1]
    return CriticalPath([ids[task] for task in chain], length, work, slots, bound, makespan)


def _trace(links: Links, ends: Sequence[float], length: float) -> list[int]:
    """Walk back from the task that ends last; of equals the earliest submitted is taken."""
    if not ends:
        return []
    chain = [ends.index(length)]
    while before := links.before(chain[-1]):
        latest = max([ends[other] for other in before])
        chain.append(min([other for other in before if ends[other] == latest]))
    chain.reverse()
    return chain


def list_schedule(
    links: Links, durations: Sequence[float], slots: int, policy: str = "longest"
) -> tuple[list[float], float]:
    """Simulate equal slots that never stay idle while a task is ready.

    Parameters
    ----------
    policy : {"longest", "submitted"}
        Which of the ready tasks goes first: that with the longest remaining chain (Hu 1961's level, in
        seconds), or the earliest submitted. Ties go to the earliest submitted.

    Returns
    -------
    starts : list of float
        When each task begins.
    makespan : float
        When the last one ends.
    """
    check_slots(slots)
    if policy not in ("longest", "submitted"):
        raise InvalidConfig(f"policy={policy!r} is neither 'longest' nor 'submitted'", field="policy")
    size = len(links)
    tails = links.tail_times(durations) if policy == "longest" else [0.0] * size
    waiting = [links.start[task + 1] - links.start[task] for task in range(size)]
    starts = [0.0] * size
    ready = [(-tails[task], task) for task in range(size) if not waiting[task]]
    heapify(ready)
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < slots:
            task = heappop(ready)[1]
            starts[task] = now
            heappush(running, (now + durations[task], task))
        now = running[0][0]
        while running and running[0][0] == now:
            for other in links.after(heappop(running)[1]):
                waiting[other] -= 1
                if not waiting[other]:
                    heappush(ready, (-tails[other], other))
    return starts, now


def check_slots(slots: int | None) -> None:
    """Refuse a number of slots on which nothing could run."""
    given: Any = slots
    if given is not None and (isinstance(given, bool) or not isinstance(given, int) or given < 1):
        raise InvalidConfig(f"slots={slots!r}: at least one task must be able to run", field="slots")
