"""What a Raft machine tells about itself: structured, never English.

They leave through `Ready.events`; the master puts each into the trace as a note, where the judges, the
frames and the pictures find them. Most come once an election, a refusal or a membership change; only
`CommitAdvanced` comes with every commit.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

import msgspec

from agentflow.core.raft.log_events import AppendRejected as AppendRejected
from agentflow.core.raft.log_events import AutoLeave as AutoLeave
from agentflow.core.raft.log_events import CommitAdvanced as CommitAdvanced
from agentflow.core.raft.log_events import ConfigChanged as ConfigChanged
from agentflow.core.raft.log_events import ConfigIgnored as ConfigIgnored
from agentflow.core.raft.log_events import ConflictFound as ConflictFound
from agentflow.core.raft.log_events import EntriesApplied as EntriesApplied
from agentflow.core.raft.log_events import PeerStatus as PeerStatus
from agentflow.core.raft.log_events import PeerUnreachable as PeerUnreachable
from agentflow.core.raft.log_events import ProposalDropped as ProposalDropped
from agentflow.core.raft.log_events import ReadsDropped as ReadsDropped
from agentflow.core.raft.log_events import RejectionReceived as RejectionReceived
from agentflow.core.raft.log_events import SnapshotIgnored as SnapshotIgnored
from agentflow.core.raft.log_events import SnapshotInstalled as SnapshotInstalled
from agentflow.core.raft.log_events import SnapshotReceived as SnapshotReceived
from agentflow.core.raft.log_events import SnapshotSent as SnapshotSent
from agentflow.core.raft.log_events import SnapshotSettled as SnapshotSettled
from agentflow.core.raft.log_events import SnapshotWithheld as SnapshotWithheld
from agentflow.core.raft.log_events import TailReplaced as TailReplaced
from agentflow.core.raft.log_events import TailTruncated as TailTruncated
from agentflow.core.raft.log_events import WriteOvertaken as WriteOvertaken
from agentflow.core.raft.messages import MessageType
from agentflow.ids import Index, NodeId, Term


class Role(StrEnum):
    """What a master is at the moment."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


# --- roles and elections ----------------------------------------------------------------------------------


class Started(msgspec.Struct, frozen=True, tag="start"):
    """The node began, with what its disk held."""

    voters: tuple[NodeId, ...]
    term: Term
    commit: Index
    applied: Index
    last_index: Index
    last_term: Term


class RoleChanged(msgspec.Struct, frozen=True, tag="role"):
    """The node became `role` in `term`; `leader` is whom it follows, if it knows.

    `cause` says why: `start`, `timeout`, `campaign`, `transfer`, `vote`, `lost`, `higher-term`, `append`,
    `check-quorum`, `removed`, `disk`.
    """

    role: Role
    term: Term
    leader: NodeId | None = None
    cause: str = ""


class LeaderForgotten(msgspec.Struct, frozen=True, tag="forget"):
    """A follower was told to forget its leader, so that it may vote for another."""

    leader: NodeId
    term: Term


class LeaderKept(msgspec.Struct, frozen=True, tag="keep-leader"):
    """A follower was told to forget its leader and did not: somebody's lease may rest on it."""

    leader: NodeId | None
    term: Term


class ElectionStarted(msgspec.Struct, frozen=True, tag="election"):
    """The node campaigns, from `term`."""

    term: Term
    cause: str = ""


class CampaignRefused(msgspec.Struct, frozen=True, tag="no-campaign"):
    """The node should have campaigned and must not: `leader`, `unpromotable`, `pending-config`, `lease`."""

    term: Term
    reason: str


class VoteRequested(msgspec.Struct, frozen=True, tag="ask"):
    """A candidate asked one voter; (`log_term`, `index`) is the end of its log."""

    voter: NodeId
    term: Term
    pre_vote: bool
    log_term: Term
    index: Index


