"""The pictures of a cluster and of a run, as methods.

Law: a picture is of the instant it was asked for; drawing it later, or in another theme, shows the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from agentflow.cluster.facade import Facade
from agentflow.cluster.parts import LeaseStatus, leases, mailboxes, waiting_in_cluster
from agentflow.cluster.run import Run
from agentflow.cluster.spacetime import SpaceTime, spacetime
from agentflow.cluster.status import ClusterStatus, RunStatus, published, published_run
from agentflow.core.scheduling import Workflow
from agentflow.errors import NoSuchNode, NoSuchTask
from agentflow.notebook.pictures import flow as flows
from agentflow.notebook.pictures import onaxis
from agentflow.notebook.pictures import panel as panels
from agentflow.notebook.pictures import parts as pieces
from agentflow.notebook.pictures import run as runs
from agentflow.notebook.pictures import spacetime as diagrams
from agentflow.notebook.pictures.picture import Picture


class ClusterPlots:
    """`cluster.plot`: pictures of a cluster, one a method."""

    def __init__(self, cluster: Facade) -> None:
        self._cluster = cluster

    def __repr__(self) -> str:
        return (
            "<plots: panel(), elections(), queue(), waiting(), workers(), spacetime(), mailboxes(), locks(), "
            "node(id)>"
        )

    def panel(self, width: float = panels.WIDE) -> Picture:
        """Everything on one card; below a width of 700 the parts are stacked."""
        status = published(self._cluster)
        return Picture(lambda theme: panels.cluster_svg(status, width, theme), panels.describe(status))

    def elections(self, ax: Any = None, width: float = panels.WIDE) -> Any:
        """Who led and who stood, over time; on a matplotlib axis if one is given."""
        status = published(self._cluster)
        if ax is not None:
            return onaxis.elections(status, ax)
        return Picture(
            lambda theme: panels.elections_svg(status, width, theme), f"elections of {status.title}"
        )

    def queue(self, ax: Any = None, width: float = panels.WIDE) -> Any:
        """Depth of the queue over time, by priority; on a matplotlib axis if one is given."""
        status = published(self._cluster)
        if ax is not None:
            return onaxis.queue(status, ax)
        return Picture(lambda theme: panels.queue_svg(status, width, theme), f"queue of {status.title}")

    def waiting(self, width: float = pieces.WIDE) -> Picture:
        """Who waits in the queue now: the distribution of scores and of ages."""
        status = waiting_in_cluster(self._cluster)
        return Picture(lambda theme: pieces.waiting_svg(status, width, theme), pieces.waiting_said(status))

    def spacetime(self, ax: Any = None, **wishes: Any) -> Any:
        """The space-time diagram, with the arguments of `diagram()`; on a matplotlib axis if one is given."""
        if ax is None:
            return diagram(self._cluster, **wishes)
        return onaxis.spacetime(story_of(self._cluster, **wishes), ax)

    def mailboxes(self, width: float = pieces.WIDE) -> Picture:
        """How full the agents' mailboxes are."""
        found, title = mailboxes(self._cluster), published(self._cluster).title
        return Picture(
            lambda theme: pieces.mailboxes_svg(found, title, width, theme), f"mailboxes of {title}"
        )

    def locks(self, infos: Iterable[Any] | None = None, width: float = pieces.WIDE) -> Picture:
        """The locks that are held now; or leases, as `await lock.list_locks()` gave them."""
        held_now = self._cluster.lock_rows() if infos is None else infos
        return locks_picture(leases(held_now), "locks", width)

    def workers(self, width: float = 620) -> Picture:
        """The workers, by group where there are many."""
        status = published(self._cluster)
        return Picture(lambda theme: panels.workers_svg(status, width, theme), f"workers of {status.title}")

    def node(self, node: Any) -> Picture:
        """One master or one worker."""
        return node_picture(published(self._cluster), getattr(node, "id", node))


