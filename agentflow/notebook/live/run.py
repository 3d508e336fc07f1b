"""The view of a run: its graph coloured as it happens, who worked when, and why a task stands where it does.

Law: what has been told of attempts is not told again; a view that came later asks for the whole once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec

from agentflow.cluster.status import longest_chain
from agentflow.core.control.commands import AttemptState
from agentflow.core.control.runs import State
from agentflow.errors import InvalidConfig, NoSuchTask
from agentflow.notebook.live.graphs import drawn, folded, lengths
from agentflow.notebook.live.scene import Deed, Frame, Scene, short

FAILURES: Final = 12
ROWS: Final = 1500
"""Attempts told in one snapshot; more follow in the next."""

RUNNING: Final = 256
AGAIN_SECS: Final = 2.0
"""A graph that grows is laid out no more often."""

CHAIN_SHARE: Final = 0.01
"""Of a core, for the critical path."""


class Instant(msgspec.Struct):
    """What was read of a run in one turn."""

    now: float
    states: bytes
    rows: list[Any]
    running: list[tuple[int, str, float, int]]
    submitted: float
    finished: float | None
    done: bool
    size: int
    known: bool = True


class RunScene(Scene):
    """What the view of a run shows."""

    module: ClassVar[str] = "run.js"
    label: ClassVar[str] = "run"
    variable: ClassVar[str] = "run"

    def __init__(self, subject: Any) -> None:
        super().__init__(subject)
        self._told = 0
        self._rows: list[list[Any]] = []
        self._workers: dict[str, int] = {}
        self._took: list[float] = []
        self._needs: list[tuple[int, ...]] = []
        self._laid: int | None = None
        self._laid_at = -AGAIN_SECS
        self._graph: dict[str, Any] | None = None
        self._chain: tuple[int, ...] = ()
        self._chain_due = 0.0
        self._begun = False
        self._refix = False
        self._failed: dict[int, tuple[str, str]] = {}

    @property
    def home(self) -> Any:
        """The cluster it runs on."""
        run = self.subject
        return None if run is None else run._home

    @property
    def ended(self) -> bool:
        """Whether every task has settled, and all of it was told."""
        run = self.subject
        return run is None or run.done

    # --- what seldom changes ----------------------------------------------------------------------------------

    def refix(self) -> None:
        """Send names and graph again."""
        self._refix = True

    def fixed(self, frame: Frame) -> dict[str, Any] | None:
        """Names and graph; the names first, since laying out a large graph takes a while."""
        run = self.subject
        size = len(run.tasks)
        grown = self._laid is not None and self._laid != size
        if not self._begun:
            self._begun = True
            return self._names(run)
        now = time.monotonic()
        if (self._laid is None or grown) and now - self._laid_at >= AGAIN_SECS:
            self._laid, self._laid_at = size, now
            self._needs = self._read_needs(run)
            self._graph = drawn(run.tasks[: len(self._needs)], self._needs)
            return self._names(run)
        if self._refix:
            self._refix = False
            return self._names(run)
        return None

    def _names(self, run: Any) -> dict[str, Any]:
        return {
            "id": run.id,
            "name": short(run.flow.name),
            "ids": folded([short(task) for task in run.tasks]),
            "graph": self._graph,
        }

    def _read_needs(self, run: Any) -> list[tuple[int, ...]]:
        def look() -> list[tuple[int, ...]] | None:
            tables = run._home.plane().runs.get(run.id)
            return None if tables is None else [tuple(each) for each in tables.dependencies]

        found: list[tuple[int, ...]] | None = run._home.read(look)
        if found is not None:
            return found[: len(run.tasks)] + [()] * max(0, len(run.tasks) - len(found))
        ids, needs, _ = run.flow.parts()
        position = {task: i for i, task in enumerate(run.tasks)}
        by_id = dict(zip(ids, needs, strict=False))
        return [
            tuple(position[need] for need in by_id.get(task, ()) if need in position) for task in run.tasks
        ]

    # --- one instant --------------------------------------------------------------------------------------------

    def _look(self, run: Any) -> Instant:
        home = run._home
        told = self._told

        def look() -> Instant | None:
            plane = home.plane()
            tables = plane.runs.get(run.id)
            if tables is None:
                return None
            running = [
                (live.task, live.worker.id, live.assigned, live.number)
                for live in plane.live.values()
                if live.run is tables
            ]
            finished = tables.finished_at if tables.finished_at >= 0 else None
            return Instant(
                home.now,
                bytes(tables.state),
                tables.history[told : told + ROWS],
                running[:RUNNING],
                tables.submitted_at,
                finished,
                tables.done,
                len(tables.history),
            )

        found: Instant | None = home.read(look)
        if found is None:
            return Instant(home.now, bytes(run._state), [], [], 0.0, None, run.done, told, known=False)
        if run.done and not found.done:
            found.states = bytes(run._state)
        return found

    def snapshot(self, frame: Frame) -> dict[str, Any]:
        """One instant of the run."""
        run = self.subject
        seen = self._look(run)
        begun = seen.submitted
        first = len(self._rows)
        for row in seen.rows:
            self._take(row, begun)
        self._told += len(seen.rows)
        running = [
            [task, self._worker(worker), round((assigned - begun) * 1000), number]
            for task, worker, assigned, number in seen.running
        ]
        self._follow(seen)
        counts = [seen.states.count(state) for state in State]
        failures = [
            [task, failure.report.type[:80], failure.report.message[:300]]
            for task, failure in list(run._errors.items())[:FAILURES]
        ]
        return {
            "now": round((seen.now if seen.finished is None else seen.finished) - begun, 3),
            "states": lengths(seen.states),
            "counts": counts,
            "from": first,
            "rows": self._rows[first:],
            "more": self._told < seen.size,
            "running": running,
            "workers": list(self._workers),
            "critical": list(self._chain[:400]),
            "critical_s": round(sum(self._took[task] for task in self._chain), 3),
            "failures": failures,
            "failed": counts[State.FAILED],
            "done": run.done,
            "known": seen.known,
            "leader": frame.home.leader is not None,
        }

    def _take(self, row: Any, begun: float) -> None:
        started = max(0.0, row.started - begun)
        length = max(0.0, row.finished - row.started)
        self._rows.append(
            [
                row.task,
                self._worker(row.worker),
                round(started * 1000, 1),
                round(length * 1000, 1),
                int(row.state),
                row.number,
            ]
        )
        if len(self._took) <= row.task:
            self._took.extend([0.0] * (row.task + 1 - len(self._took)))
        self._took[row.task] = length

    def _worker(self, name: str) -> int:
        return self._workers.setdefault(short(name), len(self._workers))

    def _follow(self, seen: Instant) -> None:
        """Find the critical path anew, if that is due."""
        began = time.perf_counter()
        if not self._needs or (began < self._chain_due and not seen.done):
            return
        took = [*self._took, *[0.0] * (len(self._needs) - len(self._took))]
        for task, _, assigned, _ in seen.running:
            if task < len(took):
                took[task] = max(took[task], seen.now - assigned)
        self._took = took
        self._chain = longest_chain(self._needs, took)
        spent = time.perf_counter() - began
        self._chain_due = began + max(0.5, spent / CHAIN_SHARE)

    def rest(self) -> list[dict[str, Any]]:
        """Every attempt told so far, in pieces."""
        return [{"from": at, "rows": self._rows[at : at + ROWS]} for at in range(0, len(self._rows), ROWS)]

    # --- commands -------------------------------------------------------------------------------------------------

    def deed(self, name: str, given: Mapping[str, Any]) -> Deed:
        """Explain a task, or cancel the run."""
        run = self.subject
        variable = self.known_as
        if name == "cancel":
            return Deed(f"{variable}.cancel()", run.cancel)
        if name != "explain":
            raise InvalidConfig(f"a run knows no {name!r}", field="do")
        at = given.get("task")
        if not isinstance(at, int) or isinstance(at, bool) or not 0 <= at < len(run.tasks):
            raise NoSuchTask(f"{run.id} has no task number {at!r}", task=str(at))
        task = run.tasks[at]
        return Deed(f"{variable}.explain({task!r})", lambda: self._explained(run, at))

    def _explained(self, run: Any, at: int) -> dict[str, Any]:
        def last_error() -> Any:
            tables = run._home.plane().runs.get(run.id)
            rows = () if tables is None else reversed(tables.history)
            return next((row.error for row in rows if row.task == at and row.error is not None), None)

        failure = run._errors.get(at)
        report = failure.report if failure is not None else run._home.read(last_error)
        error = ""
        if report is not None:
            error = report.traceback or f"{report.type}: {report.message}"
        needs = self._needs[at] if at < len(self._needs) else ()
        return {
            "task": at,
            "said": run.explain(run.tasks[at]),
            "traceback": error[-6000:],
            "after": [short(run.tasks[need]) for need in needs[:20]],
            "more_after": max(0, len(needs) - 20),
        }


ATTEMPT_STATES: Final = tuple(state.name for state in AttemptState)
"""What the numbers in a row stand for; `run.js` lists the same."""
