"""The replicated queue in numbers, read from the plane: what waits, what has waited, and how fast it moves."""

from __future__ import annotations

import math
from collections import Counter

from agentflow.core.control.plane import Plane
from agentflow.core.control.runs import State
from agentflow.core.scheduling import QueueStats, TaskPriority
from agentflow.core.scheduling.queue_stats import SAMPLES, WINDOW_SECS, quantile

__all__ = ["queue_stats"]


def queue_stats(plane: Plane, now: float) -> QueueStats:
    """Count what the plane's queue holds, and what went through it.

    A wait is that of a task's latest entry into the queue, until a worker was given the task.
    """
    waiting = [
        (each.run.option(each.task).group or "any", priority) for each, priority, _ in plane.queue.waiting()
    ]
    given = [(live.run.ready_at[live.task], live.assigned) for live in plane.live.values()]
    retried, entries = sum(live.number > 1 for live in plane.live.values()), []
    for run in plane.runs.values():
        retried += sum(row.number > 1 for row in run.history)
        entries += [at for at in run.ready_at if at >= 0]
        latest = {row.task: row.assigned for row in run.history}
        given += [(run.ready_at[task], at) for task, at in latest.items() if 0 <= run.ready_at[task] <= at]
    given.sort(key=lambda each: each[1])
    waits = [max(0.0, at - ready) for ready, at in given]
    recent = sorted(waits[-SAMPLES:])
    counts = [sum(run.counts[state] for run in plane.runs.values()) for state in State]
    oldest = plane.queue.oldest()
    return QueueStats(
        depth=len(waiting),
        by_priority={each.name: sum(priority == each for _, priority in waiting) for each in TaskPriority},
        by_group=dict(Counter(group for group, _ in waiting)),
        enqueued=plane.queue.entered,
        dequeued=plane.queue.entered - len(waiting),
        retried=retried,
        dead_letters=counts[State.FAILED],
        wait_mean_s=sum(waits) / len(waits) if waits else 0.0,
        wait_p50_s=quantile(recent, 0.5),
        wait_p99_s=quantile(recent, 0.99),
        oldest_s=0.0 if math.isinf(oldest) else max(0.0, now - oldest),
        rate_in=sum(at > now - WINDOW_SECS for at in entries) / WINDOW_SECS,
        rate_out=sum(at > now - WINDOW_SECS for _, at in given) / WINDOW_SECS,
        delayed=counts[State.RETRYING],
    )
