"""The space-time diagram: a line a node, an arrow a message, time from left to right (Lamport 1978).

Law: what a message is can be told without colour: heads are requests, rings are answers, crosses are losses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from agentflow.cluster.spacetime import Hop, Mark, SpaceTime, Stretch
from agentflow.notebook.pictures import svg
from agentflow.notebook.pictures.axis import Band, axis
from agentflow.notebook.pictures.labels import Labels
from agentflow.notebook.pictures.svg import n
from agentflow.notebook.pictures.theme import term_class

WIDE: Final = 960.0
PAD: Final = 16.0
ROWS_AT_MOST: Final = 24
SIDE: Final = 92.0
TOP: Final = 22.0
FOOT: Final = 20.0

_LINED: Final = {"client": "blue", "agent": "blue", "work": "ink", "other": "ink", "heartbeat": "down"}
_FILLED: Final = {"client": "bluefill", "agent": "bluefill", "heartbeat": "m"}


def describe(story: SpaceTime) -> str:
    """The diagram in a sentence, for those who cannot see it."""
    return (
        f"{story.title or 'space-time'}: {svg.count(len(story.hops), 'message')} between "
        f"{svg.count(len(story.nodes), 'node')}, {story.lost} lost, "
        f"from {story.start:.3g} s to {story.end:.3g} s"
    )


def spacetime_svg(story: SpaceTime, width: float = WIDE, theme: str = "auto") -> str:
    """Draw a stretch of a run.

    Parameters
    ----------
    story : SpaceTime
        What to show.
    width : float
        In pixels.
    theme : {"auto", "light", "dark"}
        `auto` follows the viewer.

    Examples
    --------
    >>> spacetime_svg(SpaceTime("demo", 0.0, 1.0)).startswith("<svg")
    True
    """
    inner = width - 2 * PAD
    parts = [svg.group(PAD, PAD, svg.caption(0, 11, "space-time", _caption(story), inner))]
    y = PAD + 24
    rows = story.nodes[:ROWS_AT_MOST]
    if not rows:
        parts.append(svg.text(PAD, y + 18, "nothing has happened", "m", 12))
        return svg.document(width, y + 40, "".join(parts), describe(story), theme)
    tall = 46.0 if len(rows) <= 6 else 38.0 if len(rows) <= 10 else 30.0
    bands = _bands(story, rows, inner - SIDE)
    for band in bands:
        drawn = _Drawing(story, rows, band, tall)
        parts.append(svg.group(PAD, y, drawn.body()))
        y += drawn.height
    if len(story.nodes) > len(rows):
        parts.append(
            svg.text(PAD, y + 8, f"and {len(story.nodes) - len(rows)} more nodes; nodes= chooses", "m", 10.5)
        )
        y += 16
    key, high = legend(story, inner, any(piece.quiet for band in bands for piece in band.pieces))
    parts.append(svg.group(PAD, y + 4, key))
    return svg.document(width, y + high + 12, "".join(parts), describe(story), theme)


def _caption(story: SpaceTime) -> str:
    said = [story.title] if story.title else []
    lost = f", {story.lost:,} lost" if story.lost else ""
    said.append(f"{story.start:.4g} s to {story.end:.4g} s, {svg.count(len(story.hops), 'message')}{lost}")
    if story.hidden:
        hidden = ", ".join(f"{count:,} {family}" for family, count in story.hidden)
        said.append(f"{'no room, give start= or end=, for' if story.thinned else 'not shown'}: {hidden}")
    return " · ".join(said)


def _bands(story: SpaceTime, rows: Sequence[str], room: float) -> list[Band]:
    shown = frozenset(rows)
    instants = [mark.time for mark in story.marks]
    instants += [cut.start for cut in story.cuts] + [cut.end for cut in story.cuts if cut.end is not None]
    instants += [s.start for s in story.stretches if s.node in shown and s.start > story.start]
    delays = []
    for hop in story.hops:
        instants.append(hop.sent)
        if hop.ended is not None:
            instants.append(hop.ended)
            if hop.ended > hop.sent and hop.source != hop.destination:
                delays.append(hop.ended - hop.sent)
    inside = [at for at in instants if story.start <= at <= story.end]
    return axis(story.start, story.end, inside, delays, room)


class _Drawing:
    """One band of the diagram."""

    def __init__(self, story: SpaceTime, rows: Sequence[str], band: Band, tall: float) -> None:
        self.story, self.rows, self.band = story, rows, band
        over = any(not mark.node and self._in(mark.time) for mark in story.marks) or any(
            cut.start < band.end and (cut.end is None or cut.end >= band.start) for cut in story.cuts
        )
        self.first = TOP + (14 if over else 0) + tall * 0.62
        self.at = {node: self.first + tall * i for i, node in enumerate(rows)}
        self.bottom = self.first + tall * (len(rows) - 1) + tall * 0.42
        self.height = self.bottom + FOOT
        self.right = SIDE + band.right
        self.labels = Labels(SIDE - 4, self.right + 4)
        for y in self.at.values():
            self.labels.block(SIDE, y - 4, self.right, y + 4)
        self.words: list[str] = []

    def _in(self, time: float) -> bool:
        return self.band.holds(time)

    def x(self, time: float) -> float:
        return SIDE + self.band.x(time)

    def body(self) -> str:
        """All of it, what is behind first."""
        over = [part for mark in self.story.marks if not mark.node for part in self._mark(mark)]
        behind = [*self._quiet(), *over, *self._cuts(), *self._ticks()]
        # The first word takes the room, so those who lead are named first.
        own = [s for s in self.story.stretches if s.node in self.at]
        own.sort(key=lambda s: s.role != "leader")
        lines = [part for stretch in own for part in self._stretch(stretch)]
        names = [svg.text(SIDE - 10, y + 4, node, "t", 11.5, "end", SIDE - 12) for node, y in self.at.items()]
        marks = [part for mark in self.story.marks if mark.node for part in self._mark(mark)]
        self.hops = [hop for hop in self.story.hops if hop.source in self.at and hop.destination in self.at]
        hops = [part for hop in self.hops for part in self._hop(hop)]
        self._say_hops()
        return "".join([*behind, *names, *lines, *hops, *marks, *self.words])

    # --- time -------------------------------------------------------------------------------------------

    def _quiet(self) -> list[str]:
        """Shaded where time is shortened, with how long it was."""
        parts = []
        for piece in self.band.pieces:
            if not piece.quiet:
                continue
            x, length = SIDE + piece.x, svg.seconds(piece.end - piece.start)
            parts.append(
                svg.hint(
                    f"{length} in which nothing shown here happens; drawn shorter",
                    svg.rect(x, self.first - 16, piece.wide, self.bottom - self.first + 18, "soft"),
                )
            )
            if piece.wide >= 22:
                parts.append(
                    svg.text(
                        x + piece.wide / 2, self.bottom + 11, length, "m", 9.5, "middle", piece.wide + 24
                    )
                )
        return parts

    def _ticks(self) -> list[str]:
        """Round instants where time is true to scale; the first of a burst where there is no round one."""
        parts: list[str] = []
        y = self.first - 22
        free = SIDE - 20.0
        for piece in self.band.pieces:
            span = piece.end - piece.start
            if piece.quiet or span <= 0:
                continue
            found = svg.ticks(piece.start, piece.end, max(1, int(piece.wide // 62)))
            if not found:
                middle = (piece.start + piece.end) / 2
                found = [(middle, instant(middle, span))]
            for at, label in found:
                x = self.x(at)
                if not math.isclose(at, piece.start) or piece.x == 0:
                    parts.append(svg.line(x, self.first - 16, x, self.bottom, "grid dot"))
                half = svg.measure(label, 9.5) / 2
                if x - half > free and x + half < self.right + 14:
                    parts.append(svg.text(x, y, label, "m", 9.5, "middle"))
                    free = x + half + 6
        return parts

    # --- faults -----------------------------------------------------------------------------------------

    def _cuts(self) -> list[str]:
        parts = []
        for cut in self.story.cuts:
            end = self.story.end if cut.end is None else cut.end
            if end < self.band.start or cut.start > self.band.end:
                continue
            x1, x2 = self.x(cut.start), self.x(end)
            length = "" if cut.end is None else f" for {svg.seconds(end - cut.start)}"
            for node in cut.apart:
                if node in self.at:
                    y = self.at[node]
                    edge = f"M{n(x1)} {n(y - 15)}H{n(x2)}M{n(x1)} {n(y + 11)}H{n(x2)}"
                    parts.append(
                        svg.hint(
                            f"{cut.said}{length}",
                            svg.rect(x1, y - 15, x2 - x1, 26, "zone"),
                            svg.path(edge, "badline none dash", 1),
                        )
                    )
            # The short words first: the long ones can be cut to the room that is left.
            if cut.end is not None and self._in(end):
                parts.append(self._wall(end, "" if self._cut_at(end) else "healed", "good"))
            if self._in(cut.start):
                parts.append(self._wall(cut.start, f"{cut.said}{length}", "bad"))
            elif x2 - x1 > 60:
                self._head(SIDE, "still cut", "bad")
        return parts

    def _cut_at(self, time: float) -> bool:
        return any(cut.start == time for cut in self.story.cuts)

    def _wall(self, time: float, words: str, cls: str) -> str:
        """A line through all rows, with words above it."""
        x = self.x(time)
        if words:
            self._head(x, words, cls)
        return svg.path(f"M{n(x)} {n(self.first - 18)}V{n(self.bottom)}", "badline none dash", 1)

    def _head(self, x: float, words: str, cls: str) -> None:
        y = self.first - 36
        for most in (420, 300, 200, 130, 70):
            shown = self.labels.put(words, [(x + 2, y, ""), (x - 2, y, "end")], cls, 10, most)
            if shown:
                self.words.append(shown)
                return

    def _mark(self, mark: Mark) -> list[str]:
        if not self._in(mark.time) or (mark.node and mark.node not in self.at):
            return []
        if not mark.node:
            x = self.x(mark.time)
            self._head(x, mark.said, "warn")
            return [svg.path(f"M{n(x)} {n(self.first - 18)}V{n(self.bottom)}", "wire none dot", 1)]
        x, y = self.x(mark.time), self.at[mark.node]
        cls, shape = "bad", svg.cross(x, y, 4.5, width=2)
        if mark.kind in ("restart", "resume"):
            cls, shape = "good", svg.circle(x, y, 4.5, "bg") + svg.circle(x, y, 4.5, "l-completed none", 2)
        elif mark.kind in ("pause", "fault"):
            cls = "warn"
            shape = svg.rect(x - 3.5, y - 5, 2.6, 10, "warn") + svg.rect(x + 1, y - 5, 2.6, 10, "warn")
            if mark.kind == "fault":
                shape = svg.path(f"M{n(x)} {n(y - 6)}l5 9h-10z", "warn", 0)
        places = [(x + 7, y - 8, ""), (x - 2, y - 8, "end"), (x + 7, y + 14, ""), (x - 2, y + 14, "end")]
        self.words.append(self.labels.put(mark.said, places, f"{cls} halo", 10))
        return [svg.hint(f"{mark.node}: {mark.said} at {mark.time:.3f} s", shape)]

    # --- nodes ------------------------------------------------------------------------------------------

    def _stretch(self, stretch: Stretch) -> list[str]:
        if stretch.end < self.band.start or stretch.start > self.band.end:
            return []
        x1, x2, y = self.x(stretch.start), self.x(stretch.end), self.at[stretch.node]
        if x2 <= x1 and stretch.end < self.band.end:
            return []
        said, words = _role(stretch)
        began = self._in(stretch.start) and stretch.start > self.band.start
        if words and (began or stretch.role == "leader"):
            places = [(x1 + 3, y - 8, ""), (x1 + 3, y + 14, "")]
            places += [(x1 + dx, y - 8, "") for dx in range(12, int(x2 - x1) - 40, 12)]
            places.append((x1 - 3, y - 8, "end"))
            cls = "t halo" if stretch.role == "leader" else "m halo"
            self.words.append(self.labels.put(words, places, cls, 10))
        colour = term_class(stretch.term)
        lined = f"a{colour}" if stretch.term else "ink"
        if stretch.state == "down":
            shape = svg.path(f"M{n(x1)} {n(y)}H{n(x2)}", "down dot", 1.4)
        elif stretch.state == "paused":
            shape = svg.path(f"M{n(x1)} {n(y - 2)}H{n(x2)}M{n(x1)} {n(y + 2)}H{n(x2)}", "wire", 1.2)
        elif not stretch.role:
            shape = svg.path(f"M{n(x1)} {n(y)}H{n(x2)}", "ink", 1.2)
        elif stretch.role == "leader":
            shape = svg.rect(x1, y - 4.5, x2 - x1, 9, f"t{colour}", 2)
        elif "candidate" in stretch.role:
            shape = svg.rect(x1, y - 4, x2 - x1, 8, "bg") + svg.rect(
                x1, y - 4, x2 - x1, 8, f"{lined} none dash", 2, " stroke-width='1.4'"
            )
        else:
            line = "wire" if stretch.term == 0 else f"o{colour}"
            shape = svg.path(f"M{n(x1)} {n(y)}H{n(x2)}", line, 3.2)
        long = svg.seconds(stretch.end - stretch.start)
        return [svg.hint(f"{stretch.node}: {said}, from {stretch.start:.3f} s for {long}", shape)]

    # --- messages ---------------------------------------------------------------------------------------

    def _way(self, hop: Hop) -> tuple[float, float, float, float, bool, bool] | None:
        """Both ends of a message on this band, and whether its real ends are here."""
        y1, y2 = self.at[hop.source], self.at[hop.destination]
        sent, ended = hop.sent, hop.ended
        if hop.lost and ended is not None:
            # Lost on the wire it never comes near; refused at its end it almost arrives.
            share = 0.82 if hop.lost in ("down", "no such node") else 0.5
            if not self._in(sent):
                return None
            x1 = self.x(sent)
            x2 = min(max(self.x(ended), x1 + 12), self.right)
            return x1, y1, x1 + (x2 - x1) * share, y1 + (y2 - y1) * share, True, True
        if ended is None:
            if not self._in(sent):
                return None
            x1 = self.x(sent)
            x2 = max(x1, min(self.x(self.story.end), x1 + 40))
            return x1, y1, x2, y1 + (y2 - y1) * 0.6, True, False
        if ended < self.band.start or sent > self.band.end or (sent == self.band.end and ended > sent):
            return None
        span = ended - sent
        a, b = max(sent, self.band.start), min(ended, self.band.end)
        from_, to = ((a - sent) / span, (b - sent) / span) if span > 0 else (0.0, 1.0)
        return (
            self.x(a),
            y1 + (y2 - y1) * from_,
            self.x(b),
            y1 + (y2 - y1) * to,
            sent >= self.band.start,
            ended <= self.band.end,
        )

    def _hop(self, hop: Hop) -> list[str]:
        way = self._way(hop)
        if way is None:
            return []
        x1, y1, x2, y2, _, whole = way
        saying = hop.saying
        lined, filled = _look(hop)
        thin = 0.9 if saying.weight >= 5 or saying.answer else 1.4
        dashed = " dash" if hop.lost else " dot" if saying.trial or hop.ended is None else ""
        if hop.source == hop.destination:
            shape = [
                svg.path(f"M{n(x1)} {n(y1)}c-8 -14 8 -14 {n(max(4.0, x2 - x1))} 0", f"{lined} none", thin)
            ]
        else:
            shape = [svg.path(f"M{n(x1)} {n(y1)}L{n(x2)} {n(y2)}", f"{lined}{dashed}", thin)]
            if hop.lost:
                shape.append(svg.cross(x2, y2, 3.4))
            elif whole:
                shape.append(_tip(x1, y1, x2, y2, saying.answer, saying.family, lined, filled))
        took = "" if hop.ended is None else f", {svg.seconds(hop.ended - hop.sent)}"
        fate = f", lost ({hop.lost})" if hop.lost else took if took else ", under way"
        words = f"{hop.source} → {hop.destination} at {hop.sent:.4f} s{fate}: {hop.type}, {saying.said}"
        return [svg.hint(words, *shape)]

    def _say_hops(self) -> None:
        """Words beside the arrows, the most telling first; what is sent to many is said once."""
        told: set[tuple[str, float, str]] = set()
        for hop in sorted(self.hops, key=lambda h: (h.saying.weight, h.sent)):
            label = hop.saying.label
            key = (hop.source, hop.sent, label)
            if not label or key in told:
                continue
            way = self._way(hop)
            if way is None or not way[4]:
                continue
            x1, y1, x2, y2, _, _ = way
            places = []
            for share in (0.5, 0.38, 0.62, 0.25, 0.75):
                x, y = x1 + (x2 - x1) * share, y1 + (y2 - y1) * share
                places += [(x + 5, y + 3, ""), (x - 5, y + 3, "end")]
            shown = self.labels.put(label, places, "m halo", 9.5)
            if shown:
                told.add(key)
                self.words.append(shown)


def instant(at: float, span: float) -> str:
    """A point of time, as exact as what is shown around it.

    Examples
    --------
    >>> instant(12.34567, 0.05), instant(12.34567, 5), instant(0.0123456, 1e-4)
    ('12.346 s', '12.3 s', '0.01235 s')
    """
    digits = max(0, min(6, 1 - math.floor(math.log10(max(span, 1e-9)))))
    return f"{at:.{min(digits, 3) if span > 5e-4 else digits}f} s"


def _role(stretch: Stretch) -> tuple[str, str]:
    """What a stretch is in full, and the words that stand beside it."""
    if stretch.state != "up":
        return stretch.state, ""
    if not stretch.role:
        return "up", ""
    said = f"{stretch.role} in term {stretch.term}"
    if stretch.role == "follower":
        return said, f"term {stretch.term}" if stretch.term else ""
    return (
        said,
        "pre-candidate" if stretch.role == "pre-candidate" else f"{stretch.role}, term {stretch.term}",
    )


def _look(hop: Hop) -> tuple[str, str]:
    """The classes of line and head: those of its term, or of its family."""
    family = hop.saying.family
    if family in ("election", "append") and hop.saying.term:
        colour = term_class(hop.saying.term)
        return f"a{colour}", f"h{colour}"
    return _LINED.get(family, "ink"), _FILLED.get(family, "inkfill")


def _tip(
    x1: float, y1: float, x2: float, y2: float, answer: bool, family: str, lined: str, filled: str
) -> str:
    """A head for what is asked or told, a ring for an answer, a dot for a heartbeat."""
    length = math.hypot(x2 - x1, y2 - y1) or 1.0
    ux, uy = (x2 - x1) / length, (y2 - y1) / length
    if family == "heartbeat":
        return svg.circle(x2, y2, 1.8, filled)
    if answer:
        x, y = x2 - 3 * ux, y2 - 3 * uy
        return svg.circle(x, y, 2.6, "bg") + svg.circle(x, y, 2.6, f"{lined} none", 1.2)
    bx, by = x2 - 8 * ux, y2 - 8 * uy
    d = f"M{n(x2)} {n(y2)}L{n(bx - 3 * uy)} {n(by + 3 * ux)}L{n(bx + 3 * uy)} {n(by - 3 * ux)}Z"
    return svg.path(d, filled, 0)


def legend(story: SpaceTime, width: float, quiet: bool) -> tuple[str, float]:
    """The marks that occur, and what they mean."""
    roles = {s.role for s in story.stretches}
    states = {s.state for s in story.stretches}
    keys: list[tuple[str, str]] = []
    if "leader" in roles:
        keys.append((svg.rect(0, -8, 22, 9, "t0", 2), "leader"))
    if "follower" in roles:
        keys.append((svg.path("M0 -4H22", "o0", 3.2), "follower"))
    if any("candidate" in role for role in roles):
        keys.append((svg.rect(0, -8, 22, 8, "a0 dash", 2, " stroke-width='1.4'"), "candidate"))
    if "down" in states:
        keys.append((svg.path("M0 -4H22", "down dot", 1.4), "down"))
    if "paused" in states:
        keys.append((svg.path("M0 -6H22M0 -2H22", "wire", 1.2), "paused"))
    if any(not hop.saying.answer for hop in story.hops):
        keys.append(
            (
                svg.path("M0 -4H16", "ink", 1.2) + _tip(0, -4, 22, -4, False, "", "ink", "inkfill"),
                "message",
            )
        )
    if any(hop.saying.answer for hop in story.hops):
        keys.append(
            (svg.path("M0 -4H17", "ink", 0.9) + _tip(0, -4, 23, -4, True, "", "ink", "inkfill"), "answer")
        )
    if any(hop.saying.trial for hop in story.hops):
        keys.append((svg.path("M0 -4H22", "ink dot", 1.4), "pre-vote"))
    if story.lost:
        keys.append((svg.path("M0 -4H18", "ink dash", 1.2) + svg.cross(20, -4, 3.4), "lost"))
    if story.cuts:
        keys.append(
            (svg.rect(0, -9, 22, 10, "zone") + svg.path("M0 -9H22M0 1H22", "badline none dash", 1), "cut off")
        )
    if quiet:
        keys.append((svg.rect(0, -9, 22, 11, "soft"), "quiet time, shortened"))
    parts, x, y = [], 0.0, 12.0
    for shape, word in keys:
        wide = 28 + svg.measure(word, 10) + 16
        if x + wide > width and x > 0:
            x, y = 0.0, y + 16
        parts.append(svg.group(x, y, shape, svg.text(28, 0, word, "m", 10)))
        x += wide
    return "".join(parts), y + 6
