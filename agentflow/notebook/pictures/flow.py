"""The graph of a workflow, coloured by state, with the critical path as a heavier line."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from agentflow.core.scheduling import Workflow
from agentflow.notebook.graph import layout
from agentflow.notebook.pictures import svg
from agentflow.notebook.pictures.collapse import Box, coarser, collapse
from agentflow.notebook.pictures.svg import n
from agentflow.notebook.pictures.theme import BAR_ORDER, MARKS, STATES, WORDS

LABEL_PX: Final = 168.0
SIZE: Final = 11.0
LINES: Final = {"PENDING": " dash", "RETRYING": " dash", "CANCELLED": " dot", "SKIPPED": " dot"}
SHRUNK_AT_MOST: Final = 0.55
"""A graph wider than the room is shrunk no further; then it is laid out anew with fewer boxes."""

COARSER: Final = (24, 9, 5)
"""How many levels it may then have."""


def graph_part(
    ids: Sequence[str],
    needs: Sequence[Sequence[int]],
    states: bytes | None,
    critical: Sequence[int],
    width: float,
    tries: Mapping[int, int] | None = None,
    tallest: float = 560.0,
) -> tuple[str, float]:
    """Draw the graph into a given width; `states` is None for a workflow that does not run."""
    if not ids:
        return svg.text(0, 16, "no tasks yet", "m", 12), 24
    boxes, edges = collapse(ids, needs)
    for coarse in (0, *COARSER):
        if coarse:
            boxes, edges = coarser(boxes, edges, coarse)
        sizes = [_size(box) for box in boxes]
        placed = layout(sizes, edges)
        factor = min(1.0, width / max(1.0, placed.width), tallest / max(1.0, placed.height))
        if factor >= SHRUNK_AT_MOST:
            break
    home = {task: i for i, box in enumerate(boxes) for task in box.tasks}
    heavy = {(home[a], home[b]) for a, b in itertools.pairwise(critical)}
    on_path = {home[task] for task in critical}
    parts = [_edge(curve, heavy) for curve in sorted(placed.curves, key=lambda c: (c[0], c[1]) in heavy)]
    for i, box in enumerate(boxes):
        parts.append(
            _box(
                box,
                placed.centres[i],
                sizes[i],
                ids,
                states,
                i in on_path and states is not None,
                tries or {},
            )
        )
    left = (
        max(0.0, (width - placed.width * factor) / 2) if factor == 1.0 and placed.width > width * 0.6 else 0.0
    )
    inner = f"<g transform='translate({n(left)} 0) scale({factor:.3f})'>{''.join(parts)}</g>"
    return inner, placed.height * factor


def _size(box: Box) -> tuple[float, float]:
    label = svg.fit(box.label, LABEL_PX, SIZE)
    if len(box.tasks) == 1:
        return max(46.0, svg.measure(label, SIZE) + 34), 24.0
    count = f"×{len(box.tasks):,}"
    return max(110.0, svg.measure(label, SIZE) + svg.measure(count, SIZE) + 36), 40.0


def _edge(curve: tuple[int, int, list[tuple[float, float]]], heavy: set[tuple[int, int]]) -> str:
    source, target, points = curve
    start, *rest = points
    d = f"M{n(start[0])} {n(start[1])}C" + " ".join(f"{n(x)} {n(y)}" for x, y in rest)
    marked = (source, target) in heavy
    x, y = points[-1]
    before = points[-2]
    across, down = x - before[0], y - before[1]
    length = max(1e-6, (across**2 + down**2) ** 0.5)
    ux, uy = across / length, down / length
    head = f"M{n(x)} {n(y)}L{n(x - 6 * ux + 3 * uy)} {n(y - 6 * uy - 3 * ux)}L{n(x - 6 * ux - 3 * uy)} {n(y - 6 * uy + 3 * ux)}Z"
    return svg.path(d, "ink" if marked else "wire", 2.6 if marked else 1.2) + svg.path(head, "inkfill", 0)


def _box(
    box: Box,
    centre: tuple[float, float],
    size: tuple[float, float],
    ids: Sequence[str],
    states: bytes | None,
    heavy: bool,
    tries: Mapping[int, int],
) -> str:
    wide, tall = size
    x, y = centre[0] - wide / 2, centre[1] - tall / 2
    counts = Counter(STATES[states[task]] for task in box.tasks) if states is not None else Counter()
    state = _joint(counts) if states is not None else "READY"
    low = state.lower()
    thick = f" stroke-width='{2.6 if heavy else 1.3}'"
    outline = svg.rect(x, y, wide, tall, f"l-{low} n-{low}{LINES.get(state, '')}", 6, thick)
    many = len(box.tasks) > 1
    back = svg.rect(x + 3, y - 3, wide, tall, f"l-{low} n-{low}", 6, " stroke-width='1'") if many else ""
    mark = MARKS[state] if states is not None else ""
    again = tries.get(box.tasks[0], 1) > 1 and not many
    struck = " strike" if state in ("CANCELLED", "SKIPPED") else ""
    label_x = x + 22 if mark else x + 11
    words = svg.fit(box.label, LABEL_PX, SIZE)
    parts = [back, outline, svg.text(x + 9, y + 16, mark, "t", 11) if mark else ""]
    parts.append(svg.text(label_x, y + 16, words, f"t{struck}", SIZE))
    tip = f"{ids[box.tasks[0]]}: {WORDS[state]}" if states is not None else ids[box.tasks[0]]
    if again:
        tip += f", {tries[box.tasks[0]]} tries"
        parts.append(
            svg.circle(x + wide, y, 7, "s-retrying")
            + svg.text(x + wide, y + 3.6, tries[box.tasks[0]], "k1 b", 9.5, "middle", 13)
        )
    if many:
        parts.append(svg.text(x + wide - 9, y + 16, f"×{len(box.tasks):,}", "m", SIZE, "end"))
        tip = f"{box.label}: {len(box.tasks):,} tasks" + "".join(
            f", {counts[name]:,} {WORDS[name]}" for name in BAR_ORDER if counts[name]
        )
        parts.append(_mini(counts, x + 9, y + 26, wide - 18))
    return svg.hint(tip, *parts)


def _joint(counts: Mapping[str, int]) -> str:
    """The state of a box of many: what needs attention first."""
    for name in ("FAILED", "RUNNING", "RETRYING", "READY"):
        if counts.get(name):
            return name
    if counts.get("PENDING"):
        return "RUNNING" if counts.get("COMPLETED") else "PENDING"
    return max(("COMPLETED", "CANCELLED", "SKIPPED"), key=lambda name: counts.get(name, 0))


def _mini(counts: Mapping[str, int], x: float, y: float, width: float) -> str:
    total = sum(counts.values())
    parts = [svg.rect(x, y, width, 6, "bg", 2) + svg.rect(x + 0.5, y + 0.5, width - 1, 5, "edge", 2)]
    at = x
    for name in BAR_ORDER:
        if total and counts.get(name):
            wide = width * counts[name] / total
            parts.append(svg.rect(at, y, wide, 6, f"s-{name.lower()}", 0))
            at += wide
    return "".join(parts)


def workflow_parts(flow: Workflow) -> tuple[list[str], list[tuple[int, ...]]]:
    """A workflow's ids, and the positions that each task waits for."""
    ids, before, _ = flow.parts()
    at = {task: i for i, task in enumerate(ids)}
    return list(ids), [tuple(at[need] for need in needs if need in at) for needs in before]


def workflow_svg(flow: Workflow, width: float = 960, theme: str = "auto") -> str:
    """Draw a workflow that does not run.

    Examples
    --------
    >>> workflow_svg(Workflow("empty")).count("no tasks yet")
    1
    """
    ids, needs = workflow_parts(flow)
    drawn, height = graph_part(ids, needs, None, (), width - 32)
    head = svg.caption(16, 24, "workflow", f"{flow.name}, {svg.count(len(ids), 'task')}", width - 32)
    label = f"workflow {flow.name}: {len(ids)} tasks"
    return svg.document(width, height + 54, head + svg.group(16, 38, drawn), label, theme)


__all__ = ["graph_part", "workflow_parts", "workflow_svg"]
