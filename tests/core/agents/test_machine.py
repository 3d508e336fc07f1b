import copy

import pytest

from agentflow import errors
from agentflow.core.agents import AgentMessage, MessageType
from agentflow.core.agents.messages import Reset
from agentflow.core.agents.requests import Forget, Outcome
from agentflow.core.machine import Stalled, Unreachable, Woken

HANDLED = Outcome("handled")


def test_a_message_is_stamped_with_its_sender_and_numbered(kit, pair):
    a, _ = pair
    first, second = (kit.sent(a.post("b", now=2.0))[0] for _ in range(2))
    assert (first.from_, first.to, first.timestamp) == ("a", "b", 2.0)
    assert second.seq > first.seq


def test_a_message_waits_until_the_one_before_it_is_done(kit, pair):
    a, b = pair
    (one,), (two,) = kit.sent(a.post("b", content=1)), kit.sent(a.post("b", content=2))
    assert kit.mail(b.hear("a", one)) == [one]
    assert kit.mail(b.hear("a", two)) == []
    assert kit.mail(b.done(HANDLED)) == [two]


def test_what_is_behind_a_slow_handler_goes_back_into_the_mailbox_in_order(kit, pair):
    a, b = pair
    messages = [kit.sent(a.post("b", content=n))[0] for n in range(4)]
    b.hear("a", messages[0])
    for message in messages[1:]:
        b.hear("a", message)
    assert kit.mail(b.done(HANDLED)) == messages[1:]
    assert kit.mail(b.done(HANDLED, busy=True)) == []  # messages[2] is being handled, 3 went back
    assert b.machine.stats().mailbox == 1
    assert kit.mail(b.done(HANDLED)) == [messages[3]]


def test_a_second_copy_and_a_straggler_are_dropped_and_counted(kit, pair):
    a, b = pair
    (one,), (two,) = kit.sent(a.post("b", content=1)), kit.sent(a.post("b", content=2))
    b.hear("a", two)
    assert kit.dead(b.hear("a", two)) == ["stale"]
    assert kit.dead(b.hear("a", one)) == ["stale"]
    assert b.machine.stats().received == 1


def test_a_copy_that_comes_after_a_restart_of_the_receiver_is_still_a_copy(kit, pair):
    a, b = pair
    (one,) = kit.sent(a.post("b"))
    b.hear("a", one)
    b.start()
    assert kit.dead(b.hear("a", one)) == ["stale"]


def test_the_numbers_of_a_restarted_sender_go_on(kit, pair):
    a, b = pair
    (one,) = kit.sent(a.post("b"))
    a.start()
    (two,) = kit.sent(a.post("b"))
    b.hear("a", one)
    b.done(HANDLED)
    assert kit.mail(b.hear("a", two)) == [two]


def test_a_message_in_somebody_elses_name_is_refused_and_counted(kit, pair):
    _, b = pair
    forged = AgentMessage(MessageType.TASK_REQUEST, "do it", "x", "boss", "b", seq=1)
    effects = b.hear("mallory", forged)
    assert kit.mail(effects) == []
    assert kit.dead(effects) == ["forged"]
    assert b.machine.stats().dead_letters == {"forged": 1}


def test_what_is_no_agents_message_is_noted_and_nothing_else(kit, pair):
    _, b = pair
    (note,) = b.hear("master-1", {"type": "vote"})
    assert note.kind == "foreign"


def test_a_request_is_answered_by_what_its_handler_returned(kit, pair):
    a, b = pair
    token, effects = a.ask("b", {"x": 1}, timeout=2.0)
    (question,) = kit.sent(effects)
    assert question.requires_response
    assert question.ttl == 2000.0
    assert kit.mail(b.hear("a", question)) == [question]
    (reply,) = kit.sent(b.done(Outcome("handled", {"y": 2})))
    assert (reply.msg_type, reply.in_reply_to, reply.correlation_id) == (
        "task_response",
        question.id,
        question.id,
    )
    assert kit.answers(a.hear("b", reply)) == [(token, reply)]
    assert a.machine.stats().pending_requests == 0


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("task_request", "task_response"),
        ("resource_query", "resource_response"),
        ("collaboration_request", "collaboration_response"),
        ("heartbeat", "heartbeat"),
    ],
)
def test_each_type_of_question_has_its_type_of_answer(kit, pair, asked, answered):
    a, b = pair
    (question,) = kit.sent(a.ask("b", kind=MessageType(asked))[1])
    b.hear("a", question)
    (reply,) = kit.sent(b.done(Outcome("handled", 1)))
    assert reply.msg_type == answered


def test_there_are_no_responders_at_once_where_nobody_is(kit, pair):
    a, _ = pair
    token, effects = a.ask("nobody")
    ((answered, error),) = kit.answers(effects)
    assert answered == token
    assert isinstance(error, errors.NoResponders)
    assert kit.sent(effects) == []
    assert a.machine.deadline == kit.inf


