"""Replication: what is sent, how much, and what is learned from the answers."""

from __future__ import annotations

import pytest

from agentflow.core.raft import (
    Entry,
    Message,
    MessageType,
    Propose,
    Receive,
    Unreachable,
)
from agentflow.core.raft.events import ProposalDropped
from agentflow.core.raft.log import ENTRY_OVERHEAD
from agentflow.core.raft.progress import ProgressState
from agentflow.errors import InvalidConfig, NotLeader, QueueFull, Refused

T = MessageType
PROBE, REPLICATE, SNAPSHOT = ProgressState


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_what_is_proposed_is_applied_everywhere(net, size):
    n = net(size)
    n.elect("1")
    commands = [b"a", b"b", b"c"]
    for command in commands:
        n.propose("1", command)
    n.run()
    assert all(n.commands(node) == commands for node in n.nodes)


def test_many_commands_go_as_one_proposal(solo):
    node = solo().lead()
    node.do(Propose((b"a", b"b", b"c")))
    (to_2, _) = node.take(T.APP)
    assert [entry.data for entry in to_2.entries] == [b"a", b"b", b"c"]


@pytest.mark.parametrize(
    ("leader_log", "follower_log", "hint", "hint_term", "probe_term", "probe"),
    [
        ([1, 2, 2, 4, 4, 4, 4], [1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3], 7, 3, 2, 3),
        ([1, 2, 2, 3, 4, 4, 4, 5], [1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3], 8, 3, 3, 4),
        ([1, 1, 1, 1], [1, 1, 2, 4], 2, 1, 1, 2),
        ([1, 1, 1, 1, 1, 1], [1, 1, 2, 4], 2, 1, 1, 2),
        ([1, 1, 1, 1, 1, 1], [1, 1, 2, 4, 4, 4], 2, 1, 1, 2),
        ([1, 1, 1, 1, 1, 5, 5, 5, 5], [1, 1, 1, 1, 1, 1, 1, 3, 4, 4, 4], 9, 4, 1, 5),
        ([1, 1, 1, 1, 1, 5, 5, 5, 5], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], 9, 1, 1, 5),
        ([1, 1, 1, 1], [1, 1, 1, 2], 3, 1, 1, 3),
        ([1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1], 10, 1, 1, 4),
    ],
)
def test_each_probe_disposes_of_a_term_at_least(
    solo, leader_log, follower_log, hint, hint_term, probe_term, probe
):
    """Each row: the first rejection's hint, and the leader's next probe."""

    def log(terms):
        return tuple(Entry(index, term) for index, term in enumerate(terms, 1))

    last = max(leader_log + follower_log)
    leader = solo(log=log(leader_log), term=last).lead(acked=False)
    follower = solo(id="2", log=log(follower_log), term=last)
    first = Message(
        T.APP,
        "2",
        "1",
        leader.term,
        leader_log[-1],
        len(leader_log),
        (Entry(len(leader_log) + 1, leader.term),),
    )
    follower.get(T.APP, "1", leader.term, **fields(first))
    (answer,) = follower.take(T.APP_RESP)
    assert (answer.reject_hint, answer.log_term) == (hint, hint_term)
    leader.take()
    leader.get(T.APP_RESP, "2", **fields(answer))
    (again,) = leader.take(T.APP)
    assert (again.log_term, again.index) == (probe_term, probe)


def fields(message: Message) -> dict:
    return {
        "log_term": message.log_term,
        "index": message.index,
        "entries": message.entries,
        "commit": message.commit,
        "reject": message.reject,
        "reject_hint": message.reject_hint,
    }


def test_a_probed_member_gets_one_append_until_it_answers(solo):
    node = solo().lead(acked=False)
    assert node.tracker.progress["2"].state is PROBE
    for _ in range(3):
        node.do(Propose((b"x",)))
    assert [message for message in node.take(T.APP) if message.to == "2"] == []
    node.get(T.HEARTBEAT_RESP, "2")
    assert len([message for message in node.take(T.APP) if message.to == "2"]) == 1
    node.get(T.APP_RESP, "2", index=4)
    assert node.tracker.progress["2"].state is REPLICATE


