"""The graph against a slow model, and the edge cases by name."""

import random
import threading

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agentflow.core.scheduling import (
    Progress,
    TaskDependencyGraph,
    TaskNode,
    TaskState,
    TriggerRule,
    Workflow,
)
from agentflow.core.scheduling.states import NEXT_STATES
from agentflow.errors import (
    CycleInWorkflow,
    DuplicateTask,
    InvalidConfig,
    InvalidTransition,
    MissingDependency,
    NoSuchTask,
)

FAILURES = (TaskState.FAILED, TaskState.CANCELLED)


class Model:
    """Every task's state, found by looking at all its dependencies again and again."""

    def __init__(self, nodes):
        self.nodes = {node.id: node for node in nodes}
        self.state = dict.fromkeys(self.nodes, TaskState.PENDING)
        self.root = {}
        for name in self.nodes:
            self.judge(name, None)

    def judge(self, name, settled):
        node = self.nodes[name]
        before = [(other, self.state[other]) for other in node.dependencies]
        done = [(other, state) for other, state in before if state.is_final]
        good = [other for other, state in done if state is TaskState.COMPLETED]
        bad = [other for other, state in done if state in FAILURES or other in self.root]
        all_done = len(done) == len(before)
        rule = node.when
        if not before or rule is TriggerRule.ALWAYS:
            verdict = "run"
        elif rule is TriggerRule.ALL_SUCCESS:
            verdict = "skip" if len(good) < len(done) else "run" if all_done else ""
        elif rule is TriggerRule.ALL_DONE:
            verdict = "run" if all_done else ""
        elif rule is TriggerRule.ALL_FAILED:
            verdict = "skip" if len(bad) < len(done) else "run" if all_done else ""
        elif rule is TriggerRule.ONE_SUCCESS:
            verdict = "run" if good else "skip" if all_done else ""
        elif rule is TriggerRule.ONE_FAILED:
            verdict = "run" if bad else "skip" if all_done else ""
        else:
            verdict = "skip" if bad else "run" if all_done else ""
        if verdict == "run":
            self.state[name] = TaskState.READY
        elif verdict == "skip":
            self.state[name] = TaskState.SKIPPED
            if (
                not (self.state.get(settled) is TaskState.COMPLETED and rule is TriggerRule.ALL_FAILED)
                and bad
            ):
                first = settled if settled in bad else bad[0]
                self.root[name] = first if self.state[first] in FAILURES else self.root[first]
        return verdict

    def tell(self, name, state):
        self.state[name] = state
        ready = []
        pending = [name] if state.is_final else []
        while pending:
            settled = pending.pop()
            for other, node in self.nodes.items():
                if settled in node.dependencies and self.state[other] is TaskState.PENDING:
                    verdict = self.judge(other, settled)
                    if verdict == "run":
                        ready.append(other)
                    elif verdict == "skip":
                        pending.append(other)
        order = list(self.nodes)
        return sorted(ready, key=order.index)