def test_there_are_no_responders_where_the_transport_finds_nobody(kit, pair):
    a, _ = pair
    token, effects = a.ask("b")
    ((answered, error),) = kit.answers(a.event(Unreachable("b", kit.sent(effects)[0])))
    assert (answered, type(error)) == (token, errors.NoResponders)


def test_there_are_no_responders_where_no_handler_is(kit, pair):
    a, b = pair
    token, effects = a.ask("b")
    b.hear("a", kit.sent(effects)[0])
    effects = b.done(Outcome("unhandled"))
    assert kit.dead(effects) == ["unhandled"]
    ((answered, error),) = kit.answers(a.hear("b", kit.sent(effects)[0]))
    assert (answered, type(error)) == (token, errors.NoResponders)


def test_a_handler_that_raised_answers_with_its_report(kit, pair):
    a, b = pair
    _, effects = a.ask("b")
    b.hear("a", kit.sent(effects)[0])
    report = {"error": "ValueError: no", "type": "ValueError", "message": "no", "traceback": "..."}
    (reply,) = kit.sent(b.done(Outcome("failed", report)))
    assert reply.msg_type == "error"
    ((_, error),) = kit.answers(a.hear("b", reply))
    assert isinstance(error, errors.RemoteError)
    assert error.report == report
    assert "ValueError: no" in str(error)
    assert b.machine.stats().failed == 1


def test_a_request_to_a_full_mailbox_is_turned_away(kit):
    directory = kit.Directory()
    a, b = kit.Desk(directory, "a"), kit.Desk(directory, "b", capacity=1)
    for _ in range(2):  # one is being handled, one waits
        b.hear("a", kit.sent(a.post("b"))[0])
    _, effects = a.ask("b")
    effects = b.hear("a", kit.sent(effects)[0])
    assert kit.dead(effects) == ["mailbox full"]
    ((_, error),) = kit.answers(a.hear("b", kit.sent(effects)[0]))
    assert isinstance(error, errors.MailboxFull)
    assert error.agent == "b"


def test_a_request_that_waited_longer_than_its_ttl_expires(kit, pair):
    a, b = pair
    b.hear("a", kit.sent(a.post("b"))[0])
    _, effects = a.ask("b", ttl=100)
    b.hear("a", kit.sent(effects)[0], now=1.0)
    effects = b.done(HANDLED, now=1.2)
    assert kit.mail(effects) == []
    assert kit.dead(effects) == ["expired"]
    ((_, error),) = kit.answers(a.hear("b", kit.sent(effects)[0], now=1.2))
    assert isinstance(error, errors.Expired)


def test_the_ttl_of_a_request_is_never_more_than_its_time_out(kit, pair):
    a, _ = pair
    assert kit.sent(a.ask("b", timeout=0.5, ttl=60_000)[1])[0].ttl == 500.0
    assert kit.sent(a.ask("b", timeout=0.5, ttl=20)[1])[0].ttl == 20


def test_a_request_without_an_answer_is_given_up_in_time_and_its_late_reply_is_nobodys(kit, pair):
    a, b = pair
    token, effects = a.ask("b", timeout=2.0)
    b.hear("a", kit.sent(effects)[0])
    assert a.machine.deadline == 2.0
    ((answered, error),) = kit.answers(a.event(Woken(), 2.0))
    assert (answered, type(error)) == (token, errors.RequestTimeout)
    _, effects = a.ask("b", now=2.0)
    (reply,) = kit.sent(b.done(Outcome("handled", "old")))
    effects = a.hear("b", reply, now=2.1)
    assert kit.answers(effects) == []
    assert kit.dead(effects) == ["late reply"]
    assert a.machine.stats().pending_requests == 1


def test_a_reply_counts_once(kit, pair):
    a, b = pair
    _, effects = a.ask("b")
    b.hear("a", kit.sent(effects)[0])
    (reply,) = kit.sent(b.done(Outcome("handled", 1)))
    assert len(kit.answers(a.hear("b", reply))) == 1
    effects = a.hear("b", reply)
    assert kit.answers(effects) == []
    assert kit.dead(effects) == ["late reply"]


def test_a_reply_from_somebody_else_than_was_asked_is_refused(kit, pair):
    a, _ = pair
    _, effects = a.ask("b", name="a/1")
    reply = AgentMessage(MessageType.TASK_RESPONSE, "mine", "x", "mallory", "a", in_reply_to="a/1", seq=1)
    effects = a.hear("mallory", reply)
    assert kit.answers(effects) == []
    assert kit.dead(effects) == ["forged"]
    assert a.machine.stats().pending_requests == 1


