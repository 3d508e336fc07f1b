"""What each object looks like at the end of a cell: its text and its HTML.

Law: a view reads what is already known. It waits for no node, and works on what is closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Final

from agentflow.cluster.agents.agent import AgentCommunication
from agentflow.cluster.facade import Facade
from agentflow.cluster.frames import ClusterFrames, RunFrames
from agentflow.cluster.nodes import MasterHandle, WorkerHandle
from agentflow.cluster.parts import held, mailbox, member, registered, waiting_in_queue
from agentflow.cluster.raftnode import RaftNode
from agentflow.cluster.run import Run
from agentflow.cluster.simulation import Simulation
from agentflow.cluster.status import ClusterStatus, RunStatus, published, published_run
from agentflow.core.scheduling import WorkerRegistry, Workflow
from agentflow.core.scheduling.queue import PriorityTaskQueue
from agentflow.locks.lock import DistributedLock
from agentflow.notebook.graph import warm
from agentflow.notebook.html import STYLE, escape, folded, image, table
from agentflow.notebook.pictures import flow as flows
from agentflow.notebook.pictures import panel, report
from agentflow.notebook.pictures import parts as drawn_parts
from agentflow.notebook.pictures import run as runs
from agentflow.notebook.pictures import svg as pieces
from agentflow.notebook.pictures.facades import (
    ClusterPlots,
    RunPlots,
    diagram,
    locks_picture,
    node_picture,
    workflow_picture,
)
from agentflow.notebook.pictures.masters import said_of
from agentflow.notebook.pictures.theme import MARKS, STATES, WORDS
from agentflow.notebook.styling import styled
from agentflow.notebook.terminal import cluster_rich, run_rich
from agentflow.views import view

LINES: Final = 24
"""A screenful: text shows no more rows than this."""

TABLE_ROWS: Final = 20


def _block(*parts: str) -> str:
    return f"{STYLE}<div class='agentflow'>{''.join(parts)}</div>"


def _some(lines: Iterable[str], limit: int) -> list[str]:
    found = list(lines)
    more = [f"  and {len(found) - limit:,} more"] if len(found) > limit else []
    return [*found[:limit], *more]


# --- a cluster ---------------------------------------------------------------------------------------------


@view("text", Facade)
def cluster_text(cluster: Facade) -> str:
    """One line, then a line a node."""
    status = published(cluster)
    lines = [
        panel.describe(status) + (" (closed)" if status.closed else " (last known)" if status.stale else "")
    ]
    lines += _some((_master_line(row) for row in master_rows(status)), LINES // 2)
    lines += _some(
        (f"  {row[0]}: {row[1]}, group {row[2]}, {row[3]} of {row[4]} slots" for row in worker_rows(status)),
        LINES // 2,
    )
    lines += [f"  ! {alert}" for alert in status.alerts[:4]]
    return "\n".join(pieces.clean(line) for line in lines)


def _master_line(row: Sequence[Any]) -> str:
    node_id, word, term, commit, applied, last = row
    return (
        f"  {node_id}: {word}"
        if term is None
        else f"  {node_id}: {word} term {term}, commit {commit}, applied {applied} of {last}"
    )


def master_rows(status: ClusterStatus) -> list[tuple[Any, ...]]:
    """A row a master: id, what it is, term, commit, applied, last."""
    return [
        (m.id, "down", None, None, None, None)
        if m.state == "down"
        else (m.id, said_of(m), m.term, m.commit, m.applied, m.last)
        for m in status.masters
    ]


def worker_rows(status: ClusterStatus) -> list[tuple[Any, ...]]:
    """A row a worker: id, status, group, running, slots, load."""
    return [(w.id, w.status.lower(), w.group, w.running, w.slots, w.load) for w in status.workers]


def run_rows(status: ClusterStatus) -> list[tuple[Any, ...]]:
    """A row a run: id, workflow, tasks, how many in which state."""
    return [(r.id, r.name, sum(r.counts), states_said(r.counts)) for r in status.runs]


def states_said(counts: Sequence[int]) -> str:
    """The counts in words."""
    return (
        ", ".join(f"{count:,} {WORDS[name]}" for name, count in zip(STATES, counts, strict=True) if count)
        or "no tasks"
    )


@view("html", Facade)
def cluster_html(cluster: Facade) -> str:
    """The panel, and the same facts as tables."""
    status = published(cluster)
    tables = [
        table(
            "masters", ("id", "role", "term", "commit", "applied", "last"), master_rows(status), TABLE_ROWS
        ),
        table(
            "workers", ("id", "status", "group", "running", "slots", "load"), worker_rows(status), TABLE_ROWS
        ),
    ]
    if status.runs:
        tables.append(table("runs", ("run", "workflow", "tasks", "state"), run_rows(status), TABLE_ROWS))
    return _block(image(panel.cluster_svg(status), panel.describe(status)), folded("as tables", *tables))


# --- a run -------------------------------------------------------------------------------------------------


@view("text", Run)
def run_text(run: Run) -> str:
    """One line, then what runs, what is retried and what failed."""
    status = published_run(run)
    lines = [runs.describe(status) + (f" ({status.note})" if status.note else "")]
    lines += _some((f"  ✗ {task}: {kind}: {message}" for task, kind, message in status.errors), 6)
    lines += _some(
        (
            f"  {MARKS[row[1]]} {row[0]}: {row[2]}"
            for row in task_rows(status)
            if row[1] in ("RUNNING", "RETRYING")
        ),
        8,
    )
    return "\n".join(pieces.clean(line)[:300] for line in lines)


def task_rows(status: RunStatus) -> list[tuple[str, str, str]]:
    """A row a task: id, the name of its state, the state in words."""
    return [
        (task, STATES[state], WORDS[STATES[state]])
        for task, state in zip(status.ids, status.states, strict=False)
    ]


@view("html", Run)
def run_html(run: Run) -> str:
    """Bar, graph and Gantt, and the tasks as a table."""
    status = published_run(run)
    tables = []
    if status.errors:
        tables.append(table("errors", ("task", "exception", "message"), status.errors, 10))
    rows = (
        (row[0], row[2], ", ".join(status.ids[n] for n in status.needs[i][:6]))
        for i, row in enumerate(task_rows(status))
    )
    tables.append(table("tasks", ("task", "state", "after"), rows, TABLE_ROWS))
    return _block(image(runs.run_svg(status), runs.describe(status)), folded("as tables", *tables))


# --- a workflow, a node ------------------------------------------------------------------------------------


@view("text", Workflow)
def workflow_text(flow: Workflow) -> str:
    """One line, then a line a task."""
    ids, needs = flows.workflow_parts(flow)
    lines = (
        f"  {task}" + (f" after {', '.join(ids[n] for n in before[:6])}" if before else "")
        for task, before in zip(ids, needs, strict=True)
    )
    return "\n".join(
        pieces.clean(line)[:200]
        for line in [f"workflow {flow.name}: {len(ids):,} tasks", *_some(lines, LINES)]
    )


@view("html", Workflow)
def workflow_html(flow: Workflow) -> str:
    """The graph and the tasks."""
    rows = (
        (
            node.id,
            node.priority.name.lower(),
            ", ".join(node.dependencies[:6]),
            node.group,
            node.retries or None,
        )
        for _, node in flow.parts()[2]
    )
    said = f"workflow {flow.name}, {len(flow):,} tasks"
    tasks = table("tasks", ("task", "priority", "after", "group", "retries"), rows, 10)
    return _block(image(flows.workflow_svg(flow), said), folded("as a table", tasks))


@view("html", MasterHandle)
@view("html", WorkerHandle)
def node_html(handle: Any) -> str:
    """The node's card; of one that is gone, a line."""
    status = published(handle._home)
    known = {*(m.id for m in status.masters), *(w.id for w in status.workers)}
    return (
        node_picture(status, handle.id).html()
        if handle.id in known
        else _block(f"<p>{escape(repr(handle))}</p>")
    )