def drive(data, before, rules):
    """Tell a graph and its model the same random story; yield both after every step."""
    nodes = [TaskNode(name, dependencies=deps, when=rules[name]) for name, deps in before.items()]
    graph, model = TaskDependencyGraph(nodes), Model(nodes)
    yield graph, model
    while not graph.is_workflow_completed():
        open_ = [name for name, state in model.state.items() if not state.is_final]
        name = data.draw(st.sampled_from(open_))
        wanted = data.draw(st.sampled_from([s for s in TaskState if s is not TaskState.PENDING]))
        if wanted is model.state[name]:
            assert graph.update_task_state(name, wanted) == []
        elif wanted in NEXT_STATES[model.state[name]]:
            assert graph.update_task_state(name, wanted, now=0.0) == model.tell(name, wanted)
        else:
            with pytest.raises(InvalidTransition):
                graph.update_task_state(name, wanted)
            if model.state[name] is TaskState.PENDING:
                continue
            assert graph.update_task_state(name, TaskState.CANCELLED) == model.tell(name, TaskState.CANCELLED)
        yield graph, model


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_states_follow_the_rules_like_the_slow_model(graphs, data):
    before = data.draw(graphs())
    rules = {name: data.draw(st.sampled_from(TriggerRule)) for name in before}
    for graph, model in drive(data, before, rules):
        graph.check_invariants()
        assert {name: graph.state(name) for name in before} == model.state
        ready = [name for name, state in model.state.items() if state is TaskState.READY]
        assert graph.get_ready_tasks() == ready
        assert [name for name in before if graph.can_execute_task(name)] == ready
        assert {name: root for name in before if (root := graph.root_cause(name))} == model.root
        progress = graph.progress()
        assert progress.total == len(before)
        assert progress.settled == sum(state.is_final for state in model.state.values())
        assert graph.is_workflow_completed() == (progress.settled == progress.total)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_task_runs_before_its_inputs(graphs, data):
    before = data.draw(graphs())
    graph = TaskDependencyGraph(list(before.items()))
    done = []
    while ready := graph.get_ready_tasks():
        name = data.draw(st.sampled_from(ready))
        assert set(before[name]) <= set(done)
        graph.update_task_state(name, TaskState.RUNNING, now=0.0)
        assert not graph.can_execute_task(name)
        graph.update_task_state(name, TaskState.COMPLETED, now=1.0)
        done.append(name)
    assert sorted(done) == sorted(before)
    assert graph.is_workflow_completed()


@given(st.data())
def test_order_takes_the_earliest_submitted_of_those_that_may_come(graphs, data):
    before = data.draw(graphs())
    order = TaskDependencyGraph(list(before.items())).get_execution_order()
    done = []
    while len(done) < len(before):
        done.append(next(n for n, deps in before.items() if n not in done and set(deps) <= set(done)))
    assert order == done


@given(st.data())
def test_levels_ancestors_and_descendants_equal_their_definitions(graphs, data):
    before = data.draw(graphs())
    graph = TaskDependencyGraph(list(before.items()))

    def rank(name):
        return 1 + max(map(rank, before[name])) if before[name] else 0

    levels = [[n for n in before if rank(n) == r] for r in range(max(map(rank, before), default=-1) + 1)]
    assert graph.levels() == levels

    def above(name):
        return set(before[name]).union(*map(above, before[name]))

    for name in before:
        assert graph.ancestors(name) == [other for other in before if other in above(name)]
        assert graph.descendants(name) == [other for other in before if name in above(other)]
        assert graph.dependencies(name) == before[name]
        assert graph.dependents(name) == [other for other in before if name in before[other]]


@given(st.data())
def test_tasks_added_on_the_way_make_the_same_graph(graphs, data):
    before = data.draw(graphs(in_order=True))
    names = list(before)
    split = data.draw(st.integers(0, len(names)))
    rules = {name: data.draw(st.sampled_from(TriggerRule)) for name in names}
    nodes = [TaskNode(name, dependencies=before[name], when=rules[name]) for name in names]
    whole, grown = TaskDependencyGraph(nodes), TaskDependencyGraph(nodes[:split])
    told = {}
    for name in names[:split]:
        if whole.can_execute_task(name) and grown.can_execute_task(name):
            state = data.draw(st.sampled_from([TaskState.COMPLETED, TaskState.FAILED, TaskState.RUNNING]))
            whole.update_task_state(name, state, now=0.0)
            grown.update_task_state(name, state, now=0.0)
            told[name] = state
    for node in nodes[split:]:
        assert grown.add_task(node) == grown.can_execute_task(node.id)
        grown.check_invariants()
    assert grown.get_ready_tasks() == whole.get_ready_tasks()
    assert grown.get_execution_order() == whole.get_execution_order()
    assert grown.levels() == whole.levels()
    assert grown.get_critical_path() == whole.get_critical_path()
    assert [grown.state(name) for name in names] == [whole.state(name) for name in names]
    for name in names:
        assert grown.descendants(name) == whole.descendants(name)


