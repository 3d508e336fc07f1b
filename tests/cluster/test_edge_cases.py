"""Forty edge cases that an engine for graphs of tasks is asked about, by number.

Where another file has the long test of a case, this one has the short one. For later, with the parts they
need: the child tree of a killed process and workers over TCP (24, in part), a log on a disk that was written
in part (39, in part: `tests/storage` has the disk, `tests/core/raft/test_durability.py` the restart), and the
notebook's own (40: `tests/notebook*` have widgets, headless runs and long tables).
"""

import random
import threading

import pytest

import agentflow as af
from agentflow.core.control.commands import AttemptState, decode
from agentflow.core.control.image import load, save
from agentflow.core.control.plane import POISON_DEATHS, Plane

SOON = 20.0


class Unpicklable(Exception):
    def __init__(self, a, b):
        super().__init__("two arguments, one message")
        self.held = threading.Lock()


def fail(*_):
    raise ValueError("boom")


def graph(tasks):
    return af.Workflow("graph", tasks=tasks)


def kill(sim, node):
    sim.kill(node)
    sim.run_for(3)
    sim.restart(node)
    assert sim.run_until(lambda s: s.leader, limit=60)


# --- graph: 1 to 11 ---------------------------------------------------------------------------------------------


def test_01_an_empty_graph_is_done(sim):
    assert sim.submit(graph([])).wait().results() == {}


def test_02_an_isolated_task_runs_beside_the_rest(sim):
    run = sim.submit(graph([("a", []), ("b", ["a"]), ("alone", [])])).wait()
    assert run.counts["COMPLETED"] == 3


def test_03_a_diamond_runs_its_top_once(sim):
    tops = []
    flow = af.Workflow("diamond")
    top = flow.add(lambda: tops.append(1), id="top")
    flow.add(lambda *_: None, flow.add(abs, -1, after=[top]), flow.add(abs, -2, after=[top]))
    assert sim.submit(flow).wait().ok
    assert tops == [1]


def test_04_a_fan_of_ten_thousand_out_and_in(live):
    flow = af.Workflow("fan")
    source = flow.add(int, id="source")
    flow.add(len, flow.map(lambda i, _: i, range(10_000), source), id="sink")
    assert live.submit(flow).result("sink", timeout=60) == 10_000


def test_05_a_chain_of_ten_thousand_needs_no_recursion(live):
    tasks = [("t0", []), *((f"t{i}", [f"t{i - 1}"]) for i in range(1, 10_000))]
    run = live.submit(graph(tasks))
    assert run.wait(90).ok


def test_06_a_circle_is_refused_and_named(sim):
    with pytest.raises(af.CycleInWorkflow) as caught:
        sim.submit(graph([("a", ["c"]), ("b", ["a"]), ("c", ["b"]), ("d", [])]))
    assert set(caught.value.cycle) == {"a", "b", "c"}


def test_07_a_task_that_waits_for_itself_is_a_circle(sim):
    with pytest.raises(af.CycleInWorkflow) as caught:
        sim.submit(graph([("a", ["a"])]))
    assert set(caught.value.cycle) == {"a"}


def test_08_a_dependency_that_is_not_there_is_refused_and_named(sim):
    with pytest.raises(af.MissingDependency) as caught:
        sim.submit(graph([("a", ["ghost"])]))
    assert (caught.value.task, caught.value.dependency) == ("a", "ghost")


def test_09_an_id_twice_in_a_flow_is_refused_and_in_two_runs_is_not(sim):
    with pytest.raises(af.DuplicateTask):
        graph([("a", []), ("a", [])])
    first, second = sim.submit(graph([("a", [])])), sim.submit(graph([("a", [])]))
    assert first.wait().ok
    assert second.wait().ok


def test_10_an_edge_twice_counts_once_and_order_of_writing_does_not_matter(sim):
    assert sim.submit(graph([("b", ["a", "a"]), ("a", [])])).wait().ok


def test_11_a_task_adds_tasks_and_a_run_feeds_a_run(sim):
    def grow():
        flow = af.Workflow("grown")
        flow.add(pow, 2, 5)
        return flow

    first = sim.submit(grow)
    flow = af.Workflow("next")
    flow.add(abs, first)
    assert sim.submit(flow).result() == 32


