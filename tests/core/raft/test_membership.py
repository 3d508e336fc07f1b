"""Membership: one at a time, jointly, learners, and leaders that leave."""

from __future__ import annotations

import pytest

from agentflow.core.raft import (
    ConfigChange,
    ConfState,
    Entry,
    EntryKind,
    Message,
    MessageType,
    ProposeConfig,
    Receive,
    Role,
    Transfer,
    Transition,
)
from agentflow.core.raft.confchange import encode_change
from agentflow.core.raft.events import ConfigIgnored
from agentflow.errors import InvalidConfig, Refused

T = MessageType


def test_a_new_member_is_brought_up_to_date_and_votes(net):
    n = net(3)
    n.elect("1")
    n.propose("1", b"a")
    n.run()
    n.join("4")
    n.change("1", add=["4"])
    n.run()
    assert n["4"].conf.voters == ("1", "2", "3", "4")
    assert n.commands("4") == [b"a"]
    n.isolate("1")
    n.elect("4")


def test_a_new_member_starts_from_a_snapshot_if_the_log_is_gone(net):
    n = net(3)
    n.elect("1")
    n.propose("1", b"a")
    n.run()
    n.compact("1")
    n.join("4")
    n.change("1", add=["4"])
    n.run()
    n.tick("1")
    n.run()
    assert n["4"].conf == n["1"].conf
    assert n["4"].applied == n["1"].applied


def test_a_member_is_removed_and_does_not_count_any_more(net):
    n = net(3)
    n.elect("1")
    n.change("1", remove=["3"])
    n.run()
    n.crash("2")
    index = n.propose("1", b"x")
    n.run()
    assert n["1"].commit < index
    n.restart("2")
    n.tick("1", times=2)
    n.run()
    assert n["1"].commit == index


def test_removing_a_member_can_commit_what_waited_for_it(net):
    n = net(3)
    n.elect("1")
    n.isolate("3")
    n.change("1", remove=["3"])
    n.run()
    assert n["1"].conf.voters == ("1", "2")
    n.isolate("2")
    index = n.propose("1", b"x")
    n.run()
    assert n["1"].commit < index


def test_a_change_takes_force_when_it_is_applied(net):
    n = net(3)
    n.elect("1")
    n.idle = {"2"}
    n.change("1", add=["4"])
    n.run()
    assert n["1"].conf.voters == ("1", "2", "3", "4")
    assert n["2"].conf.voters == ("1", "2", "3")


def test_learners_receive_everything_and_decide_nothing(net):
    n = net(2)
    n.elect("1")
    n.join("3")
    n.change("1", learn=["3"])
    n.run()
    assert n["3"].conf.learners == ("3",)
    n.isolate("2")
    index = n.propose("1", b"x")
    n.run()
    assert n["3"].last_index == index
    assert n["1"].commit < index
    n.tick("3", times=100)
    assert n["3"].role is Role.FOLLOWER


def test_a_learner_becomes_a_voter_and_a_voter_a_learner(net):
    n = net(3)
    n.elect("1")
    n.join("4")
    n.change("1", learn=["4"])
    n.run()
    n.change("1", add=["4"])
    n.run()
    assert (n["1"].conf.voters, n["1"].conf.learners) == (("1", "2", "3", "4"), ())
    n.change("1", learn=["2"])
    n.run()
    assert (n["1"].conf.voters, n["1"].conf.learners) == (("1", "3", "4"), ("2",))
    n.campaign("2").run()
    assert n["1"].is_leader


def test_a_leader_that_is_removed_steps_down_when_that_is_committed(net):
    n = net(3, step_down_on_removal=True)
    n.elect("1")
    n.change("1", remove=["1"])
    n.step("1")
    assert n["1"].is_leader
    n.run()
    assert n["1"].role is Role.FOLLOWER
    assert n["2"].conf.voters == n["3"].conf.voters == ("2", "3")
    n.elect("2")


def test_several_members_change_at_once_by_way_of_a_joint_configuration(net):
    n = net(3)
    n.elect("1")
    n.join("4")
    n.join("5")
    n.change("1", add=["4", "5"], remove=["2", "3"])
    n.run()
    for _ in range(3):
        n.tick("1")
        n.run()
    for node in "145":
        assert n[node].conf == ConfState(voters=("1", "4", "5"))
    changes = [entry for entry in n.applied["1"] if entry.kind is EntryKind.CONF_CHANGE_V2]
    assert len(changes) == 2, "in, and out by itself"


