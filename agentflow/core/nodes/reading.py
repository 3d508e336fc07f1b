"""Reads of keys that do not go through the log.

Law: a read is answered from tables that hold everything that was committed when it was asked, by a leader
that was proved to lead after it was asked, or that holds a lease (Raft thesis, 6.4).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec

from agentflow.core.control.plane import Plane
from agentflow.core.machine import Effect, Send
from agentflow.core.nodes.messages import Redirect, Tell
from agentflow.core.raft import RaftMachine, Read, ReadState
from agentflow.ids import Index, NodeId


class _Question(msgspec.Struct, frozen=True):
    client: NodeId
    number: int
    key: str


class Reading:
    """The reads that a leader has taken and not answered."""

    def __init__(self) -> None:
        self._asked: dict[bytes, _Question] = {}
        self._waiting: set[tuple[NodeId, int]] = set()
        self._due: deque[tuple[Index, _Question]] = deque()
        self._made = 0

    def __bool__(self) -> bool:
        return bool(self._asked or self._due)

    def ask(self, raft: RaftMachine, client: NodeId, number: int, key: str, now: float) -> None:
        """Take a question; one that is repeated before it is answered is the same question."""
        if (client, number) in self._waiting:
            return
        self._made += 1
        context = self._made.to_bytes(8, "big")
        self._waiting.add((client, number))
        self._asked[context] = _Question(client, number, key)
        raft.handle(Read(context), now)

    def proved(self, reads: Iterable[ReadState]) -> None:
        """Raft says from which index on these reads may be served."""
        for read in reads:
            question = self._asked.pop(read.context, None)
            if question is not None:
                self._due.append((read.index, question))

    def answer(self, plane: Plane, applied: Index, effects: list[Effect]) -> None:
        """Answer what the tables are fresh enough for; indexes never go back."""
        due = self._due
        while due and due[0][0] <= applied:
            _, question = due.popleft()
            self._waiting.discard((question.client, question.number))
            effects.append(Send(question.client, Tell(question.number, plane.value_of(question.key))))

    def give_up(self, leader: NodeId | None, effects: list[Effect]) -> None:
        """Leadership is lost: whoever waits asks elsewhere, and nothing has happened."""
        open_questions = [*self._asked.values(), *(question for _, question in self._due)]
        effects += [Send(each.client, Redirect(each.number, leader)) for each in open_questions]
        self._asked.clear()
        self._waiting.clear()
        self._due.clear()
