"""`agentflow demo`: a real job on a real cluster, with its leader and a worker killed on the way.

It analyses the standard library of the interpreter it runs on, shows what happens while it does, compares
the result with a serial computation, and fails if they differ.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from agentflow.cluster.cluster import Cluster
from agentflow.cluster.elections import candidacies
from agentflow.cluster.run import Run
from agentflow.cluster.status import reigns_of
from agentflow.core.control.commands import AttemptState
from agentflow.core.record import Record
from agentflow.errors import AgentflowError, InvalidConfig
from agentflow.ids import NodeId, Term
from agentflow.labs import stdlib
from agentflow.notebook.pictures.report import checked_target, run_report

LEADER_DIES_AT = 0.35
WORKER_DIES_AT = 0.6
"""When, as a share of the tasks that have settled."""


class Summary(msgspec.Struct):
    """What `--json` prints.

    `rerun` counts attempts that had to be made again because their worker was lost; `lost` counts tasks
    that were submitted and never settled.
    """

    tasks: int
    attempts: int
    rerun: int
    lost: int
    elections: list[dict[str, Any]]
    equal_to_serial: bool
    seconds: float
    top: list[dict[str, Any]]
    seed: int
    killed: list[str]


def run_demo(
    *, faults: bool, seed: int, masters: int, workers: int, as_json: bool, report: Path | None = None
) -> int:
    """Run the demonstration; give the exit status."""
    console = Console(quiet=as_json)
    try:
        if report is not None:
            checked_target(report)
        if workers == 0:
            raise InvalidConfig(
                "--workers 0: the demo's tasks would wait for ever; give it one at least", field="workers"
            )
        with Cluster(masters=masters, workers=workers, seed=seed) as cluster:
            summary, table = _perform(cluster, console, faults, seed)
            if report is not None:
                run_report(next(iter(cluster.runs.values())), report)
                console.print(f"report written to {escape(str(report))}", highlight=False)
    except AgentflowError as error:
        console = Console(stderr=True)
        reason: BaseException | None = error
        while isinstance(reason, AgentflowError):
            console.print(f"[red]{type(reason).__name__}[/]: {escape(str(reason))}", highlight=False)
            reason = reason.__cause__
        return 2
    if as_json:
        print(json.dumps(msgspec.to_builtins(summary)))
    else:
        _report(console, summary, table)
    return 0 if summary.equal_to_serial and not summary.lost else 1


def _perform(cluster: Cluster, console: Console, faults: bool, seed: int) -> tuple[Summary, Any]:
    sources = stdlib.modules()
    console.print(
        f"[bold]agentflow demo[/]: {len(sources)} modules of the standard library, "
        f"{len(cluster.masters)} masters, {len(cluster.workers)} workers, seed {seed}",
        highlight=False,
    )
    began = time.perf_counter()
    run = cluster.submit(stdlib.workflow(sources))
    story = _Story(cluster, run, random.Random(f"{seed}/demo"), console, faults)
    with _screen(console, run) as advance:
        for _ in run.as_completed():
            advance()
            story.go_on()
    seconds = time.perf_counter() - began
    story.end()
    console.print("comparing with a serial computation ...", style="dim")
    return _summary(cluster, run, sources, seconds, seed, story.killed), run.result("ranking")


class _Story:
    """The faults, and what the cluster makes of them, as lines on the screen."""

    def __init__(
        self, cluster: Cluster, run: Run, rng: random.Random, console: Console, faults: bool
    ) -> None:
        self.cluster = cluster
        self.run = run
        self.rng = rng
        self.console = console
        self.killed: list[NodeId] = []
        self._done = 0
        self._told = 0
        self._plan: list[tuple[float, Callable[[], NodeId | None]]] = []
        if faults and len(cluster.masters) > 2:
            self._plan.append((LEADER_DIES_AT, lambda: self.cluster.leader))
        if faults and len(cluster.workers) > 1:
            self._plan.append((WORKER_DIES_AT, lambda: self.rng.choice(sorted(self.cluster.workers))))

    def go_on(self) -> None:
        """One more task has settled."""
        self._done += 1
        if self._plan and self._done >= self._plan[0][0] * len(self.run):
            victim = self._plan[0][1]()
            if victim is not None:
                self._plan.pop(0)
                self.cluster.kill(victim)
                self.killed.append(victim)
                self._say(f"[red]✗ killed {victim}[/] after {self._done} of {len(self.run)} tasks")
        self._tell_news()

    def end(self) -> None:
        """Tell what is left to tell."""
        self._tell_news()

    def _tell_news(self) -> None:
        trace = self.cluster._deployment.host.trace
        for record in trace.since(self._told):
            self._told = record.seq + 1
            if record.kind == "serve":
                self._say(f"[green]● {record.node} leads term {record.payload}[/]")
            elif record.kind == "lost":
                worker, moved = record.payload
                self._say(f"[yellow]↻ {worker} declared dead; {moved} tasks start elsewhere[/]")

    def _say(self, line: str) -> None:
        self.console.print(f"  {self.cluster.now:6.2f} s  {line}", highlight=False)


@contextlib.contextmanager
def _screen(console: Console, run: Run) -> Iterator[Callable[[], None]]:
    """A progress bar; where there is no terminal, nothing that would fill a log."""
    bar = Progress(
        TextColumn("  tasks"),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
    task = bar.add_task("tasks", total=len(run))
    if not console.is_terminal:
        yield lambda: None
        return
    with Live(bar, console=console, refresh_per_second=10, transient=True):
        yield lambda: bar.advance(task)


def _summary(
    cluster: Cluster, run: Run, sources: dict[str, Any], seconds: float, seed: int, killed: list[str]
) -> Summary:
    expected = stdlib.serially(sources)
    equal = (
        run.result("circles") == expected["circles"]
        and run.result("reach") == expected["reach"]
        and run.result("ranking").equals(expected["ranking"])
    )
    history = cluster.read(lambda: list(cluster.plane().runs[run.id].history))
    records = cluster.read(lambda: list(cluster.records()))
    leaderless = _leaderless(records)
    elections = [
        {
            "term": each.term,
            "leader": each.candidate,
            "outcome": each.outcome,
            "seconds": each.decided and each.decided - each.started,
            "leaderless": leaderless.get(each.term) if each.outcome == "won" else None,
        }
        for each in candidacies(records)
    ]
    return Summary(
        tasks=len(run),
        attempts=len(history),
        rerun=sum(1 for row in history if row.state is AttemptState.LOST),
        lost=run.counts["unsettled"],
        elections=elections,
        equal_to_serial=equal,
        seconds=round(seconds, 3),
        top=run.result("ranking").to_dict(orient="records"),
        seed=seed,
        killed=killed,
    )


def _leaderless(records: list[Record]) -> dict[Term, float]:
    """How long nobody led before each term's leader, in seconds; the first waits since the start."""
    vacant, found = 0.0, {}
    for reign in reigns_of(records):
        found[reign.term] = reign.started - vacant
        vacant = reign.ended if reign.ended is not None else reign.started
    return found


