"""A small network of Raft machines for tests: every message, write and tick is in the test's hand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from agentflow.core.raft import (
    Applied,
    Campaign,
    Compact,
    ConfigChange,
    ConfigChanged,
    Entry,
    EntryKind,
    HardState,
    Message,
    MessageType,
    Persisted,
    Propose,
    ProposeConfig,
    RaftConfig,
    RaftMachine,
    Read,
    ReadState,
    Ready,
    Receive,
    Role,
    RoleChanged,
    Snapshot,
    Stored,
    Woken,
    Write,
)

TICK = 1.0
ELECTION = 10


def settings(**changes: Any) -> RaftConfig:
    """Return etcd's test settings: an election time-out of 10 ticks, drawn up to 20, and a beat each tick."""
    plain = {
        "election_timeout_ms": 1000 * ELECTION,
        "heartbeat_interval_ms": 1000,
        "election_spread": (1.0, 2.0),
        "pre_vote": False,
        "check_quorum": False,
        "step_down_on_removal": False,
    }
    return RaftConfig(**{**plain, **changes})


def entry(index: int, term: int, data: bytes = b"") -> Entry:
    return Entry(index, term, data)


def log_of(*terms: int) -> tuple[Entry, ...]:
    """Return entries of these terms, from index 1 on."""
    return tuple(Entry(index, term, b"%d.%d" % (term, index)) for index, term in enumerate(terms, 1))


_NOTHING = Stored()


class Disk:
    """What survives a crash. Writes are done in order, some now, some when the test says so."""

    def __init__(self, stored: Stored = _NOTHING) -> None:
        self.stored = stored
        self.pending: list[tuple[int, Write]] = []

    def save(self, write: Write) -> None:
        hard, snapshot, entries = self.stored.hard_state, self.stored.snapshot, list(self.stored.entries)
        if write.snapshot is not None:
            taken = write.snapshot
            assert taken.index >= snapshot.index, "a snapshot never goes back"
            known = {(item.index, item.term) for item in entries} | {(snapshot.index, snapshot.term)}
            follows = (taken.index, taken.term) in known
            entries = [item for item in entries if item.index > taken.index] if follows else []
            snapshot = taken
        if write.entries:
            first = write.entries[0].index
            assert first <= snapshot.index + len(entries) + 1, "no gap"
            entries = [item for item in entries if item.index < first]
            entries += [item for item in write.entries if item.index > snapshot.index]
        if write.hard_state is not None:
            assert write.hard_state.term >= hard.term, "a term never goes back"
            hard = write.hard_state
        self.stored = Stored(hard, snapshot, tuple(entries))


