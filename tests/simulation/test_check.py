"""Whatever is broken is found, with the seed, the line that makes it again, and the fewest faults that do."""

import msgspec
import pytest

import agentflow as af
from agentflow.core.control import plane as planes
from agentflow.core.nodes import client as clients
from agentflow.core.raft import elections
from agentflow.core.raft.log import RaftLog


@pytest.mark.parametrize("seed", range(6))
def test_a_cluster_under_every_fault_keeps_its_promises(seed, busy):
    sim = busy(seed, until=8).run_for(14)
    assert sim.check(), sim.check()


@pytest.fixture
def careless(monkeypatch):
    """Masters vote for anybody, however little is in the candidate's log."""
    monkeypatch.setattr(RaftLog, "is_up_to_date", lambda log, index, term: True)


def plagued(kinds="partition,crash", masters=3, until=8, **options):
    """Return the first of some runs in which a promise is broken."""
    for seed in range(30):
        sim = af.Simulation(masters=masters, seed=seed, config=af.RaftConfig.fast(), **options)
        sim.load(af.KeyValueLoad(2, 2, until=until))
        sim.nemesis(af.Nemesis(*kinds.split(","), every=(0.2, 0.8), seconds=(0.3, 1.5)), until=until)
        sim.run_to(until + 2)
        if sim.check().is_violated:
            return sim
    raise AssertionError("nothing was broken in thirty runs")


def test_a_violation_names_its_seed_and_a_line_that_makes_it_again(careless):
    sim = plagued()
    verdict = sim.check()
    with pytest.raises(af.InvariantViolated) as caught:
        verdict.raise_if_violated()
    assert caught.value.seed == sim.seed
    line = str(caught.value).split("reproduce with: ")[1]
    assert "\n" not in line
    names = {}
    exec(line, names)
    again = names["sim"]
    assert not af.diff(sim, again)
    assert again.check().explanation == verdict.explanation


def test_a_judged_simulation_stops_where_a_promise_is_broken(careless):
    seed = plagued().seed
    sim = af.Simulation(masters=3, seed=seed, config=af.RaftConfig.fast(), judged=True)
    sim.load(af.KeyValueLoad(2, 2, until=8))
    sim.nemesis(af.Nemesis("partition", "crash", every=(0.2, 0.8), seconds=(0.3, 1.5)), until=8)
    with pytest.raises(af.InvariantViolated, match=f"seed {seed}"):
        sim.run_for(10)
    assert sim.now < 10


def test_shrink_finds_the_faults_that_matter(careless):
    sim = plagued("partition,loss,delay,pause,crash")
    verdict = sim.check()
    planned = len(sim._world.faults)
    fewer = verdict.shrink(limit=60)
    assert 1 <= len(fewer) <= planned / 2
    again = af.Simulation(masters=3, seed=sim.seed, config=af.RaftConfig.fast())
    again.load(af.KeyValueLoad(2, 2, until=8))
    again.inject(fewer)
    assert again.run_to(10).check().is_violated


def lagging(sim):
    """Write while one follower is cut off, then let that one be elected."""
    leader = sim.leader
    lag, other = [m for m in sim.masters if m != leader]
    sim.skew(other, rate=1.0001)
    sim.partition({lag}, {leader, other})
    sim.client("c").set("x", 1)
    sim.slow(other, 1)
    sim.run_for(1)
    sim.kill(leader)
    sim.heal()
    while sim.leader != lag:
        sim.timeout(lag)
        sim.run_for(0.02)
    return sim.run_for(1)


def test_faults_made_by_hand_are_shrunk_too(careless, elected):
    sim = lagging(elected())
    verdict = sim.check()
    assert verdict.is_violated
    kinds = sorted(act.name for act in verdict.reproduction.faults)
    assert kinds == ["crash", "restore", "restore", "restore", "skew"]
    fewer = verdict.shrink(limit=60)
    assert "skew" not in [act.name for act in fewer]
    assert "crash" in [act.name for act in fewer]
    assert len(fewer) < 5


def test_the_first_bad_event_is_a_place_to_go_to(careless, elected):
    sim = lagging(elected())
    bad = next(part for part in sim.check().violations() if part.promise == "leader completeness")
    sim.rewind(to=bad.first_bad)
    assert bad.promise not in [part.promise for part in sim.check().violations()]
    sim.step()
    assert bad.promise in [part.promise for part in sim.check().violations()]


# --- each judge sees what it is there for -------------------------------------------------------------------


