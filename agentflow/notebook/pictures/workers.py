"""The workers: a bar each with the slots in use, or a bar a group where there are many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agentflow.cluster.status import WorkerStatus
from agentflow.notebook.pictures import svg

SINGLY_AT_MOST: Final = 6
GROUPS_AT_MOST: Final = 8
ABSENT: Final = frozenset({"OFFLINE", "DOWN"})
CLASS: Final = {
    "ACTIVE": "s-completed",
    "BUSY": "s-retrying",
    "DRAINING": "s-cancelled",
    "PAUSED": "s-cancelled",
}


def workers(found: Sequence[WorkerStatus], width: float, singly: int = SINGLY_AT_MOST) -> tuple[str, float]:
    """How much of each is in use; of many, by group."""
    alive = sum(1 for worker in found if worker.status not in ABSENT)
    slots = sum(worker.slots for worker in found if worker.status not in ABSENT)
    running = sum(worker.running for worker in found if worker.status not in ABSENT)
    said = f"{alive} of {len(found)} up, {running:,} of {slots:,} slots in use"
    parts = [svg.caption(0, 11, "workers", said, width)]
    if not found:
        return "".join([*parts, svg.text(0, 40, "none is registered", "m", 12)]), 50
    ordered = sorted(found, key=lambda worker: worker.group)
    rows = [_single(worker) for worker in ordered] if len(found) <= singly else _groups(found)
    names, after = min(150.0, width * 0.36), 104.0
    wide = max(20.0, width - names - after)
    y = 26.0
    for name, words, share, cls, tip in rows[: max(singly, GROUPS_AT_MOST)]:
        bar = svg.rect(names, y, wide, 10, "soft", 2) + svg.rect(names + 0.5, y + 0.5, wide - 1, 9, "edge", 2)
        fill = svg.rect(names, y, wide * min(1.0, share), 10, cls, 2) if share > 0 else ""
        mark = svg.cross(names + 8, y + 5, 3.5) if cls == "absent" else ""
        parts.append(
            svg.hint(
                tip,
                svg.text(0, y + 9.5, name, "m" if mark else "t", 11, width=names - 8),
                bar,
                "" if mark else fill,
                mark,
                svg.text(names + wide + 8, y + 9.5, words, "bad" if mark else "m", 10.5, width=after - 8),
            )
        )
        y += 19
    if len(rows) > max(singly, GROUPS_AT_MOST):
        parts.append(
            svg.text(0, y + 9, f"and {len(rows) - max(singly, GROUPS_AT_MOST)} more groups", "m", 10.5)
        )
        y += 16
    return "".join(parts), y + 2


def _single(worker: WorkerStatus) -> tuple[str, str, float, str, str]:
    share = worker.running / worker.slots if worker.slots else 0.0
    word = worker.status.lower()
    gone = worker.status in ABSENT
    words = word if gone else f"{worker.running}/{worker.slots} {word}"
    tip = f"{worker.id}, group {worker.group}: {word}, {worker.running} of {worker.slots} slots, load {worker.load:.2f}"
    tip += f" ({worker.reason})" if worker.reason else ""
    return (
        f"{worker.group} {worker.id}",
        words,
        share,
        "absent" if gone else CLASS.get(worker.status, "s-completed"),
        tip,
    )


def _groups(found: Sequence[WorkerStatus]) -> list[tuple[str, str, float, str, str]]:
    by_group: dict[str, list[WorkerStatus]] = {}
    for worker in found:
        by_group.setdefault(worker.group, []).append(worker)
    rows = []
    for name, members in sorted(by_group.items()):
        up = [worker for worker in members if worker.status not in ABSENT]
        slots, running = sum(w.slots for w in up), sum(w.running for w in up)
        share = running / slots if slots else 0.0
        cls = "absent" if not up else "s-retrying" if share >= 1 else "s-completed"
        tip = f"group {name}: {len(up)} of {len(members)} workers up, {running} of {slots} slots in use"
        words = f"{running:,}/{slots:,}" if up else "all down"
        rows.append((f"{name} ×{len(members)}", words, share, cls, tip))
    return rows
