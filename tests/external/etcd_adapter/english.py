"""etcd's log lines: what its logger says where our core emits an event."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from etcd_adapter.describe import ROLES, config_text, hexed, progress_text, sort_ids

from agentflow.core.raft import events as e
from agentflow.core.raft.confchange import Transition, decode_change
from agentflow.core.raft.events import Role
from agentflow.core.raft.messages import EntryKind

LEVELS = ("DEBUG", "INFO", "WARN", "ERROR", "FATAL", "NONE")
DEBUG, INFO, WARN, ERROR = range(4)
Line = tuple[int, str]

_BECAME = {
    Role.FOLLOWER: "follower",
    Role.PRE_CANDIDATE: "pre-candidate",
    Role.CANDIDATE: "candidate",
    Role.LEADER: "leader",
}


def lines(node: str, event: Any) -> Iterator[Line]:
    """Return the lines that etcd's node would have logged for this event."""
    say = _SAY.get(type(event))
    if say is not None:
        yield from say(hexed(node), event)


def _started(me: str, event: e.Started) -> Iterator[Line]:
    peers = ",".join(hexed(peer) for peer in sort_ids(event.voters))
    yield (
        INFO,
        f"newRaft {me} [peers: [{peers}], term: {event.term}, commit: {event.commit}, "
        f"applied: {event.applied}, lastindex: {event.last_index}, lastterm: {event.last_term}]",
    )


def _role(me: str, event: e.RoleChanged) -> Iterator[Line]:
    yield INFO, f"{me} became {_BECAME[event.role]} at term {event.term}"


def _forgotten(me: str, event: e.LeaderForgotten) -> Iterator[Line]:
    yield INFO, f"{me} forgetting leader {hexed(event.leader)} at term {event.term}"


def _kept(me: str, event: e.LeaderKept) -> Iterator[Line]:
    yield ERROR, "ignoring MsgForgetLeader due to ReadOnlyLeaseBased"


def _election(me: str, event: e.ElectionStarted) -> Iterator[Line]:
    yield INFO, f"{me} is starting a new election at term {event.term}"


def _no_campaign(me: str, event: e.CampaignRefused) -> Iterator[Line]:
    if event.reason == "leader":
        yield DEBUG, f"{me} ignoring MsgHup because already leader"
    elif event.reason == "unpromotable":
        yield WARN, f"{me} is unpromotable and can not campaign"
    elif event.reason == "pending-config":
        yield (
            WARN,
            f"{me} cannot campaign at term {event.term} since there are still pending configuration "
            "changes to apply",
        )


def _ask(me: str, event: e.VoteRequested) -> Iterator[Line]:
    kind = "MsgPreVote" if event.pre_vote else "MsgVote"
    yield (
        INFO,
        f"{me} [logterm: {event.log_term}, index: {event.index}] sent {kind} request to "
        f"{hexed(event.voter)} at term {event.term}",
    )


def _ends(event: e.Voted | e.VoteIgnored) -> tuple[str, str, str]:
    own = f"[logterm: {event.log_term}, index: {event.index}, vote: {hexed(event.vote)}]"
    theirs = f"[logterm: {event.candidate_log_term}, index: {event.candidate_index}]"
    return own, "MsgPreVote" if event.pre_vote else "MsgVote", f"{hexed(event.candidate)} {theirs}"


def _voted(me: str, event: e.Voted) -> Iterator[Line]:
    own, kind, candidate = _ends(event)
    verb, word = ("cast", "for") if event.granted else ("rejected", "from")
    yield INFO, f"{me} {own} {verb} {kind} {word} {candidate} at term {event.term}"


def _vote_ignored(me: str, event: e.VoteIgnored) -> Iterator[Line]:
    own, kind, candidate = _ends(event)
    yield (
        INFO,
        f"{me} {own} ignored {kind} from {candidate} at term {event.term}: lease is not expired "
        f"(remaining ticks: {int(event.remaining)})",
    )


