"""The worker, driven through its one door: orders in, work and reports out."""

from agentflow.core.control.commands import Completion, Report, Settlement, TaskKind
from agentflow.core.machine import Abandon, Execute, Finished, Note, Send, Stalled
from agentflow.core.nodes.messages import Enrol, Greet, Order, Orders, Pulse, Redirect, Stranger
from agentflow.core.nodes.worker import REMEMBERED


def order(attempt):
    return Order(attempt, "run-1", attempt, f"t{attempt}", 1, "payload", TaskKind.CALL, attempt)


def orders(*attempts, term=1, epoch=7, **more):
    return Orders(term, epoch, tuple(order(attempt) for attempt in attempts), **more)


def done(attempt):
    return Finished(attempt, Completion(attempt, Settlement.COMPLETED, 0.0, 0.1))


def reported(machine):
    return [[c.attempt for c in report.completions] for report in machine.sent(Report)]


def test_it_asks_one_master_after_the_other_until_one_answers(worker):
    w1 = worker()
    for _ in range(4):
        w1.wake()
    assert [effect.to for effect in w1.all(Send)] == ["m1", "m2", "m3", "m1"]
    assert {type(message) for message in w1.sent(object)} == {Enrol}


def test_a_redirect_is_followed_at_once_but_only_to_a_master(worker):
    w1 = worker()
    assert [effect.to for effect in w1.hear("m1", Redirect(-1, "m3"))] == ["m3"]
    assert not w1.hear("m1", Redirect(-1, "mallory"))
    assert not w1.hear("m1", Redirect(-1, None))


def test_a_greeting_is_answered_with_what_it_has(worker):
    w1 = worker()
    w1.hear("m1", orders(4, 5))
    w1.take(done(4))
    [pulse] = [e.message for e in w1.hear("m2", Greet(2)) if isinstance(e.message, Pulse)]
    assert pulse == Pulse(7, (5, 4))


def test_orders_for_an_earlier_life_are_not_carried_out(worker):
    # The worker crashed while they were under way: the attempt ran, and is given to somebody else.
    w1 = worker()
    assert w1.hear("m1", orders(1, epoch=6)) == [Note("stale-epoch", (6, 7))]
    assert not w1.machine.running
    w1.hear("m1", orders(2))
    assert list(w1.machine.running) == [2]


def test_an_attempt_starts_once_however_often_it_is_ordered(worker):
    w1 = worker()
    w1.hear("m1", orders(1, 2))
    w1.hear("m1", orders(1, 2))  # while they run
    w1.take(done(1))
    w1.hear("m1", orders(1))  # when it has finished
    w1.hear("m1", orders(acknowledge=(1,)))
    w1.hear("m1", orders(1))  # after it was acknowledged
    w1.hear("m1", orders(stop=(2,)))
    w1.hear("m1", orders(2))  # after it was stopped
    assert [effect.attempt for effect in w1.all(Execute)] == [1, 2]


def test_a_report_is_repeated_until_it_is_acknowledged(worker):
    w1 = worker()
    w1.hear("m1", orders(1))
    w1.take(done(1))
    w1.wake()
    w1.wake()
    assert reported(w1) == [[1], [1], [1]]
    w1.hear("m1", orders(acknowledge=(1,)))
    w1.wake()
    assert reported(w1) == [[1], [1], [1]]
    assert w1.sent(Pulse)[-1] == Pulse(7, ())


def test_what_finished_without_a_leader_is_told_to_the_next_one(worker):
    w1 = worker()
    w1.hear("m1", orders(1, 2))
    for _ in range(12):
        w1.wake()  # nobody answers for long
    assert w1.machine.leader is None
    w1.take(done(1))
    assert reported(w1) == []
    w1.hear("m2", Greet(2))
    assert reported(w1)[-1] == [1]
    assert [effect.to for effect in w1.all(Send) if isinstance(effect.message, Report)][-1] == "m2"


def test_a_new_leader_hears_again_what_the_old_one_may_not_have_kept(worker):
    w1 = worker()
    w1.hear("m1", orders(1))
    w1.take(done(1))
    w1.hear("m2", Greet(2))
    assert {effect.to for effect in w1.all(Send) if isinstance(effect.message, Report)} == {"m1", "m2"}


