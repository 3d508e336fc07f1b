"""The master, driven through its one door, alone and in a council of three."""

import pytest

from agentflow.core.control.commands import (
    CancelRun,
    Completion,
    Denied,
    ErrorReport,
    KeyGet,
    KeySet,
    RegisterWorker,
    Report,
    Settlement,
    TaskOptions,
)
from agentflow.core.machine import Woken
from agentflow.core.nodes.messages import (
    Ask,
    Enrol,
    Follow,
    Gone,
    Greet,
    Orders,
    Progress,
    Pulse,
    Redirect,
    Stranger,
    Tell,
    Unfollow,
    Unsure,
)

THREE = ("m1", "m2", "m3")


@pytest.fixture
def alone(council):
    return council("m1")


@pytest.fixture
def three(council):
    council = council(*THREE)
    council.elect()
    return council


def started(council, worker="worker-1"):
    return [order.attempt for orders in council.answers(worker, Orders) for order in orders.start]


def acknowledged(council, worker="worker-1"):
    return [attempt for orders in council.answers(worker, Orders) for attempt in orders.acknowledge]


# --- clients --------------------------------------------------------------------------------------------------


def test_a_follower_redirects_and_does_nothing(three):
    follower = next(name for name in THREE if name != three.leader)
    three.tell("c", follower, Ask(1, 1, KeySet("x", 1)))
    assert three.answers("c") == [Redirect(1, three.leader)]
    three.pass_time(0.2)
    assert all("x" not in master.plane.keys for master in three.masters.values())


def test_a_number_takes_effect_once_however_often_it_is_sent(alone):
    alone.elect()
    for value in (1, 2, 3):
        alone.tell("c", "m1", Ask(7, 7, KeySet("x", value)))
    assert alone.masters["m1"].plane.keys == {"x": 1}
    assert alone.answers("c", Tell) == [Tell(7)] * 3


def test_a_number_that_is_under_way_is_not_put_into_the_log_twice(three):
    leader = three.leader
    three.cut |= set(THREE) - {leader}
    before = three.masters[leader].raft.last_index
    for _ in range(3):
        three.tell("c", leader, Ask(1, 1, KeySet("x", 1)))
    assert three.masters[leader].raft.last_index == before + 1
    assert three.answers("c") == []


def test_the_same_number_is_answered_alike_by_the_next_leader(three):
    three.tell("c", three.leader, Ask(1, 1, KeySet("x", 1)))
    old = three.leader
    three.cut.add(old)
    three.pass_time(2.0)
    assert three.leader != old
    three.tell("c", three.leader, Ask(1, 1, KeySet("x", 2)))
    three.tell("c", three.leader, Ask(2, 1, KeyGet("x")))
    assert three.answers("c", Tell) == [Tell(1), Tell(1), Tell(2, 1)]


def test_two_clients_may_use_the_same_number(alone):
    alone.elect()
    alone.tell("c", "m1", Ask(1, 1, KeySet("x", 1)))
    alone.tell("d", "m1", Ask(1, 1, KeySet("y", 2)))
    assert alone.masters["m1"].plane.keys == {"x": 1, "y": 2}


def test_a_leader_that_lost_its_majority_says_it_is_unsure(three):
    leader = three.leader
    three.cut.add(leader)
    three.tell("c", leader, Ask(1, 1, KeySet("x", 1)))
    three.pass_time(3.0)
    assert three.answers("c", Unsure) == [Unsure(1)]
    assert not three.answers("c", Tell)


def test_a_leader_that_cannot_commit_in_time_says_it_is_unsure(council):
    stubborn = council(*THREE)
    for master in stubborn.masters.values():
        assert master.config.raft.replication_timeout_ms == 2000
    leader = stubborn.elect()
    others = set(THREE) - {leader}
    stubborn.cut |= others
    stubborn.tell("c", leader, Ask(1, 1, KeySet("x", 1)))
    stubborn.pass_time(2.5)
    assert stubborn.answers("c") == [Unsure(1)]


