"""Breaking things, and what a cluster answers while they are broken."""

import threading
import time

import pytest

import agentflow as af
from agentflow.core.nodes.messages import Greet

SOON = 20.0
MASTERS = ("master-1", "master-2", "master-3")


def followers(cluster):
    return [name for name in cluster.masters if name != cluster.leader]


def rest(sim):
    """Give virtual time for an election."""
    sim.run_for(3)
    return sim


def slow_flow(count=12, duration=1.0):
    flow = af.Workflow("slow")
    for i in range(count):
        flow.add(int, i, id=f"t{i}", duration=duration)
    return flow


# --- masters --------------------------------------------------------------------------------------------------


def test_a_killed_leader_is_followed_by_another_and_nothing_is_lost(sim):
    run = sim.submit(slow_flow())
    sim.run_for(1.5)
    old = sim.leader
    sim.kill(old)
    assert sim.leader is None
    assert run.wait().ok
    assert sim.leader not in (None, old)
    assert run.results() == {f"t{i}": i for i in range(12)}
    assert set(run.frames.attempts().state) == {"COMPLETED"}, "workers go on with what they run"


def test_a_restarted_master_catches_up_from_its_disk(sim):
    sim.client("c").set("x", 1)
    [away, _] = followers(sim)
    sim.kill(away)
    assert sim.masters[away].status() is None
    assert repr(sim.masters[away]) == f"<{away} down>"
    sim.client("c").set("x", 2)
    sim.restart(away)
    rest(sim)
    assert sim._deployment.master(away).plane.keys == {"x": 2}


def test_all_masters_may_be_killed_and_started_again(sim):
    run = sim.submit(slow_flow())
    sim.run_for(1.5)
    for name in MASTERS:
        sim.kill(name)
    sim.run_for(10)
    assert sim.leader is None
    for name in MASTERS:
        sim.restart(name)
    assert run.wait().ok
    assert run.results() == {f"t{i}": i for i in range(12)}


def test_a_killed_leader_of_a_single_master_comes_back_with_everything():
    sim = af.Simulation(masters=1, workers=1, seed=3, config=af.RaftConfig.fast())
    sim.run_until(lambda s: s.leader)
    run = sim.submit(slow_flow())
    sim.run_for(1)
    sim.kill("master-1")
    sim.restart("master-1")
    assert run.wait().ok


def test_a_paused_leader_is_replaced_and_knows_its_place_when_it_resumes(sim):
    old = sim.leader
    sim.pause(old)
    assert sim.masters[old].state == "paused"
    rest(sim)
    assert sim.leader not in (None, old)
    sim.client("c").set("x", 1)
    sim.resume(old)
    rest(sim)
    assert not sim.masters[old].is_leader()
    assert sim.masters[old].status().role == "follower"
    assert sim._deployment.master(old).plane.keys == {"x": 1}


def test_a_leader_cut_off_from_the_others_is_replaced_and_its_unknown_command_settled_by_asking_again(sim):
    old = sim.leader
    sim.partition({old}, set(followers(sim)))
    client = sim.client("c")
    client.set("x", 1, timeout=10)
    assert sim.leader != old
    assert client.get("x") == 1
    sim.heal()
    rest(sim)
    assert {sim._deployment.master(name).plane.keys["x"] for name in MASTERS} == {1}


def test_with_a_majority_down_a_command_is_refused_in_time_and_not_done(sim):
    for name in followers(sim):
        sim.kill(name)
    sim.kill(sim.leader)
    sim.restart("master-1")
    rest(sim)
    began = sim.now
    with pytest.raises(af.NoQuorum, match="no master led a majority") as caught:
        sim.client("c").set("x", 1)
    assert isinstance(caught.value, af.Refused)
    assert sim.now - began <= 3.1
    for name in MASTERS[1:]:
        sim.restart(name)
    rest(sim)
    assert sim.client("c").get("x") is None


def test_a_leader_that_appended_and_cannot_commit_answers_unknown_and_the_key_settles_it(sim):
    leader, away = sim.leader, followers(sim)
    sim.partition({leader, "notebook"}, set(away))
    began = sim.now
    with pytest.raises(af.TimedOut, match="may have taken effect") as caught:
        sim.submit(int, 5)
    assert isinstance(caught.value, af.Unknown)
    assert sim.now - began == pytest.approx(3.0)
    sim.heal()
    rest(sim)
    run = sim.submit(int, 5, idempotency_key=caught.value.key)
    assert run.result() == 5
    assert len(sim.plane().runs) == 1


def test_a_client_cut_off_from_every_master_does_not_hang(sim):
    sim.partition({"notebook"}, set(MASTERS))
    with pytest.raises(af.Unknown):
        sim.submit(int)
    sim.heal()
    assert sim.submit(int, 4).result() == 4


