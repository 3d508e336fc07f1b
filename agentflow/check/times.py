"""Who can see whose write: what the clock alone rules out.

Law: a write can be seen by a later operation only if no other write must come between the two.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

from agentflow.check.history import Operation


class Times:
    """The intervals of one key's operations, arranged as `search.arrange` does.

    Parameters
    ----------
    operations : sequence of Operation
        Those without an end first, then by invocation.
    overwrites : sequence of bool
        Which of them replace the value.

    Attributes
    ----------
    ends : list of float
        When each returned.
    """

    def __init__(self, operations: Sequence[Operation], overwrites: Sequence[bool]) -> None:
        self._invoked = [each.invoked for each in operations]
        self.ends = [each.returned for each in operations]
        self._optional = sum(each.is_pending for each in operations)
        self._starts = self._invoked[self._optional :]
        sure = [op for op in range(self._optional, len(operations)) if overwrites[op]]
        self._by_end = sorted(sure, key=self.ends.__getitem__)
        self._sure_ends = [self.ends[op] for op in self._by_end]
        # The latest beginning of a sure write among those that end first, and the earliest end among those
        # that begin last: what lies wholly between two instants is found by bisection.
        self._latest_start = list(accumulate((self._invoked[op] for op in self._by_end), max))
        by_start = sorted(sure, key=self._invoked.__getitem__)
        self._begins = [self._invoked[op] for op in by_start]
        self._earliest_end = list(accumulate((self.ends[op] for op in reversed(by_start)), min))[::-1]

    def near(self, taken: int, frontier: float) -> int:
        """Return the operations that could still see the present value.

        The others began after the end of a write that is yet to take effect.
        """
        at = bisect_left(self._sure_ends, frontier)
        by_end = self._by_end
        while at < len(by_end) and taken >> by_end[at] & 1:
            at += 1
        if at == len(by_end):
            return -1
        return (1 << self._optional + bisect_right(self._starts, self._sure_ends[at])) - 1

    def within_reach(self, write: int, watchers: int) -> tuple[int, int]:
        """Return which of `watchers` could see `write`: the first bit's number, and the set from there."""
        at = bisect_right(self._begins, self.ends[write])
        horizon = self._earliest_end[at] if at < len(self._begins) else float("inf")
        start = self._invoked[write]
        chosen = [
            op
            for op in bits(watchers & self._begun_by(horizon))
            if op != write and self.ends[op] >= start and self._invoked[op] <= horizon
        ]
        return _window(chosen)

    def reaching(self, seer: int, makers: int) -> tuple[int, int]:
        """Return which of `makers` could be seen by `seer`, in the same form."""
        at = bisect_left(self._sure_ends, self._invoked[seer])
        threshold = self._latest_start[at - 1] if at else float("-inf")
        end = self.ends[seer]
        chosen = [
            op
            for op in bits(makers & self._begun_by(end))
            if op != seer and self.ends[op] >= threshold and self._invoked[op] <= end
        ]
        return _window(chosen)

    def _begun_by(self, instant: float) -> int:
        return (1 << self._optional + bisect_right(self._starts, instant)) - 1


def bits(members: int) -> list[int]:
    """List the members of a set.

    Examples
    --------
    >>> bits(0b1011)
    [0, 1, 3]
    """
    listed = []
    while members:
        low = members & -members
        listed.append(low.bit_length() - 1)
        members ^= low
    return listed


def _window(members: list[int]) -> tuple[int, int]:
    if not members:
        return 0, 0
    low = members[0]
    return low, sum(1 << op - low for op in members)
