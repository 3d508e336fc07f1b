"""A class with callbacks, as one writes it in a notebook cell, made into a machine.

Law: a node touches the world only through the `ctx` it is handed, and only `self.stable` survives a
crash. Whatever it says after it changed `self.stable` leaves when the change is durable. So one class
runs alike in the simulator, under a model checker and on the live cluster.

::

    class Counter:
        def on_start(self, ctx): ...                 # the node's first life; later ones: on_recover(ctx)
        def on_message(self, msg, source, ctx): ...  # or on_ADD(self, msg, source, ctx), chosen by msg["type"]
        def on_timer(self, name, ctx): ...
        def on_local(self, msg, ctx): ...            # from the node's own user; ctx.reply(...) answers
        def on_crash(self): ...                      # too late to say anything

All are optional, except that what arrives must have a handler. None may block: effects are collected,
and performed when the handler has returned. An exception in a handler is recorded with its traceback
and crashes this node, no other.
"""

from __future__ import annotations

import copy
import math
import random
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from agentflow.core.machine import (
    Answer,
    Effect,
    Event,
    Local,
    Note,
    Persist,
    Persisted,
    PersistFailed,
    Received,
    Send,
    Stalled,
    Woken,
)
from agentflow.errors import InvalidConfig
from agentflow.ids import NodeId

__all__ = ["CallbackMachine", "Context", "callbacks"]

_RESERVED = frozenset({"start", "message", "timer", "local", "crash", "recover"})


class Context:
    """What a node may do, and all it may know of the world; handed to every callback.

    Attributes
    ----------
    id : str
        The node's own name.
    peers : tuple of str
        The names of all others.
    now : float
        The node's own clock, in seconds; it may be wrong.
    random : random.Random
        Chance, fixed by the seed of the run.
    request : int or None
        In `on_local`, what to hand to `reply(..., to=request)` later; else None.
    """

    def __init__(self, node_id: NodeId, peers: tuple[NodeId, ...], rng: random.Random, now: float) -> None:
        self.id = node_id
        self.peers = peers
        self.random = rng
        self.now = now
        self.request: int | None = None
        self._source: NodeId | None = None
        self._timers: dict[str, float] = {}
        self._effects: list[Effect] = []

    def send(self, to: NodeId, msg: Any) -> None:
        """Send a copy of `msg` to one node, oneself included; it may be lost."""
        self._effects.append(Send(to, plain_copy(msg)))

    def broadcast(self, msg: Any) -> None:
        """Send a copy of `msg` to every peer."""
        for peer in self.peers:
            self.send(peer, msg)

    def reply(self, msg: Any, to: int | None = None) -> None:
        """Answer whoever is asking: the sender of the message, or the node's user.

        Parameters
        ----------
        msg : Any
            The answer.
        to : int, optional
            The `ctx.request` of an earlier `on_local`, to answer that one now.
        """
        token = self.request if to is None else to
        if token is not None:
            self._effects.append(Answer(token, plain_copy(msg)))
        elif self._source is not None:
            self.send(self._source, msg)
        else:
            raise InvalidConfig(
                "nobody is asking here; keep ctx.request in on_local and reply(..., to=request)"
            )

    def set_timer(self, name: str, seconds: float) -> None:
        """Have `on_timer(name, ctx)` called in so many seconds, in place of the time set before."""
        if not 0 <= seconds < math.inf:
            raise InvalidConfig(f"timer {name!r} cannot ring in {seconds!r} seconds; give a number from 0 up")
        self._timers[name] = self.now + seconds

    def set_timer_once(self, name: str, seconds: float) -> None:
        """Set the timer unless it is set already."""
        if name not in self._timers:
            self.set_timer(name, seconds)

    def cancel_timer(self, name: str) -> None:
        """Have the timer not ring; nothing happens if it is not set."""
        self._timers.pop(name, None)

    def log(self, text: str, **facts: Any) -> None:
        """Put a line into the trace."""
        self._effects.append(Note("log", {"text": text, **plain_copy(facts)}))

    def decide(self, value: Any) -> None:
        """Put a decision into the trace, where judges look for it."""
        self._effects.append(Note("decide", plain_copy(value)))


