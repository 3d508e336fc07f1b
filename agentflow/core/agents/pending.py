"""Requests that wait for their replies.

Law: a request is settled once: by the reply of the one it was put to, by what the transport says of that
one, or by its time. A reply that finds no request waiting is nobody's.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush

import msgspec

from agentflow.ids import NodeId

__all__ = ["Pending", "Requests"]


class Pending(msgspec.Struct, gc=False):
    """A request under way."""

    id: str
    token: int
    target: NodeId
    deadline: float
    timeout: float


class Requests:
    """The requests under way, by id and by deadline.

    Examples
    --------
    >>> requests = Requests()
    >>> requests.add(Pending("a/1", 7, "b", 5.0, 5.0))
    >>> requests.deadline, requests.due(5.0)[0].token, len(requests)
    (5.0, 7, 0)
    """

    def __init__(self) -> None:
        self._open: dict[str, Pending] = {}
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._open)

    def get(self, request: str) -> Pending | None:
        """Return a request that waits."""
        return self._open.get(request)

    def add(self, pending: Pending) -> None:
        """Wait for one more."""
        self._open[pending.id] = pending
        heappush(self._heap, (pending.deadline, pending.id))

    def pop(self, request: str) -> Pending | None:
        """Wait for it no more."""
        pending = self._open.pop(request, None)
        if pending is not None and len(self._heap) > 2 * len(self._open) + 64:
            # Answered long before their time: else a busy caller's heap would hold seconds of them.
            self._rebuild()
        return pending

    def awaits(self, target: NodeId) -> bool:
        """Whether any was put to that agent."""
        return any(pending.target == target for pending in self._open.values())

    def to(self, target: NodeId) -> list[Pending]:
        """Remove and return all that were put to one agent."""
        found = [pending for pending in self._open.values() if pending.target == target]
        for pending in found:
            del self._open[pending.id]
        return found

    def due(self, now: float) -> list[Pending]:
        """Remove and return all whose time is over, in the order of their deadlines."""
        found = []
        while self.deadline <= now:
            _, request = heappop(self._heap)
            found.append(self._open.pop(request))
        return found

    @property
    def deadline(self) -> float:
        """When the next one's time is over."""
        heap = self._heap
        while heap:
            at, request = heap[0]
            pending = self._open.get(request)
            if pending is not None and pending.deadline == at:
                return at
            heappop(heap)
        return math.inf

    def postpone(self, seconds: float) -> None:
        """Give all of them more time."""
        for pending in self._open.values():
            pending.deadline += seconds
        self._rebuild()

    def hurry(self, now: float) -> bool:
        """Let the one that is due next be due now; return whether there is one."""
        if self.deadline == math.inf:
            return False
        self._open[self._heap[0][1]].deadline = now
        self._rebuild()
        return True

    def _rebuild(self) -> None:
        self._heap = [(pending.deadline, pending.id) for pending in self._open.values()]
        heapify(self._heap)