# --- parts of one's own ------------------------------------------------------------------------------------


@view("html", PriorityTaskQueue)
def queue_html(queue: PriorityTaskQueue) -> str:
    """The distributions of scores and ages, and the numbers."""
    status = waiting_in_queue(queue)
    stats = queue.stats()
    names = ("enqueued", "dequeued", "retried", "dead_letters", "wait_mean_s", "wait_p99_s", "oldest_s")
    numbers = table("numbers", ("what", "how much"), [(name, getattr(stats, name)) for name in names])
    picture = image(drawn_parts.waiting_svg(status), drawn_parts.waiting_said(status))
    return _block(picture, folded("as a table", numbers))


@view("html", WorkerRegistry)
def registry_html(registry: WorkerRegistry) -> str:
    """The workers, by group where there are many."""
    found = registered(registry)
    status = ClusterStatus("registry", 0.0, workers=found)
    rows = table(
        "workers", ("id", "status", "group", "running", "slots", "load"), worker_rows(status), TABLE_ROWS
    )
    return _block(image(panel.workers_svg(status), f"{len(found)} workers"), folded("as a table", rows))


@view("html", AgentCommunication)
def agent_html(agent: AgentCommunication) -> str:
    """Its mailbox and its last messages."""
    box = mailbox(agent)
    rows = table("last messages", ("", "type", "other", "what"), box.last, TABLE_ROWS)
    said = f"agent {box.id}, {box.state}, {box.waiting} messages waiting"
    return _block(image(drawn_parts.agent_svg(box), said), folded("as a table", rows))


