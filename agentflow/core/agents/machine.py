"""An agent: sends as itself, keeps its mailbox, and knows which questions are open.

Law: at most once, and in order from each sender. A message is handed to the handlers once or ends as a
dead letter; a question is answered once, by the one it was put to; a handler that raises answers for
itself and harms nobody else.

Handlers are run by whoever hosts the machine: it hands over `Mail` and hears `Done`.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import msgspec

from agentflow import errors
from agentflow.core.agents.directory import Directory
from agentflow.core.agents.letters import DeadLetter, DeadLetters, Reason
from agentflow.core.agents.mailbox import Item, Mailbox
from agentflow.core.agents.messages import REPLY_TYPE, AgentMessage, MessageType, Reset
from agentflow.core.agents.pending import Pending, Requests
from agentflow.core.agents.replies import failure, refusal, verdict
from agentflow.core.agents.requests import (
    Ask,
    Attend,
    Done,
    Forget,
    Inject,
    Mail,
    Outbox,
    Outcome,
    Post,
    Refuse,
)
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
from agentflow.ids import NodeId

__all__ = ["AgentConfig", "AgentMachine", "AgentStats"]

_LIVES = 1 << 40
"""Numbers of messages of one life stay below this."""

_EXPECTED = 10_000
"""Answers that are to come as messages of their own, remembered at most."""


class AgentConfig(msgspec.Struct, frozen=True):
    """Bounds of what an agent keeps.

    Parameters
    ----------
    capacity : int
        Messages that may wait in its mailbox.
    history : int
        Messages, sent and received, that it remembers.
    dead_letters : int
        Dead letters that it keeps; all are counted.
    batch : int
        How many messages are handed over at once while handlers are quick.
    epoch : float
        Unix time at which the run began, for time stamps.
    """

    capacity: int = 1000
    history: int = 1000
    dead_letters: int = 1000
    batch: int = 1000
    epoch: float = 0.0


class AgentStats(msgspec.Struct, frozen=True):
    """An agent's counts in this life.

    Parameters
    ----------
    sent, received : int
        Messages sent, a copy each, and taken into the mailbox.
    handled, failed : int
        Messages whose handler returned, and whose handler raised.
    pending_requests : int
        Requests of its own that wait for a reply.
    mailbox : int
        Messages that wait to be handled.
    dead_letters : dict
        Messages that reached nobody, by reason.
    """

    sent: int
    received: int
    handled: int
    failed: int
    pending_requests: int
    mailbox: int
    dead_letters: dict[str, int]


class AgentMachine:
    """The machine of one agent.

    Parameters
    ----------
    agent_id : str
        Its name on the network.
    directory : Directory
        Who is there; shared by all agents of the bus.
    config : AgentConfig
        Bounds.
    life : int
        How many lives of this name there were with this one; later lives number their messages higher.
    """

    def __init__(self, agent_id: NodeId, directory: Directory, config: AgentConfig, life: int) -> None:
        self.id = agent_id
        self.directory = directory
        self.config = config
        self.life = life
        self.mailbox = Mailbox(config.capacity)
        self.requests = Requests()
        self.letters = DeadLetters(config.dead_letters)
        self.history: deque[AgentMessage] = deque(maxlen=config.history)
        self.sent = self.received = self.handled = self.failed = 0
        self._seq = life * _LIVES
        self._heard = directory.heard_by(agent_id)
        self._expected: dict[tuple[str, NodeId], None] = {}
        self._attending = -1
        self._in_hand: deque[Item] = deque()
        self._effects: list[Effect] = []
        self._now = 0.0

    @property
    def deadline(self) -> float:
        """When the next request of its own is given up."""
        return self.requests.deadline

    def expire(self, now: float) -> None:
        """Let the request that is due next be due now.

        Raises
        ------
        Refused
            If it waits for no reply.
        """
        if not self.requests.hurry(now):
            raise errors.Refused(f"{self.id} waits for no reply, so no time-out of it runs")

    def handle(self, event: Event, now: float) -> None:
        """Take one event."""
        self._now = now
        kind = event.__class__
        if kind is Received:
            self._receive(event.source, event.message)  # type: ignore[union-attr]
        elif kind is Local:
            self._local(event.token, event.request)  # type: ignore[union-attr]
        elif isinstance(event, Woken):
            for pending in self.requests.due(now):
                self._give_up(pending)
        elif isinstance(event, Unreachable):
            self._bounced(event.peer, event.message)
        elif isinstance(event, Stalled):
            self.requests.postpone(event.seconds)

    def ready(self) -> list[Effect]:
        """Hand out what must be done."""
        if self._attending >= 0 and not self._in_hand and len(self.mailbox):
            self._hand_over()
        effects, self._effects = self._effects, []
        return effects

    def stats(self) -> AgentStats:
        """Return its counts."""
        return AgentStats(
            self.sent,
            self.received,
            self.handled,
            self.failed,
            len(self.requests),
            len(self.mailbox) + max(0, len(self._in_hand) - 1),
            dict(self.letters.counts),
        )

    def check_invariants(self) -> None:
        """Assert what must hold between any two turns."""
        assert len(self.mailbox) <= self.config.capacity, "more messages wait than the mailbox holds"
        assert len(self._in_hand) <= self.config.batch, "more messages were handed over than a batch"
        assert self._attending >= 0 or not self._in_hand, "messages were handed to nobody"
        assert self.requests.deadline < math.inf or not len(self.requests), "a request waits for ever"
        assert len(self.history) <= self.config.history, "the history is longer than its bound"

    # --- what the handle wants ----------------------------------------------------------------------------

    def _local(self, token: int, request: Any) -> None:
        kind = request.__class__
        if kind is Outbox:
            for item in request.items:
                if item.__class__ is Post:
                    self._post(item)
                elif item.__class__ is Done:
                    self._done(item)
                else:
                    self._refuse(item)
        elif kind is Ask:
            self._ask(token, request)
        elif kind is Post:
            self._post(request)
            self._effects.append(Answer(token, None))
        elif isinstance(request, Forget):
            self.requests.pop(request.id)
        elif isinstance(request, Inject):
            self._accept(request.message, token)
        else:
            assert isinstance(request, Attend), request
            self._attending = token

    def _post(self, post: Post, ttl: float | None = None, *, wants: bool = False) -> bool:
        """Send to all targets; return whether all of them are there."""
        draft = post.draft
        reply_wanted = wants or draft.requires_response
        if ttl is None:
            ttl = draft.ttl
        present = self.directory.present
        complete = True
        message = None
        for to in post.targets:
            self._seq = seq = self._seq + 1
            message = AgentMessage(
                post.msg_type,
                post.content,
                post.id,
                self.id,
                to,
                self.config.epoch + self._now,
                reply_wanted,
                post.correlation_id or (post.id if reply_wanted else None),
                ttl,
                post.subject,
                draft.in_reply_to,
                seq,
            )
            if to not in present:
                complete = False
                if not wants:
                    self._bury(Reason.NO_RESPONDERS, message)
                continue
            if reply_wanted and not wants:
                self._expect(post.id, to)
            self._effects.append(Send(to, message))
            self.sent += 1
        if message is not None:
            if len(post.targets) > 1:
                message = msgspec.structs.replace(message, to="")
            self.history.append(message)
        return complete

    def _expect(self, request: str, target: NodeId) -> None:
        """Remember a message whose answer is to come as a message of its own."""
        self._expected[request, target] = None
        if len(self._expected) > _EXPECTED:
            del self._expected[next(iter(self._expected))]

    def _refuse(self, item: Refuse) -> None:
        """Count what the handle would not send: a message in somebody else's name."""
        message = msgspec.structs.replace(item.draft, content=None)
        self._bury(item.reason, message)

    def _ask(self, token: int, ask: Ask) -> None:
        post = ask.post
        (target,) = post.targets
        budget = ask.timeout * 1000
        ttl = post.draft.ttl
        if not self._post(post, budget if ttl is None else min(ttl, budget), wants=True):
            self._effects.append(Answer(token, refusal("no responders", target, post.id)))
            return
        self.requests.add(Pending(post.id, token, target, self._now + ask.timeout, ask.timeout))

    def _give_up(self, pending: Pending) -> None:
        error = errors.RequestTimeout(
            f"{pending.target} did not answer {pending.id} within {pending.timeout:g} s; "
            "it may have done what was asked. Ask again, or allow more with timeout_ms",
            agent=pending.target,
            request=pending.id,
        )
        self._effects.append(Answer(pending.token, error))

    # --- what comes in ------------------------------------------------------------------------------------

    def _receive(self, source: NodeId, message: Any) -> None:
        if message.__class__ is not AgentMessage:
            self._effects.append(Note("foreign", {"from": source, "type": type(message).__name__}))
            return
        if message.from_ != source:
            # The node behind it is told from the name it gave.
            self._bury(Reason.FORGED, message, actual=source)
            return
        question = message.in_reply_to
        if question is not None and self._settle(source, question, message):
            return
        heard = self._heard
        if message.seq <= heard.get(source, -1):
            self._bury(Reason.STALE, message)
            return
        heard[source] = message.seq
        self._accept(message)

    def _settle(self, source: NodeId, question: str, reply: AgentMessage) -> bool:
        """Take a reply to whoever waits for it; False if it is to go to the mailbox."""
        pending = self.requests.get(question)
        if pending is not None:
            if pending.target != source:
                self._bury(Reason.FORGED, reply)
            else:
                self.requests.pop(question)
                self.history.append(reply)
                self._effects.append(Answer(pending.token, verdict(reply)))
            return True
        if (question, source) in self._expected:
            del self._expected[question, source]
            return False
        self._bury(Reason.LATE_REPLY, reply)
        return True

    def _accept(self, message: AgentMessage, token: int = -1) -> None:
        now = self._now
        ttl = message.ttl
        item = Item(message, math.inf if ttl is None else now + ttl / 1000, token)
        in_hand = len(self._in_hand)
        lost = self.mailbox.put(item, now, in_hand - 1 if in_hand else 0)
        if lost:
            for reason, gone in lost:
                self._lose(reason, gone)
            if lost[-1][1] is item:
                return
        self.received += 1
        self.history.append(message)

    def _lose(self, reason: Reason, item: Item) -> None:
        """Bury a message that waited, and tell whoever waits for its outcome."""
        self._bury(reason, item.message)
        word = "expired" if reason is Reason.EXPIRED else "mailbox full"
        if item.token >= 0:
            self._effects.append(Answer(item.token, refusal(word, self.id, item.message.id)))
        elif item.message.requires_response:
            self._reply(item.message, MessageType.ERROR, failure(word, self.id))

    def _bounced(self, peer: NodeId, message: Any) -> None:
        if message.__class__ is Reset:
            for pending in self.requests.to(peer):
                error = errors.PeerDown(
                    f"{peer} went down before it answered {pending.id}; it may have done what was asked",
                    node=peer,
                    request=pending.id,
                )
                self._effects.append(Answer(pending.token, error))
        elif message.__class__ is AgentMessage:
            asked = self.requests.pop(message.id)
            if asked is None:
                self._bury(Reason.UNREACHABLE, message)
            else:
                self._effects.append(Answer(asked.token, refusal("no responders", peer, message.id)))

    # --- handlers -----------------------------------------------------------------------------------------

    def _hand_over(self) -> None:
        now = self._now
        for item in self.mailbox.take(self.config.batch):
            if item.expires <= now:
                self._lose(Reason.EXPIRED, item)
            else:
                self._in_hand.append(item)
        if self._in_hand:
            messages = tuple(item.message for item in self._in_hand)
            expires = tuple(item.expires for item in self._in_hand)
            self._effects.append(Answer(self._attending, Mail(self.life, messages, expires), final=False))

    def _done(self, done: Done) -> None:
        if done.life != self.life:
            return  # a handler of a life that is over
        for outcome in done.outcomes:
            self._conclude(self._in_hand.popleft(), outcome)
        if done.busy and len(self._in_hand) > 1:
            current = self._in_hand.popleft()
            self.mailbox.put_back(list(self._in_hand))
            self._in_hand.clear()
            self._in_hand.append(current)

    def _conclude(self, item: Item, outcome: Outcome) -> None:
        message, kind = item.message, outcome.kind
        if kind == "expired":
            self._lose(Reason.EXPIRED, item)
            return
        if kind == "handled":
            self.handled += 1
        elif kind == "failed":
            self.failed += 1
        else:
            self._bury(Reason.UNHANDLED, message)
        if item.token >= 0:
            result: Any = outcome
            if kind == "unhandled":
                result = refusal("unhandled", self.id, message.id, message.msg_type)
            self._effects.append(Answer(item.token, result))
        elif not message.requires_response:
            return
        elif kind == "handled":
            reply_type = REPLY_TYPE.get(message.msg_type, message.msg_type)
            draft = outcome.draft
            if draft is not None:
                reply_type = draft.msg_type
            self._reply(message, reply_type, outcome.value)
        elif kind == "failed":
            self._reply(message, MessageType.ERROR, failure("failed", self.id, outcome.value))
        else:
            self._reply(message, MessageType.ERROR, failure("unhandled", self.id, message.msg_type))

    def _reply(self, question: AgentMessage, msg_type: MessageType, content: Any) -> None:
        draft = AgentMessage(msg_type, in_reply_to=question.id)
        conversation = question.correlation_id or question.id
        self._post(
            Post(draft, msg_type, content, f"{question.id}/reply", (question.from_,), "", conversation)
        )

    def _bury(self, reason: Reason, message: AgentMessage, actual: NodeId = "") -> None:
        self.letters.add(DeadLetter(self._now, reason, message))
        facts = {
            "reason": str(reason),
            "id": message.id,
            "from": message.from_,
            "to": message.to,
            "type": str(message.msg_type),
        }
        if actual:
            facts["actual"] = actual
        self._effects.append(Note("dead_letter", facts))
