"""Masters and workers that come and go while work goes on."""

import concurrent.futures
import threading

import pytest

import agentflow as af
from agentflow.core.control.image import save

SOON = 20.0


def voters(cluster):
    return set(cluster.read(cluster._deployment.membership).voters)


def test_a_master_that_is_added_votes_and_can_lead(sim):
    run = sim.submit(af.Workflow("chain", tasks=[("a", []), ("b", ["a"])]))
    new = sim.add_master()
    assert voters(sim) == {"master-1", "master-2", "master-3", "master-4"}
    sim.transfer_leadership(new)
    assert sim.leader == "master-4"
    assert run.wait().ok
    assert sim.submit(pow, 2, 3).result() == 8
    sim.run_for(2)
    assert save(sim._deployment.master("master-4").plane) == save(sim._deployment.master("master-1").plane)
    assert not sim.check().violations()


def test_a_leader_that_is_removed_hands_on_first(sim):
    old = sim.leader
    run = sim.submit(af.Workflow("pair", tasks=[("a", []), ("b", ["a"])]))
    sim.remove_master(old)
    assert old not in sim.masters
    assert len(voters(sim)) == 2
    assert run.wait().ok
    with pytest.raises(af.NoSuchNode):
        sim.remove_master(old)


def test_the_whole_cluster_is_replaced_while_it_works(sim):
    flow = af.Workflow("long")
    flow.map(abs, range(12), duration=2)
    run = sim.submit(flow)
    for master in list(sim.masters):
        sim.add_master()
        sim.remove_master(master)
    assert sorted(sim.masters) == ["master-4", "master-5", "master-6"]
    assert run.result() == list(range(12))
    sim.kill("worker-1")
    sim.restart("worker-1")
    assert sim.run_until(lambda s: s.plane().workers["worker-1"].alive, limit=30)


def test_the_last_master_stays(sim):
    for master in list(sim.masters)[:2]:
        sim.remove_master(master)
    with pytest.raises(af.Refused, match="only master"):
        sim.remove_master(next(iter(sim.masters)))


def test_masters_come_and_go_on_a_live_cluster(fresh):
    run = fresh.map(abs, range(50))
    fresh.add_master()
    fresh.remove_master("master-1")
    assert run.result(timeout=SOON) == list(range(50))
    assert voters(fresh) == {"master-2", "master-3", "master-4"}
    assert fresh.submit(pow, 2, 3).result(timeout=SOON) == 8


def test_work_waits_for_a_cluster_scaled_to_nothing_and_back(sim):
    for worker in list(sim.workers):
        sim.remove_worker(worker)
    run = sim.submit(pow, 2, 3)
    sim.run_for(5)
    assert not run.done
    assert "none is registered" in run.explain("pow")
    sim.add_worker()
    assert run.result() == 8


def test_a_group_may_have_an_executor_of_its_own():
    def where():
        return threading.current_thread().name

    with concurrent.futures.ThreadPoolExecutor(3, thread_name_prefix="mine") as pool:
        with af.Cluster(masters=1, workers={"default": 1, "special": pool}) as cluster:
            flow = af.Workflow("both")
            here, there = flow.add(where, id="here"), flow.add(where, group="special", id="there")
            run = cluster.submit(flow)
            assert run.result(here, timeout=SOON).startswith("worker-1/")
            assert run.result(there, timeout=SOON).startswith("mine")
            assert cluster.frames.workers().set_index("id")["max_tasks"]["worker-2"] == 3
        assert pool.submit(pow, 2, 3).result() == 8, "it is the user's to end"


@pytest.mark.parametrize("workers", [{"gpu": "threds"}, {"gpu": None}, {"gpu": 1.5}, {"gpu": object()}])
def test_a_group_of_something_else_is_refused(workers):
    with pytest.raises(af.InvalidConfig):
        af.Cluster(masters=1, workers=workers)


def test_workers_come_when_work_waits_and_go_when_there_is_none(eventually):
    with af.Cluster(masters=1, workers=0) as cluster:
        adaptive = cluster.adapt(0, 2, idle_secs=0.0)
        gate = threading.Event()
        run = cluster.map(lambda _: gate.wait(SOON), range(20))
        assert eventually(lambda: len(cluster.workers) == 2)
        gate.set()
        assert run.wait(SOON).ok
        assert eventually(lambda: len(cluster.workers) == 0)
        assert cluster.submit(pow, 2, 3).result(timeout=SOON) == 8, "and back from nothing"
        again = cluster.adapt(1, 1)
        assert "stopped" in repr(adaptive)
        assert eventually(lambda: len(cluster.workers) >= 1)
        again.stop()


@pytest.mark.parametrize("limits", [(2, 1), (-1, 3), (0, 0)])
def test_limits_that_cannot_be_are_refused(live, limits):
    with pytest.raises(af.InvalidConfig):
        live.adapt(*limits)


def test_no_worker_comes_for_a_task_that_it_could_not_run(fresh, eventually):
    from agentflow.cluster.adapting import look

    assert eventually(lambda: "worker-1" in fresh.plane().workers)

    flow = af.Workflow("special")
    flow.add(abs, -1, group="gpu", id="a")
    flow.add(abs, -1, resources={"gpu": 1}, id="b")
    run = fresh.submit(flow)
    assert fresh.read(lambda: look(fresh.plane(), "default", ["worker-1"])) == (0, ["worker-1"])
    run.cancel()
