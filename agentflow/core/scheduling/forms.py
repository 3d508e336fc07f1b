"""A workflow's other forms: plain data, recorded traces, networkx, DOT.

Law: nothing is imported for them until somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from pathlib import Path

    import graphviz
    import networkx as nx

    from agentflow.core.scheduling.workflow import Workflow


class Forms:
    """What `Workflow` can be made of and turned into."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Give the workflow as plain data; see `agentflow.core.scheduling.plain`.

        Examples
        --------
        >>> from agentflow.core.scheduling import Workflow
        >>> Workflow("ab", tasks=["a", ("b", ["a"])]).to_dict()
        {'name': 'ab', 'tasks': [{'id': 'a'}, {'id': 'b', 'dependencies': ['a']}]}
        """
        from agentflow.core.scheduling.plain import to_dict

        return to_dict(cast("Workflow", self))

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], *, functions: Mapping[str, Callable[..., Any]] | None = None
    ) -> Workflow:
        """Make the workflow that `to_dict` told of.

        Parameters
        ----------
        data : dict
            What `to_dict` gave, also after a passage through JSON.
        functions : dict, optional
            Functions by reference, to be used instead of importing them. Without it the functions' modules
            are imported: load only what you trust.

        Examples
        --------
        >>> from agentflow.core.scheduling import Workflow
        >>> flow = Workflow("sums")
        >>> _ = flow.add(sum, [flow.add(max, 1, 2), 3])
        >>> Workflow.from_dict(flow.to_dict()).tasks == flow.tasks
        True
        """
        from agentflow.core.scheduling.plain import from_dict

        return from_dict(data, functions=functions)

    @classmethod
    def from_wfformat(
        cls, path: str | Path | Mapping[str, Any], *, scale: float = 0.001, **options: Any
    ) -> Workflow:
        """Read a recorded scientific workflow (WfCommons' WfFormat, schema 1.5).

        Parameters
        ----------
        path : path or dict
            The JSON file, or what is in it.
        scale : float
            A task sleeps its recorded seconds times this; with 0 it does nothing. Its estimated duration
            is the recorded one, whatever the scale.

        Examples
        --------
        >>> from agentflow.core.scheduling import Workflow
        >>> trace = {"name": "t", "schemaVersion": "1.5", "workflow": {"specification": {"tasks": [
        ...     {"id": "a", "name": "a", "parents": [], "children": ["b"]},
        ...     {"id": "b", "name": "b", "parents": ["a"], "children": []}]},
        ...     "execution": {"tasks": [{"id": "a", "runtimeInSeconds": 2.5}]}}}
        >>> flow = Workflow.from_wfformat(trace, scale=0)
        >>> flow.tasks["b"].dependencies, flow.tasks["a"].estimated_duration_secs
        (('a',), 2.5)
        """
        from agentflow.core.scheduling.wfformat import read_trace

        return read_trace(path, scale=scale, **options)

    @classmethod
    def from_networkx(cls, graph: nx.DiGraph[Any], name: str | None = None) -> Workflow:
        """Make a workflow of a networkx graph: an edge goes from a task to one that waits for it.

        Node attributes named like `TaskNode` fields are those fields; all others are metadata.
        """
        from agentflow.core.scheduling.convert import from_networkx

        return from_networkx(graph, name)

    def to_networkx(self) -> nx.DiGraph[str]:
        """Give the graph to networkx, with every setting as a node attribute."""
        from agentflow.core.scheduling.convert import to_networkx

        return to_networkx(cast("Workflow", self))

    def to_graphviz(self) -> graphviz.Digraph:
        """Give the graph as DOT, critical path in bold."""
        from agentflow.core.scheduling.convert import to_graphviz

        return to_graphviz(cast("Workflow", self))
