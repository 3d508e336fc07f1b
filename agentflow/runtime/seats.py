"""What the host keeps for each node: its machine of the moment, its clock, and when it wants to be woken.

Law: what belongs to an incarnation is thrown away with it; the clock and the disk are the node's own.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from agentflow.core.machine import Machine, Send
from agentflow.errors import Closed, NoSuchNode, PeerDown
from agentflow.ids import AttemptId, NodeId
from agentflow.runtime.ports import Disk, Factory

__all__ = ["Alarms", "Questions", "Seat", "down", "no_such_node"]


class Seat:
    """A node's place in the host, taken by one machine after another."""

    __slots__ = (
        "alarm",
        "broken",
        "deadline",
        "disk",
        "durable",
        "factory",
        "held",
        "id",
        "inbox",
        "incarnation",
        "latest",
        "machine",
        "offset",
        "order",
        "paused",
        "rate",
        "running",
        "skewed",
        "starting",
        "wakes",
        "woken_at",
    )

    def __init__(self, node_id: NodeId, factory: Factory, disk: Disk | None, order: int) -> None:
        self.id = node_id
        self.factory = factory
        self.disk = disk
        self.order = order
        self.incarnation = 0
        self.broken = 0
        """The incarnation that a write of its has failed for; the disk takes no more from it."""
        self.machine: Machine | None = None
        self.starting = ""  # the kind of start, while its disk is being read
        self.paused = False
        self.skewed, self.offset, self.rate, self.latest = False, 0.0, 1.0, -math.inf
        self.alarm = math.inf
        self.clear()

    def clear(self) -> None:
        """Forget what died with an incarnation."""
        self.deadline = math.inf
        self.woken_at, self.wakes = -math.inf, 0
        self.inbox: list[Any] = []
        self.held: deque[tuple[Send, int]] = deque()
        self.durable = -1
        self.running: dict[AttemptId, None] = {}

    @property
    def state(self) -> str:
        """`up`, `paused`, `starting` or `down`."""
        if self.machine is None:
            return "starting" if self.starting else "down"
        return "paused" if self.paused else "up"

    # --- its clock ------------------------------------------------------------------------------------

    def local(self, now: float) -> float:
        """Return the node's own time, which may be wrong but never goes back."""
        if not self.skewed:
            return now
        self.latest = max(self.latest, now * self.rate + self.offset)
        return self.latest

    def when(self, deadline: float) -> float:
        """Return the host's time at which the node's own clock reaches `deadline`."""
        if not self.skewed or deadline == math.inf:
            return deadline
        return -math.inf if deadline <= self.latest else (deadline - self.offset) / self.rate

    def skew(self, now: float, offset: float | None, rate: float | None) -> float:
        """Make the clock wrong from now on and return how far it is ahead; see `Host.skew`."""
        self.latest = self.local(now)
        shown = self.latest if offset is None else now + offset
        self.rate = self.rate if rate is None else float(rate)
        self.offset = shown - now * self.rate
        self.skewed = True
        return shown - now

    def woken(self, now: float) -> None:
        """Take note of a wake-up and of the instant."""
        if now > self.woken_at:
            self.woken_at, self.wakes = now, 0
        self.wakes += 1
        if self.skewed and self.machine is not None:
            # Back and forth through the skew, rounding may land just short of the deadline.
            self.latest = max(self.local(now), self.machine.deadline)


class Alarms:
    """The deadlines of all nodes, the earliest first.

    A deadline that moves away, as an election's does with every heartbeat, costs nothing until the old
    one has come: only then is the entry moved.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Seat]] = []

    def set(self, seat: Seat) -> None:
        """Take over the seat's deadline if it is earlier than what is set."""
        if seat.deadline < seat.alarm and not seat.paused:
            seat.alarm = seat.deadline
            heappush(self._heap, (seat.deadline, seat.order, seat))

    @property
    def next(self) -> float:
        """The earliest deadline; `inf` if there is none."""
        heap = self._heap
        while heap:
            at, _, seat = heap[0]
            if seat.alarm == at:
                if seat.deadline == at and not seat.paused:
                    return at
                heappop(heap)
                seat.alarm = math.inf
                self.set(seat)
            else:
                heappop(heap)  # an earlier one took its place
        return math.inf

    def take(self, now: float) -> Seat | None:
        """Remove the earliest deadline that has come and return whose it was."""
        if self.next > now:
            return None
        _, _, seat = heappop(self._heap)
        seat.alarm = seat.deadline = math.inf
        return seat


class Questions:
    """The requests that still wait for an answer."""

    def __init__(self) -> None:
        self._last = 0
        self._open: dict[int, tuple[NodeId, Callable[[Any, bool], None]]] = {}

    def token(self) -> int:
        """Return a token for a new request."""
        self._last += 1
        return self._last

    def add(self, token: int, node_id: NodeId, callback: Callable[[Any, bool], None]) -> None:
        """Wait for the answer to a request."""
        self._open[token] = (node_id, callback)

    def forget(self, token: int) -> None:
        """Want no more answers."""
        self._open.pop(token, None)

    def answer(self, token: int, result: Any, final: bool = True) -> None:
        """Hand an answer to whoever asked, unless it wants none any more."""
        question = self._open.pop(token, None) if final else self._open.get(token)
        if question is not None:
            question[1](result, final)

    def end(self, node_id: NodeId | None = None) -> list[tuple[int, Exception]]:
        """Return what to answer to all that wait for one node, or for any because all is closed."""
        questions = list(self._open.items())  # at one stroke: other threads may be asking
        if node_id is None:
            return [(token, Closed("the cluster was closed before it answered")) for token, _ in questions]
        return [(token, down(node_id)) for token, (asked, _) in questions if asked == node_id]


def down(node_id: NodeId) -> PeerDown:
    """Say that a node is down."""
    return PeerDown(f"{node_id} is down; restart it or ask another", node=node_id)


def no_such_node(node_id: NodeId, seats: dict[NodeId, Seat]) -> NoSuchNode:
    """Say that there is no such node, and which there are."""
    return NoSuchNode(f"there is no node {node_id!r}; there are: {', '.join(seats) or 'none'}", node=node_id)
