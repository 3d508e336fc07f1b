"""How the membership changes.

Law: a change takes force at a node when that node applies it, and one at a time: none is proposed before
the leader has applied the one before. (The thesis, 4.1, puts changes in force when they are appended;
like etcd we wait until they are committed, so that a change need never be taken back. The price is that a
node must not campaign while a committed change waits to be applied: `elections` sees to that.)
"""

from __future__ import annotations

from agentflow.core.raft import elections, reads, replication
from agentflow.core.raft.confchange import (
    ConfigChange,
    Outcome,
    apply_change,
    decode_change,
    members,
)
from agentflow.core.raft.events import AutoLeave, ConfigChanged, ConfigIgnored, ProposalDropped
from agentflow.core.raft.messages import ConfState, Entry, EntryKind
from agentflow.core.raft.state import State
from agentflow.errors import InvalidConfig
from agentflow.ids import Index


def restore(raft: State, conf: ConfState, index: Index) -> None:
    """Put a stored configuration in force; nothing is known of anybody's log."""
    raft.tracker.progress = {}
    raft.tracker.switch(Outcome(conf, frozenset(members(conf))), raft.log.last)
    raft.conf_history = [(index, conf)]
    raft.events.append(ConfigChanged(index, conf))


def apply_entry(raft: State, entry: Entry) -> None:
    """Put the change that a committed entry carries in force."""
    outcome = apply_change(raft.tracker.conf, decode_change(entry.data))
    raft.conf_history.append((entry.index, outcome.conf))
    _switch(raft, outcome, entry.index)


def _switch(raft: State, outcome: Outcome, index: Index) -> None:
    raft.tracker.switch(outcome, raft.log.last)
    raft.events.append(ConfigChanged(index, outcome.conf))
    if not raft.is_leader:
        return
    own = raft.tracker.progress.get(raft.id)
    if own is None or own.is_learner:
        # A leader that is no member any more manages the log without counting itself until the change is
        # committed, and it is by now (thesis 4.2.2).
        if raft.config.step_down_on_removal:
            elections.become_follower(raft, raft.term, None, cause="removed")
        return
    if replication.advance_commit(raft):
        reads.start_early(raft)
        replication.broadcast(raft)
    else:
        # Do not let new members wait for the next heartbeat.
        for node, progress in raft.tracker.progress.items():
            if node != raft.id:
                replication.send_append(raft, node, progress, if_empty=False)
    if raft.heir is not None and raft.heir not in raft.tracker.voters:
        elections.abort_transfer(raft, "removed")


def objection(raft: State, change: ConfigChange) -> str:
    """Return why a change must not be proposed now: `pending`, `joint`, `not-joint`, or nothing."""
    if raft.config.disable_config_validation:
        return ""
    if raft.pending_config_index > raft.log.applied:
        return "pending"
    is_joint = bool(raft.tracker.conf.voters_outgoing)
    leaves = not change.changes
    if is_joint and not leaves:
        return "joint"
    return "not-joint" if leaves and not is_joint else ""


def _objection_to(raft: State, data: bytes) -> str:
    """Return why a change that was passed on must not be appended; it could not be refused any more."""
    change = decode_change(data)
    reason = objection(raft, change)
    if not reason and not raft.config.disable_config_validation:
        try:
            apply_change(raft.tracker.conf, change)
        except InvalidConfig:
            return "impossible"
    return reason


def check_draft(raft: State, offset: int, data: bytes, kind: EntryKind) -> tuple[bytes, EntryKind]:
    """Return what is appended for a proposal that was passed on: an empty entry if it must not be.

    Parameters
    ----------
    offset : int
        Its place among the entries that are proposed together, from 1.
    """
    if kind is EntryKind.NORMAL:
        return data, kind
    index = raft.log.last + offset
    reason = _objection_to(raft, data)
    if reason:
        pending, applied = raft.pending_config_index, raft.log.applied
        entry = Entry(index, raft.term, data, kind)
        raft.events.append(ConfigIgnored(entry, raft.tracker.conf, reason, pending, applied))
        return b"", EntryKind.NORMAL
    raft.pending_config_index = index
    return data, kind


def leave_joint_if_due(raft: State) -> None:
    """Propose to leave a joint configuration that is to be left automatically and is in force."""
    conf = raft.tracker.conf
    if not conf.auto_leave or not raft.is_leader or raft.log.applied < raft.pending_config_index:
        return
    # Refused while leadership is being handed over: then the heir does it, or we ask again later.
    if raft.heir is not None or raft.id not in raft.tracker.progress:
        reason = "transfer" if raft.heir is not None else "removed"
        raft.events.append(ProposalDropped(raft.term, reason, raft.heir))
        raft.events.append(AutoLeave(conf, refused=True))
        return
    raft.pending_config_index = raft.log.last + 1
    replication.append(raft, [(b"", EntryKind.CONF_CHANGE_V2)])
    replication.broadcast(raft)
    raft.events.append(AutoLeave(conf))


def conf_at(raft: State, index: Index) -> ConfState:
    """Return the configuration that was in force when everything up to `index` was applied."""
    for since, conf in reversed(raft.conf_history):
        if since <= index:
            return conf
    raise AssertionError(f"no configuration is known at {index}")
