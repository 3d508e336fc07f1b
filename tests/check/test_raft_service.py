import pytest

from agentflow.check import AcknowledgedKept, LivesAfterHealing, judge_raft
from agentflow.check.history import Invoked
from agentflow.check.verdict import Outcome

ABC = ("a", "b", "c")


class Committed:
    def __init__(self, index, term):
        self.index, self.term = index, term


@pytest.fixture
def working(tape, entry):
    """Let a lead term 1, with one entry that all have and know to be committed."""
    tape.members(*ABC)
    for node in ABC:
        tape.write(node, entry(1, 1), term=1, vote="a")
    tape.lead("a", 1)
    for node in ABC:
        tape.commit(node, 1)
    tape.now = 5.0
    return tape


def broken(tape, promise, **options):
    verdict = judge_raft(tape.records, **options)
    assert [part.promise for part in verdict.violations()] == [promise]
    return verdict


# --- acknowledged commands ----------------------------------------------------------------------------


def test_what_is_committed_may_be_acknowledged(working):
    working.add("client", "return", {"op": 1, "result": Committed(1, 1)})
    working.add("client", "answer", Committed(1, 1), type="7")
    working.add("client", "return", {"op": 2, "result": "no position"})
    working.add("client", "return", None)
    assert judge_raft(working.records)


def test_an_acknowledgement_before_the_commit_is_found(working, entry):
    working.write("a", entry(2, 1))
    bad = working.add("client", "answer", Committed(2, 1), type="7")
    verdict = broken(working, AcknowledgedKept.promise)
    assert verdict.first_bad is bad
    assert "where nobody had committed" in verdict.explanation


def test_an_acknowledgement_of_another_entry_is_found(working):
    working.add("client", "return", {"result": {"index": 1, "term": 4}})
    assert "one of term 1 is committed" not in judge_raft(working.records[:-1]).explanation
    verdict = broken(working, AcknowledgedKept.promise)
    assert "an entry of term 1 is committed" in verdict.explanation


def test_a_leader_that_lost_an_acknowledged_command_is_found(working, entry):
    acknowledged = working.add("client", "answer", Committed(1, 1))
    working.write("c", entry(1, 2), term=2, vote="c")
    working.lead("c", 2)
    judge = AcknowledgedKept()
    for record in working.records:
        judge.feed(record)
    assert "c leads term 2 without entry 1 of term 1" in judge.verdict.explanation
    assert judge.verdict.evidence[0] is acknowledged


def test_applying_another_command_in_the_place_of_an_acknowledged_one_is_found(working, entry):
    working.add("client", "answer", Committed(1, 1))
    working.apply("b", entry(1, 3))
    judge = AcknowledgedKept()
    for record in working.records:
        judge.feed(record)
    assert "b applied one of term 3 there" in judge.verdict.explanation


# --- reads --------------------------------------------------------------------------------------------


def test_a_read_served_at_the_commit_index_of_its_asking_is_fresh(working, entry):
    working.add("c1", "invoke", Invoked(1, "read"))
    for node in "ab":
        working.write(node, entry(2, 1))
    working.commit("a", 2)
    working.add("c1", "return", {"op": 1, "result": "x", "index": 1})
    assert judge_raft(working.records)


def test_a_read_served_below_what_was_committed_when_it_was_asked_is_stale(working, entry):
    for node in "ab":
        working.write(node, entry(2, 1))
    committed = working.commit("a", 2)
    asked = working.add("c1", "invoke", Invoked(1, "get", key="k"))
    bad = working.add("c1", "return", {"op": 1, "result": "x", "index": 1})
    verdict = broken(working, "no stale read")
    assert verdict.first_bad is bad
    assert asked in verdict.evidence
    assert committed in verdict.evidence


def test_reads_that_do_not_say_their_index_are_left_to_linearizability(working, entry):
    for node in "ab":
        working.write(node, entry(2, 1))
    working.commit("a", 2)
    working.add("c1", "invoke", Invoked(1, "get"))
    working.add("c1", "return", {"op": 1, "result": "x"})
    assert judge_raft(working.records)


# --- liveness -----------------------------------------------------------------------------------------


def liveness(tape, **options):
    verdict = judge_raft(tape.records, **options)
    return next(part for part in verdict.parts if part.promise == LivesAfterHealing.promise)


def test_a_cluster_that_goes_on_lives(working):
    assert liveness(working, healed=[5.0], within=3.0, now=9.0)


def test_a_cluster_without_a_leader_does_not_live(working):
    working.role("a", "follower", 2)
    verdict = liveness(working, healed=[5.0], within=3.0, now=9.0)
    assert verdict.is_violated
    assert "there is no leader" in verdict.explanation
    assert "a follower in term 1" in verdict.explanation


def test_a_leader_that_is_down_or_paused_is_none(working):
    working.add("a", "pause")
    assert liveness(working, healed=[5.0], within=3.0, now=9.0).is_violated
    working.add("a", "resume")
    assert liveness(working, healed=[5.0], within=3.0, now=9.0)
    working.crash("a")
    assert liveness(working, healed=[5.0], within=3.0, now=9.0).is_violated


def test_a_leader_that_commits_nothing_of_its_term_does_not_live(working, entry):
    working.write("b", entry(2, 2), term=2, vote="b")
    working.role("a", "follower", 2)
    working.lead("b", 2)
    verdict = liveness(working, healed=[5.0], within=3.0, now=9.0)
    assert "b leads term 2 and has committed nothing of it" in verdict.explanation


def test_a_follower_that_stays_behind_does_not_live(working, entry):
    for node in "ab":
        working.write(node, entry(2, 1))
        working.commit(node, 2)
    verdict = liveness(working, healed=[5.5], within=3.0, now=9.0)
    assert "c knows of commits to 1, and 2 was committed before" in verdict.explanation


def test_the_judge_speaks_when_the_time_is_up_and_names_that_record(working, entry):
    working.role("a", "follower", 2)
    working.now = 8.5
    late = working.add("a", "timer")
    working.role("b", "candidate", 2)
    working.write("b", entry(2, 2), term=2)
    working.write("c", entry(2, 2), term=2)
    working.lead("b", 2)
    working.commit("b", 2, term=2)
    verdict = liveness(working, healed=[5.0], within=3.0, now=20.0)
    assert verdict.is_violated
    assert verdict.first_bad.time == late.time


def test_a_trace_that_ends_too_early_leaves_liveness_unknown_unless_all_is_well(working):
    assert liveness(working, healed=[5.0], within=3.0, now=6.0)
    working.role("a", "follower", 2)
    verdict = liveness(working, healed=[5.0], within=3.0, now=6.0)
    assert verdict.outcome is Outcome.UNKNOWN
    assert "ends at 6 s" in verdict.explanation