# --- failure: 12 to 15 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "state"),
    [
        ("all_success", "SKIPPED"),
        ("all_done", "COMPLETED"),
        ("all_failed", "SKIPPED"),
        ("one_success", "COMPLETED"),
        ("one_failed", "COMPLETED"),
        ("none_failed", "SKIPPED"),
        ("always", "COMPLETED"),
    ],
)
def test_12_each_rule_after_one_failure_and_one_success(sim, rule, state):
    flow = af.Workflow("rules")
    bad, good = flow.add(fail, id="bad"), flow.add(abs, -1, id="good")
    flow.add(int, id="after", after=[bad, good], when=rule)
    run = sim.submit(flow).wait()
    assert run.frames.tasks().set_index("task")["state"]["after"] == state


def test_12_parents_that_were_skipped_and_that_failed(sim):
    flow = af.Workflow("mixed")
    good, bad = flow.add(abs, -1, id="good"), flow.add(fail, id="bad")
    unmet = flow.add(int, id="unmet", after=[good], when="one_failed")
    flow.add(int, id="fine", after=[unmet, good], when="none_failed")
    flow.add(int, id="not", after=[unmet, bad], when="none_failed")
    states = sim.submit(flow).wait().frames.tasks().set_index("task")["state"]
    assert (states["unmet"], states["fine"], states["not"]) == ("SKIPPED", "COMPLETED", "SKIPPED")


def test_13_the_root_is_named_through_three_levels(sim):
    flow = af.Workflow("deep")
    last = flow.add(fail, id="root")
    for i in range(3):
        last = flow.add(abs, last, id=f"after{i}")
    with pytest.raises(af.UpstreamFailed) as caught:
        sim.submit(flow).result("after2")
    assert caught.value.root == "root"


def test_14_cancelled_while_queued_running_finished_and_twice_and_submitted_again(sim):
    flow = af.Workflow("long")
    flow.add(abs, -1, id="done", duration=0.1)
    for i in range(12):
        flow.add(abs, -1, id=f"t{i}", duration=60, resources={"cpu": 2})
    run = sim.submit(flow, idempotency_key="one")
    sim.run_until(lambda s: run.counts["COMPLETED"] == 1)
    assert run.cancel() == 12
    assert run.cancel() == 0
    assert run.result("done") == 1
    with pytest.raises(af.TaskCancelled):
        run.result("t0")
    assert all(worker.free == worker.total for worker in sim.plane().workers.values())
    assert sim.submit(flow, idempotency_key="two").wait().ok


def test_14_what_waits_for_a_cancelled_task_says_so(sim):
    run = sim.submit(graph([("a", []), ("b", ["a"])]))
    run.cancel()
    with pytest.raises(af.TaskCancelled):
        run.result("b")


@pytest.mark.parametrize("failing", [0, 1, 9])
def test_15_failures_none_one_and_many_stop_only_what_needs_them(sim, failing):
    flow = af.Workflow("some")
    for i in range(10):
        flow.add(abs, flow.add(fail if i < failing else int, id=f"a{i}"), id=f"b{i}")
    counts = sim.submit(flow).wait().counts
    assert (counts["FAILED"], counts["SKIPPED"], counts["COMPLETED"]) == (failing, failing, 20 - 2 * failing)


# --- exceptions and values: 16 to 20 --------------------------------------------------------------------------------


def test_16_an_exception_that_cannot_travel_is_reported_all_the_same(live):
    def bad():
        raise Unpicklable(1, 2)

    with pytest.raises(af.TaskFailed, match="two arguments, one message"):
        live.submit(bad).result(timeout=SOON)


def test_17_what_cannot_be_pickled_is_passed_by_reference_among_threads(live):
    lock = threading.Lock()
    assert live.submit(lambda given: (given, lock), lock).result(timeout=SOON) == (lock, lock)


