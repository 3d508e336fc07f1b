"""The audit as a table: its columns are promises, in a DataFrame and in SQLite alike."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

import msgspec

from agentflow.core.agents.audit import STAGES, AuditRow
from agentflow.core.agents.messages import MessageType
from agentflow.rows import ANY, COUNT, INSTANT, SECONDS, TEXT, Column, Schema
from agentflow.runtime.trace import canonical

__all__ = ["AUDIT", "as_row", "digest", "written"]

AUDIT: Final = Schema(
    "audit",
    "a row a stage of a message",
    (
        Column("seq", COUNT, "number of the row, without gaps"),
        Column("event_seq", COUNT, "number of the event in the trace"),
        Column("time", INSTANT, "when"),
        Column("time_s", SECONDS, "the same, in seconds since the start"),
        Column("agent", TEXT, "where it happened; empty for the wire"),
        Column("event", TEXT, "what happened", STAGES),
        Column("id", TEXT, "the message's id"),
        Column("msg_type", TEXT, "its type", tuple(MessageType)),
        Column("from_", TEXT, "who sent it"),
        Column("to", TEXT, "whom it was sent to"),
        Column("subject", TEXT, "what it was published on"),
        Column("correlation_id", TEXT, "the conversation it belongs to"),
        Column("reason", TEXT, "why it was lost, died or failed"),
        Column("content", ANY, "what it says"),
    ),
)


def as_row(row: AuditRow) -> tuple[Any, ...]:
    """Return a row with the columns of `AUDIT`."""
    message = row.message
    head = (row.seq, row.record, row.time, row.time, row.agent, row.event, row.id)
    if message is None:
        return (*head, None, None, None, None, None, row.reason or None, None)
    return (
        *head,
        message.type,
        message.from_,
        message.to,
        message.subject or None,
        message.correlation_id,
        row.reason or None,
        message.content,
    )


def digest(content: Any) -> str:
    """Return the SHA-256 of a message's content, by which a copy of it can be recognised."""
    return hashlib.sha256(canonical(content)).hexdigest()


def written(content: Any, redact: Callable[[Any], Any] | None) -> str:
    """Return content as JSON, after it was redacted."""
    if redact is not None:
        content = redact(content)
    return msgspec.json.encode(content, enc_hook=repr).decode()
