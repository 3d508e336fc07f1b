"""Threads of our own: the runner of workers inside the kernel, and the hot path of the library.

Law: a thread dies only when its runner closes or when it was replaced; no task can end it, and none of
them keeps the interpreter from exiting.

A task costs one put and one get on a C queue, one dictionary entry, and the clocks. Whoever removes a
key from the dictionary owns the work: the thread that runs it, or the caller who takes it back.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from queue import SimpleQueue

from agentflow.errors import Closed, InvalidConfig
from agentflow.executors import streams
from agentflow.executors.base import Call, Clock, Done, Outcome, perform

log = logging.getLogger("agentflow.executors")


class _Seat:
    """One thread and what it is at."""

    __slots__ = ("is_leaked", "key", "thread")

    def __init__(self) -> None:
        self.key: int | None = None
        self.is_leaked = False
        self.thread: threading.Thread


class ThreadRunner:
    r"""Runs calls on daemon threads, which start as they are needed.

    Parameters
    ----------
    name : str
        The threads are called `name/0`, `name/1`, ...
    slots : int
        How many calls run at once.
    clock : callable
        Gives the seconds that outcomes are stamped with.
    capture : int
        How many characters of a task's output are kept; 0 lets tasks print where they stand.

    Examples
    --------
    >>> from queue import Queue
    >>> ends, runner = Queue(), ThreadRunner("worker-1", slots=2)
    >>> runner.start(7, lambda: print("hello"), lambda key, outcome: ends.put((key, outcome.stdout)))
    >>> ends.get()
    (7, 'hello\n')
    >>> runner.close(1.0)
    []
    """

    def __init__(
        self, name: str, slots: int, *, clock: Clock = time.monotonic, capture: int = streams.LIMIT
    ) -> None:
        check_slots(name, slots)
        self.name = name
        self.slots = slots
        self._clock = clock
        self._capture = capture
        self._queue: SimpleQueue[int | None] = SimpleQueue()
        self._queued: dict[int, tuple[Call, Done]] = {}
        self._seats: list[_Seat] = []
        self._leaked: list[_Seat] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._is_closed = False
        self._is_silent = False

    def __repr__(self) -> str:
        running = sum(seat.key is not None for seat in self._seats)
        return f"<ThreadRunner {self.name}: {running} of {self.slots} slots busy, {len(self._queued)} queued>"

    def start(self, key: int, call: Call, done: Done) -> None:
        """Run `call()` on a free thread, then `done(key, outcome)` there."""
        if self._is_closed:
            raise Closed(f"{self.name} is closed")
        if key in self._queued:
            raise InvalidConfig(f"{self.name} already holds work with the key {key}", field="key")
        self._queued[key] = (call, done)
        self._queue.put(key)
        if len(self._seats) < self.slots:
            self._grow()

    def abandon(self, key: int) -> bool:
        """Take back work that no thread has taken up."""
        return self._queued.pop(key, None) is not None

    def replace(self, key: int) -> str | None:
        """Add a thread for the one that runs `key`, which ends when its work does; return its name."""
        with self._lock:
            for seat in self._seats:
                if seat.key == key:
                    seat.is_leaked = True
                    self._seats.remove(seat)
                    self._leaked.append(seat)
                    if not self._is_closed:
                        self._add_seat()
                    return seat.thread.name
        return None

    def close(self, timeout_secs: float = 1.0) -> list[str]:
        """Forget what is queued, wait for what runs, return the names of threads that still do."""
        with self._lock:
            self._is_closed = True
            seats = self._seats + self._leaked
        self._queued.clear()
        for _ in seats:
            self._queue.put(None)
        end = time.monotonic() + timeout_secs
        for seat in seats:
            if seat.thread is not threading.current_thread():
                seat.thread.join(max(0.0, end - time.monotonic()))
        self._is_silent = True
        return [seat.thread.name for seat in seats if seat.thread.is_alive()]

    # --- threads ----------------------------------------------------------------------------------------

    def _grow(self) -> None:
        """Add a thread if more is queued than threads wait for."""
        with self._lock:
            idle = sum(seat.key is None for seat in self._seats)
            if len(self._seats) < self.slots and len(self._queued) > idle and not self._is_closed:
                self._add_seat()

    def _add_seat(self) -> None:
        seat = _Seat()
        name = f"{self.name}/{next(self._numbers)}"
        seat.thread = threading.Thread(target=self._sit, args=(seat, name), name=name, daemon=True)
        self._seats.append(seat)
        seat.thread.start()

    def _sit(self, seat: _Seat, name: str) -> None:
        capture = streams.Capture(self._capture) if self._capture else None
        if capture is not None:
            streams.begin(capture)
        try:
            self._serve(seat, name, capture)
        finally:
            if capture is not None:
                streams.end()
            with self._lock:
                if seat in self._leaked:
                    self._leaked.remove(seat)

    def _serve(self, seat: _Seat, name: str, capture: streams.Capture | None) -> None:
        get, claim, clock = self._queue.get, self._queued.pop, self._clock
        while (key := get()) is not None:
            # In this order: `_grow` may count the work twice, which costs a thread too many; counting it
            # not at all would leave work waiting beside a free slot.
            seat.key = key
            claimed = claim(key, None)
            if claimed is not None:
                self._finish(key, claimed[1], perform(claimed[0], clock, capture, name))
                # A thread that waits for more must not keep the last task's arguments alive.
                claimed = None
            seat.key = None
            if seat.is_leaked:
                return

    def _finish(self, key: int, done: Done, outcome: Outcome) -> None:
        if self._is_silent:
            return
        try:
            done(key, outcome)
        except BaseException:
            log.exception("%s could not report the end of %s", self.name, key)


def check_slots(name: str, slots: int) -> None:
    """Refuse a number of slots with which nothing could ever run."""
    if slots < 1:
        raise InvalidConfig(f"{name} needs at least one slot, not {slots!r}", field="slots")
