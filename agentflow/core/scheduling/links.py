"""Who waits for whom, as integers in flat arrays.

Law: tasks are positions in order of submission; `flat[start[i]:start[i + 1]]` is what task i waits for. A
million tasks with two million dependencies take some tens of megabytes, and nothing here recurses.

Large graphs are taken in whole ranks with numpy where their shape allows it, small and narrow ones task by
task; both give the same answer to the last bit.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Ints = npt.NDArray[np.int32]

LARGE: Final = 20_000
"""From this many tasks on numpy is worth its import."""

NARROW: Final = 50
"""Below this many tasks a rank, on average, loops are faster than numpy."""

TABLE_ENTRIES: Final = 1 << 24
"""How large a table of addresses may be: 64 MB, for as long as a graph is built."""


class Links:
    """The dependencies of tasks 0 to n - 1.

    Parameters
    ----------
    counts : sequence of int
        How many dependencies each task has.
    flat : iterable of int or array
        All of them, task after task.

    Examples
    --------
    >>> links = Links([0, 1, 2], [0, 0, 1])
    >>> list(links.before(2)), list(links.after(0)), links.in_order
    ([0, 1], [1, 2], True)
    """

    __slots__ = ("_after", "_after_start", "_in_order", "_late", "_levels", "_order", "flat", "start")

    def __init__(self, counts: Sequence[int], flat: Iterable[int] | Ints) -> None:
        self.start = array("i", [0])
        self.start.extend(accumulate(counts))
        edges = self.start[-1]
        if edges < LARGE:
            self.flat = array("i", flat)
        else:
            import numpy as np

            self.flat = array("i")
            self.flat.frombytes(np.fromiter(flat, np.int32, edges).tobytes())
        self._after: array[int] | None = None
        self._after_start: array[int] = array("i")
        self._late: dict[int, list[int]] = {}
        self._in_order: bool | None = None
        self._order: list[int] | None = None
        self._levels: list[Any] | None = None

    def __len__(self) -> int:
        return len(self.start) - 1

    def before(self, task: int) -> array[int]:
        """What a task waits for."""
        return self.flat[self.start[task] : self.start[task + 1]]

    def after(self, task: int) -> Sequence[int]:
        """What waits for a task, in order of submission."""
        if self._after is None:
            self._invert()
            assert self._after is not None
        late = self._late.get(task)
        if task + 1 >= len(self._after_start):
            return late or ()
        found = self._after[self._after_start[task] : self._after_start[task + 1]]
        return [*found, *late] if late else found

    def append(self, before: Sequence[int]) -> int:
        """Add a task that waits for earlier ones; give its position."""
        task = len(self)
        assert all(0 <= other < task for other in before), "a new task waits for those that are there"
        self.flat.extend(before)
        self.start.append(len(self.flat))
        if self._after is not None:
            for other in before:
                self._late.setdefault(other, []).append(task)
        self._order = self._levels = None
        return task

    # --- order --------------------------------------------------------------------------------------------

    @property
    def in_order(self) -> bool:
        """Whether every task waits only for earlier ones: the order of submission is then a proof."""
        if self._in_order is None:
            start, flat = self.start, self.flat
            if len(flat) >= LARGE:
                self._in_order = not bool((_view(flat) >= self._owners()).any())
            else:
                ranges = zip(range(len(self)), start, start[1:], strict=False)
                self._in_order = all(lo == hi or max(flat[lo:hi]) < task for task, lo, hi in ranges)
        return self._in_order

    @property
    def is_acyclic(self) -> bool:
        """Whether no tasks wait for one another in a circle."""
        if self.in_order:
            return True
        if (ranks := self._ranks()) is not None:
            return sum(map(len, ranks)) == len(self)
        return len(self.order()) == len(self)

    def order(self) -> Sequence[int]:
        """The topological order in which, of the tasks that may come next, the earliest submitted does.

        Tasks of a circle, and those behind it, are missing.
        """
        if self._order is None:
            if self.in_order:
                return range(len(self))
            self._order = self._sorted()
        return self._order

    def _sorted(self) -> list[int]:
        # Kahn 1962, as one sweep over the positions: what becomes ready ahead of the sweep is met by it
        # later, and only what becomes ready behind it needs a heap, all of which goes first.
        if self._after is None:
            self._invert()
            assert self._after is not None
        # Arrays rather than lists: a small integer made anew costs less than one fetched from far away.
        start, waiting = self._after_start, self._counts()
        after, late = self._after, self._late
        known = len(start) - 1
        passed: list[int] = []
        found: list[int] = []
        append = found.append
        for sweep in range(len(self)):
            if waiting[sweep]:
                continue
            task = sweep
            while True:
                append(task)
                behind = after[start[task] : start[task + 1]] if task < known else array("i")
                if late and task in late:
                    behind.extend(late[task])
                for other in behind:
                    count = waiting[other] - 1
                    waiting[other] = count
                    if not count and other < sweep:
                        heappush(passed, other)
                if not passed:
                    break
                task = heappop(passed)
        return found

    def levels(self) -> list[Sequence[int]]:
        """Tasks by rank: how many tasks the longest chain before them has."""
        if (ranks := self._ranks()) is not None:
            return [rank.tolist() for rank in ranks]
        start, flat, rank_of = self.start, self.flat, [0] * len(self)
        found: list[list[int]] = []
        for task in self.order():
            lo, hi = start[task], start[task + 1]
            rank = 1 + max([rank_of[other] for other in flat[lo:hi]]) if hi > lo else 0
            rank_of[task] = rank
            if rank == len(found):
                found.append([])
            found[rank].append(task)
        for each in found:
            each.sort()
        return cast("list[Sequence[int]]", found)

    def _ranks(self) -> list[Ints] | None:
        """The same with numpy, rank after rank; None if the graph is too small or too narrow for that."""
        size = len(self)
        if size < LARGE or self._late:
            return None
        if self._levels is not None:
            return self._levels or None
        import numpy as np

        if self._after is None:
            self._invert()
            assert self._after is not None
        after, start = _view(self._after), _view(self._after_start)
        counts = np.diff(_view(self.start))
        waiting = counts.copy()
        found: list[Ints] = []
        rank = np.flatnonzero(counts == 0).astype(np.int32)
        while len(rank):
            found.append(rank)
            if len(found) * NARROW > size:
                self._levels = []
                return None
            behind = after[_ranges(start[rank], start[rank + 1] - start[rank])]
            if 4 * len(behind) > size:
                waiting -= np.bincount(behind, minlength=size).astype(np.int32)
            else:
                np.subtract.at(waiting, behind, 1)
            rank = np.unique(behind[waiting[behind] == 0])
        self._levels = found
        return found

    # --- longest paths ------------------------------------------------------------------------------------

    def finish_times(self, durations: Sequence[float]) -> Sequence[float]:
        """When each task would end if nothing but its dependencies held it back."""
        if (ranks := self._ranks()) is not None:
            import numpy as np

            counts = np.diff(_view(self.start))
            edges, first_of = _view(self.flat), _view(self.start)
            ends = np.array(durations, dtype=np.float64)
            for rank in ranks[1:]:
                sizes = counts[rank]
                first = np.cumsum(sizes) - sizes
                ends[rank] += np.maximum.reduceat(ends[edges[_ranges(first_of[rank], sizes)]], first)
            return cast("Sequence[float]", ends.tolist())
        found, start, flat = list(durations), self.start, self.flat
        for task in self.order():
            lo, hi = start[task], start[task + 1]
            if hi > lo:
                found[task] += max([found[other] for other in flat[lo:hi]])
        return found

    def tail_times(self, durations: Sequence[float]) -> Sequence[float]:
        """How long the longest chain is that begins with each task: its rank in list scheduling."""
        found = list(durations)
        for task in reversed(self.order()):
            behind = self.after(task)
            if behind:
                found[task] += max([found[other] for other in behind])
        return found

    # --- reach --------------------------------------------------------------------------------------------

    def reach(self, task: int, step: Callable[[int], Iterable[int]]) -> list[int]:
        """Every task that can be reached from one by steps, in order of submission, without itself."""
        seen, stack = {task}, [task]
        while stack:
            for other in step(stack.pop()):
                if other not in seen:
                    seen.add(other)
                    stack.append(other)
        seen.discard(task)
        return sorted(seen)

    # --- helpers ------------------------------------------------------------------------------------------

    def _counts(self) -> array[int]:
        return array("i", [hi - lo for lo, hi in pairwise(self.start)])

    def _owners(self) -> Ints:
        import numpy as np

        return np.repeat(np.arange(len(self), dtype=np.int32), np.diff(_view(self.start)))

    def _invert(self) -> None:
        """Turn "waits for" around; what waits for a task stays in order of submission."""
        size = len(self)
        self._late = {}
        if size >= LARGE:
            import numpy as np

            edges = _view(self.flat)
            # One sort of 64-bit pairs is several times faster than a stable argsort.
            pairs = np.sort((edges.astype(np.int64) << 32) | self._owners())
            counts = np.bincount(edges, minlength=size)
            self._after, self._after_start = array("i"), array("i", [0])
            self._after.frombytes(pairs.astype(np.int32).tobytes())
            self._after_start.frombytes(np.cumsum(counts, dtype=np.int32).tobytes())
            return
        behind: list[list[int]] = [[] for _ in range(size)]
        for task in range(size):
            for other in self.before(task):
                behind[other].append(task)
        self._after_start = array("i", [0, *accumulate(map(len, behind))])
        self._after = array("i", [task for each in behind for task in each])


def positions_of(ids: Sequence[str], names: Iterable[str], count: int) -> Ints | None:
    """Find many names among many ids by identity; None if one of them is not the very object.

    A dictionary of a million texts costs several cache misses a look-up. Names that come from handles, or
    from the list of ids itself, are the same objects as the ids, and where an object is can be looked up
    in a table.
    """
    import numpy as np

    own = np.fromiter(map(id, ids), np.int64, len(ids))
    wanted = np.fromiter(map(id, names), np.int64, count)
    least = int(own.min()) if len(own) else 0
    own -= least
    wanted -= least
    own >>= 4
    wanted >>= 4
    span = int(own.max()) + 1 if len(own) else 0
    if span > TABLE_ENTRIES or count == 0 or int(wanted.min()) < 0 or int(wanted.max()) >= span:
        return None
    table = np.full(span, -1, np.int32)
    table[own] = np.arange(len(own), dtype=np.int32)
    found: Ints = table[wanted]
    # Two objects could only share an entry where objects are smaller than 16 bytes.
    return None if int(found.min()) < 0 or not (own[found] == wanted).all() else found


def _view(values: array[int]) -> Ints:
    import numpy as np

    return np.frombuffer(values, dtype=np.int32) if values else np.empty(0, np.int32)


def _ranges(starts: Ints, sizes: Ints) -> npt.NDArray[np.int64]:
    """The integers of many ranges, one range after the other."""
    import numpy as np

    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - ends + sizes, sizes) + np.arange(total)
