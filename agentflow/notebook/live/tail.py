"""The trace as it grows: what a view needs of it, taken in once.

Law: a record is looked at once, however many views there are. What a view keeps of the trace is bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from agentflow.cluster.elections import candidacies
from agentflow.cluster.status import QueuePoint, Reign, queue_of, reigns_of
from agentflow.core.nodes.master import QueueSample
from agentflow.core.raft.events import RoleChanged, VoteCounted
from agentflow.core.record import Record
from agentflow.runtime.trace import Trace

KEPT: Final = 4000
"""Records of roles and votes that elections are read from."""

SAMPLES: Final = 600
RECENT: Final = 2000
"""Messages that a log of messages can show."""

LOOKED_AT: Final = 400
"""Messages of one look that may be drawn on their way; a busy cluster sends tens of thousands a second."""

A_LINK: Final = 2
"""Of one kind on one link, in one look."""

FACTS: Final = (RoleChanged, VoteCounted)
STOPS: Final = frozenset({"crash", "pause"})
CARRIED: Final = frozenset({"send", "deliver", "drop"})

BROAD: Final = {
    "MsgHeartbeat": "beat",
    "MsgHeartbeatResp": "beat",
    "MsgApp": "append",
    "MsgAppResp": "reply",
    "MsgSnap": "append",
    "MsgVote": "vote",
    "MsgPreVote": "vote",
    "MsgVoteResp": "ballot",
    "MsgPreVoteResp": "ballot",
    "MsgTimeoutNow": "vote",
    "Pulse": "beat",
}
"""What a message is to those who look: everything else is work."""


class Flight(msgspec.Struct, array_like=True, gc=False):
    """A message on its way: `ended` is None while it is, `lost` says that it never arrived."""

    number: int
    source: str
    destination: str
    kind: str
    term: int
    sent: float
    ended: float | None = None
    lost: bool = False


class Tail:
    """What the views of one cluster know of its trace."""

    def __init__(self) -> None:
        self._trace: Trace | None = None
        self._begin(None)

    def _begin(self, trace: Trace | None) -> None:
        self._trace = trace
        self._seq = 0
        self._kept: deque[Record] = deque(maxlen=KEPT)
        self._samples: deque[Record] = deque(maxlen=SAMPLES)
        self._open: dict[int, Flight] = {}
        self.messages: deque[Record] = deque(maxlen=RECENT)
        self.flights: list[Flight] = []
        self.reigns: Sequence[Reign] = ()
        self.stands: Sequence[Any] = ()
        self.queue: Sequence[QueuePoint] = ()
        self.stall: tuple[float, float] | None = None
        """When the loop last stood still, and for how many seconds."""

    def look(self, trace: Trace) -> None:
        """Take in what is new; a trace that went back is read from its beginning."""
        if trace is not self._trace or trace.next < self._seq:
            self._begin(trace)
        news = trace.since(self._seq)
        self.flights = []
        if not news:
            return
        self._seq = news[-1].seq + 1
        roles = samples = False
        carried = []
        for record in news:
            kind = record.kind
            if kind in CARRIED:
                carried.append(record)
            elif isinstance(record.payload, FACTS) or kind in STOPS:
                self._kept.append(record)
                roles = True
            elif kind == "stall":
                self.stall = (record.time, float(record.payload))
            elif isinstance(record.payload, QueueSample):
                self._samples.append(record)
                samples = True
        if roles:
            self.reigns, self.stands = reigns_of(self._kept), candidacies(self._kept)
        if samples:
            self.queue = queue_of(self._samples)
        self.messages.extend(carried[-RECENT:])
        self._fly(carried[-LOOKED_AT:])

    def _fly(self, carried: Sequence[Record]) -> None:
        crowd: dict[tuple[str, str, str], int] = {}
        for record in carried:
            number = record.message
            if record.kind == "send":
                kind = BROAD.get(record.type, "work")
                link = (record.source, record.destination, kind)
                crowd[link] = crowd.get(link, 0) + 1
                if crowd[link] <= A_LINK:
                    term = getattr(record.payload, "term", 0)
                    self._open[number] = Flight(
                        number, record.source, record.destination, kind, int(term or 0), record.time
                    )
            elif (flight := self._open.get(number)) is not None:
                flight.ended, flight.lost = record.time, record.kind == "drop"
        self.flights = list(self._open.values())
        self._open = {number: each for number, each in self._open.items() if each.ended is None}
        while len(self._open) > LOOKED_AT:
            del self._open[next(iter(self._open))]


__all__ = ["Flight", "Tail"]
