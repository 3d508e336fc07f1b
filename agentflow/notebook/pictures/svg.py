"""Pieces of SVG, and the width of text.

Law: text enters a picture through `text` and `hint` only, escaped, and never wider than it was given room.
"""

from __future__ import annotations

import math
from typing import Final

from agentflow.notebook.html import clean as clean
from agentflow.notebook.html import escape
from agentflow.notebook.pictures.theme import style

_NARROW: Final = frozenset("iljtfrI.,:;'|!()[]{}/\\ \"-·")
_WIDE: Final = frozenset("mwMW@%—…×✓✗↻▸⊘<>+=~#&→�")


def advance(char: str) -> float:
    """The width of a character, in sizes of the font; a little more than most fonts take."""
    if char in _NARROW:
        return 0.38
    if char in _WIDE:
        return 0.95
    if ord(char) > 0x2E7F:
        return 1.15
    return 0.72 if char.isupper() else 0.62


def measure(text: str, size: float) -> float:
    """How wide a text is at most, in pixels.

    Examples
    --------
    >>> measure("ab", 10)
    12.4
    """
    return round(size * sum(map(advance, text)), 3)


def fit(text: str, width: float, size: float) -> str:
    """The text, or as much of it as there is room for.

    Examples
    --------
    >>> fit("a long name", 40, 10)
    'a lon…'
    """
    text = clean(text[:400] if isinstance(text, str) else str(text)[:400]).replace("\n", " ")
    if measure(text, size) <= width:
        return text
    room = width - size * 0.95
    kept = []
    for char in text:
        room -= size * advance(char)
        if room < 0:
            break
        kept.append(char)
    return "".join(kept).rstrip() + "…"


def n(value: float) -> str:
    """A coordinate, as short as it can be written."""
    if not math.isfinite(value):
        return "0"
    return f"{value:.1f}".rstrip("0").rstrip(".") or "0"


def text(
    x: float,
    y: float,
    said: object,
    cls: str = "t",
    size: float = 12,
    anchor: str = "",
    width: float = math.inf,
) -> str:
    """A line of text, cut to `width`."""
    shown = fit(str(said), width, size) if width < math.inf else clean(said)
    at = f" text-anchor='{anchor}'" if anchor else ""
    return f"<text x='{n(x)}' y='{n(y)}' class='{cls}' font-size='{n(size)}'{at}>{escape(shown)}</text>"


def rect(x: float, y: float, width: float, height: float, cls: str, rx: float = 0, extra: str = "") -> str:
    """A box."""
    corner = f" rx='{n(rx)}'" if rx else ""
    return (
        f"<rect x='{n(x)}' y='{n(y)}' width='{n(max(0.0, width))}' height='{n(max(0.0, height))}' "
        f"class='{cls}'{corner}{extra}/>"
    )


def line(x1: float, y1: float, x2: float, y2: float, cls: str, width: float = 1) -> str:
    """A straight line."""
    return (
        f"<line x1='{n(x1)}' y1='{n(y1)}' x2='{n(x2)}' y2='{n(y2)}' class='{cls}' stroke-width='{n(width)}'/>"
    )


def circle(x: float, y: float, r: float, cls: str, width: float = 0) -> str:
    """A circle."""
    stroke = f" stroke-width='{n(width)}'" if width else ""
    return f"<circle cx='{n(x)}' cy='{n(y)}' r='{n(r)}' class='{cls}'{stroke}/>"


def path(d: str, cls: str, width: float = 1) -> str:
    """A path."""
    return f"<path d='{d}' class='{cls}' stroke-width='{n(width)}'/>"


def cross(x: float, y: float, r: float, cls: str = "badline", width: float = 1.6) -> str:
    """Two strokes."""
    d = f"M{n(x - r)} {n(y - r)}L{n(x + r)} {n(y + r)}M{n(x - r)} {n(y + r)}L{n(x + r)} {n(y - r)}"
    return path(d, f"{cls} none", width)


def group(x: float, y: float, *parts: str) -> str:
    """Parts moved together."""
    return f"<g transform='translate({n(x)} {n(y)})'>{''.join(parts)}</g>"


def hint(said: object, *parts: str) -> str:
    """Parts with words that a pointer brings up, and that a screen reader reads."""
    return f"<g><title>{escape(said)}</title>{''.join(parts)}</g>"


def caption(x: float, y: float, title: str, sub: str = "", width: float = math.inf) -> str:
    """The title of a part, and what it says in few words."""
    head = text(x, y, title.upper(), "m cap", 10.5)
    after = x + measure(title.upper(), 11.6) + 8
    return head + (text(after, y, sub, "m", 11, width=width - (after - x)) if sub else "")


def document(width: float, height: float, body: str, label: str, theme: str = "auto") -> str:
    """A whole picture: a card with its own background, named for screen readers."""
    back = rect(0.5, 0.5, width - 1, height - 1, "bg", 8) + rect(0.5, 0.5, width - 1, height - 1, "edge", 8)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{n(width)}' height='{n(height)}' "
        f"viewBox='0 0 {n(width)} {n(height)}' role='img' aria-label='{escape(label)}'>"
        f"<title>{escape(label)}</title>{style(theme)}{back}{body}</svg>"
    )


def count(number: int, noun: str, many: str = "") -> str:
    """So many of something.

    Examples
    --------
    >>> count(1, "task"), count(1200, "task")
    ('1 task', '1,200 tasks')
    """
    return f"{number:,} {noun if number == 1 else many or noun + 's'}"


def seconds(value: float) -> str:
    """A length of time with its unit.

    Examples
    --------
    >>> seconds(0.0042), seconds(0.214), seconds(9.41), seconds(132), seconds(7300)
    ('4.2 ms', '214 ms', '9.4 s', '2 min 12 s', '2 h 1 min')
    """
    if not math.isfinite(value):
        return "∞" if value > 0 else "–"
    if value < 0.01:
        return f"{value * 1000:.2g} ms" if value > 0 else "0 s"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    if value < 3600:
        return f"{int(value // 60)} min {int(value % 60)} s"
    return f"{int(value // 3600)} h {int(value % 3600 // 60)} min"


def ticks(start: float, end: float, most: int = 8) -> list[tuple[float, str]]:
    """Round instants between two, with their labels.

    Examples
    --------
    >>> ticks(0, 2, 4)
    [(0.0, '0 s'), (0.5, '0.5 s'), (1.0, '1 s'), (1.5, '1.5 s'), (2.0, '2 s')]
    """
    span = max(end - start, 1e-6)
    raw = span / max(1, most)
    base = 10.0 ** math.floor(math.log10(raw))
    step = next(base * k for k in (1, 2, 5, 10) if base * k >= raw * 0.999)
    first = math.ceil(start / step - 1e-9)
    last = math.floor(end / step + 1e-9)
    milli = step < 0.1 and end < 1
    unit, scale = ("ms", 1000.0) if milli else ("s", 1.0)
    return [(round(i * step, 9), f"{round(i * step * scale, 6):g} {unit}") for i in range(first, last + 1)]
