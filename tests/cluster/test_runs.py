"""A run: waiting for it, its results, its failures, and what one does with it."""

import asyncio
import gc
import signal
import threading
import weakref

import pandas as pd
import pytest

import agentflow as af

SOON = 20.0


def boom(*_):
    raise ValueError("boom")


def identity(*values):
    return values


class Heavy:
    """Something that a test can see go."""


def diamond(middle=boom, when="all_success", **options):
    flow = af.Workflow("diamond")
    top = flow.add(int, 1, id="top")
    left = flow.add(middle, top, id="left", **options)
    right = flow.add(int, top, id="right")
    flow.add(identity, left, right, id="end", when=when)
    return flow


# --- waiting and results --------------------------------------------------------------------------------------


def test_a_result_is_named_by_id_by_handle_or_by_being_the_only_end(sim):
    flow = af.Workflow("names")
    one = flow.add(int, 1, id="one")
    flow.add(sum, [one, 2], id="three")
    run = sim.submit(flow)
    assert (run.result("one"), run.result(one), run.result()) == (1, 1, 3)


def test_results_are_in_order_of_submission(sim):
    flow = af.Workflow("order")
    late = flow.add(int, 1, id="z", duration=9)
    flow.add(int, 2, id="a", duration=1)
    flow.add(int, late, id="m")
    assert list(sim.submit(flow).results().items()) == [("z", 1), ("a", 2), ("m", 1)]


def test_a_task_may_return_none_and_that_is_a_result(sim):
    run = sim.submit(lambda: None)
    assert run.result() is None
    assert run.ok
    assert run.results() == {"lambda": None}


def test_a_workflow_without_functions_runs_too(sim):
    run = sim.submit(af.Workflow("plan", tasks=[("build", []), ("test", ["build"])]))
    assert run.results() == {"build": None, "test": None}


def test_an_empty_workflow_is_done_at_once(sim):
    run = sim.submit(af.Workflow("empty"))
    assert (run.done, run.ok, run.results(), list(run.as_completed()), bool(run)) == (
        True,
        True,
        {},
        [],
        True,
    )
    assert sim.map(len, []).result() == []


def test_handles_in_lists_tuples_dicts_and_sets_are_replaced_by_values(sim):
    flow = af.Workflow("nested")
    a, b = flow.add(int, 1, id="a"), flow.add(int, 2, id="b")
    end = flow.add(identity, [a, (b,)], {"k": a, b: 3}, {a}, frozenset([b]), id="end")
    assert sim.submit(flow).result(end) == ([1, (2,)], {"k": 1, 2: 3}, {1}, frozenset([2]))


def test_map_gives_a_list_in_order_of_the_items(sim):
    run = sim.map(lambda x: x * x, range(20))
    assert run.result() == [x * x for x in range(20)]
    assert len(run) == 20
    assert sim.map(pow, [2, 3], [5, 2]).result() == [32, 9]
    assert sim.map(identity, [1, 2], [3, 4], kwargs={}).result() == [(1, 3), (2, 4)]


def test_further_arguments_of_a_map_over_several_are_the_same_for_each(sim):
    def call(a, b, *, c):
        return a, b, c

    assert sim.map(call, [1, 2], [3, 4], c=5).result() == [(1, 3, 5), (2, 4, 5)]


def test_a_late_map_expands_when_its_items_are_there(sim):
    flow = af.Workflow("late")
    items = flow.add(range, 5, id="items")
    squares = flow.map(pow, items, 2, id="squares")
    flow.add(sum, squares, id="total")
    run = sim.submit(flow)
    assert run.result("total") == 30
    assert run.result(squares) == [0, 1, 4, 9, 16]
    assert [task for task in run.tasks if "[" in task] == [f"squares[{i}]" for i in range(5)]
    assert run.result("squares[3]") == 9
    assert run.frames.tasks().query("task == 'squares[3]'").state.item() == "COMPLETED"


