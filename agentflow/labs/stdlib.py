"""The demonstration's job: what the Python standard library leans on.

A task a module parses its source and says what it imports; reducers join these into the import graph, and
from the graph come the circles of mutual imports and how far every module reaches.

Only imports that run when a module is imported count: those inside functions and under
`if TYPE_CHECKING:` do not.
"""

from __future__ import annotations

import ast
import sysconfig
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from agentflow.core.scheduling import Workflow

if TYPE_CHECKING:
    import networkx as nx
    import pandas as pd

SKIPPED_FOLDERS = frozenset(
    {"__pycache__", "site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "turtledemo"}
)

BRANCHES = (
    ast.If,
    ast.For,
    ast.While,
    ast.AsyncFor,
    ast.ExceptHandler,
    ast.BoolOp,
    ast.IfExp,
    ast.comprehension,
    ast.match_case,
    ast.Assert,
)
"""Nodes that add a path through the code (McCabe, "A Complexity Measure", 1976)."""


ONE_PARSES = threading.Lock()
"""CPython 3.11 counts the depth of syntax trees for all threads together, and gives up when two of them
build one at a time ("AST constructor recursion depth mismatch", gh-106905)."""


class Facts(msgspec.Struct, frozen=True):
    """What one module's source says of it."""

    module: str
    imports: tuple[str, ...]
    lines: int
    functions: int
    classes: int
    complexity: int


def modules(root: Path | None = None) -> dict[str, Path]:
    """Find the source file of each module of the standard library.

    Parameters
    ----------
    root : Path, optional
        The folder to look in; by default this interpreter's own library.

    Returns
    -------
    dict
        Module name to file, in order of the names.

    Examples
    --------
    >>> "json.decoder" in modules()
    True
    """
    root = Path(sysconfig.get_path("stdlib")) if root is None else root
    return dict(sorted(_walk(root, "")))


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.iterdir()):
        name = path.stem if path.suffix == ".py" else path.name
        if not name.isidentifier() or name in SKIPPED_FOLDERS:
            continue
        if path.suffix == ".py" and name not in ("__init__", "__main__"):
            yield prefix + name, path
        elif path.is_dir() and (path / "__init__.py").exists():
            yield prefix + name, path / "__init__.py"
            yield from _walk(path, f"{prefix}{name}.")


def parse(module: str, path: Path) -> Facts:
    """Read one module's source and say what it imports, how long it is and how complex.

    Examples
    --------
    >>> facts = parse("bisect", modules()["bisect"])
    >>> facts.imports, facts.functions
    (('_bisect',), 4)
    """
    source = path.read_bytes()
    with ONE_PARSES:
        tree = ast.parse(source, filename=str(path))
    kinds: Counter[type[ast.AST]] = Counter(map(type, ast.walk(tree)))
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    return Facts(
        module=module,
        imports=tuple(sorted(set(_imports(tree.body, package)))),
        lines=source.count(b"\n"),
        functions=kinds[ast.FunctionDef] + kinds[ast.AsyncFunctionDef],
        classes=kinds[ast.ClassDef],
        complexity=1 + sum(kinds[branch] for branch in BRANCHES),
    )


def _imports(body: Iterable[ast.AST], package: str) -> Iterator[str]:
    """Every name imported when the module runs; `from a import b` gives `a.b`, which may be a module."""
    for node in body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            for alias in node.names:
                yield base if alias.name == "*" else f"{base}.{alias.name}"
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _imports(node.orelse, package)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _imports(ast.iter_child_nodes(node), package)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def edges(facts: Sequence[Facts], known: frozenset[str]) -> list[tuple[str, str]]:
    """Say which known modules each of these imports.

    Examples
    --------
    >>> fact = Facts("a", ("b.x.f", "sys"), 1, 0, 0, 1)
    >>> edges([fact], frozenset({"a", "b", "b.x"}))
    [('a', 'b.x')]
    """
    found = set()
    for fact in facts:
        for name in fact.imports:
            while name and name not in known:
                name = name.rpartition(".")[0]
            if name and name != fact.module:
                found.add((fact.module, name))
    return sorted(found)


