"""The control plane: the state machine under the log, and the only place where a task changes state.

Law: `apply` is deterministic. What it reads is the command and the plane; the time is the command's. So
every master that has applied the same entries holds the same plane, and has decided the same placements:
an assignment needs no entry of its own.

Law: a completion counts once. Attempts are numbered by the plane; a report on an attempt that is not
running (late, repeated, or from a worker declared dead) changes nothing.
"""

from __future__ import annotations

import heapq
import math
from typing import Any, NamedTuple

from agentflow.core.control.again import unfinished
from agentflow.core.control.commands import (
    AttemptState,
    Batch,
    CancelRun,
    ClientCommand,
    ClientOp,
    Denied,
    DrainWorker,
    ErrorReport,
    ForgetRun,
    KeyCas,
    KeyGet,
    KeySet,
    RegisterWorker,
    RemoveWorker,
    Report,
    RetryRun,
    SubmitRun,
    WorkerLost,
)
from agentflow.core.control.ledger import Ledger, Start, Stop
from agentflow.core.control.placement import Demand, WorkerState, enlist, least_loaded
from agentflow.core.control.runs import SETTLED, RunState, State, start_run
from agentflow.ids import NodeId, RunId

READY, RUNNING = int(State.READY), int(State.RUNNING)
"""As plain integers: they index the counts of every task that moves."""

POISON_DEATHS = 3
"""A task that was running on this many workers when they died is failed instead of tried again."""


NOTHING: frozenset[str] = frozenset()

PATIENCE_SECS = 2.0
"""A task that waits longer for resources has them kept free for it as they come back."""


class Applied(NamedTuple):
    """What a batch answered to a client's command."""

    client: NodeId
    number: int
    result: Any


