"""A turn of the host: events are handled, then effects are performed.

Law: an effect is performed in its turn, in its order, by the incarnation that asked for it, or not at
all; and what a machine says after a write leaves only when that write is durable.
"""

from __future__ import annotations

import functools
import logging
import traceback
from collections import deque
from collections.abc import Iterable
from typing import Any

import msgspec

from agentflow.core.machine import (
    Abandon,
    Answer,
    Effect,
    Event,
    Execute,
    Finished,
    Local,
    Machine,
    Note,
    Persist,
    Persisted,
    PersistFailed,
    Received,
    Send,
    Stalled,
    Unreachable,
    Woken,
)
from agentflow.core.record import Record
from agentflow.errors import Refused
from agentflow.ids import AttemptId, NodeId
from agentflow.runtime.ports import Driver, Launcher, NoDriver
from agentflow.runtime.seats import Alarms, Questions, Seat, down, no_such_node
from agentflow.runtime.trace import Trace
from agentflow.transport.base import Codec, Wires

__all__ = ["Turns"]

_log = logging.getLogger("agentflow")
_RESTLESS = 10_000
"""Wake-ups at one instant after which a node is taken for broken: it would stop time."""


class Turns:
    """The half of a `Host` that performs effects; the other half is what people and drivers call."""

    def __init__(
        self,
        *,
        trace: Trace,
        network: Wires,
        launcher: Launcher | None = None,
        codec: Codec | None = None,
        strict: bool = False,
    ) -> None:
        self.trace = trace
        self.network = network
        self.launcher = launcher
        self.codec = codec
        self.strict = strict
        self.driver: Driver = NoDriver()
        self.queue: deque[Any] = deque()
        self._seats: dict[NodeId, Seat] = {}
        self._fresh: list[tuple[Seat, int]] = []
        self._alarms = Alarms()
        self._questions = Questions()
        self._order = 0
        self._message = 0
        self._wires_version = network.version
        self.first_wires = network.describe()
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether a turn would do anything."""
        return bool(self.queue or self._fresh)

    def note_wires(self) -> None:
        """Record what the wires are like, for whoever changed them between two turns.

        A turn does so too; but then the trace tells the instant of the next event, not that of the change.
        """
        self._note_wires(self.driver.now)

    def _note_wires(self, now: float) -> None:
        if self._wires_version != self.network.version:
            self._wires_version = self.network.version
            self.trace.append(now, "", "fault", type="network", payload=self.network.describe())

    def turn(self, now: float) -> bool:
        """Handle the events queued at this moment, then perform what the nodes touched want done.

        Parameters
        ----------
        now : float
            The host's time.

        Returns
        -------
        bool
            Whether more is queued: the next wave, for the next turn.
        """
        queue = self.queue
        network = self.network
        if self._wires_version != network.version:
            self._note_wires(now)
        touched: dict[Seat, int] = {}
        if self._fresh:
            touched.update(self._fresh)
            self._fresh.clear()
        for _ in range(len(queue)):
            item = queue.popleft()
            # The next lines run once a message: they are flat on purpose.
            if item.__class__ is Record:
                to = item.destination
                seat = self._seats.get(to)
                if seat is None or seat.machine is None:
                    self._bounce(item, now, "no such node" if seat is None else "down")
                    continue
                if seat.paused:
                    seat.inbox.append(item)
                    continue
                source, message = item.source, item.payload
                if network.severed and (reason := network.blocked(source, to)):
                    self._drop(item, now, reason)
                    continue
                number, name, seen = item.message, item.type, item.lamport
                record = self.trace.append(
                    now, to, "deliver", item.seq, number, source, to, name, message, seen
                )
                cause = record.seq
                if self.codec is not None:
                    message = self.codec.decode(self.codec.encode(message))
                event: Event = Received(source, message)
            else:
                accepted = self._accept(item, now)
                if accepted is None:
                    continue
                seat, event, cause = accepted
            try:
                seat.machine.handle(event, seat.local(now) if seat.skewed else now)  # type: ignore[union-attr]
            except Exception as error:
                self._failed(seat, error, cause)
            else:
                touched[seat] = cause
        for seat, cause in touched.items():
            machine = seat.machine
            if machine is None or seat.paused:
                continue
            try:
                effects = machine.ready()
                deadline = machine.deadline
            except Exception as error:
                self._failed(seat, error, cause)
                continue
            seat.deadline = deadline = seat.when(deadline) if seat.skewed else deadline
            if deadline < seat.alarm:
                self._alarms.set(seat)
            if effects:
                self._perform(seat, machine, effects, cause, now)
        return bool(queue or self._fresh)

    def _accept(self, item: tuple[NodeId, int, Event, int], now: float) -> tuple[Seat, Event, int] | None:
        """Record an event that is not a message and say whose it is; None if it goes no further."""
        node_id, incarnation, event, cause = item
        seat = self._seats.get(node_id)
        if seat is None or seat.machine is None or incarnation not in (-1, seat.incarnation):
            if seat is not None and seat.starting and incarnation in (-1, seat.incarnation):
                seat.inbox.append(item)
            elif isinstance(event, Local):
                self._answer(
                    event.token, no_such_node(node_id, self._seats) if seat is None else down(node_id)
                )
            elif not isinstance(event, Woken):
                name = type(event).__name__
                self.trace.append(now, "", "drop", cause, -1, "", node_id, name, "stale")
            return None
        if seat.paused:
            seat.inbox.append(item)
            return None
        kind, word, payload = _describe(event)
        cause = self.trace.append(now, node_id, kind, cause, type=word, payload=payload).seq
        if isinstance(event, Persisted):
            seat.durable = max(seat.durable, event.id)
            while seat.held and seat.held[0][0].after <= seat.durable:  # type: ignore[operator]
                self._send(seat, seat.held.popleft()[0], cause, now)
        elif isinstance(event, PersistFailed):
            seat.held = deque(entry for entry in seat.held if entry[0].after != event.id)
        elif isinstance(event, Finished):
            seat.running.pop(event.attempt, None)
        elif isinstance(event, Woken):
            seat.woken(now)
            if seat.wakes > _RESTLESS:
                fact = f"{node_id} was woken {_RESTLESS:,} times at t={now:.6f} s and still wants more"
                self._failed(seat, RuntimeError(fact), cause)
                return None
        return seat, event, cause

    def _perform(
        self, seat: Seat, machine: Machine, effects: Iterable[Effect], cause: int, now: float
    ) -> None:
        append = self.trace.append
        for effect in effects:
            if isinstance(effect, Send):
                after = effect.after
                if after is None or after <= seat.durable:
                    self._send(seat, effect, cause, now)
                else:
                    seat.held.append((effect, cause))
                continue
            if isinstance(effect, Note):
                append(now, seat.id, effect.kind, cause, payload=effect.payload)
                if effect.kind == "error":
                    # The last word of a machine that knows it cannot go on.
                    self._stop(seat, "crash", "error")
            elif isinstance(effect, Persist):
                self._persist(seat, effect, cause, now)
            elif isinstance(effect, Answer):
                append(now, seat.id, "answer", cause, type=str(effect.token), payload=_shown(effect.result))
                self._answer(effect.token, effect.result, effect.final)
            elif isinstance(effect, Execute):
                self._execute(seat, effect, cause, now)
            elif isinstance(effect, Abandon):
                append(now, seat.id, "abandon", cause, type=str(effect.attempt))
                if effect.attempt in seat.running and self.launcher is not None:
                    del seat.running[effect.attempt]
                    self.launcher.abandon(seat.id, seat.incarnation, effect.attempt)
            else:
                self._failed(seat, TypeError(f"{seat.id} asked for {effect!r}, which is no effect"), cause)
            if seat.machine is not machine:
                return  # a callback or a failure took the node down: the rest was never done

    def _send(self, seat: Seat, effect: Send, cause: int, now: float) -> None:
        source, to, message = seat.id, effect.to, effect.message
        number = self._message
        self._message = number + 1
        sent = self.trace.append(now, source, "send", cause, number, source, to, _name(message), message)
        delays, reason = self.network.plan(source, to, now, self.driver.rng)
        if not delays:
            self._drop(sent, now, reason)
        elif len(delays) > 1:
            sent = msgspec.structs.replace(sent, kind="echo")  # one lost copy says nothing of the others
        for delay in delays:
            self.driver.carry(sent, delay)

    def _drop(self, sent: Record, now: float, reason: str) -> int:
        source, to, name, seen = sent.source, sent.destination, sent.type, sent.lamport
        return self.trace.append(now, "", "drop", sent.seq, sent.message, source, to, name, reason, seen).seq

    def _bounce(self, sent: Record, now: float, reason: str) -> None:
        """Drop a message that nobody listens for, and tell its sender, as a refused connection does."""
        cause = self._drop(sent, now, reason)
        source, to = sent.source, sent.destination
        heard = not (self.network.blocked(source, to) or self.network.blocked(to, source))
        if heard and sent.kind == "send" and source in self._seats:
            self.queue.append((source, -1, Unreachable(to, sent.payload), cause))

    def _persist(self, seat: Seat, effect: Persist, cause: int, now: float) -> None:
        self.trace.append(now, seat.id, "persist", cause, type=str(effect.id), payload=effect.write)
        if seat.disk is None:
            self._failed(seat, Refused(f"{seat.id} persists but has no disk; add it with disk="), cause)
        else:
            self.driver.save(seat.id, seat.incarnation, effect.id, seat.disk, effect.write)

    def _execute(self, seat: Seat, effect: Execute, cause: int, now: float) -> None:
        attempt = effect.attempt
        self.trace.append(now, seat.id, "execute", cause, type=str(attempt))
        if self.launcher is None:
            self._failed(
                seat, Refused(f"{seat.id} executes but the host has no launcher; give it one"), cause
            )
            return
        seat.running[attempt] = None
        # Bound to data, not to variables, so that a copied host's work reports to the copy.
        done = functools.partial(self.finished, seat.id, seat.incarnation, attempt)
        try:
            self.launcher.launch(seat.id, seat.incarnation, attempt, effect.work, done)
        except Exception as error:
            _log.exception("%s could not start attempt %s", seat.id, attempt, extra={"node": seat.id})
            done(error)  # an executor that takes no more is a failed attempt, not a failed node

    def finished(self, node_id: NodeId, incarnation: int, attempt: AttemptId, outcome: Any) -> None:
        """Report that work ended."""
        self.queue.append((node_id, incarnation, Finished(attempt, outcome), -1))
        self.driver.wake()

    # --- ends and answers -----------------------------------------------------------------------------

    def _touch(self, seat: Seat, cause: int) -> None:
        self._fresh.append((seat, cause))
        self.driver.wake()

    def _stop(self, seat: Seat, kind: str, reason: str = "") -> None:
        """End the incarnation: nothing of it may have an effect any more."""
        machine, seat.machine = seat.machine, None
        if machine is None and not seat.starting and kind != "remove":
            return
        now = self.driver.now
        seat.starting, seat.paused = "", False
        cause = self.trace.append(now, seat.id, kind, type=reason).seq
        on_crash = getattr(machine, "on_crash", None)
        if on_crash is not None:
            try:
                on_crash()
            except Exception as error:
                self.trace.append(now, seat.id, "error", cause, payload=_report(error))
        waiting, running = seat.inbox, seat.running
        seat.clear()
        for item in waiting:
            if item.__class__ is Record:
                self._drop(item, now, "down")
        if self.launcher is not None:
            for attempt in running:
                self.launcher.abandon(seat.id, seat.incarnation, attempt)
        self._answer_all(seat.id)

    def _failed(self, seat: Seat, error: Exception, cause: int) -> None:
        """A machine raised: record it, crash that node and no other."""
        report = _report(error)
        self.trace.append(self.driver.now, seat.id, "error", cause, payload=report)
        self._stop(seat, "crash", "error")
        if self.strict:
            raise error
        _log.error("%s crashed: %s", seat.id, report["error"], exc_info=error, extra={"node": seat.id})

    def _answer(self, token: int, result: Any, final: bool = True) -> None:
        try:
            self._questions.answer(token, result, final)
        except Exception:
            if self.strict:
                raise
            _log.exception("the callback of request %s raised", token)

    def _answer_all(self, node_id: NodeId | None) -> None:
        for token, error in self._questions.end(node_id):
            self._answer(token, error)


def _describe(event: Event) -> tuple[str, str, Any]:
    """Return the kind, finer word and payload under which an event is recorded."""
    match event:
        case Persisted(id=number):
            return "persisted", str(number), None
        case Woken():
            return "timer", "", None
        case Finished(attempt=attempt):
            return "finish", str(attempt), None
        case Local(token=token, request=request):
            return "ask", str(token), request
        case Unreachable(peer=peer, message=message):
            return "unreachable", _name(message), peer
        case PersistFailed(id=number, reason=reason):
            return "persist_failed", str(number), reason
        case Stalled(seconds=seconds):
            return "stalled", "", seconds
        case Received(source=source, message=message):
            return "deliver", _name(message), source


def _name(message: Any) -> str:
    """Return the word for a message's type in the trace."""
    name = message.get("type") if message.__class__ is dict else getattr(message, "type", None)
    return name if isinstance(name, str) else message.__class__.__name__


def _report(error: Exception) -> dict[str, str]:
    """Return the words of an exception, without the frames it holds on to."""
    text = "".join(traceback.format_exception(error))
    return {"error": f"{type(error).__name__}: {error}", "traceback": text}


def _shown(result: Any) -> Any:
    """Keep an exception's words in the trace, not the frames it holds on to."""
    return f"{type(result).__name__}: {result}" if isinstance(result, BaseException) else result
