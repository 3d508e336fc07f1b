"""How one lock is asked for: once, or again and again until a limit.

Law: a waiter reads before it writes, sleeps no longer than the lease it waits for or its own limit, and never has
more than one holder's name in the table.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from agentflow.errors import Closed, LockHeld, Unknown
from agentflow.locks.info import LockInfo
from agentflow.locks.keys import owner_of
from agentflow.locks.signals import Bell, doorbell

if TYPE_CHECKING:
    from agentflow.locks.dialects.base import Dialect
    from agentflow.locks.engine import Database
    from agentflow.locks.jobs import Job, Work
    from agentflow.locks.link import Runner

__all__ = ["Busy", "Grant", "Request", "Waiter", "margin"]

FIRST_POLL_S: Final = 0.01
PLACE_S: Final = 3.0
LAST_TRY_S: Final = 0.25


class Grant(msgspec.Struct, frozen=True):
    """A lease that was given, and how long its holder may believe in it by its own clock."""

    info: LockInfo
    trusted_until: float


class Busy(msgspec.Struct, frozen=True):
    """Another has the lock, or is before us in line; `info` is None where nobody looked or nobody holds it now."""

    info: LockInfo | None = None
    first: str | None = None


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the database, over and over the same."""

    key: str
    holder: str
    ttl_s: float
    metadata: str | None
    fair: bool
    clock: Callable[[], float]

    def work(self, *, first: bool, patient: bool, curious: bool) -> Work[Grant | Busy]:
        """One try.

        Parameters
        ----------
        first : bool
            Write at once: the lock is probably free. Later tries look first, because even a refused upsert
            writes to PostgreSQL's log.
        patient : bool
            We shall come again, so in a fair lock we stand in line.
        curious : bool
            Who has it is wanted in the answer.
        """

        def attempt(dialect: Dialect, conn: Runner, doubtful: bool) -> Grant | Busy:
            if self.fair:
                if patient:
                    dialect.stand(conn, self.key, self.holder, PLACE_S)
                head = dialect.head(conn, self.key)
                if head not in (None, self.holder):
                    return Busy(dialect.look(conn, self.key), first=head)
            if not first:
                held = dialect.look(conn, self.key)
                if held is not None and held.holder != self.holder:
                    return Busy(held)
            began = self.clock()
            info = dialect.acquire(conn, self.key, self.holder, self.ttl_s, self.metadata)
            if info is None:
                return Busy(dialect.look(conn, self.key) if curious else None)
            if self.fair and patient:
                dialect.leave(conn, self.holder)
            # Counted from before the statement was sent: the reply may have been long under way.
            return Grant(info, began + min(info.remaining_s, self.ttl_s) - margin(self.ttl_s))

        return attempt


class Waiter:
    """The tries of one caller, with or without a limit; driven by an async and by a blocking loop.

    Parameters
    ----------
    database : Database
        Where to ask.
    request : Request
        What to ask.
    limit_s : float or None
        How long to keep asking: 0 asks once, None for ever.
    place : tuple of str
        Where bells for this lock hang.
    budget_s, poll_s : float
        The longest one try may take, and the longest sleep between two.
    """

    def __init__(
        self,
        database: Database,
        request: Request,
        *,
        limit_s: float | None,
        place: tuple[str, str],
        budget_s: float,
        poll_s: float,
        rng: random.Random,
    ) -> None:
        self.request = request
        self.limit_s = limit_s
        self._database = database
        self._place = place
        self._budget_s = budget_s
        self._poll_s = poll_s
        self._rng = rng
        self._ends = None if limit_s is None else request.clock() + limit_s
        self._pause_s = FIRST_POLL_S
        self._tries = 0
        self.bell: Bell | None = None

    def ask(self, *, curious: bool = True) -> Job[Grant | Busy]:
        """Send one try."""
        patient = self.limit_s != 0
        if patient and self.bell is None:
            self.bell = doorbell.join(self._place)
        if self.bell is not None:
            self.bell.clear()
        work = self.request.work(first=self._tries == 0, patient=patient, curious=curious or patient)
        self._tries += 1
        budget_s = self._budget_s
        if patient and self._ends is not None:
            budget_s = min(budget_s, max(LAST_TRY_S, self._ends - self.request.clock()))
        return self._database.submit(f"acquire of {self.request.key!r}", work, budget_s, undo=self._take_back)

    def ask_as(self, holder: str) -> None:
        """Ask by another name from now on; the one before has left the line."""
        self.request = msgspec.structs.replace(self.request, holder=holder)

    def pause(self, answer: Busy | Unknown) -> float | None:
        """How long to sleep after a try that brought nothing; None once the limit has come."""
        left_s = None if self._ends is None else self._ends - self.request.clock()
        if left_s is not None and left_s <= 0:
            return None
        spans = [self._pause_s * self._rng.uniform(0.5, 1.5)]
        self._pause_s = min(2 * self._pause_s, self._poll_s)
        if isinstance(answer, Busy) and answer.info is not None and answer.first is None:
            spans.append(max(0.001, answer.info.remaining_s + 0.001))
        if left_s is not None:
            spans.append(left_s)
        return min(spans)

    def refusal(self, answer: Busy | Unknown) -> LockHeld | Unknown:
        """The error for a caller whose limit has come."""
        if isinstance(answer, Unknown):
            return answer
        key, info = self.request.key, answer.info
        way_out = (
            "try again then, or wait with max_duration="
            if self.limit_s == 0
            else f"it was not had within {self.limit_s:.3g} s"
        )
        if info is None:
            owner = owner_of(answer.first) if answer.first is not None else None
            whose = f"{owner} is first in line for {key!r}" if owner else f"{key!r} went to another"
            return LockHeld(f"{whose}; {way_out}", key=key, owner=owner, expires_at=None, token=None)
        return LockHeld(
            f"{key!r} is held by {info.owner} until {info.expires_at:%Y-%m-%d %H:%M:%S.%f} UTC "
            f"(token {info.token}); {way_out}",
            key=key,
            owner=info.owner,
            expires_at=info.expires_at,
            token=info.token,
        )

    def finish(self, *, granted: bool) -> None:
        """Take the bell down; whoever gives up waiting leaves the line and wakes the next."""
        if self.bell is not None:
            doorbell.leave(self._place, self.bell)
            if not granted and self.bell.was_rung():
                doorbell.ring(self._place)
        if self.request.fair and self.limit_s != 0 and not granted:
            with suppress(Closed):
                self._database.submit("leaving the line", self._leave, self._budget_s)

    def _leave(self, dialect: Dialect, conn: Runner, doubtful: bool) -> None:
        dialect.leave(conn, self.request.holder)

    def _take_back(self, answer: Grant | Busy) -> Work[Any]:
        def release(dialect: Dialect, conn: Runner, doubtful: bool) -> None:
            if isinstance(answer, Grant):
                dialect.release(conn, answer.info.key, answer.info.holder, answer.info.token)
                doorbell.ring(self._place)
            elif self.request.fair:
                dialect.leave(conn, self.request.holder)

        return release


def margin(ttl_s: float) -> float:
    """How much before its end a lease is no longer trusted: a tenth, at least 50 ms.

    Examples
    --------
    >>> margin(30.0), margin(0.2)
    (3.0, 0.05)
    """
    return max(0.05, 0.1 * ttl_s)
