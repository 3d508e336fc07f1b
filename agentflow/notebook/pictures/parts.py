"""Pictures of the parts: who waits in a queue, what lies in mailboxes, who holds which lock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from agentflow.cluster.parts import LeaseStatus, MailStatus, WaitingStatus
from agentflow.notebook.pictures import svg
from agentflow.notebook.pictures.timeline import LAYERS

WIDE: Final = 640.0
PAD: Final = 16.0
BINS: Final = 24
ROWS_AT_MOST: Final = 24


# --- a queue -------------------------------------------------------------------------------------------------


def waiting_svg(status: WaitingStatus, width: float = WIDE, theme: str = "auto") -> str:
    """Who waits, by score and by age.

    Examples
    --------
    >>> waiting_svg(WaitingStatus("queue", ((4, 1000.0, 0.0),))).startswith("<svg")
    True
    """
    drawn, height = waiting(status, width - 2 * PAD)
    return svg.document(width, height + 24, svg.group(PAD, 12, drawn), waiting_said(status), theme)


def waiting_said(status: WaitingStatus) -> str:
    """The queue in a sentence."""
    depths = status.depths
    beside = [f"{status.delayed:,} backing off"] if status.delayed else []
    beside += [f"{status.dead:,} dead"] if status.dead else []
    by = [f"{getattr(depths, name):,} {name}" for name, _ in LAYERS if getattr(depths, name)]
    return f"{status.title}: {', '.join([f'{depths.depth:,} waiting', *by, *beside])}"


def waiting(status: WaitingStatus, width: float) -> tuple[str, float]:
    """Two distributions side by side, or one below the other: scores, and seconds waited."""
    parts = [svg.caption(0, 11, "waiting", waiting_said(status).partition(": ")[2], width)]
    if not status.tasks:
        return "".join([*parts, svg.text(0, 40, "nothing waits", "m", 12)]), 50
    beside = width >= 520
    column = (width - 28) / 2 if beside else width
    for i, (at, name, unit) in enumerate(
        ((1, "score, served from the right", ""), (2, "seconds waited", " s"))
    ):
        drawn = _histogram([(task[0], task[at]) for task in status.tasks], column, name, unit)
        parts.append(svg.group(i * (column + 28) if beside else 0, 24 if beside else 24 + i * 148, drawn))
    y = 24 + (148 if beside else 296)
    parts.append(_layers(y))
    if status.first:
        y += 20
        parts.append(svg.text(0, y, f"next: {', '.join(status.first)}", "m", 11, width=width))
    return "".join(parts), y + 6


def _layers(y: float) -> str:
    parts, x = [], 0.0
    for name, cls in LAYERS:
        parts += [svg.rect(x, y - 8, 8, 8, cls, 1.5), svg.text(x + 12, y, name, "m", 10.5)]
        x += 24 + svg.measure(name, 10.5)
    return "".join(parts)


def _histogram(values: Sequence[tuple[int, float]], width: float, name: str, unit: str) -> str:
    """Bars of equal width, a layer a priority."""
    low, high = min(value for _, value in values), max(value for _, value in values)
    span = high - low or 1.0
    counts = [[0] * 5 for _ in range(BINS)]
    for priority, value in values:
        counts[min(BINS - 1, int((value - low) / span * BINS))][priority] += 1
    most = max(sum(each) for each in counts)
    left, top, tall = 34.0, 12.0, 92.0
    step = (width - left) / BINS
    parts = [svg.text(left, 4, name, "m", 10.5, width=width - left)]
    for i, each in enumerate(counts):
        y = top + tall
        words = ", ".join(f"{each[p]:,} {layer}" for p, (layer, _) in enumerate(LAYERS, 1) if each[p])
        bars = []
        for priority, (_, cls) in enumerate(LAYERS, 1):
            high_px = tall * each[priority] / most
            if each[priority]:
                y -= high_px
                bars.append(svg.rect(left + i * step + 0.5, y, step - 1, high_px, cls))
        if bars:
            a, b = low + span * i / BINS, low + span * (i + 1) / BINS
            parts.append(svg.hint(f"{a:.4g}{unit} to {b:.4g}{unit}: {words}", *bars))
    parts += [
        svg.line(left, top + tall, width, top + tall, "wire"),
        svg.text(left - 5, top + 8, _count(most), "m", 10, "end"),
        svg.text(left - 5, top + tall, "0", "m", 10, "end"),
        svg.text(left, top + tall + 13, f"{low:.4g}{unit}", "m", 10),
        svg.text(width, top + tall + 13, f"{high:.4g}{unit}", "m", 10, "end"),
    ]
    return "".join(parts)


def _count(number: int) -> str:
    return (
        f"{number:,}"
        if number < 10_000
        else f"{number / 1e3:.3g}k"
        if number < 1_000_000
        else f"{number / 1e6:.3g}M"
    )


# --- mailboxes -----------------------------------------------------------------------------------------------


def mailboxes_svg(found: Sequence[MailStatus], title: str, width: float = WIDE, theme: str = "auto") -> str:
    """How full each mailbox is, and what became of the messages."""
    room = width - 2 * PAD
    dead = sum(count for box in found for _, count in box.dead)
    waits = sum(box.waiting for box in found)
    said = f"{svg.count(len(found), 'agent')}, {waits:,} waiting, {dead:,} dead letters"
    parts = [svg.caption(0, 11, "mailboxes", said, room)]
    y = 28.0
    for box in sorted(found, key=lambda each: -each.waiting)[:ROWS_AT_MOST]:
        parts.append(_box(box, y, room))
        y += 22
    if len(found) > ROWS_AT_MOST:
        parts.append(svg.text(0, y + 9, f"and {len(found) - ROWS_AT_MOST:,} more agents", "m", 10.5))
        y += 18
    if not found:
        parts.append(svg.text(0, 40, "no agent is open", "m", 12))
        y += 18
    return svg.document(width, y + 20, svg.group(PAD, 12, *parts), f"{title}: {said}", theme)


def _box(box: MailStatus, y: float, width: float) -> str:
    names, wide = min(130.0, width * 0.26), width * 0.26
    share = min(1.0, box.waiting / box.capacity) if box.capacity else 1.0
    gone = box.state in ("down", "closed")
    counts = f"sent {box.sent:,} · received {box.received:,} · handled {box.handled:,}"
    bad = [f"failed {box.failed:,}"] if box.failed else []
    bad += [f"{count:,} {reason}" for reason, count in box.dead]
    words = box.state if box.state != "up" else counts
    x = names + wide + 8
    room = width - x
    bar = svg.rect(names, y, wide, 11, "soft", 2) + svg.rect(names + 0.5, y + 0.5, wide - 1, 10, "edge", 2)
    fill = svg.rect(names, y, max(2.0, wide * share), 11, "s-failed" if share >= 1 else "s-running", 2)
    number = svg.text(
        names + wide - 4, y + 9.5, f"{box.waiting:,}/{box.capacity:,}", "t halo", 9.5, "end", wide - 8
    )
    wrong = f"✗ {', '.join(bad)}" if bad and not gone else ""
    said = svg.text(x, y + 9.5, wrong, "bad", 10.5, width=room) if wrong else ""
    used = svg.measure(svg.fit(wrong, room, 10.5), 10.5) + 10 if wrong else 0.0
    if room - used > 40:
        said += svg.text(x + used, y + 9.5, words, "bad" if gone else "m", 10.5, width=room - used)
    tip = f"{box.id}, {box.state}: {box.waiting:,} of {box.capacity:,} waiting; {counts}; {', '.join(bad) or 'none lost'}"
    return svg.hint(
        tip,
        svg.text(0, y + 9.5, box.id, "m" if gone else "t", 11, width=names - 8),
        bar,
        fill if box.waiting else "",
        svg.cross(names + 8, y + 5.5, 3.5) if gone else number,
        said,
    )


def agent_svg(box: MailStatus, width: float = 480, theme: str = "auto") -> str:
    """One agent: its mailbox, its topics and its last messages."""
    room = width - 2 * PAD
    parts = [
        svg.text(0, 14, box.id, "t b", 14, width=room - 80),
        svg.text(room, 14, box.state, "bad" if box.state in ("down", "closed") else "good", 12, "end"),
        svg.text(0, 34, f"listens to {', '.join(box.topics) or 'nothing'}", "m", 11.5, width=room),
        _box(msg_named(box), 46, room),
    ]
    y = 78.0
    for way, kind, other, said in box.last:
        arrow = "→" if way == "to" else "←"
        parts.append(svg.text(0, y, f"{arrow} {other or 'all'}", "t", 11, width=room * 0.3))
        parts.append(svg.text(room * 0.32, y, kind.replace("_", " "), "t", 11, width=room * 0.27))
        parts.append(svg.text(room * 0.6, y, said, "m mono", 10.5, width=room * 0.4))
        y += 17
    if not box.last:
        parts.append(svg.text(0, y, "no message yet", "m", 11))
        y += 17
    label = f"agent {box.id}, {box.state}: {box.waiting} of {box.capacity} messages waiting"
    return svg.document(width, y + 14, svg.group(PAD, 12, *parts), label, theme)


def msg_named(box: MailStatus) -> MailStatus:
    """The same, its name left out: the card says it above."""
    return msgspec.structs.replace(box, id="mailbox")


# --- locks ---------------------------------------------------------------------------------------------------


def locks_svg(found: Sequence[LeaseStatus], title: str, width: float = WIDE, theme: str = "auto") -> str:
    """A row a lock: who holds it, with which token, and how much of the lease is left."""
    room = width - 2 * PAD
    gone = sum(1 for lease in found if lease.left_s <= 0)
    said = svg.count(len(found), "lease") + (f", {gone:,} expired" if gone else "")
    parts = [svg.caption(0, 11, "locks", said, room)]
    y = 28.0
    keys, owners, wide = room * 0.28, room * 0.24, room * 0.24
    for lease in sorted(found, key=lambda each: (each.left_s, each.key))[:ROWS_AT_MOST]:
        share = (
            min(1.0, lease.left_s / lease.ttl_s) if lease.ttl_s > 0 and math.isfinite(lease.ttl_s) else 0.0
        )
        x = keys + owners
        out = lease.left_s <= 0
        left = "expired" if out else f"{svg.seconds(lease.left_s)} of {svg.seconds(lease.ttl_s)}"
        parts.append(
            svg.hint(
                f"{lease.key}: {lease.owner}, token {lease.token}, {left}"
                + (f", {lease.note}" if lease.note else ""),
                svg.text(0, y + 9.5, lease.key, "t", 11, width=keys - 10),
                svg.text(keys, y + 9.5, f"{lease.owner} #{lease.token}", "m", 11, width=owners - 10),
                svg.rect(x, y, wide, 11, "soft", 2),
                svg.rect(x + 0.5, y + 0.5, wide - 1, 10, "edge", 2),
                svg.cross(x + 8, y + 5.5, 3.5)
                if out
                else svg.rect(
                    x, y, max(2.0, wide * share), 11, "s-retrying" if share < 0.25 else "s-completed", 2
                ),
                svg.text(x + wide + 8, y + 9.5, left, "bad" if out else "m", 10.5, width=room - x - wide - 8),
            )
        )
        y += 21
    if len(found) > ROWS_AT_MOST:
        parts.append(svg.text(0, y + 9, f"and {len(found) - ROWS_AT_MOST:,} more", "m", 10.5))
        y += 18
    if not found:
        parts.append(svg.text(0, 40, "none is held", "m", 12))
        y += 18
    return svg.document(width, y + 20, svg.group(PAD, 12, *parts), f"{title}: {said}", theme)
