"""A cluster's beginning and end, and what happens when its cell is run again."""

import asyncio
import itertools
import subprocess
import sys
import threading
import time
import types

import pytest

import agentflow as af

SOON = 20.0
EXECUTIONS = itertools.count(1)
"""A kernel counts on, from one test to the next."""


def boom():
    raise ValueError("boom")


# --- closing --------------------------------------------------------------------------------------------------


def test_a_cluster_closes_with_its_block_and_twice_is_once():
    with af.Cluster(masters=1, workers=1) as cluster:
        assert cluster.submit(int, 3).result(timeout=SOON) == 3
    assert cluster.closed
    cluster.close()
    assert repr(cluster) == "<Cluster closed, 1 runs>"


def test_a_block_that_raises_closes_it_too():
    with pytest.raises(ZeroDivisionError), af.Cluster(masters=1, workers=1) as cluster:
        1 / 0  # noqa: B018
    assert cluster.closed


def test_a_closed_cluster_refuses_everything_that_would_change_something():
    with af.Cluster(masters=1, workers=1) as cluster:
        run = cluster.submit(int)
        run.wait(SOON)
        keys = cluster.client("c")
    flow = af.Workflow("late", tasks=["a"])
    for act in (
        lambda: cluster.submit(flow),
        lambda: cluster.submit(int),
        lambda: cluster.map(int, [1]),
        lambda: cluster.kill("master-1"),
        lambda: cluster.restart("master-1"),
        lambda: cluster.partition({"master-1"}, {"worker-1"}),
        cluster.heal,
        cluster.add_worker,
        lambda: cluster.remove_worker("worker-1"),
        lambda: cluster.client("d"),
        lambda: keys.set("x", 1),
        run.cancel,
        run.release,
    ):
        with pytest.raises(af.Closed, match="closed"):
            act()


def test_a_closed_cluster_still_tells_what_happened():
    with af.Cluster(masters=3, workers=2, name="told") as cluster:
        run = cluster.submit(boom)
        run.wait(SOON)
        good = cluster.submit(int, 4).wait(SOON)
        cluster.diagnose()
    now = cluster.now
    tasks, attempts = cluster.frames.tasks(), run.frames.attempts()
    assert list(tasks.state) == ["FAILED", "COMPLETED"]
    assert good.result() == 4
    with pytest.raises(af.TaskFailed) as caught:
        run.result()
    assert (caught.value.attempt, caught.value.worker) == (attempts.attempt.item(), attempts.worker.item())
    assert isinstance(caught.value.__cause__, ValueError)
    assert cluster.frames.nodes().alive.all(), "as it was at the end"
    assert (cluster.frames.nodes().role == "leader").sum() == 1
    assert cluster.frames.workers().heartbeat_age_s.notna().all()
    assert len(cluster.frames.elections()) >= 1
    assert len(cluster.frames.events()) > 10
    assert run.explain("boom") == "'boom' failed after 1 try: ValueError: boom."
    assert cluster.diagnose() == "<Cluster 'told' closed, 2 runs> is closed."
    assert cluster.leader is None
    assert cluster.masters["master-1"].state == "down"
    assert cluster.now == now, "its time has stopped"


def test_closing_ends_the_waiting_for_what_will_never_come():
    gate = threading.Event()
    cluster = af.Cluster(masters=1, workers=1)
    flow = af.Workflow("half")
    first = flow.add(int, 1, id="first")
    flow.add(lambda _: gate.wait(SOON), first, id="second")
    run = cluster.submit(flow)
    assert run.result("first", timeout=SOON) == 1
    ended = []

    def wait():
        try:
            run.wait(SOON)
        except af.Closed as error:
            ended.append(error)

    async def follow():
        return [task async for task in run]

    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    threading.Timer(0.1, gate.set).start()
    cluster.close()
    for thread in threads:
        thread.join()
    assert len(ended) == 2
    assert "1 tasks of run-1 were left" in str(ended[0])
    with pytest.raises(af.Closed):
        asyncio.run(follow())
    assert run.result("first") == 1, "what had settled is still there"
    assert run.frames.results().task.to_list() == ["first"]
    with pytest.raises(af.Closed):
        run.result("second")
    assert (run.done, run.ok) == (True, False)


def test_a_function_that_will_not_end_is_reported_by_name_and_only_waited_for_a_moment():
    gate = threading.Event()
    cluster = af.Cluster(masters=1, workers=3)
    entered = threading.Semaphore(0)

    def stubborn(_):
        entered.release()
        gate.wait(SOON)

    cluster.map(stubborn, range(6))
    for _ in range(6):
        assert entered.acquire(timeout=SOON)
    began = time.monotonic()
    with pytest.warns(af.LeftRunning, match=r"6 functions running.*'stubborn\[0\]' of run-1") as caught:
        cluster.close()
    assert time.monotonic() - began < 3.0, "all of them together are waited for once"
    assert caught[0].filename == __file__
    gate.set()


def test_a_task_may_close_nothing_but_may_outlive_its_cluster():
    gate, ended = threading.Event(), threading.Event()

    def late():
        gate.wait(SOON)
        ended.set()
        return "too late"

    cluster = af.Cluster(masters=1, workers=1)
    run = cluster.submit(late)
    entered = time.monotonic()
    while not cluster.frames.attempts().started_s.isna().any() and time.monotonic() < entered + SOON:
        pass
    with pytest.warns(af.LeftRunning):
        cluster.close()
    gate.set()
    assert ended.wait(SOON)
    with pytest.raises(af.Closed):
        run.result()


