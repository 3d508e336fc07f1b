"""What happened to every message, stage by stage, told from the trace.

Law: the audit is a reading of the one trace and no account beside it. Its rows are numbered without gaps
in the order of the trace.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from agentflow.core.agents.messages import AgentMessage
from agentflow.core.agents.requests import Done, Outbox
from agentflow.core.record import Record
from agentflow.ids import NodeId

__all__ = ["STAGES", "AuditRow", "AuditTrail"]

STAGES = ("sent", "delivered", "lost", "handled", "failed", "dead")
"""What may happen to a message; `lost` is on the wire or with an agent that fell, `dead` a dead letter."""

_ENDS = ("crash", "remove", "stop")


class AuditRow(msgspec.Struct, frozen=True):
    """One stage of one message.

    Parameters
    ----------
    seq : int
        Number of the row, from 1.
    record : int
        Number of the event in the trace.
    time : float
        Seconds since the run began.
    agent : str
        Where it happened; empty for the wire.
    event : str
        One of `STAGES`.
    message : AgentMessage or None
        The message; None for a forged one that was refused before it was sent.
    id, reason : str
        The message's id, and why it was lost or died.
    """

    seq: int
    record: int
    time: float
    agent: NodeId
    event: str
    message: AgentMessage | None
    id: str
    reason: str = ""


class AuditTrail:
    """Turns records of the trace into rows of the audit, one after the other.

    Examples
    --------
    >>> trail = AuditTrail()
    >>> sent = Record(0, 0.5, "a", "send", source="a", destination="b", payload=AgentMessage("heartbeat", id="a/1"))
    >>> [(row.seq, row.event, row.id) for row in trail.feed(sent)]
    [(1, 'sent', 'a/1')]
    """

    def __init__(self) -> None:
        self.next = 1
        self._on_wire: dict[int, AgentMessage] = {}
        self._delivered: dict[tuple[NodeId, str], AgentMessage] = {}

    def feed(self, record: Record) -> list[AuditRow]:
        """Take the next record; return the rows it makes."""
        rows = []
        for agent, event, message, name, reason in self._stages(record):
            rows.append(AuditRow(self.next, record.seq, record.time, agent, event, message, name, reason))
            self.next += 1
        return rows

    def _stages(self, record: Record) -> Iterator[tuple[NodeId, str, AgentMessage | None, str, str]]:
        kind, payload = record.kind, record.payload
        if kind == "send" and payload.__class__ is AgentMessage:
            self._on_wire[record.message] = payload
            yield record.node, "sent", payload, payload.id, ""
        elif kind == "deliver" and payload.__class__ is AgentMessage:
            self._on_wire.pop(record.message, None)
            if payload.in_reply_to is None:
                self._delivered[record.node, payload.id] = payload
            yield record.node, "delivered", payload, payload.id, ""
        elif kind == "drop" and record.message in self._on_wire:
            message = self._on_wire.pop(record.message)
            yield "", "lost", message, message.id, str(payload)
        elif kind == "ask" and payload.__class__ is Outbox:
            for item in payload.items:
                if item.__class__ is Done:
                    yield from self._done(record.node, item)
        elif kind in _ENDS:
            for key in [key for key in self._delivered if key[0] == record.node]:
                yield record.node, "lost", self._delivered.pop(key), key[1], "the agent went down"
        elif kind == "dead_letter":
            name = payload["id"]
            found = self._delivered.pop((record.node, name), None)
            yield record.node, "dead", found, name, payload["reason"]

    def _done(self, agent: NodeId, done: Done) -> Iterator[tuple[NodeId, str, AgentMessage | None, str, str]]:
        for name, outcome in zip(done.ids, done.outcomes, strict=True):
            kind = outcome.kind
            if kind in ("handled", "failed"):
                reason = outcome.value["error"] if kind == "failed" else ""
                yield agent, kind, self._delivered.pop((agent, name), None), name, reason