def _counted(me: str, event: e.VoteCounted) -> Iterator[Line]:
    kind = "MsgPreVoteResp" if event.pre_vote else "MsgVoteResp"
    rejection = "" if event.granted else " rejection"
    yield INFO, f"{me} received {kind}{rejection} from {hexed(event.voter)} at term {event.term}"
    yield INFO, f"{me} has received {event.votes} {kind} votes and {event.rejections} vote rejections"


def _quorum_lost(me: str, event: e.QuorumLost) -> Iterator[Line]:
    yield WARN, f"{me} stepped down to follower since quorum is not active"


def _higher(me: str, event: e.HigherTermSeen) -> Iterator[Line]:
    yield (
        INFO,
        f"{me} [term: {event.term}] received a {event.kind.value} message with higher term from "
        f"{hexed(event.source)} [term: {event.message_term}]",
    )


def _ignored(me: str, event: e.MessageIgnored) -> Iterator[Line]:
    source = hexed(event.source)
    if event.reason == "lower-term":
        yield (
            INFO,
            f"{me} [term: {event.term}] ignored a {event.kind.value} message with lower term from "
            f"{source} [term: {event.message_term}]",
        )
    elif event.reason == "no-progress":
        yield DEBUG, f"{me} no progress available for {source}"
    elif event.reason in ("candidate", "pre-candidate"):
        state = ROLES[Role(event.reason)]
        yield DEBUG, f"{me} [term {event.term} state {state}] ignored MsgTimeoutNow from {source}"


def _transfer(me: str, event: e.TransferStarted) -> Iterator[Line]:
    yield INFO, f"{me} [term {event.term}] starts to transfer leadership to {hexed(event.to)}"


def _no_transfer(me: str, event: e.TransferIgnored) -> Iterator[Line]:
    to = hexed(event.to)
    if event.reason == "learner":
        yield DEBUG, f"{me} is learner. Ignored transferring leadership"
    elif event.reason == "self":
        yield DEBUG, f"{me} is already leader. Ignored transferring leadership to self"
    elif event.reason == "stranger":
        yield DEBUG, f"{me} no progress available for {to}"
    elif event.reason == "same":
        yield (
            INFO,
            f"{me} [term {event.term}] transfer leadership to {to} is in progress, ignores request to "
            f"same node {to}",
        )


def _transfer_aborted(me: str, event: e.TransferAborted) -> Iterator[Line]:
    if event.reason == "superseded":
        yield INFO, f"{me} [term {event.term}] abort previous transferring leadership to {hexed(event.to)}"


def _timeout_now(me: str, event: e.TimeoutNowSent) -> Iterator[Line]:
    to = hexed(event.to)
    if event.immediately:
        yield INFO, f"{me} sends MsgTimeoutNow to {to} immediately as {to} already has up-to-date log"
    else:
        yield INFO, f"{me} sent MsgTimeoutNow to {to} after received MsgAppResp"


def _heir(me: str, event: e.TimeoutNowReceived) -> Iterator[Line]:
    yield (
        INFO,
        f"{me} [term {event.term}] received MsgTimeoutNow from {hexed(event.source)} and starts an "
        "election to get leadership.",
    )


def _rejected_append(me: str, event: e.AppendRejected) -> Iterator[Line]:
    yield (
        DEBUG,
        f"{me} [logterm: {event.own_term}, index: {event.index}] rejected MsgApp "
        f"[logterm: {event.log_term}, index: {event.index}] from {hexed(event.source)}",
    )


def _rejection(me: str, event: e.RejectionReceived) -> Iterator[Line]:
    source = hexed(event.source)
    yield (
        DEBUG,
        f"{me} received MsgAppResp(rejected, hint: (index {event.hint}, term {event.hint_term})) from "
        f"{source} for index {event.index}",
    )
    if event.peer is not None:
        yield DEBUG, f"{me} decreased progress of {source} to [{progress_text(event.peer)}]"


def _conflict(me: str, event: e.ConflictFound) -> Iterator[Line]:
    yield (
        INFO,
        f"found conflict at index {event.index} [existing term: {event.own_term}, conflicting term: "
        f"{event.term}]",
    )


def _truncated(me: str, event: e.TailTruncated) -> Iterator[Line]:
    yield INFO, f"truncate the unstable entries before index {event.index}"


