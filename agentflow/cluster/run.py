"""A run: one execution of a workflow, held in a notebook.

A run knows what the leader told it: the tasks that settled, in order. It waits on that, never on the
leader, so a run outlives every master that worked on it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from agentflow.cluster.calls import Missing, task_id_of
from agentflow.cluster.settings import checked_timeout
from agentflow.core.control.commands import ErrorReport
from agentflow.core.control.runs import SETTLED, State
from agentflow.core.nodes.messages import Failure, Progress
from agentflow.core.scheduling import MapHandle, TaskHandle, Workflow
from agentflow.errors import (
    AgentflowError,
    Closed,
    InvalidConfig,
    NoSuchTask,
    TaskCancelled,
    TaskFailed,
    TimedOut,
    UpstreamFailed,
)
from agentflow.ids import AttemptId, RunId, TaskId
from agentflow.views import Watchable, find

if TYPE_CHECKING:
    from agentflow.cluster.frames import RunFrames


NO_WORD = Failure(-1, "a worker", ErrorReport("TaskFailed", "no reason was given"))


class Home(Protocol):
    """What a run needs of the cluster it runs on."""

    def value_of(self, attempt: AttemptId) -> Any:
        """Give the value that an attempt returned."""
        ...

    def error_of(self, attempt: AttemptId) -> BaseException | None:
        """Give the exception that an attempt raised, if it is still kept."""
        ...

    def cancel(self, run: RunId) -> int:
        """Cancel what has not settled; give how many tasks that were."""
        ...

    def forget(self, run: RunId) -> None:
        """Release the run's values and tables."""
        ...

    def run_frames(self, run: Run) -> RunFrames:
        """Give the run's tables."""
        ...

    def explain(self, run: Run, task: TaskId) -> str:
        """Say why a task is where it is."""
        ...

    def wait(self, condition: threading.Condition, done: Any, timeout: float | None) -> bool:
        """Wait until `done()`; in virtual time, move time instead."""
        ...

    def clock(self) -> float:
        """Seconds on the clock that `wait` goes by."""
        ...

    @property
    def moves_time(self) -> bool:
        """Whether nothing happens unless somebody waits, as in virtual time."""
        ...