def test_what_it_was_unsure_of_settles_when_it_is_asked_again(three):
    old = three.leader
    three.cut.add(old)
    three.tell("c", old, Ask(1, 1, KeySet("x", "old")))
    three.pass_time(2.0)
    three.tell("c", three.leader, Ask(1, 1, KeySet("x", "again")))
    three.cut.clear()
    three.pass_time(1.0)
    assert three.answers("c", Tell) == [Tell(1)]
    assert {master.plane.keys["x"] for master in three.masters.values()} == {"again"}


def test_a_refusal_of_the_plane_is_told_as_one(alone):
    alone.elect()
    alone.tell("c", "m1", Ask(1, 1, CancelRun("run-9")))
    [told] = alone.answers("c", Tell)
    assert told.denied.error == "NoSuchTask"


@pytest.mark.parametrize("value", ["\ud800", 2**70, object()])
def test_what_no_log_can_hold_is_refused_and_harms_nobody(alone, value):
    alone.elect()
    alone.masters["m1"]._receive("c", Ask(1, 1, KeySet("x", value)))
    alone.masters["m1"]._receive("d", Ask(1, 1, KeySet("y", 1)))
    alone.settle()
    [told] = alone.answers("c", Tell)
    assert isinstance(told.denied, Denied)
    assert told.denied.error == "InvalidConfig"
    assert alone.answers("d", Tell) == [Tell(1)]
    assert alone.masters["m1"].plane.keys == {"y": 1}


def test_a_report_that_no_log_can_hold_is_noted_and_harms_nobody(alone):
    alone.enrol()
    alone.submit({"a": []})
    error = ErrorReport("OSError", "no such file: \udcff")
    bad = Completion(1, Settlement.FAILED, 0.0, 0.1, error=error)
    alone.tell("worker-1", "m1", Report("worker-1", 1, (bad,)))
    assert ("m1", "unfit", ("worker-1", "Report")) in alone.notes
    alone.report(1)
    assert alone.masters["m1"].plane.runs["run-1"].done


# --- workers --------------------------------------------------------------------------------------------------


def test_a_worker_is_greeted_when_its_registration_is_committed(three):
    three.cut |= set(THREE) - {three.leader}
    three.enrol()
    assert three.answers("worker-1") == []
    three.cut.clear()
    three.pass_time(0.2)
    assert Greet(three.masters[three.leader].raft.term) in three.answers("worker-1")


def test_a_follower_sends_a_worker_on(three):
    follower = next(name for name in THREE if name != three.leader)
    three.tell("worker-1", follower, Enrol(RegisterWorker("worker-1", 1)))
    assert three.answers("worker-1") == [Redirect(-1, three.leader)]


def test_a_forged_enrolment_is_refused_and_noted(alone):
    alone.elect()
    alone.tell("mallory", "m1", Enrol(RegisterWorker("worker-1", 1)))
    assert alone.masters["m1"].plane.workers == {}
    assert ("m1", "forged", ("mallory", "worker-1")) in alone.notes


def test_a_forged_report_is_refused_and_noted(alone):
    alone.enrol()
    alone.submit({"a": []})
    alone.report(1, source="mallory")
    run = alone.masters["m1"].plane.runs["run-1"]
    assert not run.done
    assert ("m1", "forged", ("mallory", "worker-1")) in alone.notes
    alone.report(1)
    assert run.done


def test_a_worker_of_an_earlier_life_is_a_stranger(alone):
    alone.enrol(epoch=5)
    alone.tell("worker-1", "m1", Pulse(4, ()))
    assert alone.answers("worker-1", Stranger) == [Stranger(1, 4)]
    alone.enrol(epoch=4)
    assert alone.answers("worker-1", Stranger) == [Stranger(1, 4)] * 2
    assert alone.masters["m1"].plane.workers["worker-1"].epoch == 5


def test_a_report_of_an_earlier_life_changes_nothing(alone):
    alone.enrol(epoch=5)
    alone.submit({"a": []})
    alone.report(1, epoch=4)
    assert not alone.masters["m1"].plane.runs["run-1"].done


def test_orders_reach_the_worker_when_they_are_committed_and_not_before(three):
    three.enrol()
    three.cut |= set(THREE) - {three.leader}
    three.submit({"a": []})
    assert started(three) == []
    three.cut.clear()
    three.pass_time(0.2)
    assert started(three) == [1]