def test_a_stale_read_is_found(elected, monkeypatch):
    sim = elected()
    sim.client("c").set("x", 1)
    monkeypatch.setattr(planes.Plane, "value_of", lambda plane, key: 0)
    assert sim.client("c").get("x") == 0
    verdict = sim.check()
    assert verdict.is_violated
    assert [part.promise for part in verdict.violations()] == ["linearizable"]


def test_a_command_called_refused_that_took_effect_is_found(elected, monkeypatch):
    def refuse(self, number, pending):
        del self._pending[number]
        self._effects.append(clients.Answer(pending.token, af.NoQuorum("nothing was done, believe me")))

    monkeypatch.setattr(clients.Client, "_give_up", refuse)
    sim = elected()
    sim.client("c").set("x", 1)
    sim.hold(type="Tell")
    with pytest.raises(af.NoQuorum):
        sim.client("c").set("x", 2, timeout=1.0)
    sim.release()
    assert sim.client("c").get("x") == 2
    assert [part.promise for part in sim.check().violations()] == ["linearizable"]


def test_values_of_any_plain_kind_are_judged(elected):
    sim = elected()
    client = sim.client("c")
    client.set("x", {"a": [1, 2]})
    assert client.get("x") == {"a": [1, 2]}
    assert client.cas("x", {"a": [1, 2]}, [None, 1.5])
    assert client.get("x") == [None, 1.5]
    assert sim.check()


def test_tables_that_differ_are_found(elected):
    sim = elected()
    sim.client("c").set("x", 1)
    sim.run_for(1)
    follower = next(m for m in sim.masters if m != sim.leader)
    sim._deployment.master(follower).plane.keys["x"] = 2
    assert [part.promise for part in sim.check().violations()] == ["replicas agree"]


def finished_run():
    sim = af.Simulation(masters=3, workers=2, seed=3, config=af.RaftConfig.fast())
    sim.run_until(lambda s: len(s.plane().workers) == 2)
    flow = af.Workflow("flow")
    first = flow.add(sum, [1], id="first", duration=0.5)
    flow.add(sum, [1], id="second", after=[first], duration=0.5)
    sim.submit(flow).wait()
    sim.run_for(1)
    assert sim.check()
    return sim


def everywhere(sim, change):
    for master in sim.masters_up().values():
        change(master.plane.runs["run-1"])


def test_a_task_that_began_too_early_is_found():
    sim = finished_run()

    def early(run):
        run.history[1] = msgspec.structs.replace(run.history[1], assigned=run.history[0].assigned - 0.1)

    everywhere(sim, early)
    assert "inputs first" in [part.promise for part in sim.check().violations()]


def test_a_task_completed_by_nobody_is_found():
    sim = finished_run()

    def ghost(run):
        run.history[1] = msgspec.structs.replace(run.history[1], worker="worker-9")

    everywhere(sim, ghost)
    assert [part.promise for part in sim.check().violations()] == ["attempts fenced"]


def test_a_task_that_is_lost_is_found():
    sim = finished_run()

    def lose(run):
        run.history.pop()

    everywhere(sim, lose)
    assert "no task lost" in [part.promise for part in sim.check().violations()]


def test_a_cluster_that_stays_dead_after_healing_is_found(busy, monkeypatch):
    monkeypatch.setattr(elections, "campaign_if_allowed", lambda raft, cause: False)
    sim = busy(until=5, workers=0).run_to(30)
    verdict = sim.check()
    assert [part.promise for part in verdict.violations()] == ["liveness after healing"]


def test_nobody_asks_for_liveness_while_something_is_broken(busy):
    sim = busy(until=5).run_to(6)
    for master in sim.masters:
        sim.kill(master)
    assert sim.run_to(40).check()


def test_a_write_that_failed_may_have_reached_the_disk(elected):
    # Power was lost within the write: what the node finds after its restart may hold it, rightly.
    found = set()
    for seed in range(8):
        sim = elected(seed)
        follower = next(m for m in sim.masters if m != sim.leader)
        sim.client("c").set("x", 1)
        sim.run_for(0.2)
        sim.fail_disk(follower, "torn")
        sim.client("c").set("x", 2)
        sim.run_for(0.2)
        last = sim.masters[sim.leader].status().last_index
        sim.restart(follower)
        found.add(sim.masters[follower].status().last_index == last)
        sim.run_for(1)
        assert sim.check(), sim.check()
    assert found == {True, False}
