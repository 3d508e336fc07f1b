"""Who worked on what, when: a row a worker, a bar an attempt. Time runs from left to right.

Law: a bar's length is true to time; what is thinner than a pixel is drawn with its neighbours of one state.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heapreplace
from typing import Final

from agentflow.cluster.status import RunStatus, Try
from agentflow.notebook.pictures import svg
from agentflow.notebook.pictures.theme import WORDS

LANES_AT_MOST: Final = 40
ROWS_AT_MOST: Final = 30
LANE: Final = 15.0
BINS: Final = 240
BAD: Final = frozenset({"FAILED", "LOST", "TIMED_OUT"})


def gantt(run: RunStatus, width: float) -> tuple[str, float]:
    """Draw every attempt, in lanes where a worker runs several at once."""
    side = 110.0
    tries = [each for each in run.tries if each.started >= 0]
    retried = sum(1 for each in tries if each.number > 1)
    lost = sum(1 for each in tries if each.state == "LOST")
    said = (
        svg.count(len(tries), "attempt")
        + (f", {svg.count(retried, 'retry', 'retries')}" if retried else "")
        + (f", {lost:,} lost with a worker" if lost else "")
    )
    parts = [svg.caption(0, 11, "attempts by worker", said, width)]
    if not tries:
        return "".join([*parts, svg.text(0, 38, "nothing has started", "m", 12)]), 48
    begin = min(run.submitted, min(each.started for each in tries))
    end = max(max(run.now if each.finished is None else each.finished for each in tries), begin + 1e-6)
    scale = (width - side - 4) / (end - begin)
    rows = _rows(tries, run.now)
    most = sum(len(lanes) for _, lanes in rows)
    body, height = (
        _lanes(run, rows, begin, scale, side)
        if most <= LANES_AT_MOST
        else _dense(rows, run.now, begin, end, side, width)
    )
    for at, label in svg.ticks(0, end - begin, int((width - side) // 80)):
        x = side + at * scale
        parts += [svg.line(x, 30, x, 32 + height, "grid"), svg.text(x, 26, label, "m", 10, "middle")]
    parts.append(svg.group(0, 34, body))
    return "".join(parts), 34 + height + 4


def _rows(tries: Sequence[Try], now: float) -> list[tuple[str, list[list[Try]]]]:
    """Workers in order of their names, each with as few lanes as keep its bars apart."""
    by_worker: dict[str, list[Try]] = {}
    for each in tries:
        by_worker.setdefault(each.worker, []).append(each)
    found = []
    for worker in sorted(by_worker, key=_natural):
        lanes: list[list[Try]] = []
        free: list[tuple[float, int]] = []
        for each in sorted(by_worker[worker], key=lambda t: t.started):
            end = now if each.finished is None else each.finished
            if free and free[0][0] <= each.started + 1e-9:
                lane = free[0][1]
                heapreplace(free, (end, lane))
                lanes[lane].append(each)
            else:
                free.append((end, len(lanes)))
                heapify(free)
                lanes.append([each])
        found.append((worker, lanes))
    return found


def _natural(name: str) -> tuple[str, int]:
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :] or 0) if len(name) - len(stem) < 10 else 0


def _lanes(
    run: RunStatus, rows: Sequence[tuple[str, list[list[Try]]]], begin: float, scale: float, side: float
) -> tuple[str, float]:
    critical = frozenset(run.critical)
    room = scale * (
        max(
            run.now if t.finished is None else t.finished for _, lanes in rows for lane in lanes for t in lane
        )
        - begin
    )
    parts, y = [], 0.0
    for worker, lanes in rows:
        tall = max(LANE * len(lanes), 18)
        parts.append(svg.text(side - 10, y + tall / 2 + 4, worker, "t", 11.5, "end", side - 14))
        for i, lane in enumerate(lanes):
            parts += _lane(run, lane, y + i * LANE, begin, scale, side, critical)
        y += tall + 4
        parts.append(svg.line(0, y - 2, side + room, y - 2, "grid"))
    return "".join(parts), y


def _lane(
    run: RunStatus,
    lane: Sequence[Try],
    y: float,
    begin: float,
    scale: float,
    side: float,
    critical: frozenset[int],
) -> list[str]:
    parts: list[str] = []
    held: tuple[float, float, str, int] | None = None

    def flush() -> None:
        if held is not None:
            x1, x2, state, count = held
            box = svg.rect(
                x1,
                y + 2,
                max(1.0, x2 - x1),
                LANE - 4,
                f"n-{state.lower()} l-{state.lower()}",
                0,
                " stroke-width='0.8'",
            )
            parts.append(svg.hint(f"{count:,} short attempts, {WORDS[state]}", box) if count > 1 else box)

    for each in lane:
        end = run.now if each.finished is None else each.finished
        x1, x2 = side + (each.started - begin) * scale, side + (end - begin) * scale
        if x2 - x1 < 3.0 and each.state not in BAD:
            if held is not None and held[2] == each.state and x1 - held[1] < 1.0:
                held = (held[0], max(x2, held[1]), each.state, held[3] + 1)
                continue
            flush()
            held = (x1, x2, each.state, 1)
            continue
        flush()
        held = None
        parts.append(_bar(run, each, x1, max(2.0, x2 - x1), y, each.task in critical))
    flush()
    return parts


def _bar(run: RunStatus, each: Try, x: float, wide: float, y: float, heavy: bool) -> str:
    name = run.ids[each.task] if each.task < len(run.ids) else "?"
    took = "" if each.finished is None else f" for {svg.seconds(each.finished - each.started)}"
    tip = f"{name}, try {each.number} on {each.worker}: {WORDS[each.state]}{took}" + (
        f" ({each.error[:120]})" if each.error else ""
    )
    low = each.state.lower()
    tinted = f"n-{low}" if low in ("completed", "running", "failed", "cancelled") else "n-failed"
    lined = f"l-{low}" if low in ("completed", "running", "failed", "cancelled") else "l-failed"
    dashed = " dash" if each.state in ("LOST", "TIMED_OUT", "CANCELLED") else ""
    if wide < 14:
        look = f"s-{low}" if each.state in BAD else f"{tinted} {lined}"
        box = svg.rect(x, y + 1.5, wide, LANE - 3, look, 1.5, " stroke-width='0.8'")
        return svg.hint(tip, box, svg.cross(x + wide / 2, y + LANE / 2, 3) if each.state in BAD else "")
    box = svg.rect(
        x + 0.5,
        y + 1.5,
        wide - 1,
        LANE - 3,
        f"{tinted} {lined}{dashed}",
        2.5,
        f" stroke-width='{2.4 if heavy else 1.1}'",
    )
    mark = "✗ " if each.state in BAD else "↻ " if each.number > 1 else ""
    again = f" #{each.number}" if each.number > 1 else ""
    said = (
        svg.text(x + 5, y + 11, f"{mark}{name}{again}", "t", 9.5, width=wide - 9)
        if wide >= 50 or svg.measure(f"{mark}{name}{again}", 9.5) < wide - 8
        else ""
    )
    edge = svg.rect(x + wide - 3, y + 1.5, 3, LANE - 3, "s-running", 1) if each.finished is None else ""
    return svg.hint(tip, box, edge, said)


def _dense(
    rows: Sequence[tuple[str, list[list[Try]]]],
    now: float,
    begin: float,
    end: float,
    side: float,
    width: float,
) -> tuple[str, float]:
    """A row a worker (or a share of the workers): how many attempts ran at each moment."""
    per = -(-len(rows) // ROWS_AT_MOST)
    parts, y = [], 0.0
    room = width - side - 4
    for i in range(0, len(rows), per):
        members = rows[i : i + per]
        tries = [each for _, lanes in members for lane in lanes for each in lane]
        busy = busy_bins(tries, now, begin, end, BINS)
        most = max(max(busy), 1e-9)
        name = members[0][0] if len(members) == 1 else f"{members[0][0]} … +{len(members) - 1}"
        parts.append(svg.text(side - 10, y + 13, name, "t", 11, "end", side - 14))
        d = "".join(
            f"M{svg.n(side + room * k / BINS)} {svg.n(y + 18)}v{svg.n(-16 * level / most)}h{svg.n(room / BINS + 0.2)}V{svg.n(y + 18)}z"
            for k, level in enumerate(busy)
            if level > 0.01
        )
        bad = [each for each in tries if each.state in BAD]
        parts.append(
            svg.hint(
                f"{name}: {len(tries):,} attempts, at most {most:.1f} at once",
                svg.path(d or "M0 0", "s-completed", 0),
            )
        )
        parts += [
            svg.cross(side + ((each.finished or now) - begin) / (end - begin) * room, y + 14, 3)
            for each in bad[:20]
        ]
        y += 22
    return "".join(parts), y


def busy_bins(tries: Sequence[Try], now: float, begin: float, end: float, bins: int) -> list[float]:
    """The mean number of attempts under way in each of so many equal stretches of time.

    Examples
    --------
    >>> busy_bins([Try(0, 1, "w", "COMPLETED", 0.0, 1.0), Try(1, 1, "w", "COMPLETED", 0.0, 2.0)], 2, 0, 2, 2)
    [2.0, 1.0]
    """
    step = (end - begin) / bins
    change = [0.0] * (bins + 2)
    level = [0.0] * (bins + 1)
    for each in tries:
        first = max(0.0, (each.started - begin) / step)
        last = min(float(bins), ((now if each.finished is None else each.finished) - begin) / step)
        a, b = int(first), int(last)
        if a == b:
            level[a] += max(0.0, last - first)
            continue
        level[a] += a + 1 - first
        level[b] += last - b
        change[a + 1] += 1
        change[b] -= 1
    running, found = 0.0, []
    for i in range(bins):
        running += change[i]
        found.append(round(running + level[i], 9))
    return found


def utilisation(run: RunStatus, width: float, height: float = 120) -> tuple[str, float]:
    """How many attempts ran at once, over time."""
    tries = run.tries
    parts = [svg.caption(0, 11, "utilisation", "attempts under way", width)]
    if not tries:
        return "".join([*parts, svg.text(0, 38, "nothing has started", "m", 12)]), 48
    begin = min(run.submitted, min(each.started for each in tries))
    end = max(max(run.now if each.finished is None else each.finished for each in tries), begin + 1e-6)
    side, top = 34.0, 24.0
    busy = busy_bins(tries, run.now, begin, end, BINS)
    most = max(max(busy), 1.0)
    room = width - side - 4
    d = [f"M{svg.n(side)} {svg.n(top + height)}"]
    d += [
        f"V{svg.n(top + height - height * level / most)}H{svg.n(side + room * (k + 1) / BINS)}"
        for k, level in enumerate(busy)
    ]
    d.append(f"V{svg.n(top + height)}Z")
    for at, label in svg.ticks(0, end - begin, int(room // 80)):
        x = side + at * room / (end - begin)
        parts += [
            svg.line(x, top, x, top + height, "grid"),
            svg.text(x, top + height + 13, label, "m", 10, "middle"),
        ]
    parts.append(svg.path("".join(d), "s-running", 0))
    parts += [
        svg.text(side - 5, top + 8, f"{most:.3g}", "m", 10, "end"),
        svg.text(side - 5, top + height, "0", "m", 10, "end"),
    ]
    return "".join(parts), top + height + 18