def test_in_real_time_a_minority_answers_as_well(fresh):
    for name in followers(fresh):
        fresh.kill(name)
    fresh.kill(fresh.leader)
    began = time.monotonic()
    with pytest.raises(af.NoQuorum):
        fresh.submit(int)
    assert time.monotonic() - began < SOON
    assert "0 of 3 masters are up and 2 make a majority" in fresh.diagnose()
    for name in MASTERS:
        fresh.restart(name)
    assert fresh.submit(int, 5, commit_timeout=SOON).result(timeout=SOON) == 5


def test_two_commands_of_one_client_take_effect_once_each_through_a_leader_change(sim):
    client = sim.client("c")
    assert client.cas("x", None, 1) is True
    assert client.cas("x", None, 2) is False
    sim.kill(sim.leader)
    assert client.cas("x", 1, 2, timeout=10) is True
    assert client.get("x") == 2


# --- workers --------------------------------------------------------------------------------------------------


def test_a_killed_workers_tasks_run_elsewhere(sim):
    run = sim.submit(slow_flow(6, duration=10))
    sim.run_for(1)
    victim = run.frames.attempts().worker.iloc[0]
    sim.kill(victim)
    assert run.wait().ok
    attempts = run.frames.attempts()
    lost = attempts[attempts.state == "LOST"]
    assert len(lost) > 0
    assert set(lost.worker) == {victim}
    assert set(attempts[attempts.task.isin(lost.task) & (attempts.state == "COMPLETED")].number) == {2}
    workers = sim.frames.workers().set_index("id")
    assert workers.status[victim] == "OFFLINE"
    assert "no heartbeat" in workers.reason[victim]


def test_a_restarted_worker_is_a_new_life_and_takes_work_again(sim):
    sim.kill("worker-1")
    sim.kill("worker-2")
    run = sim.submit(int, 3)
    sim.run_for(10)
    assert not run.done
    assert "worker-1 is down; cluster.restart('worker-1') brings it back" in sim.diagnose()
    sim.restart("worker-1")
    assert run.result() == 3


def test_a_paused_worker_is_declared_dead_and_starts_over_when_it_resumes(sim):
    run = sim.submit(slow_flow(8, duration=20))
    sim.run_for(1)
    sim.pause("worker-1")
    assert "worker-1 is paused; cluster.resume('worker-1')" in sim.diagnose()
    assert run.wait().ok
    assert set(run.frames.attempts().query("state == 'LOST'").worker) == {"worker-1"}
    assert set(run.frames.attempts().query("state == 'COMPLETED'").worker) == {"worker-2"}
    sim.resume("worker-1")
    rest(sim)
    assert sim.frames.workers().set_index("id").status["worker-1"] == "ACTIVE"
    assert sim.submit(slow_flow(8)).wait().ok


def test_a_short_pause_of_a_worker_costs_nothing(sim):
    run = sim.submit(slow_flow(8, duration=20))
    sim.run_for(1)
    sim.pause("worker-1")
    sim.run_for(2)
    sim.resume("worker-1")
    assert run.wait().ok
    assert set(run.frames.attempts().state) == {"COMPLETED"}


def test_a_worker_cut_off_is_replaced_and_what_it_reports_later_is_refused(sim):
    run = sim.submit(slow_flow(2, duration=10))
    sim.run_for(1)
    sim.partition({"worker-1"}, set(MASTERS))
    sim.run_for(30)
    assert run.ok
    before = sim.plane().refused_completions
    sim.heal()
    rest(sim)
    assert sim.frames.workers().set_index("id").status["worker-1"] == "ACTIVE", "it began a new life"
    history = sim.plane().runs[run.id].history
    assert sum(row.state == 1 for row in history) == 2
    assert sim.plane().refused_completions >= before


def test_a_slow_worker_is_slow_and_alive(sim):
    sim.slow("worker-1", ms=400)
    run = sim.submit(slow_flow(8))
    assert run.wait().ok
    assert set(run.frames.attempts().state) == {"COMPLETED"}
    sim.slow("worker-1", ms=0)
    assert sim.network.describe().get("slow") is None


def test_a_killed_worker_thread_may_end_and_its_value_is_kept_by_nobody(fresh, eventually):
    gate, entered, ended = threading.Event(), threading.Semaphore(0), threading.Semaphore(0)

    def hold():
        entered.release()
        gate.wait(SOON)
        ended.release()
        return "value"

    run = fresh.submit(hold)
    assert entered.acquire(timeout=SOON)
    victim = fresh.read(lambda: next(iter(fresh.plane().live.values())).worker.id)
    fresh.kill(victim)
    assert entered.acquire(timeout=SOON), "it starts elsewhere"
    gate.set()
    assert ended.acquire(timeout=SOON)
    assert ended.acquire(timeout=SOON)
    assert run.result(timeout=SOON) == "value"
    assert list(run.frames.attempts().state) == ["LOST", "COMPLETED"]
    values = [key for key in fresh._bench.objects._values if key[0] == "value"]
    assert values == [("value", 2)]


