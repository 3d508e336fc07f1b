import pytest

from agentflow.check import MailFact, judge_messaging
from agentflow.errors import InvalidConfig


def facts(*rows):
    return [MailFact(time, *row) for time, row in enumerate(rows)]


def broken(promise, *rows):
    verdict = judge_messaging(facts(*rows))
    assert [part.promise for part in verdict.violations()] == [promise]
    return verdict


def test_messages_may_be_lost_and_pairs_may_overtake_each_other():
    assert judge_messaging(
        facts(
            ("sent", 1, "a", "b"),
            ("sent", 2, "a", "b"),
            ("sent", 3, "a", "b"),
            ("sent", 4, "c", "b"),
            ("handled", 4, "c", "b"),
            ("handled", 1, "a", "b"),
            ("handled", 3, "a", "b"),
        )
    )


def test_a_broadcast_is_handled_once_by_everyone():
    assert judge_messaging(
        facts(
            ("sent", 1, "a", "b"), ("sent", 1, "a", "c"), ("handled", 1, "a", "c"), ("handled", 1, "a", "b")
        )
    )


def test_a_message_handled_after_a_later_one_breaks_fifo():
    rows = [("sent", 1, "a", "b"), ("sent", 2, "a", "b"), ("handled", 2, "a", "b"), ("handled", 1, "a", "b")]
    verdict = broken("fifo per pair", *rows)
    assert [each.id for each in verdict.evidence] == [1, 2, 1]


def test_a_message_handled_twice_is_found():
    broken("at most once", ("sent", 1, "a", "b"), ("handled", 1, "a", "b"), ("handled", 1, "a", "b"))


def test_a_message_nobody_sent_is_found():
    broken("sent before handled", ("sent", 1, "a", "b"), ("handled", 1, "a", "c"))


def test_an_answer_reaches_its_caller_once():
    assert judge_messaging(facts(("asked", 7, "a", "b"), ("answered", 7, "b", "a")))
    broken(
        "answers to their own caller",
        ("asked", 7, "a", "b"),
        ("answered", 7, "b", "a"),
        ("answered", 7, "b", "a"),
    )


@pytest.mark.parametrize(
    ("answered", "words"),
    [
        (("answered", 8, "b", "a"), "which nobody asked"),
        (("answered", 7, "b", "c"), "a asked 7, and c was given the answer"),
        (("answered", 7, "c", "a"), "was given an answer of c"),
    ],
)
def test_an_answer_to_another_question_is_found(answered, words):
    assert words in broken("answers to their own caller", ("asked", 7, "a", "b"), answered).explanation


def test_a_late_answer_never_reaches_the_caller():
    rows = [("asked", 7, "a", "b"), ("gave up", 7, "a", "b"), ("answered", 7, "b", "a")]
    assert "had given up" in broken("answers to their own caller", *rows).explanation


def test_a_kind_nobody_knows_is_refused():
    with pytest.raises(InvalidConfig, match="no fact 'lost'"):
        judge_messaging(facts(("lost", 1)))
