"""What a trace says of each master: its disk, its log, its role.

Law: the view follows the records and judges nothing. `log` and `hard` are what the master has decided to
store, `durable` and `durable_hard` what its disk has confirmed; a crash takes the former back to the latter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container
from typing import Any

from agentflow.check.log_view import LogView
from agentflow.core.raft.events import (
    CommitAdvanced,
    ConfigChanged,
    EntriesApplied,
    Role,
    RoleChanged,
    SnapshotInstalled,
    Started,
    Voted,
)
from agentflow.core.raft.messages import ConfState, Entry, HardState, Message, MessageType, Stored, Write
from agentflow.core.record import Record
from agentflow.ids import Index, NodeId, Term

PROMISES = frozenset({MessageType.APP_RESP.value, MessageType.VOTE_RESP.value})
"""Messages whose receiver relies on the sender's disk."""


class NodeView:
    """One master."""

    __slots__ = (
        "alive",
        "applied",
        "commit",
        "conf",
        "departed",
        "durable",
        "durable_hard",
        "failed",
        "first_conf",
        "fresh",
        "hard",
        "has_run",
        "highest_applied",
        "id",
        "leading",
        "log",
        "lost",
        "orphans",
        "paused",
        "role",
        "role_record",
        "writes",
    )

    def __init__(self, node_id: NodeId) -> None:
        self.id = node_id
        self.alive = True
        self.paused = False
        self.has_run = False
        self.departed = False
        """Whether it was removed, disk and all."""
        self.log = LogView()
        self.durable = LogView()
        self.hard = HardState()
        self.durable_hard = HardState()
        self.writes: deque[tuple[str, Write]] = deque()
        """Writes under way."""
        self.failed: deque[tuple[str, Write]] = deque()
        """Those of this life that failed: power may have been lost right after they reached the disk."""
        self.orphans: deque[tuple[str, Write]] = deque()
        """Those that were when it went down: they may have reached the disk."""
        self.role = Role.FOLLOWER
        self.role_record: Record | None = None
        self.leading: Term | None = None
        """The term it leads in."""
        self.conf: ConfState | None = None
        self.first_conf: ConfState | None = None
        self.commit: Index = 0
        self.applied: Index = 0
        self.highest_applied: Index = 0
        self.fresh = True
        """Whether it has applied nothing in this life."""
        self.lost: str = ""
        """What its disk had confirmed and does not hold after the last restart."""

    @property
    def is_serving(self) -> bool:
        """Whether it is up and not paused."""
        return self.alive and not self.paused

    def stores(self, index: Index, term: Term) -> bool:
        """Whether its disk has confirmed this entry, or a snapshot that covers it."""
        return index <= self.durable.base or self.durable.term(index) == term


class Commitment:
    """The first word that something is committed."""

    __slots__ = ("index", "record", "term", "told_in")

    def __init__(self, index: Index, term: Term, told_in: Term, record: Record) -> None:
        self.index = index
        self.term = term
        self.told_in = told_in
        """The term of the node that said so: at least the term in which it was committed."""
        self.record = record


