"""The cluster panel: everything of one cluster on one card, wide or narrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agentflow.cluster.status import ClusterStatus, MasterStatus, RunBrief, WorkerStatus
from agentflow.notebook.pictures import masters, svg, timeline, workers
from agentflow.notebook.pictures.progress import bar
from agentflow.notebook.pictures.theme import term_class

WIDE: Final = 960.0
STACKED_BELOW: Final = 700.0
RUNS_AT_MOST: Final = 4
ALERTS_AT_MOST: Final = 4
PAD: Final = 16.0


def describe(status: ClusterStatus) -> str:
    """The panel in a sentence, for those who cannot see it."""
    leader = f"leader {status.leader} in term {status.term}" if status.leader else "no leader"
    return (
        f"{status.title}: {leader}, {status.up} of {len(status.masters)} masters up, "
        f"{svg.count(len(status.workers), 'worker')}, {svg.count(status.waiting.depth, 'task')} waiting, "
        f"{svg.count(len(status.runs), 'run')}"
    )


def cluster_svg(status: ClusterStatus, width: float = WIDE, theme: str = "auto") -> str:
    """Draw the panel.

    Parameters
    ----------
    status : ClusterStatus
        What to show.
    width : float
        In pixels; below 700 the parts are stacked.
    theme : {"auto", "light", "dark"}
        `auto` follows the viewer.

    Examples
    --------
    >>> cluster_svg(ClusterStatus("demo", now=0.0)).startswith("<svg")
    True
    """
    stacked = width < STACKED_BELOW
    parts, y = [_header(status, width)], 44.0
    parts.append(svg.line(0, y, width, y, "edge"))
    for alert in status.alerts[:ALERTS_AT_MOST]:
        parts.append(svg.text(PAD, y + 19, "!", "bad b", 12))
        parts.append(svg.text(PAD + 12, y + 19, alert, "bad", 11.5, width=width - 2 * PAD - 12))
        y += 20
    if len(status.alerts) > ALERTS_AT_MOST:
        parts.append(
            svg.text(PAD + 12, y + 19, f"and {len(status.alerts) - ALERTS_AT_MOST} more", "bad", 11.5)
        )
        y += 20
    if status.alerts:
        y += 8
        parts.append(svg.line(0, y, width, y, "edge"))
    left = width if stacked else width * 0.36
    right = width - 2 * PAD if stacked else width - left - 2 * PAD
    log, log_height = masters.logs(status.masters, right)
    run, run_height = _runs(status.runs, right, status.now)
    side = log_height + 12 + run_height
    ring_height = 250.0 if stacked else max(250.0, side + 2 * PAD)
    parts.append(svg.group(0, y, masters.ring(status, left, ring_height)))
    if stacked:
        y += ring_height
        parts += [
            svg.line(0, y, width, y, "edge"),
            svg.group(PAD, y + PAD, log),
            svg.group(PAD, y + PAD + log_height + 12, run),
        ]
        y += side + 2 * PAD
    else:
        parts.append(svg.line(left, y, left, y + ring_height, "edge"))
        parts.append(
            svg.group(left + PAD, y + PAD, log) + svg.group(left + PAD, y + PAD + log_height + 12, run)
        )
        y += ring_height
    parts.append(svg.line(0, y, width, y, "edge"))
    foot, foot_height = _foot(status, width, stacked)
    parts.append(svg.group(0, y, foot))
    return svg.document(width, y + foot_height, "".join(parts), describe(status), theme)


def _header(status: ClusterStatus, width: float) -> str:
    """Name, leader, term, commit and quorum, from the left as far as there is room."""
    need = len(status.masters) // 2 + 1
    well = status.up >= need and status.leader is not None
    x = PAD
    parts = [svg.text(x, 28, status.title, "t b", 15, width=200)]
    x += svg.measure(svg.fit(status.title, 200, 15), 16) + 22
    facts = [
        ("leader", status.leader or "none", "t b"),
        ("term", f"{status.term:,}", "t b"),
        ("commit", f"{status.commit:,}", "t b"),
    ]
    for name, value, cls in facts:
        wide = svg.measure(name, 12) + 6 + svg.measure(svg.fit(value, 150, 12), 12.8) + 18
        if x + wide > width - 130:
            break
        parts.append(svg.text(x, 28, name, "m", 12))
        parts.append(svg.text(x + svg.measure(name, 12) + 4, 28, value, cls, 12, width=150))
        x += wide
    if status.masters and x + 150 < width:
        word = (
            f"quorum {status.up} of {len(status.masters)}"
            if status.up >= need
            else f"no quorum: {status.up} of {len(status.masters)}"
        )
        cls = "good" if well else "bad"
        if not status.closed:
            parts.append(svg.circle(x + 4, 24, 4, cls) if well else svg.cross(x + 4, 24, 4))
            parts.append(svg.text(x + 13, 28, word, cls, 12))
    end = "closed" if status.closed else "last known" if status.stale else ""
    parts.append(svg.text(width - PAD, 28, f"{end} t = {status.now:.1f} s".strip(), "m", 12, "end"))
    return "".join(parts)


def _runs(runs: Sequence[RunBrief], width: float, now: float) -> tuple[str, float]:
    if not runs:
        return svg.caption(0, 11, "runs", "none yet: cluster.submit(flow)", width), 18
    newest = runs[-RUNS_AT_MOST:][::-1]
    earlier = len(runs) - len(newest)
    parts, y = [], 0.0
    for run in newest:
        took = svg.seconds((now if run.finished is None else run.finished) - run.submitted)
        parts.append(svg.group(0, y, svg.caption(0, 11, "run", f"{run.id} {run.name}", width - 80)))
        parts.append(svg.text(width, y + 11, took, "m", 11, "end"))
        drawn, height = bar(run.counts, width)
        parts.append(svg.group(0, y + 18, drawn))
        y += 18 + height + 8
    if earlier:
        parts.append(svg.text(0, y + 8, f"and {earlier:,} earlier runs", "m", 10.5))
        y += 16
    return "".join(parts), y


def _foot(status: ClusterStatus, width: float, stacked: bool) -> tuple[str, float]:
    """Elections, queue and workers: side by side, or one below the other."""
    column = width - 2 * PAD if stacked else width / 3 - 2 * PAD
    drawn = [
        timeline.elections(status, column),
        timeline.queue(status.queue, status.waiting, column),
        workers.workers(status.workers, column),
    ]
    parts = []
    if stacked:
        y = 0.0
        for i, (part, height) in enumerate(drawn):
            if i:
                parts.append(svg.line(0, y, width, y, "edge"))
            parts.append(svg.group(PAD, y + 12, part))
            y += height + 24
        return "".join(parts), y
    tallest = max(height for _, height in drawn) + 26
    for i, (part, _) in enumerate(drawn):
        x = i * width / 3
        if i:
            parts.append(svg.line(x, 0, x, tallest, "edge"))
        parts.append(svg.group(x + PAD, 12, part))
    return "".join(parts), tallest


# --- one node ------------------------------------------------------------------------------------------------


def master_svg(master: MasterStatus, width: float = 420, theme: str = "auto") -> str:
    """One master: its disc, its numbers and the tail of its log."""
    alone = ClusterStatus(
        master.id, 0.0, masters=(master,), leader=master.id if master.role == "leader" else None
    )
    facts: tuple[tuple[str, str | int], ...] = (
        ("role", masters.said_of(master)),
        ("term", master.term),
        ("commit", master.commit),
        ("applied", master.applied),
        ("last", master.last),
    )
    parts = [svg.group(0, 0, masters.ring(alone, 140, 128))]
    if master.state == "down":
        facts = facts[:1]
    for i, (name, value) in enumerate(facts):
        parts.append(svg.text(150, 26 + 19 * i, name, "m", 12))
        parts.append(svg.text(214, 26 + 19 * i, f"{value:,}" if isinstance(value, int) else value, "t b", 12))
    x = 16.0
    for index, term in master.tail[-int((width - 32) // 25) :]:
        colour = term_class(term)
        done = index <= master.commit
        parts.append(svg.rect(x, 134, 22, 20, f"t{colour}" if done else f"o{colour} dash", 3))
        parts.append(
            svg.text(
                x + 11, 148, term if term < 1000 else "…", f"k{colour}" if done else "t", 10.5, "middle", 21
            )
        )
        x += 25
    label = (
        f"{master.id}: {masters.said_of(master)}, term {master.term}, commit {master.commit} of {master.last}"
    )
    return svg.document(width, 166, "".join(parts), label, theme)


def worker_svg(worker: WorkerStatus, width: float = 420, theme: str = "auto") -> str:
    """One worker: its slots in use and how it is."""
    drawn, height = workers.workers((worker,), width - 2 * PAD)
    age = "" if worker.heartbeat_age_s is None else f"heard {svg.seconds(worker.heartbeat_age_s)} ago"
    said = svg.text(PAD, height + 30, worker.reason or age, "m", 11, width=width - 2 * PAD)
    label = f"{worker.id}: {worker.status.lower()}, {worker.running} of {worker.slots} slots in use"
    return svg.document(width, height + 42, svg.group(PAD, 12, drawn) + said, label, theme)


def elections_svg(status: ClusterStatus, width: float = WIDE, theme: str = "auto") -> str:
    """Who led and who stood, over time."""
    drawn, height = timeline.election_timeline(status, width - 2 * PAD)
    label = f"{status.title}: {len(status.reigns)} leaders elected in {svg.seconds(status.now)}"
    return svg.document(width, height + 24, svg.group(PAD, 12, drawn), label, theme)


def queue_svg(status: ClusterStatus, width: float = WIDE, theme: str = "auto") -> str:
    """The depth of the queue over time."""
    drawn, height = timeline.queue(status.queue, status.waiting, width - 2 * PAD, 150)
    label = f"{status.title}: {status.waiting.depth} tasks waiting"
    return svg.document(width, height + 24, svg.group(PAD, 12, drawn), label, theme)


def workers_svg(status: ClusterStatus, width: float = 620, theme: str = "auto") -> str:
    """The workers, by group where there are many."""
    drawn, height = workers.workers(status.workers, width - 2 * PAD, 24)
    return svg.document(
        width, height + 24, svg.group(PAD, 12, drawn), f"{status.title}: {len(status.workers)} workers", theme
    )
