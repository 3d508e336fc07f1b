from __future__ import annotations

import copy
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.errors import InvalidConfig
from agentflow.transport.memory import Network

NODES = ("a", "b", "c", "d")
chances = st.sampled_from([0.0, 0.3, 1.0])
spans = st.tuples(st.floats(0, 50), st.floats(0, 50)).map(lambda ends: (min(ends), max(ends)))
steps = st.lists(
    st.tuples(
        st.sampled_from(NODES),
        st.sampled_from(NODES),
        st.floats(0, 0.02),
        st.sampled_from(["send", "send", "send", "slow", "fast", "latency"]),
    ),
    max_size=60,
)


def arrivals(network, plan, seed):
    """Send as the plan says and return (link, order of sending, arrival) of every copy."""
    rng = random.Random(seed)
    now, found = 0.0, []
    for number, (source, destination, pause, what) in enumerate(plan):
        now += pause
        if what == "slow":
            network.slow(source, 30)
        elif what == "fast":
            network.slow(source, 0)
        elif what == "latency":
            network.latency_ms = (0, 2)
        else:
            delays, reason = network.plan(source, destination, now, rng)
            assert (reason == "") == bool(delays)
            found.append(((source, destination), number, [now + delay for delay in delays]))
    return found


@given(steps, spans, st.integers(0, 9))
@settings(max_examples=150, deadline=None)
def test_a_link_keeps_its_order_whatever_else_changes(plan, latency, seed):
    latest: dict[tuple[str, str], float] = {}
    for link, _, times in arrivals(Network(latency_ms=latency), plan, seed):
        (time,) = times
        assert time >= latest.get(link, 0.0) or link[0] == link[1]
        latest[link] = time


@given(steps, spans, chances, chances, chances, st.integers(0, 9))
@settings(max_examples=150, deadline=None)
def test_every_message_is_lost_or_arrives_once_or_twice_and_never_before_it_was_sent(
    plan, latency, loss, duplicate, reorder, seed
):
    network = Network(latency, loss, duplicate, reorder)
    rng = random.Random(seed)
    now = 0.0
    for source, destination, pause, _ in plan:
        now += pause
        delays, reason = network.plan(source, destination, now, rng)
        assert all(0.0 <= delay < math.inf for delay in delays)
        if source == destination:
            assert (delays, reason) == ((0.0,), "")
            continue
        assert len(delays) in {0: [1, 2], 0.3: [0, 1, 2], 1: [0]}[loss]
        assert reason == ("" if delays else "loss")
        if delays:
            assert len(delays) in {0: [1], 0.3: [1, 2], 1: [2]}[duplicate]