def test_an_order_the_worker_does_not_have_is_sent_again_after_a_while(alone):
    alone.enrol()
    alone.submit({"a": []})
    alone.tell("worker-1", "m1", Pulse(1, ()))
    assert started(alone) == [1], "not at once: it may be on its way"
    alone.pass_time(0.5)
    alone.tell("worker-1", "m1", Pulse(1, ()))
    assert started(alone) == [1, 1]
    alone.tell("worker-1", "m1", Pulse(1, (1,)))
    assert started(alone) == [1, 1]


def test_what_a_worker_has_without_reason_it_is_told_to_stop(alone):
    alone.enrol()
    alone.tell("worker-1", "m1", Pulse(1, (99,)))
    assert [o.stop for o in alone.answers("worker-1", Orders) if o.stop] == [(99,)]


def test_a_report_is_acknowledged_when_it_is_committed_and_again_when_repeated(three):
    three.enrol()
    three.submit({"a": []})
    three.cut |= set(THREE) - {three.leader}
    three.report(1, to=three.leader)
    assert acknowledged(three) == []
    three.cut.clear()
    three.pass_time(0.1)
    assert acknowledged(three) == [1]
    three.report(1)
    assert acknowledged(three) == [1, 1]
    leader = three.masters[three.leader]
    assert [row.attempt for row in leader.plane.runs["run-1"].history] == [1], "and counted once"


def test_a_silent_worker_is_declared_dead_and_its_work_given_to_another(alone):
    alone.enrol("worker-1")
    alone.submit({"a": []})
    alone.pass_time(0.9)
    alone.enrol("worker-2")
    assert started(alone, "worker-2") == []
    alone.pass_time(0.5)
    assert started(alone, "worker-2") == [2]
    assert ("m1", "lost", ("worker-1", 1)) in alone.notes


def test_a_worker_that_beats_is_not_declared_dead(alone):
    alone.enrol()
    for _ in range(20):
        alone.pass_time(0.3)
        alone.tell("worker-1", "m1", Pulse(1, ()))
    assert alone.masters["m1"].plane.workers["worker-1"].alive


def test_a_new_leader_hears_every_worker_afresh_and_asks_what_it_runs(three):
    three.enrol()
    three.submit({"a": []})
    three.cut.add(three.leader)
    three.pass_time(0.95)  # an election, of which the worker's silence is no part
    leader = three.masters[three.leader]
    assert Greet(leader.raft.term) in three.answers("worker-1")
    assert leader.plane.workers["worker-1"].alive
    three.tell("worker-1", three.leader, Pulse(1, (1,)))
    assert started(three) == [1], "what it runs is not started again"
    three.report(1)
    assert leader.plane.runs["run-1"].done


def test_a_task_that_may_run_without_all_values_is_told_what_is_missing(alone):
    alone.enrol()
    alone.submit({"a": [], "b": [], "c": ["a", "b"]}, options=TaskOptions(when="all_done"))
    error = ErrorReport("ValueError", "boom")
    failed = Completion(1, Settlement.FAILED, 0.0, 0.1, error=error)
    alone.tell("worker-1", "m1", Report("worker-1", 1, (failed,)))
    alone.report(2)
    order = next(o for orders in alone.answers("worker-1", Orders) for o in orders.start if o.id == "c")
    assert (order.inputs, order.missing) == (((1, 2),), ((0, 4),))


def test_time_that_is_due_is_not_asked_for_again_while_its_batch_is_under_way(three):
    three.enrol()
    three.submit({"a": []}, options=TaskOptions(timeout=0.1))
    leader = three.masters[three.leader]
    three.cut |= set(THREE) - {three.leader}
    due = leader.deadline
    while due < leader.plane.deadline:
        leader.handle(Woken(), due)
        three.now = due
        three.settle()
        due = leader.deadline
    before = leader.raft.last_index
    leader.handle(Woken(), due)
    three.now = due
    three.settle()
    assert leader.raft.last_index == before + 1
    assert leader.deadline > due
    three.cut.clear()
    three.pass_time(0.1)
    assert leader.plane.runs["run-1"].done


# --- followers of a run ---------------------------------------------------------------------------------------


