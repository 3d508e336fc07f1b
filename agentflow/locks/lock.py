"""A lock that processes on one or many machines share through a database.

Law: a lease is taken, prolonged and given back by one statement each, which names the holder and its token; time is the
database's; nothing is deleted, so a key's token never goes back.
"""

from __future__ import annotations

import json
import os
import random
import socket
import threading
import weakref
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from agentflow.errors import Unknown
from agentflow.locks.info import LockInfo
from agentflow.locks.keys import (
    SHORTEST_LEASE_S,
    checked_key,
    checked_metadata,
    checked_owner,
    holder_name,
    owner_of,
    seconds,
)
from agentflow.locks.signals import doorbell, in_thread, lease_clock, settled
from agentflow.locks.waiting import Busy, Grant, Request, Waiter, margin
from agentflow.views import Viewable

if TYPE_CHECKING:
    from agentflow.locks.dialects.base import Dialect
    from agentflow.locks.engine import Database
    from agentflow.locks.jobs import Job, Work
    from agentflow.locks.link import Runner
    from agentflow.locks.renewal import Renewal

__all__ = ["DistributedLock", "LockTable"]

T = TypeVar("T")

CREW: Final = 4
RENEWAL_CREW: Final = 64
SCHEMA_S: Final = 15.0


class DistributedLock(Viewable):
    """Named locks in a database table, each with one holder at a time and a fencing token.

    It is not re-entrant and not tied to a task: whoever has this object may release what it acquired, and a second
    acquire of the same key finds it busy. Waiters are served in no order unless `fair`. A lease that is not renewed
    ends by itself; `AutoRenewLock` renews.

    Parameters
    ----------
    url : str
        'sqlite:///locks.db' (the processes of one machine), 'postgresql+psycopg://...' or 'mysql+pymysql://...'.
    owner : str, optional
        Who holds the locks, for people to read; the host's name by default. Two objects with the same owner
        are strangers to each other: each acquisition has a name of its own.
    ttl_secs : float or timedelta
        How long a lease lasts unless renewed.
    fair : bool
        Serve waiters in the order in which they came. It costs a heartbeat per waiter and poll, and it binds only
        those who ask for it.
    timeout_secs : float or timedelta
        How long one call may take, with its retries, before it raises `TimedOut` or `Disconnected`.
    poll_secs : float or timedelta
        The longest pause between two looks of a waiter.
    clock : callable, optional
        Seconds that never go back; used only to know how long one's own lease can be trusted.

    Examples
    --------
    >>> import asyncio, tempfile
    >>> async def main(folder):
    ...     async with DistributedLock(f"sqlite:///{folder}/locks.db", owner="w1", ttl_secs=30) as lock:
    ...         await lock.init_schema()
    ...         first, again = await lock.acquire("etl", {"job": 7}), await lock.acquire("etl")
    ...         info = await lock.check_lock("etl")
    ...         return first, again, info.owner, info.token, info.metadata, await lock.release("etl")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     asyncio.run(main(folder))
    (True, False, 'w1', 1, {'job': 7}, True)
    """

    def __init__(
        self,
        url: str,
        owner: str | None = None,
        ttl_secs: timedelta | float = 30.0,
        *,
        fair: bool = False,
        timeout_secs: timedelta | float = 5.0,
        poll_secs: timedelta | float = 0.25,
        clock: Callable[[], float] = lease_clock,
    ) -> None:
        from agentflow.locks.dialects import dialect_for
        from agentflow.locks.engine import Database, open_engine

        self.owner = checked_owner(socket.gethostname() if owner is None else owner)
        self.ttl_s = seconds(ttl_secs, "ttl_secs", shortest=SHORTEST_LEASE_S)
        self.fair = fair
        self.timeout_s = seconds(timeout_secs, "timeout_secs", shortest=0.05)
        self.poll_s = seconds(poll_secs, "poll_secs", shortest=0.001)
        self.clock = clock
        dialect, parsed = dialect_for(url)
        self.url = parsed.render_as_string(hide_password=True)
        engine = open_engine(dialect, parsed, self.timeout_s)
        # Renewals have connections of their own: no crowd of waiters may stand before them.
        self._calls = Database(dialect, engine, self.url, crew=CREW)
        self._renewals = Database(dialect, engine, self.url, crew=RENEWAL_CREW)
        self._place = parsed.render_as_string(hide_password=False)
        self._rng = random.Random()
        self._held: dict[str, Grant] = {}
        self._unsettled: dict[tuple[str, str], str] = {}
        self._guard = threading.Lock()
        self._pid = os.getpid()
        self._running: weakref.WeakSet[Renewal] = weakref.WeakSet()
        self._dismiss = weakref.finalize(self, _dismiss, self._calls, self._renewals)

    # --- what a person calls -------------------------------------------------------------------------

    async def init_schema(self) -> None:
        """Create tables and indexes where they are missing; any number of processes may do so at once."""
        await self._schema_job().result()

    async def acquire(self, key: str, metadata: Any = None) -> bool:
        """Take the lock if nobody holds it.

        Parameters
        ----------
        key : str
            1 to 255 bytes; case and trailing blanks count.
        metadata : Any
            Anything JSON can say; `check_lock` shows it to others.

        Returns
        -------
        bool
            False if it is held, by this object too.

        Raises
        ------
        Unknown
            The database did not answer. Asking again adopts the lease if it had been given after all.
        """
        waiter = self._waiter(key, metadata, limit_s=0.0)
        try:
            answer = self._believed(waiter, await waiter.ask(curious=False).result())
        except Unknown:
            self._doubt(waiter)
            raise
        if isinstance(answer, Busy):
            return False
        self._keep(answer)
        return True

    async def acquire_blocking(
        self, key: str, max_duration: timedelta | float | None = None, metadata: Any = None
    ) -> LockInfo:
        """Wait for the lock, polling with jitter, at most `max_duration` (None: as long as it takes).

        Raises
        ------
        LockHeld
            It was not had in time; `owner` and `expires_at` say who has it.
        """
        limit_s = None if max_duration is None else seconds(max_duration, "max_duration")
        grant = await self._wait_for(self._waiter(key, metadata, limit_s=limit_s))
        self._keep(grant)
        return grant.info

    async def release(self, key: str) -> bool:
        """Give back a lock this object acquired; False if it is not, or no longer, this object's."""
        grant = self._mine(checked_key(key))
        if grant is None:
            return False
        released = await self._release_job(self._calls, grant).result()
        self._forget(key, grant)
        self._ring(key)
        return released

    async def renew(self, key: str, extend_duration: timedelta | float | None = None) -> bool:
        """Let one's own lease last at least `extend_duration` (the ttl by default) from now.

        Returns
        -------
        bool
            False if the lease has expired or was taken away. It is then gone; it is not taken again.
        """
        span_s = self.ttl_s
        if extend_duration is not None:
            span_s = seconds(extend_duration, "extend_duration", shortest=SHORTEST_LEASE_S)
        grant = self._mine(checked_key(key))
        if grant is None:
            return False
        began = self.clock()
        left_s = await self._renew_job(self._calls, grant, span_s, self.timeout_s).result()
        if left_s is None:
            self._forget(key, grant)
            return False
        with self._guard:
            if self._held.get(key) is grant:
                self._held[key] = Grant(grant.info, began + left_s - margin(span_s))
        return True

    async def check_lock(self, key: str) -> LockInfo | None:
        """Who holds the lock now, by the database's clock; None if nobody does."""
        checked_key(key)

        def look(dialect: Dialect, conn: Runner, doubtful: bool) -> LockInfo | None:
            return dialect.look(conn, key)

        return await self._calls.submit(f"check of {key!r}", look, self.timeout_s).result()

    async def list_locks(self) -> list[LockInfo]:
        """Every lock that is held now, by key."""
        return await self._list_job().result()

    async def cleanup_expired_locks(self) -> int:
        """Blank the rows of expired leases, keeping their tokens; how many there were.

        Locks work without it: an expired lease can be taken as it is. It only tidies what people read.
        """

        def cleanup(dialect: Dialect, conn: Runner, doubtful: bool) -> int:
            return dialect.cleanup(conn)

        return await self._calls.submit("cleanup of expired locks", cleanup, self.timeout_s).result()

    async def force_release(self, key: str, reason: str | None = None) -> bool:
        """Take the lock away from whoever holds it, and make its token stale; False if nobody held it.

        Parameters
        ----------
        reason : str, optional
            Kept in the row, beside who did it, until the next holder.
        """
        checked_key(key)
        note = json.dumps({"force_released": {"by": self.owner, "reason": reason}})

        def force(dialect: Dialect, conn: Runner, doubtful: bool) -> bool:
            return dialect.force(conn, key, note) or doubtful

        forced = await self._calls.submit(f"forced release of {key!r}", force, self.timeout_s).result()
        self._ring(key)
        return forced

    async def close(self) -> None:
        """Give back what renews itself, end threads and connections. Leases without renewal run out."""
        done = in_thread(self.shutdown)
        await settled(done)
        done.result()

    # --- what only reads -----------------------------------------------------------------------------

    def token(self, key: str) -> int | None:
        """The fencing token of this object's lease, to be shown to whatever the lock protects."""
        grant = self._mine(key)
        return None if grant is None else grant.info.token

    def remaining(self, key: str) -> float:
        """Seconds for which this object may still believe in its lease; 0 if it holds none."""
        grant = self._mine(key)
        return 0.0 if grant is None else max(0.0, grant.trusted_until - self.clock())

    def shutdown(self) -> None:
        """`close` for code that may block."""
        if self._pid == os.getpid():
            running = list(self._running)
            for renewal in running:
                renewal.stop()
            for renewal in running:
                renewal.join()
        self._calls.close()
        self._renewals.close()

    async def __aenter__(self) -> DistributedLock:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        fair = ", fair" if self.fair else ""
        return f"<DistributedLock {self.url} owner={self.owner!r} ttl={self.ttl_s:g} s{fair}>"

    # --- shared with AutoRenewLock and BlockingLock ---------------------------------------------------

    def _waiter(self, key: str, metadata: Any, *, limit_s: float | None, owner: str | None = None) -> Waiter:
        checked_key(key)
        text = checked_metadata(metadata)
        self._check_fork()
        with self._guard:
            # What an earlier call left in doubt may be ours already; its name finds out.
            name = self.owner if owner is None else owner
            holder = self._unsettled.pop((key, name), None) or holder_name(name)
        request = Request(
            key=key, holder=holder, ttl_s=self.ttl_s, metadata=text, fair=self.fair, clock=self.clock
        )
        return Waiter(
            self._calls,
            request,
            limit_s=limit_s,
            place=(self._place, key),
            budget_s=self.timeout_s,
            poll_s=self.poll_s,
            rng=self._rng,
        )

    async def _wait_for(self, waiter: Waiter) -> Grant:
        granted = False
        try:
            while True:
                answer: Grant | Busy | Unknown
                try:
                    answer = self._believed(waiter, await waiter.ask().result())
                except Unknown as error:
                    answer = error
                if isinstance(answer, Grant):
                    granted = True
                    return answer
                pause_s = self._pause(waiter, answer)
                if waiter.bell is not None:
                    await waiter.bell.listen(pause_s)
        finally:
            waiter.finish(granted=granted)

    def _pause(self, waiter: Waiter, answer: Busy | Unknown) -> float:
        pause_s = waiter.pause(answer)
        if pause_s is not None:
            return pause_s
        if isinstance(answer, Unknown):
            self._doubt(waiter)
        raise waiter.refusal(answer)

    def _believed(self, waiter: Waiter, answer: Grant | Busy) -> Grant | Busy:
        if isinstance(answer, Busy) or self.clock() < answer.trusted_until:
            return answer
        # The lease was given, but its reply took as long as the lease: nobody may rely on it any more.
        # The next try asks by another name: under this one it could adopt the lease that is being released.
        self._release_job(self._calls, answer)
        waiter.ask_as(holder_name(self.owner))
        return Busy()

    def _keep(self, grant: Grant) -> None:
        with self._guard:
            self._held[grant.info.key] = grant

    def _doubt(self, waiter: Waiter) -> None:
        with self._guard:
            holder = waiter.request.holder
            self._unsettled[waiter.request.key, owner_of(holder)] = holder

    def _mine(self, key: str) -> Grant | None:
        self._check_fork()
        with self._guard:
            return self._held.get(key)

    def _forget(self, key: str, grant: Grant) -> None:
        with self._guard:
            if self._held.get(key) is grant:
                del self._held[key]

    def _check_fork(self) -> None:
        if self._pid != os.getpid():  # a child holds nothing of its parent's
            self._pid = os.getpid()
            self._guard = threading.Lock()
            self._held, self._unsettled = {}, {}
            self._running = weakref.WeakSet()

    def _ring(self, key: str) -> None:
        doorbell.ring((self._place, key), everyone=self.fair)

    def _schema_job(self) -> Job[None]:
        def create(dialect: Dialect, conn: Runner, doubtful: bool) -> None:
            dialect.create(conn)

        return self._calls.submit("init_schema", create, max(SCHEMA_S, self.timeout_s))

    def _list_job(self) -> Job[list[LockInfo]]:
        def rows(dialect: Dialect, conn: Runner, doubtful: bool) -> list[LockInfo]:
            return dialect.rows(conn)

        return self._calls.submit("listing of locks", rows, self.timeout_s)

    def _release_job(self, database: Database, grant: Grant) -> Job[bool]:
        return database.submit(f"release of {grant.info.key!r}", releasing(grant.info), self.timeout_s)

    def _renew_job(
        self, database: Database, grant: Grant, span_s: float, budget_s: float
    ) -> Job[float | None]:
        return database.submit(f"renewal of {grant.info.key!r}", renewing(grant.info, span_s), budget_s)