def _report(console: Console, summary: Summary, frame: Any) -> None:
    table = Table(
        title="What the standard library leans on",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1),
        pad_edge=False,
    )
    for column in frame.columns:
        words = column.replace("_", "\n", 1).replace("_", " ")
        table.add_column(words, justify="left" if column == "module" else "right", no_wrap=True)
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    console.print(table)
    elections = Table(
        title="Elections", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False
    )
    for column in ("term", "candidate", "outcome", "votes counted in", "nobody led for"):
        elections.add_column(column, justify="left" if column in ("candidate", "outcome") else "right")
    for each in summary.elections:
        times = (
            "" if each[key] is None else f"{each[key] * 1000:.1f} ms" for key in ("seconds", "leaderless")
        )
        elections.add_row(str(each["term"]), each["leader"], each["outcome"], *times)
    console.print(elections)
    verdict = (
        "[green]equal to the serial computation[/]"
        if summary.equal_to_serial
        else "[red]NOT equal to the serial computation[/]"
    )
    console.print(
        Panel.fit(
            f"{summary.tasks} tasks, {summary.attempts} attempts, {summary.rerun} re-run, "
            f"lost = {summary.lost}, {summary.seconds:.1f} s\nkilled: {', '.join(summary.killed) or 'nobody'}\n{verdict}"
        ),
        highlight=False,
    )
