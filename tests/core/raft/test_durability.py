"""The disk: what is written, what waits for it, and what becomes of its failures."""

from __future__ import annotations

import copy
import math

import pytest

from agentflow.core.machine import Persisted, PersistFailed, Woken
from agentflow.core.raft import (
    Applied,
    Campaign,
    ConfState,
    Entry,
    HardState,
    Message,
    MessageType,
    Propose,
    RaftConfig,
    RaftMachine,
    Read,
    Receive,
    Role,
    Snapshot,
    Stored,
    Write,
)
from agentflow.core.raft.events import RoleChanged
from agentflow.errors import InvalidConfig, NotLeader

T = MessageType


def test_entries_leave_for_the_others_while_the_own_disk_is_writing(net):
    """Thesis 10.2.1."""
    n = net(3)
    n.elect("1")
    n.slow = {"1"}
    n.propose("1", b"x")
    n.run()
    assert n["1"].commit == 2, "two other disks are a quorum"
    assert n.commands("2") == [b"x"]
    assert n.commands("1") == [], "applied only when it is on the own disk too"
    n.sync("1")
    n.run()
    assert n.commands("1") == [b"x"]


def test_a_leader_can_apply_what_its_own_disk_does_not_have_yet_if_told_so(net):
    n = net(3, apply_before_durable=True)
    n.elect("1")
    n.slow = {"1"}
    n.propose("1", b"x")
    n.run()
    assert n.commands("1") == [b"x"]


def test_writes_are_piped_and_each_answer_waits_for_its_own(net):
    n = net(3)
    n.elect("1")
    n.slow = {"2"}
    for _ in range(3):
        n.propose("1", b"x")
        n.step("1")
        n.deliver(n.take(to="2"))
        n.step("2")
    assert len(n.disks["2"].pending) == 3
    assert n.take(source="2") == []
    n.sync("2", 2)
    assert [message.index for message in n.take(source="2")] == [2, 3]
    n.sync("2")
    assert [message.index for message in n.take(source="2")] == [4]


def test_a_write_that_is_done_vouches_for_those_before_it(solo):
    machine = solo(size=1).lead().machine
    ids = []
    for _ in range(3):
        machine.handle(Propose((b"x",)), 0.0)
        ids.append(machine.ready().persist.id)
    assert ids == sorted(ids)
    machine.handle(Persisted(ids[-1]), 0.0)
    assert machine.commit == 4
    machine.handle(Persisted(ids[0]), 0.0)
    assert machine.commit == 4


def test_an_answer_that_rests_on_earlier_writes_waits_for_them(net):
    """Nothing new is to be written, and still the answer must not overtake the disk."""
    n = net(3)
    n.slow = {"2"}
    entry = Entry(1, 1, b"x")
    n.handle("2", Receive(Message(T.APP, "2", "1", 1, entries=(entry,))))
    n.step("2")
    n.handle("2", Receive(Message(T.APP, "2", "1", 1, entries=(entry,))))
    n.step("2")
    assert n.disks["2"].pending[1][1] == Write()
    assert n.take(source="2") == []
    n.sync("2")
    assert len(n.take(source="2")) == 2


def test_a_commit_index_alone_is_no_reason_to_write(solo, make_log):
    node = solo(log=make_log(1, 1))
    node.get(T.HEARTBEAT, "2", commit=1)
    node.writes.clear()
    node.get(T.HEARTBEAT, "2", commit=2)
    assert node.writes == []
    node.get(T.APP, "2", index=2, log_term=1, entries=(Entry(3, 1),))
    assert node.writes[0].hard_state == HardState(1, None, 2)


def test_nothing_to_do_is_none(solo):
    node = solo()
    assert node.machine.ready() is None
    node.machine.handle(Woken(), 0.0)
    assert node.machine.ready() is None


# --- a disk that fails ------------------------------------------------------------------------------------


def test_a_leader_whose_disk_fails_steps_down_and_falls_silent(net):
    n = net(3)
    n.elect("1")
    n.propose("1", b"x")
    ready = n["1"].ready()
    n.handle("1", PersistFailed(ready.persist.id, "no space left"))
    after = n["1"].ready()
    assert after.messages == ()
    assert after.messages_after == ()
    assert after.persist is None
    assert RoleChanged(Role.FOLLOWER, 1, None, "disk") in after.events
    assert n["1"].deadline == math.inf
    for event in (Propose((b"y",)), Read(b"r")):
        with pytest.raises(NotLeader, match="no space left"):
            n.handle("1", event)
    n.handle("1", Receive(Message(T.VOTE, "1", "2", 9, 9, 9)))
    n.handle("1", Campaign())
    n.handle("1", Persisted(ready.persist.id))
    assert n["1"].ready() is None
    assert n["1"].term == 1


