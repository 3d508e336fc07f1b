"""How a node becomes follower, candidate and leader, and when.

Law: a node grants at most one vote a term, and only to a candidate whose log is at least as good as its
own (Raft paper, 5.4.1); the vote is on disk before it is heard of.

Before it raises its term a node asks whether it could win (pre-vote, thesis 9.6); who has heard a leader
within the shortest time-out does not answer candidates (thesis 4.2.3), and a leader that hears from no
quorum steps down (6.2). So a node that was cut off disturbs nobody when it comes back.
"""

from __future__ import annotations

import math

from agentflow.core.raft import reads, replication
from agentflow.core.raft.events import (
    CampaignRefused,
    ElectionStarted,
    LeaderForgotten,
    LeaderKept,
    QuorumLost,
    Role,
    RoleChanged,
    TimeoutNowReceived,
    TimeoutNowSent,
    TransferAborted,
    TransferIgnored,
    TransferStarted,
    VoteCounted,
    Voted,
    VoteIgnored,
    VoteRequested,
)
from agentflow.core.raft.messages import EntryKind, Message, MessageType
from agentflow.core.raft.quorum import VoteResult
from agentflow.core.raft.state import State
from agentflow.errors import InvalidConfig, NotLeader
from agentflow.ids import NodeId, Term

TRANSFER_CONTEXT = b"CampaignTransfer"
"""Marks a request for votes that a leader itself asked for: no lease stands against it."""

VOTE, PRE_VOTE = MessageType.VOTE, MessageType.PRE_VOTE
VOTE_RESP, PRE_VOTE_RESP = MessageType.VOTE_RESP, MessageType.PRE_VOTE_RESP


# --- time -------------------------------------------------------------------------------------------------


def deadline(raft: State) -> float:
    """Return when something happens if nobody speaks."""
    if raft.role is Role.LEADER:
        return min(raft.heartbeat_due, raft.election_base + raft.config.election_timeout)
    if not raft.is_promotable:
        return math.inf
    return raft.election_base + raft.election_timeout


def wake(raft: State) -> None:
    """Do what is due: a heartbeat and a look at the quorum as a leader, else an election."""
    now = raft.now
    if raft.role is not Role.LEADER:
        if raft.is_promotable and now >= raft.election_base + raft.election_timeout:
            raft.election_base = now
            campaign_if_allowed(raft, cause="timeout")
        return
    if now >= raft.election_base + raft.config.election_timeout:
        raft.election_base = now
        if raft.config.check_quorum and not check_quorum(raft):
            return
        # Who could not take over within one time-out will not (thesis 3.10).
        if raft.heir is not None:
            abort_transfer(raft, "timeout")
    if now >= raft.heartbeat_due:
        raft.heartbeat_due = now + raft.config.heartbeat_interval
        reads.broadcast_heartbeat(raft)


def stall(raft: State, seconds: float) -> None:
    """Discount time in which the host stood still: silence then proves nothing about others.

    Leases are counted from when heartbeats were sent, and are not moved.
    """
    raft.election_base = min(raft.election_base + seconds, raft.now)


def redraw(raft: State) -> None:
    """Draw the next time-out, so that candidates seldom meet (Raft paper, 5.2)."""
    low, high = raft.config.election_spread
    raft.election_timeout = raft.config.election_timeout * (low + (high - low) * raft.random.random())


def check_quorum(raft: State) -> bool:
    """Step down if no quorum was heard from since the last look; True if one was."""
    active = raft.tracker.is_quorum_active()
    if not active:
        raft.events.append(QuorumLost(raft.term))
        become_follower(raft, raft.term, None, cause="check-quorum")
    for node, progress in raft.tracker.progress.items():
        if node != raft.id:
            progress.is_active = False
    return active


# --- becoming ---------------------------------------------------------------------------------------------


def _reset(raft: State, term: Term) -> None:
    if raft.term != term:
        raft.term = term
        raft.vote = None
    raft.leader = None
    raft.election_base = raft.now
    raft.heartbeat_due = raft.now + raft.config.heartbeat_interval
    redraw(raft)
    raft.heir = None
    raft.lease_forfeited = False
    raft.tracker.restart(raft.id, raft.log.last)
    raft.pending_config_index = 0
    raft.uncommitted_bytes = 0
    reads.forget(raft)


def become_follower(raft: State, term: Term, leader: NodeId | None, *, cause: str) -> None:
    """Follow `leader` in `term`, or whoever turns up."""
    _reset(raft, term)
    raft.leader = leader
    raft.role = Role.FOLLOWER
    raft.events.append(RoleChanged(Role.FOLLOWER, term, leader, cause))


