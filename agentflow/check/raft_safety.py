"""The safety promises of Raft, one judge each (Raft paper, figure 3; thesis 3.6).

Law: no judge raises a false alarm on a correct run, whatever crashes, partitions and disks did in it, as
long as disks keep what they confirmed; and each costs time linear in the trace.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from itertools import pairwise

from agentflow.check.judge import Judge
from agentflow.check.raft_view import NodeView, RaftView
from agentflow.core.raft.events import Role
from agentflow.core.raft.messages import Entry, Stored
from agentflow.core.record import Record
from agentflow.ids import Index, NodeId, Term


class ElectionSafety(Judge):
    """At most one leader in a term."""

    promise = "election safety"
    facts = frozenset({"role"})

    def __init__(self, view: RaftView | None = None) -> None:
        super().__init__(view)
        self._leaders: dict[Term, Record] = {}

    def look(self, fact: str, record: Record, node: NodeView | None) -> None:
        """Compare a new leader with the one known for its term."""
        if record.payload.role is not Role.LEADER:
            return
        term = record.payload.term
        other = self._leaders.setdefault(term, record)
        if other.node != record.node:
            self.blame(f"{other.node} and {record.node} both lead term {term}", record, other, term=term)


class LeaderAppendOnly(Judge):
    """A leader never overwrites or deletes entries of its own log."""

    promise = "leader append-only"
    facts = frozenset({"persist"})

    def look(self, fact: str, record: Record, node: NodeView | None) -> None:
        """Compare what a leader's write took out of its log with what is there now."""
        assert node is not None
        if node.leading is None:
            return
        for gone in self.view.removed:
            at = gone.index - node.log.base - 1
            if at < 0:
                continue
            now = node.log.entries[at] if at < len(node.log.entries) else None
            if now != gone:
                what = "deleted" if now is None else f"replaced by one of term {now.term}"
                self.blame(
                    f"{node.id} leads term {node.leading}, and its entry {gone.index} of term {gone.term} "
                    f"was {what}",
                    record,
                    node.role_record,
                    index=gone.index,
                    term=node.leading,
                )
                return


class LogMatching(Judge):
    """Logs that hold an entry of the same index and term are equal up to it.

    By induction it is enough that such entries are equal and follow entries of the same term.
    """

    promise = "log matching"
    facts = frozenset({"persist", "start"})

    def __init__(self, view: RaftView | None = None) -> None:
        super().__init__(view)
        self._known: dict[tuple[Index, Term], tuple[Entry, Term | None, Record]] = {}

    def look(self, fact: str, record: Record, node: NodeView | None) -> None:
        """Compare the entries of a write, or of the disk of a node that starts, with those known."""
        assert node is not None
        payload = record.payload
        if fact == "persist":
            entries: tuple[Entry, ...] = payload.entries
            if (
                entries
                and entries[0].index > self.view.last_before + 1
                and entries[0].index > node.log.base + 1
            ):
                gap = f"its log ended at {self.view.last_before}, and its next entry is {entries[0].index}"
                self.blame(f"{node.id} left a gap: {gap}", record, index=entries[0].index)
                return
        else:
            entries = payload.entries if isinstance(payload, Stored) else ()
        before = node.log.term(entries[0].index - 1) if entries else None
        for entry in entries:
            self._compare(entry, before, record)
            before = entry.term

    def _compare(self, entry: Entry, before: Term | None, record: Record) -> None:
        index, term = entry.index, entry.term
        known, known_before, source = self._known.setdefault((index, term), (entry, before, record))
        if known is not entry and (known.data != entry.data or known.kind != entry.kind):
            self.blame(
                f"{source.node} and {record.node} hold different entries {index} of term {term}",
                record,
                source,
                index=index,
                term=term,
            )
        elif known_before is None:
            self._known[index, term] = entry, before, record
        elif before is not None and before != known_before:
            self.blame(
                f"{source.node} and {record.node} hold entry {index} of term {term}, but before it "
                f"{source.node} has one of term {known_before} and {record.node} one of term {before}",
                record,
                source,
                index=index - 1,
                term=term,
            )


class LeaderCompleteness(Judge):
    """What was committed in a term is in the logs of the leaders of all later terms."""

    promise = "leader completeness"
    facts = frozenset({"role"})

    def look(self, fact: str, record: Record, node: NodeView | None) -> None:
        """Look up the highest committed entry in a new leader's log; log matching covers the rest."""
        assert node is not None
        if record.payload.role is not Role.LEADER:
            return
        term = record.payload.term
        needed = self.view.committed_before(term)
        if needed is None or needed.index <= node.log.base:
            return
        found = node.log.term(needed.index)
        if found != needed.term:
            has = f"ends at {node.log.last}" if found is None else f"has one of term {found} there"
            self.blame(
                f"{node.id} leads term {term} without entry {needed.index} of term {needed.term}, committed "
                f"on {needed.record.node} before: its log {has}",
                record,
                needed.record,
                index=needed.index,
                term=term,
            )


