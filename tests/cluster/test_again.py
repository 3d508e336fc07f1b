"""What a person does with a run after, or beside, its first end: again, onward, and let go."""

import threading

import pytest

import agentflow as af
from agentflow.cluster.unchanged import unchanged

SOON = 20.0


class Flaky:
    """Fails until it is mended."""

    def __init__(self):
        self.is_mended = False
        self.calls = []

    def __call__(self, name, *values):
        self.calls.append(name)
        if not self.is_mended and name == "b":
            raise ValueError("not yet")
        return name + "".join(values)


def chain(work):
    flow = af.Workflow("chain")
    a = flow.add(work, "a", id="a")
    b = flow.add(work, "b", a, id="b")
    flow.add(work, "c", b, id="c")
    return flow


# --- retry ------------------------------------------------------------------------------------------------------


def test_a_retry_goes_on_where_the_run_failed(sim):
    work = Flaky()
    run = sim.submit(chain(work)).wait()
    assert run.counts == {"COMPLETED": 1, "FAILED": 1, "SKIPPED": 1, "CANCELLED": 0, "unsettled": 0}
    work.is_mended = True
    assert run.retry() is run
    assert not run.done
    assert run.result() == "cba"
    assert work.calls == ["a", "b", "b", "c"]
    assert run.frames.errors().empty
    assert len(run.frames.attempts()) == 4
    assert not sim.check().violations()


def test_a_retry_of_everything_computes_everything(live):
    work = Flaky()
    work.is_mended = True
    run = live.submit(chain(work)).wait(SOON)
    assert run.retry(failed_only=False).result(timeout=SOON) == "cba"
    assert work.calls == ["a", "b", "c"] * 2
    assert list(run.as_completed(SOON)) == ["a", "b", "c"] * 2


def test_a_retry_where_nothing_failed_is_nothing(sim):
    run = sim.submit(pow, 2, 3).wait()
    assert run.retry().done


def test_a_retry_of_named_tasks_and_of_tasks_that_are_not_there(sim):
    work = Flaky()
    work.is_mended = True
    run = sim.submit(chain(work)).wait()
    assert run.retry(tasks=["b"]).result("b") == "ba"
    assert work.calls == ["a", "b", "c", "b"]
    with pytest.raises(af.NoSuchTask):
        run.retry(tasks=["z"])


def test_a_retry_survives_the_leader(sim):
    work = Flaky()
    run = sim.submit(chain(work)).wait()
    work.is_mended = True
    run.retry()
    sim.kill(sim.leader)
    assert run.result() == "cba"


# --- here, in this thread -----------------------------------------------------------------------------------------


def test_a_task_is_called_again_here_with_its_real_inputs(live):
    work = Flaky()
    run = live.submit(chain(work)).wait(SOON)
    with pytest.raises(ValueError, match="not yet"):
        run.rerun("b")
    work.is_mended = True
    assert run.rerun("b") == "ba"
    assert run.counts["FAILED"] == 1, "the run itself is as it was"
    with pytest.raises(af.Refused, match="'b' before it has no value"):
        run.rerun("c")


def test_debugging_opens_where_it_was_raised(live, monkeypatch):
    run = live.submit(chain(Flaky())).wait(SOON)
    seen = []
    monkeypatch.setattr("pdb.post_mortem", lambda tb: seen.append(tb))
    with pytest.raises(ValueError, match="not yet"):
        run.rerun("b", debug=True)
    last = seen[0]
    while last.tb_next is not None:
        last = last.tb_next
    assert last.tb_frame.f_code.co_name == "__call__"


def test_coroutines_and_items_of_a_late_map_are_called_here_too(sim):
    async def double(x):
        return 2 * x

    flow = af.Workflow("late")
    flow.map(double, flow.add(list, (1, 2), id="items"), id="doubled")
    run = sim.submit(flow)
    assert run.result() == [2, 4]
    assert run.rerun("doubled[1]") == 4
    assert run.rerun("doubled") == [2, 4]


# --- what is kept ---------------------------------------------------------------------------------------------------


def wide(sim, keep):
    flow = af.Workflow("sizes")
    a = flow.add(bytes, 1000, id="a")
    b = flow.add(bytearray, a, id="b")
    flow.add(len, b, id="c")
    return sim.submit(flow, keep=keep).wait()