class Net:
    """Machines, their disks, and the messages between them.

    `run` carries everything to its end; `step` one node's work; what is in `queue` may be looked at,
    dropped, doubled and reordered meanwhile.
    """

    def __init__(self, ids: Iterable[str], seed: int = 0, **changes: Any) -> None:
        self.ids = tuple(ids)
        self.config = settings(peers=self.ids, **changes)
        self.seed = seed
        self.now = 0.0
        self.queue: list[Message] = []
        self.cut: set[tuple[str, str]] = set()
        self.slow: set[str] = set()
        self.idle: set[str] = set()
        self.disks: dict[str, Disk] = {}
        self.nodes: dict[str, RaftMachine] = {}
        self.applied: dict[str, list[Entry]] = defaultdict(list)
        self.reads: dict[str, list[ReadState]] = defaultdict(list)
        self.lost: dict[str, list[bytes]] = defaultdict(list)
        self.events: dict[str, list[Any]] = defaultdict(list)
        self.leaders: dict[int, str] = {}
        self.chosen: dict[int, Entry] = {}
        self.confs: dict[int, Any] = {}
        self._held: dict[str, dict[int, tuple[Message, ...]]] = defaultdict(dict)
        self._config_of: dict[str, RaftConfig] = {}
        for node in self.ids:
            self.add(node)

    # --- nodes --------------------------------------------------------------------------------------------

    def add(self, node: str, stored: Stored = _NOTHING, **changes: Any) -> RaftMachine:
        self.disks[node] = Disk(stored)
        config = self.config.replace(**changes) if changes else self.config
        return self._start(node, config)

    def join(self, node: str) -> RaftMachine:
        return self.add(node, join=True)

    def _start(self, node: str, config: RaftConfig) -> RaftMachine:
        stored = self.disks[node].stored
        machine = RaftMachine(node, config, stored=stored, seed=self.seed, now=self.now)
        self.nodes[node] = machine
        self.applied[node] = list(self.contents(stored.snapshot))
        return machine

    def crash(self, node: str, *, keep_writes: int = 0) -> None:
        """Lose what the node had in memory, and of its writes under way all but the first few."""
        disk = self.disks[node]
        for _, write in disk.pending[:keep_writes]:
            disk.save(write)
        disk.pending.clear()
        self._config_of[node] = self.nodes.pop(node).config

    def restart(self, node: str) -> RaftMachine:
        if node in self.nodes:
            self.crash(node)
        return self._start(node, self._config_of[node])

    def __getitem__(self, node: str) -> RaftMachine:
        return self.nodes[node]

    @property
    def leader(self) -> RaftMachine | None:
        leaders = [node for node in self.nodes.values() if node.is_leader]
        return max(leaders, key=lambda node: node.term, default=None)

    # --- the wire -----------------------------------------------------------------------------------------

    def isolate(self, *nodes: str) -> None:
        """Cut these off from everybody else, both ways."""
        others = [node for node in {*self.nodes, *self.ids} if node not in nodes]
        self.cut |= {(a, b) for a in nodes for b in others} | {(b, a) for a in nodes for b in others}

    def heal(self) -> None:
        self.cut.clear()

    def take(
        self, to: str | None = None, source: str | None = None, kind: MessageType | None = None
    ) -> list[Message]:
        """Take matching messages out of the queue."""
        taken = [
            message
            for message in self.queue
            if to in (None, message.to) and source in (None, message.source) and kind in (None, message.type)
        ]
        self.queue = [message for message in self.queue if not any(message is other for other in taken)]
        return taken

    def deliver(self, messages: Iterable[Message] | None = None) -> None:
        """Deliver these messages, or all that are in the queue now, in order."""
        if messages is None:
            messages, self.queue = self.queue, []
        for message in messages:
            if message.to in self.nodes and (message.source, message.to) not in self.cut:
                self.handle(message.to, Receive(message))

    # --- work ---------------------------------------------------------------------------------------------

    def handle(self, node: str, event: Any) -> None:
        machine = self.nodes[node]
        machine.handle(event, self.now)
        machine.check_invariants()

    def step(self, node: str) -> bool:
        """Do one turn of a node's work; True if there was any."""
        ready = self.nodes[node].ready()
        if ready is None:
            return False
        self.perform(node, ready)
        return True

    def perform(self, node: str, ready: Ready) -> None:
        for event in ready.events:
            self._note(node, event)
        self.queue += ready.messages
        if ready.persist is not None:
            disk = self.disks[node]
            if node in self.slow:
                disk.pending.append((ready.persist.id, ready.persist.write))
                self._held[node][ready.persist.id] = ready.messages_after
            else:
                disk.save(ready.persist.write)
                self.handle(node, Persisted(ready.persist.id))
                self.queue += ready.messages_after
        else:
            assert not ready.messages_after, "what waits, waits for a write"
        if ready.snapshot is not None:
            self.applied[node] = list(self.contents(ready.snapshot))
        self.reads[node] += ready.reads
        self.lost[node] += ready.lost_reads
        self._apply(node, ready.committed)

    def sync(self, node: str, count: int | None = None) -> None:
        """Complete writes of a slow disk, all of them or the first few."""
        pending = self.disks[node].pending
        for _ in range(len(pending) if count is None else count):
            number, write = pending.pop(0)
            self.disks[node].save(write)
            self.handle(node, Persisted(number))
            self.queue += self._held[node].pop(number)

    def _apply(self, node: str, entries: tuple[Entry, ...]) -> None:
        if not entries:
            return
        have = self.applied[node]
        for item in entries:
            assert item.index == self.position(have) + 1, f"{node} applies in order"
            have.append(item)
            chosen = self.chosen.setdefault(item.index, item)
            assert chosen == item, f"{node} applies {item} where {chosen} was applied"
            stored = self.config.apply_before_durable or self._holds(node, item.index, item.term)
            assert stored, f"{node} applies {item}, which is not on its disk"
        if node not in self.idle:
            self.handle(node, Applied(entries[-1].index))

    def _note(self, node: str, event: Any) -> None:
        self.events[node].append(event)
        if isinstance(event, RoleChanged) and event.role is Role.LEADER:
            other = self.leaders.setdefault(event.term, node)
            assert other == node, f"{node} and {other} lead in term {event.term}"
        if isinstance(event, ConfigChanged) and event.index:
            conf = self.confs.setdefault(event.index, event.conf)
            assert conf == event.conf, f"{node} puts another configuration in force at {event.index}"

    def run(self, limit: int = 2000) -> Net:
        """Carry everything to its end: all work, all messages, all of it that can happen without time."""
        for _ in range(limit):
            busy = sum(self.step(node) for node in list(self.nodes)) > 0
            if self.queue:
                self.deliver()
                busy = True
            if not busy:
                return self
        raise AssertionError("the network does not come to rest")

    def tick(self, *nodes: str, times: int = 1) -> None:
        """Let a tick pass for these nodes, or for all."""
        for _ in range(times):
            self.now += TICK
            for node in nodes or list(self.nodes):
                self.handle(node, Woken())

    # --- requests -----------------------------------------------------------------------------------------

    def campaign(self, node: str) -> Net:
        self.handle(node, Campaign())
        return self

    def elect(self, node: str) -> RaftMachine:
        self.campaign(node).run()
        assert self[node].is_leader, f"{node} should lead: {self[node]}"
        return self[node]

    def propose(self, node: str, *data: bytes) -> int:
        self.handle(node, Propose(data or (b"x",)))
        return self[node].last_index

    def change(self, node: str, **change: Any) -> int:
        self.handle(node, ProposeConfig(ConfigChange.of(**change)))
        return self[node].last_index

    def read(self, node: str, context: bytes) -> None:
        self.handle(node, Read(context))

    # --- state --------------------------------------------------------------------------------------------

    @staticmethod
    def contents(snapshot: Snapshot) -> list[Entry]:
        """A snapshot's data is the number of the state it stands for: one marker entry."""
        if snapshot.index == 0:
            return []
        return [Entry(snapshot.index, snapshot.term, b"snapshot " + snapshot.data)]

    @staticmethod
    def position(entries: list[Entry]) -> int:
        return entries[-1].index if entries else 0

    def commands(self, node: str) -> list[bytes]:
        """Return the users' commands that a node has applied in this life."""
        return [item.data for item in self.applied[node] if item.data and item.kind is EntryKind.NORMAL]

    def compact(self, node: str, index: int | None = None, keep: int = 0) -> None:
        machine = self[node]
        self.handle(node, Compact(machine.applied if index is None else index, b"state", keep))

    def logs(self) -> dict[str, list[tuple[int, int]]]:
        return {
            node: [(item.index, item.term) for item in machine.log.entries(machine.log.first)]
            for node, machine in self.nodes.items()
        }

    def check_committed_stored(self) -> None:
        """Assert that what anybody calls committed is on a quorum of disks (configurations aside)."""
        for machine in self.nodes.values():
            if machine.conf.voters_outgoing:
                continue
            voters = machine.conf.voters
            commit = machine.commit
            term = machine.log.term(commit)
            if not commit or term is None:
                continue
            holders = [voter for voter in voters if self._holds(voter, commit, term)]
            assert len(holders) > len(voters) // 2, (
                f"{machine.id} calls {commit} committed, stored by {holders} of {voters}"
            )

    def _holds(self, node: str, index: int, term: int) -> bool:
        stored = self.disks[node].stored
        if index <= stored.snapshot.index:
            return True
        position = index - stored.snapshot.index - 1
        return position < len(stored.entries) and stored.entries[position].term == term


