"""Other people's graphs: networkx and DOT."""

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.core.scheduling import TaskNode, TaskPriority, Workflow
from agentflow.errors import CycleInWorkflow, DuplicateTask, InvalidConfig


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_settings_and_edges_come_back_from_networkx(graphs, data):
    before = data.draw(graphs())
    nodes = [
        TaskNode(
            name,
            dependencies=deps,
            priority=data.draw(st.sampled_from(TaskPriority)),
            estimated_duration_secs=data.draw(st.floats(0, 10)),
            metadata=data.draw(st.dictionaries(st.text(max_size=2), st.integers(), max_size=2)),
        )
        for name, deps in before.items()
    ]
    flow = Workflow("there", tasks=nodes)
    graph = flow.to_networkx()
    assert nx.is_directed_acyclic_graph(graph)
    assert graph.number_of_edges() == sum(map(len, before.values()))
    again = Workflow.from_networkx(graph)
    assert again.name == "there"
    assert list(again.tasks.items()) == list(flow.tasks.items())


def test_any_nodes_and_attributes_are_taken():
    graph = nx.DiGraph()
    graph.add_node(1, priority="urgent", colour="red")
    graph.add_edge(1, ("x", 2))
    flow = Workflow.from_networkx(graph, "numbers")
    assert list(flow) == ["1", "('x', 2)"]
    assert flow.tasks["1"].priority is TaskPriority.URGENT
    assert flow.tasks["1"].metadata == {"colour": "red"}
    assert flow.tasks["('x', 2)"].dependencies == ("1",)


def test_several_edges_between_two_nodes_are_one_dependency():
    graph = nx.MultiDiGraph([("a", "b"), ("a", "b")])
    assert Workflow.from_networkx(graph).tasks["b"].dependencies == ("a",)


@pytest.mark.parametrize(
    ("graph", "error"),
    [
        (nx.Graph([("a", "b")]), InvalidConfig),
        (nx.DiGraph([("a", "b"), ("b", "a")]), CycleInWorkflow),
        (nx.DiGraph([(1, "1")]), DuplicateTask),
    ],
)
def test_a_graph_that_is_no_workflow_is_refused(graph, error):
    with pytest.raises(error):
        Workflow.from_networkx(graph)


def test_dot_survives_odd_names_and_shows_the_critical_path():
    flow = Workflow(
        'a "b"', tasks=["x:port", TaskNode("y\n<b>", dependencies=["x:port"], priority=4), "free"]
    )
    source = flow.to_graphviz().source
    assert "x:port" in source
    assert "n0 -> n1 [penwidth=2]" in source
    assert "urgent" in source
    assert "n2 [label=free]" in source


def test_a_map_that_expands_late_says_so():
    flow = Workflow("late")
    flow.map(len, flow.add(sorted, "ab"))
    assert "one task an item" in flow.to_graphviz().source
