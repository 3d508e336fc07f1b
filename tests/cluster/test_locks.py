"""Locks of a cluster: for a cell, around a task, in the tables; and what happens when a holder is gone."""

import os
import random
import threading
import time
from pathlib import Path

import pytest

import agentflow as af

SOON = 20.0


@pytest.fixture
def cluster():
    with af.Cluster(masters=3, workers=2, lock_ttl_secs=2) as cluster:
        yield cluster


class Track:
    """How many are inside at once, who was, and with which token."""

    def __init__(self):
        self.guard = threading.Lock()
        self.inside = self.most = 0
        self.tokens = []

    def visit(self):
        with self.guard:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.tokens.append(af.current_task().token)
        time.sleep(0.01)
        with self.guard:
            self.inside -= 1


def locked_flow(work, count, *, locks=("etl",), **options):
    flow = af.Workflow("locked")
    for i in range(count):
        flow.add(work, id=f"t{i}", locks=list(locks), **options)
    return flow


def count(run, state):
    return (run.frames.tasks()["state"] == state).sum()


# --- for a cell ---------------------------------------------------------------------------------------------


def test_a_cell_holds_a_lock_and_others_are_told_who_has_it(cluster):
    with cluster.lock("etl", {"why": "a test"}) as held:
        held.ensure_held()
        assert (held.key, held.owner, held.token) == ("etl", "notebook", 1)
        with pytest.raises(af.LockHeld, match="'etl' is held by notebook"), cluster.lock("etl"):
            pass
        with cluster.lock("other"):
            pass
    with cluster.lock("etl") as held:
        assert held.token == 2


def test_waiting_for_a_lock_has_a_limit_and_an_end(cluster):
    with cluster.lock("etl"):
        began = time.monotonic()
        with pytest.raises(af.LockHeld), cluster.lock("etl", max_duration=0.3):
            pass
        assert time.monotonic() - began >= 0.3
        got = []

        def wait():
            with cluster.lock("etl", max_duration=SOON) as held:
                got.append(held.token)

        other = threading.Thread(target=wait)
        other.start()
    other.join(SOON)
    assert got == [2]


def test_a_key_that_names_nothing_is_refused(cluster):
    for key in ("", "x" * 256, 7):
        with pytest.raises(af.InvalidConfig, match="a lock's key"):
            cluster.lock(key)
    with pytest.raises(af.InvalidConfig, match="locks of task 'lambda'"):
        cluster.submit(lambda: 1, locks=["x" * 256])


def test_the_table_of_locks_shows_cells_and_tasks(cluster):
    inside, go_on = threading.Event(), threading.Event()
    empty = cluster.frames.locks()
    assert list(empty.columns) == ["key", "owner", "token", "acquired_at", "expires_at", "metadata"]

    def work():
        inside.set()
        assert go_on.wait(SOON)

    with cluster.lock("a", {"n": 1}):
        run = cluster.submit(work, id="report", locks=["b"])
        assert inside.wait(SOON)
        frame = cluster.frames.locks()
        assert frame.dtypes.equals(empty.dtypes)
        go_on.set()
        run.wait(SOON)
    assert frame["key"].tolist() == ["a", "b"]
    assert frame["owner"].tolist() == ["notebook", frame["owner"][1]]
    assert frame["owner"][1] in cluster.workers
    assert frame["metadata"].tolist() == [{"n": 1}, {"run": run.id, "task": "report", "attempt": 1}]
    assert (frame["expires_at"] > frame["acquired_at"]).all()
    assert cluster.frames.locks().empty
    assert (
        "fencing token" in af.Cluster.frames.fget(cluster).docs("locks").set_index("column").meaning["token"]
    )


# --- around a task ------------------------------------------------------------------------------------------


def test_tasks_of_one_lock_run_one_at_a_time_each_with_a_larger_token(cluster):
    track = Track()
    assert count(cluster.submit(locked_flow(track.visit, 12)).wait(SOON), "COMPLETED") == 12
    assert track.most == 1
    assert track.tokens == list(range(1, 13))


def test_tasks_of_different_locks_run_side_by_side(cluster):
    together = threading.Barrier(3)
    flow = af.Workflow("apart")
    for i in range(3):
        flow.add(together.wait, SOON, id=f"t{i}", locks=[f"key-{i}"])
    assert count(cluster.submit(flow).wait(SOON), "COMPLETED") == 3