class StateMachineSafety(Judge):
    """No two state machines apply different commands at one index, and each applies them in order.

    An index is applied after it is committed, none is left out, and none is undone.
    """

    promise = "state machine safety"
    facts = frozenset({"apply", "snapshot"})

    def __init__(self, view: RaftView | None = None) -> None:
        super().__init__(view)
        self._applied: dict[Index, tuple[Entry, Record]] = {}

    def look(self, fact: str, record: Record, node: NodeView | None) -> None:
        """Compare applied entries with what others applied and with what is committed."""
        assert node is not None
        if fact == "snapshot":
            index = record.payload.index
            if index < node.applied:
                words = f"{node.id} had applied {node.applied} and went back to a snapshot at {index}"
                self.blame(words, record, index=index)
            return
        entries = record.payload.entries
        # A state machine that keeps its state may go on in its next life where it stopped.
        if entries and entries[0].index > (node.highest_applied if node.fresh else node.applied) + 1:
            words = f"{node.id} applied {entries[0].index} after {node.applied}"
            self.blame(words, record, index=entries[0].index)
        for entry in entries:
            known, source = self._applied.setdefault(entry.index, (entry, record))
            agreed = self.view.committed.get(entry.index)
            if known is not entry and known != entry:
                words = f"{source.node} and {node.id} applied different commands at {entry.index}"
                self.blame(
                    f"{words}, of terms {known.term} and {entry.term}", record, source, index=entry.index
                )
            elif entry.index > node.commit:
                words = f"{node.id} applied {entry.index} and knows of commits up to {node.commit} only"
                self.blame(words, record, index=entry.index)
            elif agreed is not None and agreed.term != entry.term:
                words = f"{node.id} applied an entry of term {entry.term} at {entry.index}, where one of term"
                self.blame(f"{words} {agreed.term} is committed", record, agreed.record, index=entry.index)
            else:
                continue
            return


class AppliedOnce(Judge):
    """No state machine applies a command twice in one life.

    Parameters
    ----------
    view : RaftView, optional
        A shared view.
    effects : callable, optional
        For stores that recognise retried commands: names the commands that took effect in a record, so
        that one that took effect at two indexes is found.
    """

    promise = "no command applied twice"
    facts = frozenset({"apply", "start"})

    def __init__(
        self,
        view: RaftView | None = None,
        effects: Callable[[Record], Iterable[Hashable]] | None = None,
    ) -> None:
        super().__init__(view)
        self._effects = effects
        self._done: dict[NodeId, dict[Hashable, Record]] = {}

    def look(self, fact: str, record: Record, node: NodeView | None) -> None:
        """Compare what is applied with what this life of the node applied before."""
        assert node is not None
        if fact == "start":
            self._done.pop(node.id, None)
            return
        entries = record.payload.entries
        if entries and entries[0].index <= node.applied:
            words = f"{node.id} applied {entries[0].index} again, after {node.applied}"
            self.blame(words, record, index=entries[0].index)
            return
        for before, after in pairwise(entries):
            if after.index != before.index + 1:
                words = f"{node.id} applied {after.index} right after {before.index}"
                self.blame(words, record, index=after.index)
                return
        if self._effects is None:
            return
        done = self._done.setdefault(node.id, {})
        for command in self._effects(record):
            other = done.setdefault(command, record)
            if other is not record:
                self.blame(
                    f"command {command} took effect twice on {node.id}", record, other, command=command
                )
                return


class CommitMonotone(Judge):
    """A node's commit index never goes back, and never beyond its log."""

    promise = "commit monotone"
    facts = frozenset({"commit", "persist"})

    def look(self, fact: str, record: Record, node: NodeView | None) -> None:
        """Compare a commit index with the node's last one and with its log."""
        assert node is not None
        if fact == "persist":
            hard = record.payload.hard_state
            before = self.view.hard_before.commit
            if hard is not None and hard.commit < before:
                words = f"{node.id} stores commit index {hard.commit} after {before}"
                self.blame(words, record, index=hard.commit)
            return
        index = record.payload.index
        if index < node.commit:
            self.blame(f"{node.id} went from commit index {node.commit} to {index}", record, index=index)
        elif index > node.log.last:
            words = f"{node.id} went to commit index {index}, and its log ends at {node.log.last}"
            self.blame(words, record, index=index)


class CommitStored(Judge):
    """What is committed is on the disks of a quorum; of both, while the membership changes."""

    promise = "commit stored by a quorum"
    facts = frozenset({"commit"})

    def look(self, fact: str, record: Record, node: NodeView | None) -> None:
        """Count the disks that hold a newly committed entry; and compare it with what is known."""
        assert node is not None
        view, index = self.view, record.payload.index
        term = node.log.term(index)
        if term is None:
            return
        agreed = view.committed.get(index)
        if agreed is not None:
            if agreed.term != term:
                words = (
                    f"{node.id} takes entry {index} of term {term} for committed, and {agreed.record.node}"
                )
                self.blame(f"{words} one of term {agreed.term}", record, agreed.record, index=index)
            return
        if view.commit is not None and index <= view.commit.index:
            return
        for voters in view.halves(node):
            having = [each for each in voters if each in view.nodes and view.nodes[each].stores(index, term)]
            if 2 * len(having) <= len(voters):
                self.blame(
                    f"{node.id} committed {index} of term {term}, which is on the disks of "
                    f"{', '.join(having) or 'nobody'} and not of a majority of {', '.join(voters)}",
                    record,
                    index=index,
                    term=term,
                    having=tuple(having),
                )
                return
