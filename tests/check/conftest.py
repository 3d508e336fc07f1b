"""A trace written by hand, and histories made by a simulated store."""

import random

import pytest

from agentflow.check import Operation
from agentflow.check.history import FOREVER
from agentflow.core.raft.events import (
    CommitAdvanced,
    ConfigChanged,
    EntriesApplied,
    Role,
    RoleChanged,
    SnapshotInstalled,
    Started,
    Voted,
)
from agentflow.core.raft.messages import (
    ConfState,
    Entry,
    HardState,
    Message,
    MessageType,
    Snapshot,
    Stored,
    Write,
)
from agentflow.core.record import Record


class Tape:
    """Writes the records that the host and the masters would write."""

    def __init__(self):
        self.records = []
        self.now = 0.0
        self._writes = {}

    def add(self, node, kind, payload=None, type="", **fields):  # noqa: A002
        record = Record(len(self.records), self.now, node, kind, type=type, payload=payload, **fields)
        self.records.append(record)
        return record

    def members(self, *names):
        for name in names:
            self.add(name, "start", Stored())
            self.add(name, "config", ConfigChanged(0, ConfState(voters=names)))

    def role(self, node, role, term):
        return self.add(node, "role", RoleChanged(Role(role), term))

    def lead(self, node, term):
        return self.role(node, "leader", term)

    def write(self, node, *entries, term=None, vote=None, commit=0, snapshot=None, durable=True):
        hard = None if term is None else HardState(term, vote, commit)
        number = self._writes[node] = self._writes.get(node, 0) + 1
        self.add(node, "persist", Write(hard, entries, snapshot), type=str(number))
        if durable:
            self.add(node, "persisted", type=str(number))
        return number

    def durable(self, node, number):
        return self.add(node, "persisted", type=str(number))

    def commit(self, node, index, term=1):
        return self.add(node, "commit", CommitAdvanced(index, term))

    def apply(self, node, *entries):
        return self.add(node, "apply", EntriesApplied(entries))

    def vote(self, node, candidate, term, granted=True):
        return self.add(node, "vote", Voted(term, candidate, granted))

    def crash(self, node):
        return self.add(node, "crash")

    def restart(self, node, stored=None):
        self._writes[node] = 0
        return self.add(node, "restart", stored)

    def started(self, node, term, last, last_term, commit=0):
        return self.add(node, "start", Started((), term, commit, 0, last, last_term))

    def install(self, node, index, term):
        self.write(node, snapshot=Snapshot(index, term))
        return self.add(node, "snapshot", SnapshotInstalled(index, term, index, index, term))

    def send(self, node, to, type, **fields):  # noqa: A002
        message = Message(MessageType(type), to, node, **fields)
        return self.add(node, "send", message, type=message.type, source=node, destination=to)


@pytest.fixture
def tape():
    return Tape()


@pytest.fixture
def entry():
    def make(index, term, data=None):
        return Entry(index, term, f"{index}.{term}".encode() if data is None else data)

    return make


def simulate(seed, *, clients, keys, total, mix, unique=True, initial="", pending=0.0, bug=None, values=5):
    """Run clients against a store that takes each operation at one instant; return what they saw.

    `bug` spoils about one operation in fifty, from a third of the history on: `stale` answers a get with
    the value before the last one, as it was before the get began; `lost` drops an acknowledged change;
    `twice` appends twice.
    """
    rng = random.Random(seed)
    asked = []
    for client in range(clients):
        now = rng.uniform(0, 50)
        for number in range(total // clients):
            start, end = now, now + rng.uniform(1, 50)
            (function,) = rng.choices(("get", "append", "put", "cas"), mix)
            argument = f"x {client} {number} y" if unique else str(rng.randrange(values))
            if function == "cas":
                argument = (str(rng.randrange(values)), argument)
            effect = rng.uniform(start, end)
            asked.append((effect, client, function, str(rng.randrange(keys)), argument, start, end))
            now = end + rng.uniform(0, 2)
    asked.sort()
    state, past, seen, spoiled = {}, {}, [], 0
    for at, (effect, client, function, key, argument, start, end) in enumerate(asked):
        value = state.get(key, initial)
        spoil = bug and at > len(asked) // 3 and rng.random() < 0.02
        vanishes = rng.random() < pending
        result = None
        if function == "get":
            result = value
            older = [each for when, each in past.get(key, ()) if when < start]
            if spoil and bug == "stale" and len(older) > 2 and older[-2] not in (value, older[-1]):
                result, spoiled = older[-2], spoiled + 1
        elif function != "cas" and spoil and bug == "lost":
            spoiled += 1
        elif vanishes and rng.random() < 0.5:
            pass
        elif function == "append":
            state[key] = (value or "") + argument
            if spoil and bug == "twice":
                state[key] += argument
                spoiled += 1
        elif function == "put":
            state[key] = argument
        else:
            result = value == argument[0]
            if result:
                state[key] = argument[1]
        past.setdefault(key, []).append((effect, state.get(key, initial)))
        del past[key][:-40]
        argument = None if function == "get" else argument
        seen.append(Operation(client, function, argument, result, start, FOREVER if vanishes else end, key))
    return seen, spoiled


@pytest.fixture(name="simulate")
def simulate_fixture():
    return simulate
