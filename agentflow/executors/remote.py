"""What goes to another thread, process or machine, and what comes back.

Law: an exception that cannot make the journey arrives as a `RemoteError` with its text; it never breaks
the pool that carried it.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
import traceback
from typing import Any

from agentflow.errors import AgentflowError, RemoteError
from agentflow.executors import streams
from agentflow.executors.base import Call, Clock, Outcome, perform
from agentflow.executors.pickling import pack, unpack


class Shipment:
    """A call for a foreign executor; pickled by cloudpickle, and only if the executor pickles at all.

    Parameters
    ----------
    call : callable
        What to call.
    capture : int
        How many characters of its output to keep; 0 for none.
    """

    def __init__(self, call: Call, capture: int = streams.LIMIT) -> None:
        self._call = call
        self._capture = capture
        self.__name__ = getattr(call, "__name__", None) or "task"  # what an engine's own dashboard shows

    def __reduce__(self) -> tuple[Any, ...]:
        data = self._call.data if isinstance(self._call, _Unread) else pack(self._call, "the call")
        return _shipment, (data, self._capture)

    def packed(self) -> Shipment:
        """Return it ready to travel, or raise `Unpicklable`: for engines that always pickle.

        They would find out by themselves, but log it at length and raise something of their own.
        """
        return (
            self
            if isinstance(self._call, _Unread)
            else _shipment(pack(self._call, "the call"), self._capture)
        )

    def __call__(self) -> Receipt:
        """Run the call, wherever this is now."""
        thread = threading.current_thread().name
        if not self._capture:
            return Receipt(perform(self._call, thread=thread))
        capture = streams.Capture(self._capture)
        streams.begin(capture)
        try:
            return Receipt(perform(self._call, capture=capture, thread=thread))
        finally:
            streams.end()


class Receipt:
    """An outcome on its way back.

    Examples
    --------
    >>> Receipt(perform(lambda: 42)).outcome(time.monotonic).value
    42
    """

    def __init__(self, outcome: Outcome, pid: int | None = None) -> None:
        self._outcome = outcome
        self._pid = os.getpid() if pid is None else pid

    def __reduce__(self) -> tuple[Any, ...]:
        return _receipt, (*pack_outcome(self._outcome), self._pid)

    def outcome(self, clock: Clock) -> Outcome:
        """Return the outcome, on the time of this side's clock.

        Another machine's clock says nothing here, so work from elsewhere is taken to have ended just now.
        """
        outcome, now = self._outcome, clock()
        age = time.monotonic() - outcome.finished if self._pid == os.getpid() else 0.0
        finished = now - age
        started = finished - (outcome.finished - outcome.started)
        name = outcome.thread if self._pid == os.getpid() else f"process {self._pid}"
        return Outcome(outcome.value, outcome.error, started, finished, outcome.cpu_s, outcome.stdout, name)


def pack_outcome(outcome: Outcome) -> tuple[bytes, bytes | None, tuple[Any, ...]]:
    """Make an outcome fit to travel: a value or an error that is not is replaced by an error that says so."""
    value, error = b"", outcome.error
    if error is None:
        try:
            value = pack(outcome.value, "the result")
        except AgentflowError as unfit:
            error = unfit
    packed = None if error is None else _pack_error(error)
    return value, packed, (outcome.started, outcome.finished, outcome.cpu_s, outcome.stdout, outcome.thread)


def unpack_outcome(value: bytes, error: bytes | None, rest: tuple[Any, ...]) -> Outcome:
    """Read back what `pack_outcome` made."""
    try:
        if error is not None:
            caught, text = unpack(error)
            caught.__cause__ = RemoteError(text, report=text)
            return Outcome(None, caught, *rest)
        return Outcome(unpack(value), None, *rest)
    except Exception as unreadable:
        fact = f"what the task returned cannot be read here: {type(unreadable).__name__}: {unreadable}"
        return Outcome(
            None, RemoteError(f"{fact}; the modules it needs must be importable on both sides"), *rest
        )


def _pack_error(error: BaseException) -> bytes:
    """Return the error and its traceback as text.

    Some exceptions can be pickled but not read back, because `__init__` wants more than `args` holds.
    """
    text = "".join(traceback.format_exception(error))
    try:
        packed = pack((error, text), "the exception")
        unpack(packed)
    except Exception:
        packed = pickle.dumps((RemoteError(f"{type(error).__name__}: {error}", report=text), text))
    return packed


def _shipment(call: bytes, capture: int) -> Shipment:
    return Shipment(_Unread(call), capture)


class _Unread:
    """A call still packed: reading it is part of running it, so that what goes wrong is the task's error."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __call__(self) -> Any:
        return unpack(self.data)()


def _receipt(value: bytes, error: bytes | None, rest: tuple[Any, ...], pid: int) -> Receipt:
    return Receipt(unpack_outcome(value, error, rest), pid)