def test_a_late_map_over_a_late_map_and_over_nothing(sim):
    flow = af.Workflow("later")
    rows = flow.map(range, flow.add(range, 3, id="n"), id="rows")
    sizes = flow.map(len, rows, id="sizes")
    nothing = flow.map(len, flow.add(list, id="nothing"), id="none")
    run = sim.submit(flow)
    assert (run.result(sizes), run.result(nothing)) == ([0, 1, 2], [])


def test_a_map_over_what_is_no_list_fails_and_says_so(sim):
    flow = af.Workflow("wrong")
    flow.map(len, flow.add(int, 5, id="five"), id="sizes")
    run = sim.submit(flow)
    with pytest.raises(af.UpstreamFailed) as caught:
        run.result("sizes")
    assert "not iterable" in str(caught.value.__cause__)


def test_as_completed_gives_each_task_once_in_the_order_they_settled(sim):
    flow = af.Workflow("order")
    for name, duration in (("slow", 3), ("quick", 1), ("middling", 2)):
        flow.add(int, id=name, duration=duration)
    run = sim.submit(flow)
    assert list(run.as_completed()) == ["quick", "middling", "slow"]
    assert list(run.as_completed()) == ["quick", "middling", "slow"], "and again, when it is done"


def test_waiting_for_less_than_it_takes_times_out_and_the_run_goes_on(sim):
    run = sim.submit(int, duration=10)
    began = sim.now
    for ask in (run.wait, lambda t: run.result(timeout=t), lambda t: run.results(timeout=t)):
        with pytest.raises(af.TimedOut, match="the run goes on"):
            ask(1)
    with pytest.raises(TimeoutError):
        list(run.as_completed(timeout=1))
    assert sim.now == pytest.approx(began + 4)
    assert run.wait() is run
    assert run.ok


def test_a_time_limit_over_several_tasks_counts_once_in_virtual_time_too(sim):
    flow = af.Workflow("several")
    tasks = flow.map(int, range(12), duration=4, id="t")
    run, began = sim.submit(flow), sim.now
    with pytest.raises(af.TimedOut):
        run.result(tasks, timeout=6)
    assert sim.now == pytest.approx(began + 6)
    flow = af.Workflow("chain", tasks=[(f"t{i}", [f"t{i - 1}"] if i else []) for i in range(10)])
    run, began = sim.submit(flow), sim.now
    with pytest.raises(af.TimedOut):
        list(run.as_completed(timeout=4.5))
    assert sim.now == pytest.approx(began + 4.5)


def test_what_never_comes_is_given_up_after_an_hour_of_virtual_time():
    sim = af.Simulation(masters=1)
    sim.run_until(lambda s: s.leader)
    run = sim.submit(int, group="nowhere")
    with pytest.raises(af.TimedOut, match="an hour of virtual time"):
        run.wait()


def test_counts_and_repr_say_how_far_it_is(sim):
    run = sim.submit(diamond())
    assert run.counts["unsettled"] == 4
    assert repr(run) == "<Run run-1 'diamond': 4 unsettled>"
    run.wait()
    assert run.counts == {"COMPLETED": 2, "FAILED": 1, "CANCELLED": 0, "SKIPPED": 1, "unsettled": 0}
    assert repr(run) == "<Run run-1 'diamond': 2 completed, 1 failed, 1 skipped>"
    assert (run.done, run.ok) == (True, False)
    assert [(m.task, m.state) for m in run.missing()] == [("left", "FAILED"), ("end", "SKIPPED")]


# --- awaiting -------------------------------------------------------------------------------------------------


def test_a_run_can_be_awaited_from_any_loop(live):
    run = live.submit(int, 5)

    async def main():
        assert await run is run
        assert await run is run, "as often as one likes"
        return [task async for task in run]

    assert asyncio.run(main()) == ["int"]
    assert af.run_sync(main()) == ["int"]


def test_tasks_can_be_awaited_as_they_settle(live):
    gate = threading.Event()
    flow = af.Workflow("gated")
    first = flow.add(int, id="first")
    flow.add(gate.wait, SOON, id="second", after=first)
    run = live.submit(flow)

    async def main():
        seen = []
        async for task in run:
            seen.append(task)
            gate.set()
        return seen

    assert asyncio.run(main()) == ["first", "second"]


