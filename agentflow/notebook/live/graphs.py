"""Where the boxes of a run's graph stand: laid out once, then only coloured.

Law: every task is in exactly one box. A graph is laid out anew only when tasks were added to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from agentflow.notebook.graph import layout
from agentflow.notebook.pictures import svg
from agentflow.notebook.pictures.collapse import Box, collapse

SIZE: Final = 12.0
LABEL_PX: Final = 190.0
_RUNS: Final = re.compile(rb"(.)\1*", re.DOTALL)


def drawn(ids: Sequence[str], needs: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The boxes of a graph with their places, and the curves between them.

    Examples
    --------
    >>> graph = drawn(["a", "b"], [(), (0,)])
    >>> [box["label"] for box in graph["boxes"]], [edge[:2] for edge in graph["edges"]]
    (['a', 'b'], [[0, 1]])
    """
    boxes, edges = collapse(ids, needs)
    sizes = [_size(box) for box in boxes]
    placed = layout(sizes, edges)
    return {
        "width": round(placed.width, 1),
        "height": round(placed.height, 1),
        "boxes": [
            {
                "label": svg.fit(box.label, LABEL_PX, SIZE),
                "kind": box.kind,
                "tasks": spans(box.tasks),
                "x": round(placed.centres[i][0] - sizes[i][0] / 2, 1),
                "y": round(placed.centres[i][1] - sizes[i][1] / 2, 1),
                "w": round(sizes[i][0], 1),
                "h": sizes[i][1],
            }
            for i, box in enumerate(boxes)
        ],
        "edges": [[source, target, _path(points)] for source, target, points in placed.curves],
    }


def _size(box: Box) -> tuple[float, float]:
    label = svg.measure(svg.fit(box.label, LABEL_PX, SIZE), SIZE)
    if len(box.tasks) == 1:
        return max(54.0, label + 38), 27.0
    return max(124.0, label + svg.measure(f"×{len(box.tasks):,}", SIZE) + 44), 44.0


def _path(points: Sequence[tuple[float, float]]) -> str:
    start, *rest = points
    return f"M{svg.n(start[0])} {svg.n(start[1])}C" + " ".join(f"{svg.n(x)} {svg.n(y)}" for x, y in rest)


def spans(numbers: Iterable[int]) -> list[int]:
    """Numbers as runs: first and length, one after the other.

    Examples
    --------
    >>> spans([0, 1, 2, 7])
    [0, 3, 7, 1]
    """
    found: list[int] = []
    for each in numbers:
        if found and found[-2] + found[-1] == each:
            found[-1] += 1
        else:
            found += [each, 1]
    return found


def lengths(states: bytes) -> list[int]:
    """States as runs of equal ones: state and length, one after the other.

    Examples
    --------
    >>> lengths(bytes([3, 3, 3, 2]))
    [3, 3, 2, 1]
    """
    return [each for run in _RUNS.finditer(states) for each in (run[0][0], run.end() - run.start())]


_ITEM: Final = re.compile(r"^(.*)\[(0|[1-9]\d{0,8})\]$", re.DOTALL)


def folded(names: Sequence[str]) -> list[str | list[Any]]:
    """Names, those of a map's items as one: its stem, the first number and how many follow.

    Examples
    --------
    >>> folded(["load", "clean[0]", "clean[1]", "clean[2]", "report"])
    ['load', ['clean', 0, 3], 'report']
    """
    found: list[str | list[Any]] = []
    for name in names:
        item = _ITEM.match(name)
        if item is None:
            found.append(name)
            continue
        stem, number = item[1], int(item[2])
        last = found[-1] if found else None
        if isinstance(last, list) and last[0] == stem and last[1] + last[2] == number:
            last[2] += 1
        else:
            found.append([stem, number, 1])
    return found