@given(steps, spans, chances, chances, st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_a_copy_decides_alike_and_alone(plan, latency, loss, reorder, seed):
    network = Network(latency, loss=loss, reorder=reorder)
    twin = copy.deepcopy(network)
    first = arrivals(network, plan, seed)
    assert arrivals(twin, plan, seed) == first


@given(
    st.lists(st.sampled_from(NODES), unique=True),
    st.lists(st.sampled_from(NODES), unique=True),
    st.lists(st.tuples(st.sampled_from(NODES), st.sampled_from(NODES))),
    st.lists(st.sampled_from(NODES), max_size=1),
)
@settings(max_examples=150, deadline=None)
def test_what_is_cut_off_is_what_the_model_says(left, right, cuts, alone):
    right = [node for node in right if node not in left]
    network = Network()
    network.partition(left, right)
    for source, destination in cuts:
        network.cut(source, destination)
    for node in alone:
        network.isolate(node)
    for source in NODES:
        for destination in NODES:
            apart = (source in left and destination in right) or (source in right and destination in left)
            dead = apart or (source, destination) in cuts or source in alone or destination in alone
            expected = dead and source != destination
            assert bool(network.blocked(source, destination)) == expected
            delays, reason = network.plan(source, destination, 0.0, random.Random(0))
            assert (delays == ()) == expected
            assert reason == network.blocked(source, destination)
    network.heal()
    assert not any(network.blocked(source, destination) for source in NODES for destination in NODES)


def test_loss_and_latency_have_the_shares_they_were_given():
    network = Network(latency_ms=(2, 4), loss=0.25, duplicate=0.5)
    rng = random.Random(1)
    plans = [network.plan("a", "b", float(number), rng)[0] for number in range(4000)]
    arrived = [delays for delays in plans if delays]
    assert len(arrived) / 4000 == pytest.approx(0.75, abs=0.03)
    assert sum(len(delays) == 2 for delays in arrived) / len(arrived) == pytest.approx(0.5, abs=0.03)
    firsts = [delays[0] for delays in arrived]
    assert 0.002 <= min(firsts) < 0.0021 < 0.0039 < max(firsts) <= 0.004


def test_reordering_lets_later_messages_overtake():
    network = Network(latency_ms=1, reorder=0.5, reorder_ms=50)
    rng = random.Random(1)
    times = [number * 0.001 + network.plan("a", "b", number * 0.001, rng)[0][0] for number in range(200)]
    assert times != sorted(times)


def test_a_slow_node_slows_both_ways_and_only_itself():
    network = Network(latency_ms=1)
    network.slow("b", 200)
    rng = random.Random(0)
    assert network.plan("a", "b", 0.0, rng)[0] == (pytest.approx(0.201),)
    assert network.plan("b", "c", 0.0, rng)[0] == (pytest.approx(0.201),)
    assert network.plan("a", "c", 0.0, rng)[0] == (pytest.approx(0.001),)
    network.slow("b", 0)
    assert network.plan("a", "b", 1.0, rng)[0] == (pytest.approx(0.001),)


def test_perfect_wires_do_not_let_a_message_overtake_one_sent_over_slow_ones():
    network = Network(latency_ms=50)
    rng = random.Random(0)
    assert network.plan("a", "b", 0.0, rng)[0] == (0.05,)
    network.latency_ms = 0
    assert 0.01 + network.plan("a", "b", 0.01, rng)[0][0] >= 0.05
    assert network.plan("a", "b", 0.06, rng)[0] == (0.0,)


def test_a_new_partition_takes_the_place_of_the_old_one():
    network = Network()
    network.partition({"a"}, {"b", "c"})
    network.partition({"a", "b"}, {"c"})
    assert network.blocked("a", "b") == ""
    assert network.blocked("b", "c") == "partition"
    assert network.blocked("d", "c") == ""


def test_every_change_is_counted_and_described():
    network = Network(latency_ms=(1, 2))
    version = network.version
    network.loss = 0.1
    network.cut("b", "a")
    network.partition({"c", "b"}, {"a"})
    network.slow("d", 5)
    assert network.version == version + 4
    assert network.describe() == {
        "latency_ms": (1.0, 2.0),
        "loss": 0.1,
        "slow": {"d": 5.0},
        "partition": [["b", "c"], ["a"]],
        "cut": [("b", "a")],
    }
    assert repr(Network(loss=0.5)) == "Network(loss=0.5)"


@pytest.mark.parametrize(
    ("break_it", "field"),
    [
        (lambda: Network(latency_ms=-1), "latency_ms"),
        (lambda: Network(latency_ms=(5, 1)), "latency_ms"),
        (lambda: Network(latency_ms=(1, 2, 3)), "latency_ms"),
        (lambda: Network(latency_ms="5"), "latency_ms"),
        (lambda: Network(latency_ms=math.nan), "latency_ms"),
        (lambda: Network(loss=1.5), "loss"),
        (lambda: Network(loss=True), "loss"),
        (lambda: Network(duplicate=-0.1), "duplicate"),
        (lambda: Network(reorder=math.nan), "reorder"),
        (lambda: Network(reorder_ms=math.inf), "reorder_ms"),
        (lambda: Network().partition({"a"}), "groups"),
        (lambda: Network().partition({"a"}, {"a", "b"}), "groups"),
        (lambda: Network().partition("ab", "cd"), "groups"),
        (lambda: Network().slow("a", -5), "ms"),
    ],
)
def test_nonsense_is_refused_by_name(break_it, field):
    with pytest.raises(InvalidConfig) as refusal:
        break_it()
    assert refusal.value.field == field


@pytest.mark.parametrize("setting", ["latency_ms", "loss", "duplicate", "reorder", "reorder_ms"])
def test_a_refused_setting_changes_nothing(setting):
    network = Network((1, 2), 0.1, 0.2, 0.3)
    before, version = getattr(network, setting), network.version
    with pytest.raises(InvalidConfig):
        setattr(network, setting, -1)
    assert (getattr(network, setting), network.version) == (before, version)
