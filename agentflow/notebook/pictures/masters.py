"""The masters: a ring of discs, and the tail of each one's log."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from agentflow.cluster.status import ClusterStatus, MasterStatus
from agentflow.notebook.pictures import svg
from agentflow.notebook.pictures.svg import n
from agentflow.notebook.pictures.theme import term_class

RING_AT_MOST: Final = 15
ROWS_AT_MOST: Final = 9
SHOWN: Final = {"leader": "●", "follower": "○", "candidate": "◌", "pre-candidate": "◌"}


def said_of(master: MasterStatus) -> str:
    """What a master is, in a word."""
    words = {"down": "crashed", "paused": "paused", "starting": "starting"}
    return words.get(master.state, master.role)


def ring(status: ClusterStatus, width: float, height: float) -> str:
    """The masters on a circle: leader filled, candidate dashed, crashed crossed out."""
    masters = status.masters[:RING_AT_MOST]
    count = len(masters)
    if not count:
        return svg.text(width / 2, height / 2, "no masters", "m", 12, "middle")
    r = 25 if count <= 5 else 20 if count <= 9 else 14
    cx, cy = width / 2, height / 2
    rx, ry = max(0.0, width / 2 - r - 62), max(0.0, height / 2 - r - 50)
    ry = min(ry, max(rx * 1.3, 60.0))
    at = {
        master.id: (
            cx + (rx * math.sin(2 * math.pi * i / count) if count > 1 else 0),
            cy - (ry * math.cos(2 * math.pi * i / count) if count > 1 else 0),
        )
        for i, master in enumerate(masters)
    }
    parts = _wires(status, at)
    for i, master in enumerate(masters):
        angle = 2 * math.pi * i / count
        way = (math.sin(angle), math.cos(angle)) if count > 9 else None
        parts.append(_disc(master, *at[master.id], r, count, at[master.id][1] < cy - ry / 2, way))
    if len(status.masters) > count:
        parts.append(svg.text(cx, height - 6, f"and {len(status.masters) - count} more", "m", 11, "middle"))
    return "".join(parts)


def _wires(status: ClusterStatus, at: dict[str, tuple[float, float]]) -> list[str]:
    """Lines from the leader to its followers, and every cut as a dashed red one with a cross."""
    parts = []
    down = {master.id for master in status.masters if master.state == "down"}
    cuts = {frozenset(cut) for cut in status.cuts if not down.intersection(cut)}
    leader = status.leader
    if leader in at:
        x1, y1 = at[leader]
        parts += [
            svg.line(x1, y1, x2, y2, "wire", 1.2)
            for node, (x2, y2) in at.items()
            if node != leader and node not in down and frozenset((leader, node)) not in cuts
        ]
    for cut in list(cuts)[:60] if len(at) <= 9 else []:
        a, b = sorted(cut)
        if a in at and b in at:
            (x1, y1), (x2, y2) = at[a], at[b]
            parts.append(svg.line(x1, y1, x2, y2, "badline dash", 1.2))
            parts.append(svg.cross((x1 + x2) / 2, (y1 + y2) / 2, 4))
    return sorted(parts)


def _disc(
    master: MasterStatus,
    x: float,
    y: float,
    r: float,
    count: int,
    above: bool,
    way: tuple[float, float] | None,
) -> str:
    colour = term_class(master.term)
    size = (14 if r > 18 else 11) - (3 if master.term > 999 else 0)
    back = svg.circle(x, y, r, "bg")
    if master.state == "down":
        body = [back, svg.circle(x, y, r, "down", 1.6), svg.cross(x, y, r * 0.34, "down", 2)]
    elif master.state == "paused":
        bars = "".join(
            svg.rect(x + dx, y - r * 0.36, r * 0.2, r * 0.72, "inkfill") for dx in (-r * 0.3, r * 0.1)
        )
        body = [back, svg.circle(x, y, r, f"o{colour}", 2.4), bars]
    elif master.role == "leader":
        body = [
            svg.circle(x, y, r + 5, "bg"),
            svg.circle(x, y, r + 4, f"o{colour}", 1.8),
            svg.circle(x, y, r - 0.5, f"t{colour}"),
            svg.text(x, y + size * 0.36, master.term, f"k{colour} b", size, "middle"),
        ]
    else:
        dashed = " dash" if "candidate" in master.role else ""
        body = [back, svg.circle(x, y, r, f"o{colour}{dashed}", 2.6)]
        if not dashed and master.fuse > 0:
            body.append(_arc(x, y, r + 4.5, master.fuse))
        body.append(svg.text(x, y + size * 0.36, master.term, "t b", size, "middle"))
        body += [
            svg.circle(x + (i - (len(master.votes) - 1) / 2) * 9, y - r - 9, 3, f"t{colour}")
            for i in range(len(master.votes[:9]))
        ]
    room = 118 if count <= 9 else 76
    word = said_of(master)
    odd = word not in ("leader", "follower")
    # Away from the middle, where the wires are.
    first = y - r - (30 if odd or master.votes else 12) if above else y + r + 19
    label = svg.text(x, first, master.id, "t halo", 12 if r > 18 else 10, "middle", room)
    if way is not None:
        # Many discs: names stand outside the ring, beside it.
        along, up = way
        side = "middle" if abs(along) < 0.2 else "start" if along > 0 else "end"
        across, down = x + (r + 6) * along, y - (r + 9) * up + 3
        beside = svg.text(across, down, master.id, "t halo", 9.5, side, 58)
        return svg.hint(f"{master.id}: {word}, term {master.term}", *body, beside)
    if odd and not master.votes:
        cls = "bad halo" if word == "crashed" else "m halo"
        label += svg.text(x, first + 13, word, cls, 10.5, "middle", room)
    return svg.hint(f"{master.id}: {word}, term {master.term}, commit {master.commit}", *body, label)


def _arc(x: float, y: float, r: float, share: float) -> str:
    """The part of the election time-out that has passed, clockwise from the top."""
    angle = 2 * math.pi * min(0.999, share)
    end = f"{n(x + r * math.sin(angle))} {n(y - r * math.cos(angle))}"
    return svg.path(f"M{n(x)} {n(y - r)}A{n(r)} {n(r)} 0 {int(share > 0.5)} 1 {end}", "ink", 1.4)


def logs(masters: Sequence[MasterStatus], width: float) -> tuple[str, float]:
    """A row a master: the last entries, solid if committed, and commit / last index."""
    parts = [svg.caption(0, 11, "replicated log", "solid: committed · dashed: not yet", width)]
    shown = masters[:ROWS_AT_MOST]
    names, numbers, cell = 118.0, 112.0, 25.0
    room = max(1, int((width - names - numbers - 34) // cell))
    last = max((master.last for master in shown), default=0)
    first = max(1, last - room + 1)
    for i, master in enumerate(shown):
        y = 26 + i * 36
        parts.append(_log_row(master, y, width, names, cell, first, last))
        if i:
            parts.append(svg.line(0, y - 3, width, y - 3, "grid"))
    height = 26 + len(shown) * 36
    if len(masters) > len(shown):
        parts.append(svg.text(0, height + 10, f"and {len(masters) - len(shown)} more masters", "m", 11))
        height += 16
    return "".join(parts), height


def _log_row(
    master: MasterStatus, y: float, width: float, names: float, cell: float, first: int, last: int
) -> str:
    word = said_of(master)
    mark = "✕" if word == "crashed" else "‖" if word == "paused" else SHOWN.get(master.role, "○")
    parts = [
        svg.text(0, y + 12, mark, "m" if word == "crashed" else "t", 11),
        svg.text(15, y + 12, master.id, "t", 12, width=names - 19),
        svg.text(15, y + 25, word, "bad" if word == "crashed" else "m", 10.5, width=names - 19),
    ]
    if word == "crashed":
        parts.append(
            svg.text(names, y + 17, "what its disk holds is read at restart", "m", 11, width=width - names)
        )
        return "".join(parts)
    x = names
    tail = [entry for entry in master.tail if entry[0] >= first]
    before = (tail[0][0] if tail else master.last + 1) - 1
    if before > 0:
        parts.append(svg.text(x + 26, y + 18, f"+{_brief(before)}", "m", 10, "end", 30))
    x += 31
    if not tail and last > master.last:
        behind = svg.count(last - master.last, "entry", "entries")
        parts.append(svg.text(x + 4, y + 18, f"{behind} behind", "m", 11, width=width - x - 120))
    for index, term in tail:
        at = x + (index - first) * cell
        colour = term_class(term)
        done = index <= master.commit
        said = str(term) if term < 1000 else "…"
        if done:
            box = svg.rect(at, y + 4, 22, 20, f"t{colour}", 3)
            number = svg.text(at + 11, y + 18, said, f"k{colour}", 10.5, "middle", 21)
        else:
            box = svg.rect(at + 0.5, y + 4.5, 21, 19, f"o{colour} dash", 3, " stroke-width='1.3'")
            number = svg.text(at + 11, y + 18, said, "t", 10.5, "middle", 21)
        parts.append(box + number)
    parts.append(svg.text(width, y + 18, f"{master.commit:,} / {master.last:,}", "m", 12, "end"))
    return "".join(parts)


def _brief(count: int) -> str:
    for limit, unit in ((1_000_000, "M"), (1_000, "k")):
        if count >= limit:
            return f"{count / limit:.3g}{unit}"
    return str(count)
