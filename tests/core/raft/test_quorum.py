"""Majorities, against the slowest way to count them."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from agentflow.core.raft.quorum import (
    EVERYTHING,
    VoteResult,
    agreed_since,
    committed_index,
    joint_committed_index,
    joint_vote_result,
    majority,
    vote_result,
)

NAMES = "abcdefg"
voters = st.sets(st.sampled_from(NAMES), max_size=7).map(sorted)
acked = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 20))
votes = st.dictionaries(st.sampled_from(NAMES), st.booleans())


def quorums(members):
    """Every set of voters that is a majority, by trying them all."""
    return [
        chosen
        for size in range(len(members) + 1)
        for chosen in combinations(members, size)
        if 2 * size > len(members)
    ]


@given(voters, acked)
def test_an_index_is_committed_if_some_quorum_has_it(members, indexes):
    if not members:
        assert committed_index(members, indexes) == EVERYTHING
        return
    slow = max(min(indexes.get(voter, 0) for voter in quorum) for quorum in quorums(members))
    assert committed_index(members, indexes) == slow


@given(voters, votes)
def test_a_vote_is_won_if_some_quorum_agrees_and_lost_if_none_can(members, given_votes):
    if not members:
        assert vote_result(members, given_votes) is VoteResult.WON
        return
    won = any(all(given_votes.get(voter) is True for voter in quorum) for quorum in quorums(members))
    possible = any(
        all(given_votes.get(voter) is not False for voter in quorum) for quorum in quorums(members)
    )
    expected = VoteResult.WON if won else VoteResult.PENDING if possible else VoteResult.LOST
    assert vote_result(members, given_votes) is expected


@given(voters, voters, acked)
def test_a_joint_index_is_committed_by_both_halves_in_either_order(left, right, indexes):
    joint = joint_committed_index(left, right, indexes)
    assert joint == min(committed_index(left, indexes), committed_index(right, indexes))
    assert joint == joint_committed_index(right, left, indexes)


@given(voters, voters, votes)
def test_a_joint_vote_is_decided_by_both_halves_in_either_order(left, right, given_votes):
    result = joint_vote_result(left, right, given_votes)
    halves = {vote_result(left, given_votes), vote_result(right, given_votes)}
    assert (result is VoteResult.WON) == (halves == {VoteResult.WON})
    assert (result is VoteResult.LOST) == (VoteResult.LOST in halves)
    assert result is joint_vote_result(right, left, given_votes)


@given(voters.filter(bool))
def test_two_majorities_share_a_voter(members):
    size = majority(members)
    assert 2 * size > len(members)
    assert 2 * (size - 1) <= len(members)


@given(voters.filter(bool), voters.filter(bool))
def test_majorities_one_voter_apart_share_a_voter(left, right):
    if len(set(left) ^ set(right)) != 1:
        return
    for one in quorums(left):
        for other in quorums(right):
            assert set(one) & set(other)


@given(voters.filter(bool), st.dictionaries(st.sampled_from(NAMES), st.floats(0, 100)))
def test_a_quorum_was_heard_since_the_earliest_of_its_best_members(members, times):
    slow = max(min(times.get(voter, float("-inf")) for voter in quorum) for quorum in quorums(members))
    assert agreed_since(members, times) == slow
