import pytest

from agentflow.check import Failed, History, Invoked, Operation, Returned, Uncertain
from agentflow.check.history import FOREVER, brief
from agentflow.core.record import Record
from agentflow.errors import Refused


def record(seq, node, kind, payload):
    return Record(seq, seq / 10, node, kind, payload=payload)


def test_operations_carry_who_asked_what_and_when():
    history = History()
    history.invoke("c1", "put", "a", key="x")
    history.invoke("c2", "get", key="x")
    history.returns("c2", "a")
    history.returns("c1")
    assert list(history) == [
        Operation("c1", "put", "a", None, 0, 3, "x"),
        Operation("c2", "get", None, "a", 1, 2, "x"),
    ]


def test_what_was_refused_did_not_happen_and_what_is_unknown_never_ends():
    history = History()
    history.invoke("c1", "put", "a")
    history.fails("c1")
    history.invoke("c1", "put", "b")
    history.unknown("c1")
    (operation,) = history
    assert operation.argument == "b"
    assert operation.is_pending


def test_a_process_answers_one_question_before_the_next_unless_they_are_numbered():
    history = History()
    history.invoke("c1", "get", op=1)
    history.invoke("c1", "get", op=2)
    with pytest.raises(Refused, match="has not been answered yet"):
        history.invoke("c1", "get", op=2)
    history.returns("c1", "late", op=1)
    with pytest.raises(Refused, match="no open operation number 1"):
        history.returns("c1", "again", op=1)
    assert [each.result for each in history] == ["late", None]


def test_time_does_not_go_back():
    history = History()
    history.invoke("c1", "get", at=5.0)
    with pytest.raises(Refused, match="time went back"):
        history.returns("c1", at=4.0)
    history.returns("c1", at=5.0)


def test_a_trace_tells_of_operations_with_structs_or_mappings():
    history = History.from_records(
        [
            record(0, "c1", "invoke", Invoked(op=1, function="put", argument="a", key="x")),
            record(1, "m1", "role", None),
            record(2, "c2", "invoke", {"op": 1, "function": "get", "key": "x", "process": "p"}),
            record(3, "c2", "return", {"op": 1, "result": "a", "process": "p"}),
            record(4, "c1", "info", Uncertain(op=1, error="TimedOut")),
            record(5, "c3", "invoke", Invoked(op=9, function="put", argument="b")),
            record(6, "c3", "fail", Failed(op=9)),
            record(7, "c3", "return", Returned(op=10, result="asked before the trace begins")),
        ]
    )
    assert list(history) == [
        Operation("c1", "put", "a", None, 0, FOREVER, "x"),
        Operation("p", "get", None, "a", 2, 3, "x"),
    ]


def test_a_client_that_crashed_may_use_a_number_again():
    history = History.from_records(
        [
            record(0, "c1", "invoke", Invoked(op=1, function="put", argument="a")),
            record(1, "c1", "crash", None),
            record(2, "c1", "invoke", Invoked(op=1, function="put", argument="b")),
            record(3, "c1", "return", Returned(op=1)),
        ]
    )
    assert [(each.argument, each.is_pending) for each in history] == [("a", True), ("b", False)]


def test_keys_are_separate_objects_in_order_of_first_use():
    history = History([Operation("c", "get", key=key, invoked=at) for at, key in enumerate("bab")])
    assert [(key, len(part)) for key, part in history.partition().items()] == [("b", 2), ("a", 1)]
    assert repr(history) == "<History 3 operations, 3 pending, 2 keys>"


def test_a_finished_history_can_be_continued():
    history = History([Operation("c1", "get", None, 1, 3.0, 8.0)])
    history.invoke("c1", "get")
    assert [each.invoked for each in history] == [3.0, 9.0]


def test_brief_keeps_both_ends():
    assert brief("short") == "'short'"
    assert len(brief("x" * 1000)) <= 41
