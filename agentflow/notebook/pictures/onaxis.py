"""The same plots on a matplotlib axis that somebody passes. Nothing here imports matplotlib."""

from __future__ import annotations

from typing import Any, Final

from agentflow.cluster.spacetime import SpaceTime
from agentflow.cluster.status import ClusterStatus, RunStatus
from agentflow.notebook.pictures.gantt import BINS, busy_bins
from agentflow.notebook.pictures.theme import TERMS, WORDS, term_class

FACE: Final = {
    "COMPLETED": "#1f8a57",
    "RUNNING": "#2a78d0",
    "FAILED": "#c53a26",
    "LOST": "#c53a26",
    "TIMED_OUT": "#c53a26",
    "CANCELLED": "#a8aeb5",
}
HATCH: Final = {"FAILED": "xx", "LOST": "xx", "TIMED_OUT": "xx", "RUNNING": "//", "CANCELLED": ".."}
LAYERS: Final = {"low": "#c7d1dd", "medium": "#8fb0d8", "high": "#4a78b0", "urgent": "#133a6b"}


def gantt(run: RunStatus, ax: Any) -> Any:
    """A bar an attempt, a row a worker; give the axis back."""
    workers = sorted({each.worker for each in run.tries})
    for state in sorted({each.state for each in run.tries}):
        mine = [each for each in run.tries if each.state == state]
        ax.barh(
            [workers.index(each.worker) for each in mine],
            [(run.now if each.finished is None else each.finished) - each.started for each in mine],
            left=[each.started - run.submitted for each in mine],
            height=0.7,
            color=FACE.get(state, "#8d97a3"),
            hatch=HATCH.get(state),
            edgecolor="white",
            linewidth=0.4,
            label=WORDS.get(state, state.lower()),
        )
    ax.set_yticks(range(len(workers)), workers)
    return _finish(ax, f"{run.id} {run.name}", "time since submission [s]", bool(run.tries))


def utilisation(run: RunStatus, ax: Any) -> Any:
    """Attempts under way over time; give the axis back."""
    if run.tries:
        begin = run.submitted
        end = max(
            max(run.now if each.finished is None else each.finished for each in run.tries), begin + 1e-6
        )
        step = (end - begin) / BINS
        ax.step(
            [i * step for i in range(BINS)], busy_bins(run.tries, run.now, begin, end, BINS), where="post"
        )
    ax.set_ylabel("attempts under way")
    return _finish(ax, f"{run.id} {run.name}", "time since submission [s]", False)


def elections(status: ClusterStatus, ax: Any) -> Any:
    """A bar a term, a row a master; give the axis back."""
    names = [master.id for master in status.masters]
    for reign in status.reigns:
        if reign.leader not in names:
            names.append(reign.leader)
        end = status.now if reign.ended is None else reign.ended
        ax.barh(
            names.index(reign.leader),
            end - reign.started,
            left=reign.started,
            color=TERMS[term_class(reign.term)][0],
        )
        ax.annotate(
            str(reign.term), ((reign.started + end) / 2, names.index(reign.leader)), ha="center", va="center"
        )
    ax.set_yticks(range(len(names)), names)
    return _finish(ax, f"elections of {status.title}", "time [s]", False)


def queue(status: ClusterStatus, ax: Any) -> Any:
    """Layers of waiting tasks by priority; give the axis back."""
    if status.queue:
        times = [point.time for point in status.queue]
        layers = {name: [getattr(point, name) for point in status.queue] for name in LAYERS}
        ax.stackplot(times, *layers.values(), labels=list(layers), colors=list(LAYERS.values()), step="post")
    ax.set_ylabel("tasks waiting")
    return _finish(ax, f"queue of {status.title}", "time [s]", bool(status.queue))


def spacetime(story: SpaceTime, ax: Any) -> Any:
    """A line a node, an arrow a message, true to time; give the axis back."""
    row = {node: -i for i, node in enumerate(story.nodes)}
    for each in story.stretches:
        if each.node in row:
            colour = TERMS[term_class(each.term)][0] if each.term else "#8d97a3"
            style = {"down": ":", "paused": "--"}.get(each.state, "-")
            thick = 5.0 if each.role == "leader" and each.state == "up" else 1.6
            at = row[each.node]
            ax.plot([each.start, each.end], [at, at], style, color=colour, linewidth=thick)
    for hop in story.hops:
        y1, y2 = row[hop.source], row[hop.destination]
        end = story.end if hop.ended is None else hop.ended
        if hop.lost or hop.ended is None:
            ax.plot([hop.sent, end], [y1, (y1 + y2) / 2], ":", color="#46525f", linewidth=0.8)
            if hop.lost:
                ax.plot([end], [(y1 + y2) / 2], "x", color="#b8321f")
            continue
        ax.annotate(
            "",
            xy=(end, y2),
            xytext=(hop.sent, y1),
            arrowprops={
                "arrowstyle": "-|>",
                "color": "#46525f",
                "linewidth": 0.7,
                "shrinkA": 0,
                "shrinkB": 0,
            },
        )
    for mark in story.marks:
        if mark.node in row:
            ax.annotate(mark.said, (mark.time, row[mark.node]), color="#b8321f", fontsize="small")
    ax.set_yticks(list(row.values()), list(row))
    ax.set_xlim(story.start, story.end or 1.0)
    return _finish(ax, f"space-time of {story.title}", "time [s]", False)


def _finish(ax: Any, title: str, across: str, legend: bool) -> Any:
    ax.set_xlabel(across)
    ax.set_title(title.replace("$", r"\$"))
    if legend:
        ax.legend()
    return ax
