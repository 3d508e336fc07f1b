"""What a space-time diagram tells is what the trace holds."""

import itertools
import math

import pytest

import agentflow as af
from agentflow.cluster.sayings import FAMILIES, saying
from agentflow.cluster.spacetime import HOPS_AT_MOST, spacetime
from agentflow.core.record import Record


@pytest.fixture(scope="module")
def sim():
    """An election, a write, a crash, a partition, a pause; thirty virtual seconds."""
    sim = af.Simulation(masters=3, workers=1, seed=7)
    sim.run_until(lambda s: s.leader)
    sim.client("c1").set("x", 1)
    first = sim.leader
    sim.kill(first)
    sim.run_for(6)
    sim.restart(first)
    sim.partition({sim.leader}, set(sim.masters) - {sim.leader})
    sim.run_for(8)
    sim.heal()
    sim.pause("master-2")
    sim.run_for(2)
    sim.resume("master-2")
    sim.run_to(30)
    return sim


@pytest.fixture
def told(sim):
    def tell(**wishes):
        return spacetime(sim.records(), sim.now, **wishes)

    return tell


def test_every_message_sent_is_told_once_with_its_end(sim, told):
    story = told(kinds="all")
    sent = [record for record in sim.records() if record.kind == "send"]
    assert [hop.sent for hop in story.hops] == [record.time for record in sent]
    lost = sum(1 for record in sim.records() if record.kind == "drop")
    assert story.lost == lost > 0


def test_heartbeats_are_counted_and_not_shown_unless_asked_for(told):
    usual, asked = told(), told(kinds=["heartbeat"])
    assert {hop.saying.family for hop in usual.hops}.isdisjoint({"heartbeat"})
    assert {hop.saying.family for hop in asked.hops} == {"heartbeat"}
    assert dict(usual.hidden) == {"heartbeat": len(asked.hops)}


def test_a_type_may_be_named_as_well_as_a_family(told):
    assert {hop.type for hop in told(kinds="MsgVote").hops} == {"MsgVote"}


def test_a_kind_that_does_not_occur_is_refused_with_those_that_do(told):
    with pytest.raises(af.InvalidConfig, match=r"election.*MsgVote"):
        told(kinds="votes")


def test_a_node_that_the_trace_does_not_know_is_refused(told):
    with pytest.raises(af.NoSuchNode, match="master-9"):
        told(nodes=["master-9"])


@pytest.mark.parametrize("limits", [{"start": 5, "end": 5}, {"start": 99}, {"start": math.nan}, {"end": "x"}])
def test_limits_between_which_there_is_nothing_are_refused(told, limits):
    with pytest.raises(af.InvalidConfig, match=r"start|end"):
        told(**limits)


def test_clients_stand_above_masters_and_workers_below(told):
    assert told().nodes == ("c1", "master-1", "master-2", "master-3", "worker-1")


def test_the_nodes_asked_for_are_shown_in_the_order_asked_for(told):
    story = told(nodes=["master-3", "master-1"])
    assert story.nodes == ("master-3", "master-1")
    assert all({hop.source, hop.destination} == {"master-1", "master-3"} for hop in story.hops)


def test_the_line_of_a_node_has_no_gap_and_no_overlap(told):
    story = told()
    for node in story.nodes:
        line = [s for s in story.stretches if s.node == node]
        line.sort(key=lambda s: s.start)
        assert line[-1].end == story.end
        assert all(a.end == b.start for a, b in itertools.pairwise(line))


def test_crash_restart_pause_and_resume_are_marked_where_they_happened(told):
    story = told()
    assert [mark.kind for mark in story.marks if mark.node] == ["crash", "restart", "pause", "resume"]
    down = [s for s in story.stretches if s.state == "down"]
    crash, restart = (next(m.time for m in story.marks if m.kind == kind) for kind in ("crash", "restart"))
    assert [(s.start, s.end) for s in down] == [(crash, restart)]


def test_a_partition_lasts_until_it_is_healed_and_sets_the_smaller_side_apart(told):
    (cut,) = told().cuts
    assert cut.end - cut.start == pytest.approx(8.0)
    assert len(cut.apart) == 1
    assert "|" in cut.said


def test_leaders_and_their_terms_are_those_of_the_table_of_elections(sim, told):
    led = [(s.term, s.node) for s in told().stretches if s.role == "leader" and s.state == "up"]
    won = sim.frames.elections().query("outcome == 'won'")
    assert set(led) == set(zip(won.term, won.candidate, strict=True))


def test_a_window_shows_what_reaches_into_it_and_nothing_else(told):
    story = told(start=2.8, end=3.0, kinds="all")
    assert (story.start, story.end) == (2.8, 3.0)
    assert all(hop.sent <= 3.0 and (hop.ended is None or hop.ended >= 2.8) for hop in story.hops)
    assert any(s.start < 2.8 for s in story.stretches)


def test_of_too_many_messages_the_least_telling_are_left_out_and_counted():
    records = []
    for i in range(3 * HOPS_AT_MOST):
        kind = "heartbeat" if i % 3 else "NEWS"
        records.append(
            Record(2 * i, float(i), "a", "send", message=i, source="a", destination="b", type=kind)
        )
        records.append(
            Record(2 * i + 1, i + 0.5, "b", "deliver", message=i, source="a", destination="b", type=kind)
        )
    story = spacetime(records, 9e3, kinds="all")
    assert len(story.hops) == HOPS_AT_MOST
    assert story.thinned
    assert sum(count for _, count in story.hidden) == 2 * HOPS_AT_MOST


def test_a_second_copy_has_a_way_of_its_own():
    way = {"message": 4, "source": "a", "destination": "b", "type": "ADD"}
    records = [
        Record(0, 1.0, "a", "send", **way),
        Record(1, 2.0, "b", "deliver", **way),
        Record(2, 3.0, "b", "deliver", **way),
    ]
    assert [hop.ended for hop in spacetime(records, 9.0).hops] == [2.0, 3.0]


class _Odd:
    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize("payload", [None, _Odd(), {"type": _Odd()}, "x" * 999, b"\x00", object(), 7])
def test_whatever_somebody_sends_is_called_by_some_name(payload):
    found = saying(Record(0, 0.0, "a", "send", type="T", payload=payload))
    assert found.label
    assert len(found.label) <= 28
    assert found.family in FAMILIES


def test_an_empty_trace_is_told_too():
    story = spacetime([], 0.0)
    assert story.nodes == story.hops == ()
