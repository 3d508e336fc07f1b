"""Elections: who campaigns when, who votes, who leads."""

from __future__ import annotations

import math

import pytest

from agentflow.core.machine import Stalled
from agentflow.core.raft import (
    Campaign,
    ForgetLeader,
    HardState,
    Message,
    MessageType,
    Receive,
    Role,
    Snapshot,
    Stored,
    Transfer,
    Woken,
)
from agentflow.core.raft.events import CampaignRefused, MessageIgnored, VoteIgnored

T = MessageType


@pytest.mark.parametrize("pre_vote", [False, True])
@pytest.mark.parametrize(
    ("size", "dead", "leads"),
    [(3, "", True), (3, "3", True), (3, "23", False), (4, "23", False), (5, "23", True), (1, "", True)],
)
def test_a_leader_is_elected_by_the_living_majority(net, size, dead, leads, pre_vote):
    n = net(size, pre_vote=pre_vote)
    for node in dead:
        n.crash(node)
    n.campaign("1").run()
    assert n["1"].is_leader is leads
    waiting = Role.PRE_CANDIDATE if pre_vote else Role.CANDIDATE
    assert leads or n["1"].role is waiting
    assert n["1"].term == (0 if pre_vote and not leads else 1)


@pytest.mark.parametrize("pre_vote", [False, True])
def test_every_node_can_be_elected_in_turn(net, pre_vote):
    n = net(3, pre_vote=pre_vote)
    for term, node in enumerate("123", 1):
        n.elect(node)
        assert {machine.term for machine in n.nodes.values()} == {term}
        assert {machine.leader for machine in n.nodes.values()} == {node}


def test_two_candidates_that_meet_do_not_both_win(net):
    n = net(3)
    n.cut = {("1", "3"), ("3", "1")}
    n.campaign("1").campaign("3").run()
    assert n["1"].is_leader
    assert n["3"].role is Role.CANDIDATE
    n.heal()
    # 3 still believes in its candidacy, with a log that is behind: its term deposes 1 and it loses.
    n.campaign("3").run()
    assert {node.role for node in n.nodes.values()} == {Role.FOLLOWER}
    assert {node.term for node in n.nodes.values()} == {2}


def test_a_pre_candidate_with_a_worse_log_disturbs_nobody(net):
    n = net(3, pre_vote=True)
    n.cut = {("1", "3"), ("3", "1")}
    n.campaign("1").campaign("3").run()
    assert n["1"].is_leader
    n.heal()
    n.campaign("3").run()
    assert n["1"].is_leader
    assert {node.term for node in n.nodes.values()} == {1}
    assert n["3"].role is Role.FOLLOWER


def test_a_candidate_that_hears_of_a_leader_gives_up_and_catches_up(net):
    n = net(3)
    n.isolate("1")
    n.campaign("1").campaign("3").run()
    assert n["3"].is_leader
    n.heal()
    n.tick("3", times=2)
    n.run()
    assert n["1"].role is Role.FOLLOWER
    assert n.logs()["1"] == n.logs()["3"]


def test_a_single_node_elects_itself_even_as_a_pre_candidate(net):
    n = net(1, pre_vote=True)
    n.campaign("1").run()
    assert n["1"].is_leader
    assert n["1"].commit == 1


def test_a_learner_does_not_campaign_but_votes(solo):
    conf_stored = Stored(HardState(1, None, 5), Snapshot(5, 1))
    node = solo(stored=conf_stored, peers=["2", "3"], join=True)
    assert node.deadline == math.inf
    node.tick(100)
    assert node.role is Role.FOLLOWER
    node.do(Campaign())
    assert node.events[-1] == CampaignRefused(1, "unpromotable")
    node.get(T.VOTE, "2", term=2, log_term=1, index=5)
    (answer,) = node.take(T.VOTE_RESP)
    assert not answer.reject


