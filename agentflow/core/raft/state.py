"""The state of one Raft node, and the two outboxes.

Law: what promises something to others leaves only after the promise is on disk (thesis 3.8). Which
messages promise is decided here, by their type, and nowhere else: votes and acknowledgements of entries
wait for the disk, also those that the node addresses to itself; everything else may leave at once.

The rules that move this state are functions in the modules beside; `machine` is the door to them.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import msgspec

from agentflow.core.raft.config import RaftConfig
from agentflow.core.raft.events import PeerStatus, RaftEvent, Role
from agentflow.core.raft.log import RaftLog
from agentflow.core.raft.messages import ConfState, Message, MessageType, Snapshot
from agentflow.core.raft.progress import Progress
from agentflow.core.raft.readqueue import ReadQueue
from agentflow.core.raft.ready import ReadState, SoftState
from agentflow.core.raft.tracker import Tracker
from agentflow.ids import Index, NodeId, Term

PROMISES = frozenset({MessageType.APP_RESP, MessageType.VOTE_RESP, MessageType.PRE_VOTE_RESP})
"""Messages that others will rely on after a crash of this node."""


class PendingWrite(msgspec.Struct, frozen=True, gc=False):
    """A write under way, and what its completion sets in motion inside the node.

    Parameters
    ----------
    id : int
        The write's id.
    promises : tuple of Message
        What the node promised itself: its own vote, its own acknowledgement.
    term : int
        The node's term when the write was handed out.
    last_index, last_term : int
        The end of the log then; 0 if all of it was on disk already.
    snapshot : int
        Index of the leader's snapshot in the write, or 0.
    """

    id: int
    promises: tuple[Message, ...]
    term: Term
    last_index: Index
    last_term: Term
    snapshot: Index


class State:
    """Everything one node knows. Plain data: it can be copied, compared and stored."""

    __slots__ = (
        "after",
        "conf_history",
        "config",
        "election_base",
        "election_timeout",
        "events",
        "failure",
        "handed_hard",
        "handed_soft",
        "heard_at",
        "heartbeat_due",
        "heir",
        "id",
        "leader",
        "lease_forfeited",
        "log",
        "lost_reads",
        "next_write",
        "now",
        "outbox",
        "pending_config_index",
        "pending_snapshot",
        "random",
        "read_states",
        "reads",
        "role",
        "term",
        "touched",
        "tracker",
        "uncommitted_bytes",
        "vote",
        "writes",
    )

    id: NodeId
    config: RaftConfig
    now: float
    """The time of the event being handled."""
    random: random.Random
    log: RaftLog
    tracker: Tracker
    events: list[RaftEvent]

    term: Term
    vote: NodeId | None
    role: Role
    leader: NodeId | None
    heir: NodeId | None
    """Whom a leader is handing leadership to."""

    election_base: float
    """When the election clock was last set back; for a leader, when it last looked at its quorum."""
    election_timeout: float
    """The draw in force."""
    heartbeat_due: float
    heard_at: float
    """When a leader was last heard; -inf if never in this life."""

    pending_config_index: Index
    """At least the index of the newest membership change that may not be applied yet."""
    uncommitted_bytes: int
    conf_history: list[tuple[Index, ConfState]]
    """Configurations by the index they took force at, from the newest snapshot on."""
    reads: ReadQueue
    lease_forfeited: bool
    """Whether the heir was told to campaign in this term; nothing protects reads any more."""

    outbox: list[Message]
    """What may leave at once."""
    after: list[Message]
    """What waits for the disk, to others and to the node itself."""
    read_states: list[ReadState]
    lost_reads: list[bytes]
    writes: deque[PendingWrite]
    """Writes under way, oldest first."""
    next_write: int
    handed_hard: tuple[Term, NodeId | None, Index]
    """Term, vote and commit index as last handed out to be stored."""
    handed_soft: SoftState
    touched: bool
    """Whether an event came since work was last handed out: without one there is no new work."""
    failure: str | None
    """Why the disk failed, if it did: from then on the node is silent."""
    pending_snapshot: Snapshot | None
    """A snapshot of the node's own state that is to be stored."""

    def post(self, message: Message) -> None:
        """Put a message into the outbox it belongs to."""
        if message.type in PROMISES:
            self.after.append(message)
        else:
            assert message.to != self.id, f"{message.type} to oneself"
            self.outbox.append(message)

    @property
    def is_leader(self) -> bool:
        """Whether the node leads, as far as it knows."""
        return self.role is Role.LEADER

    @property
    def is_promotable(self) -> bool:
        """Whether the node may campaign: a voter that is not busy installing a snapshot."""
        progress = self.tracker.progress.get(self.id)
        return progress is not None and not progress.is_learner and self.log.incoming is None


def peer_status(progress: Progress) -> PeerStatus:
    """Return what is known of a member, as a value."""
    return PeerStatus(
        match=progress.match,
        next=progress.next,
        state=progress.state.value,
        is_active=progress.is_active,
        is_learner=progress.is_learner,
        is_paused=progress.is_paused,
        inflight=len(progress.inflights),
        is_full=progress.inflights.is_full,
        pending_snapshot=progress.pending_snapshot,
    )


def copy_state(source: State, twin: State) -> None:
    """Make `twin` equal to `source` and independent of it; frozen values are shared."""
    for name in State.__slots__:
        setattr(twin, name, getattr(source, name))
    twin.events = source.events.copy()
    twin.log = source.log.copy(twin.events)
    twin.tracker = source.tracker.copy()
    twin.reads = source.reads.copy()
    twin.random = random.Random()
    twin.random.setstate(source.random.getstate())
    for name in ("outbox", "after", "read_states", "lost_reads", "writes", "conf_history"):
        setattr(twin, name, getattr(source, name).copy())


def comparable(state: State) -> dict[str, Any]:
    """Return everything that makes two nodes equal."""
    plain = {name: getattr(state, name) for name in State.__slots__}
    plain["random"] = state.random.getstate()
    plain["log"] = state.log.state()
    plain["tracker"] = state.tracker.state()
    plain["reads"] = state.reads.state()
    return plain
