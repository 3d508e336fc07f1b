"""Answers kept per client, so that a command sent twice takes effect once.

Law: a client's number names one command. Its answer is kept until the client says, by raising its floor,
that it will not ask again (Raft thesis, section 6.3).
"""

from __future__ import annotations

from typing import Any

import msgspec

from agentflow.core.control.commands import Denied
from agentflow.ids import NodeId


class Answered(msgspec.Struct, frozen=True):
    """An answer, or the refusal in its place."""

    value: Any = None
    denied: Denied | None = None


class Session(msgspec.Struct):
    """One client's answers, by number; everything below `floor` was forgotten on its word."""

    floor: int = 0
    answers: dict[int, Answered] = {}


class Sessions:
    """Every client's session, in `of`.

    Examples
    --------
    >>> sessions = Sessions()
    >>> sessions.lookup("c1", 1)
    (False, None)
    >>> sessions.remember("c1", 1, floor=1, answer="done")
    >>> sessions.lookup("c1", 1)
    (True, 'done')
    """

    __slots__ = ("of",)

    def __init__(self) -> None:
        self.of: dict[NodeId, Session] = {}

    def lookup(self, client: NodeId, number: int) -> tuple[bool, Any]:
        """Say whether the command was applied before, and what it answered."""
        session = self.of.get(client)
        if session is None:
            return False, None
        if number in session.answers:
            known = session.answers[number]
            return True, known.value if known.denied is None else known.denied
        # Below the floor the client has its answer already: whoever repeats it must not act again.
        return number < session.floor, None

    def remember(self, client: NodeId, number: int, floor: int, answer: Any) -> None:
        """Keep an answer, and forget those below `floor`."""
        session = self.of.get(client)
        if session is None:
            session = self.of[client] = Session()
        refused = isinstance(answer, Denied)
        session.answers[number] = Answered(denied=answer) if refused else Answered(answer)
        if floor > session.floor:
            for old in [known for known in session.answers if known < floor]:
                del session.answers[old]
            session.floor = floor