def test_an_explicit_joint_configuration_is_left_on_request(net):
    n = net(3)
    n.elect("1")
    n.change("1", remove=["3"], transition=Transition.EXPLICIT)
    n.run()
    n.tick("1", times=5)
    n.run()
    assert n["1"].conf.voters_outgoing == ("1", "2", "3")
    with pytest.raises(Refused, match="must be left first"):
        n.change("1", add=["3"])
    n.handle("1", ProposeConfig(ConfigChange()))
    n.run()
    assert n["1"].conf == ConfState(voters=("1", "2"))
    with pytest.raises(Refused, match="no joint configuration"):
        n.handle("1", ProposeConfig(ConfigChange()))


def test_a_demoted_voter_waits_until_the_joint_configuration_is_left(net):
    n = net(3)
    n.elect("1")
    n.change("1", learn=["3"], transition=Transition.EXPLICIT)
    n.run()
    assert n["1"].conf.learners_next == ("3",)
    assert n["1"].conf.learners == ()
    n.handle("1", ProposeConfig(ConfigChange()))
    n.run()
    assert n["3"].conf.learners == ("3",)


def test_a_new_leader_leaves_the_joint_configuration_of_the_old_one(net):
    n = net(4)
    n.elect("1")
    n.change("1", learn=["4"], transition=Transition.IMPLICIT)
    while not n["2"].conf.voters_outgoing:
        for node in "1234":
            n.step(node)
        n.deliver()
    n.crash("1")
    n.queue.clear()
    n.elect("2")
    n.run()
    assert n["2"].conf == n["3"].conf == ConfState(voters=("1", "2", "3"), learners=("4",))


def test_what_cannot_be_done_never_enters_the_log(net):
    n = net(2)
    n.elect("1")
    last = n["1"].last_index
    for wish in (ConfigChange.of(remove=["1", "2"]),):
        with pytest.raises(InvalidConfig):
            n.handle("1", ProposeConfig(wish))
    assert n["1"].last_index == last


def test_a_follower_passes_a_change_on_if_asked_to(net):
    n = net(3)
    n.elect("1")
    n.handle("2", ProposeConfig(ConfigChange.of(remove=["3"]), forward=True))
    n.run()
    assert n["1"].conf.voters == ("1", "2")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (ConfigChange(), "not-joint"),
        (ConfigChange.of(remove=["1", "2", "3"]), "impossible"),
        (ConfigChange.of(add=["5"]), "pending"),
    ],
)
def test_a_change_passed_on_at_the_wrong_time_becomes_an_empty_entry(net, change, reason):
    n = net(3)
    n.elect("1")
    if reason == "pending":
        n.change("1", add=["4"])
    entries = (Entry(0, 0, encode_change(change), EntryKind.CONF_CHANGE_V2),)
    n.handle("1", Receive(Message(T.PROP, "1", "2", entries=entries)))
    last = n["1"].log.entries(n["1"].last_index)[0]
    assert (last.data, last.kind) == (b"", EntryKind.NORMAL)
    n.run()
    (event,) = [event for event in n.events["1"] if isinstance(event, ConfigIgnored)]
    assert event.reason == reason


def test_a_restarted_node_puts_its_applied_changes_in_force_again(net):
    n = net(3)
    n.elect("1")
    n.change("1", remove=["3"])
    n.run()
    n.propose("1", b"x")
    n.run()
    n.restart("2")
    n.run()
    assert n["2"].conf.voters == ("1", "2")


def test_a_node_told_how_far_its_state_is_applied_begins_with_the_membership_of_that_point(net, solo):
    n = net(3)
    n.elect("1")
    n.change("1", remove=["3"])
    n.run()
    n.propose("1", b"x")
    n.run()
    stored = n.disks["2"].stored
    node = solo(id="2", stored=stored, applied=2)
    assert node.conf.voters == ("1", "2")
    assert node.applied == 2


def test_transfer_to_a_member_that_is_removed_is_given_up(net):
    n = net(3)
    n.elect("1")
    n.change("1", remove=["3"])
    n.isolate("3")
    n.handle("1", Transfer("3"))
    assert n["1"].heir == "3"
    n.run()
    assert n["1"].heir is None