@view("html", RaftNode)
def member_html(node: RaftNode) -> str:
    """Its card."""
    master = member(node)
    rows = master_rows(ClusterStatus(node.id, 0.0, masters=(master,)))
    facts = table("node", ("id", "role", "term", "commit", "applied", "last"), rows)
    return _block(
        image(panel.master_svg(master), f"{node.id}: {said_of(master)}"), folded("as a table", facts)
    )


@view("html", DistributedLock)
def lock_html(lock: DistributedLock) -> str:
    """What this object holds; the database is not asked."""
    found = held(lock)
    columns = ("key", "owner", "token", "left [s]")
    rows = table("leases", columns, [(each.key, each.owner, each.token, each.left_s) for each in found])
    picture = locks_picture(found, f"held by {lock.owner}")
    return _block(image(picture.svg(), picture.label), folded("as a table", rows))


# --- pictures asked for by name ----------------------------------------------------------------------------

view("plot", Facade)(ClusterPlots)
view("plot", Run)(RunPlots)
view("diagram", Facade)(lambda cluster: partial(diagram, cluster))
view("picture", Workflow)(workflow_picture)
view("rich", Facade)(cluster_rich)
view("rich", Run)(run_rich)
view("styled", ClusterFrames)(lambda frames: partial(styled, frames))
view("styled", RunFrames)(lambda frames: partial(styled, frames))
view("report", Facade)(lambda cluster: partial(report.cluster_report, cluster))
view("report", Run)(lambda run: partial(report.run_report, run))

# --- live views: anywidget is imported when the first is made ------------------------------------------------


def _live(kind: str, subject: Any) -> Any:
    from agentflow.notebook.live import kinds

    return kinds.live(kind, subject)


def _displayed(kind: str, subject: Any) -> bool:
    from agentflow.notebook.live import kinds

    return kinds.displayed(kind, subject)


for _subject, _kind in ((Facade, "cluster"), (Run, "run"), (Simulation, "player")):
    view("widget", _subject)(partial(_live, _kind))
    view("display", _subject)(partial(_displayed, _kind))

for _part in ("queue", "workers", "locks", "agents", "messages"):
    view(f"widget {_part}", Facade)(partial(_live, _part))

warm()