def test_giving_up_an_await_leaves_the_run_alone(live):
    gate = threading.Event()
    run = live.submit(gate.wait, SOON)

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_join(run), 0.05)

    asyncio.run(main())
    gate.set()
    assert run.result(timeout=SOON) is True


async def _join(run):
    return await run


def test_in_virtual_time_awaiting_moves_time(sim):
    run = sim.submit(diamond(int, duration=100))

    async def main():
        seen = [task async for task in sim.submit(int, duration=50)]
        return seen, await run

    assert asyncio.run(main()) == (["int"], run)
    assert sim.now > 100


def test_waiting_in_several_threads_ends_in_all_of_them(live):
    gate = threading.Event()
    run = live.submit(gate.wait, SOON)
    ended = []
    threads = [threading.Thread(target=lambda: ended.append(run.wait(SOON).ok)) for _ in range(5)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join()
    assert ended == [True] * 5


def test_an_interrupt_ends_the_waiting_and_leaves_the_run_alive(live):
    gate = threading.Event()
    run = live.submit(gate.wait, SOON)
    timer = threading.Timer(0.1, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt) as caught:
        run.wait(SOON)
    timer.join()
    [note] = caught.value.__notes__
    assert run.id in note
    assert "run.cancel()" in note
    gate.set()
    assert run.result(timeout=SOON) is True


# --- failures -------------------------------------------------------------------------------------------------


def test_what_a_task_raises_reaches_the_user_with_task_attempt_and_worker(live):
    run = live.submit(diamond())
    run.wait(SOON)
    with pytest.raises(
        af.TaskFailed, match=r"'left' of run-.* failed on worker-1.*ValueError: boom"
    ) as caught:
        run.result("left")
    error = caught.value
    row = run.frames.attempts().set_index("task").loc["left"]
    assert (error.task, error.attempt, error.worker) == ("left", row.attempt, row.worker)
    assert type(error.__cause__) is ValueError
    assert 'raise ValueError("boom")' in error.traceback
    assert error.traceback in str(error)
    assert "agentflow" not in error.traceback, "none of the frames are ours"


def test_the_root_of_a_failure_is_named_through_three_levels(sim):
    flow = af.Workflow("deep")
    task = flow.add(boom, id="root")
    for level in range(3):
        task = flow.add(int, task, id=f"level-{level}")
    run = sim.submit(flow)
    with pytest.raises(af.UpstreamFailed, match="'level-2' of run-1 never ran: 'root'") as caught:
        run.result()
    assert caught.value.root == "root"
    assert isinstance(caught.value.__cause__, af.TaskFailed)
    assert isinstance(caught.value.__cause__.__cause__, ValueError)


def test_results_with_errors_raises_skips_or_returns_them(sim):
    run = sim.submit(diamond())
    with pytest.raises(af.TaskFailed):
        run.results()
    assert run.results(errors="skip") == {"top": 1, "right": 1}
    everything = run.results(errors="return")
    assert list(everything) == ["top", "left", "right", "end"]
    assert [type(value) for value in everything.values()] == [int, af.TaskFailed, int, af.UpstreamFailed]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_whatever_a_task_raises_ends_the_task_and_nothing_else(live, sim, error):
    def leave():
        raise error

    for cluster in (live, sim):
        run = cluster.submit(leave, retries=3)
        with pytest.raises(af.TaskFailed) as caught:
            run.result(timeout=SOON)
        assert type(caught.value.__cause__) is type(error)
        assert len(run.frames.attempts()) == 1, "it is not tried again"
        assert cluster.submit(int, 3).result(timeout=SOON) == 3


def test_an_exception_that_cannot_be_shown_is_still_reported(sim):
    class Hostile(Exception):
        def __str__(self):
            raise RuntimeError("no")

        def __repr__(self):
            raise RuntimeError("no")

    def fail():
        raise Hostile

    with pytest.raises(af.TaskFailed, match="Hostile"):
        sim.submit(fail).result()


def test_ten_megabytes_of_error_are_cut(sim):
    def fail():
        raise ValueError("x" * 10_000_000)

    run = sim.submit(fail)
    with pytest.raises(af.TaskFailed) as caught:
        run.result()
    assert len(str(caught.value)) < 100_000
    assert "characters left out" in str(caught.value)


@pytest.mark.parametrize("text", ["lone \ud800", "file \udcff", "nul \x00"])
def test_output_and_errors_that_are_no_text_harm_nobody(fresh, text):
    def say():
        print(text)
        raise OSError(text)

    run = fresh.submit(say)
    with pytest.raises(af.TaskFailed):
        run.result(timeout=SOON)
    expected = text.encode("utf-8", "backslashreplace").decode()
    assert run.frames.attempts().stdout.item() == expected + "\n"
    assert run.frames.errors().message.item() == expected
    assert all(fresh.masters[name].state == "up" for name in fresh.masters)


def test_a_failed_task_pins_no_data_of_its_frames(sim):
    seen = []

    def inner(heavy):
        raise KeyError("inner")

    def fail():
        heavy = Heavy()
        seen.append(weakref.ref(heavy))
        try:
            inner(heavy)
        except KeyError as error:
            try:
                heavy.nothing  # noqa: B018
            except AttributeError:
                raise ExceptionGroup("both", [error, ValueError("outer")]) from error

    run = sim.submit(fail)
    with pytest.raises(af.TaskFailed) as caught:
        run.result()
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    del caught
    gc.collect()
    assert seen[0]() is None


def test_a_retried_task_keeps_every_attempts_error(sim):
    tries = []

    def third_time():
        tries.append(1)
        if len(tries) < 3:
            raise ValueError(f"try {len(tries)}")
        return "done"

    run = sim.submit(third_time, retries=5, backoff=af.Backoff(base_secs=10, factor=2))
    assert run.result() == "done"
    attempts = run.frames.attempts()
    assert list(attempts.error) == ["ValueError: try 1", "ValueError: try 2", pd.NA]
    assert list(attempts.number) == [1, 2, 3]
    waits = attempts.assigned_s.diff().dropna() - attempts.run_s[:2].to_list()
    assert [round(wait) for wait in waits] == [10, 20]


@pytest.mark.parametrize(
    ("retry_on", "tries"),
    [
        (ValueError, 3),
        (KeyError, 1),
        ((KeyError, ValueError), 3),
        (lambda error: "boom" in str(error), 3),
        (lambda error: 1 / 0, 1),
    ],
)
def test_only_what_is_worth_it_is_tried_again(sim, retry_on, tries):
    run = sim.submit(boom, retries=2, retry_on=retry_on)
    run.wait()
    assert len(run.frames.attempts()) == tries
    if tries == 1 and callable(retry_on) and not isinstance(retry_on, type):
        with pytest.raises(af.TaskFailed) as caught:
            run.result()
        assert "retry_on itself raised ZeroDivisionError" in "".join(caught.value.__cause__.__notes__)


# --- trigger rules --------------------------------------------------------------------------------------------


def test_a_task_that_runs_all_the_same_sees_what_is_missing_and_why(sim):
    left, right = sim.submit(diamond(when="all_done")).result()
    assert isinstance(left, af.Missing)
    assert (left.task, left.state, bool(left), right) == ("left", "FAILED", False, 1)


def test_missing_says_skipped_and_stands_in_lists_of_a_map(sim):
    flow = af.Workflow("gaps")
    root = flow.add(boom, id="root")
    after = flow.add(int, root, id="after")
    parts = flow.map(lambda x: 1 / x, [1, 0, 2], id="part")
    end = flow.add(identity, after, parts, when="all_done", id="end")
    after_value, parts_value = sim.submit(flow).result(end)
    assert (after_value.task, after_value.state) == ("after", "SKIPPED")
    assert [p if p else p.state for p in parts_value] == [1.0, "FAILED", 0.5]


def test_one_success_does_not_wait_for_the_rest(sim):
    flow = af.Workflow("race")
    slow, quick = flow.add(int, 1, id="slow", duration=50), flow.add(int, 2, id="quick")
    end = flow.add(identity, slow, quick, when="one_success", id="end")
    run = sim.submit(flow)
    slow_value, quick_value = run.result(end)
    assert (slow_value.state, quick_value) == ("RUNNING", 2)
    assert run.result(slow) == 1


# --- cancel, release, attach, keys ----------------------------------------------------------------------------


def test_cancelling_settles_what_has_not_settled(sim):
    flow = af.Workflow("cancel")
    first = flow.add(int, 1, id="first")
    second = flow.add(int, first, id="second", duration=100)
    flow.add(int, second, id="third")
    run = sim.submit(flow)
    run.result("first")
    assert run.cancel() == 2
    assert run.cancel() == 0
    run.wait()
    assert run.counts["CANCELLED"] == 2
    assert run.result("first") == 1
    for task in ("second", "third"):
        with pytest.raises(af.TaskCancelled) as caught:
            run.result(task)
        assert caught.value.task == task
    assert sim.now < 100


def test_a_cancelled_threads_slot_is_free_and_its_late_result_kept_by_nobody(eventually):
    gate, ended = threading.Event(), threading.Event()

    def hold():
        gate.wait(SOON)
        ended.set()
        return Heavy()

    with af.Cluster(masters=1, workers=0) as cluster:
        cluster.add_worker(max_tasks=1)
        run = cluster.submit(hold)
        assert eventually(lambda: "RUNNING" in set(run.frames.tasks().state))
        run.cancel()
        assert cluster.submit(int, 7).result(timeout=SOON) == 7, "another thread took its place"
        assert "'hold' of run-1 (attempt 1 on worker-1)" in cluster.diagnose()
        values = len(cluster._bench.objects)
        gate.set()
        assert ended.wait(SOON)
        assert eventually(lambda: "hold" not in cluster.diagnose())
        assert len(cluster._bench.objects) == values
        assert run.frames.attempts().state.item() == "CANCELLED"


def test_a_task_past_its_timeout_fails_and_its_slot_is_replaced(eventually):
    gate = threading.Event()
    with af.Cluster(masters=1, workers=0) as cluster:
        cluster.add_worker(max_tasks=1)
        run = cluster.submit(lambda: gate.wait(SOON), timeout=0.05, retries=1)
        with pytest.raises(af.TaskFailed, match=r"TimedOut: no result within its timeout of 0.05 s"):
            run.result(timeout=SOON)
        assert list(run.frames.attempts().state) == ["TIMED_OUT", "TIMED_OUT"]
        assert cluster.submit(int, 7).result(timeout=SOON) == 7
        assert "attempt 1" in cluster.diagnose()
        assert "attempt 2" in cluster.diagnose()
        gate.set()
        assert eventually(lambda: "attempt" not in cluster.diagnose())
        # The late results reach the worker, and nobody else.
        assert eventually(lambda: sum(record.kind == "unwanted" for record in cluster.records()) == 2)


def test_a_timeout_in_virtual_time_is_exact(sim):
    run = sim.submit(int, duration=100, timeout=7)
    with pytest.raises(af.TaskFailed, match="7 s"):
        run.result()
    assert run.frames.attempts().run_s.item() == pytest.approx(7, abs=0.2)


def test_releasing_drops_the_values_and_what_the_run_knows_it_keeps(sim):
    before = len(sim._bench.objects)
    run = sim.submit(diamond())
    run.wait()
    run.release()
    assert len(sim._bench.objects) == before
    assert run.counts["COMPLETED"] == 2
    assert run.id not in sim.runs
    with pytest.raises(af.ObjectLost):
        run.result("top")
    with pytest.raises(af.TaskFailed, match="boom"):
        run.result("left")
    assert len(run.frames.tasks()) == 0


def test_a_run_that_is_under_way_is_not_released(sim):
    run = sim.submit(int, 3, duration=5)
    with pytest.raises(af.Refused, match="still running"):
        run.release()
    assert run.result() == 3


def test_the_same_key_is_the_same_run(sim):
    one = sim.submit(int, 1, idempotency_key="k")
    two = sim.submit(int, 1, idempotency_key="k")
    assert one is two
    assert sim.submit(int, 1, idempotency_key="other") is not one
    assert sim.submit(int, 1) is not sim.submit(int, 1)
    assert sim.attach(one.id) is one
    assert list(sim.runs) == ["run-1", "run-2", "run-3", "run-4"]


# --- what tasks are given -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [lambda frame: frame, lambda frame: [frame], lambda frame: {"df": frame}])
def test_a_frame_changed_in_place_is_changed_for_that_task_alone(sim, shape):
    frame = pd.DataFrame({"a": [1, 2]})

    def spoil(value):
        found = (
            value
            if isinstance(value, pd.DataFrame)
            else next(iter(value.values() if isinstance(value, dict) else value))
        )
        found.loc[0, "a"] = 99
        found["b"] = 0
        return shape(found)

    flow = af.Workflow("frames")
    made = flow.add(lambda: shape(frame), id="made")
    for i in range(2):
        flow.add(spoil, made, id=f"handle-{i}")
        flow.add(spoil, shape(frame), id=f"given-{i}")
    flow.map(spoil, [frame, frame], id="mapped")
    run = sim.submit(flow).wait()
    assert run.ok
    assert frame.equals(pd.DataFrame({"a": [1, 2]}))
    again = run.result("made")
    assert (
        again
        if isinstance(again, pd.DataFrame)
        else next(iter(again.values() if isinstance(again, dict) else again))
    ).equals(frame)


@pytest.mark.parametrize("kind", ["live", "sim"])
def test_a_coroutine_function_is_awaited(request, kind):
    cluster = request.getfixturevalue(kind)

    async def double(x):
        await asyncio.sleep(0)
        return 2 * x

    async def fail():
        await asyncio.sleep(0)
        raise ValueError("boom")

    flow = af.Workflow("async")
    flow.add(double, flow.add(double, 4, id="eight"), id="sixteen")
    assert cluster.submit(flow).results(timeout=SOON) == {"eight": 8, "sixteen": 16}
    assert cluster.map(double, [1, 2]).result(timeout=SOON) == [2, 4]
    with pytest.raises(af.TaskFailed, match="boom"):
        cluster.submit(fail).result(timeout=SOON)


def test_what_a_task_prints_stays_with_its_attempt(fresh, capsys):
    def say(text):
        print("hello", text)

    run = fresh.map(say, ["a", "b"]).wait(SOON)
    assert list(run.frames.attempts().set_index("task").stdout.sort_index()) == ["hello a\n", "hello b\n"]
    assert capsys.readouterr().out == ""


def test_a_result_that_cannot_be_weighed_or_compared_is_still_a_result(sim):
    class Odd:
        def __sizeof__(self):
            raise RuntimeError("no")

        def __eq__(self, other):
            raise RuntimeError("no")

        __hash__ = None

        def __len__(self):
            raise RuntimeError("no")

    assert isinstance(sim.submit(Odd).result(), Odd)


def test_the_queue_in_numbers_is_what_went_through_it():
    sim = af.Simulation(masters=3, workers=1, seed=4, config=af.RaftConfig.fast())
    flow = af.Workflow("waits")
    for number in range(12):
        flow.add(pow, number, 2, id=f"p{number}", priority="urgent" if number < 2 else "low", duration=2)
    run = sim.submit(flow)
    sim.run_until(lambda s: s.queue_stats().depth == 8)
    now = sim.queue_stats()
    assert now.by_priority == {"LOW": 8, "MEDIUM": 0, "HIGH": 0, "URGENT": 0}
    assert now.by_group == {"any": 8}
    assert (now.enqueued, now.dequeued, now.retried, now.dead_letters) == (12, 4, 0, 0)
    run.wait()
    after = sim.queue_stats()
    waits = run.frames.tasks().wait_s
    assert (after.depth, after.dequeued, after.oldest_s) == (0, 12, 0.0)
    assert 3.5 < after.wait_p99_s < 5
    assert after.wait_mean_s == pytest.approx(waits.mean(), abs=0.2)