def _become_candidate(raft: State, cause: str) -> None:
    assert raft.role is not Role.LEADER, "a leader does not campaign"
    _reset(raft, raft.term + 1)
    raft.vote = raft.id
    raft.role = Role.CANDIDATE
    raft.events.append(RoleChanged(Role.CANDIDATE, raft.term, None, cause))


def _become_pre_candidate(raft: State, cause: str) -> None:
    """Ask around without touching term or vote: nothing is at stake yet."""
    assert raft.role is not Role.LEADER, "a leader does not campaign"
    raft.tracker.votes = {}
    raft.leader = None
    raft.role = Role.PRE_CANDIDATE
    reads.forget(raft)
    raft.events.append(RoleChanged(Role.PRE_CANDIDATE, raft.term, None, cause))


def _become_leader(raft: State) -> None:
    assert raft.role is not Role.FOLLOWER, "a follower is not elected"
    _reset(raft, raft.term)
    raft.leader = raft.id
    raft.role = Role.LEADER
    own = raft.tracker.progress[raft.id]
    own.become_replicate()
    own.is_active = True
    # There may be a membership change in the tail that was inherited; none is proposed until all of it is
    # applied. Searching the tail would cost more than it gains.
    raft.pending_config_index = raft.log.last
    replication.append(raft, [(b"", EntryKind.NORMAL)])
    raft.events.append(RoleChanged(Role.LEADER, raft.term, raft.id, "vote"))


# --- campaigning ------------------------------------------------------------------------------------------


def campaign_if_allowed(raft: State, *, cause: str) -> bool:
    """Start an election unless the node leads, may not, or has a membership change to apply first."""
    if raft.role is Role.LEADER:
        refusal = "leader"
    elif not raft.is_promotable:
        refusal = "unpromotable"
    elif raft.log.has_unapplied_change():
        # Configurations take force when they are applied: a node that is behind could count two majorities.
        refusal = "pending-config"
    else:
        raft.events.append(ElectionStarted(raft.term, cause))
        _campaign(raft, cause, pre_vote=raft.config.pre_vote and cause != "transfer")
        return True
    _refuse_campaign(raft, refusal)
    return False


def campaign_on_request(raft: State) -> None:
    """Campaign because somebody said so, unless a leader's lease may rest on this node's patience."""
    if raft.config.lease_reads and raft.role is Role.FOLLOWER and sticks_to_leader(raft):
        _refuse_campaign(raft, "lease")
    else:
        campaign_if_allowed(raft, cause="campaign")


def _refuse_campaign(raft: State, reason: str) -> None:
    raft.events.append(CampaignRefused(raft.term, reason))


def _campaign(raft: State, cause: str, *, pre_vote: bool) -> None:
    if pre_vote:
        _become_pre_candidate(raft, cause)
        kind, response, term = PRE_VOTE, PRE_VOTE_RESP, raft.term + 1
    else:
        _become_candidate(raft, cause)
        kind, response, term = VOTE, VOTE_RESP, raft.term
    log, me = raft.log, raft.id
    context = TRANSFER_CONTEXT if cause == "transfer" else b""
    for voter in raft.tracker.voters:
        if voter == me:
            # The candidate's own vote counts when it is on disk, like everybody's.
            raft.post(Message(response, me, me, term))
            continue
        raft.events.append(VoteRequested(voter, raft.term, pre_vote, log.last_term, log.last))
        raft.post(Message(kind, voter, me, term, log.last_term, log.last, context=context))


def take_vote_response(raft: State, message: Message) -> None:
    """Count an answer: each voter's first, in this very campaign."""
    pre_vote = raft.role is Role.PRE_CANDIDATE
    raft.tracker.record_vote(message.source, not message.reject)
    granted, rejected, result = raft.tracker.tally()
    raft.events.append(
        VoteCounted(
            term=raft.term,
            voter=message.source,
            granted=not message.reject,
            votes=granted,
            voters=len(raft.tracker.voters),
            pre_vote=pre_vote,
            rejections=rejected,
        )
    )
    if result is VoteResult.WON:
        if pre_vote:
            _campaign(raft, "pre-vote", pre_vote=False)
        else:
            _become_leader(raft)
            replication.broadcast(raft)
    elif result is VoteResult.LOST:
        become_follower(raft, raft.term, None, cause="lost")


# --- voting -----------------------------------------------------------------------------------------------


def sticks_to_leader(raft: State) -> bool:
    """Whether a leader was heard within the shortest time-out, so that candidates get no answer."""
    config = raft.config
    if not config.check_quorum:
        return False
    if raft.role is Role.LEADER:
        return True
    if config.lease_reads:
        # Somebody's lease may rest on this node even if it forgot whom it followed, or was restarted.
        return raft.now < raft.heard_at + config.shortest_election_timeout
    return raft.leader is not None and raft.now < raft.election_base + config.shortest_election_timeout