def test_a_follower_whose_disk_fails_acknowledges_nothing(net):
    n = net(3)
    n.elect("1")
    n.slow = {"2"}
    n.propose("1", b"x")
    n.step("1")
    n.deliver(n.take(to="2"))
    n.step("2")
    number, _ = n.disks["2"].pending.pop()
    n.handle("2", PersistFailed(number, "i/o error"))
    n.step("2")
    assert n.take(source="2") == []


def test_reads_of_a_leader_whose_disk_fails_are_lost(solo):
    node = solo().lead()
    node.do(Read(b"r"))
    node.machine.handle(Propose((b"x",)), node.now)
    number = node.machine.ready().persist.id
    node.do(PersistFailed(number, "gone"))
    assert node.lost == [b"r"]


# --- starting ---------------------------------------------------------------------------------------------


def test_a_node_begins_with_what_is_stored(make_log):
    stored = Stored(HardState(5, "b", 2), Snapshot(), make_log(1, 2, 2))
    node = RaftMachine("a", RaftConfig(peers=["a", "b", "c"]), stored=stored)
    assert (node.term, node.vote, node.commit, node.applied, node.last_index) == (5, "b", 2, 0, 3)
    assert [entry.index for entry in node.ready().committed] == [1, 2]


def test_a_node_told_what_is_applied_is_not_given_it_again(make_log):
    stored = Stored(HardState(5, None, 2), Snapshot(), make_log(1, 2, 2))
    node = RaftMachine("a", RaftConfig(peers=["a"]), stored=stored, applied=3)
    assert (node.commit, node.applied) == (3, 3)
    assert node.ready().committed == ()


@pytest.mark.parametrize(
    ("stored", "applied"),
    [
        (Stored(HardState(1, None, 5)), None),
        (Stored(HardState(1, None, 0)), 3),
        (Stored(HardState(1, None, 9), Snapshot(9, 1)), 4),
    ],
)
def test_a_disk_that_lacks_something_is_not_started_from(stored, applied):
    with pytest.raises(InvalidConfig) as refused:
        RaftMachine("a", RaftConfig(peers=["a"]), stored=stored, applied=applied)
    assert refused.value.field == "stored"


def test_the_stored_membership_goes_before_the_configured_one():
    conf = ConfState(voters=("x", "y"))
    stored = Stored(HardState(1, None, 5), Snapshot(5, 1, conf))
    assert RaftMachine("a", RaftConfig(peers=["a", "b"]), stored=stored).conf == conf


def test_ones_own_name_among_the_peers_is_welcome_and_not_needed():
    with_own = RaftMachine("a", RaftConfig(peers=["c", "a", "b"]))
    without = RaftMachine("a", RaftConfig(peers=["b", "c"]))
    assert with_own.conf == without.conf == ConfState(voters=("a", "b", "c"))
    assert RaftMachine("a", RaftConfig()).conf.voters == ("a",)


def test_who_joins_is_no_member_until_told(solo):
    node = RaftMachine("d", RaftConfig(peers=["a", "b", "c"], join=True))
    assert node.conf.voters == ("a", "b", "c")
    assert node.deadline == math.inf


# --- a machine is plain data ------------------------------------------------------------------------------


def test_a_copy_is_equal_and_independent(solo):
    node = solo(check_quorum=True).lead()
    node.machine.handle(Propose((b"x",)), node.now)
    node.machine.handle(Read(b"r"), node.now)
    twin = copy.deepcopy(node.machine)
    assert twin == node.machine
    assert twin.ready() == node.machine.ready()
    twin.handle(Receive(Message(T.HEARTBEAT, "1", "2", 9)), node.now)
    assert twin != node.machine
    assert node.machine.is_leader
    assert node.machine.random.random() != twin.random.random()


def test_copies_draw_alike(solo):
    node = solo()
    twin = node.machine.copy()
    for machine in (node.machine, twin):
        machine.handle(Campaign(), 1.0)
        machine.handle(Campaign(), 2.0)
    assert node.machine.election_timeout == twin.election_timeout
    assert node.machine == twin


def test_a_machine_is_not_equal_to_something_else(solo):
    assert solo().machine != "machine"
    assert len({solo().machine}) == 1


def test_status_shows_a_leaders_view_of_everyone(net):
    n = net(3)
    n.elect("1")
    status = n["1"].status()
    assert (status.id, status.role, status.term, status.leader, status.voted_for) == (
        "1",
        Role.LEADER,
        1,
        "1",
        "1",
    )
    assert (status.commit_index, status.applied_index, status.last_index) == (1, 1, 1)
    assert {peer: (p.match, p.next, p.state) for peer, p in status.peers.items()} == dict.fromkeys(
        "123", (1, 2, "replicate")
    )
    assert n["2"].status().peers == {}
    assert "leader, term 1" in repr(n["1"])


def test_what_was_not_handed_out_is_not_applied(solo, make_log):
    node = solo(log=make_log(1, 1), commit=0)
    with pytest.raises(AssertionError, match="handed out"):
        node.machine.handle(Applied(1), 0.0)
