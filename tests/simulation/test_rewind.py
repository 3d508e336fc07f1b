"""Going back: the state at an instant, whatever had happened, and the same future from there."""

import math
import random
import threading

import pytest

import agentflow as af


def prefix(sim, count):
    from agentflow.cluster.simulating.compare import hashes

    return hashes(list(sim.trace)[:count])


@pytest.mark.parametrize("to", [0.0, 3.2, 9.999, 15.0, 19.5])
def test_the_past_is_the_same_to_the_byte(busy, to):
    sim = busy(until=18).run_for(20)
    whole = list(sim.trace)
    count = sum(record.time <= to for record in whole)
    before = prefix(sim, count)
    sim.rewind(to)
    assert sim.now == to
    assert len(sim.trace) == count
    assert prefix(sim, count) == before


def test_the_same_future_follows_from_a_past_that_nobody_changed(busy):
    sim = busy(until=18).run_for(20)
    digest = sim.trace.digest()
    for to in (17.3, 4.4, 11.0, 0.5):
        sim.rewind(to).run_to(20)
        assert sim.trace.digest() == digest


def test_copies_on_the_way_do_not_change_the_past(busy):
    sim = busy(until=18).run_for(20)
    sim.rewind(10)
    assert sim._copies.worlds, "a run of that length keeps copies"
    with_copies = sim.run_to(20).trace.digest()
    plain = busy(until=18)
    plain._copies.possible = False
    plain.run_for(20).rewind(10)
    assert not plain._copies.worlds
    assert plain.run_to(20).trace.digest() == with_copies


def test_faults_made_by_hand_are_in_force_again(elected):
    sim = elected(masters=5)
    leader = sim.leader
    sim.run_to(3)
    sim.kill(leader)
    sim.network.loss = 0.25
    sim.partition({"master-1", "master-2"}, {"master-3", "master-4", "master-5"})
    sim.skew("master-3", rate=1.5)
    sim.run_to(6)
    sim.heal()
    sim.restart(leader)
    sim.network.loss = 0.0
    sim.run_to(10)
    network = sim.network
    sim.rewind(5)
    assert sim.network is network
    assert sim.masters[leader].state == "down"
    assert network.loss == 0.25
    assert network.blocked("master-1", "master-5") == "partition"
    assert sim.state_at(5).network["loss"] == 0.25
    sim.run_to(10)
    assert network.loss == 0.25, "what was done later is forgotten"


def test_what_was_done_at_an_instant_can_be_done_otherwise(elected):
    sim = elected().run_to(2)
    sim.kill("master-1")
    assert sim.rewind(sim.now).masters["master-1"].state == "down", (
        "no time has passed: nothing to go back to"
    )
    sim.run_to(4).rewind(2)
    assert sim.masters["master-1"].state == "up"
    assert "kill" not in sim.script()


def test_what_was_set_up_before_time_moved_belongs_to_the_beginning(busy):
    sim = busy(until=5).run_for(6)
    digest = sim.trace.digest()
    assert sim.rewind(0).run_to(6).trace.digest() == digest


def test_a_mark_is_a_place_between_two_events(elected):
    sim = elected().run_to(2)
    sim.timeout("master-2")
    sim.step(3)
    mark, before = sim.mark(), sim.trace.digest()
    sim.kill("master-1")
    sim.run_to(5).rewind(mark)
    assert sim.trace.digest() == before
    assert sim.mark() == mark
    assert sim.masters["master-1"].state == "up"


def test_a_record_of_the_trace_names_the_state_before_it(elected):
    sim = elected().run_to(5)
    sim.kill(sim.leader)
    sim.run_to(10)
    role = next(r for r in sim.trace if r.kind == "role" and r.time > 5 and r.payload.role == "leader")
    sim.rewind(to=role)
    assert len(sim.trace) <= role.seq
    sim.step()
    assert sim.trace.since(role.seq)[0] == role


def test_a_rewound_run_takes_another_way(elected):
    sim = elected()
    sim.client("c").set("x", 1)
    here = sim.now
    sim.client("c").set("x", 2)
    assert sim.client("c").get("x") == 2
    sim.rewind(here)
    assert sim.client("c").get("x") == 1
    assert sim.check()


def test_going_back_twice_and_on_is_exact(busy):
    sim = busy(until=10, nemesis="crash,partition").run_for(12)
    digest = sim.trace.digest()
    sim.rewind(6)
    sim.kill("master-1")
    sim.run_to(9).rewind(6.5)
    assert sim.masters["master-1"].state == "down"
    sim.rewind(5.5).run_to(12)
    assert sim.trace.digest() == digest


# --- runs -------------------------------------------------------------------------------------------------