def test_a_leader_that_is_told_to_campaign_leads_on(solo):
    node = solo().lead()
    node.do(Campaign())
    assert node.is_leader
    assert node.take() == []


# --- pre-vote ---------------------------------------------------------------------------------------------


def test_a_pre_vote_touches_neither_term_nor_vote(solo):
    node = solo(term=3, vote="2", pre_vote=True)
    node.writes.clear()
    node.do(Campaign())
    assert (node.role, node.term, node.vote) == (Role.PRE_CANDIDATE, 3, "2")
    assert [message.term for message in node.take(T.PRE_VOTE)] == [4, 4]
    assert all(write.hard_state is None for write in node.writes)


def test_a_pre_vote_may_be_granted_to_many(solo):
    node = solo(term=1, pre_vote=True)
    for candidate in "23":
        node.get(T.PRE_VOTE, candidate, term=2)
        (answer,) = node.take()
        assert (answer.type, answer.term, answer.reject) == (T.PRE_VOTE_RESP, 2, False)
    assert (node.term, node.vote) == (1, None)


def test_a_refused_pre_vote_brings_the_voters_own_term(solo, make_log):
    node = solo(log=make_log(1, 2), term=2, pre_vote=True)
    node.get(T.PRE_VOTE, "2", term=3, log_term=1, index=1)
    (answer,) = node.take()
    assert (answer.term, answer.reject) == (2, True)


def test_answers_to_the_pre_vote_are_not_votes(solo):
    node = solo(size=5, pre_vote=True).do(Campaign())
    node.get(T.PRE_VOTE_RESP, "2", term=1).get(T.PRE_VOTE_RESP, "3", term=1)
    assert (node.role, node.term) == (Role.CANDIDATE, 1)
    node.get(T.PRE_VOTE_RESP, "4", term=1).get(T.PRE_VOTE_RESP, "5", term=1)
    assert node.role is Role.CANDIDATE
    node.get(T.VOTE_RESP, "2").get(T.VOTE_RESP, "3")
    assert node.is_leader


def test_the_own_pre_vote_does_not_count_after_a_lost_election(net):
    """A pre-candidate whose own answer comes back after it heard a leader stays a follower."""
    n = net(3, pre_vote=True)
    n.slow = {"1"}
    n.campaign("1").step("1")
    n.handle("1", Receive(Message(T.HEARTBEAT, "1", "2", 3)))
    n.sync("1")
    n.step("1")
    assert n["1"].role is Role.FOLLOWER


def test_the_own_vote_does_not_count_after_a_lost_election(net):
    n = net(1)
    n.slow = {"1"}
    n.campaign("1").step("1")
    n.handle("1", Receive(Message(T.HEARTBEAT, "1", "2", 3)))
    n.sync("1")
    n.step("1")
    assert n["1"].role is Role.FOLLOWER
    assert n["1"].term == 3


def test_the_own_acknowledgement_does_not_count_in_another_term(net):
    n = net(1)
    n.elect("1")
    n.slow = {"1"}
    n.propose("1", b"a")
    n.step("1")
    n.handle("1", Receive(Message(T.HEARTBEAT, "1", "2", 3)))
    n.sync("1")
    n.step("1")
    assert n["1"].commit == 1


# --- check-quorum and stickiness --------------------------------------------------------------------------


def test_who_has_heard_a_leader_lately_does_not_answer_candidates(solo):
    node = solo(term=1, check_quorum=True)
    node.get(T.HEARTBEAT, "2")
    node.take()
    for kind in (T.VOTE, T.PRE_VOTE):
        node.get(kind, "3", term=2)
        assert node.take() == []
        assert isinstance(node.events[-1], VoteIgnored)
    assert node.term == 1
    node.tick(10)
    node.get(T.VOTE, "3", term=2)
    assert [message.reject for message in node.take(T.VOTE_RESP)] == [False]