def ignores_candidate(raft: State, message: Message) -> bool:
    """Whether a request for a vote goes unanswered because a leader was heard lately."""
    if message.context == TRANSFER_CONTEXT or not sticks_to_leader(raft):
        return False
    log = raft.log
    raft.events.append(
        VoteIgnored(
            term=raft.term,
            candidate=message.source,
            pre_vote=message.type is PRE_VOTE,
            remaining=raft.election_base + raft.config.shortest_election_timeout - raft.now,
            vote=raft.vote,
            log_term=log.last_term,
            index=log.last,
            candidate_log_term=message.log_term,
            candidate_index=message.index,
        )
    )
    return True


def answer_candidate(raft: State, message: Message) -> None:
    """Grant or refuse a vote in the node's own term, or a pre-vote for a later one.

    Learners vote too: a learner may have been promoted and not know it yet.
    """
    pre_vote = message.type is PRE_VOTE
    may_vote = (
        raft.vote == message.source
        or (raft.vote is None and raft.leader is None)
        or (pre_vote and message.term > raft.term)
    )
    granted = may_vote and raft.log.is_up_to_date(message.index, message.log_term)
    _note_vote(raft, message, granted)
    response = PRE_VOTE_RESP if pre_vote else VOTE_RESP
    # A granted pre-vote echoes the term asked for; a refusal brings the node's own.
    term = message.term if granted else raft.term
    raft.post(Message(response, message.source, raft.id, term, reject=not granted))
    if granted and not pre_vote:
        raft.election_base = raft.now
        raft.vote = message.source


def refuse_late_pre_vote(raft: State, message: Message) -> None:
    """Tell a pre-candidate of a lower term about the higher one, or both could wait for ever."""
    _note_vote(raft, message, False)
    raft.post(Message(PRE_VOTE_RESP, message.source, raft.id, raft.term, reject=True))


def _note_vote(raft: State, message: Message, granted: bool) -> None:
    log = raft.log
    raft.events.append(
        Voted(
            term=raft.term,
            candidate=message.source,
            granted=granted,
            pre_vote=message.type is PRE_VOTE,
            vote=raft.vote,
            log_term=log.last_term,
            index=log.last,
            candidate_log_term=message.log_term,
            candidate_index=message.index,
        )
    )


def forget_leader(raft: State) -> None:
    """Forget whom the node follows, not its term; without effect where a lease may rest on it."""
    if raft.role is not Role.FOLLOWER:
        return
    if raft.config.lease_reads:
        raft.events.append(LeaderKept(raft.leader, raft.term))
        return
    if raft.leader is None:
        return
    raft.events.append(LeaderForgotten(raft.leader, raft.term))
    raft.leader = None


# --- handing over -----------------------------------------------------------------------------------------


def transfer_on_request(raft: State, to: NodeId) -> None:
    """Begin a transfer for the node's own user, or say why not."""
    if raft.role is not Role.LEADER:
        hint = f"ask {raft.leader}" if raft.leader else "retry later"
        raise NotLeader(f"{raft.id} has no leadership to hand over; {hint}", leader=raft.leader)
    voters = raft.tracker.voters
    if to not in voters:
        raise InvalidConfig(f"{to} is no voter and cannot lead; name one of {', '.join(voters)}", field="to")
    transfer(raft, to)


def transfer(raft: State, to: NodeId) -> None:
    """Begin to hand leadership to `to`: take no more proposals, bring it up to date, let it campaign."""
    progress = raft.tracker.progress.get(to)
    if progress is None or progress.is_learner:
        raft.events.append(TransferIgnored(raft.term, to, "learner" if progress else "stranger"))
        return
    if raft.heir == to:
        raft.events.append(TransferIgnored(raft.term, to, "same"))
        return
    if raft.heir is not None:
        abort_transfer(raft, "superseded")
    if to == raft.id:
        raft.events.append(TransferIgnored(raft.term, to, "self"))
        return
    raft.events.append(TransferStarted(raft.term, to))
    raft.election_base = raft.now
    raft.heir = to
    if progress.match == raft.log.last:
        replication.send_timeout_now(raft, to)
        raft.events.append(TimeoutNowSent(to, immediately=True))
    else:
        replication.send_append(raft, to, progress)


def abort_transfer(raft: State, reason: str) -> None:
    """Give a transfer up; proposals are taken again."""
    assert raft.heir is not None
    raft.events.append(TransferAborted(raft.term, raft.heir, reason))
    raft.heir = None


def inherit(raft: State, source: NodeId) -> None:
    """Campaign at once because the leader said so; without pre-vote, for nobody was cut off."""
    raft.events.append(TimeoutNowReceived(raft.term, source))
    campaign_if_allowed(raft, cause="transfer")