def test_several_locks_are_held_together_whatever_order_they_are_named_in(cluster):
    track, seen = Track(), []

    def both():
        task = af.current_task()
        seen.append(tuple(sorted(task.tokens)))
        with pytest.raises(af.InvalidConfig, match="declares 2 locks"):
            task.token  # noqa: B018
        task.ensure_held()
        with track.guard:
            track.inside += 1
            track.most = max(track.most, track.inside)
        time.sleep(0.01)
        with track.guard:
            track.inside -= 1

    flow = af.Workflow("both")
    for i in range(6):
        flow.add(both, id=f"t{i}", locks=["a", "b"] if i % 2 else ["b", "a", "b"])
    assert count(cluster.submit(flow).wait(SOON), "COMPLETED") == 6
    assert track.most == 1
    assert set(seen) == {("a", "b")}


def test_the_items_of_a_map_take_its_lock_one_by_one(cluster):
    track = Track()
    flow = af.Workflow("map")
    numbers = flow.add(lambda: [1, 2, 3], id="numbers")
    flow.map(lambda n: track.visit() or n * n, numbers, id="squares", locks="etl")
    assert cluster.submit(flow).result("squares", timeout=SOON) == [1, 4, 9]
    assert (track.most, track.tokens) == (1, [1, 2, 3])


def test_tasks_that_wait_for_a_lock_keep_nobody_from_working():
    """Even where there is one worker with one slot only."""
    with af.Cluster(masters=1, workers=0) as cluster:
        cluster.add_worker(max_tasks=1)
        with cluster.lock("etl"):
            waiting = cluster.submit(locked_flow(lambda: af.current_task().token, 8, priority="urgent"))
            others = cluster.map(abs, range(-20, 0))
            assert others.result(timeout=SOON) == list(range(20, 0, -1))
            assert count(waiting, "READY") >= 7
            assert not len(waiting.frames.attempts().dropna(subset="finished_s"))
        assert sorted(waiting.wait(SOON).results().values()) == list(range(2, 10))
        assert waiting.frames.attempts()["number"].tolist() == [1] * 8


def test_explain_says_who_holds_the_lock(cluster, eventually):
    inside, go_on = threading.Event(), threading.Event()

    def work():
        inside.set()
        assert go_on.wait(SOON)

    run = cluster.submit(locked_flow(work, 2))
    assert inside.wait(SOON)
    said = [cluster.explain(run, f"t{i}") for i in range(2)]
    assert any("for the lock 'etl': lock held by 't0' on worker-" in each for each in said)
    go_on.set()
    run.wait(SOON)
    with cluster.lock("etl"):
        run = cluster.submit(locked_flow(int, 1))
        assert eventually(lambda: "lock held by notebook (token 3)" in run.explain("t0"))
        assert "t0" in run.explain("t0")
    assert run.wait(SOON).explain("t0").startswith("'t0' completed")


def test_what_a_task_knows_of_itself(cluster):
    def facts():
        task = af.current_task()
        return task.run, task.task, task.number, task.worker, task.tokens, repr(task)

    assert af.current_task() is None
    run = cluster.submit(facts, id="plain")
    said = run.result(timeout=SOON)
    assert said[:3] == (run.id, "plain", 1)
    assert said[3] in cluster.workers
    assert said[4] == {}
    assert said[5] == f"<task 'plain' of {run.id}, try 1 on {said[3]}>"
    no_token = cluster.submit(lambda: af.current_task().token)
    with pytest.raises(af.TaskFailed, match="declares 0 locks"):
        no_token.result(timeout=SOON)


def test_a_task_run_again_by_hand_holds_its_locks(cluster):
    run = cluster.submit(lambda: (af.current_task().token, af.current_task().worker), id="t", locks=["etl"])
    assert run.result(timeout=SOON)[0] == 1
    assert run.rerun("t") == (2, "notebook")
    with cluster.lock("etl"), pytest.raises(af.LockHeld, match="held by notebook"):
        run.rerun("t")


