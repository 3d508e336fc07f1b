"""How a leader appends, sends, and learns what is committed.

Law: a leader never changes or removes entries of its own log; it counts an index as committed only if the
entry there is of its own term and a quorum has it on disk (Raft paper, 5.4.2). Its own disk counts like any
other: it acknowledges to itself when its write is durable, and no sooner.
"""

from __future__ import annotations

from agentflow.core.raft import reads
from agentflow.core.raft.events import (
    CommitAdvanced,
    PeerUnreachable,
    RejectionReceived,
    SnapshotSent,
    SnapshotSettled,
    SnapshotWithheld,
    TimeoutNowSent,
)
from agentflow.core.raft.log import payload_size
from agentflow.core.raft.messages import Entry, EntryKind, Message, MessageType
from agentflow.core.raft.progress import Progress, ProgressState
from agentflow.core.raft.state import State, peer_status
from agentflow.ids import NodeId

APP, APP_RESP, SNAP = MessageType.APP, MessageType.APP_RESP, MessageType.SNAP
PROBE, REPLICATE, SNAPSHOT = ProgressState.PROBE, ProgressState.REPLICATE, ProgressState.SNAPSHOT


# --- appending --------------------------------------------------------------------------------------------


def append(raft: State, drafts: list[tuple[bytes, EntryKind]]) -> bool:
    """Append entries to the leader's own log; False if the uncommitted tail would grow too long."""
    log, term = raft.log, raft.term
    index = log.last
    entries = tuple(
        [Entry(index + offset, term, data, kind) for offset, (data, kind) in enumerate(drafts, 1)]
    )
    if not _reserve(raft, payload_size(entries)):
        return False
    log.append(entries)
    raft.after.append(Message(APP_RESP, raft.id, raft.id, term, index=log.last))
    return True


def _reserve(raft: State, size: int) -> bool:
    """Count `size` bytes as uncommitted, unless that would pass the limit.

    An empty tail takes a proposal of any size, or it could never be appended; and no-ops weigh nothing.
    """
    limit = raft.config.max_uncommitted_bytes
    pending = raft.uncommitted_bytes
    if limit is not None and pending > 0 and size > 0 and pending + size > limit:
        return False
    raft.uncommitted_bytes = pending + size
    return True


# --- sending ----------------------------------------------------------------------------------------------


def broadcast(raft: State) -> None:
    """Send every member what it lacks, or at least the commit index."""
    me = raft.id
    for node, progress in raft.tracker.progress.items():
        if node != me:
            send_append(raft, node, progress)


def send_append(raft: State, to: NodeId, progress: Progress, *, if_empty: bool = True) -> bool:
    """Send one append to a member unless it is paused; True if something was sent.

    Parameters
    ----------
    if_empty : bool
        Whether a message without entries, which only carries the commit index, is worth sending.
    """
    if progress.is_paused_flow or progress.state is SNAPSHOT:
        return False
    log = raft.log
    start = progress.next
    prev_term = log.term(start - 1)
    if prev_term is None:
        return send_snapshot(raft, to, progress)
    entries: tuple[Entry, ...] = ()
    # Into a full window goes an empty append: if all that filled it was lost, its refusal says so.
    if start <= log.last and (progress.state is not REPLICATE or not progress.inflights.is_full):
        entries = log.entries(start, None, raft.config.max_size_per_message)
    elif not if_empty:
        return False
    commit = log.commit
    raft.outbox.append(Message(APP, to, raft.id, raft.term, prev_term, start - 1, entries, commit))
    progress.sent_entries(len(entries), payload_size(entries) if entries else 0)
    progress.sent_commit = commit
    return True


def send_snapshot(raft: State, to: NodeId, progress: Progress) -> bool:
    """Send the newest snapshot, for the log no longer holds what the member needs."""
    snapshot = raft.log.incoming or raft.log.snapshot
    if not progress.is_active or snapshot.index == 0:
        # Said once: a member that is down for long is passed over at every append.
        if not progress.is_withheld:
            progress.is_withheld = True
            reason = "unavailable" if progress.is_active else "inactive"
            raft.events.append(SnapshotWithheld(to, reason))
        return False
    before = peer_status(progress)
    progress.become_snapshot(snapshot.index, raft.now)
    raft.events.append(
        SnapshotSent(
            peer=to,
            index=snapshot.index,
            term=snapshot.term,
            first=raft.log.first,
            commit=raft.log.commit,
            before=before,
            after=peer_status(progress),
        )
    )
    raft.outbox.append(Message(SNAP, to, raft.id, raft.term, snapshot=snapshot))
    return True


