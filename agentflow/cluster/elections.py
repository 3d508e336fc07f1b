"""Elections, read from what the masters said of themselves.

Law: a candidacy begins when a node becomes a candidate in a term, and ends when it leads that term or is
anything else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from agentflow.core.raft.events import Role, RoleChanged, VoteCounted
from agentflow.core.record import Record
from agentflow.ids import NodeId, Term


class Candidacy(msgspec.Struct):
    """One node's stand in one term."""

    term: Term
    candidate: NodeId
    started: float
    cause: str
    votes: int = 1
    voters: int = 1
    outcome: str = "undecided"
    decided: float | None = None


def candidacies(records: Iterable[Record]) -> list[Candidacy]:
    """Every candidacy of a trace, in the order they began."""
    found: list[Candidacy] = []
    standing: dict[NodeId, Candidacy] = {}
    why: dict[NodeId, str] = {}
    for record in records:
        fact = record.payload
        if isinstance(fact, VoteCounted):
            stand = standing.get(record.node)
            if stand is not None and not fact.pre_vote and fact.term == stand.term:
                stand.votes, stand.voters = fact.votes, fact.voters
        elif isinstance(fact, RoleChanged):
            _role(record, fact, found, standing, why)
        elif record.kind == "crash" and record.node in standing:
            _decide(standing.pop(record.node), "lost", record.time)
    return found


def _role(
    record: Record,
    fact: RoleChanged,
    found: list[Candidacy],
    standing: dict[NodeId, Candidacy],
    why: dict[NodeId, str],
) -> None:
    node = record.node
    before = standing.pop(node, None)
    if before is not None:
        won = fact.role is Role.LEADER and fact.term == before.term
        _decide(before, "won" if won else "lost", record.time)
    if fact.role is Role.PRE_CANDIDATE:
        why[node] = fact.cause
    elif fact.role is Role.CANDIDATE:
        cause = why.pop(node, fact.cause)
        standing[node] = stand = Candidacy(fact.term, node, record.time, cause)
        found.append(stand)


def _decide(stand: Candidacy, outcome: str, at: float) -> None:
    stand.outcome, stand.decided = outcome, at


def elections_of(records: Iterable[Record]) -> list[tuple[Any, ...]]:
    """Rows of the table `elections`."""
    return [
        (
            *(each.term, each.candidate, each.outcome, each.votes, each.voters, each.started, each.started),
            *(each.decided, None if each.decided is None else each.decided - each.started, each.cause),
        )
        for each in candidacies(records)
    ]
