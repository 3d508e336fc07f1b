"""What the Raft labs of MIT 6.5840 ask of a server, and their harness, in virtual time.

A server takes commands with `start`, applies what is committed in order, keeps a snapshot every ten entries
where that is asked for, and survives crashes by its disk. The harness connects and disconnects servers,
counts calls, and checks every applied command against what the other servers applied at that index.

The scenarios are told here anew, after the names and budgets of the labs.
"""

import json
import random

import pytest

from agentflow.check import judge_raft
from agentflow.core.machine import Answer, Local, Note, Received, Send, Unreachable
from agentflow.core.raft import (
    Applied,
    Compact,
    EntryKind,
    Message,
    MessageType,
    Propose,
    RaftConfig,
    RaftMachine,
    Receive,
    Stored,
)
from agentflow.core.raft import Unreachable as PeerUnreachable
from agentflow.errors import Refused
from agentflow.runtime.host import Host
from agentflow.runtime.trace import Trace
from agentflow.runtime.virtual import VirtualDriver
from agentflow.storage.memory import MemoryDisk
from agentflow.transport.memory import Network

CALLS = {
    kind.value
    for kind in (
        *(MessageType.APP, MessageType.HEARTBEAT, MessageType.VOTE, MessageType.PRE_VOTE),
        *(MessageType.SNAP, MessageType.TIMEOUT_NOW),
    )
}
"""What counts as a call of another server; the rest are answers."""

SNAPSHOT_EVERY = 10


class Server:
    """One server: Raft, what it applied, and its snapshots."""

    def __init__(self, lab, node_id, stored, now):
        self.lab = lab
        self.id = node_id
        self.raft = RaftMachine(
            node_id, lab.config, stored=stored or Stored(), seed=lab.rng.randrange(1 << 30), now=now
        )
        self.applied = {}
        self.now = now
        self.effects = []
        self.take_snapshot(self.raft.log.snapshot)

    @property
    def deadline(self):
        return self.raft.deadline

    def handle(self, event, now):
        self.now = now
        if isinstance(event, Received):
            assert isinstance(event.message, Message)
            self.raft.handle(Receive(event.message), now)
        elif isinstance(event, Local):
            try:
                self.raft.handle(Propose(event.request), now)
                answer = (self.raft.last_index, self.raft.term)
            except Refused:
                answer = None
            self.effects.append(Answer(event.token, answer))
        elif isinstance(event, Unreachable):
            self.raft.handle(PeerUnreachable(event.peer), now)
        else:
            self.raft.handle(event, now)

    def ready(self):
        while (ready := self.raft.ready()) is not None:
            after = None
            if ready.persist is not None:
                after = ready.persist.id
                self.effects.append(ready.persist)
            self.effects += [Send(message.to, message) for message in ready.messages]
            self.effects += [Send(message.to, message, after) for message in ready.messages_after]
            self.effects += [Note(event.__struct_config__.tag, event) for event in ready.events]
            if ready.snapshot is not None:
                self.take_snapshot(ready.snapshot)
            if ready.committed:
                self.apply(ready.committed)
        effects, self.effects = self.effects, []
        return effects

    def take_snapshot(self, snapshot):
        if snapshot.data:
            self.applied = {int(index): command for index, command in json.loads(snapshot.data).items()}
            for index, command in self.applied.items():
                self.lab.agreed(self.id, index, command)

    def apply(self, entries):
        for entry in entries:
            if entry.kind is EntryKind.NORMAL and entry.data:
                self.applied[entry.index] = json.loads(entry.data)
                self.lab.agreed(self.id, entry.index, self.applied[entry.index])
        last = entries[-1].index
        self.raft.handle(Applied(last), self.now)
        if self.lab.snapshots and last // SNAPSHOT_EVERY > self.raft.log.snapshot.index // SNAPSHOT_EVERY:
            self.raft.handle(Compact(last, json.dumps(self.applied).encode()), self.now)


