"""What all judges of a trace have in common: they are fed one record after another.

Law: a judge looks and never changes what it looks at, and its first word of a violation is its last.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from agentflow.check.raft_view import PROMISES, NodeView, RaftView
from agentflow.check.verdict import Outcome, Verdict, violated
from agentflow.core.record import Record

VIOLATED = Outcome.VIOLATED


class Judge:
    """One promise of Raft, judged while the trace grows or afterwards.

    Parameters
    ----------
    view : RaftView, optional
        A view shared with other judges, which somebody else updates; by default the judge keeps its own.
    """

    promise: ClassVar[str]
    facts: ClassVar[frozenset[str]]
    """The facts it wants to see; see `RaftView`."""

    def __init__(self, view: RaftView | None = None) -> None:
        self.view = view if view is not None else RaftView()
        self.verdict = Verdict(self.promise)

    def feed(self, record: Record) -> Verdict:
        """Take the next record of the trace; return the verdict so far."""
        fact = self.view.update(record)
        if fact in self.facts and not self.verdict.is_violated:
            self.look(fact, record, self.view.nodes.get(record.node))
        self.view.conclude(fact, record)
        return self.verdict

    def look(self, fact: str, record: Record, node: NodeView | None) -> None:
        """Judge one fact; `view` is up to date, but for commits, applications and snapshots."""
        raise NotImplementedError

    def finish(self, now: float) -> Verdict:
        """Say the last word: the trace ends at `now`."""
        return self.verdict

    def blame(self, explanation: str, record: Record, *evidence: Record | None, **facts: Any) -> None:
        """Find the promise broken by `record`."""
        shown = [each for each in evidence if each is not None]
        facts.setdefault("node", record.node)
        self.verdict = violated(self.promise, f"{explanation} (t={record.time:g} s)", record, shown, **facts)

    def unknown(self, explanation: str) -> None:
        """Say that it cannot be told."""
        self.verdict = Verdict(self.promise, Outcome.UNKNOWN, explanation)


class Panel:
    """Several judges over one trace, which is followed once for all of them.

    Parameters
    ----------
    judges : iterable of Judge
        All with the same view.
    view : RaftView
        That view.
    promise : str
        What to call all their promises together.
    """

    def __init__(self, judges: Iterable[Judge], view: RaftView, promise: str = "raft") -> None:
        self.judges = list(judges)
        self.view = view
        self.promise = promise
        self.now = 0.0
        self.first: Verdict | None = None
        self._watch: dict[str, list[Judge]] = {}
        for judge in self.judges:
            assert judge.view is view, f"{judge.promise} looks at another view"
            for fact in judge.facts:
                self._watch.setdefault(fact, []).append(judge)

    def feed(self, record: Record) -> Verdict | None:
        """Take the next record; return the first violation as soon as there is one."""
        self.now = record.time
        view = self.view
        fact = view.update(record)
        if fact is not None:
            watchers = self._watch.get(fact)
            if watchers:
                node = view.nodes.get(record.node)
                for judge in watchers:
                    # Until the first word of a violation there is nobody to be passed over.
                    if self.first is None or judge.verdict.outcome is not VIOLATED:
                        judge.look(fact, record, node)
                        if self.first is None and judge.verdict.outcome is VIOLATED:
                            self.first = judge.verdict
            view.conclude(fact, record)
        return self.first

    def feed_all(self, records: Iterable[Record]) -> Verdict | None:
        """Take many records; most of them are messages and say nothing about Raft's promises."""
        feed, relevant = self.feed, self.view.relevant
        record = None
        for record in records:
            kind = record.kind
            if kind in relevant and (kind != "send" or record.type in PROMISES):
                feed(record)
        if record is not None:
            self.now = record.time
        return self.first

    def finish(self, now: float | None = None) -> Verdict:
        """Return the verdict on everything; the trace ends at `now`, by default with its last record.

        More records may follow; then what was said here does not count.
        """
        now = self.now if now is None else now
        return Verdict.combine([judge.finish(now) for judge in self.judges], self.promise)