def test_two_clusters_live_side_by_side():
    with af.Cluster(masters=1, workers=1) as one, af.Cluster(masters=1, workers=1) as other:
        runs = one.submit(int, 1), other.submit(int, 2)
        assert [run.result(timeout=SOON) for run in runs] == [1, 2]
        one.close()
        assert other.submit(int, 3).result(timeout=SOON) == 3


def test_a_cluster_left_open_does_not_keep_the_interpreter():
    code = (
        "import agentflow as af, time\n"
        "cluster = af.Cluster(masters=3, workers=2)\n"
        "cluster.submit(time.sleep, 60)\n"
        "print(cluster.submit(int, 5).result(timeout=20))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True
    )
    assert (done.stdout.strip(), done.stderr) == ("5", "")


def test_time_may_be_slowed_stopped_and_let_go_on():
    with af.Cluster(masters=3, workers=2, speed=0.2) as cluster:
        assert cluster.leader, "the first election is not waited for at the audience's speed"
        assert cluster.speed == 0.2
        cluster.speed = 0
        now = cluster.now
        assert len(cluster.frames.nodes()) == 3
        with pytest.raises(af.Refused, match="stands still"):
            cluster.submit(int)
        assert cluster.now == now
        cluster.speed = 1
        assert cluster.submit(int, 5).result(timeout=SOON) == 5
        with pytest.raises(af.InvalidConfig):
            cluster.speed = -1


# --- the same cell again --------------------------------------------------------------------------------------


@pytest.fixture
def cell(monkeypatch):
    """A notebook's shell, of which a test may say which cell runs; clusters made in it are closed."""

    class Shell:
        kernel = object()
        execution_count = 0
        cell_id = "cell-1"

        def get_parent(self):
            return {"metadata": {"cellId": self.cell_id} if self.cell_id else {}}

        def run(self, make, cell_id="cell-1"):
            self.cell_id = cell_id
            self.execution_count = next(EXECUTIONS)
            return self.again(make)

        def again(self, make):
            """Once more within the same execution."""
            cluster = make()
            made.append(cluster)
            return cluster

    shell, made = Shell(), []
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    yield shell
    for cluster in made:
        cluster.close()


def small(**more):
    return af.Cluster(masters=1, workers=1, **more)


def test_running_a_cell_again_gives_the_cluster_that_is_there(cell):
    one = cell.run(small)
    assert cell.run(small) is one
    assert cell.run(lambda: af.Cluster(1, 1)) is one, "however the same arguments are written"
    assert cell.run(lambda: small(config=None, speed=1.0)) is one


def test_another_cell_is_another_cluster(cell):
    assert cell.run(small) is not cell.run(small, "cell-2")


def test_two_clusters_of_one_cell_are_two(cell):
    one = cell.run(small)
    other = cell.again(small)
    assert one is not other
    assert cell.run(small) is one
    assert cell.again(small) is other


def test_other_arguments_replace_an_idle_cluster(cell):
    one = cell.run(small)
    other = cell.run(lambda: small(seed=5))
    assert other is not one
    assert one.closed
    assert not other.closed
    assert cell.run(lambda: small(seed=5)) is other


def test_a_busy_cluster_is_kept_and_the_way_out_is_named(cell):
    gate = threading.Event()
    one = cell.run(small)
    run = one.submit(lambda: gate.wait(SOON))
    with pytest.raises(af.Refused, match=r"still works on run-1.*replace=True"):
        cell.run(lambda: small(seed=5))
    assert not one.closed
    assert cell.run(small) is one, "with the same arguments it is handed back, busy or not"
    gate.set()
    assert run.result(timeout=SOON) is True
    assert cell.run(lambda: small(seed=5)) is not one


def test_replace_takes_the_place_of_a_busy_cluster(cell):
    one = cell.run(small)
    moment = threading.Event()

    def until_closed():
        while not one.closed:
            moment.wait(0.01)

    run = one.submit(until_closed)
    other = cell.run(lambda: small(replace=True))
    assert one.closed
    assert other is not one
    with pytest.raises(af.Closed):
        run.wait(SOON)
    assert cell.run(small) is other


def test_a_closed_cluster_is_made_anew(cell):
    one = cell.run(small)
    one.close()
    assert cell.run(small) is not one


def test_bad_arguments_leave_the_cluster_of_the_cell_alone(cell):
    one = cell.run(small)
    with pytest.raises(af.InvalidConfig):
        cell.run(lambda: small(speed=-1))
    with pytest.raises(TypeError):
        cell.run(lambda: small(colour="red"))
    assert not one.closed
    assert cell.run(small) is one


def test_a_name_is_known_in_every_cell_and_without_any(cell, monkeypatch):
    one = cell.run(lambda: small(name="mine"))
    assert cell.run(lambda: small(name="mine"), "cell-2") is one
    monkeypatch.delitem(sys.modules, "IPython")
    assert small(name="mine") is one


def test_in_a_script_every_call_makes_a_new_one(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    with small() as one, small() as other:
        assert one is not other


def test_a_shell_without_a_kernel_or_a_cell_id_is_no_notebook(cell):
    one = cell.run(small, cell_id=None)
    assert cell.run(small, cell_id=None) is not one
    cell.kernel = None
    assert cell.run(small) is not cell.run(small)
