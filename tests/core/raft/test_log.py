"""The log, in tables and against a list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agentflow.core.raft.events import ConflictFound, TailReplaced, TailTruncated, WriteOvertaken
from agentflow.core.raft.log import ENTRY_OVERHEAD, RaftLog
from agentflow.core.raft.messages import Entry, Snapshot

PREVIOUS = (Entry(1, 1), Entry(2, 2), Entry(3, 3))


def log_with(*terms: int, base: int = 0, base_term: int = 0, **limits: int) -> RaftLog:
    entries = tuple(Entry(base + position, term) for position, term in enumerate(terms, 1))
    return RaftLog(Snapshot(base, base_term), entries, **limits)


def terms(log: RaftLog) -> list[int]:
    return [entry.term for entry in log.entries(log.first)]


@pytest.mark.parametrize(
    ("prev", "prev_term", "entries", "commit", "agreed", "committed", "after"),
    [
        # No match: the term differs, or the place is behind the end.
        (3, 2, [4], 3, None, 1, [1, 2, 3]),
        (4, 3, [4], 3, None, 1, [1, 2, 3]),
        # A match at the end; the commit index is cut at what was vouched for.
        (3, 3, [], 3, 3, 3, [1, 2, 3]),
        (3, 3, [], 4, 3, 3, [1, 2, 3]),
        (3, 3, [], 2, 3, 2, [1, 2, 3]),
        (3, 3, [], 0, 3, 1, [1, 2, 3]),
        (0, 0, [], 3, 0, 1, [1, 2, 3]),
        (3, 3, [4], 3, 4, 3, [1, 2, 3, 4]),
        (3, 3, [4], 5, 4, 4, [1, 2, 3, 4]),
        (3, 3, [4, 4], 5, 5, 5, [1, 2, 3, 4, 4]),
        # A match in the middle, with and without a conflict.
        (2, 2, [4], 3, 3, 3, [1, 2, 4]),
        (1, 1, [4], 3, 2, 2, [1, 4]),
        (1, 1, [4, 4], 3, 3, 3, [1, 4, 4]),
        (1, 1, [2], 3, 2, 2, [1, 2, 3]),
        (1, 1, [2, 3, 4], 4, 4, 4, [1, 2, 3, 4]),
    ],
)
def test_maybe_append(prev, prev_term, entries, commit, agreed, committed, after):
    log = log_with(1, 2, 3)
    log.commit = 1
    sent = tuple(Entry(prev + offset, term) for offset, term in enumerate(entries, 1))
    assert log.maybe_append(prev, prev_term, sent, commit) == agreed
    assert log.commit == committed
    assert terms(log) == after
    log.check_invariants()


def test_a_committed_entry_is_never_replaced():
    log = log_with(1, 2, 3)
    log.commit = 3
    with pytest.raises(AssertionError, match="committed"):
        log.maybe_append(1, 1, (Entry(2, 4),), 3)


@pytest.mark.parametrize(
    ("index", "term", "better"),
    [
        (2, 4, True),
        (3, 4, True),
        (4, 4, True),
        (2, 2, False),
        (3, 2, False),
        (4, 2, False),
        (2, 3, False),
        (3, 3, True),
        (4, 3, True),
    ],
)
def test_is_up_to_date(index, term, better):
    assert log_with(1, 2, 3).is_up_to_date(index, term) is better


@pytest.mark.parametrize(
    ("own", "index", "term", "found"),
    [
        # The log starts from index 1.
        ([2, 2, 5, 5, 5], 100, 2, (100, 0)),
        ([2, 2, 5, 5, 5], 5, 6, (5, 5)),
        ([2, 2, 5, 5, 5], 5, 5, (5, 5)),
        ([2, 2, 5, 5, 5], 5, 4, (2, 2)),
        ([2, 2, 5, 5, 5], 5, 2, (2, 2)),
        ([2, 2, 5, 5, 5], 5, 1, (0, 0)),
        ([2, 2, 5, 5, 5], 1, 2, (1, 2)),
        ([2, 2, 5, 5, 5], 1, 1, (0, 0)),
        ([2, 2, 5, 5, 5], 0, 0, (0, 0)),
    ],
)
def test_conflict_by_term(own, index, term, found):
    assert log_with(*own).conflict_by_term(index, term) == found


@pytest.mark.parametrize(
    ("index", "term", "found"),
    [(30, 3, (30, 0)), (14, 9, (14, 4)), (14, 4, (14, 4)), (14, 3, (12, 3)), (14, 2, (9, 0)), (4, 4, (4, 0))],
)
def test_conflict_by_term_in_a_compacted_log(index, term, found):
    log = log_with(3, 3, 4, 4, 4, base=10, base_term=3)
    assert log.conflict_by_term(index, term) == found


def linear_conflict(log: RaftLog, index: int, term: int) -> tuple[int, int]:
    while index > 0:
        own = log.term(index)
        if own is None:
            return index, 0
        if own <= term:
            return index, own
        index -= 1
    return 0, 0


@given(st.lists(st.integers(1, 6), max_size=12), st.integers(0, 8), st.integers(0, 16), st.integers(0, 8))
def test_the_search_for_a_conflict_finds_what_walking_back_finds(own, base, index, term):
    ordered = sorted(own)
    log = log_with(*ordered, base=base, base_term=1 if base else 0)
    assert log.conflict_by_term(index, term) == linear_conflict(log, index, term)


@pytest.mark.parametrize(
    ("lo", "hi", "limit", "count"),
    [
        (1, 4, None, 3),
        (1, 4, 0, 1),
        (1, 4, ENTRY_OVERHEAD, 1),
        (1, 4, 2 * ENTRY_OVERHEAD - 1, 1),
        (1, 4, 2 * ENTRY_OVERHEAD, 2),
        (1, 4, 9 * ENTRY_OVERHEAD, 3),
        (2, 2, None, 0),
        (4, 4, None, 0),
    ],
)
def test_entries_are_cut_at_a_size_but_never_to_nothing(lo, hi, limit, count):
    assert len(log_with(1, 2, 3).entries(lo, hi, limit)) == count


def test_entries_that_are_gone_are_not_asked_for():
    log = log_with(1, 2, 3, base=5)
    for lo, hi in ((5, 6), (6, 10), (3, 4)):
        with pytest.raises(AssertionError, match="not within"):
            log.entries(lo, hi)


# --- writes that are under way ----------------------------------------------------------------------------


def unstable() -> RaftLog:
    """A log with three entries of which the first is on disk."""
    log = log_with(1)
    log.append((Entry(2, 1), Entry(3, 1)))
    return log


def test_entries_are_handed_out_once():
    log = unstable()
    assert [entry.index for entry in log.take_unhanded()] == [2, 3]
    assert log.take_unhanded() == ()
    log.append((Entry(4, 1),))
    assert [entry.index for entry in log.take_unhanded()] == [4]


@pytest.mark.parametrize(
    ("index", "term", "stable", "reason"),
    [(3, 1, 3, None), (2, 1, 2, None), (3, 2, 1, "mismatch"), (4, 1, 1, "missing"), (1, 1, 1, "missing")],
)
def test_stable_to(index, term, stable, reason):
    log = unstable()
    log.take_unhanded()
    log.stable_to(index, term)
    assert log.stable == stable
    reasons = [event.reason for event in log.events if isinstance(event, WriteOvertaken)]
    assert reasons == ([reason] if reason else [])


def test_a_truncation_within_what_is_only_in_memory_is_told_from_one_on_disk():
    log = unstable()
    log.take_unhanded()
    log.append((Entry(3, 2),))
    assert log.events == [TailTruncated(3)]
    assert (log.stable, log.handed) == (1, 2)
    log.append((Entry(2, 3),))
    assert log.events[1:] == [TailReplaced(2)]
    assert (log.stable, log.handed) == (1, 1)


def test_a_conflict_is_told():
    log = log_with(1, 2, 3)
    log.maybe_append(1, 1, (Entry(2, 4),), 0)
    assert ConflictFound(2, 2, 4) in log.events


# --- applying ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stable", "may_be_unstable", "handed"), [(5, False, 5), (3, False, 3), (3, True, 5), (1, False, 0)]
)
def test_only_what_is_on_disk_is_applied_unless_told_otherwise(stable, may_be_unstable, handed):
    log = log_with(1, 1, 1, 1, 1)
    log.stable = log.handed = stable
    log.commit = 5
    log.applied = log.applying = 1
    found = log.take_appliable(may_be_unstable)
    assert [entry.index for entry in found] == list(range(2, handed + 1))


def test_what_waits_to_be_applied_is_bounded():
    log = log_with(*[1] * 6, max_applying_bytes=2 * ENTRY_OVERHEAD)
    log.commit = 6
    assert [entry.index for entry in log.take_appliable(False)] == [1, 2]
    assert log.take_appliable(False) == ()
    log.applied_to(1)
    assert log.take_appliable(False) == ()
    log.applied_to(2)
    assert [entry.index for entry in log.take_appliable(False)] == [3, 4]


def test_one_entry_is_applied_however_large():
    log = RaftLog(Snapshot(), (Entry(1, 1, b"x" * 100), Entry(2, 1)), max_applying_bytes=10)
    log.commit = 2
    assert [entry.index for entry in log.take_appliable(False)] == [1]
    assert log.take_appliable(False) == ()
    log.applied_to(1)
    assert [entry.index for entry in log.take_appliable(False)] == [2]


# --- snapshots and compaction -----------------------------------------------------------------------------


def test_compaction_keeps_the_last_term_and_everything_behind_it():
    log = log_with(*range(1, 11))
    log.commit = 10
    log.take_appliable(False)
    log.applied_to(7)
    log.compact(5)
    assert (log.first, log.term(5), log.term(4), log.last, log.last_term) == (6, 5, None, 10, 10)
    assert log.matches(6, 6)
    log.append((Entry(11, 11),))
    assert [entry.index for entry in log.entries(6)] == [6, 7, 8, 9, 10, 11]
    log.compact(2)
    assert log.first == 6
    with pytest.raises(AssertionError, match="not applied"):
        log.compact(8)


def test_compaction_never_overtakes_the_disk():
    log = unstable()
    log.commit = 3
    log.take_appliable(True)
    log.applied_to(3)
    log.compact(3)
    assert log.base == 1


def test_a_restored_log_begins_at_the_snapshot():
    log = log_with(1, 1, 1)
    log.restore(Snapshot(9, 4))
    assert (log.first, log.last, log.last_term, log.commit, log.applied) == (10, 9, 4, 9, 0)
    assert log.take_incoming() == Snapshot(9, 4)
    assert log.take_incoming() is None
    assert log.take_appliable(True) == ()
    log.installed(9)
    assert log.incoming is None
    assert log.snapshot == Snapshot(9, 4)


# --- against a list ---------------------------------------------------------------------------------------


class AgainstAList(RuleBasedStateMachine):
    """A follower's log, and the slowest thing that does the same."""

    def __init__(self) -> None:
        super().__init__()
        self.log = RaftLog(Snapshot(), ())
        self.model: list[int] = []
        self.commit = 0
        self.term = 1

    @rule(data=st.data())
    def append(self, data) -> None:
        """Take an append of a leader whose log agrees up to some place at or behind the commit index."""
        self.term += data.draw(st.integers(0, 2))
        prev = data.draw(st.integers(self.commit, len(self.model) + 1))
        sent = data.draw(st.lists(st.integers(0, 1), max_size=4))
        known = self.model[prev - 1] if 0 < prev <= len(self.model) else 0
        wrong = data.draw(st.booleans())
        entries = tuple(
            Entry(prev + offset, max(known, self.term) if step else max(known, 1))
            for offset, step in enumerate(sorted(sent), 1)
        )
        leader_commit = data.draw(st.integers(0, 12))
        answer = self.log.maybe_append(prev, known + wrong, entries, leader_commit)
        if prev > len(self.model) or wrong:
            assert answer is None
            return
        assert answer == prev + len(entries)
        for entry in entries:
            if entry.index <= len(self.model) and self.model[entry.index - 1] == entry.term:
                continue
            self.model[entry.index - 1 :] = [entry.term]
        self.commit = max(self.commit, min(leader_commit, answer))

    @rule()
    def write(self) -> None:
        self.log.take_unhanded()

    @precondition(lambda self: self.log.handed > self.log.stable)
    @rule()
    def written(self) -> None:
        index = self.log.handed
        self.log.stable_to(index, self.model[index - 1])
        assert self.log.stable == index

    @rule()
    def apply(self) -> None:
        entries = self.log.take_appliable(False)
        if entries:
            self.log.applied_to(entries[-1].index)

    @rule(keep=st.integers(0, 3))
    def compact(self, keep) -> None:
        self.log.compact(max(self.log.applied - keep, 0))

    @invariant()
    def same(self) -> None:
        self.log.check_invariants()
        assert self.log.commit == self.commit
        assert self.log.last == len(self.model)
        assert terms(self.log) == self.model[self.log.base :]
        for index in range(self.log.base, len(self.model) + 2):
            slow = 0 if index == 0 else self.model[index - 1] if index <= len(self.model) else None
            assert self.log.term(index) == slow
        copy = self.log.copy([])
        assert copy.state() == self.log.state()


TestAgainstAList = AgainstAList.TestCase
