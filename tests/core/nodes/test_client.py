"""The client, driven through its one door: requests in, numbered commands and one of three answers out."""

import pytest

from agentflow import errors
from agentflow.core.control.commands import CancelRun, Denied, ErrorReport, KeyCas, KeyGet, KeySet, SubmitRun
from agentflow.core.machine import Answer, Local, Note, Send, Stalled, Unreachable
from agentflow.core.nodes.client import Command, Watch
from agentflow.core.nodes.messages import (
    Ask,
    Failure,
    Follow,
    Gone,
    Greet,
    Progress,
    Redirect,
    Tell,
    Unfollow,
    Unsure,
)

SET = KeySet("x", 1)


def command(token=1, timeout=2.0):
    return Local(token, Command(SET, timeout))


def progress(start, *tasks, known=3, done=False, added=()):
    return Progress(
        "run-1", start, tasks, bytes(3 for _ in tasks), tuple(range(len(tasks))), {}, {}, known, added, done
    )


def asked(c):
    return [(effect.to, effect.message.number) for effect in c.all(Send) if isinstance(effect.message, Ask)]


def answer(c):
    return [effect.result for effect in c.all(Answer)][-1]


def give_up(c):
    while not c.all(Answer):
        c.wake()
    return answer(c)


def test_a_command_is_sent_again_under_the_same_number(client):
    c = client()
    c.take(command())
    c.wake()
    c.wake()
    assert asked(c) == [("m1", 1), ("m2", 1), ("m3", 1)]


def test_commands_are_numbered_from_where_the_last_life_cannot_have_come(client):
    c = client(first=500)
    c.take(command(1))
    c.take(command(2))
    assert [number for _, number in asked(c)] == [500, 501]


def test_the_floor_is_the_oldest_command_that_is_open(client):
    c = client()
    c.take(command(1))
    c.take(command(2))
    c.hear("m1", Tell(1, None))
    c.take(command(3))
    assert [ask.floor for ask in c.sent(Ask)] == [1, 1, 2]


def test_an_answer_resolves_its_command_once(client):
    c = client()
    c.take(command())
    c.hear("m1", Tell(1, "done"))
    c.hear("m1", Tell(1, "again"))
    assert [effect.result for effect in c.all(Answer)] == ["done"]


def test_a_denial_becomes_its_error_with_its_facts(client):
    c = client()
    c.take(command())
    c.hear("m1", Tell(1, denied=Denied("NoSuchNode", "no worker 'w9'", {"node": "w9"})))
    assert isinstance(answer(c), errors.NoSuchNode)
    assert answer(c).node == "w9"


def test_a_denial_of_a_later_version_is_still_a_refusal(client):
    c = client()
    c.take(command())
    c.hear("m1", Tell(1, denied=Denied("NoSuchThing", "no")))
    assert type(answer(c)) is errors.Refused


def test_a_redirect_leads_to_the_leader_at_once(client):
    c = client()
    c.take(command())
    c.hear("m1", Redirect(1, "m3"))
    assert asked(c) == [("m1", 1), ("m3", 1)]
    c.hear("m3", Tell(1, None))
    c.take(command(2))
    assert asked(c)[-1] == ("m3", 2), "and it is remembered"


def test_without_a_leader_the_next_is_asked_after_a_while_and_not_in_a_tight_loop(client):
    c = client()
    c.take(command(), at=0.0)
    c.hear("m1", Redirect(1, None))
    assert asked(c) == [("m1", 1)]
    assert 0.0 < c.machine.deadline < 0.3
    c.wake()
    assert asked(c) == [("m1", 1), ("m2", 1)]


def test_when_everyone_says_no_it_is_refused(client):
    c = client()
    c.take(command())
    while not c.all(Answer):
        c.hear(c.all(Send)[-1].to, Redirect(1, None))
        c.wake()
    assert isinstance(answer(c), errors.NoQuorum)
    assert "2 s" in str(answer(c))
    assert c.now == 2.0


def test_when_one_did_not_answer_it_is_unknown(client):
    c = client()
    c.take(command())
    assert isinstance(give_up(c), errors.TimedOut)
    assert c.now == 2.0


def test_when_one_appended_it_and_the_rest_say_no_it_is_unknown(client):
    c = client()
    c.take(command())
    c.hear("m1", Unsure(1))
    while not c.all(Answer):
        c.wake()
        c.hear(c.all(Send)[-1].to, Redirect(1, None))
    assert isinstance(answer(c), errors.TimedOut)
    assert "may have" in str(answer(c))


@pytest.mark.parametrize(
    ("asked_for", "words", "next_step"),
    [
        (KeySet("x", 1), "set x = 1", "may have taken effect; read 'x'"),
        (KeyCas("x", 1, 2), "cas x: 1 → 2", "may have taken effect; read 'x'"),
        (KeyGet("x"), "get x", "changes nothing, so ask again"),
        (SubmitRun("k", "etl", (), (), ()), "submit 'etl'", "idempotency_key"),
        (CancelRun("run-1"), "cancel", "asking again does no harm"),
    ],
)
def test_the_error_says_what_was_asked_and_what_to_do(client, asked_for, words, next_step):
    c = client()
    c.take(Local(1, Command(asked_for, 2.0)))
    assert str(give_up(c)).startswith(words)
    assert next_step in str(answer(c))