@given(st.data())
def test_a_graph_begins_where_its_tasks_stand(graphs, data):
    before = data.draw(graphs())
    graph = TaskDependencyGraph(list(before.items()))
    for _ in range(data.draw(st.integers(0, len(before)))):
        ready = graph.get_ready_tasks()
        assume(ready)
        graph.update_task_state(ready[0], data.draw(st.sampled_from([TaskState.COMPLETED, TaskState.FAILED])))
    # What a rule skipped follows from the failures; only those are told.
    told = {n: s for n in before if (s := graph.state(n)).is_final and s is not TaskState.SKIPPED}
    nodes = [
        TaskNode(name, dependencies=deps, state=told.get(name, TaskState.PENDING))
        for name, deps in before.items()
    ]
    again = TaskDependencyGraph(nodes)
    again.check_invariants()
    assert [again.state(name) for name in before] == [graph.state(name) for name in before]
    assert again.get_ready_tasks() == graph.get_ready_tasks()


# --- edge cases -------------------------------------------------------------------------------------------


def test_an_empty_workflow_is_complete_from_the_start():
    graph = TaskDependencyGraph.from_workflow(Workflow("empty"))
    assert graph.is_workflow_completed()
    assert graph.get_ready_tasks() == graph.get_execution_order() == graph.get_critical_path() == []
    assert graph.levels() == []
    assert graph.progress() == Progress()
    assert graph.progress().fraction == 1.0
    assert graph.critical_path(slots=3).makespan_secs == 0.0


def test_an_isolated_task_is_ready_at_once():
    graph = TaskDependencyGraph([("a", []), ("b", ["a"]), ("alone", [])])
    assert graph.get_ready_tasks() == ["a", "alone"]
    assert graph.ancestors("alone") == graph.descendants("alone") == []


def test_the_top_of_a_diamond_becomes_ready_once():
    graph = TaskDependencyGraph([("a", []), ("b", ["a"]), ("c", ["a"]), ("d", ["b", "c"])])
    assert graph.update_task_state("a", TaskState.COMPLETED) == ["b", "c"]
    assert graph.update_task_state("c", TaskState.COMPLETED) == []
    assert graph.update_task_state("b", TaskState.COMPLETED) == ["d"]
    assert graph.update_task_state("d", TaskState.COMPLETED) == []
    assert graph.is_workflow_completed()


def test_ten_thousand_fan_out_and_in_again():
    middle = [f"m{i}" for i in range(10_000)]
    graph = TaskDependencyGraph([("a", []), *((m, ["a"]) for m in middle), ("z", middle)])
    assert graph.update_task_state("a", TaskState.COMPLETED) == middle
    for name in middle:
        newly = graph.update_task_state(name, TaskState.COMPLETED)
    assert newly == ["z"]
    assert len(graph.levels()[1]) == 10_000


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_chain_of_thirty_thousand_is_no_recursion(shuffled):
    chain = [(f"t{i}", [f"t{i - 1}"] if i else []) for i in range(30_000)]
    if shuffled:
        random.Random(1).shuffle(chain)
    graph = TaskDependencyGraph(chain)
    assert graph.get_execution_order() == [f"t{i}" for i in range(30_000)]
    assert graph.critical_path().length_secs == 30_000
    assert len(graph.levels()) == 30_000
    assert len(graph.descendants("t0")) == len(graph.ancestors("t29999")) == 29_999
    graph.update_task_state("t0", TaskState.FAILED)
    assert graph.is_workflow_completed()
    assert graph.root_cause("t29999") == "t0"


def test_a_large_graph_needs_no_deep_stack():
    size = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=test_a_chain_of_thirty_thousand_is_no_recursion, args=(True,))
        thread.start()
        thread.join()
    finally:
        threading.stack_size(size)


