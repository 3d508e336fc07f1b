"""What agents say to one another.

Law: who sent a message is for the host to say. `from_`, `timestamp` and `seq` are stamped by the sender's
own machine, and the receiver's compares `from_` with the node that the transport names.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

import msgspec

from agentflow.errors import InvalidConfig
from agentflow.ids import NodeId

__all__ = ["REPLY_TYPE", "AgentMessage", "MessageType", "Reset", "as_type", "copied", "plain"]


class MessageType(StrEnum):
    """What a message is about; it settles what becomes of it when a mailbox is full.

    Examples
    --------
    >>> MessageType("task_request") is MessageType.TASK_REQUEST
    True
    """

    TASK_REQUEST = "task_request"
    TASK_RESPONSE = "task_response"
    STATUS_UPDATE = "status_update"
    RESOURCE_QUERY = "resource_query"
    RESOURCE_RESPONSE = "resource_response"
    COLLABORATION_REQUEST = "collaboration_request"
    COLLABORATION_RESPONSE = "collaboration_response"
    NOTIFICATION = "notification"
    HEARTBEAT = "heartbeat"
    ERROR = "error"


REPLY_TYPE: Final = {
    MessageType.TASK_REQUEST: MessageType.TASK_RESPONSE,
    MessageType.RESOURCE_QUERY: MessageType.RESOURCE_RESPONSE,
    MessageType.COLLABORATION_REQUEST: MessageType.COLLABORATION_RESPONSE,
}
"""How a request of a type is answered; what is not listed is answered by its own type."""


class AgentMessage(msgspec.Struct, frozen=True, gc=False):
    """A message from one agent to another.

    Parameters
    ----------
    msg_type : MessageType or str
        What it is about.
    content : plain data
        Numbers, strings, lists, dictionaries. The receiver gets a copy of its own.
    id : str
        Its name; given by the sender's handle unless you do.
    from_ : str
        Who sent it: stamped by the sender's handle. To be somebody else is refused.
    to : str
        Who is to get it.
    timestamp : float
        Unix time at which it was sent, for people and audits; nothing is decided by it.
    requires_response : bool
        Whether the handler's return value is sent back.
    correlation_id : str, optional
        The conversation it belongs to. An answer has that of its question, which by default is its id.
    ttl : float, optional
        Milliseconds it may still take until a handler starts on it; the way itself is not counted, since
        no two clocks are compared.
    subject : str
        What it was published on; empty for a message to one agent or to all.
    in_reply_to : str, optional
        The question this answers.
    seq : int
        Number that grows with every message of its sender, by which copies and stragglers are told.

    Examples
    --------
    >>> AgentMessage(to="agent-2", msg_type=MessageType.HEARTBEAT).type
    'heartbeat'
    """

    msg_type: MessageType
    content: Any = None
    id: str = ""
    from_: NodeId = ""
    to: NodeId = ""
    timestamp: float = 0.0
    requires_response: bool = False
    correlation_id: str | None = None
    ttl: float | None = None
    subject: str = ""
    in_reply_to: str | None = None
    seq: int = 0

    @property
    def type(self) -> str:
        """The word under which it is in the trace."""
        kind = self.msg_type
        return kind._value_ if kind.__class__ is MessageType else str(kind)


class Reset(msgspec.Struct, frozen=True):
    """The connection to an agent broke: its node went down."""

    type: str = "reset"


def as_type(value: Any) -> MessageType:
    """Take a message type or its name.

    Examples
    --------
    >>> as_type("heartbeat")
    <MessageType.HEARTBEAT: 'heartbeat'>
    """
    try:
        return MessageType(value)
    except ValueError:
        names = ", ".join(MessageType)
        raise InvalidConfig(
            f"there is no message type {value!r}; take one of {names}", field="msg_type"
        ) from None


def plain(content: Any, what: str = "a message's content") -> Any:
    """Copy plain data; refuse what no wire could carry.

    Examples
    --------
    >>> plain({"a": (1, 2)})
    {'a': (1, 2)}
    """
    try:
        return msgspec.to_builtins(content, builtin_types=_KEPT)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidConfig(
            f"{what} is plain data (numbers, strings, lists, dictionaries), not {type(content).__name__}: {error}",
            field="content",
        ) from None


def copied(content: Any) -> Any:
    """Copy content that is known to be plain."""
    return content if content.__class__ in _SCALAR else msgspec.to_builtins(content, builtin_types=_KEPT)


_SCALAR: Final = frozenset((str, int, float, bool, type(None), bytes))
_KEPT: Final = (bytes, bytearray)
