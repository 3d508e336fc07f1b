"""Small machines and disks that the tests of the runtime share."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from agentflow.core.machine import Answer, Effect, Event, Local, Note, Persist, Received, Send, Woken
from agentflow.runtime.host import Host
from agentflow.runtime.trace import Trace
from agentflow.transport.memory import Network


class Ping(msgspec.Struct, frozen=True):
    number: int


class Scripted:
    """Does what a function of (machine, event, now) says, and remembers what it saw."""

    def __init__(self, react: Callable[[Scripted, Event, float], None]) -> None:
        self.react = react
        self.deadline = math.inf
        self.seen: list[tuple[float, Event]] = []
        self.turns = 0
        self.effects: list[Effect] = []

    def handle(self, event: Event, now: float) -> None:
        self.seen.append((now, event))
        self.react(self, event, now)

    def ready(self) -> list[Effect]:
        self.turns += 1
        effects, self.effects = self.effects, []
        return effects


class Echo(Scripted):
    """Answers each message with its successor, up to a limit; asked, it sends the first."""

    def __init__(self, peer: str, limit: float = math.inf) -> None:
        self.peer = peer
        self.limit = limit
        super().__init__(Echo.echo)

    @staticmethod
    def echo(self: Echo, event: Event, now: float) -> None:
        if isinstance(event, Local):
            self.effects += [Send(self.peer, Ping(0)), Answer(event.token, "sent")]
        elif isinstance(event, Received) and event.message.number < self.limit:
            self.effects.append(Send(event.source, Ping(event.message.number + 1)))


class Ticker(Scripted):
    """Wakes every `every` seconds, notes its own time and tells its peers."""

    def __init__(self, every: float, peers: tuple[str, ...] = (), now: float = 0.0) -> None:
        self.every = every
        self.peers = peers
        super().__init__(Ticker.tick)
        self.deadline = now + every

    @staticmethod
    def tick(self: Ticker, event: Event, now: float) -> None:
        if isinstance(event, Woken):
            self.deadline += self.every
            self.effects.append(Note("tick", round(now, 9)))
            self.effects += [Send(peer, Ping(len(self.seen))) for peer in self.peers]


class Keeper(Scripted):
    """Persists what it is asked to keep, and says `kept` to its peer once that is durable."""

    def __init__(self, stored: Any, peer: str) -> None:
        self.kept = list(stored or [])
        self.peer = peer
        self.writes = 0
        super().__init__(Keeper.keep)

    @staticmethod
    def keep(self: Keeper, event: Event, now: float) -> None:
        if isinstance(event, Local):
            self.writes += 1
            self.effects += [
                Persist(self.writes, event.request),
                Send(self.peer, Ping(event.request), after=self.writes),
                Answer(event.token, "taken"),
            ]


class ListDisk:
    """Keeps every write in a list."""

    blocking = False

    def __init__(self) -> None:
        self.writes: list[Any] = []
        self.broken = ""

    def load(self) -> list[Any] | None:
        return list(self.writes) or None

    def save(self, write: Any) -> None:
        if self.broken:
            raise OSError(self.broken)
        self.writes.append(write)


@pytest.fixture
def kit() -> SimpleNamespace:
    """Return the machines and a maker of hosts."""

    def host(**network: Any) -> Host:
        return Host(trace=Trace(), network=Network(**network))

    def kinds(host: Host, *wanted: str) -> list[Any]:
        return [record for record in host.trace if record.kind in wanted]

    return SimpleNamespace(
        Ping=Ping,
        Scripted=Scripted,
        Echo=Echo,
        Ticker=Ticker,
        Keeper=Keeper,
        ListDisk=ListDisk,
        host=host,
        kinds=kinds,
    )
