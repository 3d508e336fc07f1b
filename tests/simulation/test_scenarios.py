"""The situations that everybody who learns Raft should have seen, from many seeds."""

import pytest

import agentflow as af
from agentflow.labs.scenarios import SCENARIOS, disruptive_server, figure_8, scenario, split_vote

SEEDS = range(1, 9)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_comes_out_the_same_for_every_seed_and_breaks_no_promise(name, seed):
    sim = scenario(name, seed)
    assert sim.seed == seed
    assert sim.check(), sim.check()
    assert sim.now < 30


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_is_a_script_and_goes_back(name):
    sim = scenario(name)
    names = {}
    exec(sim.script(), names)
    assert not af.diff(sim, names["sim"])
    before = sim.trace.digest()
    now = sim.now
    assert sim.rewind(to=now / 2).now == now / 2
    assert scenario(name).trace.digest() == before


@pytest.mark.parametrize("seed", SEEDS)
def test_a_split_vote_elects_nobody_and_the_next_term_somebody(seed):
    sim = split_vote(seed)
    first = sim.frames.elections()
    assert set(first.term) == {1}
    assert set(first.votes) == {1}
    assert sim.leader is None
    assert sim.run_until(lambda s: s.leader)
    won = sim.frames.elections().query("outcome == 'won'").iloc[0]
    assert won.term > 1


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_majority_held_in_figure_8_is_overwritten_since_it_was_not_committed(seed):
    sim = figure_8(seed)
    crash = [record for record in sim.trace if record.kind == "crash"]
    third = sim.state_at(crash[2])
    held = [name for name, status in third.masters.items() if status.last_index >= 2]
    assert held == ["master-1", "master-2", "master-3"]
    assert all(status.commit_index == 1 for status in third.masters.values())
    log = sim.frames.log().query("index == 2")
    assert set(log.term) == {2}
    assert len(log) == 5


@pytest.mark.parametrize("seed", SEEDS)
def test_pre_vote_is_what_keeps_a_lonely_master_from_disturbing(seed):
    calm, loud = disruptive_server(seed), disruptive_server(seed, pre_vote=False)
    assert calm.frames.elections().term.max() == 1
    assert loud.frames.elections().term.max() > 10
    assert loud.masters[loud.leader].status().term > 10


def test_a_scenario_is_known_by_its_name():
    assert scenario("Figure-8").trace.digest() == scenario("figure 8").trace.digest()
    with pytest.raises(af.InvalidConfig, match="split vote, avoided split vote"):
        scenario("figure 9")
