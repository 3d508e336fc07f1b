"""Linearizable reads: by asking a quorum, under a lease, and at followers."""

from __future__ import annotations

import pytest

from agentflow.core.raft import (
    Campaign,
    ForgetLeader,
    HardState,
    Message,
    MessageType,
    Propose,
    Read,
    ReadState,
    Receive,
    Role,
    Snapshot,
    Stored,
)
from agentflow.core.raft.events import CampaignRefused, LeaderKept
from agentflow.core.raft.readqueue import ReadQueue
from agentflow.errors import NotLeader

T = MessageType
LEASE = {"check_quorum": True, "lease_reads": True}


@pytest.mark.parametrize("node", ["1", "2", "3"])
@pytest.mark.parametrize("settings", [{}, LEASE])
def test_a_read_sees_every_write_that_was_acknowledged_before(net, node, settings):
    n = net(3, **settings)
    n.elect("1")
    for round_ in range(5):
        index = n.propose("1", b"w%d" % round_)
        n.run()
        n.read(node, b"r%d" % round_)
        n.run()
        assert n.reads[node][-1] == ReadState(b"r%d" % round_, index)


def test_a_read_takes_one_round_of_heartbeats(solo):
    node = solo().lead()
    node.do(Read(b"r"))
    beats = node.take(T.HEARTBEAT)
    assert [message.to for message in beats] == ["2", "3"]
    assert node.reads == []
    node.get(T.HEARTBEAT_RESP, "2", context=beats[0].context)
    assert node.reads == [ReadState(b"r", 1)]


def test_an_answer_to_an_earlier_heartbeat_proves_nothing(solo):
    node = solo().lead()
    node.tick()
    node.take()
    node.do(Read(b"r"))
    node.get(T.HEARTBEAT_RESP, "2", context=b"").get(T.HEARTBEAT_RESP, "3", context=b"")
    assert node.reads == []


def test_what_proves_a_read_proves_those_asked_before(solo):
    node = solo(size=5).lead()
    node.do(Read(b"r1")).do(Read(b"r2")).do(Read(b"r3"))
    last = node.take(T.HEARTBEAT)[-1].context
    node.get(T.HEARTBEAT_RESP, "2", context=last)
    assert node.reads == []
    node.get(T.HEARTBEAT_RESP, "3", context=last)
    assert [read.context for read in node.reads] == [b"r1", b"r2", b"r3"]


def test_one_member_that_answers_twice_is_no_quorum(solo):
    node = solo(size=5).lead()
    node.do(Read(b"r"))
    context = node.take(T.HEARTBEAT)[0].context
    node.get(T.HEARTBEAT_RESP, "2", context=context).get(T.HEARTBEAT_RESP, "2", context=context)
    assert node.reads == []


def test_a_learners_answer_does_not_count(net):
    n = net(2)
    n.elect("1")
    n.join("3")
    n.change("1", learn=["3"])
    n.run()
    n.isolate("2")
    n.read("1", b"r")
    n.run()
    assert n.reads["1"] == []
    n.read("3", b"q")
    n.run()
    assert n.reads["3"] == []
    n.heal()
    n.tick("1")
    n.run()
    assert [read.context for read in n.reads["1"] + n.reads["3"]] == [b"r", b"q"]


def test_reads_of_two_members_may_have_the_same_context(net):
    n = net(3)
    n.elect("1")
    for node in "123":
        n.read(node, b"same")
    n.run()
    assert all([read.context for read in n.reads[node]] == [b"same"] for node in "123")


def test_a_lost_round_is_repeated_with_the_next_heartbeat(net):
    n = net(3)
    n.elect("1")
    n.read("1", b"r")
    n.step("1")
    n.queue.clear()
    n.run()
    assert n.reads["1"] == []
    n.tick("1")
    n.run()
    assert [read.context for read in n.reads["1"]] == [b"r"]


def test_a_leader_alone_needs_no_round_but_its_own_first_commit(net):
    n = net(1)
    n.slow = {"1"}
    n.campaign("1").step("1")
    n.sync("1")
    n.step("1")
    assert n["1"].is_leader
    n.read("1", b"r")
    n.run()
    assert n.reads["1"] == []
    n.sync("1")
    n.run()
    assert n.reads["1"] == [ReadState(b"r", 1)]


def test_without_a_leader_there_is_nobody_to_ask(solo):
    for node in (solo(), solo().candidate()):
        with pytest.raises(NotLeader):
            node.do(Read(b"r"))


