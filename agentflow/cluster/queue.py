"""The priority queue for programs with threads and event loops.

Law: a task that was taken was taken by somebody. Who waits is told that there is something, never handed
it: a waiter that is cancelled at any moment loses nothing, and passes on what it was told.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from contextlib import suppress
from random import Random
from typing import Any

from agentflow.core.scheduling import clock as clocks
from agentflow.core.scheduling import queue as pure
from agentflow.core.scheduling.clock import Clock
from agentflow.core.scheduling.queue_stats import DeadLetter, Failure, QueueStats
from agentflow.core.scheduling.tasks import PriorityLike, TaskNode
from agentflow.errors import InvalidConfig, TimedOut
from agentflow.ids import TaskId

clocks.install(time.monotonic, time.sleep)

_enqueue, _dequeue = pure.PriorityTaskQueue.enqueue, pure.PriorityTaskQueue.dequeue


class Waiter:
    """Somebody who waits, on an event loop of their own."""

    __slots__ = ("event", "loop", "told")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.event = asyncio.Event()
        self.told = False

    def tell(self) -> bool:
        """Say that there may be something; False if its loop was closed while it waited."""
        try:
            self.loop.call_soon_threadsafe(self.event.set)
        except RuntimeError:
            return False
        self.told = True
        return True


class PriorityTaskQueue(pure.PriorityTaskQueue):  # noqa: D101
    __doc__ = f"""{pure.PriorityTaskQueue.__doc__}
    It may be used from several threads, and waited for from any event loop:

    >>> import asyncio
    >>> queue = PriorityTaskQueue()
    >>> async def consume():
    ...     waiting = asyncio.create_task(queue.dequeue_blocking())
    ...     await asyncio.sleep(0)
    ...     queue.enqueue(TaskNode("late"))
    ...     return (await waiting).id
    >>> asyncio.run(consume())
    'late'
    """

    def __init__(
        self, *, limit: int | None = None, clock: Clock | None = None, rng: Random | None = None
    ) -> None:
        super().__init__(limit=limit, clock=clock, rng=rng)
        self._lock = threading.RLock()
        self._waiters: deque[Waiter] = deque()

    async def dequeue_blocking(self, timeout: float | None = None) -> TaskNode:  # noqa: ASYNC109
        """Take the task with the highest score, waiting for one if need be.

        Who waits first is served first. Cancelling it loses no task.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.

        Raises
        ------
        TimedOut
            If none came in time.
        """
        given: Any = timeout
        if given is not None and (isinstance(given, bool) or not isinstance(given, int | float) or given < 0):
            raise InvalidConfig(f"timeout={timeout!r} is no number of seconds from 0", field="timeout")
        loop = asyncio.get_running_loop()
        limit = math.inf if timeout is None else loop.time() + timeout
        waiter: Waiter | None = None
        try:
            while True:
                with self._lock:
                    # Those who wait already go first; a newcomer stands behind them.
                    if waiter is not None or not self._waiters:
                        task = self.dequeue()
                        if task is not None:
                            return task
                        if waiter is not None:
                            waiter.event.clear()
                            waiter.told = False
                    if waiter is None:
                        waiter = Waiter()
                        self._waiters.append(waiter)
                        self._tell_next()
                    pause = min(limit - loop.time(), self.due() - self._clock())
                if limit <= loop.time():
                    raise TimedOut(f"no task came within {timeout:g} s; the queue is as it was")
                await _wait(waiter.event, max(0.0, pause))
        finally:
            if waiter is not None:
                with self._lock, suppress(ValueError):
                    self._waiters.remove(waiter)
                self._tell_next()

    def _tell_next(self) -> None:
        """Tell the first in line that was not told yet, if there is something to take."""
        with self._lock:
            if not self._waiters or self.peek() is None:
                return
            for waiter in tuple(self._waiters):
                if waiter.told:
                    continue
                if waiter.tell():
                    return
                self._waiters.remove(waiter)

    # --- the same, one thread at a time -------------------------------------------------------------------

    def enqueue(self, task: TaskNode, *, now: float | None = None) -> None:  # noqa: D102
        with self._lock:
            _enqueue(self, task, now=now)
            if self._waiters:
                self._tell_next()

    def dequeue(self, *, now: float | None = None) -> TaskNode | None:  # noqa: D102
        with self._lock:
            return _dequeue(self, now=now)

    def peek(self, *, now: float | None = None) -> TaskNode | None:  # noqa: D102
        with self._lock:
            return super().peek(now=now)

    def remove(self, task_id: TaskId) -> TaskNode:  # noqa: D102
        with self._lock:
            return super().remove(task_id)

    def calculate_priority_score(self, task: TaskNode | TaskId, *, now: float | None = None) -> int:  # noqa: D102
        with self._lock:
            return super().calculate_priority_score(task, now=now)

    def reprioritize(self, task_id: TaskId, priority: PriorityLike) -> None:  # noqa: D102
        with self._lock:
            super().reprioritize(task_id, priority)

    def retry(self, task: TaskNode, error: Any = None, *, now: float | None = None) -> float | None:  # noqa: D102
        with self._lock:
            due = super().retry(task, error, now=now)
            # Whoever waits until the next task falls due must look at the clock again.
            for waiter in self._waiters:
                if not waiter.told:
                    waiter.tell()
            return due

    def done(self, task_id: TaskId) -> None:  # noqa: D102
        with self._lock:
            super().done(task_id)

    def failures(self, task_id: TaskId) -> tuple[Failure, ...]:  # noqa: D102
        with self._lock:
            return super().failures(task_id)

    def dead_letters(self) -> list[DeadLetter]:  # noqa: D102
        with self._lock:
            return super().dead_letters()

    def revive(self, task_id: TaskId, *, now: float | None = None) -> None:  # noqa: D102
        with self._lock:
            super().revive(task_id, now=now)

    def due(self) -> float:  # noqa: D102
        with self._lock:
            return super().due()

    def stats(self, *, now: float | None = None) -> QueueStats:  # noqa: D102
        with self._lock:
            return super().stats(now=now)

    def tasks(self, *, now: float | None = None) -> list[TaskNode]:  # noqa: D102
        with self._lock:
            return super().tasks(now=now)

    def check_invariants(self) -> None:  # noqa: D102
        with self._lock:
            super().check_invariants()

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            state = self.__dict__.copy()
        # A lock and those who wait belong to this process; a copy begins with neither.
        del state["_lock"], state["_waiters"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock(), _waiters=deque())


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, or for so long."""
    if math.isinf(seconds):
        await event.wait()
        return
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
