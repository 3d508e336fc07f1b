"""Snapshots and compaction (thesis 5)."""

from __future__ import annotations

import pytest

from agentflow.core.raft import (
    Applied,
    Compact,
    ConfState,
    Entry,
    HardState,
    Message,
    MessageType,
    Persisted,
    Propose,
    Receive,
    Snapshot,
    SnapshotReported,
    Stored,
)
from agentflow.core.raft.events import SnapshotWithheld
from agentflow.core.raft.progress import ProgressState
from agentflow.errors import InvalidConfig

T = MessageType
CONF = ConfState(voters=("1", "2", "3"))
SNAPSHOT = Snapshot(11, 11, CONF, b"state")


def lagging(net, **settings):
    """A leader that has compacted away what node 3 lacks."""
    n = net(3, **settings)
    n.elect("1")
    n.isolate("3")
    for _ in range(3):
        n.propose("1", b"x")
    n.run()
    n.compact("1")
    n.heal()
    return n


def until_snapshot(n) -> Message:
    """Go on until the leader sends a snapshot; return it."""
    n.tick("1")
    for _ in range(12):
        for node in n.nodes:
            n.step(node)
        found = n.take(kind=T.SNAP)
        if found:
            (snap,) = found
            return snap
        n.deliver()
    raise AssertionError("no snapshot is sent")


def test_a_member_far_behind_is_sent_a_snapshot(net):
    n = lagging(net)
    n.tick("1")
    n.run()
    assert n["3"].log.snapshot == n["1"].log.snapshot
    assert n["3"].applied == n["1"].applied == 4
    n.propose("1", b"y")
    n.run()
    assert n.applied["3"][-1].data == b"y"


def test_a_member_that_installs_a_snapshot_is_sent_nothing_until_it_answers(net):
    n = lagging(net)
    snap = until_snapshot(n)
    n.queue.clear()
    assert n["1"].tracker.progress["3"].state is ProgressState.SNAPSHOT
    n.propose("1", b"y")
    n.step("1")
    assert [message.to for message in n.take(kind=T.APP)] == ["2"]
    n.deliver([snap])
    n.run()
    n.tick("1", times=2)
    n.run()
    assert n["3"].applied == n["1"].applied


def test_a_snapshot_that_failed_is_sent_again(net):
    n = lagging(net)
    until_snapshot(n)
    n.handle("1", SnapshotReported("3", ok=False))
    progress = n["1"].tracker.progress["3"]
    assert (progress.state, progress.next, progress.is_paused) == (ProgressState.PROBE, 2, True)
    n.tick("1")
    n.run()
    assert n["3"].applied == 4


def test_a_snapshot_that_arrived_is_probed_behind(solo):
    node = solo(stored=Stored(HardState(11, None, 11), SNAPSHOT)).lead()
    progress = node.tracker.progress["2"]
    progress.become_snapshot(11)
    node.do(SnapshotReported("2", ok=True))
    assert (progress.state, progress.next, progress.is_paused) == (ProgressState.PROBE, 13, True)
    node.do(SnapshotReported("2", ok=True)).do(SnapshotReported("9", ok=True))


def test_a_snapshot_that_nobody_misses_is_sent_again_after_a_while(net):
    n = lagging(net)
    for _ in range(30):
        n.tick("1")
        for node in "123":
            n.step(node)
        n.deliver([message for message in n.take() if message.type is not T.SNAP])
    assert n["1"].tracker.progress["3"].state is ProgressState.SNAPSHOT
    assert n["3"].applied < 4
    for _ in range(100):
        n.tick("1")
        n.run()
    assert n["3"].applied == 4


def test_a_member_that_is_down_is_passed_over_and_that_is_said_once(net):
    n = lagging(net, check_quorum=True)
    n.crash("3")
    for _ in range(25):
        n.tick("1")
        n.propose("1", b"y")
        n.run()
    said = [event for event in n.events["1"] if isinstance(event, SnapshotWithheld)]
    assert len(said) <= 1


