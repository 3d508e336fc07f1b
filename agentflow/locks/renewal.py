"""The thread that keeps one lease alive, and knows at every instant whether it still may be believed.

Law: a lease is trusted until `sent + ttl - margin` of the last renewal that succeeded, counted on our own clock from
before it was sent; once lost it stays lost, whatever answers arrive later. After River's elector
(internal/leadership) and its rule that a slow success does not lengthen trust.
"""

from __future__ import annotations

import atexit
import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

from agentflow.errors import AgentflowError, LockLost
from agentflow.locks.signals import Signal
from agentflow.locks.waiting import Grant, margin

if TYPE_CHECKING:
    from agentflow.locks.engine import Database
    from agentflow.locks.jobs import Job

__all__ = ["Renewal", "TrustWindow"]

log = logging.getLogger("agentflow")

TRY_AGAIN_S: Final = (0.02, 0.5)
EXIT_S: Final = 1.0


class TrustWindow:
    """When to renew and until when to believe: arithmetic on instants that are handed in.

    Parameters
    ----------
    ttl_s : float
        What each renewal asks for.
    trusted_until : float
        The end of trust in the lease as it was granted.
    now : float
        The instant of the grant.

    Examples
    --------
    >>> window = TrustWindow(30.0, trusted_until=27.0, now=0.0)
    >>> window.renew_at
    10.0
    >>> window.renewed(sent=10.0, left_s=30.0)   # the reply may come at any time: only `sent` counts
    >>> window.trusted_until, window.renew_at
    (37.0, 20.0)
    """

    def __init__(self, ttl_s: float, *, trusted_until: float, now: float) -> None:
        self.ttl_s = ttl_s
        self.trusted_until = trusted_until
        self.renew_at = now + ttl_s / 3
        self._pause_s = TRY_AGAIN_S[0]

    def is_trusted(self, now: float) -> bool:
        """Whether the holder may go on."""
        return now < self.trusted_until

    def renewed(self, *, sent: float, left_s: float) -> None:
        """A renewal sent at `sent` succeeded and left `left_s` by the database's clock."""
        self.trusted_until = max(self.trusted_until, sent + min(left_s, self.ttl_s) - margin(self.ttl_s))
        self.renew_at = sent + self.ttl_s / 3
        self._pause_s = TRY_AGAIN_S[0]

    def failed(self, now: float, jitter: float) -> None:
        """A renewal brought no answer: try again soon, inside the window."""
        self.renew_at = now + self._pause_s * jitter
        self._pause_s = min(2 * self._pause_s, TRY_AGAIN_S[1], self.ttl_s / 6)

    def try_for_s(self, now: float) -> float:
        """How long one try may take: a part of the window, so that there is time for another."""
        return max(0.01, min(self.trusted_until - now, max(0.1, self.ttl_s / 4)))


