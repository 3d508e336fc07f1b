"""Masters, workers and clients on a bench: no host, no network, a clock moved by hand."""

from collections import deque

import pytest

from agentflow.core.control.commands import (
    Completion,
    RegisterWorker,
    Report,
    Settlement,
    SubmitRun,
    TaskOptions,
)
from agentflow.core.machine import Note, Persist, Persisted, Received, Send, Woken
from agentflow.core.nodes.client import Client
from agentflow.core.nodes.master import Master, MasterConfig
from agentflow.core.nodes.messages import Ask, Enrol
from agentflow.core.nodes.worker import Worker
from agentflow.core.raft import RaftConfig, Stored


class Driven:
    """One machine, driven through its door; what comes out is kept in `effects`."""

    def __init__(self, machine):
        self.machine = machine
        self.now = 0.0
        self.effects = []

    def take(self, event, at=None):
        """Hand over an event and give the effects of that turn."""
        self.now = self.now if at is None else at
        self.machine.handle(event, self.now)
        effects = list(self.machine.ready())
        self.effects += effects
        if hasattr(self.machine, "check_invariants"):
            self.machine.check_invariants()
        return effects

    def hear(self, source, message, at=None):
        return self.take(Received(source, message), at)

    def wake(self, at=None):
        return self.take(Woken(), self.machine.deadline if at is None else at)

    def all(self, kind):
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def sent(self, kind):
        return [effect.message for effect in self.all(Send) if isinstance(effect.message, kind)]

    def notes(self, kind):
        return [effect.payload for effect in self.all(Note) if effect.kind == kind]


class Council:
    """Masters that hear one another at once, as far as they are not cut off, and outsiders who listen."""

    def __init__(self, *names, offline_after=1.0, reorder_after=0.4):
        raft = RaftConfig.fast(peers=names, replication_timeout_ms=2000)
        config = MasterConfig(raft, offline_after=offline_after, reorder_after=reorder_after)
        self.now = 0.0
        self.masters = {
            name: Master(name, config, stored=Stored(), seed=number, now=0.0)
            for number, name in enumerate(names)
        }
        self.cut = set()
        self.heard = []
        self.notes = []
        self._wire = deque()

    def tell(self, source, to, message):
        """Have an outsider send a master something; let everything happen that follows at once."""
        self._wire.append((source, to, message))
        self.settle()

    def settle(self):
        busy = True
        while busy:
            busy = False
            for name in self.masters:
                busy = self._turn(name) or busy
            while self._wire:
                busy = True
                source, to, message = self._wire.popleft()
                if to not in self.masters:
                    self.heard.append((source, to, message))
                elif source not in self.masters or not {source, to} & self.cut:
                    self.masters[to].handle(Received(source, message), self.now)

    def _turn(self, name):
        master = self.masters[name]
        effects = master.ready()
        for effect in effects:
            if isinstance(effect, Persist):
                master.handle(Persisted(effect.id), self.now)
        for effect in effects:
            if isinstance(effect, Send):
                self._wire.append((name, effect.to, effect.message))
            elif isinstance(effect, Note):
                self.notes.append((name, effect.kind, effect.payload))
        master.check_invariants()
        return bool(effects)

    def pass_time(self, seconds):
        """Let time pass, timer by timer."""
        end = self.now + seconds
        while True:
            name = min(self.masters, key=lambda each: self.masters[each].deadline)
            due = self.masters[name].deadline
            if due > end:
                self.now = end
                return
            self.now = max(self.now, due)
            self.masters[name].handle(Woken(), self.now)
            self.settle()

    def elect(self):
        while not self.leader:
            self.pass_time(0.05)
        return self.leader

    @property
    def leader(self):
        serving = [m for m in self.masters.values() if m.is_serving]
        return max(serving, key=lambda m: m.raft.term).id if serving else None

    def answers(self, to, kind=object):
        return [message for _, other, message in self.heard if other == to and isinstance(message, kind)]

    # --- what outsiders say -------------------------------------------------------------------------------

    def enrol(self, worker="worker-1", epoch=1, slots=4):
        self.tell(worker, self.elect(), Enrol(RegisterWorker(worker, epoch, slots=slots)))

    def submit(self, tasks, number=1, key="k", options=None, client="c"):
        """Submit tasks given as {id: [ids it waits for]}."""
        at = {task: i for i, task in enumerate(tasks)}
        command = SubmitRun(
            key=key,
            name="flow",
            ids=tuple(tasks),
            dependencies=tuple(tuple(at[d] for d in needs) for needs in tasks.values()),
            options=(options or TaskOptions(),),
        )
        self.tell(client, self.elect(), Ask(number, number, command))

    def report(self, *attempts, worker="worker-1", epoch=1, to=None, source=None):
        done = tuple(Completion(attempt, Settlement.COMPLETED, 0.0, 0.1) for attempt in attempts)
        self.tell(source or worker, to or self.elect(), Report(worker, epoch, done))


@pytest.fixture
def council():
    return Council


@pytest.fixture
def worker():
    def make(masters=("m1", "m2", "m3"), heartbeat=0.2):
        return Driven(Worker(RegisterWorker("w1", 7), masters, heartbeat, 0.0))

    return make


@pytest.fixture
def client():
    def make(masters=("m1", "m2", "m3"), retry=0.3, first=1):
        return Driven(Client("c", masters, retry, first))

    return make