def test_reads_of_a_deposed_leader_are_reported_lost(solo):
    node = solo().lead()
    node.do(Read(b"r1")).do(Read(b"r2"))
    node.get(T.READ_INDEX, "2", term=0)
    node.get(T.HEARTBEAT, "3", term=5)
    assert node.lost == [b"r1", b"r2"]
    assert node.reads == []


def test_early_reads_of_a_deposed_leader_are_reported_lost(solo):
    node = solo().lead(acked=False)
    node.do(Read(b"r1"))
    node.get(T.HEARTBEAT, "3", term=5)
    assert node.lost == [b"r1"]


def test_reads_passed_to_a_leader_that_falls_are_reported_lost(net):
    n = net(3)
    n.elect("1")
    n.isolate("1")
    n.read("2", b"r")
    n.run()
    n.elect("3")
    assert n.lost["2"] == [b"r"]


def test_a_second_copy_of_an_answer_means_nothing(net):
    n = net(3)
    n.elect("1")
    n.read("2", b"r")
    for _ in range(6):
        for node in "123":
            n.step(node)
        n.deliver([message for message in n.take() for _ in range(2)])
    assert [read.context for read in n.reads["2"]] == [b"r"]


# --- leases -----------------------------------------------------------------------------------------------


def test_under_a_lease_a_read_needs_no_message(net):
    n = net(3, **LEASE)
    n.elect("1")
    n.tick("1")
    n.run()
    n.read("1", b"r")
    n.step("1")
    assert [read.context for read in n.reads["1"]] == [b"r"]
    assert n.take() == []


def test_without_a_lease_a_quorum_is_asked(net):
    n = net(3, **LEASE)
    n.elect("1")
    n.now += 100
    n.read("1", b"r")
    n.step("1")
    assert n.reads["1"] == []
    n.run()
    assert [read.context for read in n.reads["1"]] == [b"r"]


def test_a_lease_needs_a_quorum_of_the_configuration_in_force(net):
    n = net(5, **LEASE)
    n.elect("1")
    n.isolate("3", "4", "5")
    n.now += 9.5
    n.tick("1")
    n.run()
    n.read("1", b"r")
    n.step("1")
    assert n.reads["1"] == []


def test_where_a_lease_rests_nobody_votes_even_after_a_restart(net):
    n = net(3, **LEASE)
    n.elect("1")
    n.tick("1")
    n.run()
    n.restart("2")
    n.restart("3")
    n.isolate("1")
    n.campaign("2").run()
    assert n["2"].role is Role.CANDIDATE or n["2"].role is Role.FOLLOWER
    assert not n["2"].is_leader
    n.now += 10
    n.campaign("2").run()
    assert n["2"].is_leader


def test_where_a_lease_rests_nobody_campaigns_or_forgets_on_request(net):
    n = net(3, **LEASE)
    n.elect("1")
    n.tick("1")
    n.run()
    n.handle("2", Campaign())
    n.handle("2", ForgetLeader())
    n.run()
    assert CampaignRefused(1, "lease") in n.events["2"]
    assert LeaderKept("1", 1) in n.events["2"]
    assert n["2"].leader == "1"


def test_a_new_cluster_need_not_wait_for_a_lease_nobody_has(solo):
    node = solo(**LEASE)
    node.get(T.VOTE, "2", term=1)
    assert [message.reject for message in node.take(T.VOTE_RESP)] == [False]
    restarted = solo(stored=Stored(HardState(3, None, 0), Snapshot()), **LEASE)
    restarted.get(T.VOTE, "2", term=4)
    assert restarted.take() == []


def test_rounds_that_are_long_past_prove_nothing():
    queue = ReadQueue(uses_lease=True)
    queue.begin_round(0.0, -10.0)
    old = queue.stamp(b"")
    queue.begin_round(20.0, 10.0)
    queue.unstamp("2", old)
    assert queue.heard == {}
    queue.unstamp("2", queue.stamp(b""))
    assert queue.heard == {"2": 20.0}
    queue.unstamp("3", b"junk")
    assert "3" not in queue.heard


def test_a_stale_heartbeat_response_answers_no_read(solo):
    node = solo().lead()
    node.do(Propose((b"x",))).do(Read(b"r"))
    context = node.take(T.HEARTBEAT)[0].context
    node.do(Receive(Message(T.HEARTBEAT_RESP, "1", "2", node.term - 1, context=context)))
    assert node.reads == []