def _replaced(me: str, event: e.TailReplaced) -> Iterator[Line]:
    yield INFO, f"replace the unstable entries from index {event.index}"


def _overtaken(me: str, event: e.WriteOvertaken) -> Iterator[Line]:
    index, term = event.index, event.term
    if event.reason == "missing":
        yield INFO, f"entry at index {index} missing from unstable log; ignoring"
    elif event.reason == "snapshot":
        yield INFO, f"entry at index {index} matched unstable snapshot; ignoring"
    elif event.reason == "mismatch":
        yield (
            INFO,
            f"entry at (index,term)=({index},{term}) mismatched with entry at ({index},{event.found}) in "
            "unstable log; ignoring",
        )
    else:
        yield (
            INFO,
            f"{me} [term: {event.found}] ignored entry appends from a MsgStorageAppendResp message with "
            f"lower term [term: {term}]",
        )


def _unreachable(me: str, event: e.PeerUnreachable) -> Iterator[Line]:
    yield (
        DEBUG,
        f"{me} failed to send message to {hexed(event.peer)} because it is unreachable "
        f"[{progress_text(event.status)}]",
    )


def _dropped(me: str, event: e.ProposalDropped) -> Iterator[Line]:
    leader = hexed(event.leader)
    if event.reason == "no-leader":
        yield INFO, f"{me} no leader at term {event.term}; dropping proposal"
    elif event.reason == "no-forwarding":
        yield INFO, f"{me} not forwarding to leader {leader} at term {event.term}; dropping proposal"
    elif event.reason == "transfer":
        yield (
            DEBUG,
            f"{me} [term {event.term}] transfer leadership to {leader} is in progress; dropping proposal",
        )
    elif event.reason == "limit":
        yield (
            WARN,
            f"{me} appending new entries to log would exceed uncommitted entry size limit; dropping proposal",
        )


def _send_snapshot(me: str, event: e.SnapshotSent) -> Iterator[Line]:
    peer = hexed(event.peer)
    yield (
        DEBUG,
        f"{me} [firstindex: {event.first}, commit: {event.commit}] sent snapshot[index: {event.index}, "
        f"term: {event.term}] to {peer} [{progress_text(event.before)}]",
    )
    yield DEBUG, f"{me} paused sending replication messages to {peer} [{progress_text(event.after)}]"


def _no_snapshot(me: str, event: e.SnapshotWithheld) -> Iterator[Line]:
    peer = hexed(event.peer)
    if event.reason == "inactive":
        yield DEBUG, f"ignore sending snapshot to {peer} since it is not recently active"
    else:
        yield DEBUG, f"{me} failed to send snapshot to {peer} because snapshot is temporarily unavailable"


def _settled(me: str, event: e.SnapshotSettled) -> Iterator[Line]:
    what = {
        "acked": "recovered from needing snapshot",
        "reported": "snapshot succeeded",
        "failed": "snapshot failed",
    }[event.outcome]
    yield (
        DEBUG,
        f"{me} {what}, resumed sending replication messages to {hexed(event.peer)} "
        f"[{progress_text(event.status)}]",
    )


def _receive_snapshot(me: str, event: e.SnapshotReceived) -> Iterator[Line]:
    yield (
        INFO,
        f"log [committed={event.commit}, applied={event.applied}, applying={event.applying}, "
        f"unstable.offset={event.stable + 1}, unstable.offsetInProgress={event.handed + 1}, "
        f"len(unstable.Entries)={event.unstable}] starts to restore snapshot "
        f"[index: {event.index}, term: {event.term}]",
    )


def _ends_of_log(event: e.SnapshotInstalled | e.SnapshotIgnored) -> str:
    return f"[commit: {event.commit}, lastindex: {event.last_index}, lastterm: {event.last_term}]"


def _installed(me: str, event: e.SnapshotInstalled) -> Iterator[Line]:
    snapshot = f"[index: {event.index}, term: {event.term}]"
    yield INFO, f"{me} {_ends_of_log(event)} restored snapshot {snapshot}"
    yield INFO, f"{me} [commit: {event.commit}] restored snapshot {snapshot}"