class CallbackMachine:
    """The machine around a node with callbacks.

    Parameters
    ----------
    node : object
        The node.
    node_id : str
        Its name.
    peers : sequence of str
        The names of all nodes; its own among them does not matter.
    seed : int or str
        Fixes `ctx.random`.
    stored : dict or None
        What its disk kept of `stable`.
    incarnation : int
        Which of its lives this is, from 1.
    now : float
        The instant it comes to life.

    Examples
    --------
    >>> class Echo:
    ...     def on_PING(self, msg, source, ctx):
    ...         ctx.reply({"type": "PONG", "n": msg["n"]})
    >>> machine = CallbackMachine(Echo(), "a", ["a", "b"])
    >>> machine.handle(Received("b", {"type": "PING", "n": 1}), now=0.5)
    >>> machine.ready()
    [Send(to='b', message={'type': 'PONG', 'n': 1}, after=None)]
    """

    def __init__(
        self,
        node: Any,
        node_id: NodeId,
        peers: Sequence[NodeId] = (),
        *,
        seed: int | str = 0,
        stored: dict[str, Any] | None = None,
        incarnation: int = 1,
        now: float = 0.0,
    ) -> None:
        self.node = node
        others = tuple(peer for peer in peers if peer != node_id)
        self.ctx = Context(node_id, others, random.Random(f"{seed}/{node_id}/{incarnation}"), now)
        self.broken = False
        if stored:
            node.stable = copy.deepcopy(stored)
        elif not hasattr(node, "stable"):
            node.stable = {}
        self._kept = copy.deepcopy(stored or {})
        self._written = 0
        self._durable = 0
        self._unsaid: list[tuple[int, Answer]] = []
        self._answers: list[Effect] = []
        recover = getattr(node, "on_recover", None) if incarnation > 1 else None
        start = recover or getattr(node, "on_start", None)
        if start is not None:
            self._call(start)

    @property
    def deadline(self) -> float:
        """When the next timer rings."""
        return math.inf if self.broken else min(self.ctx._timers.values(), default=math.inf)

    def handle(self, event: Event, now: float) -> None:
        """Take one event and call whatever handles it."""
        ctx = self.ctx
        ctx.now = now
        if self.broken:
            return
        if isinstance(event, Received):
            ctx._source = event.source
            message = plain_copy(event.message)
            self._call(self._handler(message), message, event.source)
        elif isinstance(event, Woken):
            self._ring(now)
        elif isinstance(event, Local):
            ctx.request = event.token
            self._call(self._named("on_local", "a request of its user"), plain_copy(event.request))
        elif isinstance(event, Persisted):
            self._durable = max(self._durable, event.id)
            due = [answer for after, answer in self._unsaid if after <= self._durable]
            self._unsaid = [entry for entry in self._unsaid if entry[0] > self._durable]
            self._answers += due
        elif isinstance(event, PersistFailed):
            self._break(f"self.stable could not be kept: {event.reason}", "")
        elif isinstance(event, Stalled):
            ctx._timers = {name: at + event.seconds for name, at in ctx._timers.items()}
        ctx._source = ctx.request = None

    def ready(self) -> list[Effect]:
        """Hand out what the handlers did, held back behind what `stable` must keep first."""
        effects, self.ctx._effects = self.ctx._effects, []
        persist: list[Effect] = []
        stable = getattr(self.node, "stable", {})
        if not self.broken and stable != self._kept:
            self._kept = copy.deepcopy(stable)
            self._written += 1
            persist = [Persist(self._written, copy.deepcopy(stable))]
        out, self._answers = persist + self._answers, []
        if self._written == self._durable:
            return out + effects
        for effect in effects:
            if isinstance(effect, Send):
                out.append(Send(effect.to, effect.message, self._written))
            elif isinstance(effect, Answer):
                self._unsaid.append((self._written, effect))
            else:
                out.append(effect)
        return out

    def on_crash(self) -> None:
        """Let the node see its end; the host calls it."""
        hook = getattr(self.node, "on_crash", None)
        if hook is not None:
            hook()

    # --- calling --------------------------------------------------------------------------------------

    def _ring(self, now: float) -> None:
        timers = self.ctx._timers
        due = sorted((at, name) for name, at in timers.items() if at <= now)
        for at, name in due:
            # A timer that rang before it may have moved or cancelled this one.
            if timers.get(name) == at and not self.broken:
                del timers[name]
                self._call(self._named("on_timer", f"timer {name!r}"), name)

    def _handler(self, message: Any) -> Callable[..., Any]:
        kind = message.get("type") if isinstance(message, dict) else getattr(message, "type", None)
        if isinstance(kind, str) and kind not in _RESERVED:
            handler: Callable[..., Any] | None = getattr(self.node, f"on_{kind}", None)
            if handler is not None:
                return handler
        return self._named("on_message", f"a message of type {kind!r}")

    def _named(self, name: str, what: str) -> Callable[..., Any]:
        handler: Callable[..., Any] | None = getattr(self.node, name, None)
        if handler is not None:
            return handler

        def missing(*_: Any) -> None:
            raise NotImplementedError(
                f"{type(self.node).__name__} got {what} and has no handler for it; define {name}"
            )

        return missing

    def _call(self, handler: Callable[..., Any], *args: Any) -> None:
        try:
            handler(*args, self.ctx)
        except (Exception, SystemExit) as error:
            self._break(f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))

    def _break(self, error: str, report: str) -> None:
        """Say a last word; the host takes the node down for it."""
        self.broken = True
        self.ctx._effects.append(Note("error", {"error": error, "traceback": report}))


