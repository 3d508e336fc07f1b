"""What an agent's handle asks of its machine, and what the machine hands to the handle.

Everything a handle wants goes through one list, in order: that is what makes messages FIFO however they
were sent.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from agentflow.core.agents.letters import Reason
from agentflow.core.agents.messages import AgentMessage, MessageType
from agentflow.ids import NodeId

__all__ = ["Ask", "Attend", "Done", "Forget", "Inject", "Mail", "Outbox", "Outcome", "Post", "Refuse"]


class Post(msgspec.Struct, frozen=True, gc=False):
    """Send a message to each of `targets`.

    Parameters
    ----------
    draft : AgentMessage
        What the user wrote: its `requires_response`, `ttl` and `in_reply_to` count.
    msg_type, content, id, subject, correlation_id
        What the handle made of the rest.
    targets : tuple of str
        To whom.
    """

    draft: AgentMessage
    msg_type: MessageType
    content: Any
    id: str
    targets: tuple[NodeId, ...]
    subject: str = ""
    correlation_id: str | None = None


class Refuse(msgspec.Struct, frozen=True):
    """Count a message that the handle would not send."""

    draft: AgentMessage
    reason: Reason


class Ask(msgspec.Struct, frozen=True, gc=False):
    """Send a request, and answer with the reply or with what came instead within `timeout` seconds."""

    post: Post
    timeout: float


class Forget(msgspec.Struct, frozen=True):
    """Wait no more for the reply to a request."""

    id: str


class Attend(msgspec.Struct, frozen=True):
    """Answer with `Mail` whenever there is some and the last was done with."""


class Inject(msgspec.Struct, frozen=True):
    """Handle a message that came by another way, and answer with the outcome."""

    message: AgentMessage


class Mail(msgspec.Struct, frozen=True):
    """Messages to be handled one after the other, with the instants at which they are worth nothing."""

    life: int
    messages: tuple[AgentMessage, ...]
    expires: tuple[float, ...]


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What came of handling a message.

    Parameters
    ----------
    kind : str
        `handled`, `failed` (the handler raised), `unhandled` (there is none) or `expired`.
    value : plain data
        What the handler returned; of a failure, its report.
    draft : AgentMessage, optional
        What the handler returned, if that was a message.
    """

    kind: str
    value: Any = None
    draft: AgentMessage | None = None


class Done(msgspec.Struct, frozen=True):
    """The first of the messages handed over have been handled, with these outcomes.

    Parameters
    ----------
    life : int
        The life of the agent to which they were handed.
    ids : tuple of str
        Their ids, for the trace.
    outcomes : tuple of Outcome
        One a message.
    busy : bool
        A handler takes its time over the next one; what is behind it is given back.
    """

    life: int
    ids: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    busy: bool = False


class Outbox(msgspec.Struct, frozen=True, gc=False):
    """What a handle did since it was last listened to, in order."""

    items: tuple[Post | Refuse | Done, ...]


Request: TypeAlias = Outbox | Post | Ask | Forget | Attend | Inject
