"""An agent as a person holds it: it speaks, listens, remembers, and is a node that can fall and rise again.

Law: the handle outlives the lives of its agent. Handlers, subscriptions and numbers are the handle's; the
mailbox, the history and open requests die with a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

import msgspec

from agentflow.cluster.agents.bus import Bus, outward
from agentflow.cluster.agents.call import Call
from agentflow.cluster.agents.consumer import Consumer, as_content
from agentflow.cluster.agents.handlers import Handler, Handlers, as_topic
from agentflow.cluster.agents.hosted import HostedAgent
from agentflow.cluster.agents.live import kernel_bus
from agentflow.cluster.agents.voice import Voice
from agentflow.core.agents.letters import DeadLetter, Reason
from agentflow.core.agents.machine import AgentConfig, AgentMachine, AgentStats
from agentflow.core.agents.messages import AgentMessage, MessageType, as_type
from agentflow.core.agents.requests import (
    Attend,
    Inject,
    Mail,
    Outcome,
    Post,
    Refuse,
)
from agentflow.errors import Closed, InvalidConfig, Refused, RemoteError
from agentflow.ids import NodeId
from agentflow.views import Viewable

if TYPE_CHECKING:
    from pathlib import Path

    from agentflow.cluster.agents.audit import AuditLog
    from agentflow.cluster.agents.frames import AgentFrames

__all__ = ["AgentCommunication"]

_H = TypeVar("_H", bound=Handler)
_T = TypeVar("_T")

FAREWELL_SECS: Final = 1.0
"""How long closing waits for what the agent still sends, and for a handler that is running."""


class AgentCommunication(Voice, Viewable):
    """An agent: a node with a mailbox, and handlers for what comes in.

    It is there from the moment it is made until `close()`; used in a `with` or `async with` it closes itself.
    Every method may be called from any thread and any loop.

    Parameters
    ----------
    agent_id : str
        Its name: other agents send to it, and faults are made with it.
    bus : Bus, optional
        Where it lives. By default the kernel's own bus; on a cluster use `cluster.agent(name)`.
    capacity : int
        How many messages may wait in its mailbox.
    history : int
        How many messages, sent and received, it remembers.
    replace : bool
        Close an agent of the same name, and take its place.

    Examples
    --------
    >>> with AgentCommunication("doc-1") as one, AgentCommunication("doc-2") as two:
    ...     @two.on("task_request")
    ...     async def double(message):
    ...         return 2 * message.content["x"]
    ...     one.request("doc-2", {"x": 21}).result(timeout=5)
    42
    """

    def __init__(
        self,
        agent_id: NodeId,
        *,
        bus: Bus | None = None,
        capacity: int = 1000,
        history: int = 1000,
        replace: bool = False,
    ) -> None:
        if not isinstance(agent_id, str) or not agent_id:
            raise InvalidConfig(
                f"an agent's name is a string with something in it, not {agent_id!r}", field="agent_id"
            )
        capacity, history = _count("capacity", capacity), _count("history", history)
        super().__init__(agent_id, kernel_bus() if bus is None else bus)
        self._config = AgentConfig(capacity=capacity, history=history, epoch=self._bus.began)
        self._handlers = Handlers()
        self._consumer: Consumer | None = None
        self._life = 0
        try:
            self._cell = _cell()
            _make_room(self._bus, agent_id, self._cell, replace)
            self._bus.call(self._join)
            life = self._life
            if life > 1:
                self._prefix = (
                    f"{agent_id}.{life}/"  # ids of an earlier agent of this name are not used again
                )
        except BaseException:
            self._closed = True
            self._bus.left(self)
            raise

    # --- subscribing --------------------------------------------------------------------------------------

    @outward
    def subscribe(
        self, agent_id: NodeId | Iterable[str], topics: str | Iterable[str] | None = None
    ) -> Call[tuple[str, ...]]:
        """Subscribe this agent to message types and subjects.

        Parameters
        ----------
        agent_id : str
            This agent's own name. It may be left out: `subscribe(["sensors.*"])`.
        topics : str or iterable of str
            Types (`"status_update"`) and patterns: `*` stands for one word, `>` at the end for one or more.

        Returns
        -------
        Call of tuple of str
            All that it is subscribed to now.
        """
        wanted = self._topics(agent_id, topics)
        assert wanted is not None
        return self._change(lambda: self._bus.directory.subscribe(self.id, wanted))

    @outward
    def unsubscribe(
        self, agent_id: NodeId | Iterable[str] | None = None, topics: str | Iterable[str] | None = None
    ) -> Call[tuple[str, ...]]:
        """End subscriptions; all of them if no topics are named.

        Parameters
        ----------
        agent_id, topics
            As for `subscribe`.
        """
        wanted = None if agent_id is None else self._topics(agent_id, topics, all_is_meant=True)
        return self._change(lambda: self._bus.directory.unsubscribe(self.id, wanted))

    @overload
    def on(self, topic: _H, /) -> _H: ...
    @overload
    def on(self, *topics: str) -> Callable[[_H], _H]: ...
    def on(self, *topics: Any) -> Any:
        """Register a handler, as a decorator.

        The handler gets an `AgentMessage` and may be a coroutine function or a plain one; plain ones run in a
        thread of the agent's own. What it returns answers a request.

        Parameters
        ----------
        *topics : str
            Message types and patterns of subjects; for the latter the agent is subscribed too. Without any,
            the handler is for whatever has no other.
        """
        if len(topics) == 1 and callable(topics[0]):
            self._handle(topics[0])
            return topics[0]
        words = tuple(as_topic(word) for word in topics)

        def register(fn: _H) -> _H:
            if not callable(fn):
                raise InvalidConfig(f"a handler is a function, not {fn!r}", field="handler")
            self._handle(fn, *words)
            return fn

        return register

    @outward
    def _handle(self, fn: Handler, *topics: str) -> None:
        patterns = self._handlers.add(fn, topics)
        if patterns:
            self._bus.call(self._bus.directory.subscribe, self.id, patterns)

    @outward
    def handle_message(self, message: AgentMessage) -> Call[Any]:
        """Handle a message that came by another way than the bus, in turn with the others.

        Returns
        -------
        Call
            What the handler returns.
        """
        if not isinstance(message, AgentMessage):
            raise InvalidConfig(f"a message is an AgentMessage, not {message!r}", field="message")
        message = msgspec.structs.replace(
            message,
            msg_type=as_type(message.msg_type),
            content=as_content(message.content, self._bus),
            id=message.id or self._new_id(),
            to=self.id,
            requires_response=True,  # the caller waits for it
        )
        call: Call[Any] = Call(self._bus)
        error = self._unfit()
        if error is not None:
            call.settle(error=error)
            return call

        def take(result: Any, final: bool) -> None:
            if isinstance(result, Outcome) and result.kind == "failed":
                result = RemoteError(
                    f"the handler of {self.id} failed on {message.id}: {result.value['error']}",
                    report=result.value,
                    agent=self.id,
                    request=message.id,
                )
                result.__cause__ = self._bus.cause_of(message.id)
            if isinstance(result, BaseException):
                call.settle(error=self._own(result))
            else:
                call.settle(result.value)

        self._send_now((Inject(message), take))
        return call

    # --- looking ------------------------------------------------------------------------------------------

    def get_history(self, limit: int | None = None) -> list[AgentMessage]:
        """Return the last messages sent and received, the oldest first; a life begins without any."""
        nothing: list[AgentMessage] = []
        found = self._look(lambda machine: list(machine.history), nothing)
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
            raise InvalidConfig(f"limit={limit!r} is not a number of messages", field="limit")
        return found if limit is None else found[max(0, len(found) - limit) :]

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """The last messages that reached nobody, with the reason."""
        return self._look(lambda machine: list(machine.letters.kept), [])

    def stats(self) -> AgentStats:
        """Return its counts; all nothing while it is down."""
        return self._look(lambda machine: machine.stats(), AgentStats(0, 0, 0, 0, 0, 0, {}))

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """What it is subscribed to."""
        return self._bus.directory.subscriptions(self.id)

    @property
    def peers(self) -> tuple[NodeId, ...]:
        """The other agents of the bus."""
        return self._bus.directory.others(self.id)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    @property
    def frames(self) -> AgentFrames:
        """Tables of the bus: `messages()`, `audit()`, `dead_letters()`."""
        from agentflow.cluster.agents.frames import AgentFrames

        return AgentFrames(self._bus)

    def has(self, *, capacity: int | None = None, history: int | None = None) -> bool:
        """Whether it was made with these settings."""
        mine = self._config
        return capacity in (None, mine.capacity) and history in (None, mine.history)

    def _look(self, fn: Callable[[AgentMachine], _T], otherwise: _T) -> _T:
        machine = self._machine
        return otherwise if machine is None else self._bus.call(fn, machine)

    def __repr__(self) -> str:
        if self._closed:
            return f"<agent {self.id!r} closed>"
        state = "" if self._machine is not None and not self._machine.over else ", down"
        topics = ", ".join(self._handlers.topics()) or "nothing"
        return f"<agent {self.id!r} on {self._bus.label}, handles {topics}{state}>"

    # --- the end ------------------------------------------------------------------------------------------

    @outward
    def close(self) -> None:
        """Leave the bus: what was sent before is sent, what waits in the mailbox is not handled any more.

        A second time does nothing.
        """
        if self._closed:
            return
        farewell: Call[None] = Call(self._bus)

        def take(result: Any, final: bool) -> None:
            farewell.settle(None)

        nothing = AgentMessage(MessageType.NOTIFICATION)
        self._send_now((Post(nothing, nothing.msg_type, None, "", ()), take))
        self._closed = True
        if self._bus.here:
            # Waiting here would keep the loop from doing what is waited for.
            farewell.add_done_callback(self._leave_soon)
            return
        consumer = self._consumer
        self._bus.wait(farewell, FAREWELL_SECS)
        self._leave()
        if consumer is not None:
            consumer.join(FAREWELL_SECS)

    def leave_behind(self) -> None:
        """Take note that the simulation went back to before this agent was there."""
        self._closed = True

    def _leave_soon(self, farewell: Call[None]) -> None:
        self._bus.loop.call_soon(self._leave)

    def _leave(self) -> None:
        self._bus.call(self._remove)
        self._bus.left(self)

    def _remove(self) -> None:
        self._bus.directory.leave(self.id)
        if self._bus.agents.get(self.id) is self and self.id in self._bus.host.nodes:
            self._bus.host.remove(self.id)

    def __enter__(self) -> AgentCommunication:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> AgentCommunication:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- its node -----------------------------------------------------------------------------------------

    def _join(self) -> None:
        self._bus.host.add(self.id, self._make)
        self._bus.joined(self)

    def _make(self, node_id: NodeId, stored: Any, incarnation: int, now: float) -> HostedAgent:
        """Begin a life; the host calls this at every start."""
        self._life = life = self._bus.directory.join(node_id)
        self._machine = machine = HostedAgent(
            node_id, self._bus.directory, self._config, life, fell=self._fell
        )
        self._consumer = Consumer(node_id, self._bus, self._handlers, self._send_now)
        self._bus.host.ask(node_id, Attend(), self._take_mail)
        return machine

    def _fell(self, machine: HostedAgent) -> None:
        """End a life: its handlers stop, and who waits for its answers hears of it."""
        if self._consumer is not None:
            self._consumer.stop()
        self._bus.fell(self.id)

    def audit_to(
        self, path: str | Path, *, redact: Callable[[Any], Any] | None = None, content: bool = True
    ) -> AuditLog:
        """Write what happens from now on to every message of the bus to a SQLite file, until its `close()`.

        Parameters
        ----------
        path : str or Path
            The file.
        redact : callable, optional
            Gets a message's content, returns what may be written of it.
        content : bool
            Whether to write contents at all, beside their hashes.
        """
        from agentflow.cluster.agents.audit import AuditLog

        return AuditLog(self._bus, path, redact=redact, content=content)

    def awaits(self, agent_id: NodeId) -> bool:
        """Whether a request of its own to that agent is under way."""
        machine = self._machine
        return machine is not None and not machine.over and machine.requests.awaits(agent_id)

    def _take_mail(self, answer: Any, final: bool) -> None:
        if isinstance(answer, Mail):
            assert self._consumer is not None
            self._consumer.feed(answer)
        elif isinstance(answer, Closed) and not self._closed:
            # The cluster was closed, and the agent with it.
            self._closed = True
            self._bus.left(self)

    # --- helpers ------------------------------------------------------------------------------------------

    def _change(self, change: Callable[[], None]) -> Call[tuple[str, ...]]:
        if self._closed:
            return Call.failed(self._bus, Closed(f"agent {self.id!r} is closed; make a new one"))
        self._bus.call(change)
        return Call.ended(self._bus, self.subscriptions)

    def _topics(
        self, agent_id: Any, topics: str | Iterable[str] | None, *, all_is_meant: bool = False
    ) -> tuple[str, ...] | None:
        """Sort out `subscribe(name, topics)` and `subscribe(topics)`."""
        if topics is None and isinstance(agent_id, str) and agent_id == self.id and all_is_meant:
            return None
        if topics is None:
            agent_id, topics = self.id, agent_id
        if agent_id != self.id:
            self._send(Refuse(AgentMessage(MessageType.ERROR, from_=str(agent_id)), Reason.FORGED))
            raise Refused(
                f"{self.id} subscribes only itself, not {agent_id!r}", agent=self.id, claimed=agent_id
            )
        assert topics is not None
        words = (topics,) if isinstance(topics, str) else tuple(topics)
        if not words:
            raise InvalidConfig("name at least one type or subject to subscribe to", field="topics")
        return tuple(as_topic(word) for word in words)


def _count(field: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidConfig(f"{field}={value!r} is not a positive number", field=field)
    return value


def _cell() -> str | None:
    from agentflow.cluster.reuse import current_cell

    cell = current_cell()
    return None if cell is None else cell[0]


def _make_room(bus: Bus, agent_id: NodeId, cell: str | None, replace: bool) -> None:
    """Close the agent that an earlier run of the same cell made, or whatever is to be replaced."""
    known = bus.agents.get(agent_id)
    if known is None or known.closed:
        return
    if not replace and (cell is None or known._cell != cell):
        raise InvalidConfig(
            f"there is an agent {agent_id!r} already; close it, take another name, or pass replace=True",
            field="agent_id",
        )
    known.close()


def agent_of(bus: Bus, name: NodeId, **settings: Any) -> AgentCommunication:
    """Return a bus's agent of that name, made if there is none."""
    known = bus.agents.get(name) if isinstance(name, str) else None
    if known is None or known.closed:
        return bus.make(name, settings)
    if settings and not known.has(**settings):
        raise InvalidConfig(
            f"agent {name!r} is there with other settings; close it first, or leave them out", field="name"
        )
    return known
