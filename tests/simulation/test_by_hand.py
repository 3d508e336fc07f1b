"""One message, one timer, one request at a time."""

import math

import pytest

import agentflow as af


def test_pending_lists_what_is_under_way_in_order(elected):
    sim = elected()
    sim.request("c", "set", "x", 1)
    table = sim.pending()
    assert table.columns.tolist() == [
        *("message", "source", "destination", "type", "sent_s", "arrives_s", "held", "payload"),
    ]
    assert (table.source == "c").any()
    assert table.arrives_s.is_monotonic_increasing
    assert af.Simulation(masters=3).pending().dtypes.equals(table.dtypes)


def test_a_message_is_delivered_before_its_turn(elected):
    sim = elected()
    sim.network.latency_ms = 500
    now = sim.now
    asked = sim.request("c", "set", "x", 1)
    row = sim.pending().query("source == 'c'").iloc[0]
    sim.deliver(row)
    assert sim.now == now
    record = next(r for r in sim.trace if r.kind == "deliver" and r.message == row.message)
    assert record.time == now
    assert row.message not in set(sim.pending().message)
    # What it led to is under way, and can be delivered by hand in its turn until the client knows.
    for _ in range(20):
        for number in sim.pending().query("type in ['MsgApp', 'MsgAppResp', 'Tell']").message:
            sim.deliver(int(number))
    assert sim.now == now
    assert asked.done
    assert asked.result is None


def test_a_dropped_message_is_recorded_as_lost(elected):
    sim = elected()
    sim.request("c", "set", "x", 1)
    number = int(sim.pending().query("source == 'c'").message.iloc[0])
    sim.drop(number)
    lost = [r for r in sim.trace if r.kind == "drop"]
    assert lost[-1].message == number
    assert lost[-1].payload == "by hand"
    row = sim.frames.messages().set_index("message").loc[number]
    assert (row.outcome, row.reason) == ("dropped", "by hand")


def test_what_is_not_under_way_cannot_be_delivered_or_dropped(elected):
    sim = elected()
    before = len(sim._journal.acts)
    for act in (sim.deliver, sim.drop):
        with pytest.raises(af.Refused, match="is under way"):
            act(0)
        with pytest.raises(af.InvalidConfig):
            act("a message")
        with pytest.raises(af.InvalidConfig):
            act(True)
    assert len(sim._journal.acts) == before
    assert "deliver" not in sim.script()


def test_held_messages_wait_until_they_are_released(elected):
    sim = elected()
    leader = sim.leader
    others = [m for m in sim.masters if m != leader]
    sim.hold(source=leader, destination=others[0])
    sim.run_for(0.1)
    held = sim.pending().query("held")
    assert len(held) >= 2
    assert set(held.source) == {leader}
    assert set(held.destination) == {others[0]}
    assert held.arrives_s.isna().all()
    assert held.message.is_monotonic_increasing
    assert sim.release() == len(held)
    assert not sim.pending().held.any()
    sim.run_for(0)
    arrived = [r.message for r in sim.trace if r.kind == "deliver" and r.message in set(held.message)]
    assert arrived == held.message.tolist()
    sim.run_for(1)
    assert not sim.pending().held.any(), "what is sent afterwards is not held"


def test_hold_and_release_go_by_type(elected):
    sim = elected()
    sim.hold(type="MsgHeartbeat")
    sim.hold(type="MsgApp")
    sim.request("c", "set", "x", 1)
    sim.run_for(0.1)
    assert set(sim.pending().query("held").type) == {"MsgHeartbeat", "MsgApp"}
    sim.release(type="MsgApp")
    assert set(sim.pending().query("held").type) == {"MsgHeartbeat"}
    sim.run_for(0.01)
    with pytest.raises(af.NoSuchNode):
        sim.hold(source="master-9")


def test_a_follower_whose_patience_ends_stands_for_election(elected):
    sim = elected()
    follower = next(m for m in sim.masters if m != sim.leader)
    now, elections = sim.now, len(sim.frames.elections())
    sim.timeout(follower)
    assert sim.now == now
    assert sim.masters[follower].status().role == "pre-candidate"
    votes = sim.pending().query(f"source == '{follower}' and type == 'MsgPreVote'")
    assert len(votes) == 2
    fault = [r for r in sim.trace if r.kind == "fault" and r.type == "timeout"]
    assert [r.node for r in fault] == [follower]
    assert len(sim.frames.elections()) == elections


def test_a_leader_whose_patience_ends_sends_heartbeats(elected):
    sim = elected()
    sim.run_for(0.02)
    before = sim.pending().query("type == 'MsgHeartbeat'").shape[0]
    sim.timeout(sim.leader)
    assert sim.pending().query("type == 'MsgHeartbeat'").shape[0] == before + 2


def test_a_timer_of_ones_own_node_rings_by_name(counter):
    sim = af.Simulation(nodes={"a": counter, "b": counter}, seed=1)
    sim.timeout("a")
    assert sim.pending().destination.tolist() == ["b"]
    with pytest.raises(af.Refused, match="no timer 'tock' set; set are: tick"):
        sim.timeout("a", "tock")
    sim.kill("a")
    with pytest.raises(af.Refused, match="a is down"):
        sim.timeout("a")


