"""The locks of a cluster: where they are kept, and how a worker holds a task's locks around an attempt.

Law: an attempt begins only while its worker holds all its locks, and a lock is given back only after the work under
it has ended. A worker that dies gives nothing back: its leases run out, and the next holder's token is larger.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from agentflow.core.nodes.messages import Order
from agentflow.errors import Closed, InvalidConfig, LockHeld, LockLost, Unknown
from agentflow.executors.base import Clock, Outcome
from agentflow.ids import NodeId
from agentflow.locks.keys import SHORTEST_LEASE_S, checked_key, seconds

if TYPE_CHECKING:
    from agentflow.locks import BlockingLock, DistributedLock, LockInfo

__all__ = ["ClusterLocks", "LockedWork", "checked_locks"]

NO_LOCKS = (
    "a simulation has no locks: their leases end by a database's clock, and its time is virtual; "
    "leave locks out there, or use a Cluster"
)

PATIENCE_S = 0.25
"""How long a worker waits for a lock before it gives the task back; in that time it occupies a slot."""


class ClusterLocks:
    """Where a cluster's locks are kept; nothing is opened before the first is asked for.

    Parameters
    ----------
    url : str, optional
        A database that others may use too; by default a SQLite file of the cluster's own, gone with it.
    ttl_secs : float or timedelta
        How long a lease outlives its holder.
    """

    def __init__(self, url: str | None = None, ttl_secs: timedelta | float = 10.0) -> None:
        self.ttl_s = seconds(ttl_secs, "lock_ttl_secs", shortest=SHORTEST_LEASE_S)
        if url is not None:
            from agentflow.locks.dialects import dialect_for

            dialect_for(url)  # what cannot work is refused now, not at the first lock
        self._url = url
        self._guard = threading.Lock()
        self._folder: Path | None = None
        self._lock: DistributedLock | None = None
        self._is_closed = False

    def hold(self, owner: str, key: str, metadata: Any = None, **settings: Any) -> BlockingLock:
        """Make the lock that `with` takes; `settings` are those of `BlockingLock`."""
        from agentflow.locks import BlockingLock

        checked_key(key)
        return BlockingLock(self._opened(), key, metadata, owner=owner, **settings)

    def hold_all(
        self, worker: NodeId, order: Order, **settings: Any
    ) -> AbstractContextManager[dict[str, BlockingLock]]:
        """All locks of an order, for one `with`."""
        from agentflow.locks import hold_all

        facts = {"run": order.run, "task": order.id, "attempt": order.attempt}
        return hold_all(self._opened(), order.locks, facts, owner=worker, max_duration=PATIENCE_S, **settings)

    def rows(self) -> list[LockInfo]:
        """The locks that are held now, by key."""
        from agentflow.locks import LockTable

        if self._url is None and self._lock is None:
            return []
        return LockTable(self._opened()).list_locks()

    def close(self) -> None:
        """Give back what cells hold, and remove the cluster's own file."""
        with self._guard:
            self._is_closed = True
            lock, self._lock = self._lock, None
        if lock is not None:
            lock.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _opened(self) -> DistributedLock:
        from agentflow.locks import DistributedLock, LockTable

        with self._guard:
            if self._is_closed:
                raise Closed("the cluster was closed, and its locks with it; make a new one")
            if self._lock is None:
                url = self._url
                if url is None:
                    self._folder = Path(tempfile.mkdtemp(prefix="agentflow-locks-"))
                    url = f"sqlite:///{self._folder}/locks.db"
                lock = DistributedLock(url, owner="cluster", ttl_secs=self.ttl_s)
                try:
                    LockTable(lock).init_schema()
                except BaseException:
                    lock.shutdown()
                    raise
                self._lock = lock
            return self._lock


