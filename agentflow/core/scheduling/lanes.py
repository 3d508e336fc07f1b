"""The score of a waiting task, and lanes of tasks whose scores grow side by side.

Law: all tasks age at one rate, so within a lane (one priority, one number of retries) the first to enter
has the highest score for ever.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Final, TypeAlias

import msgspec

from agentflow.core.scheduling.tasks import BASE_SCORE, TaskNode, TaskPriority

AGEING_PER_SECOND: Final = 10
RETRY_PENALTY: Final = 50


def priority_score(priority: TaskPriority, waited_secs: float, retry_count: int) -> int:
    """The score people see.

    Examples
    --------
    >>> priority_score(TaskPriority.LOW, 75.9, 0), priority_score(TaskPriority.URGENT, 0.0, 1)
    (1000, 950)
    """
    return BASE_SCORE[priority] + AGEING_PER_SECOND * math.floor(waited_secs) - RETRY_PENALTY * retry_count


class Waiting(msgspec.Struct, gc=False):
    """A task in the queue; without a task it has left, and only its place is still there.

    `place` numbers the places ever taken, so that no two entries compare as equal.
    """

    at: float
    order: int
    place: int
    task: TaskNode | None
    priority: TaskPriority
    retries: int
    group: str


Moved: TypeAlias = tuple[float, int, int, Waiting]


class Lane:
    """Tasks of one priority and number of retries, by when they entered.

    Those that entered in order stand in a deque; those that came from another lane, or with a clock that
    went back, in a heap beside it.

    Attributes
    ----------
    first : Waiting or None
        The one that is served next.
    """

    __slots__ = ("_empty", "_moved", "_row", "first", "handicap")

    def __init__(self, priority: TaskPriority, retries: int) -> None:
        self.handicap = float(BASE_SCORE[priority] - RETRY_PENALTY * retries)
        self.first: Waiting | None = None
        self._row: deque[Waiting] = deque()
        self._moved: list[Moved] = []
        self._empty = 0

    def put(self, entry: Waiting) -> bool:
        """Add an entry at its place; give whether it is the first now."""
        row, first = self._row, self.first
        if not row or (entry.at >= row[-1].at and entry.order > row[-1].order):
            row.append(entry)
        else:
            heappush(self._moved, (entry.at, entry.order, entry.place, entry))
        if first is None or (entry.at, entry.order) < (first.at, first.order):
            self.first = entry
            return True
        return False

    def take(self) -> Waiting | None:
        """Take the first entry out; give the one that is first then."""
        row = self._row
        if row and row[0] is self.first:
            row.popleft()
        else:
            heappop(self._moved)
        if row and not self._moved and row[0].task is not None:
            self.first = row[0]
        else:
            self.first = self._find()
        return self.first

    def vacate(self, entry: Waiting) -> None:
        """Empty a place whose task has left; the places go once they are most of the lane."""
        entry.task = None
        self._empty += 1
        if self._empty > 64 and 2 * self._empty > len(self._row) + len(self._moved):
            self._row = deque(each for each in self._row if each.task is not None)
            self._moved = sorted(item for item in self._moved if item[3].task is not None)
            self._empty = 0
        if self.first is entry:
            self.first = self._find()

    def _find(self) -> Waiting | None:
        """The first entry that still waits; empty places are dropped on the way."""
        row, moved = self._row, self._moved
        while row and row[0].task is None:
            row.popleft()
            self._empty -= 1
        while moved and moved[0][3].task is None:
            heappop(moved)
            self._empty -= 1
        if not moved:
            return row[0] if row else None
        early = moved[0][3]
        return early if not row or (early.at, early.order) < (row[0].at, row[0].order) else row[0]

    def __iter__(self) -> Iterator[Waiting]:
        for entry in self._row:
            if entry.task is not None:
                yield entry
        for item in self._moved:
            if item[3].task is not None:
                yield item[3]

    def __len__(self) -> int:
        return len(self._row) + len(self._moved)
