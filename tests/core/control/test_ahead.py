"""Workers whose tasks are brief are given some ahead, and give back what they do not get to."""

from agentflow.core.control.commands import RegisterWorker, Report, Settlement
from agentflow.core.control.placement import BRIEF_SECS, BRISK


def brisk(bench, took=BRIEF_SECS / 2, tasks=BRISK + 4):
    """A worker of two slots and six ahead that has done many tasks, each in this time."""
    bench.apply(RegisterWorker("worker-1", 1, slots=2, ahead=6))
    bench.submit({f"w{i}": [] for i in range(tasks)})
    for _ in range(tasks):
        start = bench.placed.pop(0)
        finish(bench, start, took)
    return bench


def finish(bench, start, took, settlement=Settlement.COMPLETED):
    from agentflow.core.control.commands import Completion

    bench.apply(Report(start.worker, 1, (Completion(start.attempt, settlement, 0.0, took),)))


def test_a_worker_of_brief_tasks_is_given_some_ahead(bench):
    brisk(bench)
    bench.submit({f"t{i}": [] for i in range(20)})
    assert len(bench.take()) == 8


def test_a_worker_of_long_tasks_is_given_what_it_runs(bench):
    brisk(bench, took=BRIEF_SECS)
    bench.submit({f"t{i}": [] for i in range(20)})
    assert len(bench.take()) == 2


def test_what_is_given_back_goes_elsewhere_and_costs_no_try(bench):
    brisk(bench)
    run = bench.submit({f"t{i}": [] for i in range(4)})
    starts = bench.take()
    assert len(starts) == 4
    bench.apply(RegisterWorker("worker-2", 1, slots=2))
    finish(bench, starts[3], 0.0, Settlement.CANCELLED)
    (again,) = bench.take()
    assert (again.worker, again.task) == ("worker-2", 3)
    tables = bench.plane.runs[run]
    assert tables.tries == [1, 1, 1, 1]
    assert tables.history == []
    assert bench.plane.workers["worker-1"].limit == 2, "its tasks take longer than was thought"


def test_tasks_that_take_resources_are_not_given_ahead(bench):
    from agentflow.core.control.commands import TaskOptions

    brisk(bench)
    names = {f"t{i}": [] for i in range(8)}
    bench.submit(names, dict.fromkeys(names, TaskOptions(resources=(("cpu", 0.0),))))
    assert len(bench.take()) == 2
