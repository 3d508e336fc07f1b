"""The one stream of events: who did what, when, and what caused it.

Law: one thread appends and any thread may read; a record, once appended, never changes. The trace is
bounded: it keeps the newest records and counts those it dropped.

Lamport clocks are kept while recording (Lamport 1978); vector clocks (Fidge 1988, Mattern 1989) are
derived when read, because nobody pays for them on the hot path.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from agentflow.core.record import Record
from agentflow.errors import InvalidConfig

__all__ = ["Trace", "canonical", "vector_clocks"]


class Trace:
    """A bounded list of records with a Lamport clock for each node.

    Parameters
    ----------
    limit : int, optional
        How many of the newest records to keep; None keeps all.

    Examples
    --------
    >>> trace = Trace(limit=2)
    >>> for kind in ("start", "note", "crash"):
    ...     _ = trace.append(0.5, "n1", kind)
    >>> [record.kind for record in trace], trace.dropped
    (['note', 'crash'], 1)
    """

    __slots__ = ("_ceiling", "_clocks", "_first", "_next", "_records", "limit")

    def __init__(self, limit: int | None = None) -> None:
        if limit is not None and not (type(limit) is int and limit > 0):
            raise InvalidConfig(
                f"a trace cannot keep {limit!r} records; give a positive number, or None for all",
                field="limit",
            )
        self.limit = limit
        # Trimming at every append would move the whole list each time, so it runs over by an eighth.
        self._ceiling = float("inf") if limit is None else limit + max(64, limit // 8)
        self._records: list[Record] = []
        self._first = 0
        self._next = 0
        self._clocks: dict[str, int] = {}

    def append(
        self,
        time: float,
        node: str,
        kind: str,
        cause: int = -1,
        message: int = -1,
        source: str = "",
        destination: str = "",
        type: str = "",  # noqa: A002 - the name of the field
        payload: Any = None,
        seen: int = 0,
    ) -> Record:
        """Add one record and return it.

        Parameters
        ----------
        time, node, kind, cause, message, source, destination, type, payload
            As in `agentflow.core.record.Record`.
        seen : int
            The Lamport clock that came with the event, as that of a message has with it.
        """
        clocks = self._clocks
        lamport = clocks.get(node, 0)
        if seen > lamport:
            lamport = seen
        lamport += 1
        if node:
            clocks[node] = lamport
        seq = self._next
        self._next = seq + 1
        record = Record(seq, time, node, kind, lamport, cause, message, source, destination, type, payload)
        records = self._records
        records.append(record)
        if len(records) > self._ceiling:
            self._trim()
        return record

    def _trim(self) -> None:
        assert self.limit is not None
        surplus = len(self._records) - self.limit
        # Readers compare `_first` before and after; it must never name a record that is still there.
        self._first += surplus
        del self._records[:surplus]

    def since(self, seq: int) -> list[Record]:
        """Return the records from number `seq` on that are still kept.

        Examples
        --------
        >>> trace = Trace()
        >>> for kind in ("start", "note", "crash"):
        ...     _ = trace.append(0.0, "n1", kind)
        >>> [record.kind for record in trace.since(1)]
        ['note', 'crash']
        """
        seq = max(seq, self.dropped)
        while True:
            first = self._first
            tail = self._records[max(0, seq - first) :]
            # Another thread may have trimmed between the two lines: then the slice began too late.
            if first == self._first and (not tail or tail[0].seq == max(seq, first)):
                return tail

    @property
    def dropped(self) -> int:
        """How many of the oldest records are no longer kept."""
        return 0 if self.limit is None else max(0, self._next - self.limit)

    @property
    def next(self) -> int:
        """The number the next record will get: how many there ever were."""
        return self._next

    @property
    def last(self) -> Record | None:
        """The newest record."""
        records = self._records
        return records[-1] if records else None

    def lamport(self, node: str) -> int:
        """Return the node's Lamport clock: 0 before its first event."""
        return self._clocks.get(node, 0)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.since(0))

    def __len__(self) -> int:
        return self._next - self.dropped

    def __deepcopy__(self, memo: dict[int, Any]) -> Trace:
        twin = Trace(self.limit)
        twin._records = self._records.copy()  # the records are frozen
        twin._first, twin._next, twin._clocks = self._first, self._next, dict(self._clocks)
        return twin

    def __repr__(self) -> str:
        dropped = f", {self.dropped} dropped" if self.dropped else ""
        return f"Trace({len(self)} records{dropped})"

    def vector_clocks(self) -> list[dict[str, int]]:
        """Return a vector clock for each record kept; see `vector_clocks`."""
        return vector_clocks(self.since(0))

    def digest(self) -> str:
        """Return the SHA-256 of all records kept, the same in every process for the same run."""
        digest = hashlib.sha256()
        for record in self.since(0):
            digest.update(canonical(record))
        return digest.hexdigest()


