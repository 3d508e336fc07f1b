"""The one reader of an agent's mailbox: runs its handlers, one message after the other.

Law: a handler starts when the one before has ended. Handlers that are coroutines run on the loop of the
bus; plain functions run in a thread of the agent's own, so that one that blocks stops no election (on a
simulation they take no time and are simply called). What a handler raises is its message's outcome.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import math
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from agentflow.cluster.agents.handlers import Handler, Handlers
from agentflow.cluster.agents.thread import HandlerThread
from agentflow.cluster.calls import shorten
from agentflow.core.agents.messages import AgentMessage, as_type, copied, plain
from agentflow.core.agents.requests import Done, Mail, Outcome

if TYPE_CHECKING:
    from agentflow.cluster.agents.bus import Bus

__all__ = ["Consumer", "Handling", "current"]

_log = logging.getLogger("agentflow")
_HANDLED = Outcome("handled")
_EXPIRED = Outcome("expired")
_UNHANDLED = Outcome("unhandled")
_set = msgspec.structs.force_setattr
_SCALAR = frozenset((str, int, float, bool, type(None), bytes))


class Handling(msgspec.Struct, frozen=True):
    """The message a handler is at work on: what it sends belongs to the same conversation and budget.

    Parameters
    ----------
    agent : str
        Whose handler.
    message : AgentMessage
        The message.
    expires : float
        When the message's budget is used up.
    """

    agent: str
    message: AgentMessage
    expires: float


current: contextvars.ContextVar[Handling | None] = contextvars.ContextVar("agentflow.handling", default=None)


class _Batch:
    """Messages in hand; `at` is the one being handled, and `outcomes` are those not yet reported."""

    __slots__ = ("at", "expires", "ids", "life", "messages", "outcomes")

    def __init__(self, mail: Mail) -> None:
        self.life = mail.life
        self.messages = list(mail.messages)
        self.expires = mail.expires
        self.at = 0
        self.ids: list[str] = []
        self.outcomes: list[Outcome] = []


class Consumer:
    """Runs the handlers of one life of an agent.

    Parameters
    ----------
    agent_id : str
        Whose.
    bus : Bus
        Where.
    handlers : Handlers
        What to run.
    report : callable
        Takes what was `Done`.
    """

    def __init__(self, agent_id: str, bus: Bus, handlers: Handlers, report: Callable[[Done], None]) -> None:
        self._id = agent_id
        self._bus = bus
        self._handlers = handlers
        self._report = report
        self._mail: Mail | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._batch: _Batch | None = None
        self._thread: HandlerThread | None = None
        self._stopped = False

    def feed(self, mail: Mail) -> None:
        """Take messages to be handled; called on the loop, and not again before they are done."""
        if self._stopped:
            return
        self._mail = mail
        if self._task is None or self._task.done():
            self._task = self._bus.loop.create_task(self._read(), name=f"agentflow-agent-{self._id}")
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def stop(self) -> None:
        """End at once; a plain function that is running ends in its own time, and nobody hears of it."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
        if self._thread is not None:
            self._thread.close()

    def join(self, limit_s: float) -> None:
        """Block until no function of its runs any more, for a moment at most."""
        if self._thread is not None:
            self._thread.join(limit_s)

    # --- reading ----------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        loop = self._bus.loop
        while not self._stopped:
            mail, self._mail = self._mail, None
            if mail is None:
                self._waiter = loop.create_future()
                await self._waiter
                self._waiter = None
                continue
            self._batch = batch = _Batch(mail)
            if len(batch.messages) > 1:
                loop.call_soon(self._yielded, batch)
            while batch.at < len(batch.messages):
                message = batch.messages[batch.at]
                outcome = await self._handle(message, batch.expires[batch.at])
                batch.ids.append(message.id)
                batch.outcomes.append(outcome)
                batch.at += 1
            self._batch = None
            self._report(Done(batch.life, tuple(batch.ids), tuple(batch.outcomes)))

    def _yielded(self, batch: _Batch) -> None:
        """Give back what was not started on if a handler is taking its time.

        It was scheduled before the first handler ran, so it runs at the first instant at which one waits.
        """
        if self._batch is not batch:
            return
        del batch.messages[batch.at + 1 :]
        self._report(Done(batch.life, tuple(batch.ids), tuple(batch.outcomes), busy=True))
        batch.ids, batch.outcomes = [], []

    async def _handle(self, message: AgentMessage, expires: float) -> Outcome:
        found = self._handlers.find(message)
        if expires != math.inf and expires <= self._bus.now:
            return _EXPIRED
        if found is None:
            return _UNHANDLED
        fn, is_plain = found
        content = message.content
        if content.__class__ not in _SCALAR:
            # A copy of its own: neither other receivers nor the trace see what the handler does to it.
            message = message.__copy__()  # type: ignore[attr-defined]
            _set(message, "content", copied(content))
        # Never reset: in this task nothing but handlers looks at it, and each is told its own. A reset would
        # have to fail in a coroutine that is thrown away, which ends outside of its context.
        current.set(Handling(self._id, message, expires))
        try:
            if is_plain:
                result = await self._call(fn, message)
            else:
                result = await fn(message)
            if result is None:
                return _HANDLED
            return outcome_of(result, self._bus)
        except asyncio.CancelledError as error:
            if self._stopped:
                raise
            return self._failed(message, error)
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            return self._failed(message, error)

    async def _call(self, fn: Handler, message: AgentMessage) -> Any:
        if self._bus.virtual:
            result = fn(message)
        else:
            if self._thread is None:
                self._thread = HandlerThread(f"agentflow-agent-{self._id}", self._bus.loop)
            result = await self._thread.run(contextvars.copy_context().run, fn, message)
        return await result if inspect.isawaitable(result) else result

    def _failed(self, message: AgentMessage, error: BaseException) -> Outcome:
        report = report_of(error)
        if message.requires_response:
            self._bus.keep_cause(message.id, error)
        else:
            _log.error(
                "the handler of %s raised on %s from %s",
                self._id,
                message.msg_type,
                message.from_ or "nobody",
                exc_info=error,
                extra={"node": self._id},
            )
        return Outcome("failed", report)


def outcome_of(result: Any, bus: Bus) -> Outcome:
    """Turn what a handler returned into the outcome of its message."""
    if isinstance(result, AgentMessage):
        draft = AgentMessage(as_type(result.msg_type))
        return Outcome("handled", as_content(result.content, bus), draft)
    return Outcome("handled", as_content(result, bus, "what a handler returns"))


def as_content(value: Any, bus: Bus, what: str = "a message's content") -> Any:
    """Copy plain data to be sent."""
    codec = bus.host.codec
    if value.__class__ in _SCALAR and codec is None:
        return value
    value = plain(value, what)
    if codec is not None:
        from agentflow.errors import InvalidConfig

        try:
            codec.encode(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidConfig(f"{what} cannot be put into bytes: {error}", field="content") from None
    return value


def report_of(error: BaseException) -> dict[str, str]:
    """Put an exception into words that travel, however large or broken it is."""
    name = type(error).__qualname__
    try:
        words = shorten(str(error))
    except Exception as own:
        words = f"(its __str__ raised {type(own).__name__})"
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith("agentflow."):
        frames = frames.tb_next
    try:
        text = shorten("".join(traceback.format_exception(type(error), error, frames)))
    except Exception as own:
        text = f"(its traceback could not be formatted: {type(own).__name__})"
    return {"error": f"{name}: {words}", "type": name, "message": words, "traceback": text}