def test_circles_missing_and_duplicate_tasks_are_refused():
    with pytest.raises(CycleInWorkflow) as refused:
        TaskDependencyGraph([("a", ["b"]), ("b", ["a"])])
    assert set(refused.value.cycle) == {"a", "b"}
    with pytest.raises(CycleInWorkflow):
        TaskDependencyGraph([("a", ["a"])])
    with pytest.raises(MissingDependency) as refused:
        TaskDependencyGraph([("a", ["nope"])])
    assert refused.value.dependency == "nope"
    with pytest.raises(DuplicateTask):
        TaskDependencyGraph([("a", []), ("a", [])])


def test_two_graphs_of_one_workflow_share_no_state():
    flow = Workflow("shared", tasks=["a"])
    one, two = TaskDependencyGraph.from_workflow(flow), TaskDependencyGraph.from_workflow(flow)
    one.update_task_state("a", TaskState.COMPLETED)
    assert two.get_ready_tasks() == ["a"]
    assert flow.tasks["a"].state is TaskState.PENDING


def test_a_duplicate_edge_counts_once():
    graph = TaskDependencyGraph([("a", []), ("b", ["a", "a"]), TaskNode("c", dependencies=["b", "b", "a"])])
    graph.update_task_state("a", TaskState.COMPLETED)
    assert graph.can_execute_task("b")
    graph.update_task_state("b", TaskState.COMPLETED)
    assert graph.can_execute_task("c")


def test_the_root_cause_is_named_through_three_levels():
    graph = TaskDependencyGraph([("a", []), ("b", ["a"]), ("c", ["b"]), ("d", ["c"])])
    graph.update_task_state("a", TaskState.COMPLETED)
    graph.update_task_state("b", TaskState.RUNNING)
    graph.update_task_state("b", TaskState.FAILED)
    assert [graph.root_cause(name) for name in "abcd"] == [None, None, "b", "b"]
    assert graph.progress() == Progress(total=4, completed=1, failed=1, skipped=2)


def test_a_cancelled_task_is_a_root_too():
    graph = TaskDependencyGraph([("a", []), ("b", ["a"])])
    graph.update_task_state("a", TaskState.CANCELLED)
    assert (graph.state("b"), graph.root_cause("b")) == (TaskState.SKIPPED, "a")


def test_what_a_rule_skipped_without_a_failure_is_no_failure_to_the_next():
    graph = TaskDependencyGraph(
        [
            TaskNode("a"),
            TaskNode("on-error", dependencies=["a"], when="one_failed"),
            TaskNode("after", dependencies=["a", "on-error"], when="none_failed"),
            TaskNode("strict", dependencies=["on-error"]),
        ]
    )
    assert graph.update_task_state("a", TaskState.COMPLETED) == ["after"]
    assert graph.state("strict") is TaskState.SKIPPED
    assert graph.root_cause("strict") is graph.root_cause("on-error") is None


def test_mixed_parents_name_the_failed_one():
    graph = TaskDependencyGraph(
        [
            TaskNode("a"),
            TaskNode("b"),
            TaskNode("skipped", dependencies=["a"], when="all_failed"),
            TaskNode("end", dependencies=["skipped", "b"], when="one_success"),
        ]
    )
    graph.update_task_state("b", TaskState.FAILED)
    graph.update_task_state("a", TaskState.COMPLETED)
    assert graph.state("end") is TaskState.SKIPPED
    assert graph.root_cause("end") == "b"


@pytest.mark.parametrize("state", [state for state in TaskState if state.is_final])
def test_an_end_is_final_and_told_twice_changes_nothing(state):
    graph = TaskDependencyGraph(["a"])
    graph.update_task_state("a", state)
    assert graph.update_task_state("a", state) == []
    for other in TaskState:
        if other is not state:
            with pytest.raises(InvalidTransition) as refused:
                graph.update_task_state("a", other)
            assert refused.value.state is state
    assert graph.state("a") is state