class LockedWork:
    """One attempt and the locks around it, in a thread that takes them, waits for the work and gives them back.

    Parameters
    ----------
    locks : ClusterLocks
        Where they are kept.
    worker : str
        Who takes them.
    order : Order
        What they are taken for.
    begin : callable
        `begin(held, done)` starts the work with its locks; `done(outcome)` is to be called at its end.
    stop : callable
        Ends the work, or wants it no more: its lock was lost.
    done : callable
        Told how the attempt ended; given `LockHeld` if it did not begin.
    gone : callable
        Called when the locks have been given back, or were forsaken.
    clock : callable
        The clock of outcomes.
    """

    def __init__(
        self,
        locks: ClusterLocks,
        worker: NodeId,
        order: Order,
        *,
        begin: Callable[[Mapping[str, BlockingLock], Callable[[Outcome], None]], None],
        stop: Callable[[], None],
        done: Callable[[Outcome | LockHeld], None],
        gone: Callable[[], None],
        clock: Clock,
    ) -> None:
        self.has_begun = False
        self.order = order
        self._has_told = False
        self._locks = locks
        self._worker = worker
        self._begin, self._stop, self._done = begin, stop, done
        self._gone, self._clock = gone, clock
        self._give_up = threading.Event()
        self._news: SimpleQueue[Outcome | str] = SimpleQueue()
        self._guard = threading.Lock()
        self._thread = threading.Thread(
            target=self._run, name=f"agentflow-locks-{worker}-{order.attempt}", daemon=True
        )

    def start(self) -> None:
        """Begin to ask for the locks."""
        self._thread.start()

    def take_back(self) -> bool:
        """Want it no more; whether the work had not begun, and now will not."""
        with self._guard:
            self._give_up.set()
            return not self.has_begun

    def withdraw(self) -> None:
        """The work was begun and was taken back before it ran: give the locks back, and say nothing."""
        self._news.put("withdrawn")

    def forsake(self) -> None:
        """The worker is gone: renew and release nothing any more."""
        with self._guard:
            self._give_up.set()
        self._news.put("forsaken")

    def join(self, limit_s: float) -> None:
        """Wait for the thread's end."""
        self._thread.join(limit_s)

    # --- the thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._began = self._clock()
        try:
            self._perform()
        except LockHeld as held:
            if not self._give_up.is_set():
                token = getattr(held, "token", None)
                number = "" if token is None else f" (token {token})"
                said = f"lock held by {held.owner or 'another'}{number}"
                self._tell(LockHeld(said, key=held.key, owner=held.owner))
        except Unknown as error:
            # Nothing ran: to ask again later is safe, and a database that restarts fails no task.
            doubt = LockHeld(f"whether it is free is not known: {error}")
            doubt.__cause__ = error
            self._tell(doubt)
        except Exception as error:
            self._tell(Outcome(None, error, self._began, self._clock()))
        finally:
            self._gone()

    def _perform(self) -> None:
        outcome: Outcome | None = None
        try:
            with self._locks.hold_all(
                self._worker, self.order, on_lost=lambda _: self._news.put("lost"), give_up=self._give_up
            ) as held:
                with self._guard:
                    if self._give_up.is_set():
                        return
                    self.has_begun = True
                self._began = self._clock()
                self._begin(held, self._news.put)
                outcome = self._wait(held)
        except LockLost as lost:
            # What was made without the lock counts for nothing; an error of the task's own says more.
            if outcome is None or outcome.error is None:
                started = self._began if outcome is None else outcome.started
                outcome = Outcome(None, lost, started, self._clock())
            else:
                outcome.error.add_note(str(lost))
        if outcome is not None:
            self._tell(outcome)

    def _wait(self, held: Mapping[str, BlockingLock]) -> Outcome | None:
        """Until the work has ended; a thread that goes on after a loss still keeps the task's other locks."""
        while True:
            news = self._news.get()
            if isinstance(news, Outcome):
                return news
            if news == "forsaken":
                for each in held.values():
                    each.forsake()
                return None
            if news == "withdrawn":
                return None
            self._stop()
            try:
                for each in held.values():
                    each.ensure_held()
            except LockLost as lost:
                self._tell(Outcome(None, lost, self._began, self._clock()))

    def _tell(self, outcome: Outcome | LockHeld) -> None:
        if not self._has_told:
            self._has_told = True
            self._done(outcome)


def checked_locks(locks: tuple[str, ...], task: str) -> tuple[str, ...]:
    """The keys of a task's locks, each once, in the order in which everybody takes them.

    Examples
    --------
    >>> checked_locks(("b", "a", "b"), "load")
    ('a', 'b')
    """
    for key in locks:
        try:
            checked_key(key)
        except InvalidConfig as error:
            raise InvalidConfig(f"locks of task {task!r}: {error}", field="locks", value=key) from None
    return tuple(sorted(set(locks), key=str.encode))
