"""A client: finds the leader, numbers its commands, and asks again until it knows.

Law: a command keeps its number however often it is sent, so it takes effect once. Its answer is one of
three: the result; `Refused`, when every master that was asked said it did nothing; `Unknown`, when one
may have.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from agentflow import errors
from agentflow.core.control.commands import ClientCommand
from agentflow.core.control.wording import said, way_out
from agentflow.core.machine import (
    Answer,
    Effect,
    Event,
    Local,
    Note,
    Received,
    Send,
    Stalled,
    Unreachable,
    Woken,
)
from agentflow.core.nodes.messages import (
    Ask,
    Follow,
    Gone,
    Greet,
    Progress,
    Redirect,
    Tell,
    Unfollow,
    Unsure,
)
from agentflow.ids import NodeId, RunId


class Command(msgspec.Struct, frozen=True):
    """A user's request: have this command take effect within `timeout` seconds."""

    command: ClientCommand
    timeout: float


class Watch(msgspec.Struct, frozen=True):
    """A user's request: answer with every `Progress` of this run from the `have`-th change on, until it is done."""

    run: RunId
    known: int
    have: int = 0


class _Pending(msgspec.Struct):
    token: int
    command: ClientCommand
    deadline: float
    timeout: float
    retry_at: float
    target: NodeId
    in_doubt: bool = False
    """Whether some master may have appended it."""
    outstanding: bool = True
    """Whether the last sending has not been answered."""


class _Watching(msgspec.Struct):
    token: int
    have: int
    known: int
    retry_at: float


