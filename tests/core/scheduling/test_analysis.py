"""Longest chains and list schedules, against definitions and the recorded workflows' own table."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.core.scheduling import TaskDependencyGraph, TaskNode, Workflow
from agentflow.errors import InvalidConfig


def draw_graph(data, graphs):
    before = data.draw(graphs())
    secs = {name: float(data.draw(st.integers(0, 9))) for name in before}
    nodes = [TaskNode(n, dependencies=deps, estimated_duration_secs=secs[n]) for n, deps in before.items()]
    return before, secs, TaskDependencyGraph(nodes)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_critical_path_is_the_longest_of_all_paths(graphs, data):
    before, secs, graph = draw_graph(data, graphs)

    def paths(name):
        yield [name]
        for other in before[name]:
            for path in paths(other):
                yield [*path, name]

    found = graph.critical_path()
    every = [path for name in before for path in paths(name)]
    assert found.length_secs == max((sum(secs[n] for n in path) for path in every), default=0.0)
    assert found.tasks == graph.get_critical_path()
    if every:
        assert found.tasks in every
        assert sum(secs[n] for n in found.tasks) == found.length_secs
    assert found.work_secs == sum(secs.values())


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(1, 4), st.sampled_from(["longest", "submitted"]))
def test_a_list_schedule_keeps_the_rules_and_graham_s_bound(graphs, data, slots, policy):
    before, secs, graph = draw_graph(data, graphs)
    starts = graph.schedule(slots, policy=policy)
    ends = {name: starts[name] + secs[name] for name in before}
    for name, deps in before.items():
        assert all(ends[other] <= starts[name] for other in deps), "no task begins before its inputs"
    for instant in {0.0, *starts.values()}:
        running = [n for n in before if starts[n] <= instant < ends[n]]
        assert len(running) <= slots
        waiting = [n for n in before if starts[n] > instant and all(ends[o] <= instant for o in before[n])]
        assert not waiting or len(running) == slots, "no slot is idle while a task is ready"
    after = {name: [other for other in before if name in before[other]] for name in before}

    def tail(name):
        return secs[name] + max(map(tail, after[name]), default=0.0)

    def rank(name):
        return (-tail(name) if policy == "longest" else 0.0, list(before).index(name))

    for name, start in starts.items():
        passed_over = [n for n in before if starts[n] > start and all(ends[o] < start for o in before[n])]
        assert all(rank(name) < rank(other) for other in passed_over), "the one preferred goes first"
    bound = max(graph.critical_path().length_secs, sum(secs.values()) / slots)
    makespan = max(ends.values(), default=0.0)
    assert bound - 1e-9 <= makespan <= (2 - 1 / slots) * bound + 1e-9
    if policy == "longest":
        found = graph.critical_path(slots=slots)
        assert (found.makespan_secs, found.lower_bound_secs, found.slots) == (makespan, bound, slots)


def test_ties_go_to_the_earliest_submitted():
    graph = TaskDependencyGraph([("b", []), ("a", []), ("x", ["a", "b"]), ("y", ["b"])])
    assert graph.get_critical_path() == ["b", "x"]


@pytest.mark.parametrize("slots", [0, -1, 1.5, True, "8"])
def test_slots_are_counted_from_one(slots):
    with pytest.raises(InvalidConfig):
        TaskDependencyGraph(["a"]).critical_path(slots=slots)


def test_an_unknown_policy_is_refused():
    with pytest.raises(InvalidConfig):
        TaskDependencyGraph(["a"]).schedule(1, policy="best")


def test_the_repr_says_what_matters():
    graph = TaskDependencyGraph([(f"t{i}", [f"t{i - 1}"] if i else []) for i in range(7)])
    assert repr(graph.critical_path()) == "<CriticalPath 7 s: t0 -> t1 -> t2 -> ... -> t6>"


def tables(readme):
    """Rows of the two tables of the folder's README, by file."""
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in readme.read_text().splitlines()
        if re.match(r"\| \S+\.json \|", line)
    ]
    sizes = {row[0]: [int(cell) for cell in row[1:7]] for row in rows if len(row) > 8}
    bounds = {row[0]: [float(cell) for cell in row[1:]] for row in rows if len(row) == 6}
    return sizes, bounds


def test_every_recorded_workflow_is_as_its_readme_says(wfinstances):
    sizes, bounds = tables(wfinstances / "README.md")
    files = sorted(path.name for path in wfinstances.glob("*.json"))
    assert files
    for name in files:
        flow = Workflow.from_wfformat(wfinstances / name, scale=0)
        graph = TaskDependencyGraph.from_workflow(flow)
        levels = graph.levels()
        edges = [(other, task) for task in flow for other in graph.dependencies(task)]
        fan_out = max(len(graph.dependents(task)) for task in flow)
        fan_in = max(len(graph.dependencies(task)) for task in flow)
        seen = [len(flow), len(edges), len(levels), max(map(len, levels)), fan_in, fan_out]
        assert seen == sizes[name], name
        found = graph.critical_path(slots=8)
        starts = graph.schedule(8, policy="submitted")
        in_order = max(starts[t] + node.estimated_duration_secs for t, node in flow.tasks.items())
        seen = [found.work_secs, found.length_secs, found.lower_bound_secs, in_order, found.makespan_secs]
        assert [round(value, 1) for value in seen] == bounds[name], name
        chain = found.tasks
        assert all(one in graph.dependencies(two) for one, two in itertools.pairwise(chain))