# --- requests ---------------------------------------------------------------------------------------------


def test_a_request_waits_for_nothing(elected):
    sim = elected()
    now = sim.now
    asked = sim.request("c", "cas", "x", None, 5)
    assert not asked.done
    assert sim.now == now
    with pytest.raises(af.Refused, match="no answer yet"):
        _ = asked.result
    sim.run_for(1)
    assert asked.result is True
    assert sim.client("c").get("x") == 5


@pytest.mark.parametrize(
    ("function", "args"), [("put", ("x", 1)), ("set", ("x",)), ("get", ("x", 1)), ("cas", (1, 2, 3))]
)
def test_a_request_that_makes_no_sense_is_refused(elected, function, args):
    sim = elected()
    before = sim.trace.next
    with pytest.raises(af.InvalidConfig):
        sim.request("c", function, *args)
    assert sim.trace.next == before


def test_a_request_that_nobody_can_serve_says_so(elected):
    sim = elected()
    for master in sim.masters:
        sim.kill(master)
    asked = sim.request("c", "set", "x", 1, timeout=2.0)
    sim.run_for(10)
    with pytest.raises(af.NoQuorum):
        _ = asked.result


# --- nodes of one's own -----------------------------------------------------------------------------------


def test_nodes_added_before_time_moves_know_each_other(counter):
    sim = af.Simulation(masters=0, seed=1)
    for name in "abc":
        sim.add_node(name, counter)
    assert sim.ask("a", 5) == 5
    sim.run_for(1.5)
    assert {name: sim.node(name).heard for name in "abc"} == {"a": 2, "b": 3, "c": 3}
    assert sim.check()


def test_only_stable_values_survive_a_crash(counter):
    sim = af.Simulation(nodes={"a": counter, "b": counter}, seed=1)
    sim.ask("a", 5)
    sim.run_for(3)
    sim.kill("a")
    assert sim.node("a") is None
    sim.run_for(1)
    sim.restart("a")
    assert sim.node("a").stable == {"sum": 5}
    assert sim.node("a").heard == 0


def test_every_fault_works_for_nodes_of_ones_own(counter):
    sim = af.Simulation(nodes=dict.fromkeys("abc", counter), seed=1)
    sim.nemesis("crash,partition,one_way,loss,delay,duplicate,reorder,pause,skew,slow_disk", until=60)
    sim.run_for(90)
    landed = sim.landed()
    assert {"crash", "partition", "loss", "pause", "duplicate"} <= set(landed)
    assert all(state == "up" for state in sim.state_at(90).up.values())
    assert sim.prove_deterministic()


def test_nodes_live_beside_masters(counter):
    sim = af.Simulation(masters=3, seed=1, nodes={"a": counter})
    sim.add_node("b", counter)
    assert sim.run_until(lambda s: s.leader)
    assert sim.ask("b", 3) == 3
    sim.add_node("late", counter)
    assert sim.ask("late", 4) == 4
    assert sim.check()


def test_a_node_added_while_time_runs_starts_at_once(counter):
    sim = af.Simulation(nodes={"a": counter}, seed=1).run_for(5)
    sim.add_node("b", counter)
    assert sim.masters == {}
    assert sim.node("b").stable == {"sum": 0}
    with pytest.raises(af.InvalidConfig, match="already"):
        sim.add_node("b", counter)


def test_a_node_that_never_replies_times_out(counter):
    class Silent:
        def on_local(self, msg, ctx):
            pass

    sim = af.Simulation(nodes={"a": Silent}, seed=1)
    with pytest.raises(af.TimedOut):
        sim.ask("a", "hello", timeout=5)
    assert sim.now == 5


def test_a_node_that_raises_crashes_alone(counter):
    class Fragile:
        def on_local(self, msg, ctx):
            raise RuntimeError("too much")

    sim = af.Simulation(nodes={"a": Fragile, "b": counter}, seed=1)
    with pytest.raises(af.PeerDown):
        sim.ask("a", 1)
    assert sim.ask("b", 1) == 1
    errors = [r for r in sim.trace if r.kind == "error"]
    assert "too much" in errors[0].payload["error"]


# --- the script -------------------------------------------------------------------------------------------


def played(sim):
    names = {}
    exec(sim.script(), names)
    return names["sim"]


