"""Connections to one database, and the threads that wait for it so that nobody else has to.

Law: a connection belongs to one thread; no call outlives its budget by more than a moment; what is tried again is
only what changes nothing when it is done twice.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from agentflow.errors import AgentflowError, Closed, Disconnected, TimedOut, Unknown
from agentflow.locks.dialects.base import Verdict
from agentflow.locks.jobs import Job, Work
from agentflow.locks.link import Link, Statement

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine import URL
    from sqlalchemy.sql.elements import TextClause

    from agentflow.locks.dialects.base import Dialect

__all__ = ["Database", "open_engine"]

T = TypeVar("T")

IDLE_S: Final = 20.0
FIRST_PAUSE_S: Final = 0.01
LONGEST_PAUSE_S: Final = 0.2
CLOSING_S: Final = 2.0


def open_engine(dialect: Dialect, url: URL, timeout_s: float) -> Engine:
    """An engine whose every connection is in autocommit mode and prepared by the dialect."""
    engine = create_engine(
        url,
        poolclass=NullPool,
        pool_reset_on_return=None,
        isolation_level="AUTOCOMMIT",
        connect_args=dialect.connect_args(timeout_s),
    )

    @event.listens_for(engine, "connect")
    def prepare(raw: Any, record: Any) -> None:
        dialect.prepare(raw, timeout_s)

    return engine


class Clerk:
    """A thread with its inbox and the job it is doing."""

    def __init__(self, serve: Callable[[Clerk], None]) -> None:
        self.inbox: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self.job: Job[Any] | None = None
        self.is_free = True
        self.thread = threading.Thread(target=serve, args=(self,), name="agentflow-lock", daemon=True)


class Database:
    """A crew of threads, each with a connection of its own, hired when there is work and gone when idle.

    Parameters
    ----------
    dialect, engine
        Whose statements, over which connections.
    where : str
        How error messages call the database, without its password.
    crew : int
        The most threads and connections at one time.
    """

    def __init__(self, dialect: Dialect, engine: Engine, where: str, *, crew: int) -> None:
        self.dialect = dialect
        self.engine = engine
        self.where = where
        self._crew = crew
        self._errors: tuple[type[Exception], ...] = (engine.dialect.loaded_dbapi.Error, DBAPIError)
        self._statements: dict[TextClause, Statement] = {}
        self._start_afresh()

    def _start_afresh(self) -> None:
        # Also what a forked child does: its parent's threads do not exist here, and their connections,
        # referenced by frames that never run again, stay untouched.
        self._pid = os.getpid()
        self._guard = threading.Lock()
        self._backlog: deque[Job[Any]] = deque()
        self._clerks: set[Clerk] = set()
        self._idle: list[Clerk] = []
        self._users = 0
        self._closing = False

    def submit(
        self,
        what: str,
        work: Work[T],
        budget_s: float,
        undo: Callable[[T], Work[Any]] | None = None,
    ) -> Job[T]:
        """Have `work` done by a clerk.

        Parameters
        ----------
        what : str
            Its name in error messages: "acquire of 'etl'".
        work : callable
            Given dialect, connection, and whether an earlier try may have taken effect.
        budget_s : float
            How long it may take with all its tries.
        undo : callable, optional
            Makes, of a result, the work that takes it back if the caller has gone.
        """
        self._here()
        job: Job[T] = Job(self, what, work, budget_s, undo)
        with self._guard:
            if self._closing and not self._users:
                raise Closed(
                    f"{what}: the lock's database connections were closed; make a new DistributedLock"
                )
            if self._idle:
                self._idle.pop().inbox.put(job)
            elif len(self._clerks) < self._crew:
                clerk = Clerk(self._serve)
                clerk.inbox.put(job)
                self._clerks.add(clerk)
                clerk.thread.start()
            else:
                self._backlog.append(job)
        return job

    def retain(self) -> None:
        """Keep the crew at work until `drop`, even if closed meanwhile."""
        self._here()
        with self._guard:
            self._users += 1

    def drop(self) -> None:
        """Undo one `retain`."""
        with self._guard:
            self._users = max(0, self._users - 1)
            self._send_home()

    def dismiss(self) -> None:
        """Close once the work in hand is done; does not wait."""
        if self._pid == os.getpid():
            with self._guard:
                self._closing = True
                self._send_home()

    def close(self) -> None:
        """Close, and wait until no thread and no connection is left."""
        self.dismiss()
        if self._pid != os.getpid():
            return
        ends = time.monotonic() + CLOSING_S
        with self._guard:
            clerks = list(self._clerks)
        for clerk in clerks:
            clerk.thread.join(max(0.0, ends - time.monotonic()))
        for clerk in clerks:
            if clerk.thread.is_alive() and (stuck := clerk.job) is not None:
                stuck.abort()
                clerk.thread.join(0.5)

    def _send_home(self) -> None:
        if self._closing and not self._users:
            for clerk in self._idle:
                clerk.inbox.put(None)
            self._idle.clear()

    def _here(self) -> None:
        if self._pid != os.getpid():
            self._start_afresh()

    # --- a clerk's life ------------------------------------------------------------------------------

    def _serve(self, clerk: Clerk) -> None:
        link: Link | None = None
        while (job := self._next(clerk)) is not None:
            clerk.job, clerk.is_free = job, False
            link = self._do(clerk, job, link)
            self._free(clerk)
            clerk.job = None
            del job  # nothing of a caller's is kept alive while waiting for the next
        _close(link)

    def _next(self, clerk: Clerk) -> Job[Any] | None:
        while True:
            try:
                job = clerk.inbox.get(timeout=IDLE_S)
            except Empty:
                with self._guard:
                    if clerk not in self._idle:
                        continue  # a job is on its way into the inbox
                    self._idle.remove(clerk)
                job = None
            if job is None:
                with self._guard:
                    self._clerks.discard(clerk)
            return job

    def _free(self, clerk: Clerk) -> None:
        # Before the result is handed over, so that the caller's next job finds this clerk and hires no other.
        if clerk.is_free:
            return
        clerk.is_free = True
        with self._guard:
            if self._backlog:
                clerk.inbox.put(self._backlog.popleft())
            elif self._closing and not self._users:
                clerk.inbox.put(None)
            else:
                self._idle.append(clerk)

    def _do(self, clerk: Clerk, job: Job[Any], link: Link | None) -> Link | None:
        pause, doubtful = FIRST_PAUSE_S, False
        while not job.done:
            begun = False
            try:
                link = link or Link(self.engine, self._statements)
                job.on_wire(self._breaker(link))
                begun = True
                result = job.work(self.dialect, link, doubtful)
            except self._errors as error:
                job.on_wire(None)
                cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
                verdict = self._verdict(cause)
                if verdict is not Verdict.AGAIN:
                    _close(link)
                    link, doubtful = None, doubtful or begun
                if isinstance(verdict, AgentflowError):
                    verdict.__cause__ = cause
                    job.fail(verdict)
                elif not self._rest(job, pause):
                    job.fail(self._gave_up(job, verdict, cause, doubtful))
                pause = min(2 * pause, LONGEST_PAUSE_S)
            except BaseException as error:
                job.on_wire(None)
                _close(link)
                link = None
                job.fail(error)
            else:
                self._free(clerk)
                take_back = job.settle(result)
                if take_back is not None and not self._undone(take_back, link):
                    _close(link)
                    link = None
        return link

    def _undone(self, take_back: Work[Any], link: Link) -> bool:
        try:
            take_back(self.dialect, link, False)
        except Exception:  # the lease runs out by itself
            return False
        return True

    def _breaker(self, link: Link) -> Callable[[], None]:
        return lambda: self.dialect.abort(link.raw)

    def _verdict(self, error: BaseException) -> Verdict | AgentflowError:
        verdict = self.dialect.classify(error, self.where)
        dbapi: Any = self.engine.dialect.loaded_dbapi
        broken = isinstance(error, dbapi.OperationalError | dbapi.InterfaceError | dbapi.InternalError)
        if verdict is Verdict.LOST and not broken:
            return Unknown(f"{self.where} answered what no lock expects: {error}")
        return verdict

    def _rest(self, job: Job[Any], pause_s: float) -> bool:
        pause_s *= random.uniform(0.5, 1.5)
        if time.monotonic() + pause_s >= job.deadline:
            return False
        time.sleep(pause_s)
        return True

    def _gave_up(
        self, job: Job[Any], verdict: Verdict | AgentflowError, error: BaseException, doubtful: bool
    ) -> AgentflowError:
        said = " ".join(str(error).split())
        kind = TimedOut if verdict is Verdict.AGAIN else Disconnected
        outcome = "it may have happened, asking again settles it" if doubtful else "nothing was changed"
        failure = kind(
            f"{job.what}: {self.where} did not answer within {job.budget_s:.3g} s ({said}); {outcome}",
            budget_s=job.budget_s,
        )
        failure.__cause__ = error
        return failure


def _close(link: Link | None) -> None:
    if link is not None:
        link.close()
