"""etcd's text forms of messages, entries, progress and configurations (its util.go and tracker)."""

from __future__ import annotations

from agentflow.core.raft.confchange import Change, ChangeKind, decode_change
from agentflow.core.raft.events import PeerStatus, Role
from agentflow.core.raft.messages import ConfState, Entry, EntryKind, HardState, Message, Snapshot

APPEND_THREAD = "AppendThread"
APPLY_THREAD = "ApplyThread"

ROLES = {
    Role.FOLLOWER: "StateFollower",
    Role.PRE_CANDIDATE: "StatePreCandidate",
    Role.CANDIDATE: "StateCandidate",
    Role.LEADER: "StateLeader",
}
STATES = {"probe": "StateProbe", "replicate": "StateReplicate", "snapshot": "StateSnapshot"}
KINDS = {
    EntryKind.NORMAL: "EntryNormal",
    EntryKind.CONF_CHANGE: "EntryConfChange",
    EntryKind.CONF_CHANGE_V2: "EntryConfChangeV2",
}
LETTERS = {ChangeKind.VOTER: "v", ChangeKind.LEARNER: "l", ChangeKind.REMOVE: "r", ChangeKind.UPDATE: "u"}
_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}


def sort_ids(ids: tuple[str, ...]) -> list[str]:
    return sorted(ids, key=int)


def hexed(node: str | None) -> str:
    """Node ids in log lines are hexadecimal; no node is 0."""
    return "0" if node is None else f"{int(node):x}"


def quoted(data: bytes) -> str:
    """Go's %q."""
    out = []
    for char in data.decode("utf-8", "backslashreplace"):
        if char in '"\\':
            out.append("\\" + char)
        elif char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif not char.isprintable():
            out.append(f"\\x{ord(char):02x}")
        else:
            out.append(char)
    return '"' + "".join(out) + '"'


def changes_text(changes: tuple[Change, ...]) -> str:
    return " ".join(f"{LETTERS[change.kind]}{change.node}" for change in changes)


def entry_text(entry: Entry) -> str:
    if entry.kind is EntryKind.NORMAL:
        body = quoted(entry.data)
    else:
        body = changes_text(decode_change(entry.data).changes)
    return f"{entry.term}/{entry.index} {KINDS[entry.kind]}" + (f" {body}" if body else "")


def entries_text(entries: tuple[Entry, ...]) -> str:
    return "".join(entry_text(entry) + "\n" for entry in entries)


def ids_text(ids: tuple[str, ...]) -> str:
    return "[" + " ".join(sort_ids(ids)) + "]"


def conf_state_text(conf: ConfState) -> str:
    return (
        f"Voters:{ids_text(conf.voters)} VotersOutgoing:{ids_text(conf.voters_outgoing)} "
        f"Learners:{ids_text(conf.learners)} LearnersNext:{ids_text(conf.learners_next)} "
        f"AutoLeave:{str(conf.auto_leave).lower()}"
    )


def config_text(conf: ConfState) -> str:
    text = "voters=(" + " ".join(sort_ids(conf.voters)) + ")"
    if conf.voters_outgoing:
        text += "&&(" + " ".join(sort_ids(conf.voters_outgoing)) + ")"
    if conf.learners:
        text += " learners=(" + " ".join(sort_ids(conf.learners)) + ")"
    if conf.learners_next:
        text += " learners_next=(" + " ".join(sort_ids(conf.learners_next)) + ")"
    return text + (" autoleave" if conf.auto_leave else "")


def snapshot_text(snapshot: Snapshot) -> str:
    return f"Index:{snapshot.index} Term:{snapshot.term} ConfState:{conf_state_text(snapshot.conf)}"


def hard_state_text(hard: HardState) -> str:
    vote = f" Vote:{hard.vote}" if hard.vote else ""
    return f"Term:{hard.term}{vote} Commit:{hard.commit}"


def progress_text(peer: PeerStatus) -> str:
    text = f"{STATES[peer.state]} match={peer.match} next={peer.next}"
    if peer.is_learner:
        text += " learner"
    if peer.is_paused:
        text += " paused"
    if peer.pending_snapshot:
        text += f" pendingSnap={peer.pending_snapshot}"
    if not peer.is_active:
        text += " inactive"
    if peer.inflight:
        text += f" inflight={peer.inflight}" + ("[full]" if peer.is_full else "")
    return text


def target_text(node: str) -> str:
    return node if node in (APPEND_THREAD, APPLY_THREAD) else hexed(node)


def message_text(message: Message, indent: str = "") -> str:
    text = (
        f"{indent}{target_text(message.source)}->{target_text(message.to)} {message.type.value} "
        f"Term:{message.term} Log:{message.log_term}/{message.index}"
    )
    if message.reject:
        text += f" Rejected (Hint: {message.reject_hint})"
    if message.commit:
        text += f" Commit:{message.commit}"
    if message.vote:
        text += f" Vote:{message.vote}"
    if len(message.entries) == 1:
        text += f" Entries:[{entry_text(message.entries[0])}]"
    elif message.entries:
        text += " Entries:["
        text += "".join(f"\n{indent}  {entry_text(entry)}" for entry in message.entries)
        text += f"\n{indent}]"
    if message.snapshot is not None and message.snapshot.index:
        text += f"\n{indent}  Snapshot: {snapshot_text(message.snapshot)}"
    if message.responses:
        text += " Responses:["
        text += "".join("\n" + message_text(response, indent + "  ") for response in message.responses)
        text += f"\n{indent}]"
    return text