def test_a_task_that_returns_a_workflow_gives_its_locks_back_first(cluster):
    track = Track()

    def grow():
        track.visit()
        return locked_flow(track.visit, 3)

    run = cluster.submit(grow, id="t", locks=["etl"]).wait(SOON)
    assert count(run, "COMPLETED") == 4
    assert (track.most, track.tokens) == (1, [1, 2, 3, 4])


async def wait_a_moment():
    import asyncio

    await asyncio.sleep(0.01)
    return af.current_task().token


def test_a_coroutine_has_its_token_too(cluster):
    assert cluster.submit(wait_a_moment, locks=["etl"]).result(timeout=SOON) == 1


def test_a_task_may_take_a_lock_by_itself(cluster):
    def work():
        with cluster.lock("inner") as held:
            return held.owner, held.token

    owner, token = cluster.submit(work).result(timeout=SOON)
    assert owner in cluster.workers
    assert token == 1


# --- holders that are gone ----------------------------------------------------------------------------------


def test_a_killed_workers_lock_runs_out_and_the_next_token_is_larger(cluster):
    account = af.FencedResource([], name="account")
    inside, go_on, late = threading.Event(), threading.Event(), []

    def work():
        task = af.current_task()
        if task.number == 1:
            inside.set()
            assert go_on.wait(SOON)  # the worker is dead by now, and this code does not know it
            try:
                account.write(["first"], task.token)
            except af.StaleToken as error:
                late.append(error)
            try:
                task.ensure_held()
            except af.LockLost as error:
                late.append(error)
            return task.token
        account.write(["second"], task.token)
        return task.token

    run = cluster.submit(work, id="t", locks=["etl"])
    assert inside.wait(SOON)
    began = time.monotonic()
    cluster.kill(cluster.frames.locks()["owner"][0])
    assert run.result(timeout=SOON) == 2
    assert time.monotonic() - began > 0.5, "a dead worker gives nothing back: its lease runs out"
    go_on.set()
    settled = time.monotonic() + SOON
    while len(late) < 2 and time.monotonic() < settled:
        time.sleep(0.01)
    assert [type(each) for each in late] == [af.StaleToken, af.LockLost]
    assert (account.read(), account.token) == (["second"], 2)


@pytest.mark.parametrize("seed", [1, 2])
def test_whoever_is_killed_the_accepted_tokens_never_decrease(seed):
    """Workers and leaders are killed while tasks write to a resource that checks tokens; all tasks end."""
    rng = random.Random(seed)
    account = af.FencedResource(0, name="account")
    accepted, guard = [], threading.Lock()

    def deposit():
        task = af.current_task()
        for _ in range(3):
            time.sleep(0.01)
            with guard:
                try:
                    account.change(lambda balance: balance + 1, task.token)
                except af.StaleToken:
                    continue
                accepted.append(task.token)
        return task.token

    with af.Cluster(masters=3, workers=3, lock_ttl_secs=0.5, codec_check=True) as cluster:
        run = cluster.submit(locked_flow(deposit, 25))
        for _ in range(4):
            time.sleep(0.3)
            holders = [each for each in cluster.frames.locks()["owner"] if each in cluster.workers]
            victim = rng.choice(holders or list(cluster.workers))
            cluster.kill(victim)
            if rng.random() < 0.5 and (leader := cluster.leader) is not None:
                cluster.kill(leader)
                cluster.restart(leader)
            cluster.restart(victim)
        tokens = list(run.wait(60).results(errors="return").values())
    assert count(run, "COMPLETED") + count(run, "FAILED") == 25
    done = [token for token in tokens if isinstance(token, int)]
    assert len(set(done)) == len(done) > 15
    assert accepted == sorted(accepted)


def test_a_lost_lock_fails_the_attempt(cluster, eventually):
    inside, go_on, told = threading.Event(), threading.Event(), []

    def work():
        inside.set()
        assert go_on.wait(SOON)
        try:
            af.current_task().ensure_held()
        except af.LockLost as error:
            told.append(error.token)
        return "made without the lock"

    run = cluster.submit(work, id="t", locks=["etl"])
    assert inside.wait(SOON)
    assert take_away(cluster, "etl")
    with pytest.raises(af.TaskFailed) as caught:
        run.result(timeout=SOON)
    assert isinstance(caught.value.__cause__, af.LockLost)
    assert "'etl' (token 1) was lost" in str(caught.value.__cause__)
    assert run.frames.attempts()["state"].tolist() == ["FAILED"]
    go_on.set()
    assert eventually(lambda: told == [1]), "the code that goes on is told when it asks"


