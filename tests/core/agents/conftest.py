import math

import pytest

from agentflow.core.agents import AgentConfig, AgentMachine, AgentMessage, Directory, MessageType
from agentflow.core.agents.requests import Ask, Attend, Done, Inject, Mail, Outbox, Outcome, Post
from agentflow.core.machine import Answer, Local, Note, Received, Send, Unreachable, Woken


class Desk:
    """One machine, driven through its door, and what came out of it."""

    def __init__(self, directory, name, **config):
        self.name = name
        self.directory = directory
        self.config = AgentConfig(**config)
        self.tokens = 0
        self.start()

    def start(self):
        self.machine = AgentMachine(self.name, self.directory, self.config, self.directory.join(self.name))
        self.local(Attend(), 0.0)

    def event(self, event, now=0.0):
        self.machine.handle(event, now)
        return self.ready()

    def ready(self):
        effects = self.machine.ready()
        self.machine.check_invariants()
        return effects

    def local(self, request, now=0.0):
        self.tokens += 1
        return self.event(Local(self.tokens, request), now)

    def post(self, to, kind=MessageType.NOTIFICATION, content=None, now=0.0, name="", **draft):
        targets = (to,) if isinstance(to, str) else tuple(to)
        name = name or f"{self.name}/{self.tokens}"
        post = Post(AgentMessage(kind, **draft), kind, content, name, targets)
        return self.local(Outbox((post,)), now)

    def ask(self, to, content=None, now=0.0, timeout=5.0, kind=MessageType.TASK_REQUEST, name="", ttl=None):
        """Ask; return the token and what came out."""
        name = name or f"{self.name}/q{self.tokens}"
        effects = self.local(Ask(Post(AgentMessage(kind, ttl=ttl), kind, content, name, (to,)), timeout), now)
        return self.tokens, effects

    def hear(self, source, message, now=0.0):
        return self.event(Received(source, message), now)

    def done(self, *outcomes, now=0.0, busy=False, life=None):
        ids = tuple(str(number) for number in range(len(outcomes)))
        life = self.machine.life if life is None else life
        return self.local(Outbox((Done(life, ids, tuple(outcomes), busy),)), now)


class Kit:
    """What the tests of machines need, by one name."""

    Desk, Directory, Outcome, Mail, Inject = Desk, Directory, Outcome, Mail, Inject
    AgentMessage, MessageType = AgentMessage, MessageType
    Send, Answer, Note, Woken, Unreachable, Received = Send, Answer, Note, Woken, Unreachable, Received
    inf = math.inf

    @staticmethod
    def sent(effects):
        return [effect.message for effect in effects if isinstance(effect, Send)]

    @staticmethod
    def mail(effects):
        found = [e.result for e in effects if isinstance(e, Answer) and isinstance(e.result, Mail)]
        return [message for mail in found for message in mail.messages]

    @staticmethod
    def answers(effects):
        return [
            (e.token, e.result) for e in effects if isinstance(e, Answer) and not isinstance(e.result, Mail)
        ]

    @staticmethod
    def dead(effects):
        return [e.payload["reason"] for e in effects if isinstance(e, Note) and e.kind == "dead_letter"]


@pytest.fixture(scope="session")
def kit():
    return Kit


@pytest.fixture
def pair():
    directory = Directory()
    return Desk(directory, "a"), Desk(directory, "b")