class Renewal:
    """One lease kept alive from a daemon thread, until `stop` or loss.

    Parameters
    ----------
    database : Database
        For renewals only, so that no waiter stands before them.
    renew, release : callable
        Given a budget, submit the statement and return its job.
    grant : Grant
        What was given.
    ttl_s : float
        What each renewal asks for.
    clock : callable
        The clock of `grant.trusted_until`.
    """

    def __init__(
        self,
        database: Database,
        renew: Callable[[float], Job[float | None]],
        release: Callable[[], Job[bool]],
        grant: Grant,
        ttl_s: float,
        clock: Callable[[], float],
    ) -> None:
        self.info = grant.info
        self.lost = Signal()
        self.reason = ""
        self.released: Future[bool] = Future()
        self.on_end: Callable[[], None] | None = None
        self._listeners: list[Callable[[str], None]] = []
        self._database = database
        self._renew = renew
        self._release = release
        self._clock = clock
        self._window = TrustWindow(ttl_s, trusted_until=grant.trusted_until, now=clock())
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self.forsaken = False
        self._pid = os.getpid()
        self._thread = threading.Thread(
            target=self._run, name=f"agentflow-renew-{self.info.key}", daemon=True
        )

    def start(self) -> None:
        """Begin to renew."""
        self._database.retain()
        _alive.add(self)
        self._thread.start()

    def listen(self, listener: Callable[[str], None]) -> None:
        """Call `listener(reason)` once when the lease is lost; at once if it is already."""
        with self._guard:
            if not self.lost.is_set():
                self._listeners.append(listener)
                return
        listener(self.reason)

    def ensure_held(self) -> None:
        """Raise `LockLost` unless the lease may be believed at this instant."""
        key, token = self.info.key, self.info.token
        if self._pid != os.getpid():
            raise LockLost(
                f"{key!r} belongs to the process that acquired it, not to its fork; acquire it here",
                key=key,
                token=token,
                reason="forked",
            )
        if not self.lost.is_set():
            if self._stop.is_set() and not self.forsaken:
                raise LockLost(
                    f"{key!r} (token {token}) was released; acquire it again",
                    key=key,
                    token=token,
                    reason="released",
                )
            if self._window.is_trusted(self._clock()):
                return
            self._lose("no renewal succeeded in time")
        raise self.loss()

    def loss(self) -> LockLost:
        """The error of a lost lease."""
        return LockLost(
            f"{self.info.key!r} (token {self.info.token}) was lost: {self.reason}; "
            "stop what it protected, then acquire it again",
            key=self.info.key,
            token=self.info.token,
            reason=self.reason,
        )

    def remaining(self) -> float:
        """Seconds for which the lease may be believed without another renewal."""
        over = self._stop.is_set() and not self.forsaken
        if self.lost.is_set() or over or self._pid != os.getpid():
            return 0.0
        return max(0.0, self._window.trusted_until - self._clock())

    def stop(self) -> Future[bool]:
        """End renewing, then release; the future says whether the row was still ours."""
        if self._pid != os.getpid():
            gone: Future[bool] = Future()
            gone.set_result(False)
            return gone
        self._stop.set()
        return self.released

    def forsake(self) -> None:
        """End renewing and release nothing, as if this process had died: the lease runs out by itself."""
        self.forsaken = True
        self._stop.set()

    def join(self, limit_s: float | None = None) -> None:
        """Block until the thread has ended."""
        if self._pid == os.getpid() and self._thread is not threading.current_thread():
            self._thread.join(limit_s)

    # --- the thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self.lost.is_set() and not self._stop.is_set():
                self._turn()
            self._stop.wait()
            if not self.forsaken:
                self._give_back()
        finally:
            _alive.discard(self)
            self._database.drop()
            if not self.released.done():
                self.released.set_result(False)

    def _turn(self) -> None:
        now = self._clock()
        if not self._window.is_trusted(now):
            self._lose("no renewal succeeded in time")
            return
        wait_s = min(self._window.renew_at, self._window.trusted_until) - now
        if wait_s > 0:
            self._stop.wait(wait_s)
            return
        try:
            sent = self._clock()
            job = self._renew(self._window.try_for_s(sent))
            left_s = job.wait(self._window.trusted_until - sent)
        except AgentflowError as error:
            self._window.failed(self._clock(), random.uniform(0.5, 1.5))
            log.warning(
                "lock %r could not be renewed: %s", self.info.key, error, extra={"key": self.info.key}
            )
            return
        if left_s is None:
            self._lose("the database says it expired or was taken away")
        else:
            self._window.renewed(sent=sent, left_s=left_s)

    def _lose(self, reason: str) -> None:
        with self._guard:
            if self.lost.is_set():
                return
            self.reason = reason
            self.lost.set()
            listeners, self._listeners = self._listeners, []
        log.warning(
            "lock %r (token %d) was lost: %s",
            self.info.key,
            self.info.token,
            reason,
            extra={"key": self.info.key, "token": self.info.token, "reason": reason},
        )
        for listener in listeners:
            try:
                listener(reason)
            except Exception:
                log.exception("a listener for the loss of lock %r raised", self.info.key)

    def _give_back(self) -> None:
        # Also after a loss: if it was only believed lost, others need not wait for the lease to run out.
        try:
            mine = self._release().wait()
        except AgentflowError as error:
            self.released.set_exception(error)
        else:
            self.released.set_result(mine)
        if self.on_end is not None:
            self.on_end()


def _stop_all() -> None:
    ends = time.monotonic() + EXIT_S
    running = list(_alive)
    for renewal in running:
        renewal.stop()
    for renewal in running:
        renewal.join(max(0.0, ends - time.monotonic()))


_alive: weakref.WeakSet[Renewal] = weakref.WeakSet()
atexit.register(_stop_all)
