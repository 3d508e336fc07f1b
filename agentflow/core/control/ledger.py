"""The tables of the control plane, and the life of a task in them: the only place where one changes state.

Law: a completion counts once. Attempts are numbered here; a report on an attempt that is not running (late,
repeated, or from a worker declared dead) changes nothing.
"""

from __future__ import annotations

import heapq
import zlib
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from agentflow.core.control.again import beyond_recovery, reopen
from agentflow.core.control.commands import (
    AttemptState,
    Completion,
    ErrorReport,
    Grown,
    Settlement,
    TaskKind,
)
from agentflow.core.control.gate import Gate
from agentflow.core.control.growing import add_items, graft
from agentflow.core.control.placement import ReadyQueue, Waiting, WorkerState
from agentflow.core.control.retention import note_end, note_value
from agentflow.core.control.runs import SETTLED, AttemptRow, RunState, State, Tally
from agentflow.core.control.sessions import Sessions
from agentflow.core.control.triggers import Decision, decide
from agentflow.ids import AttemptId, NodeId, RunId

READY, RUNNING, COMPLETED = int(State.READY), int(State.RUNNING), int(State.COMPLETED)
"""As plain integers: they index the counts of every task that moves."""


class Live(msgspec.Struct, frozen=True, gc=False):
    """An attempt under way; `order` is the place in the queue that its task had."""

    run: RunState
    task: int
    number: int
    worker: WorkerState
    assigned: float
    order: int


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


