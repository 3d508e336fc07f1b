"""A lock that renews itself while it is held, and stops its holder when it is lost.

Law: leaving the scope releases; a loss is never silent: the event is set, the callback is called, the task inside
the scope is cancelled, and the scope raises `LockLost` unless the body raised something of its own.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any

from agentflow.errors import AgentflowError
from agentflow.locks.keys import seconds
from agentflow.locks.lock import DistributedLock, releasing, renewing
from agentflow.locks.renewal import Renewal
from agentflow.locks.signals import Signal, doorbell, settled

if TYPE_CHECKING:
    from agentflow.locks.info import LockInfo
    from agentflow.locks.waiting import Grant

__all__ = ["AutoRenewLock", "Held", "renew_from_now"]

log = logging.getLogger("agentflow")


class Held:
    """A lease that renews itself: what `AutoRenewLock` and `BlockingLock` have in common."""

    _renewal: Renewal

    @property
    def info(self) -> LockInfo:
        """The lease as it was granted."""
        return self._renewal.info

    @property
    def key(self) -> str:
        """The lock."""
        return self._renewal.info.key

    @property
    def owner(self) -> str:
        """Who holds it."""
        return self._renewal.info.owner

    @property
    def token(self) -> int:
        """The fencing token; it stays readable after a loss."""
        return self._renewal.info.token

    @property
    def lost_reason(self) -> str:
        """Why it was lost; empty while it is not."""
        return self._renewal.reason

    def ensure_held(self) -> None:
        """Raise `LockLost` unless the lease may be believed now. It waits for nothing: call it before every write."""
        self._renewal.ensure_held()

    def remaining(self) -> float:
        """Seconds for which the lease may be believed without another renewal."""
        return self._renewal.remaining()

    def __repr__(self) -> str:
        renewal = getattr(self, "_renewal", None)
        if renewal is None:
            return f"<{type(self).__name__} not held>"
        state = f"lost: {renewal.reason}" if renewal.lost.is_set() else f"{renewal.remaining():.1f} s trusted"
        return f"<{type(self).__name__} {renewal.info.key!r} token={renewal.info.token} {state}>"


class AutoRenewLock(Held):
    """A lock held and renewed from a thread of its own, so that a busy cell or loop does not lose it.

    Make one with `AutoRenewLock.acquire`. Dropping the last reference stops renewing and releases.

    Attributes
    ----------
    token : int
        To be shown to whatever the lock protects; see `FencedResource`.
    lost : Signal
        Set once the lease is lost: `held.lost.is_set()`, `await held.lost.wait()`.

    Examples
    --------
    >>> import tempfile
    >>> async def main(folder):
    ...     async with DistributedLock(f"sqlite:///{folder}/locks.db") as lock:
    ...         await lock.init_schema()
    ...         async with await AutoRenewLock.acquire(lock, "etl") as held:
    ...             held.ensure_held()
    ...             return held.token, held.lost.is_set()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     asyncio.run(main(folder))
    (1, False)
    """

    def __init__(self, lock: DistributedLock, grant: Grant, on_lost: Callable[[str], None] | None) -> None:
        self._lock = lock
        self._renewal = renew_from_now(lock, grant)
        self._let_go = weakref.finalize(self, self._renewal.stop)
        self._task: asyncio.Task[Any] | None = None
        self._cancels_before = 0
        self._cancelled = False
        self._inside = False
        if on_lost is not None:
            self._renewal.listen(on_lost)

    @classmethod
    async def acquire(
        cls,
        lock: DistributedLock,
        key: str,
        metadata: Any = None,
        *,
        max_duration: timedelta | float | None = 0.0,
        on_lost: Callable[[str], None] | None = None,
    ) -> AutoRenewLock:
        """Take the lock and begin to renew it.

        Parameters
        ----------
        lock : DistributedLock
            Where; its ttl is what each renewal asks for, a third of it is the pause between two.
        key, metadata
            As for `DistributedLock.acquire`. This holder is separate: `lock.release(key)` does not release it.
        max_duration : timedelta or float, optional
            How long to wait for a busy lock; None: as long as it takes.
        on_lost : callable, optional
            Called with the reason, from another thread, when the lease is lost.

        Raises
        ------
        LockHeld
            Another has it, and had it until `max_duration` was over.
        """
        limit_s = None if max_duration is None else seconds(max_duration, "max_duration")
        grant = await lock._wait_for(lock._waiter(key, metadata, limit_s=limit_s))
        return cls(lock, grant, on_lost)

    @property
    def lost(self) -> Signal:
        """Set once the lease is lost."""
        return self._renewal.lost

    async def release(self) -> bool:
        """Stop renewing and give the lock back; False if it was no longer ours."""
        self._let_go.detach()
        released = self._renewal.stop()
        await settled(released)
        return released.result()

    async def __aenter__(self) -> AutoRenewLock:
        self.ensure_held()
        task = asyncio.current_task()
        assert task is not None
        self._task, self._inside, self._cancelled = task, True, False
        loop, myself = asyncio.get_running_loop(), weakref.ref(self)

        def lost(reason: str) -> None:
            try:
                loop.call_soon_threadsafe(_cancel_body, myself)
            except RuntimeError:  # the loop was closed with the scope still open
                return

        self._renewal.listen(lost)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside = False  # from here on a loss cancels nobody: the release below must run
        held_to_the_end = await self._released_or_logged()
        ours = self._take_back_cancel() and isinstance(error, asyncio.CancelledError)
        if not self._renewal.lost.is_set() and not held_to_the_end:
            self._renewal.reason = "it was gone when it was to be released"
            self._renewal.lost.set()
        if not self._renewal.lost.is_set():
            return
        if error is None or ours:
            raise self._renewal.loss() from error
        error.add_note(f"lock {self.key!r} (token {self.token}) had been lost: {self.lost_reason}")

    async def _released_or_logged(self) -> bool:
        try:
            return await self.release()
        except AgentflowError as error:
            log.warning("lock %r could not be released and will run out: %s", self.key, error)
            return True

    def _take_back_cancel(self) -> bool:
        # As asyncio.timeout does: if somebody else cancelled too, the cancellation is theirs.
        if not self._cancelled or self._task is None:
            return False
        return self._task.uncancel() <= self._cancels_before


def _cancel_body(reference: weakref.ref[AutoRenewLock]) -> None:
    held = reference()
    if held is None or not held._inside or held._task is None:
        return
    held._cancelled = True
    held._cancels_before = held._task.cancelling()
    held._task.cancel(f"lock {held.key!r} was lost")


def renew_from_now(lock: DistributedLock, grant: Grant) -> Renewal:
    """Start the thread that renews what `lock` was granted."""
    info, database, ttl_s, timeout_s = grant.info, lock._renewals, lock.ttl_s, lock.timeout_s
    place, fair = (lock._place, info.key), lock.fair
    renewal = Renewal(
        database,
        lambda budget_s: database.submit(f"renewal of {info.key!r}", renewing(info, ttl_s), budget_s),
        lambda: database.submit(f"release of {info.key!r}", releasing(info), timeout_s),
        grant,
        ttl_s,
        lock.clock,
    )
    renewal.on_end = lambda: doorbell.ring(place, everyone=fair)
    lock._running.add(renewal)
    renewal.start()
    return renewal