def test_a_lost_lock_is_tried_again_where_the_task_may_be(cluster):
    inside = threading.Event()

    def work():
        task = af.current_task()
        if task.number == 1:
            inside.set()
            time.sleep(1.0)
        return task.token

    run = cluster.submit(work, id="t", locks=["etl"], retries=1)
    assert inside.wait(SOON)
    assert take_away(cluster, "etl")
    assert run.result(timeout=SOON) == 3, "the token went up when it was taken away, and with the new holder"


def test_a_loss_that_nobody_noticed_still_fails_the_attempt():
    """The renewal comes every third of the ttl; the work ended before."""
    with af.Cluster(masters=1, workers=1, lock_ttl_secs=60) as cluster:
        run = cluster.submit(lambda: take_away(cluster, "etl"), id="t", locks=["etl"])
        with pytest.raises(af.TaskFailed, match="it was gone when it was to be released"):
            run.result(timeout=SOON)


def test_an_error_of_the_task_is_not_hidden_by_the_loss():
    with af.Cluster(masters=1, workers=1, lock_ttl_secs=60) as cluster:

        def work():
            take_away(cluster, "etl")
            raise ValueError("mine")

        with pytest.raises(af.TaskFailed) as caught:
            cluster.submit(work, locks=["etl"]).result(timeout=SOON)
        assert isinstance(caught.value.__cause__, ValueError)
        assert "was lost" in str(caught.value.__cause__.__notes__)


def take_away(cluster, key):
    import asyncio

    return asyncio.run(cluster._locks._opened().force_release(key, "a test"))


def test_an_abandoned_task_keeps_its_lock_while_its_code_runs(cluster, eventually):
    """A thread cannot be stopped: until it ends nobody else may believe that the lock is free."""
    inside, go_on = threading.Event(), threading.Event()

    def work():
        inside.set()
        assert go_on.wait(SOON)

    run = cluster.submit(work, id="t", locks=["etl"])
    assert inside.wait(SOON)
    run.cancel()
    other = cluster.submit(locked_flow(lambda: af.current_task().token, 1))
    assert eventually(lambda: "lock held by worker-" in other.explain("t0"))
    go_on.set()
    assert other.result("t0", timeout=SOON) == 2


def test_a_run_that_waits_for_a_lock_can_be_cancelled(cluster):
    with cluster.lock("etl"):
        run = cluster.submit(locked_flow(int, 3))
        time.sleep(0.4)
        assert run.cancel() == 3
        assert count(run.wait(SOON), "CANCELLED") == 3
    with cluster.lock("etl", max_duration=SOON) as held:
        assert held.token == 2, "nobody took it in between"


# --- the database -------------------------------------------------------------------------------------------


def test_clusters_that_name_one_database_exclude_each_other(tmp_path, eventually):
    url = f"sqlite:///{tmp_path}/locks.db"
    with (
        af.Cluster(masters=1, workers=1, locks=url) as one,
        af.Cluster(masters=1, workers=1, locks=url) as two,
    ):
        with one.lock("etl"):
            run = two.submit(locked_flow(lambda: af.current_task().token, 1))
            assert eventually(lambda: "lock held by notebook" in run.explain("t0"))
            assert two.frames.locks()["key"].tolist() == ["etl"]
        assert run.result("t0", timeout=SOON) == 2
    assert (tmp_path / "locks.db").exists(), "a database that the user named is the user's"


def test_the_clusters_own_file_goes_with_it_and_is_not_made_before_it_is_wanted():
    with af.Cluster(masters=1, workers=1) as cluster:
        assert cluster._locks._folder is None
        assert cluster.frames.locks().empty
        with cluster.lock("etl"):
            folder = cluster._locks._folder
            assert os.listdir(folder)
    assert not Path(folder).exists()
    assert cluster.frames.locks().empty
    with pytest.raises(af.Closed):
        cluster.lock("etl")


def test_a_lock_held_when_the_cluster_closes_is_given_back(tmp_path):
    url = f"sqlite:///{tmp_path}/locks.db"
    cluster = af.Cluster(masters=1, workers=1, locks=url)
    held = cluster.lock("etl")
    held.__enter__()
    cluster.close()
    with af.Cluster(masters=1, workers=1, locks=url) as other, other.lock("etl") as next_one:
        assert next_one.token == 2
    held.__exit__(None, None, None)


