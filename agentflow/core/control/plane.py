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
import zlib
from typing import Any, NamedTuple

import msgspec

from agentflow.core.control.commands import (
    AttemptState,
    Batch,
    CancelRun,
    ClientCommand,
    ClientOp,
    Completion,
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
    Settlement,
    SubmitRun,
    TaskKind,
    WorkerLost,
)
from agentflow.core.control.placement import Demand, ReadyQueue, WorkerState, enlist, least_loaded
from agentflow.core.control.runs import SETTLED, AttemptRow, RunState, State, Tally, add_items, start_run
from agentflow.core.control.sessions import Sessions
from agentflow.core.control.triggers import Decision, decide
from agentflow.ids import AttemptId, NodeId, RunId

READY, RUNNING = int(State.READY), int(State.RUNNING)
"""As plain integers: they index the counts of every task that moves."""

POISON_DEATHS = 3
"""A task that was running on this many workers when they died is failed instead of tried again."""


class Live(msgspec.Struct, frozen=True, gc=False):
    """An attempt under way."""

    run: RunState
    task: int
    number: int
    worker: WorkerState
    assigned: float


class Start(msgspec.Struct, frozen=True, gc=False):
    """An attempt that the plane has placed and that its worker must be told of."""

    worker: NodeId
    attempt: AttemptId
    run: RunState
    task: int


class Stop(NamedTuple):
    """An attempt that its worker need not go on with."""

    worker: NodeId
    attempt: AttemptId


class Applied(NamedTuple):
    """What a batch answered to a client's command."""

    client: NodeId
    number: int
    result: Any


