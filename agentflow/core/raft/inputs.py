"""What a Raft machine can be told and asked: the events that go in.

Beside these it takes `Woken`, `Persisted`, `PersistFailed` and `Stalled` of `agentflow.core.machine`.
What the node itself asks for is refused at once, with an exception and before anything changes; what
comes from others is never refused, only ignored.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from agentflow.core.machine import Persisted, PersistFailed, Stalled, Woken
from agentflow.core.raft.confchange import ConfigChange
from agentflow.core.raft.messages import Message
from agentflow.ids import Index, NodeId


class Receive(msgspec.Struct, frozen=True, gc=False):
    """A message from another member arrived. Its source must have been stamped by the transport."""

    message: Message


class Propose(msgspec.Struct, frozen=True, gc=False):
    """Append these commands to the log, in one step and in this order.

    At a leader they are then the last entries of the log, in its term: `machine.last_index` and
    `machine.term` say which. A node that does not lead raises `NotLeader`, or passes them on if `forward`
    is set and the settings allow it; what became of them is then for the proposer to find out.
    """

    data: tuple[bytes, ...]
    forward: bool = False


class ProposeConfig(msgspec.Struct, frozen=True, gc=False):
    """Append a change of the membership; it takes force at each node when that node applies it."""

    change: ConfigChange
    forward: bool = False


class Campaign(msgspec.Struct, frozen=True, gc=False):
    """Start an election now, as if the time-out had come."""


class Read(msgspec.Struct, frozen=True, gc=False):
    """Ask for an index from which on the applied state is fresh enough to read (thesis 6.4).

    The answer leaves through `Ready.reads` with the same context; when everything up to its index is
    applied, the state shows every write that was acknowledged before this was asked. Followers ask their
    leader. `context` must differ from that of every read still under way.
    """

    context: bytes


class Transfer(msgspec.Struct, frozen=True, gc=False):
    """Hand leadership to another voter (thesis 3.10)."""

    to: NodeId


class ForgetLeader(msgspec.Struct, frozen=True, gc=False):
    """Forget the leader, to vote for another sooner; the next word from it brings it back."""


class Applied(msgspec.Struct, frozen=True, gc=False):
    """Everything handed out up to `index` is applied, membership changes included."""

    index: Index


class ApplyConfig(msgspec.Struct, frozen=True, gc=False):
    """The membership change at `index` takes force now, ahead of the `Applied` that covers it.

    Only for those who apply in the background and want a change in force before its batch is done.
    """

    index: Index


class Unreachable(msgspec.Struct, frozen=True, gc=False):
    """The transport could not deliver to `peer`: what was sent ahead is probably lost."""

    peer: NodeId


class SnapshotReported(msgspec.Struct, frozen=True, gc=False):
    """The snapshot sent to `peer` arrived, or did not."""

    peer: NodeId
    ok: bool


class Compact(msgspec.Struct, frozen=True, gc=False):
    """`data` is the state as of `index`: keep it as a snapshot, and forget entries it covers.

    Parameters
    ----------
    index : int
        An applied index.
    data : bytes
        The state.
    keep : int
        How many of the covered entries stay in memory, so that a follower a little behind needs no
        snapshot.
    """

    index: Index
    data: bytes
    keep: int = 0


RaftInput: TypeAlias = (
    Receive
    | Woken
    | Propose
    | ProposeConfig
    | Campaign
    | Read
    | Transfer
    | ForgetLeader
    | Applied
    | ApplyConfig
    | Unreachable
    | SnapshotReported
    | Compact
    | Persisted
    | PersistFailed
    | Stalled
)