def test_when_nobody_is_there_to_hear_it_it_is_refused(client):
    c = client()
    c.take(command())
    while not c.all(Answer):
        last = c.all(Send)[-1]
        c.take(Unreachable(last.to, last.message))
        c.wake()
    assert isinstance(answer(c), errors.NoQuorum)
    assert {to for to, _ in asked(c)} == {"m1", "m2", "m3"}


def test_an_unsure_master_is_asked_again_under_the_same_number(client):
    c = client()
    c.take(command())
    c.hear("m1", Unsure(1))
    c.wake()
    c.hear("m2", Tell(1, "settled"))
    assert asked(c) == [("m1", 1), ("m2", 1)]
    assert answer(c) == "settled"


def test_a_new_leader_is_asked_about_everything_that_is_open(client):
    c = client()
    c.take(command(1))
    c.take(Local(2, Watch("run-1", 3)))
    effects = c.hear("m2", Greet(4))
    assert {type(e.message) for e in effects} == {Ask, Follow}
    assert {e.to for e in effects} == {"m2"}
    assert c.hear("m1", Greet(3)) == [], "an older one is not"
    assert c.machine.leader == "m2"


def test_after_a_greeting_the_first_sending_may_still_have_been_taken(client):
    c = client()
    c.take(command())
    c.hear("m2", Greet(4))
    while not c.all(Answer):
        c.hear("m2", Redirect(1, None))
        c.wake()
    assert isinstance(answer(c), errors.TimedOut)


def test_who_is_no_master_answers_nothing(client):
    c = client()
    c.take(command())
    for message in (Tell(1, "forged"), Greet(9), Redirect(1, "mallory"), Unsure(1), progress(0, 1)):
        assert c.hear("mallory", message) == [Note("forged", ("mallory", type(message).__name__))]
    assert c.machine.leader == "m1"


def test_a_stall_of_the_host_is_no_silence_of_the_masters(client):
    c = client()
    c.take(command(), at=0.0)
    c.take(Stalled(60.0), at=60.0)
    c.wake(at=60.0)
    assert not c.all(Answer)


# --- following a run ------------------------------------------------------------------------------------------


def watching(client):
    c = client()
    c.take(Local(9, Watch("run-1", 3)))
    return c


def heard(c):
    return [(effect.result.tasks, effect.final) for effect in c.all(Answer)]


def test_a_follower_asks_from_where_it_stands(client):
    c = watching(client)
    c.hear("m1", progress(0, 0, 1))
    c.hear("m2", Greet(2))
    assert c.sent(Follow) == [Follow("run-1", 0, 3), Follow("run-1", 2, 3)]


def test_progress_that_overlaps_is_told_once(client):
    c = watching(client)
    c.hear("m1", progress(0, 0, 1))
    c.hear("m2", progress(1, 1, 2))
    assert heard(c) == [((0, 1), False), ((2,), False)]


def test_progress_with_a_gap_is_not_told_but_asked_for_again(client):
    c = watching(client)
    c.hear("m1", progress(2, 2))
    assert heard(c) == []
    c.wake()
    assert c.sent(Follow)[-1] == Follow("run-1", 0, 3)


def test_old_and_repeated_progress_is_not_told(client):
    c = watching(client)
    c.hear("m1", progress(0, 0, 1))
    c.hear("m1", progress(0, 0, 1))
    c.hear("m1", progress(0))
    assert heard(c) == [((0, 1), False)]


def test_tasks_added_meanwhile_are_told_once_each(client):
    c = watching(client)
    c.hear("m1", progress(0, 0, added=("x[0]", "x[1]")))
    c.hear("m2", progress(1, 1, added=("x[0]", "x[1]", "x[2]")))
    assert [effect.result.added for effect in c.all(Answer)] == [("x[0]", "x[1]"), ("x[2]",)]
    c.hear("m3", Greet(9))
    assert c.sent(Follow)[-1] == Follow("run-1", 2, 6)


def test_the_last_progress_is_final_and_ends_the_watching(client):
    c = watching(client)
    c.hear("m1", progress(0, 0, 1, 2, done=True))
    assert heard(c) == [((0, 1, 2), True)]
    assert c.machine.deadline == float("inf")


def test_a_run_that_is_gone_is_said_to_be(client):
    c = watching(client)
    c.hear("m1", Gone("run-1"))
    assert isinstance(answer(c), errors.NoSuchTask)


def test_who_unfollows_is_told_no_more(client):
    c = watching(client)
    c.take(Local(10, Unfollow("run-1")))
    c.hear("m1", progress(0, 0))
    assert [effect.token for effect in c.all(Answer)] == [10]


def test_a_failure_comes_with_its_attempt_and_worker(client):
    c = watching(client)
    failure = Failure(4, "worker-2", ErrorReport("ValueError", "boom"))
    c.hear("m1", Progress("run-1", 0, (1,), bytes([4]), (-1,), {1: failure}, {}, 3, (), False))
    assert answer(c).errors == {1: failure}