@pytest.mark.parametrize(
    ("keep", "values"),
    [(None, "abc"), (True, "abc"), (False, "c"), ("a", "ac"), (["b"], "bc"), ([], "c")],
)
def test_keep_says_whose_values_stay(sim, keep, values):
    run = wide(sim, keep)
    there = {task for task in "abc" if not isinstance(run.results("return")[task], af.ObjectLost)}
    assert there == set(values)
    assert list(run.results("skip")) == list(values)


def test_a_value_that_went_says_how_to_get_it_and_that_works(sim):
    run = wide(sim, False)
    with pytest.raises(af.ObjectLost, match=r"retry\(tasks=\['b'\]\)"):
        run.result("b")
    assert run.retry(tasks=["c"]).wait().result("c") == 1000


def test_memory_counts_what_is_held_and_what_went(sim):
    wide(sim, True)
    wide(sim, False)
    memory = sim.memory()
    assert list(memory["values"]) == [3, 1]
    assert list(memory["released"]) == [0, 2]
    assert memory["bytes"][0] > 2000 > memory["bytes"][1] > 0
    before = len(sim._bench.objects)
    sim.runs["run-1"].release()
    assert before - len(sim._bench.objects) == 4, "three values and the calls"


def test_keeping_what_is_not_there_is_refused(sim):
    with pytest.raises(af.NoSuchTask, match="keep names 'z'"):
        sim.submit(chain(Flaky()), keep=["z"])
    with pytest.raises(af.InvalidConfig):
        sim.submit(chain(Flaky()), keep=7)


def test_a_value_that_left_the_store_is_computed_again(sim):
    work = Flaky()
    work.is_mended = True
    flow = chain(work)
    flow.add(work, "d", flow["a"], flow["b"], id="d", duration=5)
    run = sim.submit(flow)
    sim.run_until(lambda s: run.counts["COMPLETED"] == 3)
    for task in ("a", "b"):
        sim.discard(run.values_made()[task])
    assert run.result("d") == "daba"
    assert sorted(work.calls) == ["a", "a", "b", "b", "c", "d"]
    assert not sim.check().violations()


def test_a_result_that_is_too_large_is_refused_by_name():
    with af.Cluster(masters=1, workers=1, max_result_bytes=1000) as cluster:
        run = cluster.submit(bytes, 2000)
        with pytest.raises(af.TaskFailed, match="max_result_bytes is 1,000") as caught:
            run.result(timeout=SOON)
        assert isinstance(caught.value.__cause__, af.ResultTooLarge)
        assert cluster.submit(bytes, 200).result(timeout=SOON) == bytes(200)
    with pytest.raises(af.InvalidConfig):
        af.Cluster(max_result_bytes=-1)


# --- reuse ----------------------------------------------------------------------------------------------------------------


def numbers(calls, factor):
    def base():
        calls.append("base")
        return 10

    def scaled(value, by):
        calls.append("scaled")
        return value * by

    flow = af.Workflow("numbers")
    flow.add(scaled, flow.add(base, id="base"), factor, id="scaled")
    return flow


def test_reuse_takes_over_what_did_not_change(sim):
    flow = af.Workflow("one")
    calls = []
    base = flow.add(lambda: calls.append(1) or 10, id="base")
    flow.add(pow, base, 2, id="squared")
    first = sim.submit(flow)
    assert first.result() == 100
    again = sim.submit(flow, reuse=first)
    assert again.result() == 100
    assert calls == [1]
    assert again.frames.attempts().empty
    first.release()
    assert again.result("base") == 10, "what another run took over stays"
    assert not sim.check().violations()


def test_a_cell_run_again_makes_the_same_functions_and_other_arguments_other_tasks(sim):
    def flow(power):
        made = af.Workflow("cell")

        def base():
            return 10

        made.add(pow, made.add(base, id="base"), power, id="raised")
        return made

    assert list(unchanged(flow(2), flow(2))) == ["base", "raised"]
    assert list(unchanged(flow(2), flow(3))) == ["base"]
    first = sim.submit(flow(2)).wait()
    second = sim.submit(flow(3), reuse=first)
    assert second.result() == 1000
    assert list(second.frames.attempts()["task"]) == ["raised"]


def test_only_a_run_of_this_cluster_is_reused(sim):
    with pytest.raises(af.InvalidConfig, match="no run of this cluster"):
        sim.submit(pow, 2, 3, reuse="run-1")


# --- tasks that add tasks, and runs that feed runs --------------------------------------------------------------------------


def explore(depth):
    """A tree of tasks that nobody knew of before."""
    if not depth:
        return 1
    flow = af.Workflow("deeper")
    flow.add(sum, [flow.add(explore, depth - 1), flow.add(explore, depth - 1)], id="both")
    return flow