def test_the_script_makes_the_run_again(elected):
    sim = elected(network=af.Network(latency_ms=(2, 9), loss=0.01), disk_ms=(1, 2))
    sim.client("c").set("x", 1)
    sim.kill(sim.leader)
    sim.run_for(0.7)
    sim.network.loss = 0.1
    sim.network.latency_ms = (5, 6)
    sim.step(7)
    sim.partition({"master-1"}, {"master-2", "master-3"})
    sim.run_until(lambda s: s.leader, limit=2)
    sim.heal()
    sim.network.cut("master-1", "master-2")
    sim.slow("master-3", 20)
    sim.run_for(0.5)
    sim.restart("master-1")
    sim.hold(type="MsgApp")
    asked = sim.request("c", "get", "x")
    sim.run_for(0.05)
    for number in sim.pending().query("held").message:
        sim.deliver(int(number))
    sim.release()
    sim.timeout("master-2")
    sim.pause("master-3")
    sim.skew("master-1", offset=0.1, rate=1.01)
    sim.slow_disk("master-1", 4.0)
    sim.run_for(0.3)
    sim.resume("master-3")
    sim.cut("master-3", "master-1")
    sim.fail_disk("master-2", "full")
    sim.fault("loss", at=sim.now + 0.1, seconds=0.5, amount=0.3)
    sim.nemesis("pause,crash", until=sim.now + 2)
    sim.load(af.KeyValueLoad(2, 1, until=10))
    sim.run_for(4)
    assert asked is not None
    assert not af.diff(sim, played(sim))


def test_the_script_survives_what_raised(elected):
    sim = elected()
    for master in sim.masters:
        sim.kill(master)
    with pytest.raises(af.NoQuorum):
        sim.client("c").set("x", 1)
    sim.restart("master-1")
    sim.run_for(1)
    assert not af.diff(sim, played(sim))


def test_the_script_of_a_rewound_run_is_the_way_it_took(elected):
    sim = elected().run_to(3)
    sim.client("c").set("x", 1)
    sim.run_to(5)
    sim.kill("master-1")
    sim.run_to(8).rewind(6)
    sim.client("c").set("x", 2)
    sim.rewind(4)
    sim.pause("master-2")
    sim.run_to(4.5)
    text = sim.script()
    assert "kill" not in text
    assert "'x', 2" not in text
    assert not af.diff(sim, played(sim))


def test_a_request_cut_short_by_going_back_was_made_all_the_same(elected):
    sim = elected(network=af.Network(latency_ms=100)).run_to(3)
    sim.client("c").set("x", 1)
    sim.rewind(3.15)
    assert "sim.request('c', 'set', 'x', 1)" in sim.script()
    assert not af.diff(sim, played(sim))


def test_a_script_names_what_it_cannot_write(elected):
    sim = elected(masters=3, health=af.HealthCheckConfig(1.0, 3.0, 5.0))
    sim.add_worker(group="gpu", gpu_count=1)
    flow = af.Workflow("night job")
    flow.add(sum, [1, 2], id="add")
    sim.submit(flow)
    sim.submit(sum, [1, 2])
    text = sim.script()
    assert "sim.submit(night_job)  # a workflow of 1 tasks" in text
    assert "sim.submit(sum, [1, 2])" in text
    assert "sim.add_worker(group='gpu', gpu_count=1)" in text


# --- time -------------------------------------------------------------------------------------------------


def test_run_to_ends_exactly_at_its_instant():
    sim = af.Simulation(masters=3, seed=1)
    for time in (0.1, 0.3, 0.7, 1.1, 1.1, math.pi):
        assert sim.run_to(time).now == time
    for bad in (1.0, math.inf, math.nan, "noon"):
        with pytest.raises(af.InvalidConfig):
            sim.run_to(bad)


def test_time_runs_forwards():
    sim = af.Simulation(masters=3)
    for bad in (-1, math.inf, math.nan, "a while"):
        with pytest.raises(af.InvalidConfig):
            sim.run_for(bad)
    with pytest.raises(af.InvalidConfig):
        sim.at(math.nan, print)


def test_a_step_is_one_thing():
    sim = af.Simulation(masters=3, seed=1)
    sim.step(5)
    assert sim._world.driver.steps == 5
    assert sim.step()
    empty = af.Simulation(masters=0)
    assert not empty.step()


def test_what_is_scripted_sees_the_simulation():
    sim = af.Simulation(masters=3, seed=1)
    seen = []
    sim.at(5, lambda s: seen.append((s.now, s is sim)))
    sim.at(6, lambda s: s.kill("master-1"))
    sim.run_for(10)
    assert seen == [(5, True)]
    assert sim.masters["master-1"].state == "down"
    sim.rewind(5.5).run_to(10)
    assert sim.masters["master-1"].state == "down", "what was scripted before comes again"


def test_what_is_asked_of_a_simulation_is_checked():
    for bad in ({"masters": -1}, {"masters": "3"}, {"seed": 1.5}, {"workers": 2, "masters": 0}):
        with pytest.raises(af.InvalidConfig):
            af.Simulation(**bad)
    assert af.Simulation(masters=0).masters == {}


def test_a_client_asks_the_next_master_before_its_caller_gives_up():
    sim = af.Simulation(masters=3, seed=3)
    sim.run_until(lambda s: s.leader)
    deposed = sim.leader
    client = sim.client("c2")
    sim.partition({deposed}, {"c2", *set(sim.masters) - {deposed}})
    sim.run_until(lambda s: s.leader not in (None, deposed))
    client.set("x", 2)  # the first master it asks may be the one that is cut off
    assert client.get("x") == 2
