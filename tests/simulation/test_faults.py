"""Faults strike when they should, do what they say, are undone when they end, and are counted if they landed."""

import gc
import math
import weakref

import pytest

import agentflow as af
from agentflow.core.raft.inputs import Transfer
from agentflow.runtime.nemesis import KINDS, landed


@pytest.mark.parametrize(
    ("kind", "nodes", "amount", "broken"),
    [
        ("crash", ("master-1",), 0, lambda s: s.masters["master-1"].state == "down"),
        ("pause", ("master-1",), 0, lambda s: s.masters["master-1"].state == "paused"),
        ("partition", ("master-1",), 0, lambda s: s.network.blocked("master-2", "master-1") == "partition"),
        (
            "one_way",
            ("master-1", "master-2"),
            0,
            lambda s: s.network.blocked("master-1", "master-2") == "cut",
        ),
        ("loss", (), 0.3, lambda s: s.network.loss == 0.3),
        ("duplicate", (), 0.3, lambda s: s.network.duplicate == 0.3),
        ("reorder", (), 0.3, lambda s: s.network.reorder == 0.3),
        ("delay", ("master-1",), 50, lambda s: s.network.describe().get("slow") == {"master-1": 50.0}),
        ("skew", ("master-1",), 2.0, lambda s: s._deployment.host._seats["master-1"].rate == 2.0),
        ("slow_disk", ("master-1",), 80, lambda s: s._world.driver._slow_disks.get("master-1") == 0.08),
        ("worker_crash", ("worker-1",), 0, lambda s: s.workers["worker-1"].state == "down"),
    ],
)
def test_a_fault_holds_from_its_instant_to_its_end(kind, nodes, amount, broken):
    sim = af.Simulation(masters=3, workers=1, seed=4)
    sim.fault(kind, *nodes, at=10, seconds=5, amount=amount)
    wires = sim.network.describe()
    assert not broken(sim.run_to(9.99))
    assert broken(sim.run_to(10.01))
    assert broken(sim.run_to(14.99))
    assert not broken(sim.run_to(15.01))
    assert sim.network.describe() == wires
    assert all(handle.state == "up" for handle in (*sim.masters.values(), *sim.workers.values()))


@pytest.mark.parametrize("how", ["fail", "full", "torn"])
def test_a_master_whose_disk_fails_falls_silent_until_it_is_restarted(elected, how):
    sim = elected()
    leader = sim.leader
    sim.client("c").set("x", 1)
    sim.fail_disk(leader, how)
    sim.request("c", "set", "x", 2)
    sim.run_for(2)
    assert sim.leader not in (None, leader)
    assert [r.node for r in sim.trace if r.kind == "persist_failed"][:1] == [leader]
    sim._deployment.host.disk(leader).make_room()
    sim.restart(leader)
    sim.run_for(2)
    assert sim.client("c").get("x") in (1, 2)
    assert sim.check()


def test_a_disk_that_lies_breaks_a_promise(elected):
    # Every master but one forgets what it had confirmed: nothing is safe under that, and the judges see it.
    sim = elected()
    disks = [m for m in sim.masters if m != sim.leader]
    for node in disks:
        sim.fail_disk(node, "lost")
    sim.client("c").set("x", 1)
    for node in sim.masters:
        sim.kill(node)
    for node in disks:
        sim.restart(node)
    sim.run_for(5)
    assert sim.check().is_violated


def test_faults_that_overlap_leave_no_trace_of_themselves():
    sim = af.Simulation(masters=5, seed=4, network=af.Network(latency_ms=(1, 5), loss=0.01))
    sim.inject(
        [
            af.Fault("partition", at=1, seconds=4, nodes=("master-1", "master-2")),
            af.Fault("partition", at=2, seconds=4, nodes=("master-2", "master-3")),
            af.Fault("one_way", at=2.5, seconds=1, nodes=("master-4", "master-5")),
            af.Fault("loss", at=1, seconds=3, amount=0.5),
            af.Fault("loss", at=2, seconds=3, amount=0.2),
            af.Fault("crash", at=3, seconds=2, nodes=("master-1",)),
            af.Fault("crash", at=3.5, seconds=3, nodes=("master-1", "master-2")),
        ]
    )
    network = sim.network
    sim.run_to(3)
    assert network.loss == 0.5
    assert network.blocked("master-1", "master-3")
    assert network.blocked("master-2", "master-1")
    assert network.blocked("master-4", "master-5")
    assert not network.blocked("master-5", "master-4")
    sim.run_to(4.5)
    assert network.loss == 0.2
    sim.run_to(5.5)
    assert network.describe()["loss"] == 0.01
    assert not network.blocked("master-1", "master-5")
    assert network.blocked("master-2", "master-5")
    assert sim.masters["master-2"].state == "down"
    sim.run_to(7)
    assert network.describe() == {"latency_ms": (1.0, 5.0), "loss": 0.01}
    assert all(handle.state == "up" for handle in sim.masters.values())


def test_the_leader_is_whoever_leads_when_the_fault_strikes():
    sim = af.Simulation(masters=3, seed=4).run_to(10)
    first = sim.leader
    sim.fault("crash", "@leader", at=20, seconds=50)
    sim.fault("crash", "@leader", at=40, seconds=50)
    sim.run_to(50)
    down = {node for node, state in sim.state_at(50).up.items() if state == "down"}
    assert first in down
    assert len(down) == 2


