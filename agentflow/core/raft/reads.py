"""Heartbeats, and the linearizable reads they prove.

Law: see `readqueue`. Before its own no-op is committed a new leader does not know which entries are, so
reads wait for that (thesis 6.4).
"""

from __future__ import annotations

from agentflow.core.raft.events import ReadsDropped
from agentflow.core.raft.messages import Entry, Message, MessageType
from agentflow.core.raft.quorum import VoteResult
from agentflow.core.raft.readqueue import ReadQueue
from agentflow.core.raft.ready import ReadState
from agentflow.core.raft.state import State
from agentflow.errors import NotLeader
from agentflow.ids import Index, NodeId

HEARTBEAT = MessageType.HEARTBEAT
READ_INDEX, READ_INDEX_RESP = MessageType.READ_INDEX, MessageType.READ_INDEX_RESP


def broadcast_heartbeat(raft: State, key: bytes | None = None) -> None:
    """Tell every member that this leader lives, and how far it is committed *there*.

    The commit index is cut at what the member is known to hold: beyond that its log may be another's.
    """
    reads = raft.reads
    if key is None:
        key = reads.newest
    if reads.uses_lease:
        reads.begin_round(raft.now, raft.now - raft.config.election_timeout)
    context = reads.stamp(key)
    me, term, commit, outbox = raft.id, raft.term, raft.log.commit, raft.outbox
    for node, progress in raft.tracker.progress.items():
        if node == me:
            continue
        known = progress.match if progress.match < commit else commit
        outbox.append(Message(HEARTBEAT, node, me, term, commit=known, context=context))
        progress.sent_commit = known


def ask(raft: State, context: bytes) -> None:
    """Serve this node's own read, or pass it to the leader."""
    if raft.is_leader:
        serve(raft, raft.id, context)
        return
    if raft.leader is None:
        raise NotLeader(f"{raft.id} knows no leader in term {raft.term}; ask again", leader=None)
    raft.reads.forwarded[context] = None
    raft.post(Message(READ_INDEX, raft.leader, raft.id, entries=(Entry(0, 0, context),)))


def serve(raft: State, source: NodeId, context: bytes) -> None:
    """Answer a read as the leader, now or when it is proved that this still is one."""
    if not has_committed_own(raft):
        raft.reads.early.append((source, context))
    elif raft.tracker.is_singleton:
        answer(raft, source, context, raft.log.commit)
    else:
        start(raft, source, context)


def start(raft: State, source: NodeId, context: bytes) -> None:
    """Answer under the lease if it holds, else ask a quorum."""
    if has_lease(raft):
        answer(raft, source, context, raft.log.commit)
        return
    key = raft.reads.add(source, context, raft.log.commit)
    raft.reads.ack(raft.id, key)
    broadcast_heartbeat(raft, key)


def start_early(raft: State) -> None:
    """Take up the reads that waited for the first commit of this term."""
    early = raft.reads.early
    if early and has_committed_own(raft):
        raft.reads.early = []
        for source, context in early:
            serve(raft, source, context)


def acknowledge(raft: State, source: NodeId, context: bytes) -> None:
    """Count a follower's answer to a heartbeat; answer the reads that it proves."""
    if not context:
        return
    reads = raft.reads
    key = reads.unstamp(source, context)
    if not key:
        return
    acks = reads.ack(source, key)
    if acks is None or raft.tracker.decides(acks) is not VoteResult.WON:
        return
    for read in reads.release(key):
        answer(raft, read.source, read.context, read.index)


def answer(raft: State, source: NodeId, context: bytes, index: Index) -> None:
    """Give a read its index, here or at the follower that asked."""
    if source == raft.id:
        raft.read_states.append(ReadState(context, index))
    else:
        entries = (Entry(0, 0, context),)
        raft.post(Message(READ_INDEX_RESP, source, raft.id, raft.term, index=index, entries=entries))


def take_answer(raft: State, message: Message) -> None:
    """Take the leader's answer to a read that was passed on; a second copy means nothing."""
    for entry in message.entries:
        if entry.data in raft.reads.forwarded:
            del raft.reads.forwarded[entry.data]
            raft.read_states.append(ReadState(entry.data, message.index))


def has_committed_own(raft: State) -> bool:
    """Whether the leader has committed an entry of its own term."""
    return raft.log.term(raft.log.commit) == raft.term


def has_lease(raft: State) -> bool:
    """Whether no other leader can have been elected yet (thesis 6.4.1).

    Given up for the rest of the term once an heir was told to campaign: its request for votes is heeded by
    all, lease or not, and may come late.
    """
    if not raft.config.lease_reads or raft.lease_forfeited:
        return False
    heard = {**raft.reads.heard, raft.id: raft.now}
    return raft.now < raft.tracker.heard_since(heard) + raft.config.lease


def forget(raft: State) -> None:
    """Drop all reads: leadership, or the leader they were passed to, is gone."""
    lost = raft.reads.lost(raft.id)
    if lost:
        raft.events.append(ReadsDropped(raft.term, tuple(lost), "deposed"))
        raft.lost_reads.extend(lost)
    raft.reads = ReadQueue(raft.config.lease_reads)
