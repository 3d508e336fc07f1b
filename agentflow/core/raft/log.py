"""The replicated log as one node sees it, in memory from the last compaction on.

Law: applied <= applying <= commit <= last; commit never goes back; nothing at or below commit is ever
replaced; an entry is cut off only where another term contradicts it (Raft paper, 5.3).

Beside these indexes the log knows which of its entries are on disk. Entries up to `stable` are; those up
to `handed` are on their way. A write that was overtaken by a truncation must not count when it completes
late: `stable_to` is therefore asked with the term as well as the index, and its caller asks only if the
node's term has not changed meanwhile, for terms and indexes alone can come back (the ABA problem).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from operator import attrgetter
from typing import Any

from agentflow.core.raft.events import (
    ConflictFound,
    RaftEvent,
    TailReplaced,
    TailTruncated,
    WriteOvertaken,
)
from agentflow.core.raft.messages import Entry, EntryKind, Snapshot
from agentflow.ids import Index, Term

ENTRY_OVERHEAD = 16
"""Bytes an entry is charged beyond its data: index, term, kind and framing."""

_term_of = attrgetter("term")


def entry_size(entry: Entry) -> int:
    """Return what an entry costs on the wire, about."""
    return len(entry.data) + ENTRY_OVERHEAD


def payload_size(entries: tuple[Entry, ...]) -> int:
    """Return the bytes of users' data in these entries; a no-op has none."""
    size = 0
    for entry in entries:
        size += len(entry.data)
    return size