class Client:
    """The client's machine.

    Parameters
    ----------
    client_id : str
        Its name; commands are numbered per name.
    masters : tuple of str
        Whom to ask.
    retry : float
        Seconds without an answer after which the next master is asked.
    first : int
        Number of the first command: above every number that an earlier life of this name used.
    """

    def __init__(self, client_id: NodeId, masters: tuple[NodeId, ...], retry: float, first: int = 1) -> None:
        self.id = client_id
        self.masters = masters
        self.retry = retry
        self.leader: NodeId = masters[0]
        self._term = 0
        self._number = first
        self._pending: dict[int, _Pending] = {}
        self._watching: dict[RunId, _Watching] = {}
        self._effects: list[Effect] = []

    @property
    def deadline(self) -> float:
        """When a command is to be sent again or given up, or a run asked after again."""
        due = math.inf
        for pending in self._pending.values():
            due = min(due, pending.retry_at, pending.deadline)
        for watching in self._watching.values():
            due = min(due, watching.retry_at)
        return due

    def handle(self, event: Event, now: float) -> None:
        """Take one event."""
        if isinstance(event, Received):
            self._receive(event.source, event.message, now)
        elif isinstance(event, Local):
            self._local(event, now)
        elif isinstance(event, Woken):
            self._wake(now)
        elif isinstance(event, Unreachable):
            self._bounced(event, now)
        elif isinstance(event, Stalled):
            for pending in self._pending.values():
                pending.retry_at += event.seconds
                pending.deadline += event.seconds

    def ready(self) -> list[Effect]:
        """Hand out what must be done."""
        effects, self._effects = self._effects, []
        return effects

    # --- requests -----------------------------------------------------------------------------------------

    def _local(self, event: Local, now: float) -> None:
        request = event.request
        if isinstance(request, Watch):
            self._watching[request.run] = watching = _Watching(
                event.token, request.have, request.known, now + 2 * self.retry
            )
            self._follow(request.run, watching)
        elif isinstance(request, Unfollow):
            self._watching.pop(request.run, None)
            self._effects.append(Send(self.leader, request))
            self._effects.append(Answer(event.token, None))
        else:
            assert isinstance(request, Command)
            number = self._number
            self._number += 1
            self._pending[number] = pending = _Pending(
                event.token, request.command, now + request.timeout, request.timeout, now, self.leader
            )
            self._send(number, pending, now)

    def _send(self, number: int, pending: _Pending, now: float) -> None:
        pending.target = self.leader
        pending.outstanding = True
        pending.retry_at = now + self.retry
        floor = min(self._pending)
        self._effects.append(Send(self.leader, Ask(number, floor, pending.command)))

    def _follow(self, run: RunId, watching: _Watching) -> None:
        self._effects.append(Send(self.leader, Follow(run, watching.have, watching.known)))

    # --- answers ------------------------------------------------------------------------------------------

    def _receive(self, source: NodeId, message: Any, now: float) -> None:
        if source not in self.masters:
            self._effects.append(Note("forged", (source, type(message).__name__)))
        elif isinstance(message, Progress):
            self._progress(message)
        elif isinstance(message, Tell):
            self._resolve(message)
        elif isinstance(message, Redirect):
            self._redirected(source, message, now)
        elif isinstance(message, Greet):
            self._greeted(source, message, now)
        elif isinstance(message, Unsure):
            pending = self._pending.get(message.number)
            if pending is not None:
                pending.in_doubt = True
                pending.outstanding = False
                self._move_on(source)
                pending.retry_at = now + self.retry / 4
        elif isinstance(message, Gone):
            watching = self._watching.pop(message.run, None)
            if watching is not None:
                error = errors.NoSuchTask(
                    f"there is no run {message.run!r}; it was released or never submitted"
                )
                self._effects.append(Answer(watching.token, error))

    def _greeted(self, source: NodeId, message: Greet, now: float) -> None:
        """A new leader introduces itself: ask it about everything that is open."""
        if message.term < self._term:
            return
        self._term, self.leader = message.term, source
        for run, watching in self._watching.items():
            watching.retry_at = now + 2 * self.retry
            self._follow(run, watching)
        for number, pending in self._pending.items():
            if pending.target != source:
                pending.in_doubt = pending.in_doubt or pending.outstanding
                self._send(number, pending, now)

    def _redirected(self, source: NodeId, message: Redirect, now: float) -> None:
        if message.leader is not None and message.leader != source:
            self.leader = message.leader
        elif self.leader == source:
            self._move_on(source)
        pending = self._pending.get(message.number)
        if pending is not None:
            pending.outstanding = pending.outstanding and pending.target != source
            if message.leader is not None and message.leader != source:
                self._send(message.number, pending, now)
            else:
                # No leader yet: an election takes a moment, and asking in a tight loop would not help it.
                pending.retry_at = now + self.retry / 4

    def _bounced(self, event: Unreachable, now: float) -> None:
        """Take the transport's word that nobody listens there: that sending did nothing."""
        if self.leader == event.peer:
            self._move_on(event.peer)
        if isinstance(event.message, Ask):
            pending = self._pending.get(event.message.number)
            if pending is not None and pending.target == event.peer:
                pending.outstanding = False
                pending.retry_at = now + self.retry / 4
        elif isinstance(event.message, Follow) and event.message.run in self._watching:
            self._watching[event.message.run].retry_at = now + self.retry / 4

    def _resolve(self, message: Tell) -> None:
        pending = self._pending.pop(message.number, None)
        if pending is None:
            return
        result, denied = message.result, message.denied
        if denied is not None:
            result = getattr(errors, denied.error, errors.Refused)(denied.message, **denied.facts)
        self._effects.append(Answer(pending.token, result))

    def _progress(self, message: Progress) -> None:
        watching = self._watching.get(message.run)
        if watching is None or message.start > watching.have or message.known > watching.known:
            return
        skip = watching.have - message.start
        if skip > len(message.tasks):
            return
        if skip or message.known < watching.known:
            message = msgspec.structs.replace(
                message,
                start=watching.have,
                tasks=message.tasks[skip:],
                states=message.states[skip:],
                values=message.values[skip:],
                known=watching.known,
                added=message.added[watching.known - message.known :],
            )
        watching.have += len(message.tasks)
        watching.known += len(message.added)
        if message.done:
            del self._watching[message.run]
        if message.tasks or message.added or message.done:
            self._effects.append(Answer(watching.token, message, final=message.done))

    # --- time ---------------------------------------------------------------------------------------------

    def _move_on(self, source: NodeId) -> None:
        """Ask the next master; the order is everyone's own, so that not all ask the same one."""
        if self.leader == source:
            at = self.masters.index(source) if source in self.masters else 0
            self.leader = self.masters[(at + 1) % len(self.masters)]

    def _wake(self, now: float) -> None:
        for number, pending in list(self._pending.items()):
            if now >= pending.deadline:
                self._give_up(number, pending)
            elif now >= pending.retry_at:
                if pending.outstanding:
                    pending.in_doubt = True
                    self._move_on(pending.target)
                self._send(number, pending, now)
        for run, watching in self._watching.items():
            if now >= watching.retry_at:
                watching.retry_at = now + 2 * self.retry
                self._follow(run, watching)

    def _give_up(self, number: int, pending: _Pending) -> None:
        del self._pending[number]
        what = said(pending.command)
        error: errors.AgentflowError
        if pending.in_doubt or pending.outstanding:
            error = errors.TimedOut(
                f"{what}: no answer within {pending.timeout:g} s. {way_out(pending.command)}",
            )
        else:
            error = errors.NoQuorum(
                f"{what}: for {pending.timeout:g} s no master led a majority, and none took the command. "
                "Restart masters or heal the network, then try again",
            )
        self._effects.append(Answer(pending.token, error))
