"""What the judges are told about agents' messages, read from the trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agentflow.check.messaging import MailFact
from agentflow.core.agents.audit import AuditTrail
from agentflow.core.agents.messages import AgentMessage
from agentflow.core.agents.requests import Ask
from agentflow.core.record import Record
from agentflow.ids import NodeId

__all__ = ["mail_facts"]

_ANSWERS = ("RemoteError:", "MailboxFull:", "Expired:")
"""Errors that came back as a message, by their first word."""


def mail_facts(records: Iterable[Record]) -> Iterator[MailFact]:
    """Tell the judge of `agentflow.check.messaging` what a trace says of agents.

    Parameters
    ----------
    records : iterable of Record
        The trace, from its beginning.

    Examples
    --------
    >>> from agentflow.check.messaging import judge_messaging
    >>> judge_messaging(mail_facts([]))
    <Verdict ok: messages>
    """
    trail = AuditTrail()
    asked: dict[tuple[NodeId, str], tuple[str, NodeId]] = {}
    for record in records:
        payload, node = record.payload, record.node
        if record.kind == "ask" and payload.__class__ is Ask:
            (target,) = payload.post.targets
            asked[node, record.type] = payload.post.id, target
            yield MailFact(record.time, "asked", payload.post.id, node, target)
        elif record.kind == "answer" and (node, record.type) in asked:
            request, target = asked.pop((node, record.type))
            if payload.__class__ is AgentMessage:
                yield MailFact(record.time, "answered", request, payload.from_, node)
            elif str(payload).startswith(_ANSWERS):
                yield MailFact(record.time, "answered", request, target, node)
            else:
                yield MailFact(record.time, "gave up", request, node, target)
        for row in trail.feed(record):
            message = row.message
            if message is None or message.in_reply_to is not None:
                continue
            if row.event == "sent":
                yield MailFact(row.time, "sent", row.id, message.from_, message.to)
            elif row.event in ("handled", "failed") and message.from_ != "":
                yield MailFact(row.time, "handled", row.id, message.from_, row.agent)
