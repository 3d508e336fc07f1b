import pytest

from agentflow.check import Outcome, Reproduction, Verdict
from agentflow.check.verdict import violated
from agentflow.core.record import Record
from agentflow.errors import InvariantViolated, Refused


def test_a_verdict_is_true_only_if_the_promise_was_kept():
    assert Verdict("p")
    assert not Verdict("p", Outcome.UNKNOWN)
    assert not Verdict("p", Outcome.VIOLATED)


def test_a_violation_outweighs_an_unknown_and_an_unknown_outweighs_ok():
    bad, unknown, good = Verdict("a", Outcome.VIOLATED), Verdict("b", Outcome.UNKNOWN), Verdict("c")
    assert Verdict.combine([good, unknown, bad]).outcome is Outcome.VIOLATED
    assert Verdict.combine([good, unknown]).outcome is Outcome.UNKNOWN
    assert Verdict.combine([good, good]).outcome is Outcome.OK
    assert Verdict.combine([]).outcome is Outcome.OK


def test_of_several_violations_the_earliest_speaks():
    late = violated("late", "no", Record(9, 2.0, "a", "role"))
    early = violated("early", "no", Record(3, 1.0, "a", "role"))
    whole = Verdict.combine([late, early], "raft")
    assert whole.explanation == "early: no"
    assert whole.violations() == [late, early]


def test_the_repr_is_one_short_line():
    text = repr(Verdict("p", Outcome.VIOLATED, "word " * 200 + "\nmore"))
    assert "\n" not in text
    assert len(text) < 200


def test_raising_carries_the_seed_the_trace_and_the_line_to_run():
    record = Record(3, 1.0, "a", "role")
    verdict = violated("election safety", "two leaders", record)
    with pytest.raises(InvariantViolated) as raised:
        verdict.raise_if_violated(seed=42, line="af.Simulation(seed=42)")
    error = raised.value
    assert error.seed == 42
    assert error.trace == [record]
    assert error.first_bad is record
    assert error.verdict is verdict
    assert "reproduce with: af.Simulation(seed=42)" in str(error)


def test_what_is_not_violated_does_not_raise():
    for verdict in (Verdict("p"), Verdict("p", Outcome.UNKNOWN)):
        assert verdict.raise_if_violated(seed=1) is verdict


def test_the_reproduction_is_used_when_nothing_else_is_said():
    verdict = violated("p", "no").reproducible(Reproduction(seed=7, line="run(7)"))
    with pytest.raises(InvariantViolated, match=r"\(seed 7\)\nreproduce with: run\(7\)"):
        verdict.raise_if_violated()


def test_shrinking_finds_the_faults_that_matter():
    faults = [f"fault {at}" for at in range(40)]
    needed = {"fault 3", "fault 31"}
    verdict = violated("p", "no").reproducible(
        Reproduction(seed=1, faults=faults, fails=lambda kept: needed <= set(kept))
    )
    assert verdict.shrink() == ["fault 3", "fault 31"]


def test_shrinking_is_refused_where_it_cannot_work():
    with pytest.raises(Refused, match="only a violation"):
        Verdict("p").shrink()
    with pytest.raises(Refused, match="does not know how its run was made"):
        violated("p", "no").shrink()
