"""How far a run is, as the leader tells it, and waiting for more.

Law: a run waits on what it was told, never on the leader, so it outlives every master that worked on it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, Self

from agentflow.cluster.settings import checked_timeout
from agentflow.core.control.runs import SETTLED, State
from agentflow.core.nodes.messages import Failure, Progress
from agentflow.core.scheduling import Workflow
from agentflow.errors import (
    AgentflowError,
    Closed,
    TimedOut,
)
from agentflow.ids import AttemptId, RunId, TaskId

if TYPE_CHECKING:
    from agentflow.cluster.frames import RunFrames
    from agentflow.cluster.run import Cancelled, Run


class Home(Protocol):
    """What a run needs of the cluster it runs on."""

    def value_of(self, attempt: AttemptId) -> Any:
        """Give the value that an attempt returned."""
        ...

    def error_of(self, attempt: AttemptId) -> BaseException | None:
        """Give the exception that an attempt raised, if it is still kept."""
        ...

    def cancel(self, run: RunId) -> Cancelled:
        """Cancel what has not settled; give how many tasks that were."""
        ...

    def retry(self, run: Run, tasks: tuple[TaskId, ...], everything: bool) -> int:
        """Run tasks again; give how many."""
        ...

    def discard(self, attempt: AttemptId) -> None:
        """Let go of the value that an attempt returned."""
        ...

    def perform_here(self, run: Run, at: int) -> Callable[[], Any]:
        """Give the call of a task, with its real inputs."""
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


class Progression:
    """The part of a run that knows how far it is.

    Parameters
    ----------
    run_id : str
        Which run.
    flow : Workflow
        What runs.
    ids : tuple of str
        Its tasks, in order of submission.
    key : str
        The submission's idempotency key.
    home : Home
        The cluster it runs on.
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
        # The ends in the order in which they came; a task that was run again has several.
        self._settled: list[int] = []
        self._left = len(ids)
        self._heard = 0
        self._released: set[int] = set()
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
        return Closed(f"the cluster was closed while {self._left} tasks of {self.id} were left", run=self.id)

    def _take(self, news: Progress) -> None:
        for name in news.added:
            self._position[name] = len(self._ids)
            self._ids.append(name)
        self._state.extend(bytes(len(news.added)))
        self._value.extend([-1] * len(news.added))
        self._left += len(news.added)
        settled, states, values = self._settled, self._state, self._value
        for task, state, value in zip(news.tasks, news.states, news.values, strict=True):
            was, states[task], values[task] = states[task], state, value
            if state in SETTLED:
                if was not in SETTLED:
                    settled.append(task)
                    self._left -= 1
            else:
                self._left += was in SETTLED
                self._errors.pop(task, None)
                self._roots.pop(task, None)
                self._released.discard(task)
        self._heard += len(news.tasks)
        self._errors.update(news.errors)
        self._roots.update(news.roots)
        for task in news.released:
            self._released.add(task)
            self._home.discard(self._value[task])
        self._done = news.done

    def _resume(self, version: int, tasks: Iterable[int]) -> int:
        """Be under way again, unless news of it came first; give how many changes were heard so far.

        Parameters
        ----------
        version : int
            How many changes of the run there were when these tasks had been brought back.
        tasks : iterable of int
            Which.
        """
        with self._changed:
            if self._heard < version:
                for task in tasks:
                    if task < len(self._ids):
                        self._left += self._state[task] in SETTLED
                        self._state[task] = State.PENDING
            if self._done:
                self._done, self._lost = False, None
                self._finished = concurrent.futures.Future()
        return self._heard

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
            for state in SETTLED:
                counts[state.name] = self._state.count(state)
            return {**counts, "unsettled": self._left}

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

    def wait(self, timeout: float | None = None) -> Self:
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
            limit = "an hour of virtual time" if timeout is None else f"{timeout:g} s"
            raise TimedOut(
                f"{self.id} did not settle {what} within {limit}: {self._left} of {len(self._ids)} tasks are "
                "left; the run goes on, and run.explain(task) says why a task does not move",
                run=self.id,
            )

    def __await__(self) -> Generator[Any, None, Self]:
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
