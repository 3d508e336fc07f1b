"""The self-renewing lock for code that blocks: a cell, a script, a worker's thread.

Law: the same as `AutoRenewLock`, except that a thread cannot be cancelled: the body asks `ensure_held()`, and leaving
the scope raises `LockLost` if it did not notice.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any

from agentflow.errors import AgentflowError, LockHeld, Unknown
from agentflow.locks.autorenew import Held, renew_from_now
from agentflow.locks.keys import checked_key, checked_owner, seconds
from agentflow.locks.waiting import Busy, Grant, Waiter

if TYPE_CHECKING:
    from agentflow.locks.lock import DistributedLock

__all__ = ["BlockingLock", "hold_all"]

log = logging.getLogger("agentflow")


class BlockingLock(Held):
    """A lock for a `with` statement.

    Parameters
    ----------
    lock : DistributedLock
        Where; its ttl counts.
    key, metadata
        As for `DistributedLock.acquire`.
    max_duration : timedelta or float, optional
        How long to wait for a busy lock; None: as long as it takes.
    on_lost : callable, optional
        Called with the reason, from another thread, when the lease is lost.
    give_up : threading.Event, optional
        Ends the waiting early when set.
    owner : str, optional
        Who holds it, for people to read; by default the owner that `lock` names.

    Raises
    ------
    LockHeld
        On entering, if another has it until the end of `max_duration`.
    LockLost
        On leaving, if the lease was lost inside and the body raised nothing.

    Examples
    --------
    >>> import tempfile
    >>> from agentflow.locks import DistributedLock, LockTable
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     lock = DistributedLock(f"sqlite:///{folder}/locks.db")
    ...     LockTable(lock).init_schema()
    ...     with BlockingLock(lock, "etl") as held:
    ...         held.ensure_held()
    ...         print(held.token, held.lost.is_set())
    ...     lock.shutdown()
    1 False
    """

    def __init__(
        self,
        lock: DistributedLock,
        key: str,
        metadata: Any = None,
        *,
        max_duration: timedelta | float | None = 0.0,
        on_lost: Callable[[str], None] | None = None,
        give_up: threading.Event | None = None,
        owner: str | None = None,
    ) -> None:
        self._lock = lock
        self._owner = lock.owner if owner is None else checked_owner(owner)
        self._wanted = checked_key(key)
        self._metadata = metadata
        self._limit_s = None if max_duration is None else seconds(max_duration, "max_duration")
        self._on_lost = on_lost
        self._give_up = give_up

    @property
    def lost(self) -> threading.Event:
        """Set once the lease is lost."""
        return self._renewal.lost.event

    def __enter__(self) -> BlockingLock:
        waiter = self._lock._waiter(self._wanted, self._metadata, limit_s=self._limit_s, owner=self._owner)
        grant = _wait_for(self._lock, waiter, self._give_up)
        self._renewal = renew_from_now(self._lock, grant)
        self._let_go = weakref.finalize(self, self._renewal.stop)
        if self._on_lost is not None:
            self._renewal.listen(self._on_lost)
        return self

    def forsake(self) -> None:
        """Stop renewing and give nothing back, as a process that dies does: the lease runs out by itself."""
        self._let_go.detach()
        self._renewal.forsake()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._let_go.detach()
        if self._renewal.forsaken:
            return
        try:
            held_to_the_end = self._renewal.stop().result()
        except AgentflowError as failure:
            log.warning("lock %r could not be released and will run out: %s", self.key, failure)
            held_to_the_end = True
        lost = self._renewal.lost
        if not lost.is_set() and not held_to_the_end:
            self._renewal.reason = "it was gone when it was to be released"
            lost.set()
        if not lost.is_set():
            return
        if error is None:
            raise self._renewal.loss()
        error.add_note(f"lock {self.key!r} (token {self.token}) had been lost: {self.lost_reason}")


@contextmanager
def hold_all(
    lock: DistributedLock,
    keys: Iterable[str],
    metadata: Any = None,
    *,
    max_duration: timedelta | float | None = 0.0,
    on_lost: Callable[[str], None] | None = None,
    give_up: threading.Event | None = None,
    owner: str | None = None,
) -> Iterator[dict[str, BlockingLock]]:
    """Hold several locks at once, taken in one order by everybody, so that no two wait for each other.

    The arguments are those of `BlockingLock`; `max_duration` counts for each lock.

    Examples
    --------
    >>> import tempfile
    >>> from agentflow.locks import DistributedLock, LockTable
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     lock = DistributedLock(f"sqlite:///{folder}/locks.db")
    ...     LockTable(lock).init_schema()
    ...     with hold_all(lock, ["b", "a"]) as held:
    ...         print(sorted(held))
    ...     lock.shutdown()
    ['a', 'b']
    """
    wanted = sorted({checked_key(key) for key in keys}, key=str.encode)
    with ExitStack() as stack:
        held = {}
        for key in wanted:
            one = BlockingLock(
                lock,
                key,
                metadata,
                max_duration=max_duration,
                on_lost=on_lost,
                give_up=give_up,
                owner=owner,
            )
            held[key] = stack.enter_context(one)
        yield held


def _wait_for(lock: DistributedLock, waiter: Waiter, give_up: threading.Event | None) -> Grant:
    granted = False
    try:
        while True:
            answer: Grant | Busy | Unknown
            try:
                answer = lock._believed(waiter, waiter.ask().wait())
            except Unknown as error:
                answer = error
            if isinstance(answer, Grant):
                granted = True
                return answer
            if give_up is not None and give_up.is_set():
                raise LockHeld(
                    f"waiting for {waiter.request.key!r} was given up", key=waiter.request.key, owner=None
                )
            pause_s = lock._pause(waiter, answer)
            if waiter.bell is not None:
                waiter.bell.wait(pause_s)
    finally:
        waiter.finish(granted=granted)