def test_a_fault_without_an_end_lasts_until_it_is_mended():
    sim = af.Simulation(masters=3, seed=4)
    sim.fault("crash", "master-1")
    sim.fault("loss", amount=0.4)
    sim.run_to(30)
    assert sim.masters["master-1"].state == "down"
    sim.mend()
    assert sim.masters["master-1"].state == "up"
    assert sim.network.loss == 0
    sim.run_to(100)
    assert sim.check()


@pytest.mark.parametrize(
    "bad",
    [
        ("flood",),
        ("crash",),
        ("crash", "master-9"),
        ("loss", {"amount": 2.0}),
        ("skew", "master-1", {"amount": 0}),
        ("pause", "master-1", {"seconds": -1}),
        ("pause", "master-1", {"at": math.nan}),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused_before_it_is_planned(bad):
    sim = af.Simulation(masters=3, seed=4)
    options = bad[-1] if isinstance(bad[-1], dict) else {}
    nodes = [part for part in bad[1:] if isinstance(part, str)]
    with pytest.raises(af.Refused):
        sim.fault(bad[0], *nodes, **options)
    assert not sim._world.faults
    assert not sim._journal.acts


# --- plans ------------------------------------------------------------------------------------------------

MASTERS, WORKERS = [f"m{n}" for n in range(5)], ["w1", "w2"]


def test_a_plan_is_fixed_by_its_seed():
    nemesis = af.Nemesis("all")
    plans = [nemesis.plan(seed, MASTERS, WORKERS, until=200) for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]
    assert {fault.kind for fault in plans[0]} == set(KINDS)
    assert all(0 <= f.at <= f.at + f.seconds <= 200.00001 for f in plans[0])
    assert plans[0] == sorted(plans[0], key=lambda f: f.at)


def test_parts_of_a_nemesis_strike_by_themselves():
    crash = af.Nemesis("crash", every=(1, 2))
    both = crash | af.Nemesis("loss", every=(3, 4), seconds=(1, 1))
    assert both.kinds == ("crash", "loss")
    alone = crash.plan(1, MASTERS, until=50)
    mixed = both.plan(1, MASTERS, until=50)
    assert [f for f in mixed if f.kind == "crash"] == alone
    assert {f.seconds for f in mixed if f.kind == "loss" and f.at < 49} == {1.0}
    assert eval(repr(both), {"Nemesis": af.Nemesis}) == both


def test_a_nemesis_without_workers_kills_none():
    plan = af.Nemesis("worker_crash", "crash").plan(1, MASTERS, until=100)
    assert {f.kind for f in plan} == {"crash"}
    assert af.Nemesis("partition").plan(1, ["m0"], until=100) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: af.Nemesis("earthquake"),
        lambda: af.Nemesis("crash", every=(2, 1)),
        lambda: af.Nemesis("crash", every=(0, 1)),
        lambda: af.Nemesis("crash", seconds=(-1, 1)),
        lambda: af.Nemesis("crash", seconds="long"),
    ],
)
def test_a_nemesis_that_makes_no_sense_is_refused(make):
    with pytest.raises(af.InvalidConfig):
        make()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_fault_lands(kind, busy):
    sim = busy(masters=3, until=60, nemesis="", seed=5)
    sim.nemesis(af.Nemesis(kind, every=(0.2, 0.6)), until=12)
    sim.run_to(12)
    assert sim.landed().get(kind, 0) >= 3
    assert set(sim.landed()) == {kind}


def test_what_strikes_nothing_does_not_land():
    sim = af.Simulation(masters=3, seed=4, config=af.RaftConfig(election_timeout_ms=60_000))
    sim.fault("loss", at=1, seconds=2, amount=1.0)  # nobody speaks in the first half minute
    sim.fault("partition", "master-1", at=1, seconds=2)
    sim.fault("duplicate", at=1, seconds=2, amount=1.0)
    sim.fault("slow_disk", "master-1", at=1, seconds=2, amount=5)
    sim.kill("master-2")
    sim.fault("crash", "master-2", at=1, seconds=2)
    sim.fault("pause", "@leader", at=1, seconds=2)
    sim.run_to(10)
    assert sim.landed() == landed(sim.trace) == {}
    assert sim.masters["master-2"].state == "down", "what a fault did not do, its end does not undo"


def judged(verdict, promise):
    """What was said of a promise, however deep."""
    below = [found for part in verdict.parts for found in judged(part, promise)]
    return [verdict] if verdict.promise == promise and not below else below


def test_when_a_nemesis_ends_all_is_mended(busy):
    sim = busy(until=10)
    before = sim.network.describe()
    sim.run_to(10.001)
    assert sim.network.describe() == before
    assert set(sim.state_at(sim.now).up.values()) == {"up"}
    assert not sim._world.injector.active
    verdict = sim.run_to(20).check()
    assert verdict
    assert [str(part.outcome) for part in judged(verdict, "liveness after healing")] == ["ok"]


def test_a_refusal_in_the_trace_keeps_no_simulation_alive():
    sim = af.Simulation(masters=3, seed=1, config=af.RaftConfig.fast())
    sim.run_until(lambda s: s.leader)
    with pytest.raises(af.Refused):
        sim.transfer_leadership("master-9")
    follower = next(name for name in sim.masters if name != sim.leader)
    refused = []
    sim._world.host.ask(follower, Transfer(sim.leader), lambda answer, known: refused.append(type(answer)))
    sim.run_for(1)
    assert refused == [af.NotLeader]
    gone = weakref.ref(sim)
    del sim
    gc.collect()
    assert gone() is None
