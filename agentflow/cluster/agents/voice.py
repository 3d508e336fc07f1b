"""How an agent speaks: to one, to all, to who subscribed, and with a question that waits for its answer.

Law: a handle speaks for its own agent and for no other. Messages leave in the order of the calls, whichever
method sent them and whether it was awaited or not.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from agentflow.cluster.agents.bus import Bus, outward
from agentflow.cluster.agents.call import Call
from agentflow.cluster.agents.consumer import as_content, current
from agentflow.cluster.agents.hosted import HostedAgent
from agentflow.core.agents.letters import Reason
from agentflow.core.agents.messages import AgentMessage, MessageType, as_type
from agentflow.core.agents.replies import refusal
from agentflow.core.agents.requests import Ask, Done, Forget, Outbox, Post, Refuse
from agentflow.core.agents.subjects import as_subject
from agentflow.core.machine import Local
from agentflow.errors import Closed, Expired, InvalidConfig, NoSuchNode, PeerDown, Refused, RemoteError
from agentflow.ids import NodeId

__all__ = ["Question", "Voice", "milliseconds"]

Question: TypeAlias = tuple[Any, Callable[[Any, bool], None]]
"""A request to the agent's own machine, and who takes the answers."""

_ACKNOWLEDGED: Final = 256
"""Every so many messages, sending waits until the bus has caught up."""

_TYPES: Final = frozenset(MessageType)


