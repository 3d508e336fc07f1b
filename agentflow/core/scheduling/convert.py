"""Workflows to and from other people's graphs: networkx and DOT.

Law: an edge goes from a task to one that waits for it; what is not drawn or kept is said.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from agentflow.core.scheduling.graph import TaskDependencyGraph
from agentflow.core.scheduling.tasks import TaskNode, TaskPriority
from agentflow.core.scheduling.workflow import Workflow
from agentflow.errors import DuplicateTask, InvalidConfig

if TYPE_CHECKING:
    import graphviz
    import networkx as nx

_FIELDS: Final = tuple(name for name in TaskNode.__struct_fields__ if name not in ("id", "dependencies"))


def from_networkx(graph: nx.DiGraph[Any], name: str | None = None) -> Workflow:
    """Make a workflow of a networkx graph; see `Workflow.from_networkx`.

    Examples
    --------
    >>> import networkx as nx
    >>> graph = nx.DiGraph([("a", "b")])
    >>> graph.nodes["a"].update(priority="high", owner="ann")
    >>> flow = from_networkx(graph)
    >>> flow.tasks["a"].priority.name, flow.tasks["a"].metadata, flow.tasks["b"].dependencies
    ('HIGH', {'owner': 'ann'}, ('a',))
    """
    if not graph.is_directed():
        raise InvalidConfig(
            "a workflow is a directed graph; say which way with graph.to_directed()", field="graph"
        )
    flow = Workflow(name or str(graph.name or "workflow"))
    ids: dict[Any, str] = {}
    for node in graph:
        task = str(node)
        if task in flow:
            raise DuplicateTask(f"two nodes of the graph are written {task!r}", task=task)
        ids[node] = task
        settings: dict[str, Any] = {}
        metadata: dict[str, Any] = {}
        for key, value in graph.nodes[node].items():
            if key == "metadata" and isinstance(value, dict):
                metadata.update(value)
            elif key in _FIELDS:
                settings[key] = value
            else:
                metadata[str(key)] = value
        flow.add_task(TaskNode(task, metadata=metadata, **settings))
    for node, task in ids.items():
        before = tuple(dict.fromkeys(ids[other] for other in graph.predecessors(node)))
        flow.tasks[task].dependencies = before
    flow.validate()
    return flow


def to_networkx(flow: Workflow) -> nx.DiGraph[str]:
    """Give the graph to networkx, with every setting as a node attribute. Functions stay behind.

    Examples
    --------
    >>> graph = to_networkx(Workflow("ab", tasks=["a", ("b", ["a"])]))
    >>> list(graph.edges), graph.nodes["a"]["estimated_duration_secs"]
    ([('a', 'b')], 1.0)
    """
    import networkx as nx

    flow.validate()
    graph: nx.DiGraph[str] = nx.DiGraph(name=flow.name)
    for task, node in flow.tasks.items():
        graph.add_node(task, **{field: getattr(node, field) for field in _FIELDS})
    for task, node in flow.tasks.items():
        graph.add_edges_from((before, task) for before in node.dependencies)
    return graph


def to_graphviz(flow: Workflow) -> graphviz.Digraph:
    """Give the graph as DOT, the critical path in bold, priorities other than MEDIUM by name.

    Examples
    --------
    >>> print(to_graphviz(Workflow("ab", tasks=["a", ("b", ["a"])])).source)
    digraph ab {
        graph [rankdir=LR]
        node [fontname=Helvetica shape=box style=rounded]
        n0 [label=a penwidth=2]
        n1 [label=b penwidth=2]
        n0 -> n1 [penwidth=2]
    }
    """
    import graphviz

    graph = TaskDependencyGraph.from_workflow(flow)
    path = graph.get_critical_path()
    chain = set(path)
    steps = set(pairwise(path))
    # Numbered, because a colon in a node's name would be read as a port.
    number = {task: f"n{at}" for at, task in enumerate(flow)}
    drawing = graphviz.Digraph(
        flow.name,
        graph_attr={"rankdir": "LR"},
        node_attr={"shape": "box", "style": "rounded", "fontname": "Helvetica"},
    )
    for task, node in flow.tasks.items():
        lines = [node.name]
        if node.priority is not TaskPriority.MEDIUM:
            lines.append(node.priority.name.lower())
        if task in flow.expansions:
            lines.append("one task an item")
        bold = {"penwidth": "2"} if task in chain else {}
        drawing.node(number[task], label="\\n".join(graphviz.escape(line) for line in lines), **bold)
    for task, node in flow.tasks.items():
        for before in node.dependencies:
            bold = {"penwidth": "2"} if (before, task) in steps else {}
            drawing.edge(number[before], number[task], **bold)
    return drawing
