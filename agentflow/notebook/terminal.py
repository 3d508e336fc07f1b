"""The same facts for a terminal: `rich.print(cluster)` and whatever else prints with rich.

Law: text is text; no markup in a name is taken for markup of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agentflow.cluster.facade import Facade
from agentflow.cluster.run import Run
from agentflow.cluster.status import ClusterStatus, RunStatus, published, published_run
from agentflow.notebook.html import clean
from agentflow.notebook.pictures import panel, svg
from agentflow.notebook.pictures import run as runs
from agentflow.notebook.pictures.masters import said_of
from agentflow.notebook.pictures.theme import BAR_ORDER, MARKS, STATES, WORDS

ROWS_AT_MOST: Final = 16
BAR: Final = 60
COLOURS: Final = ("blue", "yellow", "magenta", "cyan", "green")
"""Of the terms, in the order of the pictures."""

STATE_COLOURS: Final = {
    "COMPLETED": "green",
    "RUNNING": "blue",
    "RETRYING": "yellow",
    "FAILED": "red",
    "READY": "cyan",
    "CANCELLED": "bright_black",
    "SKIPPED": "bright_black",
    "PENDING": "white",
}


def cluster_rich(cluster: Facade) -> RenderableType:
    """A sentence, the masters, the workers, and what is wrong."""
    status = published(cluster)
    parts: list[RenderableType] = [Text(clean(panel.describe(status)), style="bold")]
    if status.masters:
        parts.append(_masters(status))
    if status.workers:
        rows = ((w.id, w.group, w.status.lower(), f"{w.running}/{w.slots}") for w in status.workers)
        parts.append(_table(("worker", "group", "status", "slots"), rows, len(status.workers)))
    parts += [Text(f"! {clean(alert)}", style="red") for alert in status.alerts[:4]]
    return Group(*parts)


def _masters(status: ClusterStatus) -> Table:
    rows = []
    for master in status.masters:
        colour = COLOURS[(master.term - 1) % len(COLOURS)] if master.term else "white"
        mark = (
            "●"
            if master.role == "leader" and master.state == "up"
            else "✕"
            if master.state == "down"
            else "○"
        )
        numbers = (
            ("", "") if master.state == "down" else (str(master.term), f"{master.commit} / {master.last}")
        )
        rows.append((Text(f"{mark} {clean(master.id)}", style=colour), said_of(master), *numbers))
    return _table(("master", "role", "term", "commit / last"), rows, len(rows))


def run_rich(run: Run) -> RenderableType:
    """A sentence, a bar of the states, and what failed."""
    status = published_run(run)
    parts: list[RenderableType] = [Text(clean(runs.describe(status)), style="bold"), bar(status)]
    parts += [
        Text(clean(f"✗ {task}: {kind}: {message}")[:300], style="red")
        for task, kind, message in status.errors[:6]
    ]
    return Group(*parts)


def bar(status: RunStatus) -> Text:
    """Tasks by state as a bar and in words; a state that occurs has one cell at least."""
    counts = dict(zip(STATES, status.counts, strict=True))
    total = sum(counts.values())
    line, words = Text(), Text()
    for state in BAR_ORDER:
        if counts[state]:
            line.append("█" * max(1, round(BAR * counts[state] / total)), style=STATE_COLOURS[state])
            words.append(
                f"{MARKS[state]} {counts[state]:,} {WORDS[state]}  ".lstrip(), style=STATE_COLOURS[state]
            )
    return Text.assemble(line, "\n", words) if total else Text("no tasks", style="bright_black")


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]], count: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bright_black")
    for column in columns:
        table.add_column(column)
    for number, row in enumerate(rows):
        if number == ROWS_AT_MOST:
            table.add_row(Text(f"and {svg.count(count - number, 'more', 'more')}", style="bright_black"))
            break
        table.add_row(*(each if isinstance(each, Text) else Text(clean(each)) for each in row))
    return table