def test_18_a_huge_error_is_cut(sim):
    def bad():
        raise ValueError("x" * 10_000_000)

    with pytest.raises(af.TaskFailed) as caught:
        sim.submit(bad).result()
    assert len(str(caught.value)) < 100_000


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_19_whatever_a_task_raises_ends_the_task_alone(live, error):
    def bad():
        raise error

    with pytest.raises(af.TaskFailed):
        live.submit(bad).result(timeout=SOON)
    assert live.submit(abs, -1).result(timeout=SOON) == 1


def test_20_none_is_a_result_and_a_large_one_is_not_in_the_log(sim):
    assert sim.submit(int.__class__, None).wait().ok
    assert sim.submit(lambda: None).result() is None
    assert len(sim.submit(bytes, 5_000_000).result()) == 5_000_000
    log = sim._deployment.master(sim.leader).raft.log
    assert sum(len(entry.data) for entry in log.entries(log.first, log.last + 1)) < 10_000


# --- retries and time: 21 to 25 ---------------------------------------------------------------------------------------


def test_21_exhausted_retries_keep_every_error(sim):
    errors = iter(["one", "two", "three"])

    def bad():
        raise ValueError(next(errors))

    run = sim.submit(bad, retries=2).wait()
    assert list(run.frames.attempts()["error"]) == ["ValueError: one", "ValueError: two", "ValueError: three"]


def test_22_a_back_off_is_exact_and_outlives_the_leader(sim):
    backoff = af.Backoff(base_secs=4, factor=2, max_secs=6)
    run = sim.submit(fail, retries=2, backoff=backoff, duration=0)
    sim.run_for(2)
    sim.kill(sim.leader)
    run.wait(60)
    rows = run.frames.attempts()
    gaps = [b - a for a, b in zip(rows["finished_s"], rows["started_s"][1:], strict=False)]
    assert gaps == pytest.approx([4, 6], abs=0.8)
    assert min(gaps) >= 4


def test_23_a_retry_handler_that_raises_ends_the_task(sim):
    run = sim.submit(fail, retries=5, retry_on=lambda error: 1 / 0).wait()
    assert len(run.frames.attempts()) == 1


def test_24_a_thread_past_its_timeout_is_counted_replaced_and_its_result_refused(eventually):
    gate = threading.Event()
    with af.Cluster(masters=1, workers=1) as cluster:
        run = cluster.submit(lambda: gate.wait(SOON), timeout=0.2)
        with pytest.raises(af.TaskFailed, match=r"timeout of 0\.2 s"):
            run.result(timeout=SOON)
        assert eventually(lambda: "cannot be stopped" in cluster.diagnose())
        assert cluster.map(abs, range(8)).result(timeout=SOON) == list(range(8))
        gate.set()
        assert eventually(lambda: "cannot be stopped" not in cluster.diagnose())
        assert run.counts["FAILED"] == 1


def test_25_the_planes_time_never_goes_back():
    plane = Plane()
    from agentflow.core.control.commands import Batch

    for at in (5.0, 3.0, 9.0, 8.0):
        plane.apply(Batch(at))
    assert plane.at == 9.0


def test_25_a_leap_between_leaders_clocks_moves_no_deadline_back(sim):
    follower = next(node for node in sim.masters if node != sim.leader)
    sim.skew(follower, offset=-100.0)
    run = sim.submit(fail, retries=1, backoff=af.Backoff(base_secs=5), duration=0)
    sim.run_for(1)
    before = sim.plane().at
    sim.transfer_leadership(follower)
    sim.run_for(1)
    assert sim.plane().at >= before
    assert run.wait(300).counts["FAILED"] == 1


# --- priority: 26 to 30 --------------------------------------------------------------------------------------------------


def order_of(run):
    return list(run.frames.attempts().sort_values("attempt")["task"])


@pytest.fixture
def narrow():
    sim = af.Simulation(masters=3, workers=0, seed=3, config=af.RaftConfig.fast())
    sim.run_until(lambda s: s.leader)
    return sim


def test_26_of_equal_age_the_higher_priority_goes_first(narrow):
    flow = af.Workflow("levels")
    for name in ("low", "urgent", "medium", "high"):
        flow.add(int, id=name, priority=name)
    run = narrow.submit(flow)
    narrow.add_worker(max_tasks=1)
    assert order_of(run.wait()) == ["urgent", "high", "medium", "low"]


