"""Clusters drawn from seeds: every promise kept under every fault, and a row for every seed."""

import math

import pytest

import agentflow as af
from agentflow.cluster.simulating.sweeping import Trial, trials, try_seed
from agentflow.core.raft.log import RaftLog
from agentflow.errors import InvalidConfig
from agentflow.labs.fuzzing import Fuzz, Totals, fuzzed


def quick(seed):
    sim = af.Simulation(masters=3, seed=seed, config=af.RaftConfig.fast())
    sim.load(af.KeyValueLoad(2, 2))
    return sim.run_for(2)


def test_a_seed_draws_the_same_cluster_again():
    again = [fuzzed(5, seconds=6) for _ in range(2)]
    assert again[0].trace.digest() == again[1].trace.digest()


def test_the_line_of_a_drawn_cluster_makes_it_again():
    sim = fuzzed(5, seconds=6, nemesis="crash,loss")
    names = {}
    exec(sim.origin, names)
    assert not af.diff(sim, names["sim"])


def test_seeds_draw_clusters_of_every_kind():
    sims = [fuzzed(seed, seconds=0.5) for seed in range(24)]
    assert {len(sim.masters) for sim in sims} == {3, 5}
    assert {len(sim.workers) for sim in sims} == {0, 1, 2, 3}
    assert {sim._world.spec.config.pre_vote for sim in sims} == {True, False}
    assert len({sim._world.spec.compact_after for sim in sims}) > 2


def test_drawn_clusters_install_snapshots():
    kinds = {record.kind for seed in range(12) for record in fuzzed(seed, seconds=12).trace}
    assert {"snapshot", "compact"} <= kinds


def test_a_sweep_has_a_row_a_seed_in_their_order():
    table = af.sweep(quick, seeds=[4, 2, 9])
    assert list(table.seed) == [4, 2, 9]
    assert list(table.columns) == list(Trial.__struct_fields__)
    assert (table.verdict == "ok").all()
    assert (table.elections >= 1).all()
    assert (table.operations > 0).all()
    assert table.leader_s.between(0.1, 1).all()


def test_processes_give_the_same_rows():
    here = sorted(trials(quick, range(10), processes=1), key=lambda trial: trial.seed)
    there = sorted(trials(quick, range(10), processes=2), key=lambda trial: trial.seed)
    for trial in (*here, *there):
        trial.wall_s = 0.0
    assert str(here) == str(there)


def test_a_violation_is_in_its_row_with_the_place_and_the_line(monkeypatch):
    monkeypatch.setattr(RaftLog, "is_up_to_date", lambda log, index, term: True)
    fuzz = Fuzz(masters=3, seconds=15, nemesis="partition,crash")
    trial = next(trial for trial in trials(fuzz.scenario, range(40), processes=1) if trial.failed)
    assert trial.verdict in ("violated", "error")
    assert trial.explanation
    if trial.verdict == "violated":
        assert f"fuzzed({trial.seed}, " in trial.line
        assert 0 < trial.first_bad_s <= 15


def test_a_run_that_raises_is_a_row_too():
    def scenario(seed):
        raise ZeroDivisionError("no cluster today")

    trial = try_seed(scenario, 3)
    assert trial.verdict == "error"
    assert "no cluster today" in trial.explanation
    assert math.isnan(trial.leader_s)


def test_faults_that_do_not_land_are_missed():
    totals = Totals()
    totals.add(Trial(1, virtual_s=30, landed={"crash": 1}))
    assert totals.missed(["crash", "loss"]) == []
    totals.add(Trial(2, virtual_s=600))
    assert totals.missed(["crash", "loss"]) == ["loss"]


def test_what_cannot_be_is_refused_with_words():
    with pytest.raises(InvalidConfig, match="seconds"):
        fuzzed(1, seconds=0)
    with pytest.raises(InvalidConfig, match="there is no fault 'flood'"):
        fuzzed(1, nemesis="flood")
    with pytest.raises(InvalidConfig, match="processes"):
        list(trials(quick, [1], processes=0))


def test_a_disk_that_fails_one_write_is_believed_by_nobody(elected):
    # The write behind the one that failed is empty: it says that what came before is there.
    sim = elected(disk_ms=(1, 20))
    follower = next(m for m in sim.masters if m != sim.leader)
    for number in range(40):
        sim.request("c", "set", "x", number)
        sim.run_for(0.004)
        if number == 20:
            sim.fail_disk(follower)
    sim.run_for(1)
    assert len([r for r in sim.trace if r.kind == "persist_failed"]) > 1
    sim.restart(follower)
    assert sim.run_for(2).check()


def test_members_and_leaders_change_while_everything_else_goes_on(busy):
    sim = busy(3, until=10)
    sim.load(af.MembershipLoad(every=(0.1, 0.5), until=10))
    sim.run_to(17)
    assert sim.check(), sim.check()
    found = {record.kind for record in sim.trace}
    assert {"transfer", "config"} <= found
    confs = {record.payload.conf for record in sim.trace if record.kind == "config"}
    assert any(conf.learners for conf in confs)
    assert any(conf.voters_outgoing for conf in confs)
    assert sim.prove_deterministic(process=False)


def test_what_an_operator_asks_of_the_wrong_master_is_refused_and_nothing_breaks(elected):
    from agentflow.core.raft import ConfigChange, Transfer

    sim = elected()
    follower = next(m for m in sim.masters if m != sim.leader)
    for request in (ConfigChange.of(remove=[sim.leader]), Transfer(follower)):
        told = []
        sim._deployment.host.ask(follower, request, lambda answer, final, told=told: told.append(answer))
        sim.run_for(1)
        assert isinstance(told[0], af.NotLeader)
    assert sim.check()
