"""A graph of thousands of tasks as a graph of few boxes.

Law: every task is in exactly one box, and every dependency between two boxes is an edge. What belongs
together goes together first: the items of a map, then a long chain, then tasks of one level and one name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from typing import Final

import msgspec

from agentflow.notebook.graph import levels

SINGLY_AT_MOST: Final = 40
"""Graphs of no more tasks are shown task by task."""

BOXES_AT_MOST: Final = 70
"""Beyond this the next kind of grouping is applied."""

CHAIN_AT_LEAST: Final = 4
_ITEM: Final = re.compile(r"^(.*)\[\d+\]$", re.DOTALL)
_NUMBER: Final = re.compile(r"\d+")


class Box(msgspec.Struct, frozen=True):
    """What is drawn as one: its label, the positions of its tasks, and `task`, `map`, `chain` or `level`."""

    label: str
    tasks: tuple[int, ...]
    kind: str = "task"


def collapse(
    ids: Sequence[str], needs: Sequence[Sequence[int]], at_most: int = BOXES_AT_MOST
) -> tuple[list[Box], list[tuple[int, int]]]:
    """Group tasks until they can be drawn.

    Parameters
    ----------
    ids : sequence of str
        Names of the tasks.
    needs : sequence of sequence of int
        Positions that each waits for.
    at_most : int
        How many boxes there may be.

    Returns
    -------
    boxes : list of Box
    edges : list of (int, int)
        Positions in `boxes`, without repetition or loops.

    Examples
    --------
    >>> ids = ["load", *(f"clean[{i}]" for i in range(100)), "report"]
    >>> boxes, edges = collapse(ids, [(), *[(0,)] * 100, range(1, 101)])
    >>> [(box.label, len(box.tasks)) for box in boxes], edges
    ([('load', 1), ('clean', 100), ('report', 1)], [(0, 1), (1, 2)])
    """
    boxes = [Box(name, (i,)) for i, name in enumerate(ids)]
    edges = _edges(boxes, needs)
    if len(boxes) <= SINGLY_AT_MOST:
        return boxes, edges
    steps: list[Callable[[list[Box], list[tuple[int, int]]], list[Box]]] = [
        lambda boxes, edges: _by_key(boxes, [_stem(box, ids) for box in boxes], "map"),
        _chains,
        lambda boxes, edges: _by_key(boxes, _kin(boxes, edges), "level"),
        lambda boxes, edges: _by_key(boxes, _level_of(boxes, edges), "level"),
        lambda boxes, edges: _bands(boxes, edges, at_most),
    ]
    for i, step in enumerate(steps):
        if i and len(boxes) <= at_most:
            break
        boxes = step(boxes, edges)
        edges = _edges(boxes, needs)
    return boxes, edges


def coarser(
    boxes: Sequence[Box], edges: Sequence[tuple[int, int]], at_most: int
) -> tuple[list[Box], list[tuple[int, int]]]:
    """Join neighbouring levels of a graph of boxes until at most so many boxes are left."""
    joined = _bands(boxes, edges, at_most)
    home = {task: i for i, box in enumerate(joined) for task in box.tasks}
    now = [home[box.tasks[0]] for box in boxes]
    return joined, list(dict.fromkeys((now[a], now[b]) for a, b in edges if now[a] != now[b]))


def _edges(boxes: Sequence[Box], needs: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    home = {task: i for i, box in enumerate(boxes) for task in box.tasks}
    found: dict[tuple[int, int], None] = {}
    for task, before in enumerate(needs):
        for need in before:
            if home[need] != home[task]:
                found[home[need], home[task]] = None
    return list(found)


def _by_key(boxes: Sequence[Box], keys: Sequence[Hashable], kind: str, least: int = 3) -> list[Box]:
    """Join boxes of one key; None joins nothing."""
    members: dict[Hashable, list[int]] = {}
    for i, key in enumerate(keys):
        members.setdefault(("one", i) if key is None else ("many", key), []).append(i)
    joined = []
    for group in members.values():
        if len(group) < least:
            joined += [boxes[i] for i in group]
            continue
        tasks = tuple(task for i in group for task in boxes[i].tasks)
        joined.append(Box(_label(boxes, group, kind, keys[group[0]]), tasks, kind))
    return joined


def _label(boxes: Sequence[Box], group: Sequence[int], kind: str, key: Hashable) -> str:
    first = boxes[group[0]].label
    if kind == "map":
        return str(key)
    names = {_NUMBER.sub("", boxes[i].label) for i in group[:50]}
    return first if len(names) == 1 else f"{first} and others"


def _stem(box: Box, ids: Sequence[str]) -> Hashable:
    found = _ITEM.match(ids[box.tasks[0]])
    return found.group(1) if found else None


def _needs(boxes: Sequence[Box], edges: Sequence[tuple[int, int]]) -> list[list[int]]:
    needs: list[list[int]] = [[] for _ in boxes]
    for source, target in edges:
        needs[target].append(source)
    return needs


def _chains(boxes: list[Box], edges: list[tuple[int, int]]) -> list[Box]:
    """Join runs of boxes that have one before and one after."""
    before, after = _needs(boxes, edges), _needs(boxes, [(b, a) for a, b in edges])
    follows = {
        i: after[i][0] for i in range(len(boxes)) if len(after[i]) == 1 and len(before[after[i][0]]) == 1
    }
    heads = set(range(len(boxes))) - set(follows.values())
    chains = []
    for head in sorted(heads):
        chain = [head]
        while chain[-1] in follows:
            chain.append(follows[chain[-1]])
        if len(chain) >= CHAIN_AT_LEAST:
            chains.append(chain)
    inside = {i for chain in chains for i in chain}
    joined = [box for i, box in enumerate(boxes) if i not in inside]
    for chain in chains:
        label = f"{boxes[chain[0]].label} → {boxes[chain[-1]].label}"
        joined.append(Box(label, tuple(task for i in chain for task in boxes[i].tasks), "chain"))
    return joined


def _level_of(boxes: Sequence[Box], edges: Sequence[tuple[int, int]]) -> list[int]:
    return levels(_needs(boxes, edges))


def _kin(boxes: Sequence[Box], edges: Sequence[tuple[int, int]]) -> list[Hashable]:
    """Level and name without numbers."""
    return [
        (level, _NUMBER.sub("", box.label)) for level, box in zip(_level_of(boxes, edges), boxes, strict=True)
    ]


def _bands(boxes: Sequence[Box], edges: Sequence[tuple[int, int]], at_most: int) -> list[Box]:
    """Join neighbouring levels until there are few enough."""
    level = _level_of(boxes, edges)
    size = -(-(max(level) + 1) // at_most)
    return _by_key(boxes, [at // size for at in level], "level", least=2)