def test_a_replicating_member_is_sent_ahead_until_its_window_is_full(solo):
    node = solo(max_inflight_messages=3, size=2).lead()
    for _ in range(5):
        node.do(Propose((b"x",)))
    assert [message.index for message in node.take(T.APP)] == [1, 2, 3]
    node.get(T.APP_RESP, "2", index=2)
    assert [(message.index, len(message.entries)) for message in node.take(T.APP)] == [(4, 2)]


def test_a_window_counts_bytes_too(solo):
    node = solo(max_inflight_bytes=2000, max_size_per_message=1000, size=2).lead()
    for _ in range(5):
        node.do(Propose((b"x" * 900,)))
    assert len([message for message in node.take(T.APP) if message.entries]) == 3


def test_a_full_window_whose_messages_are_lost_is_freed_by_a_heartbeat(net):
    n = net(2, max_inflight_messages=2)
    n.elect("1")
    for _ in range(4):
        n.propose("1", b"x")
    n.step("1")
    n.queue.clear()
    assert n["1"].status().peers["2"].is_full
    n.tick("1")
    n.run()
    assert n["2"].last_index == n["1"].last_index == 5
    assert n["1"].commit == 5


def test_messages_are_cut_at_a_size(solo):
    node = solo(max_size_per_message=3 * ENTRY_OVERHEAD, size=2).lead()
    node.do(Propose(tuple([b""] * 7)))
    sizes = [len(message.entries) for message in node.take(T.APP) if message.entries]
    assert sizes == [3]
    node.get(T.APP_RESP, "2", index=4)
    assert [len(message.entries) for message in node.take(T.APP) if message.entries] == [3, 1]


def test_the_uncommitted_tail_is_bounded(solo):
    node = solo(max_uncommitted_bytes=30, size=3).lead()
    for _ in range(3):
        node.do(Propose((b"x" * 10,)))
    last = node.last_index
    with pytest.raises(QueueFull) as refused:
        node.do(Propose((b"x" * 10,)))
    assert refused.value.limit == 30
    assert node.last_index == last
    node.ack_all()
    node.do(Propose((b"x" * 10,)))
    assert node.last_index == last + 1


def test_an_empty_tail_takes_a_proposal_of_any_size(solo):
    node = solo(max_uncommitted_bytes=30, size=3).lead()
    node.do(Propose((b"x" * 1000,)))
    with pytest.raises(QueueFull):
        node.do(Propose((b"x",)))
    node.do(Propose((b"",)))


def test_the_log_does_not_grow_without_bound_behind_a_partition(net):
    n = net(3, max_uncommitted_bytes=100)
    n.elect("1")
    n.isolate("1")
    refused = 0
    for _ in range(1000):
        try:
            n.propose("1", b"0123456789")
        except QueueFull:
            refused += 1
    n.run()
    assert n["1"].last_index == 11
    assert refused == 990
    n.heal()
    n.tick("1", times=2)
    n.run()
    n.propose("1", b"0123456789")


def test_appends_out_of_order_end_in_the_same_log(net):
    n = net(2)
    n.elect("1")
    n.propose("1", b"a")
    n.propose("1", b"b")
    n.step("1")
    n.deliver(reversed(n.take()))
    n.run()
    n.tick("1", times=2)
    n.run()
    assert n.logs()["1"] == n.logs()["2"]
    assert n["1"].commit == 3


def test_everything_twice_changes_nothing(net):
    n = net(3)
    n.campaign("1")
    for _ in range(12):
        for node in "123":
            n.step(node)
        n.deliver([message for message in n.take() for _ in range(2)])
    n.propose("1", b"a")
    for _ in range(12):
        for node in "123":
            n.step(node)
        n.deliver([message for message in n.take() for _ in range(2)])
    assert [n.commands(node) for node in "123"] == [[b"a"]] * 3