class Run(Watchable):
    """One execution of a workflow; made by `Cluster.submit`.

    Attributes
    ----------
    id : str
        `run-1`, `run-2`, ... in the order the masters took them.
    flow : Workflow
        What runs.
    key : str
        The submission's idempotency key: submitting again with it gives this run.
    """

    def __init__(self, run_id: RunId, flow: Workflow, ids: tuple[TaskId, ...], key: str, home: Home) -> None:
        self.id = run_id
        self.flow = flow
        self.key = key
        self._home = home
        self._ids: list[TaskId] = list(ids)
        self._position = {task: i for i, task in enumerate(ids)}
        self._state = bytearray(len(ids))
        self._value: list[AttemptId] = [-1] * len(ids)
        self._settled: list[int] = []
        self._errors: dict[int, Failure] = {}
        self._roots: dict[int, int] = {}
        self._done = not ids
        self._lost: AgentflowError | None = None
        self._changed = threading.Condition()
        # How many wait for less than the end: each waking costs, and there are many changes.
        self._attentive = 0
        self._listeners: list[concurrent.futures.Future[None]] = []
        self._finished: concurrent.futures.Future[None] = concurrent.futures.Future()
        if self._done:
            self._finished.set_result(None)

    # --- what the leader tells ----------------------------------------------------------------------------

    def _hear(self, message: Any, final: bool) -> None:
        """Take news of the run; called on the loop's thread."""
        with self._changed:
            if isinstance(message, Progress):
                self._take(message)
            elif isinstance(message, AgentflowError):
                self._lost = self._closed() if isinstance(message, Closed) else message
                self._done = True
            if self._done or self._attentive:
                self._changed.notify_all()
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            if listener.set_running_or_notify_cancel():
                listener.set_result(None)
        if self._done and not self._finished.done():
            self._finished.set_result(None)

    def _end(self) -> None:
        """The cluster was closed: what has not settled never will."""
        if not self._done:
            self._hear(self._closed(), True)

    def _closed(self) -> Closed:
        left = len(self._ids) - len(self._settled)
        return Closed(f"the cluster was closed while {left} tasks of {self.id} were left", run=self.id)

    def _take(self, news: Progress) -> None:
        for name in news.added:
            self._position[name] = len(self._ids)
            self._ids.append(name)
        self._state.extend(bytes(len(news.added)))
        self._value.extend([-1] * len(news.added))
        for task, state, value in zip(news.tasks, news.states, news.values, strict=True):
            self._state[task] = state
            self._value[task] = value
        self._settled.extend(news.tasks)
        self._errors.update(news.errors)
        self._roots.update(news.roots)
        self._done = news.done

    # --- how far it is ------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether every task has settled."""
        return self._done

    @property
    def tasks(self) -> tuple[TaskId, ...]:
        """The ids of its tasks, in order of submission; those added meanwhile come last."""
        return tuple(self._ids)

    @property
    def counts(self) -> dict[str, int]:
        """How many tasks ended in which state, and how many are still `unsettled`."""
        counts = {state.name: 0 for state in State if state in SETTLED}
        with self._changed:
            for task in self._settled:
                counts[State(self._state[task]).name] += 1
            return {**counts, "unsettled": len(self._ids) - len(self._settled)}

    @property
    def ok(self) -> bool:
        """Whether it is done and every task completed."""
        return self._done and self._lost is None and all(s == State.COMPLETED for s in self._state)

    def __len__(self) -> int:
        return len(self._ids)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        counts = self.counts
        parts = [f"{count} {name.lower()}" for name, count in counts.items() if count]
        return f"<Run {self.id} {self.flow.name!r}: {', '.join(parts) or 'no tasks'}>"

    # --- waiting ------------------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> Run:
        """Block until every task has settled; a failed task does not raise here.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        Run
            Itself.

        Raises
        ------
        TimedOut
            If the time is over; the run goes on.
        """
        self._wait(lambda: self._done, timeout, "all its tasks", attentive=False)
        if self._lost is not None:
            raise self._lost
        return self

    def _wait(self, done: Any, timeout: float | None, what: str, *, attentive: bool = True) -> None:
        checked_timeout(timeout)
        with self._changed:
            self._attentive += attentive
        try:
            settled = self._home.wait(self._changed, done, timeout)
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(f"{self.id} goes on; it can be waited for again, and run.cancel() ends it")
            raise
        finally:
            with self._changed:
                self._attentive -= attentive
        if not settled:
            left = len(self._ids) - len(self._settled)
            limit = "an hour of virtual time" if timeout is None else f"{timeout:g} s"
            raise TimedOut(
                f"{self.id} did not settle {what} within {limit}: {left} of {len(self._ids)} tasks are "
                "left; the run goes on, and run.explain(task) says why a task does not move",
                run=self.id,
            )

    def __await__(self) -> Generator[Any, None, Run]:
        if self._home.moves_time:
            return self.wait()
        yield from asyncio.wrap_future(self._join()).__await__()
        if self._lost is not None:
            raise self._lost
        return self

    def _join(self) -> concurrent.futures.Future[None]:
        """A future of its own for each that waits: cancelling the wait leaves the run alone."""
        mine: concurrent.futures.Future[None] = concurrent.futures.Future()

        def settle(_: Any) -> None:
            if mine.set_running_or_notify_cancel():
                mine.set_result(None)

        self._finished.add_done_callback(settle)
        return mine

    def _next_change(self, seen: int) -> concurrent.futures.Future[None]:
        """A future that is done when more than `seen` tasks have settled, or the run is."""
        listener: concurrent.futures.Future[None] = concurrent.futures.Future()
        with self._changed:
            if self._done or len(self._settled) > seen:
                listener.set_result(None)
            else:
                self._listeners.append(listener)
        return listener

    def as_completed(self, timeout: float | None = None) -> Iterator[TaskId]:
        """Yield the ids of tasks as they settle, in that order.

        Parameters
        ----------
        timeout : float, optional
            Seconds after which `TimedOut` is raised if tasks are left.
        """
        checked_timeout(timeout)
        clock = self._home.clock
        limit = None if timeout is None else clock() + timeout
        seen = 0
        while True:
            with self._changed:
                news, done = self._settled[seen:], self._done
            yield from (self._ids[task] for task in news)
            seen += len(news)
            if done and seen == len(self._settled):
                break
            left = None if limit is None else max(0.0, limit - clock())
            after = seen
            self._wait(lambda after=after: self._done or len(self._settled) > after, left, "more tasks")
        if self._lost is not None:
            raise self._lost

    async def __aiter__(self) -> AsyncIterator[TaskId]:
        seen = 0
        while True:
            with self._changed:
                news, done = self._settled[seen:], self._done
            for task in news:
                yield self._ids[task]
            seen += len(news)
            if done and seen == len(self._settled):
                break
            if self._home.moves_time:
                self._wait(lambda after=seen: self._done or len(self._settled) > after, None, "more tasks")
            else:
                await asyncio.wrap_future(self._next_change(seen))
        if self._lost is not None:
            raise self._lost

    # --- results ------------------------------------------------------------------------------------------

    def result(
        self, task: TaskId | TaskHandle | MapHandle | None = None, timeout: float | None = None
    ) -> Any:
        """Give what a task returned, waiting for it.

        Parameters
        ----------
        task : str or handle, optional
            Which one; without it the only task that no other waits for. The handle of a `map` gives a list.
        timeout : float, optional
            Seconds to wait at most.

        Raises
        ------
        TaskFailed
            If its function raised; the exception is the cause.
        UpstreamFailed, TaskCancelled
            If it never ran, or was cancelled.
        TimedOut
            If the time is over; the run goes on.
        """
        if task is None:
            task = self._only_end()
        if isinstance(task, MapHandle) and task.static:
            clock = self._home.clock
            limit = None if timeout is None else clock() + timeout
            return [self.result(each, None if limit is None else max(0.0, limit - clock())) for each in task]
        name = task_id_of(task)
        at = self._find(name)
        self._wait(lambda: self._done or self._state[at] in SETTLED, timeout, repr(name))
        if self._lost is not None and self._state[at] not in SETTLED:
            raise self._lost
        return self._outcome(at)

    def results(
        self, errors: Literal["raise", "skip", "return"] = "raise", timeout: float | None = None
    ) -> dict[TaskId, Any]:
        """Give every task's value, waiting for all.

        Parameters
        ----------
        errors : {"raise", "skip", "return"}
            What to do with tasks that have none: raise the first error, leave them out, or put the error in
            the value's place.
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        dict
            Task id to value, in order of submission.
        """
        if errors not in ("raise", "skip", "return"):
            raise InvalidConfig(f"errors is 'raise', 'skip' or 'return', not {errors!r}", field="errors")
        self.wait(timeout)
        return self._known(errors)

    def _known(self, errors: Literal["raise", "skip", "return"]) -> dict[TaskId, Any]:
        """The values of what has settled, without waiting for more."""
        found: dict[TaskId, Any] = {}
        for at, name in enumerate(self._ids):
            if self._state[at] not in SETTLED:
                continue
            try:
                found[name] = self._outcome(at)
            except (TaskFailed, UpstreamFailed, TaskCancelled) as error:
                if errors == "raise":
                    raise
                if errors == "return":
                    found[name] = error
        return found

    def _only_end(self) -> TaskId | MapHandle:
        ends = self.flow.ends()
        if len(ends) == 1:
            return ends[0]
        if not ends:
            raise InvalidConfig(f"{self.id} has no tasks, so it has no result", field="task")
        raise InvalidConfig(
            f"{self.id} ends in {len(ends)} tasks; name the one whose result is wanted: "
            f"{', '.join(repr(task_id_of(end)) for end in ends[:8])}{', ...' if len(ends) > 8 else ''}",
            field="task",
        )

    def _find(self, name: TaskId) -> int:
        at = self._position.get(name)
        if at is None:
            raise NoSuchTask(f"{self.id} has no task {name!r}; run.tasks lists them", task=name)
        return at

    def _outcome(self, at: int) -> Any:
        """Give a settled task's value, or raise what stands in its place."""
        state, name = self._state[at], self._ids[at]
        if state == State.COMPLETED:
            return self._home.value_of(self._value[at])
        if state == State.CANCELLED:
            raise TaskCancelled(f"{name!r} of {self.id} was cancelled before it finished", task=name)
        if state == State.SKIPPED:
            raise self._skipped(at)
        raise self._failure(at)

    def _skipped(self, at: int) -> AgentflowError:
        name, root = self._ids[at], self._roots.get(at)
        if root is None:
            return UpstreamFailed(
                f"{name!r} of {self.id} was skipped by its trigger rule", task=name, root=None
            )
        cause = self._ids[root]
        if self._state[root] == State.CANCELLED:
            return TaskCancelled(
                f"{name!r} of {self.id} never ran: {cause!r} before it was cancelled", task=name
            )
        error = UpstreamFailed(
            f"{name!r} of {self.id} never ran: {cause!r} before it failed", task=name, root=cause
        )
        error.__cause__ = self._failure(root)
        return error

    def _failure(self, at: int) -> TaskFailed:
        name, failure = self._ids[at], self._errors.get(at) or NO_WORD
        report = failure.report
        shown = f"\n\n{report.traceback}" if report.traceback else ""
        error = TaskFailed(
            f"{name!r} of {self.id} failed on {failure.worker} (attempt {failure.attempt}): "
            f"{report.type}: {report.message}{shown}",
            task=name,
            attempt=failure.attempt,
            worker=failure.worker,
            traceback=report.traceback,
        )
        error.__cause__ = self._home.error_of(failure.attempt)
        return error

    # --- what one does with it ----------------------------------------------------------------------------

    def cancel(self) -> int:
        """Cancel every task that has not settled.

        A Python thread cannot be stopped: a function that runs goes on to its end, its result is refused, and
        another thread takes its place meanwhile. A process is killed.

        Returns
        -------
        int
            How many tasks were cancelled.
        """
        return self._home.cancel(self.id)

    def release(self) -> None:
        """Drop the run's values and tables on the cluster; what this object knows it keeps."""
        self._home.forget(self.id)

    @property
    def frames(self) -> RunFrames:
        """The run's tables as DataFrames: `tasks()`, `attempts()`, `results()`, `errors()`."""
        return self._home.run_frames(self)

    @property
    def plot(self) -> Any:
        """Pictures of the run: `view()`, `graph()`, `gantt()`, `utilisation()`, `task(id)`.

        Each gives a picture that shows itself and has `.save("x.svg" | "x.html" | "x.png")`; `gantt` and
        `utilisation` draw on a matplotlib axis if one is passed.
        """
        return drawn("plot", self)

    def gantt(self) -> Any:
        """Give the picture of every attempt by worker and time."""
        return self.plot.gantt()

    def graph(self) -> Any:
        """Give the picture of the graph, coloured by state, with the critical path."""
        return self.plot.graph()

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write one self-contained HTML file: graph, Gantt, elections, workers, slowest tasks, errors, versions.

        Parameters
        ----------
        path : str or path
            Ends in `.html`.
        """
        written: Path = drawn("report", self)(path)
        return written

    def explain(self, task: TaskId | TaskHandle) -> str:
        """Say in words why a task is where it is: what it waits for, or how it ended."""
        name = task_id_of(task)
        self._find(name)
        return self._home.explain(self, name)

    def missing(self) -> list[Missing]:
        """List what has no value, with the reason."""
        return [
            Missing(self._ids[at], State(self._state[at]).name) for at in self._settled if self._value[at] < 0
        ]


def drawn(kind: str, subject: Any) -> Any:
    """Give a view by its kind; those who draw are imported now, and not before."""
    draw = find(kind, type(subject))
    assert draw is not None, f"{kind!r} of {type(subject).__name__} is registered by the provider of views"
    return draw(subject)