# --- learning what arrived --------------------------------------------------------------------------------


def take_append_response(raft: State, message: Message) -> None:
    """Learn from a member, or from this node's own disk, how far its log agrees."""
    progress = raft.tracker.progress[message.source]
    progress.is_active = True
    if message.reject:
        _take_rejection(raft, message, progress)
        return
    source, index = message.source, message.index
    # A probed member may answer with what was known: it is reachable, and its log ends there.
    if not (progress.acked(index) or (progress.match == index and progress.state is PROBE)):
        return
    if progress.state is REPLICATE:
        progress.inflights.free(index)
    elif progress.state is PROBE:
        progress.become_replicate()
    elif progress.match + 1 >= raft.log.first:
        # Whichever snapshot brought it here, the log reaches it now.
        raft.events.append(SnapshotSettled(source, "acked", peer_status(progress)))
        progress.become_probe()
        progress.become_replicate()
    is_other = source != raft.id
    # Only an acknowledgement beyond the commit index can move it.
    if progress.match > raft.log.commit and advance_commit(raft):
        reads.start_early(raft)
        broadcast(raft)
    elif is_other and progress.can_bump_commit(raft.log.commit):
        send_append(raft, source, progress)
    if is_other:
        # The window moved, so that more than one message may fit.
        while send_append(raft, source, progress, if_empty=False):
            pass
    if source == raft.heir and progress.match == raft.log.last:
        raft.events.append(TimeoutNowSent(source, immediately=False))
        send_timeout_now(raft, source)


def _take_rejection(raft: State, message: Message, progress: Progress) -> None:
    """Go back to where the logs may agree, skipping what terms rule out (paper, end of 5.3).

    The follower named the last place whose term is not above the leader's; the leader skips, on its side,
    everything of a higher term than the follower has there. Each probe so disposes of a whole term.
    """
    hint = message.reject_hint
    if message.log_term > 0:
        hint, _ = raft.log.conflict_by_term(hint, message.log_term)
    moved = progress.rejected(message.index, hint)
    raft.events.append(
        RejectionReceived(
            source=message.source,
            index=message.index,
            hint=message.reject_hint,
            hint_term=message.log_term,
            peer=peer_status(progress) if moved else None,
        )
    )
    if moved:
        if progress.state is REPLICATE:
            progress.become_probe()
        send_append(raft, message.source, progress)


def advance_commit(raft: State) -> bool:
    """Commit what a quorum has stored, if it is of this term; True if the commit index moved."""
    log = raft.log
    index = raft.tracker.committed()
    # Counting copies of an earlier term's entry proves nothing: it may still be replaced (paper, figure 8).
    if index > log.commit and log.term(index) == raft.term:
        log.commit_to(index)
        raft.events.append(CommitAdvanced(index, raft.term))
        return True
    return False


def take_heartbeat_response(raft: State, message: Message) -> None:
    """Note that a follower lives; send what it still lacks, and answer the reads that this proves."""
    source = message.source
    progress = raft.tracker.progress[source]
    progress.is_active = True
    if progress.state is SNAPSHOT and raft.now >= progress.waiting_since + raft.config.snapshot_timeout:
        # It lives, and the snapshot got lost without anybody noticing.
        take_snapshot_report(raft, source, ok=False)
    progress.is_paused_flow = False
    if progress.match < raft.log.last or progress.state is PROBE:
        send_append(raft, source, progress)
    reads.acknowledge(raft, source, message.context)


def take_snapshot_report(raft: State, peer: NodeId, ok: bool) -> None:
    """Go on probing a member whose snapshot arrived, or was lost; it must answer first."""
    progress = raft.tracker.progress.get(peer)
    if not raft.is_leader or progress is None or progress.state is not SNAPSHOT:
        return
    if not ok:
        progress.pending_snapshot = 0
    progress.become_probe()
    raft.events.append(SnapshotSettled(peer, "reported" if ok else "failed", peer_status(progress)))
    progress.is_paused_flow = True


def take_unreachable(raft: State, peer: NodeId) -> None:
    """Stop sending ahead to a member that the transport cannot reach."""
    progress = raft.tracker.progress.get(peer)
    if not raft.is_leader or progress is None:
        return
    if progress.state is REPLICATE:
        progress.become_probe()
    raft.events.append(PeerUnreachable(peer, peer_status(progress)))


def send_timeout_now(raft: State, to: NodeId) -> None:
    """Tell the heir to campaign at once; from here on no lease protects reads in this term."""
    raft.lease_forfeited = True
    raft.post(Message(MessageType.TIMEOUT_NOW, to, raft.id, raft.term))