class RaftLog:
    """Entries, and how far they are stored, committed and applied.

    Parameters
    ----------
    snapshot : Snapshot
        What the entries follow.
    entries : tuple of Entry
        All of them durable.
    max_applying_bytes : int or None
        How much may be handed out to be applied and not yet be reported applied.
    """

    __slots__ = (
        "_applying",
        "_applying_bytes",
        "_applying_paused",
        "_entries",
        "applied",
        "applying",
        "base",
        "base_term",
        "commit",
        "events",
        "handed",
        "incoming",
        "incoming_handed",
        "last",
        "last_term",
        "max_applying_bytes",
        "snapshot",
        "stable",
    )

    def __init__(
        self, snapshot: Snapshot, entries: tuple[Entry, ...], max_applying_bytes: int | None = None
    ) -> None:
        self.snapshot = snapshot
        """The newest snapshot of this node's own state: what a follower far behind is sent."""
        self.base: Index = snapshot.index
        """The entry before the first one; its term is still known."""
        self.base_term: Term = snapshot.term
        self._entries = list(entries)
        self.last: Index = self.base + len(entries)
        self.last_term: Term = entries[-1].term if entries else self.base_term
        self.stable = self.handed = self.last
        self.commit = self.applying = self.applied = self.base
        self.incoming: Snapshot | None = None
        """A leader's snapshot that is being installed."""
        self.incoming_handed = False
        self.max_applying_bytes = max_applying_bytes
        self._applying: deque[tuple[Index, int]] = deque()
        """The batches handed out to be applied: last index and bytes."""
        self._applying_bytes = 0
        self._applying_paused = False
        self.events: list[RaftEvent] = []

    @property
    def first(self) -> Index:
        """The first entry that is still there, or would be."""
        return self.base + 1

    # --- looking ------------------------------------------------------------------------------------------

    def term(self, index: Index) -> Term | None:
        """Return the term of an entry; None if it was compacted away or does not exist."""
        position = index - self.base
        if position > 0:
            return self._entries[position - 1].term if index <= self.last else None
        return self.base_term if position == 0 else None

    def entries(self, lo: Index, hi: Index | None = None, max_bytes: int | None = None) -> tuple[Entry, ...]:
        """Return entries from `lo` up to but not including `hi`.

        Parameters
        ----------
        lo, hi : int
            The range; without `hi` to the end.
        max_bytes : int or None
            Stop before this is exceeded, but never before the first entry.
        """
        if hi is None:
            hi = self.last + 1
        base = self.base
        assert base < lo <= hi <= self.last + 1, f"[{lo}, {hi}) is not within [{base + 1}, {self.last + 1})"
        found = self._entries[lo - base - 1 : hi - base - 1]
        if max_bytes is not None and len(found) > 1:
            size = 0
            for position, entry in enumerate(found):
                size += len(entry.data) + ENTRY_OVERHEAD
                if size > max_bytes and position:
                    return tuple(found[:position])
        return tuple(found)

    def is_up_to_date(self, index: Index, term: Term) -> bool:
        """Whether a log that ends so is at least as good as this one (Raft paper, 5.4.1)."""
        return term > self.last_term or (term == self.last_term and index >= self.last)

    def matches(self, index: Index, term: Term) -> bool:
        """Whether this log holds an entry of that term at that index."""
        return self.term(index) == term

    def conflict_by_term(self, index: Index, term: Term) -> tuple[Index, Term]:
        """Guess where this log and another agree, of which one (index, term) is known.

        Returns the highest index up to `index` whose entry has no higher term, for all entries between
        must differ: terms only rise within a log. The term returned is 0 if it is not known.
        """
        base = self.base
        if index > self.last or index < base:
            return index, 0
        found = base + bisect_right(self._entries, term, hi=index - base, key=_term_of)
        if found > base:
            return found, self._entries[found - base - 1].term
        if self.base_term <= term:
            return base, self.base_term
        return base - 1, 0

    def has_unapplied_change(self) -> bool:
        """Whether a committed membership change still waits to be applied."""
        applied, commit = self.applied, self.commit
        if applied >= commit or self.incoming is not None:
            return False
        start = max(applied - self.base, 0)
        normal = EntryKind.NORMAL
        return any(entry.kind is not normal for entry in self._entries[start : commit - self.base])

    # --- growing ------------------------------------------------------------------------------------------

    def append(self, entries: tuple[Entry, ...]) -> None:
        """Put entries at the end, or in the place of the tail that they contradict."""
        if not entries:
            return
        start = entries[0].index
        assert start > self.commit, f"entry {start} is committed (up to {self.commit}) and stays"
        if start != self.last + 1:
            self._truncate(start)
        self._entries.extend(entries)
        self.last = entries[-1].index
        self.last_term = entries[-1].term

    def _truncate(self, start: Index) -> None:
        if start <= self.stable + 1:
            self.events.append(TailReplaced(start))
            self.stable = self.handed = start - 1
        else:
            self.events.append(TailTruncated(start))
            self.handed = min(self.handed, start - 1)
        del self._entries[start - self.base - 1 :]

    def maybe_append(
        self, prev: Index, prev_term: Term, entries: tuple[Entry, ...], commit: Index
    ) -> Index | None:
        """Take a leader's entries if they follow on ours; return the last index that agrees, or None.

        The commit index moves to the leader's, but never past what this very message vouches for: what
        lies behind it may be another leader's.
        """
        if self.term(prev) != prev_term:
            return None
        agreed = prev + len(entries)
        if entries:
            if prev == self.last:
                self.append(entries)
            else:
                fresh = self._find_conflict(entries)
                if fresh is not None:
                    self.append(entries[fresh:] if fresh else entries)
        if commit > agreed:
            commit = agreed
        if commit > self.commit:
            self.commit = commit
        return agreed

    def _find_conflict(self, entries: tuple[Entry, ...]) -> int | None:
        """Return the position of the first entry that is not in the log, or differs there."""
        for position, entry in enumerate(entries):
            ours = self.term(entry.index)
            if ours != entry.term:
                if ours is not None:
                    self.events.append(ConflictFound(entry.index, ours, entry.term))
                return position
        return None

    # --- becoming durable ---------------------------------------------------------------------------------

    @property
    def has_unstable(self) -> bool:
        """Whether any entry is not known to be on disk."""
        return self.stable < self.last

    def take_unhanded(self) -> tuple[Entry, ...]:
        """Return the entries to be written now, and count them as on their way."""
        entries = tuple(self._entries[self.handed - self.base :])
        self.handed = self.last
        return entries

    def stable_to(self, index: Index, term: Term) -> None:
        """Note that everything up to `index` is on disk, if the entry there is still of that term."""
        if index <= self.stable or index > self.last:
            pending = self.incoming
            if pending is not None and pending.index == index:
                self.events.append(WriteOvertaken(index, term, "snapshot"))
            else:
                self.events.append(WriteOvertaken(index, term, "missing"))
            return
        ours = self.term(index)
        assert ours is not None
        if ours != term:
            self.events.append(WriteOvertaken(index, term, "mismatch", found=ours))
            return
        self.stable = index
        self.handed = max(self.handed, index)

    # --- being committed and applied ----------------------------------------------------------------------

    def commit_to(self, index: Index) -> bool:
        """Move the commit index forward; True if it moved."""
        if index <= self.commit:
            return False
        assert index <= self.last, f"commit {index} is beyond the last entry, {self.last}"
        self.commit = index
        return True

    def has_appliable(self, unstable: bool) -> bool:
        """Whether entries wait to be handed out for applying."""
        limit = self.commit if unstable or self.commit <= self.stable else self.stable
        return self.applying < limit and not self._applying_paused and self.incoming is None

    def take_appliable(self, unstable: bool) -> tuple[Entry, ...]:
        """Return the next committed entries to apply, within the limit; see `applied_to`.

        Parameters
        ----------
        unstable : bool
            Whether entries may be applied here before they are on disk here. (They are on a quorum's.)
        """
        if not self.has_appliable(unstable):
            return ()
        limit = self.commit if unstable else min(self.commit, self.stable)
        quota = self.max_applying_bytes
        if quota is None:
            entries = self.entries(self.applying + 1, limit + 1)
            self.applying = limit
            return entries
        entries = self.entries(self.applying + 1, limit + 1, quota - self._applying_bytes)
        self.applying = entries[-1].index
        size = sum(map(entry_size, entries))
        self._applying.append((self.applying, size))
        self._applying_bytes += size
        # Paused, too, if the next entry was left out for its size: smaller ones must not keep slipping by.
        self._applying_paused = self._applying_bytes >= quota or self.applying < limit
        return entries

    def applied_to(self, index: Index) -> None:
        """Note that everything up to `index` was applied."""
        assert self.applied <= index <= self.commit, (
            f"applied {index} is not between {self.applied} and {self.commit}"
        )
        quota = self.max_applying_bytes
        if quota is not None:
            applying = self._applying
            while applying and applying[0][0] <= index:
                self._applying_bytes -= applying.popleft()[1]
            self._applying_paused = self._applying_bytes >= quota
        self.applied = index
        if self.applying < index:
            self.applying = index

    # --- snapshots ----------------------------------------------------------------------------------------

    def restore(self, snapshot: Snapshot) -> None:
        """Replace everything by a leader's snapshot, which still has to be stored and installed."""
        self._entries.clear()
        self.base = self.last = snapshot.index
        self.base_term = self.last_term = snapshot.term
        self.stable = self.handed = self.commit = snapshot.index
        self.incoming, self.incoming_handed = snapshot, False

    def take_incoming(self) -> Snapshot | None:
        """Return the snapshot to be installed now, once."""
        if self.incoming is None or self.incoming_handed:
            return None
        self.incoming_handed = True
        return self.incoming

    def installed(self, index: Index) -> None:
        """Note that the snapshot at `index` is stored and installed."""
        if self.incoming is not None and self.incoming.index == index:
            self.snapshot, self.incoming, self.incoming_handed = self.incoming, None, False

    def compact(self, index: Index) -> None:
        """Forget entries up to `index`, as far as they are on disk; the last one's term stays known."""
        assert index <= self.applied, f"entry {index} was not applied yet (up to {self.applied})"
        index = min(index, self.stable)
        if index <= self.base:
            return
        term = self.term(index)
        assert term is not None
        del self._entries[: index - self.base]
        self.base, self.base_term = index, term

    # --- the whole ----------------------------------------------------------------------------------------

    def copy(self, events: list[RaftEvent]) -> RaftLog:
        """Return an equal log of its own that reports to `events`; the entries themselves are shared."""
        twin = RaftLog.__new__(RaftLog)
        for name in RaftLog.__slots__:
            setattr(twin, name, getattr(self, name))
        twin._entries = self._entries.copy()
        twin._applying = self._applying.copy()
        twin.events = events
        return twin

    def state(self) -> tuple[Any, ...]:
        """Return everything that makes two logs equal."""
        return tuple(getattr(self, name) for name in RaftLog.__slots__ if name != "events")

    def check_invariants(self) -> None:
        """Assert the law of this module."""
        assert self.last == self.base + len(self._entries), "entries are contiguous"
        assert self.base <= self.commit <= self.last, "commit points at something that is held"
        assert self.applied <= self.applying or self.incoming is not None, "applied <= applying"
        assert self.applying <= self.commit, "applying <= commit"
        assert self.base <= self.stable <= self.handed <= self.last, "base <= stable <= handed <= last"
        tail = self._entries[-1] if self._entries else None
        assert tail is None or (tail.index, tail.term) == (self.last, self.last_term), "the end is known"