def test_a_run_goes_back_with_its_simulation_and_calls_nothing_twice():
    calls = []

    def work(n):
        calls.append(n)
        return random.random()  # what a user does is not ours to repeat

    sim = af.Simulation(masters=3, workers=2, seed=3)
    flow = af.Workflow("flow")
    sim.run_until(lambda s: s.leader)
    first = flow.add(work, 1, id="first", duration=1.0)
    flow.add(work, 2, id="second", after=[first], duration=1.0)
    run = sim.submit(flow)
    sim.run_until(lambda s: run.counts.get("COMPLETED") == 1)
    between = sim.now
    run.wait()
    values = run.results()
    assert calls == [1, 2]
    sim.rewind(between)
    assert not run.done
    assert calls == [1, 2], "what had happened is remembered, not done again"
    assert run.counts["COMPLETED"] == 1
    run.wait()
    assert calls == [1, 2, 2]
    assert run.result("first") == values["first"]


def test_a_run_submitted_later_is_lost():
    sim = af.Simulation(masters=3, workers=1, seed=3).run_for(10)
    run = sim.submit(sum, [1, 2])
    assert run.result() == 3
    sim.rewind(5)
    assert run.id not in sim.runs
    with pytest.raises(af.NoSuchTask, match="went back to before"):
        run.wait()
    assert sim.submit(sum, [3, 4]).result() == 7


# --- branches ---------------------------------------------------------------------------------------------


def test_branches_share_the_past_and_nothing_else(busy):
    sim = busy(until=10, nemesis="").run_for(5)
    other = sim.branch()
    third = sim.branch(seed=99)
    other.kill(other.leader)
    assert sim.leader
    assert sim.masters[sim.leader].state == "up"
    digest = sim.run_to(10).trace.digest()
    other.run_to(10)
    third.run_to(10)
    assert sim.rewind(5).run_to(10).trace.digest() == digest
    assert af.diff(sim, other).left.time >= 5
    assert af.diff(sim, third).left.time >= 5
    assert all((sim.check(), other.check(), third.check()))
    assert third.prove_deterministic(process=False)


def test_branches_have_values_of_their_own():
    sim = af.Simulation(masters=3, workers=1, seed=3).run_for(10)
    old = sim.submit(sum, [1, 2])
    old.wait()
    other = sim.branch()
    mine, yours = sim.submit(max, [1, 2]), other.submit(min, [1, 2])
    assert (mine.result(), yours.result()) == (2, 1)
    assert other.attach(old.id).result() == 3


def test_state_at_leaves_the_present_alone(busy):
    sim = busy(until=10).run_for(12)
    digest, now = sim.trace.digest(), sim.now
    moment = sim.state_at(4)
    assert moment.now == 4
    assert moment.events == sum(record.time <= 4 for record in sim.trace)
    assert set(moment.up) == set(sim._deployment.host.nodes)
    assert moment.nodes().columns.tolist() == sim.frames.nodes().columns.tolist()
    assert sim.now == now
    assert sim.trace.digest() == digest
    role = moment.masters[moment.leader].role if moment.leader else "leader"
    assert role == "leader"


def test_state_at_shows_nodes_of_ones_own_as_they_were(counter):
    sim = af.Simulation(nodes={"a": counter, "b": counter}, seed=1)
    sim.ask("a", 5)
    sim.run_to(2.5)
    early = sim.state_at(2.5)
    sim.ask("a", 7)
    sim.run_to(5)
    assert early["a"].stable == {"sum": 5}
    assert sim.node("a").stable == {"sum": 12}
    assert sim.state_at(2.0)["a"].stable == {"sum": 5}


# --- what cannot be ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", [-1, 100, math.nan, True, "yesterday"])
def test_there_is_no_going_back_to_what_is_not_past(elected, to):
    with pytest.raises(af.InvalidConfig):
        elected().rewind(to)


def test_a_node_that_draws_chance_from_outside_is_found_out():
    class Cheat:
        def on_start(self, ctx):
            ctx.set_timer("t", 1)

        def on_timer(self, name, ctx):
            ctx.set_timer("t", 1)
            ctx.log("luck", n=random.random())

    sim = af.Simulation(nodes={"a": Cheat}, seed=1).run_for(5)
    verdict = sim.prove_deterministic(process=False)
    assert verdict.is_violated
    assert verdict.first_bad.time == 1.0
    with pytest.raises(af.InvariantViolated, match="could not be made again"):
        sim.rewind(3)


def test_a_node_that_cannot_be_copied_goes_back_all_the_same():
    class Locked:
        def on_start(self, ctx):
            self.lock = threading.Lock()
            ctx.set_timer("t", 0.001)

        def on_timer(self, name, ctx):
            with self.lock:
                ctx.set_timer("t", 0.001)

    sim = af.Simulation(nodes={"a": Locked}, seed=1).run_for(10)
    digest = sim.trace.digest()
    sim.rewind(5)
    assert not sim._copies.possible
    assert sim.run_to(10).trace.digest() == digest