def test_a_lower_term_is_refused(worker):
    w1 = worker()
    w1.hear("m2", Greet(5))
    effects = w1.hear("m1", orders(1, term=4))
    assert effects == [Note("stale-term", ("m1", 4, 5))]
    assert not w1.all(Execute)
    assert w1.machine.leader == "m2"


def test_who_is_no_master_is_not_obeyed(worker):
    w1 = worker()
    w1.hear("m1", orders(1))
    for message in (
        orders(2, term=9),
        orders(stop=(1,), term=9),
        Greet(9),
        Stranger(9, 7),
        Redirect(-1, "m2"),
    ):
        assert w1.hear("mallory", message) == [Note("forged", ("mallory", type(message).__name__))]
    assert (w1.machine.term, w1.machine.leader, list(w1.machine.running)) == (1, "m1", [1])


def test_a_second_leader_of_the_same_term_is_not_believed(worker):
    w1 = worker()
    w1.hear("m1", Greet(3))
    assert w1.hear("m2", orders(1, term=3)) == [Note("forged", ("m2", "Orders"))]
    assert not w1.all(Execute)


def test_a_stopped_attempt_is_abandoned_and_its_late_end_wanted_by_nobody(worker):
    w1 = worker()
    w1.hear("m1", orders(1))
    assert Abandon(1) in w1.hear("m1", orders(stop=(1,)))
    assert w1.take(done(1)) == [Note("unwanted", 1)]
    assert not w1.sent(Report)


def test_a_stranger_starts_a_new_life_and_drops_the_old_ones_work(worker):
    w1 = worker()
    w1.hear("m1", orders(1, 2, 3))
    w1.take(done(2))
    effects = w1.hear("m1", Stranger(1, 7))
    assert {e.attempt for e in effects if isinstance(e, Abandon)} == {1, 3}
    assert [e.message.registration.epoch for e in effects if isinstance(e, Send)] == [8]
    w1.hear("m1", orders(1, 2, 3))
    assert len(w1.all(Execute)) == 3, "what the old life was ordered is not started again"
    w1.take(done(1))
    assert reported(w1) == [[2]], "nor is anything of it reported"


def test_a_stranger_of_another_life_means_nothing(worker):
    w1 = worker()
    w1.hear("m1", orders(1))
    w1.hear("m1", Stranger(1, 6))
    assert list(w1.machine.running) == [1]
    assert w1.machine.epoch == 7


def test_a_stall_of_the_host_is_no_silence_of_the_leader(worker):
    w1 = worker()
    w1.hear("m1", Greet(1), at=0.0)
    w1.take(Stalled(10.0), at=10.0)
    w1.wake(at=10.0)
    assert w1.machine.leader == "m1"


def test_work_that_could_not_be_started_is_reported_as_failed(worker):
    w1 = worker()
    w1.hear("m1", orders(1))
    w1.take(Finished(1, RuntimeError("no room for \ud800")), at=2.5)
    [[completion]] = [report.completions for report in w1.sent(Report)]
    assert completion.settlement is Settlement.FAILED
    assert completion.error.type == "RuntimeError"
    assert completion.error.message == "the attempt could not be started: no room for \\ud800"
    assert (completion.started, completion.finished) == (2.5, 2.5)


def test_what_it_remembers_is_bounded(worker):
    w1 = worker()
    count = REMEMBERED + 10
    w1.hear("m1", orders(*range(count)))
    w1.hear("m1", orders(stop=tuple(range(count))))
    w1.hear("m1", orders(*range(9, 12)))
    assert [effect.attempt for effect in w1.all(Execute)][count:] == [9], "only the oldest were forgotten"


def test_reports_of_one_turn_leave_together(worker):
    w1 = worker()
    w1.hear("m1", orders(1, 2, 3))
    w1.machine.handle(done(1), 0.1)
    w1.machine.handle(done(2), 0.1)
    w1.take(done(3))
    assert reported(w1) == [[1, 2, 3]]
