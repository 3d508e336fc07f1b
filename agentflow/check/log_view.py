"""A log as its writes made it, for whoever watches a disk from outside.

Law: the same writes make the same log here as on the disk.
"""

from __future__ import annotations

from agentflow.core.raft.messages import Entry, Write
from agentflow.ids import Index, Term


class LogView:
    """A log as its writes made it: everything after the snapshot at `base`."""

    __slots__ = ("base", "base_term", "entries")

    def __init__(self, base: Index = 0, base_term: Term = 0, entries: tuple[Entry, ...] = ()) -> None:
        self.base = base
        self.base_term = base_term
        self.entries = list(entries)

    @property
    def last(self) -> Index:
        """The index of the last entry."""
        return self.base + len(self.entries)

    def term(self, index: Index) -> Term | None:
        """Return the term of an entry; None if it is not there, or lies before the snapshot."""
        at = index - self.base
        if at <= 0:
            return self.base_term if at == 0 else None
        return self.entries[at - 1].term if at <= len(self.entries) else None

    def write(self, write: Write) -> list[Entry]:
        """Do what a disk does with a write; return the entries that are gone or were written over."""
        removed: list[Entry] = []
        if write.snapshot is not None:
            removed = self._install(write.snapshot.index, write.snapshot.term)
        if write.entries:
            first = write.entries[0].index - self.base - 1
            # What a snapshot covers needs no entry any more.
            entries = write.entries if first >= 0 else write.entries[-first:]
            first = max(first, 0)
            if first < len(self.entries):
                removed += self.entries[first:]
                del self.entries[first:]
            self.entries.extend(entries)
        if write.compact_to > self.base:
            term = self.term(write.compact_to)
            if term is not None:
                del self.entries[: write.compact_to - self.base]
                self.base, self.base_term = write.compact_to, term
        return removed

    def _install(self, index: Index, term: Term) -> list[Entry]:
        if index <= self.base:
            return []
        if self.term(index) == term:
            del self.entries[: index - self.base]
            removed = []
        else:
            removed = [entry for entry in self.entries if entry.index > index]
            self.entries.clear()
        self.base, self.base_term = index, term
        return removed

    def copy(self) -> LogView:
        """Return an equal log of its own."""
        return LogView(self.base, self.base_term, tuple(self.entries))
