"""What Raft asks of disks, and of those who rely on them (thesis 3.8).

Law: what is not on disk may be forgotten, so it must not have been promised; what is on disk may not.
"""

from __future__ import annotations

from agentflow.check.judge import Judge
from agentflow.check.raft_view import NodeView, RaftView
from agentflow.core.raft.messages import MessageType
from agentflow.core.record import Record
from agentflow.ids import NodeId, Term


class OneVote(Judge):
    """A node votes for at most one candidate in a term, also across crashes; its term never goes back.

    A vote that neither reached the disk nor left the node is forgotten by a crash, and rightly so.
    """

    promise = "one vote per term"
    facts = frozenset({"start", "down", "persist", "persisted", "vote", "promise"})

    def __init__(self, view: RaftView | None = None) -> None:
        super().__init__(view)
        self._sure: dict[tuple[NodeId, Term], tuple[NodeId, Record]] = {}
        self._meant: dict[NodeId, dict[Term, tuple[NodeId, Record]]] = {}

    def look(self, fact: str, record: Record, node: NodeView | None) -> None:
        """Compare a vote, meant, stored or sent, with the node's other votes."""
        if node is None:
            return
        payload = record.payload
        if fact == "vote":
            if payload.granted and not payload.pre_vote:
                self._mean(record, payload.term, payload.candidate)
        elif fact == "persist":
            hard, before = payload.hard_state, self.view.hard_before.term
            if hard is not None and hard.term < before:
                words = f"{node.id} stores term {hard.term} after term {before}"
                self.blame(words, record, term=hard.term)
            elif hard is not None:
                self._mean(record, hard.term, hard.vote)
        elif fact == "promise":
            if record.type == MessageType.VOTE_RESP and not payload.reject:
                self._settle(record, payload.term, payload.to)
        elif fact == "down":
            if record.kind == "remove":
                self._meant.pop(node.id, None)
                self._sure = {key: vote for key, vote in self._sure.items() if key[0] != node.id}
        else:
            if fact == "start":
                self._meant.pop(node.id, None)
            self._settle(record, node.durable_hard.term, node.durable_hard.vote)

    def _mean(self, record: Record, term: Term, candidate: NodeId | None) -> None:
        """Take a vote that a crash may still undo."""
        if candidate is None:
            return
        mine = self._meant.setdefault(record.node, {})
        for other, source in (
            mine.setdefault(term, (candidate, record)),
            self._sure.get((record.node, term)) or (candidate, record),
        ):
            self._compare(record, term, candidate, other, source)

    def _settle(self, record: Record, term: Term, candidate: NodeId | None) -> None:
        """Take a vote that is there for good."""
        if candidate is not None:
            other, source = self._sure.setdefault((record.node, term), (candidate, record))
            self._compare(record, term, candidate, other, source)

    def _compare(self, record: Record, term: Term, candidate: NodeId, other: NodeId, source: Record) -> None:
        if other != candidate:
            words = f"{record.node} voted for {other} and for {candidate} in term {term}"
            self.blame(words, record, source, term=term)


class PersistBeforeSpeaking(Judge):
    """Votes and acknowledgements leave only when what they promise is on disk (thesis 3.8)."""

    promise = "persist before you speak"
    facts = frozenset({"promise"})

    def look(self, fact: str, record: Record, node: NodeView | None) -> None:
        """Compare a promise with the sender's disk at the moment it leaves."""
        kind, message = record.type, record.payload
        if node is None:
            return
        if message.reject or message.term < node.durable_hard.term:
            return
        hard, disk = node.durable_hard, node.durable
        if message.term > hard.term:
            said = f"in term {message.term} while its disk holds term {hard.term}"
        elif kind == MessageType.VOTE_RESP and hard.vote != message.to:
            said = f"its vote in term {message.term} while its disk holds a vote for {hard.vote}"
        elif kind == MessageType.APP_RESP and message.index > disk.last:
            said = f"entries to {message.index} while its disk holds them to {disk.last}"
        else:
            return
        word = "granted" if kind == MessageType.VOTE_RESP else "acknowledged"
        self.blame(f"{node.id} {word} {message.to} {said}", record, term=message.term)


class DiskKeeps(Judge):
    """A restarted node finds what its disk had confirmed."""

    promise = "disks keep what they confirmed"
    facts = frozenset({"start"})

    def look(self, fact: str, record: Record, node: NodeView | None) -> None:
        """Compare what a node starts from with what was confirmed to it before."""
        assert node is not None
        if node.lost:
            self.blame(f"the disk of {node.id} has lost something: {node.lost}", record)
