"""A disk in memory: what the simulator runs on, and a live cluster that need not outlive its kernel.

Law: it outlives its node. A killed node's `MemoryDisk` is its disk; a restart reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentflow.core.raft.messages import Entry, HardState, Snapshot, Stored, Write
from agentflow.storage.base import check_stored, check_write, pack, unpack

_NOTHING = pack({})


class MemoryDisk:
    """A disk that lasts as long as this object.

    Parameters
    ----------
    name : str
        What messages call it.

    Examples
    --------
    >>> disk = MemoryDisk("master-1")
    >>> disk.save(Write(hard_state=HardState(term=1, vote="master-1"), entries=(Entry(index=1, term=1),)))
    >>> disk.load().hard_state.vote, len(disk.load().entries)
    ('master-1', 1)
    """

    blocking = False

    __slots__ = ("_entries", "_hard_state", "_snapshot", "_stable", "name")

    def __init__(self, name: str = "memory") -> None:
        self.name = name
        self._hard_state = HardState()
        self._snapshot = Snapshot()
        self._entries: list[Entry] = []
        self._stable = _NOTHING

    def __repr__(self) -> str:
        base = self._snapshot.index
        return f"<MemoryDisk {self.name}: entries {base + 1} to {base + len(self._entries)}>"

    def load(self) -> Stored:
        """Return everything stored."""
        return check_stored(Stored(self._hard_state, self._snapshot, tuple(self._entries)), self.name)

    def save(self, write: Write) -> None:
        """Keep one write."""
        base = self._snapshot.index
        follows = write.snapshot is not None and self._follows(write.snapshot)
        check_write(write, base, base + len(self._entries), follows)
        if write.snapshot is not None:
            # What the snapshot covers goes; what comes after stays only if it follows this very snapshot.
            self._entries = self._entries[write.snapshot.index - base :] if follows else []
            self._snapshot = write.snapshot
        if write.entries:
            position = write.entries[0].index - self._snapshot.index - 1
            if position == len(self._entries):
                self._entries.extend(write.entries)
            else:
                self._entries[max(position, 0) :] = write.entries[max(-position, 0) :]
        if write.hard_state is not None:
            self._hard_state = write.hard_state

    def load_stable(self) -> dict[str, Any]:
        """Return the values kept last."""
        return unpack(self._stable)

    def save_stable(self, values: Mapping[str, Any]) -> None:
        """Keep these values in the place of the last ones."""
        self._stable = pack(values)

    def copy(self) -> MemoryDisk:
        """Return a disk of its own with the same contents: what a rewind goes back to."""
        twin = MemoryDisk(self.name)
        twin._hard_state, twin._snapshot = self._hard_state, self._snapshot
        twin._entries, twin._stable = self._entries.copy(), self._stable
        return twin

    def close(self) -> None:
        """Nothing is open."""

    def _follows(self, snapshot: Snapshot) -> bool:
        position = snapshot.index - self._snapshot.index - 1
        if position == -1:
            return snapshot.term == self._snapshot.term
        return 0 <= position < len(self._entries) and self._entries[position].term == snapshot.term
