"""Where words may stand: each where nothing else stands yet, or not at all.

Law: two texts placed by one `Labels` never overlap, and none leaves the room.
"""

from __future__ import annotations

from collections.abc import Iterable

from agentflow.notebook.pictures import svg


class Labels:
    """The texts of one part of a picture.

    Examples
    --------
    >>> labels = Labels(0, 100)
    >>> labels.put("one", [(10, 20, "")], "t", 10) != ""
    True
    >>> labels.put("two", [(12, 21, "")], "t", 10)
    ''
    """

    def __init__(self, left: float, right: float) -> None:
        self.left, self.right = left, right
        self._boxes: list[tuple[float, float, float, float]] = []

    def block(self, x1: float, y1: float, x2: float, y2: float) -> None:
        """Keep words out of a box."""
        self._boxes.append((x1, y1, x2, y2))

    def put(
        self, words: str, places: Iterable[tuple[float, float, str]], cls: str, size: float, most: float = 150
    ) -> str:
        """The words at the first place (x, y, anchor) that is free; empty if none is."""
        words = svg.fit(words, most, size)
        wide = svg.measure(words, size)
        for x, y, anchor in places:
            left = x - {"middle": wide / 2, "end": wide}.get(anchor, 0.0)
            box = (left - 1, y - size * 0.82, left + wide + 1, y + size * 0.22)
            if box[0] < self.left or box[2] > self.right or any(_meet(box, other) for other in self._boxes):
                continue
            self._boxes.append(box)
            return svg.text(x, y, words, cls, size, anchor)
        return ""


def _meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