class Solo:
    """One machine whose peers the test plays itself."""

    def __init__(self, **changes: Any) -> None:
        stored = changes.pop("stored", None)
        log = changes.pop("log", ())
        term = changes.pop("term", log[-1].term if log else 0)
        commit = changes.pop("commit", 0)
        vote = changes.pop("vote", None)
        size = changes.pop("size", 3)
        seed = changes.pop("seed", 0)
        applied = changes.pop("applied", None)
        peers = changes.pop("peers", [str(number) for number in range(1, size + 1)])
        self.id = changes.pop("id", "1")
        if stored is None:
            stored = Stored(HardState(term, vote, commit), Snapshot(), tuple(log))
        self.now = 0.0
        self.machine = RaftMachine(
            self.id, settings(peers=peers, **changes), stored=stored, seed=seed, applied=applied
        )
        self.sent: list[Message] = []
        self.committed: list[Entry] = []
        self.events: list[Any] = []
        self.reads: list[ReadState] = []
        self.lost: list[bytes] = []
        self.writes: list[Write] = []
        self.work()
        self.sent.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.machine, name)

    def do(self, event: Any) -> Solo:
        """Give an event and do all the work it makes."""
        self.machine.handle(event, self.now)
        self.machine.check_invariants()
        return self.work()

    def work(self) -> Solo:
        while (ready := self.machine.ready()) is not None:
            self.sent += ready.messages
            if ready.persist is not None:
                self.writes.append(ready.persist.write)
                self.machine.handle(Persisted(ready.persist.id), self.now)
            self.sent += ready.messages_after
            self.committed += ready.committed
            self.events += ready.events
            self.reads += ready.reads
            self.lost += ready.lost_reads
            if ready.committed:
                self.machine.handle(Applied(ready.committed[-1].index), self.now)
            self.machine.check_invariants()
        return self

    def get(self, kind: MessageType, source: str = "2", term: int | None = None, **fields: Any) -> Solo:
        """Receive a message of this type, by default of the machine's own term."""
        number = self.machine.term if term is None else term
        return self.do(Receive(Message(kind, self.id, source, number, **fields)))

    def take(self, kind: MessageType | None = None) -> list[Message]:
        """Return what was sent, of one type or all, and forget it."""
        found = [message for message in self.sent if kind in (None, message.type)]
        self.sent.clear()
        return found

    def tick(self, times: int = 1) -> Solo:
        for _ in range(times):
            self.now += TICK
            self.do(Woken())
        return self

    def candidate(self) -> Solo:
        self.do(Campaign())
        assert self.machine.role is Role.CANDIDATE or self.machine.is_leader
        return self

    def lead(self, *, acked: bool = True) -> Solo:
        """Become leader by the others' votes; have the no-op acknowledged by all if `acked`."""
        self.candidate()
        for voter in self.machine.tracker.voters:
            if not self.machine.is_leader:
                self.get(MessageType.VOTE_RESP, voter)
        assert self.machine.is_leader
        if acked:
            self.ack_all()
        self.sent.clear()
        return self

    def ack_all(self) -> Solo:
        for member in self.machine.tracker.progress:
            if member != self.id:
                self.get(MessageType.APP_RESP, member, index=self.machine.last_index)
        return self


@pytest.fixture
def net() -> Callable[..., Net]:
    """Return a maker of networks: `net(3)`, `net("abc", pre_vote=True)`."""

    def make(ids: int | Iterable[str] = 3, **changes: Any) -> Net:
        names = [str(number) for number in range(1, ids + 1)] if isinstance(ids, int) else list(ids)
        return Net(names, **changes)

    return make


@pytest.fixture
def solo() -> type[Solo]:
    """Return the class of single machines."""
    return Solo


@pytest.fixture
def make_log() -> Callable[..., tuple[Entry, ...]]:
    """Return a maker of logs from terms."""
    return log_of
