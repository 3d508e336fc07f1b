"""The work of one turn, taken out of a node's state.

Law: what promises leaves only with a write, and waits for it, unless all it rests on is on disk already.

A commit index that moved is no reason to write: it can be learned again. But every write carries it, so
that no entry is on disk without the commit index that was known when it came; a restarted node then still
knows which membership changes it must apply before it may campaign.
"""

from __future__ import annotations

from agentflow.core.machine import Persist
from agentflow.core.raft.events import RaftEvent
from agentflow.core.raft.messages import Entry, HardState, Message, Snapshot, Write
from agentflow.core.raft.ready import ReadState, Ready, SoftState
from agentflow.core.raft.state import PendingWrite, State


def take_ready(raft: State) -> Ready | None:
    """Return what there is to do, once; None if there is nothing."""
    log = raft.log
    committed: tuple[Entry, ...] = ()
    if log.applying < log.commit:
        committed = log.take_appliable(raft.config.apply_before_durable)
    snapshot = log.take_incoming() if log.incoming is not None else None
    direct: tuple[Message, ...] = ()
    if raft.outbox:
        direct = tuple(raft.outbox)
        raft.outbox.clear()
    own: tuple[Message, ...] = ()
    others: tuple[Message, ...] = ()
    if raft.after:
        own, others = _sort_promises(raft)
    term, vote, _ = raft.handed_hard
    persist = None
    if (
        log.handed < log.last
        or own
        or (others and raft.writes)
        or term != raft.term
        or vote != raft.vote
        or snapshot is not None
        or raft.pending_snapshot is not None
    ):
        persist = _write(raft, own, snapshot)
    elif others:
        # All that these rest on is on disk.
        direct, others = direct + others, ()
    soft = None
    if raft.leader != raft.handed_soft.leader or raft.role is not raft.handed_soft.role:
        soft = raft.handed_soft = SoftState(raft.leader, raft.role)
    events: tuple[RaftEvent, ...] = ()
    if raft.events:
        events = tuple(raft.events)
        raft.events.clear()
    reads: tuple[ReadState, ...] = ()
    lost: tuple[bytes, ...] = ()
    if raft.read_states or raft.lost_reads:
        reads, lost = tuple(raft.read_states), tuple(raft.lost_reads)
        raft.read_states, raft.lost_reads = [], []
    # An incoming snapshot always comes with a write.
    if persist or direct or committed or events or soft or reads or lost:
        return Ready(persist, direct, others, snapshot, committed, reads, lost, soft, events)
    return None


def _sort_promises(raft: State) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """Take what waits for the disk: what the node promises itself, and what it promises others."""
    me, after = raft.id, raft.after
    if len(after) == 1:
        promise = after.pop()
        return ((promise,), ()) if promise.to == me else ((), (promise,))
    own = tuple([message for message in after if message.to == me])
    others = () if len(own) == len(after) else tuple([message for message in after if message.to != me])
    after.clear()
    return own, others


def _write(raft: State, own: tuple[Message, ...], incoming: Snapshot | None) -> Persist:
    log = raft.log
    hard = None
    state = (raft.term, raft.vote, log.commit)
    if state != raft.handed_hard:
        hard = HardState(*state)
        raft.handed_hard = state
    entries = log.take_unhanded() if log.handed < log.last else ()
    write = Write(hard, entries, incoming or raft.pending_snapshot)
    raft.pending_snapshot = None
    number = raft.next_write
    raft.next_write = number + 1
    last, last_term = (log.last, log.last_term) if log.stable < log.last else (0, 0)
    installed = incoming.index if incoming is not None else 0
    raft.writes.append(PendingWrite(number, own, raft.term, last, last_term, installed))
    return Persist(number, write)
