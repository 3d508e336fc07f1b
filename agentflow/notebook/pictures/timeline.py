"""What happened over time: who led when, and how deep the queue was. Time runs from left to right."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

from agentflow.cluster.status import ClusterStatus, QueuePoint, Reign
from agentflow.notebook.pictures import svg
from agentflow.notebook.pictures.svg import n
from agentflow.notebook.pictures.theme import term_class

REIGNS_AT_MOST: Final = 10
CANDIDATES_AT_MOST: Final = 12
LAYERS: Final = (("low", "p1"), ("medium", "p2"), ("high", "p3"), ("urgent", "p4"))


def gaps_of(reigns: Sequence[Reign], now: float, closed: bool = False) -> list[tuple[float, float]]:
    """The times without a leader, between two and after the last.

    Examples
    --------
    >>> gaps_of([Reign(1, "a", 0.1, 1.0), Reign(2, "b", 1.2)], 5.0)
    [(1.0, 1.2)]
    """
    found = []
    for this, following in itertools.pairwise(reigns):
        if this.ended is not None and following.started > this.ended:
            found.append((this.ended, following.started))
    if reigns and (end := reigns[-1].ended) is not None and now > end and not closed:
        found.append((end, now))
    return found


def elections(status: ClusterStatus, width: float) -> tuple[str, float]:
    """A bar a term in its colour, and the time without a leader between two.

    Bars are as long as the terms where there is room, and never too short to be read.
    """
    reigns = status.reigns[-REIGNS_AT_MOST:]
    left = len(status.reigns) - len(reigns)
    lost = sum(1 for stand in status.stands if stand.outcome == "lost")
    said = f"{len(status.reigns)} won" + (f", {lost} lost" if lost else "")
    parts = [svg.caption(0, 11, "elections", said, width)]
    if not reigns:
        return "".join([*parts, svg.text(0, 40, "no leader yet", "m", 12)]), 78
    gaps = gaps_of(reigns, status.now, status.closed)
    leaderless = bool(gaps) and gaps[-1][1] >= status.now and reigns[-1].ended is not None
    gap_room = 46.0 if len(reigns) <= 5 else 14.0
    open_end = gap_room if leaderless else 0.0
    room = width - gap_room * (len(reigns) - 1) - open_end
    least = min(44.0, room / len(reigns))
    lengths = [max(0.0, (each.ended or status.now) - each.started) for each in reigns]
    spare, total = room - least * len(reigns), sum(lengths) or 1.0
    x = 0.0
    for i, reign in enumerate(reigns):
        wide = least + spare * lengths[i] / total
        parts.append(_reign(reign, x, wide, status.now))
        after = reigns[i + 1].started if i + 1 < len(reigns) else (status.now if leaderless else None)
        if after is not None and reign.ended is not None and after > reign.ended:
            parts.append(_gap(x + wide, gap_room, after - reign.ended, i + 1 == len(reigns)))
        x += wide + gap_room
    if left:
        parts.append(svg.text(0, 98, f"{left} earlier not shown", "m", 10.5))
    end = "closed" if status.closed else "now"
    parts.append(svg.text(width, 98, f"{end} {svg.seconds(status.now)}", "m", 10.5, "end"))
    return "".join(parts), 102


def _reign(reign: Reign, x: float, wide: float, now: float) -> str:
    colour = term_class(reign.term)
    took = svg.seconds((reign.ended or now) - reign.started)
    return svg.hint(
        f"term {reign.term}: {reign.leader} from {reign.started:.3f} s for {took}",
        svg.text(x, 33, f"term {reign.term}" if wide > 44 else reign.term, "m", 10.5, width=wide),
        svg.rect(x, 39, wide, 24, f"t{colour}", 3),
        svg.text(x + wide / 2, 55, reign.leader, f"k{colour}", 11, "middle", wide - 6) if wide > 30 else "",
    )


def _gap(x: float, room: float, length: float, still: bool) -> str:
    """A bracket under the gap, with how long it was."""
    bracket = svg.path(f"M{n(x + 2)} 65v5h{n(room - 4)}v-5", "badline none" if still else "ink", 1)
    said = svg.seconds(length) if room > 20 else ""
    words = f"no leader for {svg.seconds(length)}"
    shown = svg.text(x + room / 2, 82, said, "bad" if still else "m", 10, "middle", room + 30) if said else ""
    return svg.hint(words, bracket, shown)


def election_timeline(status: ClusterStatus, width: float) -> tuple[str, float]:
    """Nodes are rows: who stood (dashed), who led (filled), true to time."""
    names = [master.id for master in status.masters]
    for who in (*(reign.leader for reign in status.reigns), *(stand.candidate for stand in status.stands)):
        if who not in names:
            names.append(who)
    hidden = max(0, len(names) - CANDIDATES_AT_MOST)
    names = names[:CANDIDATES_AT_MOST]
    row = {name: 34.0 + 30 * i for i, name in enumerate(names)}
    side = 110.0
    end = max(status.now, 1e-3)
    scale = (width - side - 6) / end
    height = 34.0 + 30 * len(names)
    parts = [svg.caption(0, 11, "elections", "filled: led · dashed: stood and lost", width)]
    for at, label in svg.ticks(0, end, int((width - side) // 80)):
        x = side + at * scale
        parts += [svg.line(x, 26, x, height - 4, "grid"), svg.text(x, height + 10, label, "m", 10, "middle")]
    for a, b in gaps_of(status.reigns, status.now, status.closed):
        parts.append(
            svg.hint(
                f"no leader for {svg.seconds(b - a)}",
                svg.rect(side + a * scale, 26, max(1, (b - a) * scale), height - 30, "soft"),
            )
        )
        if (b - a) * scale > 30:
            parts.append(
                svg.text(
                    side + (a + b) / 2 * scale,
                    24,
                    svg.seconds(b - a),
                    "bad",
                    10,
                    "middle",
                    (b - a) * scale + 16,
                )
            )
    for name, y in row.items():
        parts.append(svg.text(side - 10, y + 13, name, "t", 11.5, "end", side - 14))
        parts.append(svg.line(side, y + 9, side + end * scale, y + 9, "wire"))
    parts += [_timeline_reign(each, row, side, scale, status.now) for each in status.reigns[-2000:]]
    for stand in status.stands[-2000:]:
        if stand.candidate in row and stand.outcome != "won":
            x = side + stand.started * scale
            wide = max(6.0, ((stand.decided or status.now) - stand.started) * scale)
            said = f"{stand.candidate} stood for term {stand.term}: {stand.outcome}, {stand.votes} of {stand.voters} votes ({stand.cause})"
            box = svg.rect(
                x,
                row[stand.candidate] + 1.5,
                wide,
                15,
                f"o{term_class(stand.term)} dash",
                3,
                " stroke-width='1.4'",
            )
            parts.append(svg.hint(said, box))
    if hidden:
        parts.append(svg.text(0, height + 10, f"and {hidden} more nodes", "m", 10.5, width=side))
    return "".join(parts), height + 16


def _timeline_reign(reign: Reign, row: dict[str, float], side: float, scale: float, now: float) -> str:
    if reign.leader not in row:
        return ""
    x, y = side + reign.started * scale, row[reign.leader]
    wide = max(2.0, ((reign.ended or now) - reign.started) * scale)
    colour = term_class(reign.term)
    label = f"term {reign.term}"
    shown = (
        svg.text(x + 6, y + 13, label if wide > 58 else reign.term, f"k{colour}", 10.5, width=wide - 8)
        if wide > 18
        else svg.text(x - 5, y + 13, label, "m halo", 10.5, "end")
        if x - side > 60
        else ""
    )
    return svg.hint(
        f"{reign.leader} led term {reign.term} from {reign.started:.3f} s for {svg.seconds((reign.ended or now) - reign.started)}",
        svg.rect(x, y, wide, 18, f"t{colour}", 3),
        shown,
    )


def queue(
    points: Sequence[QueuePoint], waiting: QueuePoint, width: float, height: float = 56
) -> tuple[str, float]:
    """Depth over time, a layer a priority; the most urgent on top."""
    oldest = (
        f", oldest {svg.seconds(waiting.oldest_s)}" if waiting.oldest_s is not None and waiting.depth else ""
    )
    parts = [svg.caption(0, 11, "queue", f"{waiting.depth:,} waiting{oldest}", width)]
    top, left = 26.0, 34.0
    kept = thinned(points, int((width - left) / 2))
    most = max((point.depth for point in kept), default=0)
    if most == 0:
        parts.append(svg.text(0, top + 26, "nothing has waited", "m", 12))
    else:
        begin, end = kept[0].time, max(kept[-1].time, kept[0].time + 1e-6)
        xs = [left + (width - left) * (point.time - begin) / (end - begin) for point in kept]
        floor = [0.0] * len(kept)
        for name, cls in LAYERS:
            level = [low + getattr(point, name) for low, point in zip(floor, kept, strict=True)]
            if any(getattr(point, name) for point in kept):
                parts.append(svg.path(_area(xs, floor, level, top + height, height / most), cls, 0))
            floor = level
        parts.append(svg.line(left, top + height, width, top + height, "wire"))
        parts.append(
            svg.text(
                left - 5,
                top + 8,
                f"{most:,}"
                if most < 10_000
                else f"{most / 1e3:.3g}k"
                if most < 1_000_000
                else f"{most / 1e6:.3g}M",
                "m",
                10,
                "end",
            )
        )
        parts.append(svg.text(left - 5, top + height, "0", "m", 10, "end"))
        parts.append(svg.text(left, top + height + 12, svg.seconds(begin), "m", 10))
        parts.append(svg.text(width, top + height + 12, svg.seconds(end), "m", 10, "end"))
    x, y = 0.0, top + height + 28
    for name, cls in LAYERS:
        parts.append(svg.rect(x, y - 8, 8, 8, cls, 1.5))
        parts.append(svg.text(x + 12, y, name, "m", 10.5))
        x += 24 + svg.measure(name, 10.5)
    return "".join(parts), y + 4


def _area(xs: Sequence[float], low: Sequence[float], high: Sequence[float], base: float, scale: float) -> str:
    """Steps, because a depth holds until the next sample."""
    upper = [f"M{n(xs[0])} {n(base - high[0] * scale)}"]
    upper += [f"H{n(x)}V{n(base - level * scale)}" for x, level in zip(xs[1:], high[1:], strict=True)]
    lower = [f"L{n(xs[-1])} {n(base - low[-1] * scale)}"]
    lower += [
        f"V{n(base - low[i - 1] * scale)}H{n(xs[i - 1])}" if low[i] != low[i - 1] else f"H{n(xs[i - 1])}"
        for i in range(len(xs) - 1, 0, -1)
    ]
    return "".join([*upper, *lower, "Z"])


def thinned(points: Sequence[QueuePoint], most: int) -> list[QueuePoint]:
    """At most so many points: of each stretch the deepest, so that no peak is lost."""
    most = max(2, most)
    if len(points) <= most:
        return list(points)
    size = -(-len(points) // most)
    return [
        max(points[i : i + size], key=lambda point: point.depth) for i in range(0, len(points) - 1, size)
    ] + [points[-1]]