def _ignored_snapshot(me: str, event: e.SnapshotIgnored) -> Iterator[Line]:
    snapshot = f"[index: {event.index}, term: {event.term}]"
    if event.reason == "known":
        yield (
            INFO,
            f"{me} [commit: {event.own_commit}, lastindex: {event.last_index}, lastterm: "
            f"{event.last_term}] fast-forwarded commit to snapshot {snapshot}",
        )
    yield INFO, f"{me} [commit: {event.commit}] ignored snapshot {snapshot}"


def _config(me: str, event: e.ConfigChanged) -> Iterator[Line]:
    yield INFO, f"{me} switched to configuration {config_text(event.conf)}"


_KINDS = ("ConfChangeAddNode", "ConfChangeRemoveNode", "ConfChangeUpdateNode", "ConfChangeAddLearnerNode")
_TRANSITIONS = {
    Transition.AUTO: "ConfChangeTransitionAuto",
    Transition.IMPLICIT: "ConfChangeTransitionJointImplicit",
    Transition.EXPLICIT: "ConfChangeTransitionJointExplicit",
}


def _no_config(me: str, event: e.ConfigIgnored) -> Iterator[Line]:
    reason = {
        "pending": f"possible unapplied conf change at index {event.pending} (applied to {event.applied})",
        "joint": "must transition out of joint config first",
        "not-joint": "not in joint state; refusing empty conf change",
        "impossible": "it cannot be applied",
    }[event.reason]
    change = decode_change(event.entry.data)
    singles = " ".join(f"{{{_KINDS[single.kind]} {single.node} []}}" for single in change.changes)
    if event.entry.kind is EntryKind.CONF_CHANGE:
        text = f"{{{_KINDS[change.changes[0].kind]} {change.changes[0].node} [] 0 []}}"
    else:
        text = f"{{{_TRANSITIONS[change.transition]} [{singles}] [] []}}"
    yield INFO, f"{me} ignoring conf change {text} at config {config_text(event.conf)}: {reason}"


def _auto_leave(me: str, event: e.AutoLeave) -> Iterator[Line]:
    conf = config_text(event.conf)
    if event.refused:
        yield (
            DEBUG,
            f"not initiating automatic transition out of joint configuration {conf}: raft proposal dropped",
        )
    else:
        yield INFO, f"initiating automatic transition out of joint configuration {conf}"


_SAY: dict[type, Callable[[str, Any], Iterator[Line]]] = {
    e.Started: _started,
    e.RoleChanged: _role,
    e.LeaderForgotten: _forgotten,
    e.LeaderKept: _kept,
    e.ElectionStarted: _election,
    e.CampaignRefused: _no_campaign,
    e.VoteRequested: _ask,
    e.Voted: _voted,
    e.VoteIgnored: _vote_ignored,
    e.VoteCounted: _counted,
    e.QuorumLost: _quorum_lost,
    e.HigherTermSeen: _higher,
    e.MessageIgnored: _ignored,
    e.TransferStarted: _transfer,
    e.TransferIgnored: _no_transfer,
    e.TransferAborted: _transfer_aborted,
    e.TimeoutNowSent: _timeout_now,
    e.TimeoutNowReceived: _heir,
    e.AppendRejected: _rejected_append,
    e.RejectionReceived: _rejection,
    e.ConflictFound: _conflict,
    e.TailTruncated: _truncated,
    e.TailReplaced: _replaced,
    e.WriteOvertaken: _overtaken,
    e.PeerUnreachable: _unreachable,
    e.ProposalDropped: _dropped,
    e.SnapshotSent: _send_snapshot,
    e.SnapshotWithheld: _no_snapshot,
    e.SnapshotSettled: _settled,
    e.SnapshotReceived: _receive_snapshot,
    e.SnapshotInstalled: _installed,
    e.SnapshotIgnored: _ignored_snapshot,
    e.ConfigChanged: _config,
    e.ConfigIgnored: _no_config,
    e.AutoLeave: _auto_leave,
}