def callbacks(
    make: Callable[[], Any], peers: Sequence[NodeId], seed: int | str = 0
) -> Callable[[NodeId, Any, int, float], CallbackMachine]:
    """Return a factory for the host that gives every life of a node a new object.

    Parameters
    ----------
    make : callable
        Makes the node: its class, or a function without arguments.
    peers : sequence of str
        The names of all nodes.
    seed : int or str
        Fixes the nodes' chance.

    Examples
    --------
    >>> factory = callbacks(dict, ["a", "b"])
    >>> factory("a", None, 1, 0.0).ctx.peers
    Traceback (most recent call last):
    ...
    agentflow.errors.InvalidConfig: a dict cannot be a node; ...
    """

    def factory(node_id: NodeId, stored: Any, incarnation: int, now: float) -> CallbackMachine:
        node = make()
        if not hasattr(node, "__dict__"):
            raise InvalidConfig(f"a {type(node).__name__} cannot be a node; give a class with callbacks")
        return CallbackMachine(
            node, node_id, peers, seed=seed, stored=stored, incarnation=incarnation, now=now
        )

    return factory


def plain_copy(value: Any) -> Any:
    """Copy a message, so that sender and receiver share nothing.

    Raises
    ------
    InvalidConfig
        If a set is in it: its order differs from process to process, and with it the run.

    Examples
    --------
    >>> plain_copy({"votes": ["a"]})
    {'votes': ['a']}
    >>> plain_copy({"votes": {"a"}})
    Traceback (most recent call last):
    ...
    agentflow.errors.InvalidConfig: a set has no order that would be the same in every run; ...
    """
    kind = value.__class__
    if value is None or kind in (str, int, float, bool, bytes):
        return value
    if kind is dict:
        return {plain_copy(key): plain_copy(item) for key, item in value.items()}
    if kind is list:
        return [plain_copy(item) for item in value]
    if kind is tuple:
        return tuple(plain_copy(item) for item in value)
    if kind in (set, frozenset):
        raise InvalidConfig(
            "a set has no order that would be the same in every run; send sorted(...) instead",
            field="message",
        )
    return copy.deepcopy(value)
