"""What a majority has agreed on; two majorities while the membership changes.

Law: any two quorums of one configuration share a voter, and a joint decision is a decision of both halves
(Raft thesis, 4.3). An empty half agrees with everything.

Nothing here knows of logs or elections: a function takes the voters and what each of them said.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Mapping
from enum import Enum

from agentflow.ids import Index, NodeId

EVERYTHING: Index = sys.maxsize
"""The committed index of a configuration without voters: it objects to nothing."""


class VoteResult(Enum):
    """Where a vote stands."""

    PENDING = "pending"
    """Undecided: the missing votes could turn it either way."""
    LOST = "lost"
    """No majority can come together any more."""
    WON = "won"
    """A majority said yes."""


def majority(voters: Collection[NodeId]) -> int:
    """How many of the voters make a majority.

    Examples
    --------
    >>> [majority("abcde"[:size]) for size in (1, 2, 3, 4, 5)]
    [1, 2, 2, 3, 3]
    """
    return len(voters) // 2 + 1


def committed_index(voters: Collection[NodeId], acked: Mapping[NodeId, Index]) -> Index:
    """Return the highest index that a majority has acknowledged.

    Parameters
    ----------
    voters : collection of str
        One half of a configuration.
    acked : mapping
        The index each voter has acknowledged; who is missing has acknowledged nothing.

    Examples
    --------
    >>> committed_index(["a", "b", "c"], {"a": 100, "b": 101, "c": 99})
    100
    >>> committed_index(["a", "b", "c"], {"a": 100})
    0
    """
    return majority_index([acked.get(voter, 0) for voter in voters])


def majority_index(indexes: list[Index]) -> Index:
    """Return the highest index that a majority of these has reached; the list is sorted in place.

    Examples
    --------
    >>> majority_index([3, 9, 4, 9])
    4
    """
    if not indexes:
        return EVERYTHING
    indexes.sort()
    # In ascending order, everything from this position on is a majority.
    return indexes[(len(indexes) - 1) // 2]


def agreed_since(voters: Collection[NodeId], times: Mapping[NodeId, float]) -> float:
    """Return the latest instant at or after which a majority has been heard of.

    Examples
    --------
    >>> agreed_since(["a", "b", "c"], {"a": 3.0, "c": 1.0})
    1.0
    """
    if not voters:
        return math.inf
    instants = sorted([times.get(voter, -math.inf) for voter in voters])
    return instants[len(instants) - majority(voters)]


def vote_result(voters: Collection[NodeId], votes: Mapping[NodeId, bool]) -> VoteResult:
    """Return where a vote among one half of a configuration stands.

    Votes of others are not counted, and each voter counts once: `votes` is a map, not a tally.

    Examples
    --------
    >>> vote_result(["a", "b", "c"], {"a": True, "x": True})
    <VoteResult.PENDING: 'pending'>
    >>> vote_result(["a", "b", "c"], {"a": True, "b": False, "c": False})
    <VoteResult.LOST: 'lost'>
    """
    if not voters:
        return VoteResult.WON
    granted = missing = 0
    for voter in voters:
        vote = votes.get(voter)
        if vote:
            granted += 1
        elif vote is None:
            missing += 1
    needed = majority(voters)
    if granted >= needed:
        return VoteResult.WON
    return VoteResult.PENDING if granted + missing >= needed else VoteResult.LOST


def joint_committed_index(
    incoming: Collection[NodeId], outgoing: Collection[NodeId], acked: Mapping[NodeId, Index]
) -> Index:
    """Return the highest index that both halves have committed.

    Examples
    --------
    >>> joint_committed_index(["a"], ["b"], {"a": 13, "b": 100})
    13
    """
    index = committed_index(incoming, acked)
    return min(index, committed_index(outgoing, acked)) if outgoing else index


def joint_vote_result(
    incoming: Collection[NodeId], outgoing: Collection[NodeId], votes: Mapping[NodeId, bool]
) -> VoteResult:
    """Return where a vote among both halves stands: won if both won it, lost if either lost it.

    Examples
    --------
    >>> joint_vote_result(["a"], ["b"], {"a": True})
    <VoteResult.PENDING: 'pending'>
    """
    first = vote_result(incoming, votes)
    if not outgoing:
        return first
    second = vote_result(outgoing, votes)
    if first is second:
        return first
    return VoteResult.LOST if VoteResult.LOST in (first, second) else VoteResult.PENDING
