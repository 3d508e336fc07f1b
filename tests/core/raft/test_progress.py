"""What a leader knows of a follower: the three ways of sending, and the window."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.core.raft.progress import Inflights, Progress, ProgressState

PROBE, REPLICATE, SNAPSHOT = ProgressState


def progress(state: ProgressState = PROBE, match: int = 0, upcoming: int = 1, window: int = 8) -> Progress:
    one = Progress(match=match, next=upcoming, inflights=Inflights(window, None))
    one.state = state
    return one


@pytest.mark.parametrize(
    ("state", "flow", "paused"),
    [
        (PROBE, False, False),
        (PROBE, True, True),
        (REPLICATE, False, False),
        (REPLICATE, True, True),
        (SNAPSHOT, False, True),
    ],
)
def test_who_is_paused(state, flow, paused):
    one = progress(state)
    one.is_paused_flow = flow
    assert one.is_paused is paused


@pytest.mark.parametrize(
    ("state", "pending", "expected"), [(REPLICATE, 0, 2), (SNAPSHOT, 10, 11), (SNAPSHOT, 0, 2)]
)
def test_a_probe_begins_behind_what_is_known_or_was_sent_as_a_snapshot(state, pending, expected):
    one = progress(state, match=1, upcoming=5)
    one.pending_snapshot = pending
    one.become_probe()
    assert (one.state, one.match, one.next) == (PROBE, 1, expected)


def test_replication_begins_behind_the_match():
    one = progress(match=1, upcoming=5)
    one.become_replicate()
    assert (one.state, one.match, one.next) == (REPLICATE, 1, 2)


@pytest.mark.parametrize(
    ("acked", "match", "upcoming", "news"),
    [(2, 3, 5, False), (3, 3, 5, False), (4, 4, 5, True), (5, 5, 6, True)],
)
def test_an_acknowledgement_moves_the_match_forward_only(acked, match, upcoming, news):
    one = progress(match=3, upcoming=5)
    assert one.acked(acked) is news
    assert (one.match, one.next) == (match, upcoming)


@pytest.mark.parametrize(
    ("state", "match", "upcoming", "rejected", "hint", "news", "after"),
    [
        # Replicating: what was acknowledged cannot be refused; else back behind the match.
        (REPLICATE, 5, 10, 5, 5, False, 10),
        (REPLICATE, 5, 10, 4, 4, False, 10),
        (REPLICATE, 5, 10, 9, 9, True, 6),
        # Probing: only the answer to the one message under way counts.
        (PROBE, 0, 0, 0, 0, False, 0),
        (PROBE, 0, 10, 5, 5, False, 10),
        (PROBE, 0, 10, 9, 9, True, 9),
        (PROBE, 0, 2, 1, 1, True, 1),
        (PROBE, 0, 1, 0, 0, True, 1),
        (PROBE, 0, 10, 9, 2, True, 3),
        (PROBE, 0, 10, 9, 0, True, 1),
        (PROBE, 4, 10, 9, 2, True, 5),
    ],
)
def test_a_rejection_moves_next_back_if_it_is_news(state, match, upcoming, rejected, hint, news, after):
    one = progress(state, match=match, upcoming=upcoming)
    assert one.rejected(rejected, hint) is news
    assert one.next == after


def test_a_probe_sends_one_message_with_entries_and_falls_silent():
    one = progress(match=1, upcoming=2)
    one.sent_entries(0, 0)
    assert not one.is_paused
    one.sent_entries(2, 10)
    assert one.is_paused
    assert one.next == 2


def test_replication_runs_ahead_until_the_window_is_full():
    one = progress(REPLICATE, match=1, upcoming=2, window=2)
    one.sent_entries(3, 10)
    assert (one.next, one.is_paused) == (5, False)
    one.sent_entries(1, 10)
    assert (one.next, one.is_paused) == (6, True)
    assert one.acked(4)
    one.inflights.free(4)
    assert not one.is_paused
    assert len(one.inflights) == 1


def test_a_commit_index_is_worth_telling_once():
    one = progress(REPLICATE, match=5, upcoming=8)
    assert one.can_bump_commit(6)
    one.sent_commit = 6
    assert not one.can_bump_commit(6)
    assert one.can_bump_commit(7)
    one.sent_commit = 7
    assert not one.can_bump_commit(100), "the follower may have no more than 7"


@given(
    st.integers(1, 4),
    st.one_of(st.none(), st.integers(1, 100)),
    st.lists(st.one_of(st.tuples(st.integers(1, 5), st.integers(0, 60)), st.integers(0, 40)), max_size=30),
)
def test_the_window_counts_like_a_list(size, limit, actions):
    window, slow, last = Inflights(size, limit), [], 0
    for action in actions:
        if isinstance(action, int):
            window.free(action)
            slow = [pair for pair in slow if pair[0] > action]
        elif not window.is_full:
            last += action[0]
            window.add(last, action[1])
            slow.append((last, action[1]))
        total = sum(weight for _, weight in slow)
        assert list(window) == slow
        assert window.bytes == total
        assert window.is_full == (len(slow) >= size or (limit is not None and total >= limit))
        assert list(window.copy()) == slow


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("acked"), st.integers(0, 20)),
            st.tuples(st.just("rejected"), st.integers(0, 20), st.integers(0, 20)),
            st.tuples(st.just("sent"), st.integers(0, 3)),
            st.tuples(st.just("probe")),
            st.tuples(st.just("replicate")),
            st.tuples(st.just("snapshot"), st.integers(1, 20)),
        ),
        max_size=40,
    )
)
def test_whatever_happens_match_only_grows_and_stays_below_next(history):
    one = progress(window=3)
    for action in history:
        match = one.match
        kind, *arguments = action
        if kind == "acked":
            one.acked(arguments[0])
            one.inflights.free(one.match)
        elif kind == "rejected":
            one.rejected(*arguments)
        elif kind == "sent" and not one.is_paused:
            one.sent_entries(arguments[0], 1)
        elif kind == "probe":
            one.become_probe()
        elif kind == "replicate":
            one.become_replicate()
        elif kind == "snapshot":
            one.become_snapshot(max(arguments[0], one.match))
        assert match <= one.match < one.next
        assert one.copy().state_tuple() == one.state_tuple()
