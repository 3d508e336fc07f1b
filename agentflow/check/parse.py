"""How a string that somebody read was put together: which appends it cannot do without.

Law: an append is demanded by a value only if every way of building that value from what was written and
appended uses it; a value is unmade only if there is no way at all.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence


class Demands:
    """Which reads need which append.

    Parameters
    ----------
    texts : sequence of str
        The values seen, sorted, each once.
    readers : sequence of int
        For each value, the set of operations that saw it, as bits.
    pieces : mapping
        The text that each append adds.
    roots : collection of str
        The texts that a value can begin with: what was written, and the initial one.

    Attributes
    ----------
    of_piece : dict
        For each append that some value cannot do without, the operations that saw such a value.
    useless : set
        Appends whose text is in no value that was seen.
    unmade : int
        The operations that saw a value which nothing can build.

    Examples
    --------
    >>> demands = Demands(["a", "ab", "x"], [0b001, 0b010, 0b100], {3: "b", 4: "z"}, ["", "a"])
    >>> demands.of_piece, demands.useless, demands.unmade
    ({3: 2}, {4}, 4)
    """

    def __init__(
        self,
        texts: Sequence[str],
        readers: Sequence[int],
        pieces: Mapping[int, str],
        roots: Collection[str],
    ) -> None:
        supply = Counter(pieces.values())
        self._pieces = {text for text in supply if text}
        self._lengths = sorted({len(text) for text in self._pieces})
        self._roots = set(roots)
        self.unmade = 0
        wanted: dict[str, int] = {}
        longest = []
        for ranks in _families(texts):
            longest.append(texts[ranks[-1]])
            ends = {len(texts[rank]): readers[rank] for rank in ranks}
            self._follow(longest[-1], ends, wanted)
        self.of_piece = {
            op: wanted[text] for op, text in pieces.items() if supply[text] == 1 and wanted.get(text)
        }
        unused = {text for text in self._pieces if not any(text in value for value in longest)}
        self.useless = {op for op, text in pieces.items() if text in unused}

    def _follow(self, value: str, ends: dict[int, int], wanted: dict[str, int]) -> None:
        """Trace every way to build `value`, whose prefixes of lengths `ends` were seen."""
        ways = {len(root): 1 for root in self._roots if value.startswith(root)}
        came: dict[int, tuple[int, str]] = {}
        queue = sorted(ways)
        order = []
        while queue:
            at = heapq.heappop(queue)
            order.append(at)
            for length in self._lengths:
                piece = value[at : at + length]
                if piece not in self._pieces:
                    continue
                to = at + length
                if to not in ways:
                    ways[to] = ways[at]
                    came[to] = at, piece
                    heapq.heappush(queue, to)
                else:
                    ways[to] = 2
        needs = {at: ends.get(at, 0) for at in order if ways[at] == 1}
        for at in reversed(order):
            if ways[at] == 1 and at in came:
                origin, piece = came[at]
                needs[origin] |= needs[at]
                wanted[piece] = wanted.get(piece, 0) | needs[at]
        for end, readers in ends.items():
            if end not in ways:
                self.unmade |= readers


def _families(texts: Sequence[str]) -> Iterator[list[int]]:
    """Split sorted texts into runs in which each is a prefix of the next."""
    family: list[int] = []
    for rank, text in enumerate(texts):
        family.append(rank)
        if rank + 1 == len(texts) or not texts[rank + 1].startswith(text):
            yield family
            family = []
