"""What masters say to one another and what they keep on disk.

The message set is etcd-io/raft's (raftpb), so that its transcripts can be compared line by line. All are
frozen values: a message may be handed to many nodes, kept in a trace and sent again without a copy.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

import msgspec

from agentflow.ids import Index, NodeId, Term


class MessageType(StrEnum):
    """The kinds of message between masters; the values are etcd's names for them."""

    HUP = "MsgHup"
    BEAT = "MsgBeat"
    PROP = "MsgProp"
    APP = "MsgApp"
    APP_RESP = "MsgAppResp"
    VOTE = "MsgVote"
    VOTE_RESP = "MsgVoteResp"
    PRE_VOTE = "MsgPreVote"
    PRE_VOTE_RESP = "MsgPreVoteResp"
    SNAP = "MsgSnap"
    HEARTBEAT = "MsgHeartbeat"
    HEARTBEAT_RESP = "MsgHeartbeatResp"
    UNREACHABLE = "MsgUnreachable"
    SNAP_STATUS = "MsgSnapStatus"
    CHECK_QUORUM = "MsgCheckQuorum"
    TRANSFER_LEADER = "MsgTransferLeader"
    TIMEOUT_NOW = "MsgTimeoutNow"
    READ_INDEX = "MsgReadIndex"
    READ_INDEX_RESP = "MsgReadIndexResp"
    STORAGE_APPEND = "MsgStorageAppend"
    STORAGE_APPEND_RESP = "MsgStorageAppendResp"
    STORAGE_APPLY = "MsgStorageApply"
    STORAGE_APPLY_RESP = "MsgStorageApplyResp"
    FORGET_LEADER = "MsgForgetLeader"


class EntryKind(IntEnum):
    """What an entry's data means to Raft itself."""

    NORMAL = 0
    CONF_CHANGE = 1
    CONF_CHANGE_V2 = 2


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One position of the replicated log. `data` is opaque to Raft; empty is a leader's no-op."""

    index: Index
    term: Term
    data: bytes = b""
    kind: EntryKind = EntryKind.NORMAL


class HardState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What must be durable before any answer that depends on it (thesis 3.8)."""

    term: Term = 0
    vote: NodeId | None = None
    commit: Index = 0


class ConfState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who votes and who learns; two voter sets while a joint change is under way (thesis 4.3)."""

    voters: tuple[NodeId, ...] = ()
    learners: tuple[NodeId, ...] = ()
    voters_outgoing: tuple[NodeId, ...] = ()
    learners_next: tuple[NodeId, ...] = ()
    auto_leave: bool = False


class Snapshot(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The applied state at `index`, with the configuration in force there (thesis 5)."""

    index: Index = 0
    term: Term = 0
    conf: ConfState = ConfState()
    data: bytes = b""


class Message(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """One message between masters; the fields that a type does not use keep their defaults."""

    type: MessageType
    to: NodeId
    source: NodeId
    term: Term = 0
    log_term: Term = 0
    index: Index = 0
    entries: tuple[Entry, ...] = ()
    commit: Index = 0
    vote: NodeId | None = None
    snapshot: Snapshot | None = None
    reject: bool = False
    reject_hint: Index = 0
    context: bytes = b""
    responses: tuple[Message, ...] = ()


class Write(msgspec.Struct, frozen=True, gc=False):
    """One atomic write to a master's disk: all of it becomes durable, or none.

    Entries replace whatever the log holds from the first one's index on. A snapshot replaces the log up
    to its index. `compact_to` drops entries up to that index, which a snapshot kept earlier covers.

    An empty write stores nothing and still completes in its turn: answers wait for the writes before it.
    """

    hard_state: HardState | None = None
    entries: tuple[Entry, ...] = ()
    snapshot: Snapshot | None = None
    compact_to: Index = 0


class Stored(msgspec.Struct, frozen=True):
    """Everything a master's disk holds: what a restarted master begins with."""

    hard_state: HardState = HardState()
    snapshot: Snapshot = Snapshot()
    entries: tuple[Entry, ...] = ()
