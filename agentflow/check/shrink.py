"""Fewer faults, same failure: delta debugging of a schedule.

Law: what is returned still fails, is a subsequence of what was given, and, unless the limit came first, no
single element of it can be left out (1-minimal; Zeller and Hildebrandt, Simplifying and Isolating
Failure-Inducing Input, IEEE TSE 2002).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeVar

from agentflow.errors import Refused

T = TypeVar("T")


def ddmin(items: Sequence[T], fails: Callable[[Sequence[T]], bool], *, limit: int = 1000) -> list[T]:
    """Find a small subsequence that still fails.

    Parameters
    ----------
    items : sequence
        The schedule that fails.
    fails : callable
        Says whether a schedule fails; it must give the same answer for the same schedule.
    limit : int
        How often `fails` may be called; the best found so far is returned when it is used up.

    Returns
    -------
    list
        The elements that are left, in their order.

    Raises
    ------
    Refused
        If the whole schedule does not fail: then there is nothing to shrink.

    Examples
    --------
    >>> ddmin(range(100), lambda faults: 17 in faults and 64 in faults)
    [17, 64]
    >>> ddmin("crash", lambda faults: True)
    []
    """
    search = _Search(items, fails, limit)
    everything = tuple(range(len(items)))
    if not search.fails(everything):
        raise Refused("the whole schedule does not fail, so there is nothing to shrink")
    left = everything
    if search.fails(()):
        return []
    parts = 2
    while len(left) > 1 and not search.spent:
        smaller = search.smaller(left, parts)
        if smaller is not None:
            left, parts = smaller
        elif parts < len(left):
            parts = min(len(left), 2 * parts)
        else:
            break
    return [items[at] for at in left]


class _Search:
    """The schedules tried so far, by the positions they keep."""

    def __init__(self, items: Sequence[Any], fails: Callable[[Sequence[Any]], bool], limit: int) -> None:
        self._items = items
        self._fails = fails
        self._known: dict[tuple[int, ...], bool] = {}
        self._left = limit

    @property
    def spent(self) -> bool:
        return self._left <= 0

    def fails(self, kept: tuple[int, ...]) -> bool:
        if kept not in self._known:
            if self.spent:
                return False
            self._left -= 1
            self._known[kept] = bool(self._fails([self._items[at] for at in kept]))
        return self._known[kept]

    def smaller(self, left: tuple[int, ...], parts: int) -> tuple[tuple[int, ...], int] | None:
        """Return a chunk of `left`, or else the rest without a chunk, that still fails.

        With it comes how finely to cut next: a chunk starts over in halves, a rest keeps its fineness.
        """
        edges = [len(left) * part // parts for part in range(parts + 1)]
        chunks = [left[a:b] for a, b in pairwise(edges)]
        for chunk in chunks:
            if self.fails(chunk):
                return chunk, 2
        if parts > 2:
            for at in range(parts):
                rest = left[: edges[at]] + left[edges[at + 1] :]
                if self.fails(rest):
                    return rest, parts - 1
        return None
