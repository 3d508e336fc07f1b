"""What the leader knows of each follower, and how much it may send to it.

Law: 0 <= match < next. Only `Progress` moves these numbers, and match never goes back within a term.

A follower is *probed* until the place where its log and the leader's agree is known: one message, then
silence until it answers or a heartbeat does. Then the leader *replicates*: it sends ahead without waiting,
within a window counted in messages and in bytes (Raft thesis, 10.2.2). If the leader's log no longer
reaches back far enough it sends a *snapshot* and waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from agentflow.ids import Index


class ProgressState(StrEnum):
    """How the leader sends to one follower."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


_PROBE, _REPLICATE, _SNAPSHOT = ProgressState.PROBE, ProgressState.REPLICATE, ProgressState.SNAPSHOT


class Inflights:
    """The window of append messages that were sent and not yet acknowledged.

    Parameters
    ----------
    max_messages : int
        How many may be under way.
    max_bytes : int or None
        How many bytes may be under way; the message that passes the limit is still sent.

    Examples
    --------
    >>> window = Inflights(2, None)
    >>> window.add(5, 100); window.add(7, 100)
    >>> window.is_full
    True
    >>> window.free(6); len(window)
    1
    """

    __slots__ = ("_sent", "bytes", "is_full", "max_bytes", "max_messages")

    def __init__(self, max_messages: int, max_bytes: int | None) -> None:
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.bytes = 0
        self.is_full = False
        self._sent: deque[tuple[Index, int]] = deque()

    def __len__(self) -> int:
        return len(self._sent)

    def __iter__(self) -> Iterator[tuple[Index, int]]:
        return iter(self._sent)

    def add(self, last: Index, size: int) -> None:
        """Note that a message was sent whose last entry is `last`; indexes must not fall."""
        assert not self.is_full, "a full window takes no more messages"
        self._sent.append((last, size))
        self.bytes += size
        self._weigh()

    def free(self, acked: Index) -> None:
        """Forget every message that ends at or before `acked`."""
        sent = self._sent
        if not sent or sent[0][0] > acked:
            return
        while sent and sent[0][0] <= acked:
            self.bytes -= sent.popleft()[1]
        self._weigh()

    def clear(self) -> None:
        """Forget all of them."""
        if self._sent:
            self._sent.clear()
            self.bytes = 0
        self.is_full = False

    def _weigh(self) -> None:
        self.is_full = len(self._sent) >= self.max_messages or (
            self.max_bytes is not None and self.bytes >= self.max_bytes
        )

    def copy(self) -> Inflights:
        """Return an equal window of its own."""
        twin = Inflights(self.max_messages, self.max_bytes)
        twin._sent = self._sent.copy()
        twin.bytes, twin.is_full = self.bytes, self.is_full
        return twin


class Progress:
    """The leader's knowledge of one member, itself included.

    Parameters
    ----------
    match : int
        The member's log is known to equal the leader's up to here.
    next : int
        The next entry to send. Entries between `match` and `next` are under way.
    inflights : Inflights
        The window.
    is_learner : bool
        Whether its acknowledgements do not count.
    is_active : bool
        Whether it was heard from since the last look at the quorum.
    """

    __slots__ = (
        "inflights",
        "is_active",
        "is_learner",
        "is_paused_flow",
        "is_withheld",
        "match",
        "next",
        "pending_snapshot",
        "sent_commit",
        "state",
        "waiting_since",
    )

    def __init__(
        self,
        *,
        match: Index,
        next: Index,  # noqa: A002 - the paper's word
        inflights: Inflights,
        is_learner: bool = False,
        is_active: bool = False,
    ) -> None:
        self.match = match
        self.next = next
        self.inflights = inflights
        self.is_learner = is_learner
        self.is_active = is_active
        self.state = _PROBE
        self.is_paused_flow = False
        self.is_withheld = False
        """Whether it was told already that the snapshot it needs cannot be sent."""
        self.pending_snapshot: Index = 0
        self.waiting_since = 0.0
        """When the snapshot was sent."""
        self.sent_commit: Index = 0

    @property
    def is_paused(self) -> bool:
        """Whether nothing may be sent until the member is heard from again."""
        return self.state is _SNAPSHOT or self.is_paused_flow

    # --- transitions --------------------------------------------------------------------------------------

    def become_probe(self) -> None:
        """Find out where the logs agree; after a snapshot, look right behind it."""
        after_snapshot = self.pending_snapshot if self.state is _SNAPSHOT else 0
        self._reset(_PROBE)
        self.next = max(self.match, after_snapshot) + 1
        self.sent_commit = min(self.sent_commit, self.next - 1)

    def become_replicate(self) -> None:
        """Send ahead from behind the last known match."""
        self._reset(_REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self, index: Index, now: float = 0.0) -> None:
        """Wait until the snapshot at `index`, sent at `now`, is installed or lost."""
        self._reset(_SNAPSHOT)
        self.waiting_since = now
        self.is_withheld = False
        self.pending_snapshot = index
        self.next = index + 1
        self.sent_commit = index

    def _reset(self, state: ProgressState) -> None:
        self.is_paused_flow = False
        self.pending_snapshot = 0
        self.state = state
        self.inflights.clear()

    # --- what was sent ------------------------------------------------------------------------------------

    def sent_entries(self, count: int, size: int) -> None:
        """Note that an append with `count` entries of `size` bytes left for this member."""
        if self.state is _REPLICATE:
            if count:
                self.next += count
                self.inflights.add(self.next - 1, size)
            # A message into a full window is a probe: one, then silence until something comes back.
            self.is_paused_flow = self.inflights.is_full
        else:
            assert self.state is _PROBE, "a member that waits for a snapshot is sent no entries"
            if count:
                self.is_paused_flow = True

    def can_bump_commit(self, commit: Index) -> bool:
        """Whether telling the member `commit` can move its commit index."""
        return commit > self.sent_commit and self.sent_commit < self.next - 1

    # --- what came back -----------------------------------------------------------------------------------

    def acked(self, index: Index) -> bool:
        """Note that the member holds everything up to `index`; False if that was known."""
        if index <= self.match:
            return False
        self.match = index
        self.next = max(self.next, index + 1)
        self.is_paused_flow = False
        return True

    def rejected(self, index: Index, hint: Index) -> bool:
        """Note that the member refused an append after `index` and would try `hint`; False if stale."""
        if self.state is _REPLICATE:
            if index <= self.match:
                return False
            self.next = self.match + 1
            self.sent_commit = min(self.sent_commit, self.next - 1)
            return True
        # A probed member has one message under way, so any other index is a late answer.
        if self.next - 1 != index:
            return False
        self.next = max(min(index, hint + 1), self.match + 1)
        self.sent_commit = min(self.sent_commit, self.next - 1)
        self.is_paused_flow = False
        return True

    def copy(self) -> Progress:
        """Return an equal progress of its own."""
        twin = Progress.__new__(Progress)
        for name in Progress.__slots__:
            setattr(twin, name, getattr(self, name))
        twin.inflights = self.inflights.copy()
        return twin

    def state_tuple(self) -> tuple[Any, ...]:
        """Return everything that makes two progresses equal."""
        plain = (getattr(self, name) for name in Progress.__slots__ if name != "inflights")
        window = self.inflights
        return (*plain, window.max_messages, window.max_bytes, tuple(window))