class Voice:
    """The half of `AgentCommunication` that sends.

    Parameters
    ----------
    agent_id : str
        Its name.
    bus : Bus
        Where it lives.
    """

    def __init__(self, agent_id: NodeId, bus: Bus) -> None:
        self.id = agent_id
        self._bus = bus
        self._closed = False
        self._machine: HostedAgent | None = None
        self._outgoing: deque[Post | Refuse | Done | Question] = deque()
        self._signalled = False
        self._numbers = itertools.count(1)
        self._prefix = f"{agent_id}/"
        self._posted = 0

    # --- sending ------------------------------------------------------------------------------------------

    @outward
    def send_to_agent(self, message: AgentMessage) -> Call[str]:
        """Send a message to the agent that its `to` names.

        It arrives once or not at all, after what was sent to that agent before. Awaiting it waits until the
        bus has taken the message, not until it is handled; use `request` for an answer.

        Parameters
        ----------
        message : AgentMessage
            What to send. With `requires_response` the answer comes as a message of its own.

        Returns
        -------
        Call of str
            The message's id.

        Raises
        ------
        NoResponders
            If there is no such agent.
        """
        to = getattr(message, "to", None)
        post = self._draft(message, (to,))  # type: ignore[arg-type]
        if not to or not isinstance(to, str):
            raise InvalidConfig("the message names nobody to send it to; fill in to=", field="to")
        if to not in self._bus.directory.present:
            return Call.failed(self._bus, refusal("no responders", to, post.id))
        return self._post(post, post.id)

    @outward
    def broadcast(self, message: AgentMessage) -> Call[tuple[NodeId, ...]]:
        """Send a message to every other agent of the bus, one copy each.

        Returns
        -------
        Call of tuple of str
            The agents to which it was sent.
        """
        post = self._draft(message, self._bus.directory.others(self.id))
        if message.to:
            raise InvalidConfig(
                f"a broadcast goes to all, not to {message.to!r}; use send_to_agent", field="to"
            )
        return self._post(post, post.targets)

    @outward
    def publish(
        self,
        subject: str,
        content: Any = None,
        *,
        msg_type: MessageType | str | None = None,
        ttl: float | None = None,
        echo: bool = True,
    ) -> Call[tuple[NodeId, ...]]:
        """Send a message to all agents that subscribed to the subject or to the type.

        Parameters
        ----------
        subject : str
            Words between dots, such as `sensors.room1`; or the name of a message type.
        content : plain data or AgentMessage
            What to say.
        msg_type : MessageType or str, optional
            Its type; by default a notification, or the type that the subject names.
        ttl : float, optional
            Milliseconds it may take until a handler starts on it.
        echo : bool
            Whether this agent gets it too if it is subscribed, as with NATS.

        Returns
        -------
        Call of tuple of str
            The agents to which it was sent: each once, however many of its subscriptions match.
        """
        as_subject(subject)
        message = content if isinstance(content, AgentMessage) else None
        if message is None:
            named = subject if msg_type is None and subject in _TYPES else msg_type
            message = AgentMessage(as_type(named or MessageType.NOTIFICATION), content, ttl=ttl)
        if message.to:
            raise InvalidConfig(f"what is published goes to no one agent, {message.to!r}", field="to")
        targets = self._bus.directory.route(subject, as_type(message.msg_type))
        if not echo:
            targets = tuple(name for name in targets if name != self.id)
        return self._post(self._draft(message, targets, subject), targets)

    @outward
    def request(
        self,
        to: NodeId,
        content: Any = None,
        timeout_ms: float = 5000,
        *,
        msg_type: MessageType | str = MessageType.TASK_REQUEST,
        ttl: float | None = None,
        correlation_id: str | None = None,
    ) -> Call[Any]:
        """Ask an agent something; what its handler returns is the answer.

        Made inside a handler, a request belongs to the conversation of the message being handled, and takes
        no longer than that message's budget allows.

        Parameters
        ----------
        to : str
            Whom to ask.
        content : plain data
            What to ask.
        timeout_ms : float
            Milliseconds to wait for the answer.
        msg_type : MessageType or str
            The type of the question.
        ttl : float, optional
            Milliseconds that may pass until the handler starts; never more than `timeout_ms`.
        correlation_id : str, optional
            The conversation it belongs to; by default a new one.

        Returns
        -------
        Call
            The handler's return value. `call.message` is the message in which it came.

        Raises
        ------
        NoResponders
            At once: there is no such agent, it is down, or it has no handler for this type. Nothing was done.
        MailboxFull
            The agent has too much to do and turned the request away. Nothing was done.
        Expired
            The request outlived its ttl in the agent's mailbox. Nothing was done.
        RemoteError
            The handler raised; its exception is the cause.
        PeerDown
            The agent went down before it answered; it may have done what was asked.
        RequestTimeout
            There was no answer in time; it may have done what was asked.
        """
        timeout_ms = milliseconds("timeout_ms", timeout_ms)
        post = self._draft(
            AgentMessage(as_type(msg_type), content, to=to, ttl=ttl, correlation_id=correlation_id), (to,)
        )
        if not isinstance(to, str) or not to:
            raise InvalidConfig(f"an agent's name is a string with something in it, not {to!r}", field="to")
        handling = current.get()
        if handling is not None and handling.expires != math.inf:
            left = (handling.expires - self._bus.now) * 1000
            if left <= 0:
                error = Expired(
                    f"the time for {handling.message.id}, which is being handled, is used up; ask no more for it",
                    request=handling.message.id,
                )
                return Call.failed(self._bus, error)
            timeout_ms = min(timeout_ms, left)
        return self._ask(post, timeout_ms / 1000)

    # --- helpers ------------------------------------------------------------------------------------------

    def _new_id(self) -> str:
        return f"{self._prefix}{next(self._numbers)}"

    def _draft(
        self, message: AgentMessage, targets: tuple[NodeId, ...] = (), subject: str | None = None
    ) -> Post:
        """Check a message, and give it an id and a copy of its content."""
        if message.__class__ is not AgentMessage:
            raise InvalidConfig(f"a message is an AgentMessage, not {message!r}", field="message")
        if message.from_ and message.from_ != self.id:
            self._send(Refuse(message, Reason.FORGED))
            raise Refused(
                f"{self.id} sends only as itself, not as {message.from_!r}; leave from_ out",
                agent=self.id,
                claimed=message.from_,
            )
        if message.ttl is not None:
            milliseconds("ttl", message.ttl)
        correlation = message.correlation_id
        if correlation is None and (handling := current.get()) is not None and handling.agent == self.id:
            correlation = handling.message.correlation_id or handling.message.id
        msg_type = message.msg_type
        return Post(
            message,
            msg_type if msg_type.__class__ is MessageType else as_type(msg_type),
            as_content(message.content, self._bus),
            message.id or f"{self._prefix}{next(self._numbers)}",
            targets,
            message.subject if subject is None else subject,
            correlation,
        )

    def _unfit(self) -> Exception | None:
        """Say why nothing can be sent now, if so."""
        if self._closed:
            return Closed(f"agent {self.id!r} is closed; make a new one")
        if self._machine is None or self._machine.over:
            return PeerDown(f"{self.id} is down; restart it", node=self.id)
        return None

    def _post(self, post: Post, value: Any) -> Call[Any]:
        error = self._unfit()
        if error is not None:
            return Call.failed(self._bus, error)
        self._posted += 1
        if self._posted % _ACKNOWLEDGED:
            self._send(post)
            return Call.ended(self._bus, value)
        call: Call[Any] = Call(self._bus)

        def taken(result: Any, final: bool) -> None:
            if isinstance(result, BaseException):
                call.settle(error=self._own(result))
            else:
                call.settle(value)

        self._send((post, taken))
        return call

    def _ask(self, post: Post, timeout: float) -> Call[Any]:
        error = self._unfit()
        if error is not None:
            return Call.failed(self._bus, error)
        call: Call[Any] = Call(self._bus, forget=lambda: self._forget(post.id))

        def take(result: Any, final: bool) -> None:
            if isinstance(result, AgentMessage):
                call.message = result
                call.settle(result.content)
                return
            if isinstance(result, RemoteError):
                result.__cause__ = self._bus.cause_of(post.id)
            call.settle(error=self._own(result))

        self._send_now((Ask(post, timeout), take))
        return call

    @outward
    def _forget(self, request: str) -> None:
        self._send((Forget(request), _ignore))

    def _own(self, error: BaseException) -> BaseException:
        """Say `Closed` where the host says that this agent's own node is gone."""
        if self._closed and isinstance(error, PeerDown | NoSuchNode) and error.node == self.id:
            return Closed(f"agent {self.id!r} was closed before it had an answer")
        return error

    def _send(self, item: Post | Refuse | Done | Question) -> None:
        self._outgoing.append(item)
        if not self._signalled:
            self._signalled = True
            self._bus.soon(self._flush)

    def _send_now(self, item: Post | Refuse | Done | Question) -> None:
        """Do so without waiting for more: somebody waits for the answer."""
        if self._bus.here:
            self._outgoing.append(item)
            self._flush()
        else:
            self._send(item)

    def _flush(self) -> None:
        """Give the machine, in order, what was asked for since the last time."""
        # Cleared first: who adds from now on signals again, so nothing is left lying.
        self._signalled = False
        outgoing, host = self._outgoing, self._bus.host
        items: list[Any] = []
        while outgoing:
            item = outgoing.popleft()
            if item.__class__ is tuple:
                if items:
                    host.post(self.id, Local(0, Outbox(tuple(items))))
                    items = []
                request, callback = item
                host.ask(self.id, request, callback)
            else:
                items.append(item)
        if items:
            host.post(self.id, Local(0, Outbox(tuple(items))))


def _ignore(result: Any, final: bool) -> None:
    """Take an answer that nobody needs."""


def milliseconds(field: str, value: float) -> float:
    """Check a number of milliseconds."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise InvalidConfig(f"{field}={value!r} is not a positive number of milliseconds", field=field)
    return value
