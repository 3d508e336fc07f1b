"""Magics of `%load_ext agentflow`: a cell as a workflow, and how things stand.

Law: a magic does what a few lines of Python do, and keeps nothing of its own.
"""

from __future__ import annotations

import ast
import inspect
from typing import Any

from agentflow.core.scheduling import Workflow
from agentflow.errors import CycleInWorkflow, InvalidConfig


def workflow_of(name: str, code: str, space: dict[str, Any]) -> Workflow:
    r"""Make a workflow of the functions that a cell defines.

    A parameter that is named like another function of the cell is that function's result; one that is named
    like a variable of the notebook is its value.

    Parameters
    ----------
    name : str
        The workflow's.
    code : str
        The cell.
    space : dict
        The notebook's variables, where the cell runs.

    Examples
    --------
    >>> flow = workflow_of("etl", "def load(): return 2\ndef double(load): return 2 * load", {})
    >>> flow
    <Workflow 'etl': 2 tasks>
    """
    tree = ast.parse(code, f"<workflow {name}>")
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    if not names:
        raise InvalidConfig(f"the cell of workflow {name!r} defines no function", field="cell")
    exec(compile(tree, f"<workflow {name}>", "exec"), space)
    functions = {each: space[each] for each in names}
    flow = Workflow(name)
    handles: dict[str, Any] = {}
    under: list[str] = []

    def add(each: str) -> Any:
        if each in handles:
            return handles[each]
        if each in under:
            circle = [*under[under.index(each) :], each]
            raise CycleInWorkflow(f"these wait for one another: {' -> '.join(circle)}", cycle=circle)
        under.append(each)
        given: dict[str, Any] = {}
        for parameter in inspect.signature(functions[each]).parameters.values():
            known = parameter.name
            if known in functions and known != each:
                given[known] = add(known)
            elif parameter.default is parameter.empty and parameter.kind not in (
                parameter.VAR_POSITIONAL,
                parameter.VAR_KEYWORD,
            ):
                if known not in space:
                    raise InvalidConfig(
                        f"{each}() wants {known!r}, which is neither a function of this cell nor a variable",
                        field=known,
                    )
                given[known] = space[known]
        handles[each] = flow.add(functions[each], id=each, kwargs=given)
        under.pop()
        return handles[each]

    for each in functions:
        add(each)
    return flow


def status_text() -> str:
    """Every open cluster and its runs, in words."""
    from agentflow.cluster.cluster import open_clusters

    parts = []
    for cluster in open_clusters():
        parts += [repr(cluster), f"  {cluster.diagnose()}", *(f"  {run!r}" for run in cluster.runs.values())]
    return "\n".join(parts) or "no cluster is open"


def load(shell: Any) -> None:
    """Register the magics with a shell of IPython."""

    def workflow(line: str, cell: str) -> Workflow:
        """Make a workflow of the functions in this cell, under the name given: `%%workflow etl`."""
        name = line.strip()
        if not name.isidentifier():
            raise InvalidConfig(f"%%workflow takes the name of a variable, not {name!r}", field="name")
        flow = workflow_of(name, cell, shell.user_ns)
        shell.user_ns[name] = flow
        return flow

    def agentflow(line: str) -> None:
        """Say how things stand: `%agentflow status`."""
        if line.strip() not in ("", "status"):
            raise InvalidConfig(f"%agentflow knows `status`, not {line.strip()!r}", field="line")
        print(status_text())

    shell.register_magic_function(workflow, "cell", "workflow")
    shell.register_magic_function(agentflow, "line", "agentflow")
