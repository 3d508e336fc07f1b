"""What a node may ask of its disk, and what makes the contents of one trustworthy.

Law: a disk holds a snapshot and the entries right after it, without a gap, with terms that never fall
and a commit index that points at something it holds. A write that would break this is refused before
anything changes; a disk that is found so is not started from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import msgspec

from agentflow.core.raft.messages import HardState, Stored, Write
from agentflow.errors import InvalidConfig, InvariantViolated, StorageFailed
from agentflow.ids import Index


@runtime_checkable
class Disk(Protocol):
    """What a node keeps; it outlives the node's crashes.

    A disk is used by one node, one call at a time; the calls may come from different threads.
    """

    blocking: bool
    """Whether `save` waits for a device, and so belongs in a thread of its own."""

    def load(self) -> Stored:
        """Return everything a master stored; raise `StorageFailed` if it cannot be trusted."""
        ...

    def save(self, write: Write) -> None:
        """Make one write durable, as a whole, before returning; or raise `StorageFailed`."""
        ...

    def load_stable(self) -> dict[str, Any]:
        """Return what `save_stable` kept last, `{}` if it never did."""
        ...

    def save_stable(self, values: Mapping[str, Any]) -> None:
        """Keep these values in the place of those kept before, durably and as a whole.

        Values are plain data: None, bool, numbers, str, bytes, lists and dicts of them. Tuples and sets
        come back as lists. Anything else is refused with `InvalidConfig`.
        """
        ...

    def close(self) -> None:
        """Let go of files; what is stored stays."""
        ...


def check_write(write: Write, base: Index, last: Index, follows: bool) -> Index:
    """Refuse a write that does not fit a log of (`base`, `last`]; return the last index after it.

    `follows` says whether the log continues the write's snapshot: it holds an entry of that index and
    term, or starts right after them. Costs the same for any log: only the ends are looked at.
    """
    if write.snapshot is not None:
        taken = write.snapshot.index
        if taken < base:
            raise _misfit(f"the snapshot at {taken} is older than the one kept, at {base}")
        base, last = taken, last if follows else taken
    if write.entries:
        first, end = write.entries[0].index, write.entries[-1].index
        if end - first + 1 != len(write.entries):
            raise _misfit(f"entries {first} to {end} are not contiguous")
        if first > last + 1:
            raise _misfit(f"entry {first} would leave a gap after {last}")
        last = max(base, end)
    if write.compact_to > base:
        raise _misfit(f"compacting to {write.compact_to}: the snapshot covers only {base}")
    if write.hard_state is not None and write.hard_state.commit > last:
        raise _misfit(f"commit {write.hard_state.commit} is beyond the last entry, {last}")
    return last


def check_stored(stored: Stored, name: str) -> Stored:
    """Return `stored` if a node may safely start from it, else raise `StorageFailed`.

    Parameters
    ----------
    stored : Stored
        What was read.
    name : str
        The disk's name, for the message.

    Raises
    ------
    StorageFailed
        Says which law is broken and where.

    Examples
    --------
    >>> from agentflow.core.raft.messages import Entry
    >>> _ = check_stored(Stored(entries=(Entry(index=1, term=1), Entry(index=3, term=1))), "m1.db")
    Traceback (most recent call last):
    ...
    agentflow.errors.StorageFailed: m1.db holds entry 3 where 2 belongs; ...
    """
    expected, term = stored.snapshot.index + 1, stored.snapshot.term
    for entry in stored.entries:
        if entry.index != expected:
            raise damaged(name, f"holds entry {entry.index} where {expected} belongs")
        if entry.term < term:
            raise damaged(name, f"holds entry {entry.index} of term {entry.term} after one of term {term}")
        expected, term = expected + 1, entry.term
    state = stored.hard_state
    if state.commit >= expected:
        raise damaged(name, f"calls entry {state.commit} committed but holds none after {expected - 1}")
    # A node set up from a first snapshot may not have voted or counted a term yet.
    if state != HardState() and state.term < term:
        raise damaged(name, f"is at term {state.term} but holds an entry of term {term}")
    return stored


def damaged(name: str, fact: str) -> StorageFailed:
    """Say what is wrong with a disk and what its owner can do."""
    advice = "do not start from it: remove this node from the cluster and let it rejoin with an empty disk"
    return StorageFailed(f"{name} {fact}; {advice}", path=name, reason=fact)


def failed(name: str, reason: str) -> StorageFailed:
    """Say that a disk did not do what was asked, and why."""
    advice = "restart the node when the cause is gone"
    return StorageFailed(f"{name}: {reason}; {advice}", path=name, reason=reason)


def pack(values: Mapping[str, Any]) -> bytes:
    """Turn stable values into bytes, or name the one that is not plain data.

    Examples
    --------
    >>> unpack(pack({"term": 3, "votes": ("a", "b")}))
    {'term': 3, 'votes': ['a', 'b']}
    >>> pack({"lock": object()})
    Traceback (most recent call last):
    ...
    agentflow.errors.InvalidConfig: stable value 'lock' is not plain data (...); keep numbers, ...
    """
    try:
        data = msgspec.msgpack.encode(dict(values))
        unpack(data)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        for key, value in values.items():
            try:
                unpack(msgspec.msgpack.encode({key: value}))
            except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
                fact = f"stable value {key!r} is not plain data ({error})"
                advice = "keep numbers, strings, bytes, lists and dicts"
                raise InvalidConfig(f"{fact}; {advice}", field=key) from error
        raise
    return data


def unpack(data: bytes) -> dict[str, Any]:
    """Read back what `pack` made."""
    return msgspec.msgpack.decode(data, type=dict[str, Any])


def _misfit(fact: str) -> InvariantViolated:
    return InvariantViolated(f"a write that would break the log was refused: {fact}")
