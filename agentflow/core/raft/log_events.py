"""What a Raft machine tells about its log: replication, snapshots, membership.

The other half, roles and elections, and the union of all, are in `events`.
"""

from __future__ import annotations

import msgspec

from agentflow.core.raft.messages import ConfState, Entry
from agentflow.ids import Index, NodeId, Term


class PeerStatus(msgspec.Struct, frozen=True):
    """What a leader knows of one member.

    Parameters
    ----------
    match, next : int
        Its log is known to equal the leader's up to `match`; `next` is sent next.
    state : str
        `probe`, `replicate` or `snapshot`.
    is_active, is_learner, is_paused : bool
        Heard from lately; receives without voting; is sent nothing until it is heard from.
    inflight : int
        Messages under way to it.
    is_full : bool
        Whether the window of those is used up.
    pending_snapshot : int
        Index of the snapshot it is to install, or 0.
    """

    match: Index
    next: Index
    state: str
    is_active: bool = False
    is_learner: bool = False
    is_paused: bool = False
    inflight: int = 0
    is_full: bool = False
    pending_snapshot: Index = 0


# --- replication ------------------------------------------------------------------------------------------


class CommitAdvanced(msgspec.Struct, frozen=True, gc=False, tag="commit"):
    """The node's commit index moved to `index`."""

    index: Index
    term: Term


class EntriesApplied(msgspec.Struct, frozen=True, tag="apply"):
    """The node's state machine applied these entries, in order: told by the machine's user."""

    entries: tuple[Entry, ...]


class AppendRejected(msgspec.Struct, frozen=True, tag="reject"):
    """A follower refused an append after (`index`, `log_term`); its own term there is `own_term`."""

    source: NodeId
    index: Index
    log_term: Term
    own_term: Term


class RejectionReceived(msgspec.Struct, frozen=True, tag="rejected"):
    """A leader learned that its append after `index` was refused; `peer` is None if the news was stale."""

    source: NodeId
    index: Index
    hint: Index
    hint_term: Term
    peer: PeerStatus | None = None


class ConflictFound(msgspec.Struct, frozen=True, tag="conflict"):
    """A leader's entry has another term than the one in this node's log."""

    index: Index
    own_term: Term
    term: Term


class TailTruncated(msgspec.Struct, frozen=True, tag="truncate"):
    """Entries from `index` on, all still in memory only, make room for a leader's."""

    index: Index


class TailReplaced(msgspec.Struct, frozen=True, tag="replace"):
    """Entries from `index` on, some of them on disk, make room for a leader's."""

    index: Index


class WriteOvertaken(msgspec.Struct, frozen=True, tag="overtaken"):
    """A completed write says nothing about the log as it is now.

    `reason`: `missing` (no such entry waits to be stored), `snapshot`, `mismatch` (the entry has the term
    `found`), `term` (the node's term moved from `term` to `found`).
    """

    index: Index
    term: Term
    reason: str
    found: Term = 0


class PeerUnreachable(msgspec.Struct, frozen=True, tag="unreachable"):
    """The transport could not reach a follower."""

    peer: NodeId
    status: PeerStatus


class ProposalDropped(msgspec.Struct, frozen=True, tag="dropped"):
    """Proposals were not taken: `no-leader`, `no-forwarding`, `transfer`, `limit`, `removed`."""

    term: Term
    reason: str
    leader: NodeId | None = None


class ReadsDropped(msgspec.Struct, frozen=True, tag="reads-dropped"):
    """Reads will not be answered: `no-leader`, `deposed`."""

    term: Term
    contexts: tuple[bytes, ...]
    reason: str


# --- snapshots --------------------------------------------------------------------------------------------


class SnapshotSent(msgspec.Struct, frozen=True, tag="send-snapshot"):
    """A leader sends its snapshot to a follower whose next entry it no longer has."""

    peer: NodeId
    index: Index
    term: Term
    first: Index
    commit: Index
    before: PeerStatus
    after: PeerStatus


class SnapshotWithheld(msgspec.Struct, frozen=True, tag="no-snapshot"):
    """A follower needs a snapshot and gets none yet: `inactive`, `unavailable`."""

    peer: NodeId
    reason: str


class SnapshotSettled(msgspec.Struct, frozen=True, tag="snapshot-settled"):
    """What became of a snapshot: `acked`, `reported`, `failed`."""

    peer: NodeId
    outcome: str
    status: PeerStatus


class SnapshotReceived(msgspec.Struct, frozen=True, tag="receive-snapshot"):
    """A follower replaces its log by a leader's snapshot; the numbers are those of its log before."""

    index: Index
    term: Term
    commit: Index
    applied: Index
    applying: Index
    stable: Index
    handed: Index
    unstable: int


class SnapshotInstalled(msgspec.Struct, frozen=True, tag="snapshot"):
    """The node replaced its log by a snapshot."""

    index: Index
    term: Term
    commit: Index = 0
    last_index: Index = 0
    last_term: Term = 0


class SnapshotIgnored(msgspec.Struct, frozen=True, tag="ignore-snapshot"):
    """A leader's snapshot was not installed: `old`, or `known` (the log agrees with it).

    A known snapshot moves the commit index, from `own_commit` to `commit`.
    """

    index: Index
    term: Term
    reason: str
    own_commit: Index = 0
    commit: Index = 0
    last_index: Index = 0
    last_term: Term = 0


# --- membership -------------------------------------------------------------------------------------------


class ConfigChanged(msgspec.Struct, frozen=True, tag="config"):
    """A new configuration is in force at the node."""

    index: Index
    conf: ConfState


class ConfigIgnored(msgspec.Struct, frozen=True, tag="no-config"):
    """A forwarded change came at the wrong time, and an empty entry took its place.

    `reason`: `pending` (an earlier one, at `pending`, is not applied yet), `joint`, `not-joint`,
    `impossible`.
    """

    entry: Entry
    conf: ConfState
    reason: str
    pending: Index
    applied: Index


class AutoLeave(msgspec.Struct, frozen=True, tag="auto-leave"):
    """The leader proposes to leave the joint configuration; it tries again later if `refused`."""

    conf: ConfState
    refused: bool = False
