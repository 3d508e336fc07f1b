"""What a follower does with its leader's messages.

Law: an append is acknowledged only if the entry before it agrees, and then entries are cut off only where
the leader's contradict them (Raft paper, 5.3); a heartbeat moves the commit index only as far as the
leader knows this log to agree.
"""

from __future__ import annotations

from agentflow.core.raft import membership
from agentflow.core.raft.events import (
    AppendRejected,
    CommitAdvanced,
    SnapshotIgnored,
    SnapshotInstalled,
    SnapshotReceived,
)
from agentflow.core.raft.messages import Message, MessageType, Snapshot
from agentflow.core.raft.state import State

APP_RESP, HEARTBEAT_RESP = MessageType.APP_RESP, MessageType.HEARTBEAT_RESP


def take_append(raft: State, message: Message) -> None:
    """Take a leader's entries, or say where the logs might agree."""
    log, leader, prev = raft.log, message.source, message.index
    committed = log.commit
    if prev < committed:
        raft.after.append(Message(APP_RESP, leader, raft.id, raft.term, index=committed))
        return
    agreed = log.maybe_append(prev, message.log_term, message.entries, message.commit)
    if agreed is not None:
        raft.after.append(Message(APP_RESP, leader, raft.id, raft.term, index=agreed))
        if log.commit != committed:
            raft.events.append(CommitAdvanced(log.commit, raft.term))
        return
    raft.events.append(AppendRejected(leader, prev, message.log_term, log.term(prev) or 0))
    # Everything the leader has up to here is of its term there or below, so look for that on our side.
    hint, hint_term = log.conflict_by_term(min(prev, log.last), message.log_term)
    raft.post(
        Message(
            APP_RESP,
            leader,
            raft.id,
            raft.term,
            log_term=hint_term,
            index=prev,
            reject=True,
            reject_hint=hint,
        )
    )


def take_heartbeat(raft: State, message: Message) -> None:
    """Learn the commit index, and say that this node lives."""
    if message.commit > raft.log.commit:
        raft.log.commit_to(message.commit)
        raft.events.append(CommitAdvanced(message.commit, raft.term))
    raft.outbox.append(Message(HEARTBEAT_RESP, message.source, raft.id, raft.term, context=message.context))


def take_snapshot(raft: State, message: Message) -> None:
    """Install a leader's snapshot unless it brings nothing new; say how far the log reaches now.

    Its configuration need not name this node: a member that was added since learns of that from the
    entries that follow.
    """
    snapshot = message.snapshot or Snapshot()
    installed = _restore(raft, snapshot)
    index = raft.log.last if installed else raft.log.commit
    raft.post(Message(APP_RESP, message.source, raft.id, raft.term, index=index))


def _restore(raft: State, snapshot: Snapshot) -> bool:
    log = raft.log
    reason, own_commit = "", log.commit
    if snapshot.index <= log.commit:
        reason = "old"
    elif log.matches(snapshot.index, snapshot.term):
        # The log has it all: the snapshot proves that it is committed, and no more is needed.
        reason = "known"
        log.commit_to(snapshot.index)
        raft.events.append(CommitAdvanced(snapshot.index, raft.term))
    if reason:
        raft.events.append(
            SnapshotIgnored(
                snapshot.index, snapshot.term, reason, own_commit, log.commit, log.last, log.last_term
            )
        )
        return False
    raft.events.append(
        SnapshotReceived(
            index=snapshot.index,
            term=snapshot.term,
            commit=log.commit,
            applied=log.applied,
            applying=log.applying,
            stable=log.stable,
            handed=log.handed,
            unstable=log.last - log.stable,
        )
    )
    log.restore(snapshot)
    raft.pending_snapshot = None
    membership.restore(raft, snapshot.conf, snapshot.index)
    raft.events.append(SnapshotInstalled(snapshot.index, snapshot.term, log.commit, log.last, log.last_term))
    return True