def test_27_a_low_task_is_overtaken_by_urgent_ones_of_its_first_75_seconds_only(narrow):
    low = narrow.submit(int, priority="low")
    early = narrow.submit(int, priority="urgent")
    narrow.run_for(76)
    late = narrow.submit(int, priority="urgent")
    narrow.add_worker(max_tasks=1)
    for run in (low, early, late):
        run.wait()
    rank = narrow.frames.attempts().sort_values("attempt")["run"]
    assert list(rank) == [early.id, low.id, late.id]


def test_28_an_urgent_task_lends_its_priority_to_what_it_waits_for(narrow):
    flow = af.Workflow("inversion")
    for i in range(3):
        flow.add(int, id=f"medium{i}")
    flow.add(int, id="urgent", after=[flow.add(int, id="low", priority="low")], priority="urgent")
    run = narrow.submit(flow)
    narrow.add_worker(max_tasks=1)
    assert order_of(run.wait())[:2] == ["low", "urgent"]


def test_29_a_retry_waits_behind_and_never_for_ever(narrow):
    flow = af.Workflow("penalty")
    flow.add(fail, id="failing", retries=4, duration=1)
    for i in range(20):
        flow.add(int, id=f"t{i}", duration=1)
    run = narrow.submit(flow)
    narrow.add_worker(max_tasks=1)
    order = order_of(run.wait(300))
    assert order.count("failing") == 5
    assert order[-1] != "failing" or order.index("failing") == 0


def test_30_what_nobody_can_run_blocks_nobody_and_says_what_is_missing(sim):
    flow = af.Workflow("greedy")
    flow.add(int, id="impossible", resources={"gpu": 99}, priority="urgent")
    flow.add(int, id="nowhere", group="moon", priority="urgent")
    flow.add(int, id="possible", priority="low")
    run = sim.submit(flow)
    assert run.result("possible") == 0
    assert "gpu=99" in run.explain("impossible")
    assert "group 'moon'" in run.explain("nowhere")
    sim.run_for(10)
    assert "gpu=99" in sim.diagnose() or "'moon'" in sim.diagnose()


def test_30_a_large_task_is_not_starved_by_many_small_ones(narrow):
    narrow.add_worker(max_tasks=8, gpu_count=4)
    narrow.run_for(2)
    flow = af.Workflow("fragments")
    # A piece comes free every second; without a reservation another small task would have it at once.
    for i in range(120):
        flow.add(int, id=f"small{i}", resources={"gpu": 1}, duration=3 + i % 4)
    flow.add(int, id="big", resources={"gpu": 4}, duration=1, priority="high")
    run = narrow.submit(flow)
    run.wait(2000)
    rank = order_of(run).index("big")
    assert rank < 20


# --- workers: 31 to 36 -----------------------------------------------------------------------------------------------------


def test_31_a_worker_that_dies_in_a_task_costs_one_more_attempt(sim):
    run = sim.submit(int, duration=5)
    sim.run_for(1)
    (live,) = sim.plane().live.values()
    sim.kill(live.worker.id)
    run.wait(60)
    assert list(run.frames.attempts()["state"]) == ["LOST", "COMPLETED"]
    assert list(run.frames.attempts()["number"]) == [1, 2]


def test_32_a_poison_task_is_failed_and_innocents_beside_it_are_not(sim):
    flow = af.Workflow("poison")
    flow.add(int, id="poison", duration=50, retries=9)
    flow.add(int, id="innocent", duration=3)
    run = sim.submit(flow)
    for death in range(1, POISON_DEATHS + 1):
        assert sim.run_until(lambda s: any(not each.task for each in s.plane().live.values()), limit=60)
        (worker,) = [each.worker.id for each in sim.plane().live.values() if not each.task]
        sim.kill(worker)
        counted = sim.run_until(lambda s, n=death: s.plane().runs[run.id].deaths.get(0) == n, limit=60)
        assert counted
        sim.restart(worker)
    run.wait(200)
    assert run.result("innocent") == 0
    with pytest.raises(af.TaskFailed, match="3 workers died"):
        run.result("poison")