class LockTable:
    """The locks that are held, as rows for a table; for code that may block.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     lock = DistributedLock(f"sqlite:///{folder}/locks.db")
    ...     table = LockTable(lock)
    ...     table.init_schema()
    ...     table.rows()
    ...     lock.shutdown()
    []
    """

    columns: Final = ("key", "owner", "token", "acquired_at", "expires_at", "metadata")

    def __init__(self, lock: DistributedLock) -> None:
        self._lock = lock

    def init_schema(self) -> None:
        """`DistributedLock.init_schema`, blocking."""
        self._lock._schema_job().wait()

    def list_locks(self) -> list[LockInfo]:
        """`DistributedLock.list_locks`, blocking."""
        return self._lock._list_job().wait()

    def rows(self) -> list[dict[str, Any]]:
        """One dict a held lock, with the keys of `columns`."""
        return [{name: getattr(info, name) for name in self.columns} for info in self.list_locks()]


def releasing(info: LockInfo) -> Work[bool]:
    """Blank the row if it is this holder's. After a lost reply, a row that lies as a release leaves it counts."""

    def release(dialect: Dialect, conn: Runner, doubtful: bool) -> bool:
        if dialect.release(conn, info.key, info.holder, info.token):
            return True
        return doubtful and dialect.was_released(conn, info.key, info.token)

    return release


def renewing(info: LockInfo, span_s: float) -> Work[float | None]:
    """Prolong an unexpired lease; doing it twice does no harm."""

    def renew(dialect: Dialect, conn: Runner, doubtful: bool) -> float | None:
        return dialect.renew(conn, info.key, info.holder, info.token, span_s)

    return renew


def _dismiss(*databases: Database) -> None:
    for database in databases:
        database.dismiss()