def told(council, who="c"):
    return [(p.start, p.tasks) for p in council.answers(who, Progress)]


def test_a_follower_is_told_from_where_it_stands(alone):
    alone.enrol()
    alone.submit({"a": [], "b": [], "d": ["a"]})
    alone.report(1)
    alone.tell("c", "m1", Follow("run-1", 0, 3))
    alone.report(2)
    alone.report(3)
    assert told(alone) == [(0, (0,)), (1, (1,)), (2, (2,))]
    assert [p.done for p in alone.answers("c", Progress)] == [False, False, True]
    alone.tell("late", "m1", Follow("run-1", 2, 3))
    assert told(alone, "late") == [(2, (2,))]


def test_a_follower_resumes_from_where_it_stands_after_a_leader_change(three):
    three.enrol()
    three.submit({"a": [], "b": []})
    three.tell("c", three.leader, Follow("run-1", 0, 2))
    three.report(1)
    three.cut.add(three.leader)
    three.pass_time(0.95)
    assert any(isinstance(message, Greet) for message in three.answers("c")), "the new leader says who it is"
    three.tell("c", three.leader, Follow("run-1", 1, 2))
    three.tell("worker-1", three.leader, Pulse(1, (2,)))
    three.report(2)
    assert told(three) == [(0, ()), (0, (0,)), (1, ()), (1, (1,))]


def test_who_follows_no_more_is_told_no_more(alone):
    alone.enrol()
    alone.submit({"a": [], "b": []})
    alone.tell("c", "m1", Follow("run-1", 0, 2))
    alone.tell("c", "m1", Unfollow("run-1"))
    alone.report(1)
    assert told(alone) == [(0, ())]


def test_who_follows_a_run_that_is_not_there_is_told_so(alone):
    alone.elect()
    alone.tell("c", "m1", Follow("run-7", 0, 0))
    assert alone.answers("c") == [Gone("run-7")]


def test_a_follower_of_a_master_that_does_not_lead_is_sent_on(three):
    follower = next(name for name in THREE if name != three.leader)
    three.tell("c", follower, Follow("run-1", 0, 0))
    assert three.answers("c") == [Redirect(-1, three.leader)]


def test_a_failure_is_told_with_its_attempt_and_worker(alone):
    alone.enrol("worker-1")
    alone.submit({"a": []}, options=TaskOptions(retries=1))
    error = ErrorReport("ValueError", "boom")
    for attempt in (1, 2):
        failed = Completion(attempt, Settlement.FAILED, 0.0, 0.1, error=error)
        alone.tell("worker-1", "m1", Report("worker-1", 1, (failed,)))
    alone.tell("c", "m1", Follow("run-1", 0, 1))
    [news] = alone.answers("c", Progress)
    assert (news.errors[0].attempt, news.errors[0].worker, news.errors[0].report.type) == (
        2,
        "worker-1",
        "ValueError",
    )


# --- batches --------------------------------------------------------------------------------------------------


def test_what_arrives_while_batches_are_under_way_goes_out_together(three):
    leader = three.masters[three.leader]
    three.cut |= set(THREE) - {three.leader}
    before = leader.raft.last_index
    for number in range(1, 50):
        three.tell("c", three.leader, Ask(number, 1, KeySet(f"k{number}", number)))
    under_way = leader.raft.last_index - before
    assert under_way == 2
    three.cut.clear()
    three.pass_time(0.2)
    assert len(leader.plane.keys) == 49
    assert leader.raft.last_index - before == 3


def test_every_master_that_applied_the_same_log_holds_the_same_plane(three):
    three.enrol("worker-1")
    three.enrol("worker-2")
    three.submit({f"t{i}": [f"t{i - 1}"] if i % 3 else [] for i in range(12)})
    for attempt in range(1, 9):
        three.report(attempt, worker="worker-1")
        three.report(attempt, worker="worker-2")
    three.pass_time(0.3)
    planes = [
        (bytes(p.runs["run-1"].state), p.runs["run-1"].history, sorted(p.live), p.at)
        for p in (master.plane for master in three.masters.values())
    ]
    assert planes[0] == planes[1] == planes[2]
    assert planes[0][1]
