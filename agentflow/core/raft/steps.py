"""What a node does with a message from another member, or from itself.

Law: no message changes anything before its term was compared with the node's own. A higher term makes
the node a follower in it, with two exceptions: a candidate that is not heeded because a leader was heard
lately, and pre-votes, which speak of a term that nobody has entered yet. A lower term is answered only
where silence could leave its sender stuck.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from agentflow.core.raft import elections, following, proposals, reads, replication
from agentflow.core.raft.events import HigherTermSeen, MessageIgnored, Role
from agentflow.core.raft.messages import Message, MessageType
from agentflow.core.raft.state import State

_T = MessageType
APP, HEARTBEAT, SNAP, APP_RESP = _T.APP, _T.HEARTBEAT, _T.SNAP, _T.APP_RESP
VOTE, PRE_VOTE, PRE_VOTE_RESP = _T.VOTE, _T.PRE_VOTE, _T.PRE_VOTE_RESP
FROM_LEADER = frozenset({APP, HEARTBEAT, SNAP})
RESPONSES = frozenset({APP_RESP, _T.VOTE_RESP, _T.HEARTBEAT_RESP, _T.READ_INDEX_RESP, PRE_VOTE_RESP})
TERMLESS = frozenset({_T.PROP, _T.READ_INDEX})
"""What is asked of whoever leads, in whatever term."""
SPOKEN = RESPONSES | FROM_LEADER | {VOTE, PRE_VOTE, _T.TIMEOUT_NOW, _T.TRANSFER_LEADER}
"""What members say to one another under a term; anything else with a term is nobody's."""

Step: TypeAlias = Callable[[State, Message], None]


def receive(raft: State, message: Message) -> None:
    """Take a message that came over the network."""
    assert message.to == raft.id, f"a message to {message.to} reached {raft.id}"
    if message.type in RESPONSES and message.source not in raft.tracker.progress:
        ignore(raft, message, "stranger")
    else:
        step(raft, message)


def step(raft: State, message: Message) -> None:
    """Bring the term up to date, then do what a node of this role does with such a message."""
    kind, term = message.type, message.term
    if term != raft.term and (term or kind not in TERMLESS):
        if term < raft.term:
            _take_lower(raft, message)
            return
        if not _take_higher(raft, message):
            return
    act = STEPS[raft.role].get(kind)
    if act is not None:
        act(raft, message)


def _take_higher(raft: State, message: Message) -> bool:
    """Move to a higher term; False if the message must not be heeded."""
    kind = message.type
    if kind is VOTE or kind is PRE_VOTE:
        if elections.ignores_candidate(raft, message):
            return False
        if kind is PRE_VOTE:
            return True
    elif kind is PRE_VOTE_RESP and not message.reject:
        # Granted for the term to come; the node's own term follows when a quorum has granted it.
        return True
    elif kind not in SPOKEN:
        return False
    raft.events.append(HigherTermSeen(raft.term, message.source, kind, message.term))
    leader = message.source if kind in FROM_LEADER else None
    elections.become_follower(raft, message.term, leader, cause="higher-term")
    return True


def _take_lower(raft: State, message: Message) -> None:
    kind = message.type
    if (kind is HEARTBEAT or kind is APP) and (raft.config.check_quorum or raft.config.pre_vote):
        # A leader of a lower term does not learn of ours from votes that are not asked for, or are
        # ignored; without this answer the node could neither follow it nor replace it.
        raft.post(Message(APP_RESP, message.source, raft.id, raft.term))
    elif kind is PRE_VOTE:
        elections.refuse_late_pre_vote(raft, message)
    else:
        ignore(raft, message, "lower-term")


def ignore(raft: State, message: Message, reason: str) -> None:
    """Note that a message was dropped, and why."""
    raft.events.append(MessageIgnored(raft.term, message.source, message.type, message.term, reason))


def _follow(raft: State, message: Message) -> None:
    raft.election_base = raft.heard_at = raft.now
    raft.leader = message.source
    _FOLLOWING[message.type](raft, message)


def _give_way(raft: State, message: Message) -> None:
    """Another candidate has won this term."""
    elections.become_follower(raft, message.term, message.source, cause="append")
    raft.heard_at = raft.now
    _FOLLOWING[message.type](raft, message)


def _take_append_response(raft: State, message: Message) -> None:
    if message.source in raft.tracker.progress:
        replication.take_append_response(raft, message)
    else:
        ignore(raft, message, "no-progress")


def _serve_read(raft: State, message: Message) -> None:
    for entry in message.entries:
        reads.serve(raft, message.source, entry.data)


def _take_transfer(raft: State, message: Message) -> None:
    if message.vote is not None:
        elections.transfer(raft, message.vote)


def _take_timeout_now(raft: State, message: Message) -> None:
    elections.inherit(raft, message.source)


def _ignore_by_role(raft: State, message: Message) -> None:
    ignore(raft, message, raft.role.value)


_FOLLOWING: dict[MessageType, Step] = {
    APP: following.take_append,
    HEARTBEAT: following.take_heartbeat,
    SNAP: following.take_snapshot,
}

_ANY_ROLE: dict[MessageType, Step] = {
    VOTE: elections.answer_candidate,
    PRE_VOTE: elections.answer_candidate,
    _T.PROP: proposals.take_proposal,
}

_CANDIDATE: dict[MessageType, Step] = {
    **_ANY_ROLE,
    APP: _give_way,
    HEARTBEAT: _give_way,
    SNAP: _give_way,
    _T.TIMEOUT_NOW: _ignore_by_role,
}

STEPS: dict[Role, dict[MessageType, Step]] = {
    Role.FOLLOWER: {
        **_ANY_ROLE,
        APP: _follow,
        HEARTBEAT: _follow,
        SNAP: _follow,
        _T.TIMEOUT_NOW: _take_timeout_now,
        _T.READ_INDEX_RESP: reads.take_answer,
        _T.READ_INDEX: _ignore_by_role,
        _T.TRANSFER_LEADER: _ignore_by_role,
    },
    # A candidate counts only answers to what it asks now; others are left over from its pre-vote.
    Role.PRE_CANDIDATE: {**_CANDIDATE, PRE_VOTE_RESP: elections.take_vote_response},
    Role.CANDIDATE: {**_CANDIDATE, _T.VOTE_RESP: elections.take_vote_response},
    Role.LEADER: {
        **_ANY_ROLE,
        APP_RESP: _take_append_response,
        _T.HEARTBEAT_RESP: replication.take_heartbeat_response,
        _T.READ_INDEX: _serve_read,
        _T.TRANSFER_LEADER: _take_transfer,
    },
}
"""What a node of each role does with each kind of message; anything else it ignores in silence."""
