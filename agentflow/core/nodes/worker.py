"""A worker: takes orders from the leader, runs them, and reports until it is heard.

Law: an attempt starts once. Orders may come twice (a leader that does not know whether the first arrived
sends again); what is running, finished or already acknowledged is not started again.

Law: orders are for one of its lives. What comes late for an earlier one is not carried out in this.

Law: a worker obeys its masters alone, of them the highest term it has seen, and no lower one.
"""

from __future__ import annotations

import math
from collections import deque

import msgspec

from agentflow.core.control.commands import Completion, ErrorReport, RegisterWorker, Report, Settlement
from agentflow.core.machine import (
    Abandon,
    Effect,
    Event,
    Execute,
    Finished,
    Note,
    Received,
    Send,
    Stalled,
    Woken,
)
from agentflow.core.nodes.messages import Enrol, Greet, Order, Orders, Pulse, Redirect, Stranger, sendable
from agentflow.errors import LockHeld
from agentflow.ids import AttemptId, NodeId

REMEMBERED = 4096
"""Acknowledged attempts kept, so that an order that was delayed on the way is not carried out again."""


class Worker:
    """The worker's machine.

    Parameters
    ----------
    registration : RegisterWorker
        What it offers. Its epoch must grow from life to life.
    masters : tuple of str
        Whom to enrol with.
    heartbeat : float
        Seconds between two heartbeats.
    now : float
        The instant it comes to life.
    """

    def __init__(
        self, registration: RegisterWorker, masters: tuple[NodeId, ...], heartbeat: float, now: float
    ) -> None:
        self.id = registration.worker
        self.registration = registration
        self.masters = masters
        self.heartbeat = heartbeat
        self.term = 0
        self.leader: NodeId | None = None
        self.running: dict[AttemptId, Order] = {}
        self.finished: dict[AttemptId, Completion] = {}
        self._unreported: list[Completion] = []
        self._settled: dict[AttemptId, None] = {}
        self._settled_order: deque[AttemptId] = deque()
        self._next_master = 0
        self._heard_at = now
        self._beat_at = now
        self._effects: list[Effect] = []

    @property
    def deadline(self) -> float:
        """The next heartbeat, or the next try to enrol."""
        return self._beat_at

    @property
    def epoch(self) -> int:
        """Which of its lives this is."""
        return self.registration.epoch

    def handle(self, event: Event, now: float) -> None:
        """Take one event."""
        if isinstance(event, Finished):
            self._finish(event, now)
        elif isinstance(event, Received):
            self._receive(event, now)
        elif isinstance(event, Woken):
            if now >= self._beat_at:
                self._beat(now)
        elif isinstance(event, Stalled):
            self._heard_at += event.seconds

    def ready(self) -> list[Effect]:
        """Hand out what must be done; completions of one turn leave as one report."""
        if self._unreported and self.leader is not None:
            self._effects.append(Send(self.leader, self._report(tuple(self._unreported))))
            self._unreported.clear()
        effects, self._effects = self._effects, []
        return effects

    # --- orders -------------------------------------------------------------------------------------------

    def _receive(self, event: Received, now: float) -> None:
        message = event.message
        if event.source not in self.masters:
            self._effects.append(Note("forged", (event.source, type(message).__name__)))
            return
        if isinstance(message, Orders | Greet | Stranger):
            if message.term < self.term:
                self._effects.append(Note("stale-term", (event.source, message.term, self.term)))
                return
            if message.term == self.term and self.leader not in (None, event.source):
                # A term has one leader: whoever else speaks in its name is not to be believed.
                self._effects.append(Note("forged", (event.source, type(message).__name__)))
                return
            self._heard_at = now
            if message.term > self.term or self.leader != event.source:
                self.term, self.leader = message.term, event.source
                self._unreported = list(self.finished.values())
        if isinstance(message, Orders):
            if message.epoch == self.epoch:
                self._obey(message)
            else:
                self._effects.append(Note("stale-epoch", (message.epoch, self.epoch)))
        elif isinstance(message, Greet):
            self._beat(now)
        elif isinstance(message, Stranger):
            self._start_over(message, now)
        elif isinstance(message, Redirect) and self.leader is None and message.leader in self.masters:
            self._effects.append(Send(message.leader, Enrol(self.registration)))

    def _obey(self, orders: Orders) -> None:
        for attempt in orders.acknowledge:
            if self.finished.pop(attempt, None) is not None:
                self._remember(attempt)
        for attempt in orders.stop:
            if self.running.pop(attempt, None) is not None:
                self._effects.append(Abandon(attempt))
                self._remember(attempt)
            elif self.finished.pop(attempt, None) is not None:
                self._remember(attempt)
        for order in orders.start:
            attempt = order.attempt
            if attempt in self.running or attempt in self.finished or attempt in self._settled:
                continue
            self.running[attempt] = order
            self._effects.append(Execute(attempt, order))

    def _remember(self, attempt: AttemptId) -> None:
        self._settled[attempt] = None
        self._settled_order.append(attempt)
        if len(self._settled_order) > REMEMBERED:
            del self._settled[self._settled_order.popleft()]

    def _finish(self, event: Finished, now: float) -> None:
        if self.running.pop(event.attempt, None) is None:
            self._effects.append(Note("unwanted", event.attempt))
            return
        completion = event.outcome if isinstance(event.outcome, Completion) else never_ran(event, now)
        self.finished[event.attempt] = completion
        self._unreported.append(completion)

    def _report(self, completions: tuple[Completion, ...]) -> Report:
        return Report(self.id, self.epoch, completions)

    # --- being known --------------------------------------------------------------------------------------

    def _beat(self, now: float) -> None:
        self._beat_at = now + self.heartbeat
        if self.leader is not None and now - self._heard_at > 8 * self.heartbeat:
            # Nobody answered for long: whoever leads now may not know this worker at all.
            self.leader = None
        if self.leader is None:
            target = self.masters[self._next_master % len(self.masters)]
            self._next_master += 1
            self._effects.append(Send(target, Enrol(self.registration)))
            return
        attempts = (*self.running, *self.finished)
        self._effects.append(Send(self.leader, Pulse(self.epoch, attempts)))
        # A report may have been lost on the way; until it is acknowledged it goes out with every beat.
        reported = [c for c in self.finished.values() if c not in self._unreported]
        if reported:
            self._effects.append(Send(self.leader, self._report(tuple(reported))))

    def _start_over(self, message: Stranger, now: float) -> None:
        """Begin a new life: what the old one ran has been given to others."""
        if message.epoch != self.epoch:
            return
        for attempt in self.running:
            self._effects.append(Abandon(attempt))
            self._remember(attempt)
        for attempt in self.finished:
            self._remember(attempt)
        self.running.clear()
        self.finished.clear()
        self._unreported.clear()
        self.registration = msgspec.structs.replace(self.registration, epoch=self.epoch + 1)
        self._beat_at = now + self.heartbeat
        assert self.leader is not None
        self._effects.append(Send(self.leader, Enrol(self.registration)))

    def check_invariants(self) -> None:
        """Assert what must hold between any two events."""
        assert not self.running.keys() & self.finished.keys(), "an attempt runs or has finished, not both"
        assert len(self._settled) <= REMEMBERED
        assert math.isfinite(self._beat_at)


def never_ran(event: Finished, now: float) -> Completion:
    """What to report of an attempt that did not begin: a lock it wants is another's, or the executor refused it."""
    error = event.outcome
    if isinstance(error, LockHeld):
        report = ErrorReport(type(error).__name__, sendable(str(error)))
        return Completion(event.attempt, Settlement.DECLINED, now, now, error=report)
    report = ErrorReport(type(error).__name__, sendable(f"the attempt could not be started: {error}"))
    return Completion(event.attempt, Settlement.FAILED, now, now, error=report)