def test_a_function_left_running_keeps_its_lock_until_it_runs_out(tmp_path):
    url = f"sqlite:///{tmp_path}/locks.db"
    inside, go_on = threading.Event(), threading.Event()

    def work():
        inside.set()
        assert go_on.wait(SOON)

    cluster = af.Cluster(masters=1, workers=1, locks=url, lock_ttl_secs=4)
    cluster.submit(work, locks=["etl"])
    assert inside.wait(SOON)
    with pytest.warns(af.LeftRunning):
        cluster.close()
    with af.Cluster(masters=1, workers=1, locks=url) as other:
        with pytest.raises(af.LockHeld, match="held by worker-1"), other.lock("etl"):
            pass
        with other.lock("etl", max_duration=SOON) as held:
            assert held.token == 2
    go_on.set()


def test_a_database_that_cannot_be_is_refused_when_the_cluster_is_made():
    for url, said in (("nonsense", "named by a URL"), ("oracle://x", "no database 'oracle'")):
        with pytest.raises(af.InvalidConfig, match=said):
            af.Cluster(masters=1, workers=1, locks=url)
    with pytest.raises(af.InvalidConfig, match="lock_ttl_secs"):
        af.Cluster(masters=1, workers=1, lock_ttl_secs=0)


def test_a_database_that_fails_later_fails_the_task_and_says_why(tmp_path):
    """What no retry of ours can mend is the task's error; it is not asked for again and again."""
    with af.Cluster(masters=1, workers=1, locks=f"sqlite:///{tmp_path}/no/such/folder/locks.db") as cluster:
        with pytest.raises(af.InvalidConfig, match="cannot be opened"):
            cluster.lock("etl")
        with pytest.raises(af.TaskFailed, match="cannot be opened"):
            cluster.submit(int, locks=["etl"]).result(timeout=SOON)


def test_a_database_that_is_busy_delays_the_task_and_fails_nothing(tmp_path, eventually):
    import sqlite3

    path = tmp_path / "locks.db"
    with af.Cluster(masters=1, workers=1, locks=f"sqlite:///{path}") as cluster:
        with cluster.lock("warm-up"):
            pass
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        run = cluster.submit(locked_flow(lambda: af.current_task().token, 1))
        assert eventually(lambda: "whether it is free is not known" in run.explain("t0"))
        blocker.execute("ROLLBACK")
        blocker.close()
        assert run.result("t0", timeout=SOON) == 1


# --- elsewhere ----------------------------------------------------------------------------------------------


def token_elsewhere():
    import agentflow

    task = agentflow.current_task()
    task.ensure_held()
    return os.getpid(), task.token, task.task


def linger(path):
    Path(path).write_text("here")
    time.sleep(30)


def test_a_task_in_another_process_has_its_token_and_is_ended_when_its_lock_is_lost(tmp_path, eventually):
    with af.Cluster(masters=1, workers=1, executor="processes", lock_ttl_secs=1.5) as cluster:
        pid, token, task = cluster.submit(token_elsewhere, id="t", locks=["etl"]).result(timeout=60)
        assert pid != os.getpid()
        assert (token, task) == (1, "t")
        sign = tmp_path / "sign"
        run = cluster.submit(linger, str(sign), locks=["etl"])
        assert eventually(sign.exists, 60)
        began = time.monotonic()
        assert take_away(cluster, "etl")
        with pytest.raises(af.TaskFailed, match="was lost"):
            run.result(timeout=SOON)
        assert time.monotonic() - began < 15


def test_a_simulation_has_no_locks_and_says_so(sim):
    with pytest.raises(af.InvalidConfig, match="a simulation has no locks"):
        sim.lock("etl")
    with pytest.raises(af.InvalidConfig, match="'t0' declares locks, and a simulation has no locks"):
        sim.submit(locked_flow(int, 1))
    assert sim.frames.locks().empty
    grown = sim.submit(lambda: locked_flow(int, 1), id="grow")
    with pytest.raises(af.UpstreamFailed):
        grown.result("grow")
    assert "a simulation has no locks" in grown.frames.errors()["message"][0]