def test_33_a_worker_that_dies_between_finish_and_report_is_run_again(sim):
    run = sim.submit(int, duration=1)
    sim.run_until(lambda s: s.plane().live)
    (live,) = sim.plane().live.values()
    others = {node for node in (*sim.masters, *sim.workers) if node != live.worker.id}
    sim.partition({live.worker.id}, others)
    sim.run_for(1.5)  # it has finished, and nobody heard
    sim.kill(live.worker.id)
    sim.heal()
    assert run.wait(60).ok
    assert list(run.frames.attempts()["state"]) == ["LOST", "COMPLETED"]


def test_33_a_worker_that_never_beat_is_given_nothing_for_long(sim):
    new = sim.add_worker(max_tasks=50)
    assert sim.run_until(lambda s: new.id in s.plane().workers)
    sim.kill(new.id)
    flow = af.Workflow("many")
    flow.map(abs, range(20), duration=1)
    assert sim.submit(flow).result() == list(range(20))


def test_34_a_late_completion_from_a_worker_declared_dead_is_refused(sim):
    run = sim.submit(int, duration=1)
    sim.run_until(lambda s: s.plane().live)
    (live,) = sim.plane().live.values()
    sim.pause(live.worker.id)
    assert run.wait(60).ok
    sim.resume(live.worker.id)
    sim.run_for(5)
    applied = [row for row in sim.plane().runs[run.id].history if row.state is AttemptState.COMPLETED]
    assert len(applied) == 1
    assert applied[0].worker != live.worker.id


@pytest.mark.parametrize("how", ["pause", "partition"])
def test_35_a_worker_that_was_away_for_a_while_works_again(sim, how):
    worker = next(iter(sim.workers))
    if how == "pause":
        sim.pause(worker)
    else:
        sim.partition({worker}, {node for node in (*sim.masters, *sim.workers) if node != worker})
    sim.run_for(6)
    assert not sim.plane().workers[worker].alive
    sim.resume(worker) if how == "pause" else sim.heal()
    assert sim.run_until(lambda s: s.plane().workers[worker].alive, limit=30)
    flow = af.Workflow("wide")
    flow.map(abs, range(16), duration=1)
    run = sim.submit(flow).wait()
    assert worker in set(run.frames.attempts()["worker"])


def test_36_draining_finishes_what_runs_and_takes_nothing_new(sim):
    run = sim.submit(graph([(f"t{i}", []) for i in range(8)]))
    sim.run_until(lambda s: len(s.plane().live) == 8)
    sim.remove_worker("worker-1")
    assert set(run.wait().frames.attempts()["state"]) == {"COMPLETED"}


def test_36_the_last_worker_of_a_group_leaves_and_another_comes(sim):
    gpu = sim.add_worker("gpu")
    assert sim.run_until(lambda s: gpu.id in s.plane().workers)
    sim.remove_worker(gpu)
    run = sim.submit(int, group="gpu")
    sim.run_for(5)
    assert "group 'gpu'" in run.explain("int")
    sim.add_worker("gpu")
    assert run.result() == 0


# --- masters: 37 to 39 -----------------------------------------------------------------------------------------------------


STEPS = {
    "accept": ("deliver", "Ask"),
    "append": ("persist", ""),
    "commit": ("persisted", ""),
    "dispatch": ("assign", ""),
    "complete": ("deliver", "Report"),
    "acknowledge": ("send", "Orders"),
    "tell": ("send", "Progress"),
}


