"""One self-contained HTML file about a run or a cluster: opened years later, it asks the network for nothing."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import agentflow
from agentflow.cluster.facade import Facade
from agentflow.cluster.run import Run
from agentflow.cluster.status import ClusterStatus, RunStatus, published, published_run
from agentflow.errors import InvalidConfig
from agentflow.notebook.html import escape, image, table
from agentflow.notebook.pictures import panel
from agentflow.notebook.pictures import run as runs
from agentflow.notebook.pictures.facades import diagram
from agentflow.notebook.pictures.picture import page
from agentflow.notebook.pictures.theme import WORDS

SLOWEST: Final = 15


def run_report(run: Run, path: str | os.PathLike[str]) -> Path:
    """Write the report of a run: graph, Gantt, elections, workers, slowest tasks, errors, seed and versions."""
    status = published_run(run)
    home: Any = run._home
    around = published(home) if isinstance(home, Facade) else None
    return _write(
        path,
        f"{status.id}: {status.name}",
        [*run_parts(status), *(_around(around) if around else []), provenance(home)],
    )


def cluster_report(cluster: Facade, path: str | os.PathLike[str]) -> Path:
    """Write the report of a cluster: the panel, its elections and queue, and every run that is kept."""
    status = published(cluster)
    elected = diagram(cluster, kinds="election")
    parts = [
        f"<p class='sub'>{escape(panel.describe(status))}</p>",
        image(panel.cluster_svg(status), panel.describe(status)),
        *_around(status),
        "<h2>How they were elected</h2>",
        image(elected.svg(), elected.label),
    ]
    for run in list(cluster.runs.values())[-8:]:
        each = published_run(run)
        parts += [f"<h1>{escape(each.id)}: {escape(each.name)}</h1>", *run_parts(each)]
    return _write(path, status.title, [*parts, provenance(cluster)])


def run_parts(status: RunStatus) -> list[str]:
    """What a report says of one run."""
    parts = [
        f"<p class='sub'>{escape(runs.describe(status))}</p>",
        image(runs.run_svg(status), runs.describe(status)),
        image(runs.utilisation_svg(status), f"utilisation of {status.id}"),
        "<h2>Slowest tasks</h2>",
        table("slowest attempts", ("task", "try", "worker", "state", "seconds"), slowest(status), SLOWEST),
    ]
    if status.errors:
        parts += ["<h2>Errors</h2>", table("errors", ("task", "exception", "message"), status.errors, 50)]
    return parts


def slowest(status: RunStatus) -> list[tuple[Any, ...]]:
    """The attempts that took longest."""
    ended = [each for each in status.tries if each.finished is not None]
    ended.sort(key=lambda each: each.started - (each.finished or 0.0))
    return [
        (
            status.ids[each.task],
            each.number,
            each.worker,
            WORDS[each.state],
            (each.finished or 0.0) - each.started,
        )
        for each in ended[:SLOWEST]
    ]


def _around(status: ClusterStatus) -> list[str]:
    stands: Iterable[Sequence[Any]] = (
        (
            s.term,
            s.candidate,
            s.outcome,
            f"{s.votes} of {s.voters}",
            s.started,
            None if s.decided is None else s.decided - s.started,
            s.cause,
        )
        for s in status.stands
    )
    workers = (
        (w.id, w.group, w.status.lower(), w.running, w.slots, w.reason or None) for w in status.workers
    )
    return [
        "<h2>Elections</h2>",
        image(panel.elections_svg(status), f"elections of {status.title}"),
        table(
            "candidacies",
            ("term", "candidate", "outcome", "votes", "at [s]", "took [s]", "cause"),
            stands,
            50,
        ),
        "<h2>Queue and workers</h2>",
        image(panel.queue_svg(status), f"queue of {status.title}"),
        image(panel.workers_svg(status, 960), f"workers of {status.title}"),
        table("workers", ("id", "group", "status", "running", "slots", "reason"), workers, 50),
    ]


def provenance(home: Any) -> str:
    """With what it was made: seed and versions."""
    seed = getattr(getattr(home, "_deployment", None), "seed", None)
    rows = [
        ("seed", seed),
        ("agentflow", agentflow.__version__),
        ("Python", platform.python_version()),
        ("system", f"{platform.system()} {platform.machine()}"),
        ("cores", os.cpu_count()),
    ]
    return "<h2>Made with</h2>" + table("made with", ("what", "which"), rows)


def checked_target(path: str | os.PathLike[str]) -> Path:
    """Give the path of a report, or refuse it before the work whose report it would be.

    Examples
    --------
    >>> checked_target("report.html").name
    'report.html'
    """
    target = Path(path)
    if target.suffix.lower() not in (".html", ".htm"):
        raise InvalidConfig(f"a report is an .html file, not {target.name!r}", field="path")
    if not target.parent.is_dir():
        raise InvalidConfig(
            f"there is no folder {str(target.parent)!r} for the report; make it", field="path"
        )
    return target


def _write(path: str | os.PathLike[str], title: str, parts: Sequence[str]) -> Path:
    target = checked_target(path)
    target.write_text(page(title, f"<h1>{escape(title)}</h1>{''.join(parts)}"), encoding="utf-8")
    return target
