"""What a queue counts and keeps of itself, at the cost of a comparison an operation.

Law: rates are over the last ten seconds and quantiles over the last waits, never over everything: a
queue that has run for a month shows what it does now.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Final

import msgspec

from agentflow.core.scheduling.tasks import TaskNode

WINDOW_SECS: Final = 10.0
SAMPLES: Final = 4096


class QueueStats(msgspec.Struct, frozen=True):
    """A queue in numbers.

    Attributes
    ----------
    depth : int
        Tasks that wait.
    by_priority, by_group : dict
        The same by priority name and by group; `any` are tasks without one.
    enqueued, dequeued, retried : int
        Since the queue was made; a retried task counts as enqueued again when its back-off is over.
    dead_letters : int
        Tasks that used up their retries.
    wait_mean_s : float
        Mean wait of all tasks taken out.
    wait_p50_s, wait_p99_s : float
        Quantiles of the last 4096 waits.
    oldest_s : float
        For how long the task that entered first has waited.
    rate_in, rate_out : float
        Tasks a second over the last ten seconds.
    delayed : int
        Tasks that back off.
    """

    depth: int = 0
    by_priority: dict[str, int] = {}
    by_group: dict[str, int] = {}
    enqueued: int = 0
    dequeued: int = 0
    retried: int = 0
    dead_letters: int = 0
    wait_mean_s: float = 0.0
    wait_p50_s: float = 0.0
    wait_p99_s: float = 0.0
    oldest_s: float = 0.0
    rate_in: float = 0.0
    rate_out: float = 0.0
    delayed: int = 0


class Failure(msgspec.Struct, frozen=True):
    """One attempt that failed: its number from 1, its exception or what is known of it, and when."""

    attempt: int
    error: Any
    at: float


class DeadLetter(msgspec.Struct, frozen=True):
    """A task that used up its retries, with every attempt's error."""

    task: TaskNode
    failures: tuple[Failure, ...]
    at: float

    @property
    def errors(self) -> tuple[Any, ...]:
        """What each attempt failed with."""
        return tuple(failure.error for failure in self.failures)


class Meter:
    """Counts what goes in and out.

    Attributes
    ----------
    enqueued, dequeued, retried : int
        Totals.
    next : float
        When to `mark` again.
    """

    __slots__ = ("_marks", "_wait_sum", "_waits", "dequeued", "enqueued", "next", "retried")

    def __init__(self) -> None:
        self.enqueued = self.dequeued = self.retried = 0
        self._wait_sum = 0.0
        self._waits: deque[float] = deque(maxlen=SAMPLES)
        # Totals at the beginning of each of the last seconds in which something happened.
        self._marks: deque[tuple[float, int, int]] = deque()
        self.next = float("-inf")

    def enter(self, now: float) -> None:
        """Count a task that enters."""
        if now >= self.next:
            self.mark(now)
        self.enqueued += 1

    def leave(self, waited: float) -> None:
        """Count a task that leaves, having waited so long."""
        self.dequeued += 1
        if waited < 0.0:
            waited = 0.0
        self._wait_sum += waited
        self._waits.append(waited)

    def mark(self, now: float) -> None:
        """Begin a new second; due as soon as the time is `next`."""
        self._marks.append((now, self.enqueued, self.dequeued))
        self.next = now + 1.0
        self._forget(now)

    def _forget(self, now: float) -> None:
        while len(self._marks) > 1 and self._marks[1][0] <= now - WINDOW_SECS:
            self._marks.popleft()

    def stats(
        self,
        now: float,
        *,
        depth: int,
        by_priority: dict[str, int],
        by_group: dict[str, int],
        dead_letters: int,
        delayed: int,
        oldest_s: float,
    ) -> QueueStats:
        """Put the numbers together."""
        rate_in = rate_out = 0.0
        if self._marks:
            self._forget(now)
            since, entered, left = self._marks[0]
            # Less than a second of history would make two quick tasks look like thousands a second.
            span = max(1.0, now - since)
            rate_in, rate_out = (self.enqueued - entered) / span, (self.dequeued - left) / span
        waits = sorted(self._waits)
        return QueueStats(
            depth=depth,
            by_priority=by_priority,
            by_group=by_group,
            enqueued=self.enqueued,
            dequeued=self.dequeued,
            retried=self.retried,
            dead_letters=dead_letters,
            wait_mean_s=self._wait_sum / self.dequeued if self.dequeued else 0.0,
            wait_p50_s=quantile(waits, 0.5),
            wait_p99_s=quantile(waits, 0.99),
            oldest_s=oldest_s,
            rate_in=rate_in,
            rate_out=rate_out,
            delayed=delayed,
        )


def quantile(ordered: list[float], share: float) -> float:
    """The smallest value that at least this share does not exceed.

    Examples
    --------
    >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5), quantile([], 0.5)
    (2.0, 0.0)
    """
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