def test_a_task_that_returns_a_workflow_is_worth_what_that_is(sim):
    flow = af.Workflow("tree")
    root = flow.add(explore, 3, id="root")
    flow.add(str, root, id="shown")
    run = sim.submit(flow)
    assert run.result("shown") == "8"
    assert "root/explore/explore/both" in run.tasks
    assert not sim.check().violations()
    run.release()
    assert len(sim._bench.objects) == 0


def test_a_workflow_with_several_ends_is_a_dict_and_one_with_none_is_none(sim):
    def grow(*names):
        flow = af.Workflow("ends")
        for name in names:
            flow.add(str.upper, name, id=name)
        return flow

    def spread():
        flow = af.Workflow("map")
        flow.map(abs, [-1, -2], id="each")
        return flow

    def late():
        flow = af.Workflow("late")
        flow.map(abs, flow.add(list, (-3,), id="items"), id="each")
        return flow

    assert sim.submit(grow, "x", "y").result() == {"x": "X", "y": "Y"}
    assert sim.submit(grow).result() is None
    assert sim.submit(spread).result() == [1, 2]
    assert sim.submit(late).result() == [3]


def test_what_fails_in_an_added_task_is_named(live):
    def grow():
        flow = af.Workflow("bad")
        flow.add(int, "x", id="parse")
        return flow

    run = live.submit(grow)
    with pytest.raises(af.UpstreamFailed) as caught:
        run.result(timeout=SOON)
    assert caught.value.root == "grow/parse"
    with pytest.raises(ValueError, match="invalid literal"):
        raise caught.value.__cause__.__cause__


def test_a_workflow_that_cannot_be_fails_the_task_that_returned_it(live):
    run = live.submit(lambda: af.Workflow("bad", tasks=[("a", ["b"]), ("b", ["a"])]))
    with pytest.raises(af.TaskFailed, match="CycleInWorkflow"):
        run.result(timeout=SOON)


def test_a_run_is_the_input_of_another_before_and_after_its_end(live):
    gate = threading.Event()
    first = live.submit(lambda: gate.wait(SOON) and 20)
    flow = af.Workflow("second")
    flow.add(max, [first, 1, first.output()], id="top")
    flow.map(abs, live.submit(list, (-1, 2)), id="each")
    second = live.submit(flow)
    assert not second.done
    gate.set()
    assert second.result("top", timeout=SOON) == 20
    assert second.result("each", timeout=SOON) == [1, 2]
    third = af.Workflow("third")
    third.add(sum, live.map(abs, [-1, -2]))
    assert live.submit(third).result(timeout=SOON) == 3


def test_a_run_of_another_cluster_is_no_input(live, sim):
    flow = af.Workflow("strange")
    flow.add(abs, sim.submit(int, 1))
    with pytest.raises(af.InvalidConfig, match="another cluster"):
        live.submit(flow)


def test_a_run_that_failed_is_named_by_the_run_it_feeds(sim):
    first = sim.submit(int, "x")
    flow = af.Workflow("second")
    flow.add(abs, first, id="size")
    run = sim.submit(flow).wait()
    with pytest.raises(af.UpstreamFailed) as caught:
        run.result("size")
    assert caught.value.root == "run-1/int"
    assert "invalid literal" in str(caught.value.__cause__)


# --- cancelling -----------------------------------------------------------------------------------------------------------


def test_cancelling_names_the_functions_that_run_on(fresh, eventually):
    gate, begun = threading.Event(), threading.Event()

    def stuck():
        begun.set()
        gate.wait(SOON)

    flow = af.Workflow("stuck")
    flow.add(stuck, id="stuck")
    flow.add(pow, 2, 3, id="after", after=["stuck"])
    run = fresh.submit(flow)
    assert begun.wait(SOON)
    cancelled = run.cancel()
    assert cancelled == 2
    assert len(cancelled.still_running) == 1
    assert "'stuck' of run-1" in cancelled.still_running[0]
    assert "still running" in repr(cancelled)
    gate.set()
    assert eventually(lambda: not fresh._launcher.overdue)
    assert repr(run.cancel()) == "<0 tasks cancelled>"


def test_a_value_asked_for_after_release_is_told_by_the_name_of_its_task():
    with af.Cluster(masters=1, workers=1) as cluster:
        run = cluster.submit(pow, 2, 3).wait(60)
        run.release()
        with pytest.raises(af.ObjectLost, match="the value of 'pow' of run-1 is gone: the run was released"):
            run.result()
