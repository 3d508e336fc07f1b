import pytest

from agentflow.check import TaskFact, judge_scheduling
from agentflow.errors import InvalidConfig


def facts(*rows):
    return [
        TaskFact(time, kind, "run-1", task, *rest[:1], *(rest[1:] and [rest[1]]))
        for time, (kind, task, *rest) in enumerate(rows)
    ]


GOOD = (
    ("submitted", "load"),
    ("submitted", "clean", -1, ("load",)),
    ("started", "load", 1),
    ("lost", "load", 1),
    ("started", "load", 2),
    ("refused", "load", 1),
    ("completed", "load", 2),
    ("started", "clean", 3),
    ("completed", "clean", 3),
)


def broken(promise, *rows, settled=False):
    verdict = judge_scheduling(facts(*rows), settled=settled)
    assert [part.promise for part in verdict.violations()] == [promise]
    return verdict


def test_a_run_with_a_lost_attempt_keeps_every_promise():
    assert judge_scheduling(facts(*GOOD))


@pytest.mark.parametrize("end", ["failed", "cancelled", "skipped"])
def test_a_task_may_end_in_other_ways(end):
    assert judge_scheduling(facts(("submitted", "a"), (end, "a")))


def test_a_task_that_never_ends_is_lost():
    verdict = broken("no task lost", *GOOD[:-1], settled=True)
    assert "run-1/clean" in verdict.explanation
    assert judge_scheduling(facts(*GOOD[:-1]), settled=False)


def test_a_task_must_not_start_before_its_inputs_are_completed():
    broken("inputs first", *GOOD[:6], ("started", "clean", 3))


def test_an_input_that_failed_is_not_there():
    broken("inputs first", *GOOD[:5], ("failed", "load"), ("started", "clean", 3))


def test_a_completion_must_not_be_applied_twice():
    verdict = broken("completed once", *GOOD, ("completed", "clean", 3))
    assert len(verdict.evidence) == 2


def test_a_completion_of_an_attempt_that_was_given_up_must_be_refused():
    verdict = broken("attempts fenced", *GOOD[:4], ("completed", "load", 1))
    assert "had been given up" in verdict.explanation


def test_a_completion_of_an_attempt_that_was_replaced_must_be_refused():
    broken("attempts fenced", *GOOD[:3], ("started", "load", 2), ("completed", "load", 1))


def test_an_attempt_number_belongs_to_one_task():
    broken(
        "attempts fenced", ("submitted", "a"), ("submitted", "b"), ("started", "a", 1), ("started", "b", 1)
    )


def test_an_attempt_that_was_never_started_cannot_report():
    broken("attempts fenced", ("submitted", "a"), ("completed", "a", 1))


def test_nothing_starts_after_the_end():
    broken("completed once", *GOOD, ("started", "clean", 4))
    broken("completed once", *GOOD, ("cancelled", "clean"))


def test_a_task_is_submitted_once_and_before_anything_else():
    broken("submitted once", ("submitted", "a"), ("submitted", "a"))
    broken("submitted once", ("started", "a", 1))


def test_a_failed_task_may_be_submitted_anew():
    assert judge_scheduling(
        facts(
            ("submitted", "a"),
            ("started", "a", 1),
            ("failed", "a"),
            ("submitted", "a"),
            ("started", "a", 2),
            ("completed", "a", 2),
        )
    )


def test_a_kind_nobody_knows_is_refused():
    with pytest.raises(InvalidConfig, match="no fact 'done'"):
        judge_scheduling([TaskFact(0, "done", "run-1", "a")])
