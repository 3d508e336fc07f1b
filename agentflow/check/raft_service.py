"""What Raft owes its users: acknowledged commands stay, reads are fresh, a healed cluster works.

Law: a promise that depends on time or on the users is judged only where the trace tells of them; where it
ends too early, the verdict is unknown.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

from agentflow.check.history import field_of
from agentflow.check.judge import Judge
from agentflow.check.raft_view import NodeView, RaftView
from agentflow.core.raft.events import Role
from agentflow.core.record import Record
from agentflow.ids import Index, Term


class AcknowledgedKept(Judge):
    """What was acknowledged as (index, term) is committed there, and stays.

    Acknowledgements are `return` or `answer` records whose result has an index and a term, such as
    `Committed`; others can be reported with `acknowledge`.
    """

    promise = "no acknowledged command lost"
    facts = frozenset({"return", "role", "apply"})

    def __init__(self, view: RaftView | None = None) -> None:
        super().__init__(view)
        self._acknowledged: dict[Index, tuple[Term, Record]] = {}
        self._highest: Index = 0

    def acknowledge(self, index: Index, term: Term, record: Record) -> None:
        """Take into account that somebody was told so."""
        agreed = self.view.committed.get(index)
        if agreed is None or agreed.term != term:
            who = "nobody had committed" if agreed is None else f"an entry of term {agreed.term} is committed"
            words = f"entry {index} of term {term} was acknowledged, where {who}"
            self.blame(words, record, agreed.record if agreed else None, index=index, term=term)
            return
        self._acknowledged[index] = term, record
        self._highest = max(self._highest, index)

    def look(self, fact: str, record: Record, node: NodeView | None) -> None:
        """Note an acknowledgement; look for it in the logs of leaders and in what is applied."""
        if fact == "return":
            result = _result(record)
            index, term = field_of(result, "index"), field_of(result, "term")
            if isinstance(index, int) and isinstance(term, int):
                self.acknowledge(index, term, record)
            return
        assert node is not None
        if fact == "apply":
            for entry in record.payload.entries:
                told = self._acknowledged.get(entry.index)
                if told is not None and told[0] != entry.term:
                    words = f"entry {entry.index} of term {told[0]} was acknowledged, and {node.id} applied"
                    self.blame(f"{words} one of term {entry.term} there", record, told[1], index=entry.index)
                    return
        elif record.payload.role is Role.LEADER and self._highest > node.log.base:
            term, source = self._acknowledged[self._highest]
            if term < record.payload.term and node.log.term(self._highest) != term:
                words = f"{node.id} leads term {record.payload.term} without entry {self._highest} of term"
                self.blame(f"{words} {term}, which was acknowledged", record, source, index=self._highest)


class ReadsFresh(Judge):
    """A read sees everything that was committed when it was asked.

    This is what ReadIndex and lease reads promise, the latter while clocks drift no more than was stated
    (thesis 6.4). Reads are `invoke` records of the functions `read` or `get`; their `return` says in `index`
    up to where the state was applied that was read. Reads without it are passed over: linearizability
    judges them.
    """

    promise = "no stale read"
    facts = frozenset({"invoke", "return"})

    def __init__(self, view: RaftView | None = None) -> None:
        super().__init__(view)
        self._asked: dict[Hashable, tuple[Index, Record]] = {}

    def look(self, fact: str, record: Record, node: NodeView | None) -> None:
        """Compare the index a read was served at with what was committed when it was asked."""
        payload = record.payload
        process = field_of(payload, "process")
        question = (record.node if process is None else process, field_of(payload, "op"))
        if fact == "invoke":
            if field_of(payload, "function") in ("read", "get"):
                committed = self.view.commit
                self._asked[question] = (committed.index if committed else 0), record
            return
        asked = self._asked.pop(question, None)
        index = field_of(payload, "index")
        if asked is not None and isinstance(index, int) and index < asked[0]:
            self.blame(
                f"a read asked when {asked[0]} was committed was served at {index}",
                record,
                asked[1],
                self.view.committed[asked[0]].record,
                index=index,
            )


class LivesAfterHealing(Judge):
    """Within a given time after all faults are healed there is a leader, it commits, and all follow.

    Parameters
    ----------
    view : RaftView, optional
        A shared view.
    healed : iterable of float
        The instants from which on nothing is broken. Until `within` seconds later nothing may be broken
        again; leave out those that do not last so long.
    within : float
        The time allowed.
    """

    promise = "liveness after healing"
    facts = frozenset({"start", "down", "persisted", "role", "commit", "apply", "snapshot", "promise"})

    def __init__(
        self, view: RaftView | None = None, *, healed: Iterable[float] = (), within: float = 10.0
    ) -> None:
        super().__init__(view)
        self._due = sorted((at + within, at) for at in healed)
        self._goals: dict[float, Index] = {}
        self.within = within

    def look(self, fact: str, record: Record, node: NodeView | None) -> None:
        """Look whether the time is up."""
        for _, at in self._due:
            if at <= record.time and at not in self._goals:
                self._goals[at] = self._committed()
        while self._due and record.time > self._due[0][0]:
            self._judge(record)

    def finish(self, now: float) -> Any:
        """Judge what is due by now; what is not due yet cannot be told, unless all is well already."""
        last = Record(-1, now, "", "end")
        while self._due and now >= self._due[0][0] and not self.verdict.is_violated:
            self._judge(last)
        if not self.verdict.is_violated:
            early = [at for _, at in self._due if at > now or self._complaint(self._goals.get(at, 0))]
            if early:
                self.unknown(f"the trace ends at {now:g} s, less than {self.within:g} s after {early[0]:g} s")
        return self.verdict

    def _committed(self) -> Index:
        return self.view.commit.index if self.view.commit else 0

    def _judge(self, record: Record) -> None:
        _, at = self._due.pop(0)
        complaint = self._complaint(self._goals.pop(at, self._committed()))
        if complaint:
            words = f"{self.within:g} s after everything was healed at {at:g} s, {complaint}"
            states = {name: _standing(node) for name, node in self.view.nodes.items()}
            roles = [node.role_record for node in self.view.nodes.values()]
            self.blame(words, record, *roles, healed=at, nodes=states)

    def _complaint(self, goal: Index) -> str:
        """Say what is not as it should be; empty if nothing is."""
        up = [node for node in self.view.nodes.values() if node.is_serving]
        leaders = [node for node in up if node.leading is not None]
        if not leaders:
            return "there is no leader: " + "; ".join(_standing(node) for node in up)
        leader = max(leaders, key=lambda node: node.leading or 0)
        last = leader.log.term(leader.commit)
        if last != leader.leading:
            return f"{leader.id} leads term {leader.leading} and has committed nothing of it"
        members = {member for half in self.view.halves(leader) for member in half}
        for node in up:
            if node.id in members and node.commit < goal:
                return f"{node.id} knows of commits to {node.commit}, and {goal} was committed before"
        return ""


def _standing(node: NodeView) -> str:
    state = node.role.value if node.alive else "down"
    return f"{node.id} {state} in term {node.hard.term}, log to {node.log.last}, commit {node.commit}"


def _result(record: Record) -> Any:
    if record.kind == "answer":
        return record.payload
    return field_of(record.payload, "result")