def test_a_request_under_way_to_a_node_that_falls_fails_at_once_and_others_do_not(kit, pair):
    a, _ = pair
    kit.Desk(a.directory, "c")
    to_b, _ = a.ask("b")
    a.ask("c")
    ((answered, error),) = kit.answers(a.event(Unreachable("b", Reset())))
    assert (answered, type(error), error.node) == (to_b, errors.PeerDown, "b")
    assert a.machine.stats().pending_requests == 1


def test_nobody_waits_any_more_for_what_was_forgotten(kit, pair):
    a, b = pair
    _, effects = a.ask("b", name="a/1")
    a.local(Forget("a/1"))
    assert a.machine.deadline == kit.inf
    b.hear("a", kit.sent(effects)[0])
    (reply,) = kit.sent(b.done(Outcome("handled", 1)))
    assert kit.dead(a.hear("b", reply)) == ["late reply"]


def test_a_stall_of_the_host_is_no_silence_of_the_peer(kit, pair):
    a, _ = pair
    a.ask("b", timeout=2.0)
    a.event(Stalled(10.0))
    assert kit.answers(a.event(Woken(), 2.0)) == []
    assert len(kit.answers(a.event(Woken(), 12.0))) == 1


def test_the_answer_to_a_message_that_wanted_one_comes_as_a_message(kit, pair):
    a, b = pair
    (question,) = kit.sent(a.post("b", MessageType.TASK_REQUEST, requires_response=True))
    b.hear("a", question)
    (reply,) = kit.sent(b.done(Outcome("handled", 5)))
    assert kit.mail(a.hear("b", reply)) == [reply]
    assert kit.dead(a.hear("b", reply)) == ["late reply"]


def test_a_message_that_wants_no_answer_gets_none(kit, pair):
    a, b = pair
    b.hear("a", kit.sent(a.post("b", MessageType.TASK_REQUEST))[0])
    assert kit.sent(b.done(Outcome("handled", 5))) == []


def test_one_copy_goes_to_each_target_and_one_line_into_the_history(kit, pair):
    a, _ = pair
    kit.Desk(a.directory, "c")
    copies = kit.sent(a.post(("b", "c"), content="all"))
    assert [message.to for message in copies] == ["b", "c"]
    (line,) = a.machine.history
    assert (line.to, line.content) == ("", "all")


def test_a_message_to_an_agent_that_has_left_is_a_dead_letter(kit, pair):
    a, b = pair
    b.directory.leave("b")
    assert kit.dead(a.post("b")) == ["no responders"]
    b.directory.join("b")
    (message,) = kit.sent(a.post("b"))
    assert kit.dead(a.event(Unreachable("b", message))) == ["unreachable"]


def test_the_history_and_the_dead_letters_are_bounded(kit):
    directory = kit.Directory()
    a, b = kit.Desk(directory, "a"), kit.Desk(directory, "b", history=3, dead_letters=2)
    for number in range(10):
        (message,) = kit.sent(a.post("b", content=number))
        b.hear("a", message)
        b.hear("a", message)
        b.done(HANDLED)
    assert [message.content for message in b.machine.history] == [7, 8, 9]
    assert len(b.machine.letters.kept) == 2
    assert b.machine.stats().dead_letters == {"stale": 10}


def test_what_a_handler_of_an_earlier_life_reports_is_not_heard(kit, pair):
    a, b = pair
    _, effects = a.ask("b")
    b.hear("a", kit.sent(effects)[0])
    b.start()
    (other,) = kit.sent(a.ask("b")[1])
    b.hear("a", other)
    assert kit.sent(b.done(Outcome("handled", 1), life=1)) == []
    assert len(kit.sent(b.done(Outcome("handled", 2)))) == 1


def test_a_message_handled_by_hand_waits_its_turn_and_is_answered(kit, pair):
    a, b = pair
    b.hear("a", kit.sent(a.post("b"))[0])
    message = AgentMessage(MessageType.TASK_REQUEST, 1, "x")
    assert kit.mail(b.local(kit.Inject(message))) == []
    token = b.tokens
    assert kit.mail(b.done(HANDLED)) == [message]
    outcome = Outcome("handled", 7)
    assert kit.answers(b.done(outcome)) == [(token, outcome)]


def test_a_machine_is_plain_data(kit, pair):
    a, b = pair
    a.ask("b")
    b.hear("a", kit.sent(a.post("b"))[0])
    twin, original = copy.deepcopy((a.machine, b.machine)), (a.machine, b.machine)
    for machine in (twin[0], original[0]):
        machine.handle(Woken(), 9.0)
    assert twin[0].stats() == original[0].stats()
    assert twin[1].stats() == original[1].stats()
    assert [repr(e) for e in twin[0].ready()] == [repr(e) for e in original[0].ready()]
