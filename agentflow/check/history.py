"""What clients saw: operations that overlap in time, some of them without an end.

Law: an operation's interval begins when the client asked and ends when it knew. One whose outcome is not
known never ends: it may take effect at any later moment, or never. One that was definitely refused did
nothing and is left out.

Records of four kinds tell of operations (`History.from_records`); their payload is any object with these
attributes, or a mapping with these keys, or one of the structs below:

========  ==========================================  =================================================
kind      payload                                     meaning
========  ==========================================  =================================================
`invoke`  `op, function, argument, key, process`      the client `process` (default: the record's node)
                                                      asked; `op` numbers its questions
`return`  `op, result, process`                       it has its answer
`fail`    `op, error, process`                        `Refused`: nothing took place
`info`    `op, error, process`                        `Unknown`: it may have happened, or may yet
========  ==========================================  =================================================

`key` names an independent object (None: the history is about one); `argument` is what the model's function
takes, a pair for `cas`. `process` and `key` may be left out.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Any

import msgspec

from agentflow.core.record import Record
from agentflow.errors import Refused

FOREVER = float("inf")
"""When an operation returns whose outcome is not known."""


class Invoked(msgspec.Struct, frozen=True):
    """Payload of an `invoke` record."""

    op: Any
    function: str
    argument: Any = None
    key: Any = None
    process: Any = None


class Returned(msgspec.Struct, frozen=True):
    """Payload of a `return` record."""

    op: Any
    result: Any = None
    process: Any = None


class Failed(msgspec.Struct, frozen=True):
    """Payload of a `fail` record: nothing took place."""

    op: Any
    error: str = ""
    process: Any = None


class Uncertain(msgspec.Struct, frozen=True):
    """Payload of an `info` record: it may have happened, or may yet."""

    op: Any
    error: str = ""
    process: Any = None


class Operation(msgspec.Struct, frozen=True):
    """One question of one client, and what it was told.

    Parameters
    ----------
    process : Any
        Who asked.
    function : str
        What was asked: `read`, `write`, `append`, ...
    argument : Any
        With what.
    result : Any
        What was answered; meaningless while pending.
    invoked, returned : float
        When, on any scale that orders the whole history: seconds, or positions in a trace. Intervals that
        share an instant overlap. `returned` is infinite where the outcome is not known.
    key : Any
        The object it was about.
    """

    process: Any
    function: str
    argument: Any = None
    result: Any = None
    invoked: float = 0.0
    returned: float = FOREVER
    key: Any = None

    @property
    def is_pending(self) -> bool:
        """Whether its outcome is not known."""
        return self.returned == FOREVER

    def __str__(self) -> str:
        asked = f"{self.function}({'' if self.argument is None else brief(self.argument)})"
        told = "outcome unknown" if self.is_pending else f"-> {brief(self.result)}"
        where = "" if self.key is None else f" of {brief(self.key)}"
        until = "..." if self.is_pending else f"{self.returned:g}"
        return f"{self.process}: {asked}{where} {told} [{self.invoked:g}, {until}]"


def brief(value: Any, limit: int = 40) -> str:
    """Write a value in at most about `limit` characters, keeping both ends.

    Examples
    --------
    >>> brief("x" * 100, 20)
    "'xxxxxxxx...xxxxxxx'"
    """
    text = repr(value)
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2 - 1]}...{text[-(limit // 2 - 2) :]}"


class History:
    """Operations in order of invocation, built from what clients report.

    Examples
    --------
    >>> history = History()
    >>> history.invoke("c1", "write", 1); history.returns("c1")
    >>> history.invoke("c2", "read"); history.returns("c2", 1)
    >>> history.invoke("c1", "cas", (1, 2)); history.unknown("c1")
    >>> for operation in history: print(operation)
    c1: write(1) -> None [0, 1]
    c2: read() -> 1 [2, 3]
    c1: cas((1, 2)) outcome unknown [4, ...]
    """

    def __init__(self, operations: Iterable[Operation] = ()) -> None:
        self._operations: list[Operation | None] = []
        self._open: dict[Hashable, int] = {}
        self._clock = 0.0
        for operation in sorted(operations, key=lambda each: each.invoked):
            self._operations.append(operation)
            ends = (operation.invoked, operation.returned)
            self._clock = max(self._clock, *(end + 1 for end in ends if end != FOREVER))

    # --- building ---------------------------------------------------------------------------------------

    def invoke(
        self,
        process: Hashable,
        function: str,
        argument: Any = None,
        *,
        key: Any = None,
        op: Hashable = None,
        at: float | None = None,
    ) -> None:
        """Say that `process` asks something.

        Parameters
        ----------
        process : hashable
            Who.
        function : str
            What, in the words of the model.
        argument : Any
            With what.
        key : Any
            About which object.
        op : hashable
            Number of the question, for a process that asks several at once.
        at : float, optional
            When; by default after everything reported so far.

        Raises
        ------
        Refused
            If that process already has an open question of that number, or time went back.
        """
        if (process, op) in self._open:
            raise Refused(
                f"{process!r} has not been answered yet; end its operation first, or number them with op="
            )
        operation = Operation(process, function, argument, invoked=self._at(at), key=key)
        self._open[process, op] = len(self._operations)
        self._operations.append(operation)

    def returns(
        self, process: Hashable, result: Any = None, *, op: Hashable = None, at: float | None = None
    ) -> None:
        """Say that `process` has its answer."""
        index, operation = self._question(process, op)
        self._operations[index] = msgspec.structs.replace(operation, result=result, returned=self._at(at))
        del self._open[process, op]

    def fails(self, process: Hashable, *, op: Hashable = None) -> None:
        """Say that the open question of `process` was refused: nothing took place."""
        self._operations[self._question(process, op)[0]] = None
        del self._open[process, op]

    def unknown(self, process: Hashable, *, op: Hashable = None) -> None:
        """Say that `process` gave up: its operation may have happened, or may yet."""
        self._question(process, op)
        del self._open[process, op]

    def _at(self, at: float | None) -> float:
        if at is None:
            at = self._clock
        elif at < self._clock - 1:
            raise Refused(f"time went back from {self._clock - 1:g} to {at:g}; report events in their order")
        self._clock = at + 1
        return at

    def _question(self, process: Hashable, op: Hashable) -> tuple[int, Operation]:
        index = self._open.get((process, op))
        if index is None:
            number = "" if op is None else f" number {op!r}"
            raise Refused(f"{process!r} has no open operation{number}; invoke it first")
        operation = self._operations[index]
        assert operation is not None
        return index, operation

    @classmethod
    def from_records(cls, records: Iterable[Record]) -> History:
        """Read the operations that a trace tells of; time is the position in the trace.

        Positions are used because many things happen at one instant of virtual time, and the trace
        knows their order.

        Parameters
        ----------
        records : iterable of Record
            A trace; kinds other than `invoke`, `return`, `fail` and `info` are passed over.

        Examples
        --------
        >>> trace = [
        ...     Record(4, 0.5, "c1", "invoke", payload=Invoked(op=1, function="put", argument="a", key="x")),
        ...     Record(9, 0.7, "c1", "return", payload={"op": 1}),
        ... ]
        >>> print(*History.from_records(trace))
        c1: put('a') of 'x' -> None [4, 9]
        """
        history = cls()
        for record in records:
            history.feed(record)
        return history

    def feed(self, record: Record) -> None:
        """Take one record of a trace; see `from_records`."""
        kind, payload = record.kind, record.payload
        if kind not in ("invoke", "return", "fail", "info") or payload is None:
            return
        process = field_of(payload, "process")
        process = record.node if process is None else process
        op = field_of(payload, "op")
        is_open = (process, op) in self._open
        if kind == "invoke":
            if is_open:
                # A client that crashed has forgotten its question and may use the number again.
                self.unknown(process, op=op)
            function, argument = field_of(payload, "function"), field_of(payload, "argument")
            self.invoke(process, function, argument, key=field_of(payload, "key"), op=op, at=record.seq)
        elif not is_open:
            # Its question lies before the first record of a trimmed trace.
            return
        elif kind == "return":
            self.returns(process, field_of(payload, "result"), op=op, at=record.seq)
        elif kind == "fail":
            self.fails(process, op=op)
        else:
            self.unknown(process, op=op)

    # --- reading ----------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Operation]:
        return (each for each in self._operations if each is not None)

    def __len__(self) -> int:
        return sum(each is not None for each in self._operations)

    def __repr__(self) -> str:
        pending = sum(each.is_pending for each in self)
        keys = len(self.partition())
        return f"<History {len(self)} operations, {pending} pending, {keys} key{'s' * (keys != 1)}>"

    def partition(self) -> dict[Any, list[Operation]]:
        """Return the operations of each key, keys in order of first use.

        A history of independent objects is linearizable iff each object's part is (Herlihy and Wing
        1990, theorem 1: locality).
        """
        parts: dict[Any, list[Operation]] = {}
        for operation in self:
            parts.setdefault(operation.key, []).append(operation)
        return parts


def field_of(payload: Any, name: str) -> Any:
    """Return an attribute of a payload, or the value of that key; None if it has neither."""
    if isinstance(payload, dict):
        return payload.get(name)
    return getattr(payload, name, None)
