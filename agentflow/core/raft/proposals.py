"""How commands and membership changes enter the log.

Law: a proposal that this node's own user makes is refused at once, with a reason and before anything
changes, or it is in the leader's log when the call returns (or on its way to the leader, if passing on was
asked for). What becomes of it then only the log can tell.
"""

from __future__ import annotations

from agentflow.core.raft import membership, replication
from agentflow.core.raft.confchange import ConfigChange, apply_change, encode_change
from agentflow.core.raft.events import ProposalDropped, Role
from agentflow.core.raft.messages import Entry, EntryKind, Message, MessageType
from agentflow.core.raft.state import State
from agentflow.errors import InvalidConfig, NotLeader, QueueFull, Refused

PROP = MessageType.PROP

_OBJECTIONS = {
    "pending": "an earlier change is not applied yet",
    "joint": "the joint configuration must be left first",
    "not-joint": "there is no joint configuration to leave",
}


def propose(raft: State, data: tuple[bytes, ...], *, forward: bool) -> None:
    """Append commands, or pass them on; see `Propose`."""
    if not data:
        raise InvalidConfig("a proposal without commands changes nothing; pass at least one", field="data")
    if raft.role is not Role.LEADER:
        _pass_on_own(raft, [(item, EntryKind.NORMAL) for item in data], forward)
        return
    _check_leadership(raft)
    _append(raft, [(item, EntryKind.NORMAL) for item in data])


def propose_config(raft: State, change: ConfigChange, *, forward: bool) -> None:
    """Append a membership change, or pass it on; see `ProposeConfig`."""
    draft = (encode_change(change), EntryKind.CONF_CHANGE_V2)
    if raft.role is not Role.LEADER:
        _pass_on_own(raft, [draft], forward)
        return
    _check_leadership(raft)
    reason = membership.objection(raft, change)
    if reason:
        raise Refused(
            f"{raft.id} cannot change the membership now: {_OBJECTIONS[reason]}; wait until it is and retry",
            reason=reason,
            pending=raft.pending_config_index,
        )
    if not raft.config.disable_config_validation and change.changes:
        # What can be seen to be impossible must not reach the log, where nobody could refuse it.
        apply_change(raft.tracker.conf, change)
    index = raft.log.last + 1
    _append(raft, [draft])
    raft.pending_config_index = index


def take_proposal(raft: State, message: Message) -> None:
    """Take a proposal that was passed on; who passed it on learns nothing of its fate here."""
    reason = _reason_to_drop(raft, message)
    if not reason and raft.role is Role.LEADER:
        drafts = [
            membership.check_draft(raft, offset, entry.data, entry.kind)
            for offset, entry in enumerate(message.entries, 1)
        ]
        if replication.append(raft, drafts):
            replication.broadcast(raft)
            return
        reason = "limit"
    if reason:
        raft.events.append(ProposalDropped(raft.term, reason, raft.heir or raft.leader))
        if message.source == raft.id:
            raise Refused(f"{raft.id} did not take the proposal: {reason}; retry later", reason=reason)
        return
    assert raft.leader is not None
    raft.post(Message(PROP, raft.leader, raft.id, entries=message.entries))


def _reason_to_drop(raft: State, message: Message) -> str:
    if raft.role is Role.LEADER:
        if raft.id not in raft.tracker.progress:
            return "removed"
        return "transfer" if raft.heir is not None else ""
    if raft.leader is None or raft.leader == message.source:
        return "no-leader"
    return "no-forwarding" if raft.config.disable_proposal_forwarding else ""


def _pass_on_own(raft: State, drafts: list[tuple[bytes, EntryKind]], forward: bool) -> None:
    leader = raft.leader
    if leader is None:
        raise NotLeader(f"{raft.id} knows no leader in term {raft.term}; retry later", leader=None)
    if not forward or raft.config.disable_proposal_forwarding:
        raise NotLeader(f"{raft.id} follows {leader}; ask that one", leader=leader)
    entries = tuple([Entry(0, 0, data, kind) for data, kind in drafts])
    raft.post(Message(PROP, leader, raft.id, entries=entries))


def _check_leadership(raft: State) -> None:
    if raft.id not in raft.tracker.progress:
        raise NotLeader(f"{raft.id} leads but was removed; ask the others for the next leader", leader=None)
    if raft.heir is not None:
        raise NotLeader(
            f"{raft.id} is handing leadership to {raft.heir}; ask that one soon", leader=raft.heir
        )


def _append(raft: State, drafts: list[tuple[bytes, EntryKind]]) -> None:
    if not replication.append(raft, drafts):
        limit = raft.config.max_uncommitted_bytes
        raise QueueFull(
            f"{raft.id} holds {raft.uncommitted_bytes} uncommitted bytes of {limit}; retry when some are committed",
            limit=limit,
        )
    replication.broadcast(raft)
