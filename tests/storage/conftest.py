from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st

from agentflow.core.raft.messages import ConfState, Entry, EntryKind, HardState, Snapshot, Stored, Write
from agentflow.storage import FaultyDisk, MemoryDisk, SqliteDisk


@dataclass
class SlowDisk:
    """What a disk means, as plainly as it can be said: a dict of entries, one rule after the other."""

    hard_state: HardState = field(default_factory=HardState)
    snapshot: Snapshot = field(default_factory=Snapshot)
    entries: dict[int, Entry] = field(default_factory=dict)

    def save(self, write: Write) -> None:
        if write.snapshot is not None:
            at = write.snapshot.index
            same = self.entries.get(at, self.snapshot)
            follows = (same.index, same.term) == (at, write.snapshot.term)
            self.entries = {i: e for i, e in self.entries.items() if follows and i > at}
            self.snapshot = write.snapshot
        if write.entries:
            first = write.entries[0].index
            self.entries = {i: e for i, e in self.entries.items() if i < first}
            self.entries |= {e.index: e for e in write.entries if e.index > self.snapshot.index}
        if write.hard_state is not None:
            self.hard_state = write.hard_state

    def load(self) -> Stored:
        return Stored(self.hard_state, self.snapshot, tuple(self.entries[i] for i in sorted(self.entries)))

    @property
    def last(self) -> int:
        return max(self.entries, default=self.snapshot.index)

    def term_at(self, index: int) -> int:
        return self.entries[index].term if index in self.entries else self.snapshot.term


@st.composite
def histories(draw, most: int = 12) -> list[Write]:
    """Writes that a correct Raft could make, one after the other."""
    model, writes, term = SlowDisk(), [], 0
    for _ in range(draw(st.integers(1, most))):
        term += draw(st.integers(0, 2))
        snapshot, entries, state, compact_to = None, (), None, 0
        shadow = SlowDisk(model.hard_state, model.snapshot, dict(model.entries))
        if draw(st.integers(0, 4)) == 0:
            at = draw(st.integers(model.snapshot.index, model.last + 4))
            own = at in model.entries or at == model.snapshot.index
            snap_term = model.term_at(at) if own and draw(st.booleans()) else max(term, 1)
            conf = ConfState(voters=("m1", "m2", "m3"), learners=draw(st.sampled_from([(), ("m4",)])))
            snapshot = Snapshot(at, max(snap_term, model.snapshot.term), conf, draw(st.binary(max_size=40)))
            shadow.save(Write(snapshot=snapshot))
        if draw(st.integers(0, 3)):
            # Never back into what is committed, but resent entries may begin below a snapshot.
            low = max(1, min(shadow.snapshot.index, model.hard_state.commit + 1))
            first = draw(st.integers(max(low, shadow.last - 3), shadow.last + 1))
            before = shadow.term_at(first - 1) if first > shadow.snapshot.index else 0
            terms = draw(st.lists(st.integers(0, 1), min_size=1, max_size=5))
            top, made = max(before, shadow.snapshot.term), []
            for offset, step in enumerate(terms):
                top = max(top, 1) + step
                kind = draw(st.sampled_from(EntryKind))
                made.append(Entry(first + offset, top, draw(st.binary(max_size=20)), kind))
            entries, term = tuple(made), max(term, top)
            shadow.save(Write(entries=entries))
        term = max(term, shadow.term_at(shadow.last))
        commit = draw(st.integers(0, shadow.last))
        if draw(st.booleans()) or shadow.hard_state.term < term or shadow.hard_state.commit > shadow.last:
            state = HardState(term, draw(st.sampled_from([None, "m1", "m2"])), commit)
        if draw(st.booleans()):
            compact_to = draw(st.integers(0, shadow.snapshot.index))
        write = Write(state, entries, snapshot, compact_to)
        model.save(write)
        writes.append(write)
    return writes


@pytest.fixture
def slow_disk():
    return SlowDisk


@pytest.fixture
def random_writes():
    return histories


class Box:
    """A disk of one kind, and how to come back to it after its node died."""

    def __init__(self, kind: str, folder) -> None:
        self.kind, self.path = kind, folder / "m1.db"
        self.disk = self._open(MemoryDisk("m1"))

    def _open(self, memory):
        if self.kind == "sqlite":
            return SqliteDisk(self.path, "m1")
        return FaultyDisk(memory) if self.kind == "faulty" else memory

    def reopen(self):
        self.disk.close()
        if self.kind == "sqlite":
            self.disk = self._open(None)
        return self.disk


@pytest.fixture(params=["memory", "sqlite", "faulty"])
def box(request, tmp_path):
    made = []

    def fresh(name: str = "0"):
        folder = tmp_path / f"{name}-{len(made)}"
        made.append(Box(request.param, folder))
        return made[-1]

    yield fresh
    for each in made:
        each.disk.close()
