"""Handing leadership over (thesis 3.10)."""

from __future__ import annotations

import pytest

from agentflow.core.raft import MessageType, Propose, Role, Transfer
from agentflow.core.raft.events import TransferIgnored
from agentflow.errors import InvalidConfig, NotLeader

T = MessageType


@pytest.mark.parametrize("settings", [{}, {"pre_vote": True, "check_quorum": True}])
def test_an_up_to_date_member_takes_over_at_once(net, settings):
    n = net(3, **settings)
    n.elect("1")
    n.handle("1", Transfer("2"))
    n.run()
    assert n["2"].is_leader
    assert n["1"].leader == "2"
    n.handle("2", Transfer("1"))
    n.run()
    assert n["1"].is_leader


def test_a_slow_member_is_brought_up_to_date_first(net):
    n = net(3)
    n.elect("1")
    n.isolate("3")
    n.propose("1", b"x")
    n.run()
    n.heal()
    n.handle("1", Transfer("3"))
    n.run()
    n.tick("1")
    n.run()
    assert n["3"].is_leader
    assert n.commands("3") == [b"x"]


def test_a_member_that_needs_a_snapshot_gets_it_first(net):
    n = net(3)
    n.elect("1")
    n.isolate("3")
    n.propose("1", b"x")
    n.run()
    n.compact("1")
    n.heal()
    n.handle("1", Transfer("3"))
    for _ in range(3):
        n.tick("1")
        n.run()
    assert n["3"].is_leader


def test_no_proposals_are_taken_meanwhile(net):
    n = net(3)
    n.elect("1")
    n.isolate("3")
    n.propose("1", b"x")
    n.run()
    n.handle("1", Transfer("3"))
    with pytest.raises(NotLeader) as refused:
        n.propose("1", b"y")
    assert refused.value.leader == "3"


def test_a_transfer_that_takes_too_long_is_given_up(net):
    n = net(3)
    n.elect("1")
    n.isolate("3")
    n.propose("1", b"x")
    n.run()
    n.handle("1", Transfer("3"))
    for _ in range(10):
        n.tick("1")
        n.run()
    assert n["1"].is_leader
    assert n["1"].heir is None
    n.propose("1", b"y")
    n.run()
    assert n.commands("2") == [b"x", b"y"]


def test_the_last_wish_counts(net):
    n = net(3)
    n.elect("1")
    n.isolate("3")
    n.propose("1", b"x")
    n.run()
    n.handle("1", Transfer("3"))
    n.handle("1", Transfer("3"))
    n.handle("1", Transfer("2"))
    n.run()
    assert n["2"].is_leader


def test_a_wish_to_transfer_to_oneself_ends_an_earlier_one(net):
    n = net(3)
    n.elect("1")
    n.isolate("3")
    n.propose("1", b"x")
    n.run()
    n.handle("1", Transfer("3"))
    n.handle("1", Transfer("1"))
    assert n["1"].heir is None
    n.run()
    assert TransferIgnored(1, "1", "self") in n.events["1"]


def test_only_a_leader_can_hand_over_and_only_to_a_voter(net):
    n = net(3)
    n.elect("1")
    with pytest.raises(NotLeader) as refused:
        n.handle("2", Transfer("3"))
    assert refused.value.leader == "1"
    with pytest.raises(InvalidConfig):
        n.handle("1", Transfer("9"))
    n.join("4")
    n.change("1", learn=["4"])
    n.run()
    with pytest.raises(InvalidConfig):
        n.handle("1", Transfer("4"))


def test_an_heir_with_a_change_to_apply_does_not_campaign(net):
    n = net(3)
    n.elect("1")
    n.idle = {"2"}
    n.change("1", add=["4"])
    n.run()
    n.handle("1", Transfer("2"))
    n.run()
    assert n["2"].role is Role.FOLLOWER
    assert n["1"].is_leader


def test_a_deposed_leader_forgets_its_heir(solo):
    node = solo().lead()
    node.do(Propose((b"x",))).do(Transfer("2"))
    node.get(T.HEARTBEAT, "3", term=9)
    assert node.heir is None