class Plane(Ledger):
    """Workflows, attempts, workers, sessions and keys: everything that a killed leader must not lose.

    Attributes
    ----------
    at : float
        The time of the last command; it never goes back.
    runs, workers : dict
        The tables, by id.
    live : dict
        Attempts under way, by number.
    directing : bool
        Whether somebody acts on what the commands decide: true at the leader. It changes no decision, only
        whether `starts`, `stops` and `changed` are collected for `take_effects`.
    """

    # --- the door -----------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """When a back-off or a time-out next falls due, or a lock is asked for again; `inf` if none is."""
        due = self.delayed[0][0] if self.delayed else math.inf
        if self.gate.held_up:
            due = min(due, *self.gate.due(self.at), math.inf)
        while self.timeouts and self.timeouts[0][1] not in self.live:
            heapq.heappop(self.timeouts)
        return min(due, self.timeouts[0][0]) if self.timeouts else due

    def apply(self, batch: Batch) -> list[Applied]:
        """Apply one log entry; give the answers to clients' commands."""
        self.at = at = max(self.at, batch.at)
        answers: list[Applied] = []
        self._fall_due(at)
        for op in batch.ops:
            if isinstance(op, Report):
                self._report(op)
            elif isinstance(op, ClientOp):
                answers.append(Applied(op.client, op.number, self._once(op)))
            elif isinstance(op, RegisterWorker):
                self._register(op)
            else:
                self._lose(op)
        while self._fed:
            self._feed(*self._fed.popleft())
        self._place()
        return answers

    def take_effects(self) -> tuple[list[Start], list[Stop], dict[RunId, RunState]]:
        """Hand over, and forget, what the commands since the last call ask of the leader."""
        effects = (self.starts, self.stops, self.changed)
        self.starts, self.stops, self.changed = [], [], {}
        return effects

    # --- clients' commands --------------------------------------------------------------------------------

    def _once(self, op: ClientOp) -> Any:
        known, answer = self.sessions.lookup(op.client, op.number)
        if not known:
            answer = self._execute(op.client, op.command)
            self.sessions.remember(op.client, op.number, op.floor, answer)
        return answer

    def value_of(self, key: str) -> Any:
        """The value of a key; None if it was never written."""
        return self.keys.get(key)

    def _execute(self, client: NodeId, command: ClientCommand) -> Any:
        match command:
            case KeySet(key, value):
                self.keys[key] = value
                return None
            case KeyGet(key):
                return self.value_of(key)
            case KeyCas(key, expected, value):
                if self.keys.get(key) != expected:
                    return False
                self.keys[key] = value
                return True
            case SubmitRun():
                return self._submit(client, command)
            case CancelRun(run):
                return self._cancel(run)
            case RetryRun():
                return self._retry(command)
            case ForgetRun(run):
                return self._forget(run)
            case DrainWorker(worker):
                return self._drain(worker)
            case RemoveWorker(worker):
                return self._remove(worker)

    def _submit(self, client: NodeId, command: SubmitRun) -> Any:
        if command.key and command.key in self.run_of_key:
            return self.run_of_key[command.key]
        for _, source, name in command.sources:
            if source not in self.runs or name not in self.runs[source].ids:
                return _unknown_task(source, name)
        self._runs_made += 1
        run = start_run(f"run-{self._runs_made}", command, client, self.at)
        self.runs[run.id] = run
        if command.key:
            self.run_of_key[command.key] = run.id
        if self.directing:
            self.changed[run.id] = run
        for task, attempt in command.taken:
            run.value[task] = attempt
            self._mark_settled(run, task, int(State.COMPLETED))
        for task, _ in command.taken:
            self._go_on(run, task)
        for task in run.borrowed:
            self._link(run, task)
        for task in range(len(command.ids)):
            if run.state[task] or task in run.borrowed:
                continue
            if not run.dependencies[task] or run.option(task).when == "always":
                self._ready(run, task)
        if run.done:
            run.finished_at = self.at
        return run.id

    def _retry(self, command: RetryRun) -> Any:
        run = self.runs.get(command.run)
        if run is None:
            return _unknown_run(command.run)
        if command.tasks:
            position = {name: task for task, name in enumerate(run.ids)}
            for name in command.tasks:
                if name not in position:
                    return _unknown_task(run.id, name)
                if run.state[position[name]] not in SETTLED:
                    return Denied("Refused", f"{name!r} of {run.id} is under way; wait for its end")
            tasks = [position[name] for name in command.tasks]
        else:
            tasks = unfinished(run, command.everything)
        run.cancelled = False
        before = len(run.changes)
        self._reopen(run, tasks)
        version = len(run.changes)
        return [version, len(tasks), run.changes[before:version]]

    def _cancel(self, run_id: RunId) -> Any:
        run = self.runs.get(run_id)
        if run is None:
            return _unknown_run(run_id)
        if run.done:
            return 0
        run.cancelled = True
        for attempt in [number for number, live in self.live.items() if live.run is run]:
            self._end(attempt, AttemptState.CANCELLED)
            if self.directing:
                self.stops.append(Stop(run.history[-1].worker, attempt))
        cancelled = 0
        for task, state in enumerate(run.state):
            if state not in SETTLED:
                self._mark_settled(run, task, State.CANCELLED)
                cancelled += 1
        self.queue.purge()
        return cancelled

    def _forget(self, run_id: RunId) -> Any:
        run = self.runs.get(run_id)
        if run is None:
            return None
        if not run.done:
            return Denied("Refused", f"{run_id} is still running; cancel it before it is released")
        for other in self.runs.values():
            if not other.done and any(source == run_id for source, _ in other.borrowed.values()):
                return Denied("Refused", f"{other.id} still takes values from {run_id}; wait for it")
        del self.runs[run_id]
        self.run_of_key.pop(run.key, None)
        return None

    def _drain(self, worker_id: NodeId) -> Any:
        worker = self.workers.get(worker_id)
        if worker is None:
            return self._no_such_worker(worker_id)
        worker.draining = True
        return None

    def _remove(self, worker_id: NodeId) -> Any:
        worker = self.workers.get(worker_id)
        if worker is None:
            return self._no_such_worker(worker_id)
        self._bury(worker, "removed", blame=False)
        return None

    def _no_such_worker(self, worker_id: NodeId) -> Denied:
        known = ", ".join(self.workers) or "none"
        return Denied(
            "NoSuchNode",
            f"no worker {worker_id!r} is registered; registered are {known}",
            {"node": worker_id},
        )

    # --- workers ------------------------------------------------------------------------------------------

    def _register(self, command: RegisterWorker) -> None:
        known = self.workers.get(command.worker)
        if known is not None:
            if known.epoch == command.epoch and known.alive:
                return
            if known.epoch > command.epoch:
                return
            if known.alive:
                self._bury(known, "registered again", blame=True)
        self.workers[command.worker] = enlist(command, self.at)

    def _lose(self, command: WorkerLost) -> None:
        worker = self.workers.get(command.worker)
        if worker is not None and worker.alive and worker.epoch == command.epoch:
            self._bury(worker, command.reason, blame=True)

    def _bury(self, worker: WorkerState, reason: str, *, blame: bool) -> None:
        """Declare a worker dead: what it ran starts elsewhere, and what it still says is refused."""
        worker.alive = False
        worker.lost_at = self.at
        worker.reason = reason
        for attempt in list(worker.running):
            live = self._end(attempt, AttemptState.LOST)
            run, task = live.run, live.task
            deaths = run.deaths[task] = run.deaths.get(task, 0) + blame
            if deaths >= POISON_DEATHS:
                run.errors[task] = ErrorReport(
                    "TaskFailed",
                    f"{deaths} workers died while they ran {run.ids[task]!r}, the last one {worker.id}",
                )
                self._settle(run, task, State.FAILED)
            else:
                self._ready(run, task)

    def _report(self, report: Report) -> None:
        worker = self.workers.get(report.worker)
        if worker is None or worker.epoch != report.epoch or not worker.alive:
            self.refused_completions += len(report.completions)
            return
        for completion in report.completions:
            live = self.live.get(completion.attempt)
            if live is None or live.worker is not worker:
                self.refused_completions += 1
                continue
            self._finish(completion)

    # --- placing ------------------------------------------------------------------------------------------

    def _place(self) -> None:
        """Give waiting tasks to workers until no task fits a free slot."""
        queue = self.queue
        open_workers = [worker for worker in self.workers.values() if worker.open_slots > 0]
        if not open_workers:
            return
        demands = self._admitted(queue.demands())
        if len(demands) == 1 and not demands[0][1] and not demands[0][3]:
            self._place_alike(demands[0], open_workers)
            return
        reserved: dict[NodeId, frozenset[str]] = {}
        while demands:
            best = queue.best(demands)
            if best is None:
                return
            waiting, demand, lane = best
            takes = frozenset(name for name, _ in demand[1])
            free = [each for each in open_workers if not takes & reserved.get(each.id, NOTHING)]
            worker = least_loaded(free, demand)
            if worker is None:
                demands.remove(demand)
                if takes and waiting.at + PATIENCE_SECS <= self.at:
                    self._reserve(demand, takes, reserved)
                continue
            queue.serve(waiting, lane)
            self._assign(waiting, worker)
            if demand[3]:
                demands = self._admitted(demands)

    def _reserve(self, demand: Demand, takes: frozenset[str], reserved: dict[NodeId, frozenset[str]]) -> None:
        """Keep what a task asks for from those behind it, at one worker that could have it all some day.

        Otherwise small tasks would take each piece as it becomes free, and a large one would wait for ever.
        """
        able = [each for each in self.workers.values() if each.alive and not each.draining]
        able = [each for each in able if each.meets(demand) and each.id not in reserved]
        if able:
            # The share of what it asks for that is free now; the first worker of those with the most.
            shares = [
                min((each.free.get(name, 0.0) / amount for name, amount in demand[1] if amount), default=1.0)
                for each in able
            ]
            reserved[able[shares.index(max(shares))].id] = takes

    def _admitted(self, demands: list[Demand]) -> list[Demand]:
        """Those that want no lock, or one that may be asked for now."""
        return [each for each in demands if not each[3] or self.gate.is_open(each[3], self.at)]

    def _place_alike(self, demand: Demand, workers: list[WorkerState]) -> None:
        """Place tasks that all ask for the same and take no resources: the usual case, and the fast one."""
        queue = self.queue
        heap = [
            (worker.load, len(worker.running), worker.id, worker)
            for worker in workers
            if worker.meets(demand)
        ]
        heapq.heapify(heap)
        lanes = [demand]
        while heap:
            best = queue.best(lanes)
            if best is None:
                return
            waiting, _, lane = best
            worker = heap[0][3]
            queue.serve(waiting, lane)
            self._assign(waiting, worker)
            running = len(worker.running)
            if running < worker.limit:
                heapq.heapreplace(heap, (worker.load, running, worker.id, worker))
            else:
                heapq.heappop(heap)


def _unknown_run(run_id: RunId) -> Denied:
    return Denied("NoSuchTask", f"there is no run {run_id!r}; it may have been released", {"task": run_id})


def _unknown_task(run_id: RunId, name: str) -> Denied:
    return Denied("NoSuchTask", f"there is no task {name!r} of a run {run_id!r}", {"task": name})
