"""One call under way in another thread: its result, its time limit, and what happens if nobody waits any more.

Law: a job is settled once. What was abandoned and still succeeds is undone; what timed out is not, because the same
holder may be asking again.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar, cast

from agentflow.errors import TimedOut
from agentflow.locks.signals import from_thread

if TYPE_CHECKING:
    from agentflow.locks.dialects.base import Dialect
    from agentflow.locks.engine import Database
    from agentflow.locks.link import Runner

__all__ = ["Job", "Work"]

T = TypeVar("T")
Work: TypeAlias = "Callable[[Dialect, Runner, bool], T]"

# Errors of the driver's own time-outs say more than ours; they get this much time to arrive.
GRACE_S: Final = 0.25


class Job(Generic[T]):
    """A call handed to a `Database`; see `Database.submit` for its parts."""

    def __init__(
        self,
        database: Database,
        what: str,
        work: Work[T],
        budget_s: float,
        undo: Callable[[T], Work[Any]] | None,
    ) -> None:
        self.what = what
        self.work = work
        self.budget_s = budget_s
        self.deadline = time.monotonic() + budget_s
        self.done = False
        self._database = database
        self._undo = undo
        self._result: T | None = None
        self._error: BaseException | None = None
        self._abandoned = False
        self._guard = threading.Lock()
        self._break: Callable[[], None] | None = None
        self._wake: Callable[[], None] | None = None

    # --- the caller's side ---------------------------------------------------------------------------

    def wait(self, limit_s: float | None = None) -> T:
        """Block for the result; an interrupt abandons the job. One caller waits for one job."""
        left_s = max(0.0, self.deadline - time.monotonic()) + GRACE_S
        arrived = threading.Event()
        if self._call_when_done(arrived.set):
            try:
                if not arrived.wait(left_s if limit_s is None else min(left_s, limit_s)):
                    self.abort()
            except BaseException:
                self.abandon()
                raise
        return self._get()

    async def result(self) -> T:
        """Wait for the result on any loop; cancelling the wait abandons the job."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()

        def arrived() -> None:
            if not waiter.done():
                waiter.set_result(None)

        if self._call_when_done(lambda: from_thread(loop, arrived)):
            timer = loop.call_later(max(0.0, self.deadline - time.monotonic()) + GRACE_S, self.abort)
            try:
                await waiter
            except BaseException:
                self.abandon()
                raise
            finally:
                timer.cancel()
        return self._get()

    def abort(self) -> None:
        """Time is up: settle with `TimedOut`, and free the clerk from a driver that waits for a silent server."""
        with self._guard:
            if self.done:
                return
            self.deadline = 0.0
            self._error = TimedOut(
                f"{self.what}: no answer within {self.budget_s:.3g} s; "
                "it may have happened, asking again settles it",
                budget_s=self.budget_s,
            )
            self._settled()
            if self._break is not None:
                self._break()

    def abandon(self) -> None:
        """Nobody waits any more: take the result back, whether it is there or still comes."""
        with self._guard:
            self._abandoned = True
            if not self.done or self._error is not None or self._undo is None:
                return
            take_back = self._undo(cast("T", self._result))
        self._database.submit(f"undoing {self.what}", take_back, self.budget_s)

    def _call_when_done(self, wake: Callable[[], None]) -> bool:
        with self._guard:
            self._wake = wake
            return not self.done

    def _get(self) -> T:
        if self._error is not None:
            raise self._error
        return cast("T", self._result)

    # --- the clerk's side ----------------------------------------------------------------------------

    def on_wire(self, breaker: Callable[[], None] | None) -> None:
        """How to interrupt what the clerk does now; None once it does nothing that could be interrupted."""
        with self._guard:
            self._break = breaker

    def settle(self, result: T) -> Work[Any] | None:
        """Hand over the result; if nobody waits, return the work that takes it back."""
        with self._guard:
            self._break = None
            if self.done:
                return None
            self._result = result
            self._settled()
            return self._undo(result) if self._abandoned and self._undo is not None else None

    def fail(self, error: BaseException) -> None:
        """Hand over an error."""
        with self._guard:
            self._break = None
            if not self.done:
                self._error = error
                self._settled()

    def _settled(self) -> None:
        self.done = True
        if self._wake is not None:
            self._wake()