class Ledger:
    """Runs, attempts, workers, and what becomes of a task when something happens to it.

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
        self.gate = Gate()
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
        self._fed: deque[tuple[RunState, int]] = deque()

    @property
    def made(self) -> tuple[int, int, int]:
        """How many runs, attempts and back-offs were ever numbered."""
        return self._runs_made, self._attempts_made, self._delays_made

    @made.setter
    def made(self, counters: tuple[int, int, int]) -> None:
        self._runs_made, self._attempts_made, self._delays_made = counters

    # --- the life of a task -------------------------------------------------------------------------------

    def _ready(self, run: RunState, task: int) -> None:
        counts = run.counts
        counts[run.state[task]] -= 1
        counts[READY] += 1
        run.state[task] = READY
        run.ready_at[task] = self.at
        self.queue.enter(run, task, self.at)

    def _assign(self, waiting: Waiting, worker: WorkerState) -> None:
        run, task = waiting.run, waiting.task
        attempt = self._attempts_made = self._attempts_made + 1
        run.counts[READY] -= 1
        run.counts[RUNNING] += 1
        run.state[task] = RUNNING
        number = run.tries[task] = run.tries[task] + 1
        worker.running[attempt] = None
        options = run.options[run.option_of[task]]
        for name, amount in options.resources:
            worker.free[name] -= amount
        if options.locks:
            self.gate.enter(options.locks, attempt)
        if options.timeout is not None:
            heapq.heappush(self.timeouts, (self.at + options.timeout, attempt))
        self.live[attempt] = Live(run, task, number, worker, self.at, waiting.order)
        if self.directing:
            self.starts.append(Start(worker.id, attempt, run, task))

    def _end(self, attempt: AttemptId, state: AttemptState, completion: Completion | None = None) -> Live:
        """Take an attempt off its worker and write its row."""
        live = self._take_off(attempt)
        run, task, number, worker, assigned = live.run, live.task, live.number, live.worker, live.assigned
        if self.gate.held_up:
            self.gate.served(run.option(task).locks)
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

    def _take_off(self, attempt: AttemptId) -> Live:
        """Give back what an attempt occupies."""
        live = self.live.pop(attempt)
        del live.worker.running[attempt]
        options = live.run.options[live.run.option_of[live.task]]
        for name, amount in options.resources:
            live.worker.free[name] += amount
        if options.locks:
            self.gate.leave(options.locks)
        return live

    def _decline(self, completion: Completion) -> None:
        """Put a task back in its place: it never began, so this was no try at it, and leaves no row."""
        live = self._take_off(completion.attempt)
        run, task = live.run, live.task
        run.tries[task] -= 1
        run.move(task, State.READY)
        self.queue.put_back(run, task, run.ready_at[task], live.order)
        reason = "" if completion.error is None else completion.error.message
        self.gate.turn_away(run.option(task).locks, self.at, reason)
        if self.directing:
            self.changed[run.id] = run

    def _finish(self, completion: Completion) -> None:
        if completion.settlement is Settlement.COMPLETED:
            live = self._end(completion.attempt, AttemptState.COMPLETED, completion)
            run, task = live.run, live.task
            run.value[task] = completion.attempt
            if live.worker.ahead:
                live.worker.note_pace(completion.finished - completion.started)
            trouble = ""
            if completion.items >= 0 and run.kind(task) is TaskKind.EXPAND:
                trouble = add_items(run, task, completion.items)
            elif completion.grown is not None:
                trouble = self._graft(run, task, completion.attempt, completion.grown)
                if not trouble:
                    return
            if trouble:
                run.value[task] = -1
                run.errors[task] = ErrorReport("DuplicateTask", trouble)
                self._settle(run, task, State.FAILED)
                return
            if run.budget >= 0:
                note_value(run, task, completion.bytes)
            self._settle(run, task, State.COMPLETED)
        elif completion.settlement is Settlement.CANCELLED:
            self._take_back(completion.attempt)
        elif completion.settlement is Settlement.DECLINED:
            self._decline(completion)
        elif completion.lost:
            live = self._end(completion.attempt, AttemptState.LOST, completion)
            self._recover(live.run, live.task, completion.lost)
        else:
            live = self._end(completion.attempt, AttemptState.FAILED, completion)
            self._retry_or_fail(live.run, live.task, completion.error)

    def _take_back(self, attempt: AttemptId) -> None:
        """Let somebody else run what a worker was given and did not begin."""
        live = self._take_off(attempt)
        run, task = live.run, live.task
        # Its slots are full of longer tasks than were thought.
        live.worker.pace = 0
        run.tries[task] -= 1
        run.move(task, State.READY)
        self.queue.put_back(run, task, run.ready_at[task], live.order)

    def _graft(self, run: RunState, task: int, attempt: AttemptId, grown: Grown) -> str:
        """Let a task wait for the workflow that it returned."""
        ready, trouble = graft(run, task, attempt, grown)
        if trouble:
            return trouble
        run.value[task] = -1
        run.move(task, State.PENDING)
        for each in ready:
            self._ready(run, each)
        if not run.waiting[task]:
            self._ready(run, task)
        return ""

    def _recover(self, run: RunState, task: int, lost: tuple[int, ...]) -> None:
        """Make again the values that an attempt did not find, and then run its task."""
        gone = [each for each in lost if run.state[each] == State.COMPLETED]
        error = beyond_recovery(run, [each for each in gone if each not in run.released])
        if error is not None:
            run.errors[task] = error
            self._settle(run, task, State.FAILED)
            return
        run.released.update(dict.fromkeys(gone))
        self._reopen(run, [task])

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
        self.gate.tidy(at)
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
        run.changes.append(task)
        run.settled_at[task] = self.at
        run.left -= 1
        if not run.left:
            run.finished_at = self.at
        if run.needed:
            run.changes.extend(note_end(run, task))
        if run.feeds and task in run.feeds:
            self._fed.append((run, task))
        if self.directing:
            self.changed[run.id] = run

    def _settle(self, run: RunState, task: int, state: State) -> None:
        """Settle a task and everything that its end decides."""
        self._mark_settled(run, task, int(state))
        self._go_on(run, task)

    def _go_on(self, run: RunState, task: int) -> None:
        """Decide what a task's end decides, without recursion."""
        if run.state[task] == COMPLETED and not run.tallies:
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

    # --- running again ------------------------------------------------------------------------------------

    def _reopen(self, run: RunState, tasks: Iterable[int]) -> None:
        withdrawn, decisions = reopen(run, tasks, self.at, self._attempts_made)
        if withdrawn:
            self.queue.purge()
        for task, decision in decisions:
            if run.state[task] != State.PENDING:
                continue
            if task in run.borrowed:
                self._link(run, task)
            elif decision is Decision.RUN:
                self._ready(run, task)
            elif decision is Decision.SKIP:
                self._skip(run, task)
        if self.directing:
            self.changed[run.id] = run

    def _skip(self, run: RunState, task: int) -> None:
        """Settle a task that its rule does not let run, because of what is before it."""
        for each in run.dependencies[task]:
            root = each if run.state[each] in FAILURES else run.root.get(each)
            if root is not None:
                run.root[task] = root
                break
        self._settle(run, task, State.SKIPPED)

    # --- runs that take from others -----------------------------------------------------------------------

    def _link(self, run: RunState, task: int) -> None:
        """Let a task end as that of another run does."""
        source_id, name = run.borrowed[task]
        source = self.runs.get(source_id)
        if source is None:
            run.errors[task] = ErrorReport("NoSuchTask", f"{source_id} was released, and {name!r} with it")
            self._settle(run, task, State.FAILED)
            return
        at = source.ids.index(name)
        # Its value must stay for this run, whoever else still needs it.
        source.keep[at] = None
        source.feeds.setdefault(at, []).append((run.id, task))
        if source.state[at] in SETTLED:
            self._fed.append((source, at))

    def _feed(self, source: RunState, task: int) -> None:
        """Tell the runs that wait for a task how it ended."""
        for run_id, place in source.feeds.pop(task, ()):
            run = self.runs.get(run_id)
            if run is None or run.state[place] != State.PENDING:
                continue
            name = source.ids[task]
            if source.state[task] == State.COMPLETED and task not in source.released:
                run.value[place] = source.value[task]
                self._settle(run, place, State.COMPLETED)
                continue
            state = State(source.state[task]).name.lower()
            why = "released its value" if task in source.released else f"it ended {state}"
            reason = source.errors.get(task)
            said = f": {reason.type}: {reason.message}" if reason is not None else ""
            run.errors[place] = ErrorReport(
                "UpstreamFailed", f"{name!r} of {source.id} gave nothing ({why}){said}"
            )
            self._settle(run, place, State.FAILED)

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
            assert len(worker.running) <= worker.slots + worker.ahead, "a worker holds no more than it takes"
        wanted = [key for live in self.live.values() for key in live.run.option(live.task).locks]
        assert sorted(wanted) == sorted(self.gate.wanted), "one attempt at most is under way for a lock"
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