@pytest.mark.parametrize("victim", ["leader", "worker"])
@pytest.mark.parametrize(
    ("step", "nth"), [(step, nth) for step in STEPS for nth in (1, 7) if (step, nth) != ("accept", 7)]
)
def test_37_a_death_at_each_step_loses_nothing_and_doubles_nothing(step, victim, nth):
    kind, word = STEPS[step]
    sim = af.Simulation(masters=3, workers=3, seed=37 + nth, config=af.RaftConfig.fast())
    sim.run_until(lambda s: s.leader and len(s.plane().workers) == 3)
    rng = random.Random(f"{step}/{nth}")
    flow, handles = af.Workflow("random"), []
    for i in range(30):
        before = rng.sample(handles, min(len(handles), rng.choice((0, 1, 2))))
        handles.append(
            flow.add(lambda *v, i=i: i + sum(v), *before, id=f"t{i}", duration=rng.uniform(0.02, 0.3))
        )
    leader = sim.leader
    since = sim.trace.next

    def met(s):
        nonlocal since
        seen = [
            r for r in s.trace.since(since) if r.node == leader and r.kind == kind and r.type.startswith(word)
        ]
        return len(seen) >= nth

    victims = []

    def strike(s):
        if not victims and met(s):
            victims.append(leader if victim == "leader" else rng.choice(sorted(s.workers)))
            s.kill(victims[0])
        return bool(victims)

    run = sim.submit(flow, idempotency_key="once")
    sim.run_until(strike, limit=30)
    assert victims, f"the step {step} was reached {nth} times"
    sim.run_for(3)
    sim.restart(victims[0])
    run.wait(200)
    assert sim.submit(flow, idempotency_key="once") is run, "asked again, it is the same run"
    expected = []
    for i in range(30):
        before = [int(task[1:]) for task in flow.tasks[f"t{i}"].dependencies]
        expected.append(i + sum(expected[each] for each in before))
    assert list(run.results().values()) == expected
    sim.run_for(3)
    assert not sim.check().violations()


def test_38_a_leader_cut_off_is_obeyed_by_nobody_and_refuses_what_it_cannot_keep(sim):
    old = sim.leader
    rest = {node for node in (*sim.masters, *sim.workers, "notebook") if node != old}
    sim.partition({old}, rest)
    assert sim.run_until(lambda s: s.leader not in (None, old), limit=30)
    run = sim.submit(int)
    assert run.result() == 0
    assert sim._deployment.master(old).raft.commit < sim._deployment.master(sim.leader).raft.commit
    sim.heal()
    others = set(sim.masters)
    sim.run_for(3)
    sim.partition(*({node} for node in others))
    with pytest.raises((af.NoQuorum, af.Unknown)) as caught:
        sim.submit(int)
    assert "may have taken effect" in str(caught.value) or isinstance(caught.value, af.NoQuorum)
    sim.heal()
    assert sim.run_until(lambda s: s.leader, limit=30)
    assert not sim.check().violations()


def test_39_a_snapshot_and_the_rest_of_the_log_give_what_the_whole_log_gives(sim):
    run = sim.submit(graph([("a", []), ("b", ["a"]), ("c", ["a"])])).wait()
    assert run.ok
    machine = sim._deployment.master(sim.leader)
    batches = [decode(e.data) for e in machine.raft.log.entries(1, machine.raft.applied + 1) if e.data]
    for cut in range(len(batches) + 1):
        plane = Plane()
        for batch in batches[:cut]:
            plane.apply(batch)
        plane = load(save(load(save(plane))))
        for batch in batches[cut:]:
            plane.apply(batch)
        assert save(plane) == save(machine.plane)


def test_39_every_master_restarts_in_the_middle_twice(sim):
    flow = af.Workflow("long")
    flow.map(abs, range(30), duration=1)
    run = sim.submit(flow)
    for _ in range(2):
        sim.run_for(1)
        for master in sim.masters:
            sim.kill(master)
        for master in sim.masters:
            sim.restart(master)
        assert sim.run_until(lambda s: s.leader, limit=60)
    assert run.result() == list(range(30))
    assert not sim.check().violations()


# --- the notebook: 40 ---------------------------------------------------------------------------------------------------------


def test_40_a_cell_run_twice_makes_one_run_of_one_key(live):
    flow = graph([("a", [])])
    assert live.submit(flow, idempotency_key="cell") is live.submit(flow, idempotency_key="cell")


def test_40_two_runs_are_waited_for_at_once_and_nothing_is_printed_here(fresh, capsys):
    runs = [fresh.submit(print, f"run {i}") for i in range(2)]
    for run in runs:
        assert run.wait(SOON).ok
    assert capsys.readouterr().out == ""
    assert [run.frames.attempts()["stdout"][0] for run in runs] == ["run 0\n", "run 1\n"]
