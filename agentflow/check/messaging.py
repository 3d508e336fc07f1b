"""Promises between agents, judged from plain facts.

Law: between one sender and one receiver messages are handled in the order they were sent, none twice; and
an answer reaches the one who asked, for the question it asked, while it still waits.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import msgspec

from agentflow.check.verdict import Verdict, violated
from agentflow.errors import InvalidConfig
from agentflow.ids import NodeId

KINDS = frozenset({"sent", "handled", "asked", "answered", "gave up"})
PROMISES = ("sent before handled", "fifo per pair", "at most once", "answers to their own caller")


class MailFact(msgspec.Struct, frozen=True):
    """One thing that happened to a message.

    Parameters
    ----------
    time : float
        When; facts are given in order.
    kind : str
        `sent` and `handled`, for any message; `asked`, when a request leaves its caller; `answered`, when a
        caller is given an answer; `gave up`, when it stops waiting.
    id : hashable
        The message; for the last three, the request.
    source, destination : str
        Who sent it to whom. For `answered`: who answered, and who was given the answer.
    """

    time: float
    kind: str
    id: Hashable
    source: NodeId = ""
    destination: NodeId = ""


class MessagingJudge:
    """Judges messages while facts come in."""

    def __init__(self) -> None:
        self.bad: dict[str, Verdict] = {}
        self._sent: dict[tuple[Hashable, NodeId, NodeId], tuple[int, MailFact]] = {}
        self._count: dict[tuple[NodeId, NodeId], int] = {}
        self._handled: dict[tuple[Hashable, NodeId, NodeId], MailFact] = {}
        self._last: dict[tuple[NodeId, NodeId], tuple[int, MailFact]] = {}
        self._asked: dict[Hashable, MailFact] = {}
        self._closed: dict[Hashable, MailFact] = {}

    def feed(self, fact: MailFact) -> None:
        """Take the next fact."""
        if fact.kind == "sent":
            pair = fact.source, fact.destination
            self._count[pair] = number = self._count.get(pair, 0) + 1
            self._sent.setdefault((fact.id, *pair), (number, fact))
        elif fact.kind == "handled":
            self._handle(fact)
        elif fact.kind == "asked":
            self._asked[fact.id] = fact
        elif fact.kind == "answered":
            self._answer(fact)
        elif fact.kind == "gave up":
            self._closed.setdefault(fact.id, fact)
        else:
            kinds = ", ".join(sorted(KINDS))
            raise InvalidConfig(
                f"there is no fact {fact.kind!r} about messages; take one of {kinds}", field="kind"
            )

    def finish(self) -> Verdict:
        """Say the last word."""
        parts = [self.bad.get(promise, Verdict(promise)) for promise in PROMISES]
        bad = [part for part in parts if part.is_violated]
        return Verdict.combine(parts, bad[0].promise if len(bad) == 1 else "messages")

    def _handle(self, fact: MailFact) -> None:
        pair = fact.source, fact.destination
        name = f"{fact.id} from {fact.source} to {fact.destination}"
        number, sent = self._sent.get((fact.id, *pair), (0, None))
        if sent is None:
            self._blame("sent before handled", fact, f"{name} was handled and never sent")
            return
        before = self._handled.setdefault((fact.id, *pair), fact)
        if before is not fact:
            self._blame("at most once", fact, f"{name} was handled twice", sent, before)
            return
        last, overtaken_by = self._last.get(pair, (0, None))
        if number < last and overtaken_by is not None:
            words = f"{name} was handled after {overtaken_by.id}, which was sent later"
            self._blame("fifo per pair", fact, words, sent, overtaken_by)
        else:
            self._last[pair] = number, fact

    def _answer(self, fact: MailFact) -> None:
        promise = "answers to their own caller"
        asked, closed = self._asked.get(fact.id), self._closed.get(fact.id)
        if asked is None:
            self._blame(promise, fact, f"{fact.destination} was answered {fact.id}, which nobody asked")
        elif asked.source != fact.destination:
            words = f"{asked.source} asked {fact.id}, and {fact.destination} was given the answer"
            self._blame(promise, fact, words, asked)
        elif asked.destination not in ("", fact.source):
            words = f"{fact.destination} asked {asked.destination}, and was given an answer of {fact.source}"
            self._blame(promise, fact, f"{words} to {fact.id}", asked)
        elif closed is not None:
            why = "had given up" if closed.kind == "gave up" else "had an answer already"
            self._blame(promise, fact, f"{fact.destination} {why} when {fact.id} was answered", asked, closed)
        else:
            self._closed[fact.id] = fact

    def _blame(self, promise: str, fact: MailFact, words: str, *evidence: MailFact) -> None:
        text = f"{words} (t={fact.time:g} s)"
        self.bad.setdefault(promise, violated(promise, text, fact, evidence))


def judge_messaging(facts: Iterable[MailFact]) -> Verdict:
    """Judge all facts about some agents' messages.

    Parameters
    ----------
    facts : iterable of MailFact
        In order.

    Examples
    --------
    >>> judge_messaging([
    ...     MailFact(0, "sent", 1, "a", "b"),
    ...     MailFact(0, "sent", 2, "a", "b"),
    ...     MailFact(1, "handled", 2, "a", "b"),
    ...     MailFact(2, "handled", 1, "a", "b"),
    ... ])
    <Verdict violated: fifo per pair: 1 from a to b was handled after 2, which was sent later (t=2 s)>
    """
    judge = MessagingJudge()
    for fact in facts:
        judge.feed(fact)
    return judge.finish()