class RaftView:
    """Every master, and what is known to be committed.

    `update` takes a record and says which fact of Raft it is, or None: `start`, `down`, `persist`,
    `persisted`, `role`, `vote`, `commit`, `apply`, `snapshot`, `config`, `promise` (a vote or an
    acknowledgement is sent), `invoke`, `return`.

    Parameters
    ----------
    voters : tuple of str, optional
        Who votes, for traces that do not tell.
    """

    def __init__(self, voters: tuple[NodeId, ...] = ()) -> None:
        self.voters = voters
        self.nodes: dict[NodeId, NodeView] = {}
        self.committed: dict[Index, Commitment] = {}
        self.commit: Commitment | None = None
        """The highest."""
        self.best_by_term: dict[Term, Commitment] = {}
        self.removed: list[Entry] = []
        """What the write just seen took out of the log."""
        self.last_before: Index = 0
        self.hard_before = HardState()
        """The end of that log, and the hard state, before it."""
        self._on: dict[str, Callable[[Record], str | None]] = {
            "start": self._start,
            "restart": self._start,
            "crash": self._down,
            "stop": self._down,
            "remove": self._down,
            "pause": self._pause,
            "resume": self._pause,
            "persist": self._persist,
            "persisted": self._persisted,
            "persist_failed": self._persist_failed,
            "role": self._role,
            "vote": self._vote,
            "commit": self._commit,
            "apply": self._apply,
            "snapshot": self._snapshot,
            "config": self._config,
            "send": self._send,
            "invoke": self._question,
            "return": self._answer,
            "answer": self._answer,
        }

    @property
    def relevant(self) -> Container[str]:
        """The kinds of record that may tell of Raft; of `send`, those of type `PROMISES` do."""
        return self._on

    def update(self, record: Record) -> str | None:
        """Take the next record; return the name of the fact, None if it is none of Raft's."""
        on = self._on.get(record.kind)
        return on(record) if on is not None else None

    def node(self, node_id: NodeId) -> NodeView:
        """Return a master, new if it was not heard of."""
        found = self.nodes.get(node_id)
        if found is None:
            found = self.nodes[node_id] = NodeView(node_id)
        return found

    def halves(self, node: NodeView) -> list[tuple[NodeId, ...]]:
        """Return the sets of voters of which majorities are needed, as this node knows them."""
        conf = node.conf
        if conf is not None and conf.voters:
            return [conf.voters, conf.voters_outgoing] if conf.voters_outgoing else [conf.voters]
        return [self.voters or tuple(self.nodes)]

    def committed_before(self, term: Term) -> Commitment | None:
        """Return the highest entry known to be committed by leaders of earlier terms."""
        if self.commit is not None and self.commit.told_in < term:
            return self.commit
        earlier = (each for told_in, each in self.best_by_term.items() if told_in < term)
        return max(earlier, key=lambda each: each.index, default=None)

    def conclude(self, fact: str | None, record: Record) -> None:
        """Take into account what the judges had to compare first with what was known before."""
        if fact == "commit":
            self._commit_to(self.node(record.node), record)
        elif fact == "apply":
            node, entries = self.node(record.node), record.payload.entries
            if entries:
                node.applied = entries[-1].index
                node.fresh = False
                node.highest_applied = max(node.highest_applied, node.applied)
        elif fact == "snapshot":
            node, index = self.node(record.node), record.payload.index
            node.commit = max(node.commit, index)
            node.applied = index
            node.highest_applied = max(node.highest_applied, index)

    def _commit_to(self, node: NodeView, record: Record) -> None:
        index = record.payload.index
        node.commit = max(node.commit, index)
        told_in = max(node.hard.term, record.payload.term)
        known = self.commit.index if self.commit is not None else 0
        for each in range(max(known + 1, node.log.base), index + 1):
            term = node.log.term(each)
            if term is not None:
                self.committed[each] = Commitment(each, term, told_in, record)
        latest = self.committed.get(index)
        if latest is not None and index > known:
            self.commit = latest
            best = self.best_by_term.get(told_in)
            if best is None or best.index < index:
                self.best_by_term[told_in] = latest

    # --- disks --------------------------------------------------------------------------------------------

    def _start(self, record: Record) -> str | None:
        payload = record.payload
        if record.node in self.nodes and self.nodes[record.node].departed:
            # The name comes back for another node; the old one's disk counted until now.
            self.nodes[record.node] = NodeView(record.node)
        if isinstance(payload, Started):
            return self._started(self.node(record.node), payload)
        if not isinstance(payload, Stored):
            if record.node in self.nodes:
                self._revive(self.nodes[record.node])
                return "start"
            return None
        node = self.node(record.node)
        self._revive(node)
        node.lost = _missing(node, payload) if node.has_run else ""
        node.has_run = True
        snapshot = payload.snapshot
        node.durable = LogView(snapshot.index, snapshot.term, payload.entries)
        node.durable_hard = payload.hard_state
        node.orphans.clear()
        if snapshot.conf.voters:
            node.conf = snapshot.conf
        self._reload(node)
        return "start"

    def _revive(self, node: NodeView) -> None:
        """Begin a new life with what the disk confirmed."""
        node.alive, node.paused = True, False
        node.role, node.leading = Role.FOLLOWER, None
        node.conf = node.first_conf
        node.lost = ""
        # A life that ended before it could say what it found leaves the question open.
        node.orphans += node.failed + node.writes
        node.writes, node.failed = deque(), deque()
        self._reload(node)

    def _reload(self, node: NodeView) -> None:
        node.log, node.hard = node.durable.copy(), node.durable_hard
        node.commit = max(node.hard.commit, node.log.base)
        node.applied = node.log.base
        node.fresh = True
        for _, write in node.writes:
            node.log.write(write)
            node.hard = write.hard_state or node.hard

    def _started(self, node: NodeView, told: Started) -> str:
        """Match what the node says it found on its disk with what was written in its last life.

        A write may have reached the disk though nobody was told before the crash.
        """
        found = (told.term, told.last_index, told.last_term)
        disk, hard = node.durable.copy(), node.durable_hard
        orphans, node.orphans = node.orphans, deque()
        while orphans and (found != _position(hard, disk) or told.commit > max(hard.commit, disk.base)):
            _, write = orphans.popleft()
            disk.write(write)
            hard = write.hard_state or hard
        if found != _position(hard, disk):
            if node.has_run and (told.last_index or told.term):
                confirmed = _position(node.durable_hard, node.durable)
                node.lost = "it had confirmed term {}, entries to {} of term {}".format(*confirmed)
                node.lost += ", and holds term {}, entries to {} of term {}".format(*found)
                return "start"
            # A disk that the trace has not seen, or a new one: whoever changed it did so on purpose.
            disk = LogView(told.last_index, told.last_term)
            hard = HardState(told.term, None, told.commit)
        node.has_run = True
        node.durable, node.durable_hard = disk, hard
        self._reload(node)
        return "start"

    def _down(self, record: Record) -> str | None:
        node = self.nodes.get(record.node)
        if node is None:
            return None
        node.alive, node.paused, node.leading = False, False, None
        if record.kind == "remove":
            node.departed = True
        return "down"

    def _pause(self, record: Record) -> str | None:
        if record.node in self.nodes:
            self.nodes[record.node].paused = record.kind == "pause"
        return None

    def _persist(self, record: Record) -> str | None:
        write = record.payload
        if not isinstance(write, Write):
            return None
        node = self.node(record.node)
        node.has_run = True
        node.writes.append((record.type, write))
        self.last_before, self.hard_before = node.log.last, node.hard
        self.removed = node.log.write(write)
        if write.hard_state is not None:
            node.hard = write.hard_state
        if node.leading is not None and node.leading != node.hard.term:
            # The turn's writes come before its notes: the role it has lost is noted in a moment.
            node.leading = None
        return "persist"

    def _persisted(self, record: Record) -> str | None:
        node = self.nodes.get(record.node)
        if node is None or not node.writes:
            return None
        while node.writes:
            number, write = node.writes.popleft()
            node.durable.write(write)
            if write.hard_state is not None:
                node.durable_hard = write.hard_state
            if number == record.type:
                break
        return "persisted"

    def _persist_failed(self, record: Record) -> str | None:
        node = self.nodes.get(record.node)
        if node is not None:
            node.failed.extend(each for each in node.writes if each[0] == record.type)
            node.writes = deque(each for each in node.writes if each[0] != record.type)
        return None

    # --- notes --------------------------------------------------------------------------------------------

    def _role(self, record: Record) -> str | None:
        payload = record.payload
        if not isinstance(payload, RoleChanged):
            return None
        node = self.node(record.node)
        node.role, node.role_record = payload.role, record
        node.leading = payload.term if payload.role is Role.LEADER else None
        return "role"

    def _vote(self, record: Record) -> str | None:
        return "vote" if isinstance(record.payload, Voted) else None

    def _commit(self, record: Record) -> str | None:
        return "commit" if isinstance(record.payload, CommitAdvanced) else None

    def _send(self, record: Record) -> str | None:
        return "promise" if record.type in PROMISES and isinstance(record.payload, Message) else None

    def _question(self, record: Record) -> str:
        return "invoke"

    def _answer(self, record: Record) -> str:
        return "return"

    def _apply(self, record: Record) -> str | None:
        return "apply" if isinstance(record.payload, EntriesApplied) else None

    def _snapshot(self, record: Record) -> str | None:
        return "snapshot" if isinstance(record.payload, SnapshotInstalled) else None

    def _config(self, record: Record) -> str | None:
        payload: Any = record.payload
        if not isinstance(payload, ConfigChanged):
            return None
        node = self.node(record.node)
        node.conf = payload.conf
        if node.first_conf is None:
            node.first_conf = payload.conf
        return "config"


def _position(hard: HardState, log: LogView) -> tuple[Term, Index, Term | None]:
    return hard.term, log.last, log.term(log.last)


def _missing(node: NodeView, found: Stored) -> str:
    """Say what a disk had confirmed and does not hold any more; empty if it holds everything."""
    disk, hard = node.durable, node.durable_hard
    if found == Stored():
        # A new disk: whoever did that did it on purpose.
        return ""
    if found.hard_state.term < hard.term:
        return f"it had confirmed term {hard.term} and holds term {found.hard_state.term}"
    if found.hard_state.term == hard.term and hard.vote not in (None, found.hard_state.vote):
        return (
            f"it had confirmed a vote for {hard.vote} in term {hard.term} and holds {found.hard_state.vote}"
        )
    now = LogView(found.snapshot.index, found.snapshot.term, found.entries)
    if now.last < disk.last and found.hard_state.term == hard.term:
        return f"it had confirmed entries to {disk.last} and holds them to {now.last}"
    return ""