class Voted(msgspec.Struct, frozen=True, tag="vote"):
    """The node answered a request for its vote.

    `vote` is whom it had voted for before; (`log_term`, `index`) is the end of its own log.
    """

    term: Term
    candidate: NodeId
    granted: bool
    pre_vote: bool = False
    vote: NodeId | None = None
    log_term: Term = 0
    index: Index = 0
    candidate_log_term: Term = 0
    candidate_index: Index = 0


class VoteIgnored(msgspec.Struct, frozen=True, tag="no-vote"):
    """A request for a vote was left unanswered because a leader was heard within the last time-out.

    `remaining` is how many seconds the node will go on doing so.
    """

    term: Term
    candidate: NodeId
    pre_vote: bool
    remaining: float
    vote: NodeId | None = None
    log_term: Term = 0
    index: Index = 0
    candidate_log_term: Term = 0
    candidate_index: Index = 0


class VoteCounted(msgspec.Struct, frozen=True, tag="count"):
    """A candidate counted an answer; `votes` of `voters` are granted and `rejections` refused so far."""

    term: Term
    voter: NodeId
    granted: bool
    votes: int
    voters: int
    pre_vote: bool = False
    rejections: int = 0


class QuorumLost(msgspec.Struct, frozen=True, tag="quorum-lost"):
    """A leader heard of no quorum for an election time-out, and steps down."""

    term: Term


class HigherTermSeen(msgspec.Struct, frozen=True, tag="higher-term"):
    """A message carried a term above the node's own, `term`."""

    term: Term
    source: NodeId
    kind: MessageType
    message_term: Term


class MessageIgnored(msgspec.Struct, frozen=True, tag="ignored"):
    """A message was dropped. `reason`: `lower-term`, `stranger`, `no-progress`, or the role."""

    term: Term
    source: NodeId
    kind: MessageType
    message_term: Term
    reason: str


# --- leadership transfer ----------------------------------------------------------------------------------


class TransferStarted(msgspec.Struct, frozen=True, tag="transfer"):
    """A leader starts to hand its leadership to `to`."""

    term: Term
    to: NodeId


class TransferIgnored(msgspec.Struct, frozen=True, tag="no-transfer"):
    """A wish to transfer was ignored: `learner`, `self`, `same` (already on its way there), `no-leader`."""

    term: Term
    to: NodeId
    reason: str


class TransferAborted(msgspec.Struct, frozen=True, tag="transfer-aborted"):
    """A transfer was given up: `superseded`, `timeout`, `removed`."""

    term: Term
    to: NodeId
    reason: str


class TimeoutNowSent(msgspec.Struct, frozen=True, tag="timeout-now"):
    """The leader told its heir to campaign: `immediately`, or after an acknowledgement."""

    to: NodeId
    immediately: bool


class TimeoutNowReceived(msgspec.Struct, frozen=True, tag="heir"):
    """A leader told this node to campaign at once."""

    term: Term
    source: NodeId


RaftEvent: TypeAlias = (
    Started
    | RoleChanged
    | LeaderForgotten
    | LeaderKept
    | ElectionStarted
    | CampaignRefused
    | VoteRequested
    | Voted
    | VoteIgnored
    | VoteCounted
    | QuorumLost
    | HigherTermSeen
    | MessageIgnored
    | TransferStarted
    | TransferIgnored
    | TransferAborted
    | TimeoutNowSent
    | TimeoutNowReceived
    | CommitAdvanced
    | EntriesApplied
    | AppendRejected
    | RejectionReceived
    | ConflictFound
    | TailTruncated
    | TailReplaced
    | WriteOvertaken
    | PeerUnreachable
    | ProposalDropped
    | ReadsDropped
    | SnapshotSent
    | SnapshotWithheld
    | SnapshotSettled
    | SnapshotReceived
    | SnapshotInstalled
    | SnapshotIgnored
    | ConfigChanged
    | ConfigIgnored
    | AutoLeave
)