@pytest.mark.parametrize("keep", [0, 2, 9])
def test_compaction_can_leave_entries_for_those_a_little_behind(net, keep):
    n = net(3)
    n.elect("1")
    for _ in range(4):
        n.propose("1", b"x")
    n.run()
    n.compact("1", keep=keep)
    assert n["1"].log.snapshot.index == 5
    assert n["1"].log.first == max(6 - keep, 1)


def test_a_snapshot_of_what_is_not_applied_is_refused(net):
    n = net(1)
    n.elect("1")
    with pytest.raises(InvalidConfig) as refused:
        n.handle("1", Compact(2, b"state"))
    assert refused.value.field == "index"


def test_an_older_snapshot_of_the_own_state_changes_nothing(net):
    n = net(1)
    n.elect("1")
    n.propose("1", b"x")
    n.run()
    n.compact("1")
    n.run()
    n.handle("1", Compact(1, b"old"))
    assert n["1"].ready() is None
    assert n["1"].log.snapshot.index == 2


def test_a_node_starts_from_its_snapshot(net):
    n = net(3)
    n.elect("1")
    n.propose("1", b"x")
    n.run()
    n.compact("2")
    n.run()
    assert n.disks["2"].stored.snapshot.index == 2
    node = n.restart("2")
    assert (node.applied, node.commit, node.log.first) == (2, 2, 3)
    n.propose("1", b"y")
    n.run()
    assert n.applied["2"][-1].data == b"y"


def test_nothing_is_applied_while_a_snapshot_is_being_installed(net):
    n = net(3)
    n.slow = {"2"}
    n.handle("2", Receive(Message(T.SNAP, "2", "1", 11, snapshot=SNAPSHOT)))
    n.handle("2", Receive(Message(T.APP, "2", "1", 11, 11, 11, (Entry(12, 11, b"x"),), 12)))
    ready = n["2"].ready()
    assert ready.snapshot == SNAPSHOT
    assert ready.committed == ()
    assert ready.persist.write.snapshot == SNAPSHOT
    assert not n["2"].is_promotable
    n.handle("2", Applied(11))
    assert n["2"].applied == 0
    n.handle("2", Persisted(ready.persist.id))
    assert n["2"].applied == 11
    assert [entry.index for entry in n["2"].ready().committed] == [12]


def test_a_newer_snapshot_may_come_while_an_older_one_is_written(net):
    n = net(3)
    n.handle("2", Receive(Message(T.SNAP, "2", "1", 11, snapshot=SNAPSHOT)))
    first = n["2"].ready()
    newer = Snapshot(20, 11, CONF, b"newer")
    n.handle("2", Receive(Message(T.SNAP, "2", "1", 11, snapshot=newer)))
    second = n["2"].ready()
    n.handle("2", Persisted(first.persist.id))
    assert n["2"].applied == 11
    assert not n["2"].is_promotable
    n.handle("2", Persisted(second.persist.id))
    assert n["2"].applied == 20
    assert n["2"].log.snapshot == newer


def test_a_candidate_takes_a_snapshot_as_the_word_of_a_leader(solo):
    node = solo().candidate()
    node.get(T.SNAP, "2", term=11, snapshot=SNAPSHOT)
    assert (node.leader, node.commit, node.conf) == ("2", 11, CONF)


def test_a_snapshot_that_does_not_name_this_node_is_installed_all_the_same(solo):
    """It was added since; the entries that follow will say so."""
    node = solo(id="4", peers=["1", "2", "3"], join=True)
    node.get(T.SNAP, "1", term=11, snapshot=SNAPSHOT)
    assert node.applied == 11
    assert not node.is_promotable


def test_a_leader_ignores_snapshots_of_its_own_term(solo):
    node = solo().lead()
    before = node.commit
    node.get(T.SNAP, "2", snapshot=SNAPSHOT)
    assert node.is_leader
    assert node.commit == before


def test_proposals_go_on_while_the_snapshot_travels(net):
    n = lagging(net)
    snap = until_snapshot(n)
    for _ in range(5):
        n.handle("1", Propose((b"y",)))
    n.run()
    n.deliver([snap])
    n.run()
    n.tick("1", times=2)
    n.run()
    assert n["3"].applied == n["1"].applied == 9
