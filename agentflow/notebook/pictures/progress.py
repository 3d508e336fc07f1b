"""How far a run is: one bar, by state."""

from __future__ import annotations

from collections.abc import Sequence

from agentflow.notebook.pictures import svg
from agentflow.notebook.pictures.theme import BAR_ORDER, MARKS, STATES, WORDS


def bar(counts: Sequence[int], width: float, height: float = 12) -> tuple[str, float]:
    """A bar and the numbers under it; every state that has a task can be seen.

    Parameters
    ----------
    counts : sequence of int
        Tasks by state, in the order of `State`.
    width, height : float
        Of the bar.
    """
    found = dict(zip(STATES, counts, strict=True))
    total = sum(counts)
    parts = [svg.rect(0, 0, width, height, "soft", 3)]
    present = [name for name in BAR_ORDER if found[name]]
    least = 3.0
    spare = width - least * len(present)
    x = 0.0
    for name in present:
        wide = least + spare * found[name] / total
        parts.append(
            svg.hint(f"{found[name]:,} {WORDS[name]}", svg.rect(x, 0, wide, height, f"s-{name.lower()}"))
        )
        x += wide
    parts.append(svg.rect(0.5, 0.5, width - 1, height - 1, "edge", 3))
    x, y = 0.0, height + 15
    for name in present:
        said = f"{MARKS[name]} {found[name]:,} {WORDS[name]}".strip()
        wide = svg.measure(said, 11)
        if x + wide + 14 > width and x:
            x, y = 0.0, y + 15
        parts.append(
            svg.rect(x, y - 8, 8, 8, f"s-{name.lower()}", 1.5) + svg.rect(x + 0.5, y - 7.5, 7, 7, "edge", 1.5)
        )
        parts.append(svg.text(x + 12, y, said, "m", 11))
        x += wide + 22
    if not total:
        parts.append(svg.text(0, y, "no tasks", "m", 11))
    return "".join(parts), y + 2
