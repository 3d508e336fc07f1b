"""Reads of keys: fresh, without an entry of the log, and answered by nobody who may be deposed."""

import pytest

from agentflow.core.control.commands import KeyGet, KeySet
from agentflow.core.nodes.messages import Ask, Redirect, Tell


@pytest.fixture
def three(council):
    three = council("m1", "m2", "m3")
    three.elect()
    three.tell("c", three.leader, Ask(1, 1, KeySet("x", 5)))
    return three


def others(three):
    return [name for name in three.masters if name != three.leader]


def test_a_read_is_answered_without_an_entry_in_the_log(three):
    last = three.masters[three.leader].raft.last_index
    three.tell("c", three.leader, Ask(2, 2, KeyGet("x")))
    three.tell("c", three.leader, Ask(3, 3, KeyGet("never written")))
    assert three.answers("c", Tell)[-2:] == [Tell(2, 5), Tell(3, None)]
    assert three.masters[three.leader].raft.last_index == last


def test_a_leader_that_may_be_deposed_answers_no_read(three):
    old = three.leader
    three.cut = {old}
    three.tell("c", old, Ask(2, 2, KeyGet("x")))
    three.tell("c", old, Ask(2, 2, KeyGet("x")))
    assert three.answers("c", Tell) == [Tell(1, None)]
    three.pass_time(2)
    assert old != three.leader
    assert three.answers("c", Redirect) == [Redirect(2, None)]


def test_a_read_that_waited_is_answered_once_a_quorum_is_back(three):
    leader, others_ = three.leader, others(three)
    three.cut = set(others_)
    three.tell("c", leader, Ask(2, 2, KeyGet("x")))
    assert Tell(2, 5) not in three.answers("c", Tell)
    three.cut = set()
    three.pass_time(0.06)
    assert three.answers("c", Tell)[-1] == Tell(2, 5)


def test_a_read_shows_what_was_written_before_it(three):
    for number in range(2, 40, 2):
        three.tell("c", three.leader, Ask(number, number, KeySet("x", number)))
        three.tell("c", three.leader, Ask(number + 1, number + 1, KeyGet("x")))
        assert three.answers("c", Tell)[-1] == Tell(number + 1, number)


def test_a_follower_sends_a_reader_to_its_leader(three):
    follower = others(three)[0]
    three.tell("c", follower, Ask(2, 2, KeyGet("x")))
    assert three.answers("c", Redirect) == [Redirect(2, three.leader)]