class Plane:
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

    def __init__(self) -> None:
        self.at = 0.0
        self.runs: dict[RunId, RunState] = {}
        self.keys: dict[str, Any] = {}
        self.workers: dict[NodeId, WorkerState] = {}
        self.live: dict[AttemptId, Live] = {}
        self.queue = ReadyQueue()
        self.sessions = Sessions()
        self.refused_completions = 0
        self.directing = True
        self.starts: list[Start] = []
        self.stops: list[Stop] = []
        self.changed: dict[RunId, RunState] = {}
        self.run_of_key: dict[str, RunId] = {}
        self._runs_made = 0
        self._attempts_made = 0
        self.delayed: list[tuple[float, int, RunState, int]] = []
        self._delays_made = 0
        self.timeouts: list[tuple[float, AttemptId]] = []

    # --- the door -----------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """When a back-off or a time-out next falls due; `inf` if none does."""
        due = self.delayed[0][0] if self.delayed else math.inf
        while self.timeouts and self.timeouts[0][1] not in self.live:
            heapq.heappop(self.timeouts)
        return min(due, self.timeouts[0][0]) if self.timeouts else due

    @property
    def made(self) -> tuple[int, int, int]:
        """How many runs, attempts and back-offs were ever numbered."""
        return self._runs_made, self._attempts_made, self._delays_made

    @made.setter
    def made(self, counters: tuple[int, int, int]) -> None:
        self._runs_made, self._attempts_made, self._delays_made = counters

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
            case ForgetRun(run):
                return self._forget(run)
            case DrainWorker(worker):
                return self._drain(worker)
            case RemoveWorker(worker):
                return self._remove(worker)

    def _submit(self, client: NodeId, command: SubmitRun) -> RunId:
        if command.key and command.key in self.run_of_key:
            return self.run_of_key[command.key]
        self._runs_made += 1
        run = start_run(f"run-{self._runs_made}", command, client, self.at)
        self.runs[run.id] = run
        if command.key:
            self.run_of_key[command.key] = run.id
        if self.directing:
            self.changed[run.id] = run
        for task in range(len(run.ids)):
            if not run.waiting[task] or run.option(task).when == "always":
                self._ready(run, task)
        if run.done:
            run.finished_at = self.at
        return run.id

    def _cancel(self, run_id: RunId) -> Any:
        run = self.runs.get(run_id)
        if run is None:
            return Denied("NoSuchTask", f"there is no run {run_id!r}; it may have been forgotten")
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
                if state == State.READY:
                    self.queue.withdraw(run, task)
                self._mark_settled(run, task, State.CANCELLED)
                cancelled += 1
        return cancelled

    def _forget(self, run_id: RunId) -> Any:
        run = self.runs.get(run_id)
        if run is None:
            return None
        if not run.done:
            return Denied("Refused", f"{run_id} is still running; cancel it before it is released")
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

    # --- the life of a task -------------------------------------------------------------------------------

    def _ready(self, run: RunState, task: int) -> None:
        counts = run.counts
        counts[run.state[task]] -= 1
        counts[READY] += 1
        run.state[task] = READY
        run.ready_at[task] = self.at
        self.queue.enter(run, task, self.at)

    def _place(self) -> None:
        """Give waiting tasks to workers until no task fits a free slot."""
        queue = self.queue
        open_workers = [worker for worker in self.workers.values() if worker.open_slots > 0]
        if not open_workers:
            return
        demands = queue.demands()
        if len(demands) == 1 and not demands[0][1]:
            self._place_alike(demands[0], open_workers)
            return
        while demands:
            best = queue.best(demands)
            if best is None:
                return
            waiting, demand, lane = best
            worker = least_loaded(open_workers, demand)
            if worker is None:
                demands.remove(demand)
                continue
            queue.serve(waiting, lane)
            self._assign(waiting.run, waiting.task, worker)

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
            self._assign(waiting.run, waiting.task, worker)
            running = len(worker.running)
            if running < worker.slots:
                heapq.heapreplace(heap, (worker.load, running, worker.id, worker))
            else:
                heapq.heappop(heap)

    def _assign(self, run: RunState, task: int, worker: WorkerState) -> None:
        attempt = self._attempts_made = self._attempts_made + 1
        run.counts[READY] -= 1
        run.counts[RUNNING] += 1
        run.state[task] = RUNNING
        number = run.tries[task] = run.tries[task] + 1
        worker.running[attempt] = None
        options = run.options[run.option_of[task]]
        for name, amount in options.resources:
            worker.free[name] -= amount
        if options.timeout is not None:
            heapq.heappush(self.timeouts, (self.at + options.timeout, attempt))
        self.live[attempt] = Live(run, task, number, worker, self.at)
        if self.directing:
            self.starts.append(Start(worker.id, attempt, run, task))

    def _end(self, attempt: AttemptId, state: AttemptState, completion: Completion | None = None) -> Live:
        """Take an attempt off its worker and write its row."""
        live = self.live.pop(attempt)
        run, task, number, worker, assigned = live.run, live.task, live.number, live.worker, live.assigned
        del worker.running[attempt]
        for name, amount in run.options[run.option_of[task]].resources:
            worker.free[name] += amount
        if completion is None:
            row = AttemptRow(attempt, task, number, worker.id, state, assigned, assigned, self.at)
        else:
            row = AttemptRow(
                attempt,
                task,
                number,
                worker.id,
                state,
                assigned,
                completion.started,
                completion.finished,
                completion.cpu,
                completion.bytes,
                completion.error,
                completion.stdout,
            )
        run.history.append(row)
        if self.directing:
            self.changed[run.id] = run
        return live

    def _finish(self, completion: Completion) -> None:
        if completion.settlement is Settlement.COMPLETED:
            live = self._end(completion.attempt, AttemptState.COMPLETED, completion)
            run, task = live.run, live.task
            run.value[task] = completion.attempt
            if completion.items >= 0 and run.kind(task) is TaskKind.EXPAND:
                add_items(run, task, completion.items)
            self._settle(run, task, State.COMPLETED)
        elif completion.settlement is Settlement.CANCELLED:
            live = self._end(completion.attempt, AttemptState.CANCELLED, completion)
            self._ready(live.run, live.task)
        else:
            live = self._end(completion.attempt, AttemptState.FAILED, completion)
            self._retry_or_fail(live.run, live.task, completion.error)

    def _retry_or_fail(self, run: RunState, task: int, error: ErrorReport | None) -> None:
        failures = run.failures[task] = run.failures.get(task, 0) + 1
        options = run.option(task)
        retryable = error is None or error.retry
        if failures > options.retries or not retryable:
            if error is not None:
                run.errors[task] = error
            self._settle(run, task, State.FAILED)
            return
        delay = self._delay(run, task, failures)
        if delay <= 0:
            self._ready(run, task)
            return
        run.move(task, State.RETRYING)
        self._delays_made += 1
        heapq.heappush(self.delayed, (self.at + delay, self._delays_made, run, task))

    def _delay(self, run: RunState, task: int, failures: int) -> float:
        """Back-off before the next try; the jitter is a fixed function of run, task and try."""
        backoff = run.option(task).backoff
        if backoff.base <= 0:
            return 0.0
        delay = min(backoff.maximum, backoff.base * backoff.factor ** min(failures - 1, 64))
        noise = zlib.crc32(f"{run.id}/{task}/{failures}".encode()) / 2**32
        return float(delay * (1.0 - backoff.jitter * noise))

    def _fall_due(self, at: float) -> None:
        """Bring back the tasks whose back-off is over, and end the attempts whose time is up."""
        while self.delayed and self.delayed[0][0] <= at:
            _, _, run, task = heapq.heappop(self.delayed)
            if run.state[task] == State.RETRYING:
                self._ready(run, task)
        while self.timeouts and self.timeouts[0][0] <= at:
            _, attempt = heapq.heappop(self.timeouts)
            if attempt not in self.live:
                continue
            live = self._end(attempt, AttemptState.TIMED_OUT)
            if self.directing:
                self.stops.append(Stop(live.worker.id, attempt))
            limit = live.run.option(live.task).timeout
            error = ErrorReport("TimedOut", f"no result within its timeout of {limit:g} s")
            live.run.history[-1] = msgspec.structs.replace(live.run.history[-1], error=error)
            self._retry_or_fail(live.run, live.task, error)

    def _mark_settled(self, run: RunState, task: int, state: int) -> None:
        counts = run.counts
        counts[run.state[task]] -= 1
        counts[state] += 1
        run.state[task] = state
        run.settled.append(task)
        run.settled_at[task] = self.at
        if len(run.settled) == len(run.ids):
            run.finished_at = self.at
        if self.directing:
            self.changed[run.id] = run

    def _settle(self, run: RunState, task: int, state: State) -> None:
        """Settle a task and everything that its end decides, without recursion."""
        self._mark_settled(run, task, int(state))
        if state is State.COMPLETED and not run.tallies:
            waiting, states = run.waiting, run.state
            for after in run.after(task):
                waiting[after] -= 1
                if not waiting[after] and not states[after]:
                    self._ready(run, after)
            return
        pending = [task]
        while pending:
            settled = pending.pop()
            for after in run.after(settled):
                run.waiting[after] -= 1
                if run.state[after] != State.PENDING:
                    continue
                decision = self._decide(run, after, settled)
                if decision is Decision.RUN:
                    self._ready(run, after)
                elif decision is Decision.SKIP:
                    root = settled if run.state[settled] in FAILURES else run.root.get(settled)
                    if root is not None:
                        run.root[after] = root
                    self._mark_settled(run, after, State.SKIPPED)
                    pending.append(after)

    def _decide(self, run: RunState, task: int, settled: int) -> Decision:
        succeeded = run.state[settled] == State.COMPLETED
        tally = run.tallies.get(task)
        if tally is None:
            if not succeeded:
                return Decision.SKIP
            return Decision.WAIT if run.waiting[task] else Decision.RUN
        count(tally, run, settled)
        total = len(run.dependencies[task])
        return decide(run.option(task).when, total, tally.succeeded, tally.failed, tally.skipped)

    # --- audit --------------------------------------------------------------------------------------------

    def check_invariants(self) -> None:
        """Assert what must hold between any two commands."""
        for run in self.runs.values():
            run.check_invariants()
        for attempt, live in self.live.items():
            assert attempt in live.worker.running, "a live attempt is on its worker"
            assert live.run.state[live.task] == State.RUNNING, "a live attempt's task is running"
            assert self.workers[live.worker.id] is live.worker, "a live attempt's worker is registered"
        running = sum(run.counts[State.RUNNING] for run in self.runs.values())
        assert running == len(self.live), "every running task has one live attempt"
        for worker in self.workers.values():
            assert len(worker.running) <= worker.slots, "a worker holds no more than its slots"
        queued = {(entry.run.id, entry.task) for entry, _, _ in self.queue.waiting()}
        assert len(queued) == sum(self.queue.depth), "the depth of the queue is true"
        for run in self.runs.values():
            for task, state in enumerate(run.state):
                if state == State.READY:
                    assert (run.id, task) in queued, "a ready task is in the queue"


FAILURES = frozenset({State.FAILED, State.CANCELLED})


def count(tally: Tally, run: RunState, settled: int) -> None:
    """Count one settled dependency for a trigger rule."""
    state = run.state[settled]
    if state == State.COMPLETED:
        tally.succeeded += 1
    elif state in FAILURES or settled in run.root:
        tally.failed += 1
    else:
        tally.skipped += 1
