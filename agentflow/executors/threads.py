"""Threads of our own: the runner of workers inside the kernel, and the hot path of the library.

Law: a thread dies only when its runner closes or when it was replaced; no task can end it, and none of
them keeps the interpreter from exiting.

Whoever removes a key from the dictionary owns the work: the thread that runs it, or the caller who takes it
back. A thread that is awake goes on until nothing waits, so a task costs little; but each waking takes the
interpreter away from others. So in a `Brigade`, where somebody promises to `nudge` now and then, work that
comes in a burst while tasks are brief is left to whichever thread of the brigade is awake already.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections import deque
from queue import SimpleQueue

from agentflow.errors import Closed, InvalidConfig
from agentflow.executors import streams
from agentflow.executors.base import Call, Clock, Done, Outcome, perform

log = logging.getLogger("agentflow.executors")

BRIEF_SECS = 0.001
"""A task that takes less hardly gains by a thread of its own."""

BRISK, BRISKEST = 8, 32
"""From how many brief tasks in a row on a runner is brisk, and how many are remembered."""


class Brigade:
    """Runners whose threads help one another while their tasks are brief.

    Attributes
    ----------
    runners : list of ThreadRunner
        Its members, until they close.
    awake : int
        How many of their threads look for work, or were called to.
    """

    __slots__ = ("awake", "lock", "runners")

    def __init__(self) -> None:
        self.runners: list[ThreadRunner] = []
        self.awake = 0
        self.lock = threading.Lock()

    def in_need(self) -> ThreadRunner | None:
        """A runner with brief work that none of its own threads looks after."""
        for runner in self.runners:
            if runner._work and not runner._awake and runner._pace >= BRISK:
                return runner
        return None


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
    brigade : Brigade, optional
        Those who help one another; somebody calls `nudge` every few milliseconds while work waits.

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
        self,
        name: str,
        slots: int,
        *,
        clock: Clock = time.monotonic,
        capture: int = streams.LIMIT,
        brigade: Brigade | None = None,
    ) -> None:
        check_slots(name, slots)
        self.name = name
        self.slots = slots
        self._clock = clock
        self._capture = capture
        self._brigade = brigade or Brigade()
        self._is_alone = brigade is None
        self._brigade.runners.append(self)
        self._pace = 0
        self._work: deque[int] = deque()
        self._calls: SimpleQueue[bool] = SimpleQueue()
        # Threads that look for work, and those that were called and will.
        self._awake = 0
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
        self._work.append(key)
        if self._is_alone or self._pace < BRISK:
            if self._awake < self.slots:
                self._rouse()
        elif not self._brigade.awake:
            self._rouse()

    def nudge(self) -> int | None:
        """Wake one more thread if work waits that those which are awake did not get to; give its key."""
        try:
            first = self._work[0]
        except IndexError:
            return None
        if self._awake < self.slots:
            self._rouse()
        return first

    def take_back(self) -> list[tuple[int, Done]]:
        """Take back everything that no thread has taken up; give the keys, and whom to tell."""
        taken = []
        while self._work:
            try:
                key = self._work.popleft()
            except IndexError:
                break
            claimed = self._queued.pop(key, None)
            if claimed is not None:
                taken.append((key, claimed[1]))
        return taken

    def abandon(self, key: int) -> bool:
        """Take back work that no thread has taken up."""
        return self._queued.pop(key, None) is not None

    def replace(self, key: int) -> str | None:
        """Add a thread for the one that runs `key`, which ends when its work does; return its name."""
        return next(filter(None, (runner._replace(key) for runner in self._brigade.runners)), None)

    def _replace(self, key: int) -> str | None:
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
            with contextlib.suppress(ValueError):  # closed a second time
                self._brigade.runners.remove(self)
            seats = self._seats + self._leaked
        self._queued.clear()
        self._work.clear()
        for _ in seats:
            self._calls.put(False)
        end = time.monotonic() + timeout_secs
        for seat in seats:
            if seat.thread is not threading.current_thread():
                seat.thread.join(max(0.0, end - time.monotonic()))
        self._is_silent = True
        return [seat.thread.name for seat in seats if seat.thread.is_alive()]

    # --- threads ----------------------------------------------------------------------------------------

    def _rouse(self) -> None:
        """Wake a thread that rests, or add one."""
        with self._lock:
            if self._is_closed or self._awake >= self.slots:
                return
            if self._awake < len(self._seats):
                self._calls.put(True)
            elif len(self._work) <= sum(seat.key is None for seat in self._seats):
                return  # those who just ended something will look again
            else:
                self._add_seat()
            self._count(1)

    def _count(self, change: int) -> None:
        self._awake += change
        with self._brigade.lock:
            self._brigade.awake += change

    def _rest(self) -> bool:
        """Wait until there is work, or the end; say which."""
        with self._lock:
            self._count(-1)
        # Counted out first: whoever adds work from here on calls, and what was added before shows here.
        if self._work or (not self._brigade.awake and self._brigade.in_need() is not None):
            with self._lock:
                self._count(1)
            return True
        return self._calls.get()

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
        helped: ThreadRunner | None = self
        while True:
            while helped is not None:
                helped._work_off(seat, name, capture)
                if seat.is_leaked:
                    return
                helped = self._brigade.in_need()
            if not self._rest():
                return
            helped = self

    def _work_off(self, seat: _Seat, name: str, capture: streams.Capture | None) -> None:
        """Do this runner's work until none waits, or the thread was given up."""
        take, claim, clock = self._work.popleft, self._queued.pop, self._clock
        while not seat.is_leaked:
            try:
                key = take()
            except IndexError:
                return
            seat.key = key
            claimed = claim(key, None)
            if claimed is not None:
                outcome = perform(claimed[0], clock, capture, name)
                if outcome.finished - outcome.started < BRIEF_SECS:
                    self._pace = min(self._pace + 1, BRISKEST)
                else:
                    self._pace >>= 1
                self._finish(key, claimed[1], outcome)
                # A thread that waits for more must not keep the last task's arguments alive.
                claimed = outcome = None  # type: ignore[assignment]
            seat.key = None

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