def test_an_unreachable_member_is_probed(solo):
    node = solo().lead()
    assert node.tracker.progress["2"].state is REPLICATE
    node.do(Unreachable("2")).do(Unreachable("nobody"))
    assert node.tracker.progress["2"].state is PROBE
    node.get(T.HEARTBEAT_RESP, "2")
    node.get(T.APP_RESP, "2", index=node.last_index)
    assert node.tracker.progress["2"].state is REPLICATE


def test_a_leader_appends_nothing_for_a_member_it_does_not_know(solo):
    node = solo().lead()
    node.get(T.APP_RESP, "9", index=5).get(T.HEARTBEAT_RESP, "9")
    assert node.take() == []


# --- proposals --------------------------------------------------------------------------------------------


def test_a_follower_refuses_and_names_the_leader(net):
    n = net(3)
    n.elect("1")
    with pytest.raises(NotLeader) as refused:
        n.propose("2", b"x")
    assert refused.value.leader == "1"


def test_without_a_leader_nothing_can_be_proposed(solo):
    for node in (solo(), solo().candidate()):
        with pytest.raises(NotLeader) as refused:
            node.do(Propose((b"x",), forward=True))
        assert refused.value.leader is None


def test_a_follower_passes_a_proposal_on_if_asked_to(net):
    n = net(3)
    n.elect("1")
    n.handle("2", Propose((b"x", b"y"), forward=True))
    n.run()
    assert [n.commands(node) for node in "123"] == [[b"x", b"y"]] * 3


def test_forwarding_can_be_forbidden(net):
    n = net(3, disable_proposal_forwarding=True)
    n.elect("1")
    with pytest.raises(NotLeader):
        n.handle("2", Propose((b"x",), forward=True))
    n.handle("2", receive_proposal("2", "3"))
    n.run()
    assert any(isinstance(event, ProposalDropped) for event in n.events["2"])
    assert n.commands("1") == []


def receive_proposal(to, source):
    return Receive(Message(T.PROP, to, source, entries=(Entry(0, 0, b"x"),)))


def test_proposals_are_not_thrown_to_and_fro(net):
    """Two nodes that take each other for the leader drop what the other passes on."""
    n = net(3)
    n.elect("1")
    n.handle("2", receive_proposal("2", "1"))
    n.run()
    assert n.commands("1") == []


def test_a_proposal_needs_a_command(solo):
    node = solo().lead()
    with pytest.raises(InvalidConfig):
        node.do(Propose(()))


def test_a_leader_that_was_removed_takes_no_proposals(net):
    n = net(3)
    n.elect("1")
    n.change("1", remove=["1"])
    n.run()
    assert n["1"].is_leader, "it manages the log until another takes over"
    with pytest.raises(NotLeader):
        n.propose("1", b"x")
    n.handle("1", receive_proposal("1", "2"))
    assert "x" not in n.commands("2")
    with pytest.raises(Refused):
        n.handle("1", receive_proposal("1", "1"))


def test_the_commit_index_of_a_heartbeat_is_cut_at_the_match(solo, make_log):
    node = solo(log=make_log(1, 1, 1), commit=3).lead()
    node.do(Propose((b"x",)))
    node.get(T.APP_RESP, "2", index=5)
    node.take()
    node.tick()
    assert {message.to: message.commit for message in node.take(T.HEARTBEAT)} == {"2": 5, "3": 4}


def test_a_restarted_leader_goes_on_from_its_disk(net):
    n = net(3)
    n.elect("1")
    n.propose("1", b"a")
    n.run()
    n.crash("1")
    n.restart("1")
    n.elect("1")
    n.propose("1", b"b")
    n.run()
    assert [n.commands(node) for node in "123"] == [[b"a", b"b"]] * 3
