"""What a Raft machine hands out: the work of one turn."""

from __future__ import annotations

import msgspec

from agentflow.core.machine import Persist
from agentflow.core.raft.events import RaftEvent, Role
from agentflow.core.raft.messages import Entry, Message, Snapshot
from agentflow.ids import Index, NodeId


class ReadState(msgspec.Struct, frozen=True, gc=False):
    """The read `context` may be served as soon as everything up to `index` is applied."""

    context: bytes
    index: Index


class SoftState(msgspec.Struct, frozen=True, gc=False):
    """What the node is and whom it follows: worth showing, not worth storing."""

    leader: NodeId | None
    role: Role


class Ready(msgspec.Struct, frozen=True, gc=False):
    """The work of one turn.

    Parameters
    ----------
    persist : Persist or None
        A `Write` to make durable; its end comes back as `Persisted` or `PersistFailed`.
    messages : tuple of Message
        May leave at once.
    messages_after : tuple of Message
        May leave only when `persist` is durable: votes, and acknowledgements of appended entries. Empty
        if there is nothing to persist. What the node has to say to itself stays inside and takes effect
        with `Persisted`.
    snapshot : Snapshot or None
        A leader's snapshot to install in the place of all applied state.
    committed : tuple of Entry
        To be applied in this order; answered by `Applied`.
    reads : tuple of ReadState
        Reads that may be served from their index on.
    lost_reads : tuple of bytes
        Contexts of reads that will not be answered because leadership was lost; ask again.
    soft : SoftState or None
        Role and leader, if they changed.
    events : tuple of RaftEvent
        What happened, for the trace.
    """

    persist: Persist | None = None
    messages: tuple[Message, ...] = ()
    messages_after: tuple[Message, ...] = ()
    snapshot: Snapshot | None = None
    committed: tuple[Entry, ...] = ()
    reads: tuple[ReadState, ...] = ()
    lost_reads: tuple[bytes, ...] = ()
    soft: SoftState | None = None
    events: tuple[RaftEvent, ...] = ()
