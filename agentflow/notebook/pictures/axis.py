"""A time axis for events that come in bursts: busy moments at one scale, quiet ones shortened, in as many bands as it takes.

Law: within bursts every pixel is the same length of time, in all bands; where time is shortened it says so,
with the length. An axis that is readable at one scale throughout is left so.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Final

import msgspec

ENOUGH_PX: Final = 24.0
"""An axis on which a usual message takes so many pixels is left at one scale."""

WISHED_PX: Final = 18.0
"""What a usual message takes within bursts, if a few bands are room enough."""

BUSY_SHARE: Final = 0.4
"""As long as so much of it is busy."""

QUIET_FACTOR: Final = 5.0
BANDS_AT_MOST: Final = 5
BURST_PX: Final = 16.0
GAP_PX: Final = 40.0


class Piece(msgspec.Struct, frozen=True):
    """A stretch of time on a band; `quiet` ones are not true to scale."""

    start: float
    end: float
    x: float
    wide: float
    quiet: bool = False


class Band(msgspec.Struct, frozen=True):
    """One line of the picture, from left to right."""

    pieces: tuple[Piece, ...]
    last: bool = True

    def holds(self, time: float) -> bool:
        """Whether an instant is on this band; one that ends a band begins the next."""
        return self.start <= time < self.end or (self.last and time == self.end)

    @property
    def start(self) -> float:
        """Its first instant."""
        return self.pieces[0].start

    @property
    def end(self) -> float:
        """Its last instant."""
        return self.pieces[-1].end

    @property
    def right(self) -> float:
        """Where it ends."""
        return self.pieces[-1].x + self.pieces[-1].wide

    def x(self, time: float) -> float:
        """Where an instant is; what lies outside is at the edge."""
        time = min(max(time, self.start), self.end)
        piece = next((each for each in self.pieces if time <= each.end), self.pieces[-1])
        span = piece.end - piece.start
        return piece.x + (piece.wide * (time - piece.start) / span if span > 0 else 0.0)


def axis(
    start: float, end: float, instants: Iterable[float], delays: Sequence[float], room: float
) -> list[Band]:
    """Lay out the time from `start` to `end` on bands of a width.

    Parameters
    ----------
    start, end : float
        Seconds.
    instants : iterable of float
        When something happens.
    delays : sequence of float
        How long messages take: what has to be seen as a slope.
    room : float
        Pixels of a band.

    Examples
    --------
    >>> [band.pieces for band in axis(0, 1, [0.3, 0.8], [0.3], 100)]
    [(Piece(start=0.0, end=1.0, x=0.0, wide=100.0, quiet=False),)]
    >>> bands = axis(0, 30, [1.0, 1.01, 29.0, 29.01], [0.01, 0.01], 400)
    >>> [piece.quiet for piece in bands[0].pieces]
    [True, False, True, False, True]
    """
    start, end = float(start), float(max(end, start + 1e-6))
    known = sorted({min(max(float(at), start), end) for at in instants})
    usual = median(delays) if delays else 0.0
    if usual <= 0:
        steps = [b - a for a, b in itertools.pairwise(known) if b > a]
        usual = median(steps) / 2 if steps else (end - start) / 20
    bursts = _bursts(known, usual * QUIET_FACTOR) if known else []
    busy = sum(last - first for first, last in bursts)
    wide_enough = usual * room / (end - start) >= ENOUGH_PX and busy >= BUSY_SHARE * (end - start)
    if wide_enough or not known:
        return [Band((Piece(start, end, 0.0, float(room)),))]
    scale, gap, wished = _scale(bursts, usual, room)
    for less in (1.0, 0.93, 0.86, 0.8):
        # What does not fit at the ends of the bands may spill over: a little less scale saves a band.
        found = _bands(_pieces(bursts, start, end, scale * less, gap), room, scale * less)
        if len(found) <= wished:
            return found
    return _bands(_pieces(bursts, start, end, scale, gap), room, scale)


def _bursts(known: Sequence[float], quiet: float) -> list[tuple[float, float]]:
    """Stretches in which no two neighbours are further apart than `quiet`."""
    found = [(known[0], known[0])]
    for at in known[1:]:
        if at - found[-1][1] <= quiet:
            found[-1] = (found[-1][0], at)
        else:
            found.append((at, at))
    return found


def _scale(bursts: Sequence[tuple[float, float]], usual: float, room: float) -> tuple[float, float, int]:
    """Pixels a second within bursts, the width of a quiet stretch, and how few bands that should take."""
    busy = sum(b - a for a, b in bursts) or usual
    gaps = len(bursts) + 1
    gap = min(GAP_PX, 0.6 * BANDS_AT_MOST * room / gaps)
    scale = 0.0
    for bands in range(1, BANDS_AT_MOST + 1):
        # Some of each band is lost where a burst does not fit into what is left of it.
        scale = (bands * room * (1.0 if bands == 1 else 0.93) - gaps * gap - BURST_PX * len(bursts)) / busy
        if scale * usual >= WISHED_PX:
            return min(scale, 3 * WISHED_PX / usual), gap, bands
    return max(scale, room * 0.2 / busy), gap, BANDS_AT_MOST


def _pieces(
    bursts: Sequence[tuple[float, float]], start: float, end: float, scale: float, gap: float
) -> list[tuple[float, float, float, bool]]:
    """Start, end, width, quiet; together all of the time."""
    found: list[tuple[float, float, float, bool]] = []
    at = start
    for begin, finish in bursts:
        # A moment of its own needs room for what is written beside it.
        pad = max(BURST_PX / 2 / scale, (BURST_PX / scale - (finish - begin)) / 2)
        first, last = max(at, begin - pad), min(end, finish + pad)
        if first > at:
            found.append((at, first, gap, True))
        found.append((first, last, (last - first) * scale, False))
        at = last
    if end > at:
        found.append((at, end, gap, True))
    return found


def _bands(pieces: Sequence[tuple[float, float, float, bool]], room: float, scale: float) -> list[Band]:
    """Fill band after band; a burst is broken only if it is wider than a band."""
    lines: list[list[tuple[float, float, float, bool]]] = [[]]
    left = room
    for start, end, wide, quiet in pieces:
        while not quiet and wide > left and (wide > room or left > room * 0.4) and wide - left > 1:
            # Broken where the band ends: it is wider than any, or would leave much of this one empty.
            if left > 20:
                middle = start + left / scale
                lines[-1].append((start, middle, left, False))
                start, wide = middle, wide - left
            lines.append([])
            left = room
        if quiet and left < wide and left > 0.4 * wide:
            wide = left
        if wide > left + 0.5 and lines[-1]:
            lines.append([])
            left = room
        lines[-1].append((start, end, wide, quiet))
        left -= wide
    lines = [line for line in lines if line]
    return [_justified(line, room, i + 1 == len(lines)) for i, line in enumerate(lines)]


def _justified(line: Sequence[tuple[float, float, float, bool]], room: float, last: bool) -> Band:
    """Give what is left of a band to its quiet stretches, longer ones more; they have no scale to keep."""
    spare = max(0.0, room - sum(wide for _, _, wide, _ in line))
    if last and spare > room * 0.5:
        spare = 0.0
    shares = [math.log2(2 + 8 * (end - start)) if quiet else 0.0 for start, end, _, quiet in line]
    total = sum(shares)
    pieces, x = [], 0.0
    for (start, end, wide, quiet), share in zip(line, shares, strict=True):
        wide += spare * share / total if total else 0.0
        pieces.append(Piece(start, end, x, wide, quiet))
        x += wide
    return Band(tuple(pieces), last)