def test_threads_of_killed_workers_do_not_pile_up(fresh, eventually):
    fresh.map(int, range(40)).wait(SOON)
    before = threading.active_count()
    for _ in range(5):
        fresh.kill("worker-1")
        fresh.restart("worker-1")
        fresh.map(int, range(40)).wait(SOON)
    assert eventually(lambda: threading.active_count() <= before)


def test_a_node_is_named_by_its_handle_too(sim):
    worker = sim.workers["worker-1"]
    sim.kill(worker)
    assert (worker.state, worker.alive, repr(worker)) == ("down", False, "<worker-1 down>")
    worker.restart()
    worker.pause()
    assert (worker.state, worker.alive) == ("paused", True)
    worker.resume()
    assert worker.state == "up"
    assert worker == sim.workers["worker-1"]
    assert len({worker, sim.workers["worker-1"], sim.workers["worker-2"]}) == 2
    sim.partition({worker}, {sim.masters["master-1"]})
    assert sim.network.blocked("worker-1", "master-1") == "partition"


def test_killing_what_is_down_and_healing_what_is_whole_is_allowed(sim):
    sim.kill("worker-1")
    sim.kill("worker-1")
    sim.heal()
    sim.resume("worker-2")
    sim.restart("worker-2")
    assert sim.submit(int, 5).result() == 5


# --- more and fewer workers -------------------------------------------------------------------------------------


def test_a_worker_added_during_a_run_takes_part(sim):
    run = sim.submit(slow_flow(30, duration=5))
    sim.run_for(1)
    added = sim.add_worker(max_tasks=2)
    assert run.wait().ok
    assert added.id == "worker-3"
    assert added.id in set(run.frames.attempts().worker)
    assert "worker-3" in sim.workers


def test_a_drained_worker_finishes_what_it_runs_and_takes_nothing_new(sim):
    run = sim.submit(slow_flow(20, duration=5))
    sim.run_for(1)
    running = set(run.frames.attempts().query("worker == 'worker-1'").task)
    sim.remove_worker("worker-1")
    assert "worker-1" not in sim.workers
    assert (sim.workers.get("worker-1"), len(sim.workers), repr(sim.workers)) == (None, 1, "{<worker-2 up>}")
    assert run.wait().ok
    attempts = run.frames.attempts()
    assert set(attempts[attempts.worker == "worker-1"].task) == running
    assert set(attempts.state) == {"COMPLETED"}


def test_a_worker_that_is_not_drained_leaves_its_work_to_others(sim):
    run = sim.submit(slow_flow(8, duration=50))
    sim.run_for(1)
    sim.remove_worker("worker-1", drain=False)
    rest(sim)
    assert sim.frames.workers().set_index("id").status["worker-1"] == "OFFLINE", "it does not register again"
    assert run.wait().ok
    assert set(run.frames.attempts().query("state == 'LOST'").worker) == {"worker-1"}


def test_draining_has_a_limit(sim):
    run = sim.submit(slow_flow(8, duration=50))
    sim.run_for(1)
    began = sim.now
    sim.remove_worker("worker-1", timeout=5)
    assert 5 <= sim.now - began < 6
    assert run.wait().ok


def test_a_removed_worker_is_gone_and_its_handle_says_so(sim):
    handle = sim.workers["worker-1"]
    sim.remove_worker("worker-1")
    assert (handle.state, repr(handle)) == ("removed", "<worker-1 removed>")
    with pytest.raises(af.NoSuchNode):
        handle.group  # noqa: B018
    with pytest.raises(af.NoSuchNode):
        sim.kill(handle)
    assert sim.add_worker().id == "worker-3", "no name is used twice"


def test_without_a_majority_a_worker_is_not_removed_and_works_on(sim):
    rest(sim)
    for name in followers(sim):
        sim.kill(name)
    for drain in (True, False):
        with pytest.raises(af.AgentflowError):
            sim.remove_worker("worker-1", drain=drain)
    assert sim.workers["worker-1"].state == "up"
    for name in MASTERS:
        sim.restart(name)
    rest(sim)
    assert "worker-1" in sim.workers


def test_removing_workers_to_none_and_adding_one_again(sim):
    run = sim.submit(slow_flow(12, duration=3))
    sim.run_for(1)
    sim.remove_worker("worker-1", drain=False)
    sim.remove_worker("worker-2", drain=False)
    sim.run_for(30)
    assert not run.done
    assert "none is registered and alive" in run.explain("t7")
    sim.add_worker()
    assert run.wait().ok


def test_a_removed_worker_in_real_time_leaves_no_thread(fresh, eventually):
    fresh.map(int, range(20)).wait(SOON)
    fresh.remove_worker("worker-1")
    assert eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("worker-1/")])
    assert fresh.submit(int, 5).result(timeout=SOON) == 5


def test_a_greeting_of_a_leader_reaches_only_who_needs_it(sim):
    sim.kill(sim.leader)
    rest(sim)
    greeted = {r.destination for r in sim.records() if r.kind == "send" and isinstance(r.payload, Greet)}
    assert greeted == {"worker-1", "worker-2"}