def node_picture(status: ClusterStatus, node_id: str) -> Picture:
    """The card of one node of a status."""
    master = next((each for each in status.masters if each.id == node_id), None)
    if master is not None:
        return Picture(lambda theme: panels.master_svg(master, theme=theme), f"master {node_id}")
    worker = next((each for each in status.workers if each.id == node_id), None)
    if worker is not None:
        return Picture(lambda theme: panels.worker_svg(worker, theme=theme), f"worker {node_id}")
    known = ", ".join([*(m.id for m in status.masters), *(w.id for w in status.workers)])
    raise NoSuchNode(f"there is no {node_id!r} to draw; there are: {known or 'none'}", node=node_id)


class RunPlots:
    """`run.plot`: pictures of a run, one a method."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __repr__(self) -> str:
        return "<plots: view(), graph(), gantt(), utilisation(), task(id)>"

    def view(self, width: float = runs.WIDE) -> Picture:
        """Bar, graph, Gantt and errors on one card."""
        status = published_run(self._run)
        return Picture(lambda theme: runs.run_svg(status, width, theme), runs.describe(status))

    def graph(self, width: float = runs.WIDE) -> Picture:
        """The graph, coloured by state."""
        status = published_run(self._run)
        return Picture(lambda theme: runs.graph_svg(status, width, theme), f"graph of {status.id}")

    def gantt(self, ax: Any = None, width: float = runs.WIDE) -> Any:
        """Every attempt by worker and time; on a matplotlib axis if one is given."""
        status = published_run(self._run)
        if ax is not None:
            return onaxis.gantt(status, ax)
        return Picture(lambda theme: runs.gantt_svg(status, width, theme), f"attempts of {status.id}")

    def utilisation(self, ax: Any = None, width: float = runs.WIDE) -> Any:
        """How many attempts ran at once, over time; on a matplotlib axis if one is given."""
        status = published_run(self._run)
        if ax is not None:
            return onaxis.utilisation(status, ax)
        return Picture(
            lambda theme: runs.utilisation_svg(status, width, theme), f"utilisation of {status.id}"
        )

    def task(self, task: Any) -> Picture:
        """One task: its state and its attempts."""
        status = published_run(self._run)
        name = getattr(task, "id", task)
        return task_picture(status, name)


def task_picture(status: RunStatus, name: str) -> Picture:
    """The card of one task of a status."""
    if name not in status.ids:
        raise NoSuchTask(f"{status.id} has no task {name!r}; run.tasks lists them", task=name)
    at = status.ids.index(name)
    return Picture(lambda theme: runs.task_svg(status, at, theme=theme), f"task {name}")


def workflow_picture(flow: Workflow) -> Picture:
    """The graph of a workflow."""
    return Picture(
        lambda theme: flows.workflow_svg(flow, theme=theme), f"workflow {flow.name}, {len(flow)} tasks"
    )


def diagram(
    home: Any,
    *,
    start: float | None = None,
    end: float | None = None,
    nodes: Iterable[Any] | None = None,
    kinds: str | Iterable[str] | None = None,
    width: float = diagrams.WIDE,
) -> Picture:
    """The space-time diagram of anything that has a trace: a cluster, a simulation, a bus of agents."""
    story = story_of(home, start=start, end=end, nodes=nodes, kinds=kinds)
    return Picture(lambda theme: diagrams.spacetime_svg(story, width, theme), diagrams.describe(story))


def story_of(home: Any, **wishes: Any) -> SpaceTime:
    """What a diagram tells of whatever has a trace."""
    seed = getattr(home, "seed", None)
    title = getattr(home, "name", None) or (f"seed {seed}" if seed is not None else "")
    wires = getattr(getattr(getattr(home, "_deployment", home), "host", None), "first_wires", None)
    return spacetime(home.records(), home.now, title, wires=wires, **wishes)


def locks_picture(found: Sequence[LeaseStatus], title: str, width: float = pieces.WIDE) -> Picture:
    """Who holds which lock."""
    return Picture(
        lambda theme: pieces.locks_svg(found, title, width, theme), f"{title}: {len(found)} leases"
    )