class Lab:
    """A few servers, and the wires between them."""

    def __init__(self, count, *, seed, unreliable=False, long_reordering=False, snapshots=False):
        self.rng = random.Random(seed)
        self.snapshots = snapshots
        self.names = [f"s{number}" for number in range(count)]
        self.config = RaftConfig.fast(
            peers=self.names,
            heartbeat_interval_ms=100,
            election_timeout_ms=500,
            max_inflight_messages=4,  # what comes while so many are under way goes out together
            snapshot_timeout_ms=500,  # the wires lose snapshots too
        )
        self.network = Network(latency_ms=(0.1, 0.5))
        self.host = Host(trace=Trace(limit=None), network=self.network)
        self.driver = VirtualDriver(self.host, seed)
        self.committed = {}
        self.away = set()
        self.unreliable(unreliable, long_reordering)
        for name in self.names:
            self.host.add(name, self.make, MemoryDisk(name))

    def make(self, node_id, stored, incarnation, now):
        return Server(self, node_id, stored, now)

    def agreed(self, name, index, command):
        """A server applied a command: no other may have applied another at that index."""
        known = self.committed.setdefault(index, command)
        assert known == command, f"{name} applied {command!r} at {index}, another {known!r}"

    # --- what happens to servers --------------------------------------------------------------------------

    def unreliable(self, yes, long_reordering=False):
        self.network.latency_ms = (0, 26) if yes else (0.1, 0.5)
        self.network.loss = 0.1 if yes else 0.0
        self.network.reorder = 0.6 if long_reordering else 0.0
        self.network.reorder_ms = 2200.0

    def disconnect(self, *names):
        self.away |= set(names)
        self._rewire()

    def connect(self, *names):
        self.away -= set(names)
        self._rewire()

    def _rewire(self):
        self.network.heal()
        for name in sorted(self.away):
            self.network.isolate(name)

    def crash(self, *names):
        for name in names:
            self.host.crash(name)

    def restart(self, *names):
        for name in names:
            self.host.restart(name)

    def wait(self, seconds):
        self.driver.run_for(seconds)

    # --- what is asked of them ----------------------------------------------------------------------------

    def server(self, name):
        return self.host.machine(name)

    @property
    def up(self):
        return [name for name in self.names if self.host.state(name) == "up" and name not in self.away]

    def start(self, name, *commands):
        """Give a server commands; return (index of the last, term), or None if it does not lead."""
        answers = []
        data = tuple(json.dumps(command).encode() for command in commands)
        self.host.ask(name, data, lambda answer, final: answers.append(answer))
        self.driver.settle()
        return answers[0] if answers and isinstance(answers[0], tuple) else None

    def leaders(self):
        """Those who lead, by term."""
        found = {}
        for name in self.up:
            if self.server(name).raft.is_leader:
                found.setdefault(self.server(name).raft.term, []).append(name)
        return found

    def check_one_leader(self):
        """Wait for a leader; give it. Two of one term may never be."""
        for _ in range(10):
            self.wait(0.45)
            found = self.leaders()
            assert all(len(names) == 1 for names in found.values()), f"two leaders of a term: {found}"
            if found:
                return found[max(found)][0]
        raise AssertionError("there is no leader")

    def check_no_leader(self):
        assert not self.leaders()

    def check_terms(self):
        terms = {self.server(name).raft.term for name in self.up}
        assert len(terms) == 1, f"servers disagree on the term: {terms}"
        return terms.pop()

    def n_committed(self, index):
        """How many servers applied something at an index, and what."""
        applied = [
            self.server(name).applied[index]
            for name in self.names
            if self.server(name) is not None and index in self.server(name).applied
        ]
        return len(applied), applied[0] if applied else None

    def one(self, command, expected, *, retry=True):
        """Have a command agreed upon by so many servers within ten seconds; give its index."""
        end = self.driver.now + 10
        while self.driver.now < end:
            given = next((found for name in self.up if (found := self.start(name, command))), None)
            if given is None:
                self.wait(0.05)
                continue
            until = self.driver.now + 2
            while self.driver.now < until:
                count, found = self.n_committed(given[0])
                if count >= expected and found == command:
                    return given[0]
                self.wait(0.02)
            assert retry, f"no agreement on {command!r}"
        raise AssertionError(f"no agreement on {command!r}")

    def commands(self):
        """What was committed, in order."""
        return [self.committed[index] for index in sorted(self.committed)]

    # --- what it cost -------------------------------------------------------------------------------------

    def calls(self, source=None, since=0.0):
        """Calls made so far."""
        return sum(
            record.kind == "send"
            and record.type in CALLS
            and record.time >= since
            and source in (None, record.source)
            for record in self.host.trace
        )

    def sent_bytes(self, since=0.0):
        """Bytes of commands sent."""
        return sum(
            len(entry.data)
            for record in self.host.trace
            if record.kind == "send" and record.time >= since
            for entry in record.payload.entries
        )

    def log_bytes(self):
        """The longest log in memory."""
        logs = [self.server(name).raft.log for name in self.names if self.server(name) is not None]
        return max(sum(len(entry.data) for entry in log.entries(log.base + 1, log.last + 1)) for log in logs)

    def end(self):
        """Judge the whole run."""
        verdict = judge_raft(self.host.trace, voters=self.names, now=self.driver.now)
        assert verdict, verdict
        for name in self.names:
            if self.server(name) is not None:
                self.server(name).raft.check_invariants()


@pytest.fixture(params=[1, 2, 3], ids="seed-{}".format)
def lab(request):
    """Make labs, each judged at the end."""
    made = []

    def make(count, **options):
        made.append(Lab(count, seed=request.param, **options))
        return made[-1]

    yield make
    for each in made:
        each.end()
