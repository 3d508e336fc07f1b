"""What a node shows of itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from agentflow.core.raft.events import PeerStatus, Role
from agentflow.core.raft.messages import ConfState
from agentflow.core.raft.state import State, peer_status
from agentflow.ids import Index, NodeId, Term


@dataclass(frozen=True)
class RaftStatus:
    """One node at one instant.

    Parameters
    ----------
    id : str
        Its name.
    role : Role
        Follower, (pre-)candidate or leader.
    term : int
        Its current term.
    leader : str or None
        Whom it follows, itself if it leads.
    voted_for : str or None
        Whom it voted for in this term.
    commit_index, applied_index, last_index : int
        How far it knows the log to be committed, has applied it, and holds it.
    peers : dict
        A leader's knowledge of every member, itself included; empty at others.
    conf : ConfState
        The membership in force at the node.
    """

    id: NodeId
    role: Role
    term: Term
    leader: NodeId | None
    voted_for: NodeId | None
    commit_index: Index
    applied_index: Index
    last_index: Index
    peers: dict[NodeId, PeerStatus] = field(default_factory=dict)
    conf: ConfState = field(default_factory=ConfState)


def status_of(raft: State) -> RaftStatus:
    """Return what a node shows of itself."""
    log = raft.log
    peers = {}
    if raft.is_leader:
        peers = {node: peer_status(progress) for node, progress in raft.tracker.progress.items()}
    return RaftStatus(
        id=raft.id,
        role=raft.role,
        term=raft.term,
        leader=raft.leader,
        voted_for=raft.vote,
        commit_index=log.commit,
        applied_index=log.applied,
        last_index=log.last,
        peers=peers,
        conf=raft.tracker.conf,
    )