def test_a_task_that_still_waits_cannot_run_and_says_for_what():
    graph = TaskDependencyGraph(["a", ("b", ["a"])])
    for state in (TaskState.READY, TaskState.RUNNING, TaskState.COMPLETED, TaskState.FAILED):
        with pytest.raises(InvalidTransition, match="waits for 'a'"):
            graph.update_task_state("b", state)
    assert graph.state("b") is TaskState.PENDING


def test_a_lost_task_is_ready_again_and_a_retrying_one_is_not():
    graph = TaskDependencyGraph(["a"])
    graph.update_task_state("a", TaskState.RUNNING)
    graph.update_task_state("a", TaskState.READY)
    assert graph.get_ready_tasks() == ["a"]
    graph.update_task_state("a", TaskState.RUNNING)
    graph.update_task_state("a", TaskState.RETRYING)
    assert graph.get_ready_tasks() == []
    assert not graph.is_workflow_completed()


def test_unknown_tasks_and_states_are_refused():
    graph = TaskDependencyGraph(["a"])
    for ask in (graph.state, graph.can_execute_task, graph.ancestors, graph.root_cause, graph.duration):
        with pytest.raises(NoSuchTask):
            ask("nope")
    with pytest.raises(NoSuchTask):
        graph.update_task_state("nope", TaskState.READY)
    with pytest.raises(InvalidConfig):
        graph.update_task_state("a", "sleeping")


def test_adding_a_task_refuses_what_is_taken_or_missing():
    graph = TaskDependencyGraph(["a"])
    with pytest.raises(DuplicateTask):
        graph.add_task("a")
    with pytest.raises(MissingDependency):
        graph.add_task("b", ["nope"])
    with pytest.raises(MissingDependency):
        graph.add_task("b", ["b"])
    assert len(graph) == 1
    assert "b" not in graph


def test_measured_durations_replace_estimates():
    now = 0.0
    graph = TaskDependencyGraph(
        [TaskNode("a", estimated_duration_secs=5), TaskNode("b"), TaskNode("c", dependencies=["a"])],
        clock=lambda: now,
    )
    assert graph.get_critical_path() == ["a", "c"]
    for name in ("a", "b"):
        graph.update_task_state(name, TaskState.RUNNING)
    now = 2.0
    graph.update_task_state("a", TaskState.COMPLETED)
    graph.update_task_state("b", TaskState.COMPLETED, now=9.0)
    assert (graph.duration("a"), graph.duration("b"), graph.duration("c")) == (2.0, 9.0, None)
    assert graph.critical_path(measured=True).tasks == ["b"]
    assert graph.critical_path().tasks == ["a", "c"]


def test_positions_make_the_same_graph_as_names():
    named = TaskDependencyGraph([("a", []), ("b", ["a"]), ("c", ["a", "b"])])
    placed = TaskDependencyGraph.from_edges(["a", "b", "c"], [[], [0], [0, 1]], [1, 1, 1])
    assert placed.get_execution_order() == named.get_execution_order()
    assert placed.get_critical_path() == named.get_critical_path()
    assert placed.dependents("a") == named.dependents("a")


@pytest.mark.parametrize(
    ("ids", "dependencies", "durations", "error"),
    [
        (["a", "a"], [[], []], None, DuplicateTask),
        (["a"], [[1]], None, MissingDependency),
        (["a"], [[-1]], None, MissingDependency),
        (["a", "b"], [[1], [0]], None, CycleInWorkflow),
        (["a"], [[], []], None, InvalidConfig),
        (["a"], [[]], [1, 2], InvalidConfig),
    ],
)
def test_positions_that_make_no_graph_are_refused(ids, dependencies, durations, error):
    with pytest.raises(error):
        TaskDependencyGraph.from_edges(ids, dependencies, durations)


def test_the_repr_is_one_line():
    assert (
        repr(TaskDependencyGraph(["a", ("b", ["a"])]))
        == "<TaskDependencyGraph: 2 tasks, 1 dependencies, 0 settled>"
    )