def test_a_leader_with_a_quorum_does_not_answer_candidates(net):
    n = net(3, check_quorum=True)
    n.elect("1")
    n.campaign("3").run()
    assert n["1"].is_leader
    assert n["1"].term == 1


def test_a_candidate_sent_by_the_leader_is_answered(net):
    n = net(3, check_quorum=True)
    n.elect("1")
    n.handle("1", Transfer("2"))
    n.run()
    assert n["2"].is_leader


def test_a_leader_steps_down_when_its_quorum_is_silent_for_a_timeout(net):
    n = net(5, check_quorum=True)
    n.elect("1")
    n.isolate("4", "5")
    for _ in range(40):
        n.tick()
        n.run()
    assert n["1"].is_leader, "three of five are a quorum"
    n.isolate("3")
    for _ in range(20):
        n.tick()
        n.run()
    assert not n["1"].is_leader


def test_a_leader_alone_in_its_cluster_needs_nobody(net):
    n = net(1, check_quorum=True)
    n.elect("1")
    for _ in range(50):
        n.tick()
        n.run()
    assert n["1"].is_leader


def test_a_cut_off_leader_is_replaced_and_follows_when_it_returns(net):
    n = net(3, check_quorum=True, pre_vote=True)
    n.elect("1")
    n.isolate("1")
    for _ in range(60):
        n.tick()
        n.run()
    assert n.leader.id in "23"
    assert n["1"].role is not Role.LEADER
    n.heal()
    for _ in range(30):
        n.tick()
        n.run()
    assert n["1"].leader == n.leader.id
    assert n.logs()["1"] == n.logs()[n.leader.id]


# --- forgetting, waking, standing still -------------------------------------------------------------------


def test_a_follower_that_forgets_its_leader_may_vote_and_remembers_at_the_next_heartbeat(solo):
    node = solo(term=1, check_quorum=True)
    node.get(T.HEARTBEAT, "2")
    due = node.deadline
    node.do(ForgetLeader())
    assert node.leader is None
    assert node.deadline == due
    node.get(T.HEARTBEAT, "2")
    assert node.leader == "2"
    node.do(ForgetLeader()).get(T.VOTE, "3", term=2)
    assert [message.reject for message in node.take(T.VOTE_RESP)] == [False]


def test_leaders_and_candidates_forget_nobody(solo):
    node = solo().lead()
    node.do(ForgetLeader())
    assert node.leader == "1"
    candidate = solo().candidate()
    candidate.do(ForgetLeader())
    assert candidate.role is Role.CANDIDATE


def test_a_node_wakes_exactly_at_its_deadline(solo):
    node = solo()
    due = node.deadline
    node.now = math.nextafter(due, 0)
    node.do(Woken())
    assert node.role is Role.FOLLOWER
    node.now = due
    node.do(Woken())
    assert node.role is Role.CANDIDATE


def test_time_in_which_the_host_stood_still_proves_nothing(solo):
    node = solo(check_quorum=True).lead()
    node.now += 1000
    node.do(Stalled(1000)).do(Woken())
    assert node.is_leader
    follower = solo(term=1)
    due = follower.deadline
    follower.now += 500
    follower.do(Stalled(500)).do(Woken())
    assert follower.role is Role.FOLLOWER
    assert follower.deadline == min(due + 500, follower.now + follower.election_timeout)


def test_a_candidate_ignores_a_call_to_take_over(solo):
    node = solo().candidate()
    node.get(T.TIMEOUT_NOW, "2")
    assert node.role is Role.CANDIDATE
    assert isinstance(node.events[-1], MessageIgnored)


def test_messages_that_nobody_sends_are_ignored(solo):
    node = solo(term=1)
    for kind in (T.HUP, T.BEAT, T.CHECK_QUORUM, T.STORAGE_APPEND, T.STORAGE_APPEND_RESP, T.UNREACHABLE):
        node.get(kind, "2", term=9)
    assert node.term == 1
    assert node.take() == []