def vector_clocks(records: Sequence[Record]) -> list[dict[str, int]]:
    """Derive the vector clock of each record: one happened before another iff its clock is smaller.

    Parameters
    ----------
    records : sequence of Record
        In the order of the trace. What a delivery refers to before the first of them counts as unknown.

    Examples
    --------
    >>> trace = Trace()
    >>> sent = trace.append(0.0, "a", "send", message=0)
    >>> _ = trace.append(0.1, "b", "start")
    >>> _ = trace.append(0.2, "b", "deliver", cause=sent.seq, message=0, seen=sent.lamport)
    >>> vector_clocks(list(trace))[-1]
    {'b': 2, 'a': 1}
    """
    current: dict[str, dict[str, int]] = {}
    in_flight: dict[int, dict[str, int]] = {}
    clocks = []
    for record in records:
        clock = dict(current.get(record.node, {}))
        if record.kind == "deliver":
            for node, count in in_flight.get(record.cause, {}).items():
                if count > clock.get(node, 0):
                    clock[node] = count
        if record.node:
            clock[record.node] = clock.get(record.node, 0) + 1
            current[record.node] = clock
        if record.kind == "send":
            in_flight[record.seq] = clock
        clocks.append(clock)
    return clocks


# --- the canonical encoding ---------------------------------------------------------------------------

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def canonical(value: Any) -> bytes:
    """Encode a value so that equal runs give equal bytes, in any process and under any hash seed.

    What msgspec can encode is encoded by it, sets and mappings sorted; anything else by its type and
    fields, and only in the end by its `repr` without addresses.

    Examples
    --------
    >>> canonical({"b", "a"}) == canonical({"a", "b"})
    True
    >>> canonical(print) == canonical(print)
    True
    """
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return _encoder.encode(_plain(value, 0))


def _unknown(value: Any) -> Any:
    """Describe a value that msgspec has no encoding for."""
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, BaseException):
        return [name, list(value.args)]
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return [name, getattr(value, "__module__", ""), value.__qualname__]
    if isinstance(value, complex | range | slice) or not hasattr(value, "__dict__"):
        return [name, _ADDRESS.sub("", repr(value))]
    fields = {key: item for key, item in vars(value).items() if not key.startswith("_")}
    return [name, fields or _ADDRESS.sub("", repr(value))]


_encoder = msgspec.msgpack.Encoder(enc_hook=_unknown, order="deterministic")


def _plain(value: Any, depth: int) -> Any:
    """Rebuild a value that msgspec refused as a whole: huge integers, unsortable keys, deep nesting."""
    if depth > 50:
        return "..."
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -(2**63) <= value < 2**64 else ["int", str(value)]
    if value is None or isinstance(value, bool | float | str | bytes):
        return value
    if isinstance(value, msgspec.Struct):
        fields = [_plain(getattr(value, name), depth + 1) for name in value.__struct_fields__]
        return [type(value).__qualname__, fields]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [_plain(getattr(value, field.name), depth + 1) for field in dataclasses.fields(value)]
        return [type(value).__qualname__, fields]
    if isinstance(value, dict):
        pairs = [(_plain(key, depth + 1), _plain(item, depth + 1)) for key, item in value.items()]
        return ["dict", sorted(pairs, key=_encoder.encode)]
    if isinstance(value, set | frozenset):
        return ["set", sorted((_plain(item, depth + 1) for item in value), key=_encoder.encode)]
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    return _plain(_unknown(value), depth + 1)
