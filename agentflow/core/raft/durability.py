"""What became of writes and of applied entries: the answers of the disk and of the state machine.

Law: the node hears its own promises, its vote and its acknowledgement, when they are on disk, in the order
in which they were written; what a failed disk lost was promised to nobody.
"""

from __future__ import annotations

from agentflow.core.machine import Persisted, PersistFailed
from agentflow.core.raft import elections, membership, steps
from agentflow.core.raft.events import Role, WriteOvertaken
from agentflow.core.raft.inputs import Applied, ApplyConfig, Compact
from agentflow.core.raft.log import payload_size
from agentflow.core.raft.messages import EntryKind, Snapshot
from agentflow.core.raft.state import PendingWrite, State
from agentflow.errors import InvalidConfig
from agentflow.ids import Index

NORMAL = EntryKind.NORMAL


def persisted(raft: State, event: Persisted) -> None:
    """Take a write, and with it all that were handed out before it, for durable."""
    writes = raft.writes
    while writes and writes[0].id <= event.id:
        write = writes.popleft()
        for promise in write.promises:
            steps.step(raft, promise)
        settle(raft, write)


def settle(raft: State, write: PendingWrite) -> None:
    """Note what of the log is on disk now.

    If the term has changed since, entries may have been replaced, and even put back, by writes that are
    still under way; a later write will vouch for them (the ABA problem).
    """
    if write.last_index:
        if write.term == raft.term:
            raft.log.stable_to(write.last_index, write.last_term)
        else:
            raft.events.append(WriteOvertaken(write.last_index, write.term, "term", found=raft.term))
    if write.snapshot:
        raft.log.installed(write.snapshot)
        _apply_to(raft, max(write.snapshot, raft.log.applied))


def persist_failed(raft: State, event: PersistFailed) -> None:
    """Step down and fall silent: nothing this node holds in memory can be promised any more."""
    raft.failure = event.reason
    raft.writes.clear()
    if raft.role is not Role.FOLLOWER or raft.leader is not None:
        elections.become_follower(raft, raft.term, None, cause="disk")
    raft.outbox.clear()
    raft.after.clear()


def applied(raft: State, event: Applied) -> None:
    """Note how far the state machine has come; while a snapshot is being installed that means nothing."""
    if event.index > raft.log.applied and raft.log.incoming is None:
        assert event.index <= raft.log.applying, "only what was handed out is applied"
        _apply_to(raft, event.index)


def _apply_to(raft: State, index: Index) -> None:
    log = raft.log
    start = max(log.applied, log.base) + 1
    if index >= start:
        entries = log.entries(start, index + 1)
        for entry in entries:
            if entry.kind is not NORMAL and entry.index > raft.conf_history[-1][0]:
                membership.apply_entry(raft, entry)
        if raft.uncommitted_bytes:
            raft.uncommitted_bytes = max(raft.uncommitted_bytes - payload_size(entries), 0)
    log.applied_to(index)
    if raft.tracker.conf.auto_leave:
        membership.leave_joint_if_due(raft)


def apply_config(raft: State, event: ApplyConfig) -> None:
    """Put one membership change in force ahead of the batch it belongs to."""
    index = event.index
    if index > max(raft.conf_history[-1][0], raft.log.applied):
        assert index <= raft.log.applying, "only what was handed out is applied"
        (entry,) = raft.log.entries(index, index + 1)
        membership.apply_entry(raft, entry)


def compact(raft: State, event: Compact) -> None:
    """Keep a snapshot of the node's own state; an older one than the newest changes nothing."""
    log, index = raft.log, event.index
    if index > log.applied:
        raise InvalidConfig(
            f"{raft.id} has applied up to {log.applied}, so there is no state at {index} to keep; "
            "use an applied index",
            field="index",
        )
    if index <= log.snapshot.index or log.incoming is not None:
        return
    conf = membership.conf_at(raft, index)
    log.snapshot = raft.pending_snapshot = Snapshot(index, log.term(index) or 0, conf, event.data)
    log.compact(index - event.keep)
    raft.conf_history = [(index, conf), *[change for change in raft.conf_history if change[0] > index]]