def join(names: Iterable[str], parts: Iterable[list[tuple[str, str]]]) -> nx.DiGraph[str]:
    """Join the reducers' edges into the import graph: an arrow from each module to what it imports."""
    import networkx as nx

    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(sorted(names))
    for part in parts:
        graph.add_edges_from(part)
    return graph


def circles(graph: nx.DiGraph[str]) -> list[list[str]]:
    """Find the groups of modules that import one another, the largest first."""
    import networkx as nx

    groups = [sorted(group) for group in nx.strongly_connected_components(graph) if len(group) > 1]
    return sorted(groups, key=lambda group: (-len(group), group))


def reach(graph: nx.DiGraph[str]) -> dict[str, tuple[int, int]]:
    """Count, for every module, how many lean on it and on how many it leans, however indirectly.

    Sets of modules are bits of one integer each, joined from the leaves of the condensed graph upwards.
    """
    import networkx as nx

    condensed = nx.condensation(graph)
    members = {group: condensed.nodes[group]["members"] for group in condensed}
    bit = {name: 1 << i for i, name in enumerate(graph)}
    own = {group: sum(bit[name] for name in names) for group, names in members.items()}
    order = list(nx.topological_sort(condensed))
    below = dict(own)
    for group in reversed(order):
        for after in condensed.successors(group):
            below[group] |= below[after]
    above = dict(own)
    for group in order:
        for before in condensed.predecessors(group):
            above[group] |= above[before]
    return {
        name: (above[group].bit_count() - 1, below[group].bit_count() - 1)
        for group, names in members.items()
        for name in names
    }


def ranking(
    facts: Sequence[Facts], graph: nx.DiGraph[str], reached: dict[str, tuple[int, int]], top: int = 20
) -> pd.DataFrame:
    """Table of the modules that most of the library leans on.

    Returns
    -------
    pandas.DataFrame
        `module`, `leaned_on_by` (modules that need it, however indirectly), `imported_by` (directly),
        `leans_on`, `imports`, `lines`, `complexity`.
    """
    import pandas as pd

    by_name = {fact.module: fact for fact in facts}
    rows: list[dict[str, Any]] = [
        {
            "module": name,
            "leaned_on_by": above,
            "imported_by": graph.in_degree(name),
            "leans_on": below,
            "imports": graph.out_degree(name),
            "lines": by_name[name].lines,
            "complexity": by_name[name].complexity,
        }
        for name, (above, below) in reached.items()
    ]
    rows.sort(key=lambda row: (-row["leaned_on_by"], -row["imported_by"], row["module"]))
    return pd.DataFrame(rows[:top])


def workflow(sources: dict[str, Path], chunk: int = 40) -> Workflow:
    """Build the job as a graph of tasks.

    Parameters
    ----------
    sources : dict
        What `modules` found, or a part of it.
    chunk : int
        Modules a reducer joins.
    """
    flow = Workflow("stdlib-imports")
    known = frozenset(sources)
    parsed = {name: flow.add(parse, name, path, id=f"parse:{name}") for name, path in sources.items()}
    names = list(sources)
    parts = [
        flow.add(edges, [parsed[name] for name in names[at : at + chunk]], known, id=f"edges:{at // chunk}")
        for at in range(0, len(names), chunk)
    ]
    graph = flow.add(join, names, parts, id="graph", priority="high")
    flow.add(circles, graph, id="circles")
    reached = flow.add(reach, graph, id="reach")
    flow.add(ranking, list(parsed.values()), graph, reached, id="ranking")
    return flow


def serially(sources: dict[str, Path], chunk: int = 40) -> dict[str, Any]:
    """Do the same job without a cluster, one step after the other.

    Returns
    -------
    dict
        `circles`, `reach` and `ranking`, as the tasks of those names return them.
    """
    known = frozenset(sources)
    facts = [parse(name, path) for name, path in sources.items()]
    parts = [edges(facts[at : at + chunk], known) for at in range(0, len(facts), chunk)]
    graph = join(list(sources), parts)
    reached = reach(graph)
    return {"circles": circles(graph), "reach": reached, "ranking": ranking(facts, graph, reached)}
