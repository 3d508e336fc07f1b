"""Virtual time: it jumps to the next thing that happens.

Law: everything that happens is an entry of one heap or a node's deadline, ordered by time and then by
a counter, and every chance is drawn from a stream named by its purpose; so one seed gives one trace,
byte for byte, in any process.
"""

from __future__ import annotations

import copy
import math
import random
import sys
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any, Protocol, TypeAlias, runtime_checkable

from agentflow.core.record import Record
from agentflow.errors import InvalidConfig
from agentflow.ids import AttemptId, NodeId
from agentflow.runtime.host import Host
from agentflow.runtime.ports import Disk, load

__all__ = ["Pattern", "VirtualDriver", "Work"]

Pattern: TypeAlias = tuple[NodeId, NodeId, str]
"""Source, destination and type of messages; an empty one stands for any."""

# What a heap entry holds: (time, tie, kind, data).
_MESSAGE, _SAVE, _WORK, _CALL = range(4)
_NO_LIMIT = sys.maxsize


@runtime_checkable
class Work(Protocol):
    """What the driver can run in virtual time without being told how.

    A `duration` attribute, in seconds, says how long it takes; without one it takes no time. It is called
    when that time is over. What it raises is the outcome.
    """

    def __call__(self) -> Any:
        """Do the work and return its outcome."""
        ...


class VirtualDriver:
    """Moves a host through virtual time.

    Parameters
    ----------
    host : Host
        The host to drive. Without a launcher of its own it gets this driver's, which runs `Work` inline.
    seed : int or str
        Fixes every chance.
    disk_ms : float or (float, float)
        How long a write takes to become durable: always so long, or drawn between the two. A crash before
        that loses it.
    perform : callable, optional
        `perform(node_id, attempt, work) -> outcome`, called when an attempt's `work.duration` is over, where
        the work is not a `Work` that can be called. Not used if the host has a launcher of its own.
    waves : bool
        Whether all that falls on one instant is handed to the host as one wave, as the real loop does,
        instead of one by one.

    Examples
    --------
    >>> from agentflow.runtime.trace import Trace
    >>> from agentflow.transport.memory import Network
    >>> driver = VirtualDriver(Host(trace=Trace(), network=Network()), seed=7)
    >>> driver.at(2.5, lambda: print("now", driver.now))
    >>> driver.run_for(10)
    now 2.5
    >>> driver.now
    10.0
    """

    def __init__(
        self,
        host: Host,
        seed: int | str = 0,
        *,
        disk_ms: float | tuple[float, float] = 0.0,
        perform: Callable[[NodeId, AttemptId, Any], Any] | None = None,
        waves: bool = False,
    ) -> None:
        self.host = host
        self.seed = seed
        self.waves = waves
        self.perform = perform
        self.now = 0.0
        self.steps = 0
        """How many things have happened; with the seed this names every state of the run."""
        self.rng = self.stream("network")
        self._disk_rng = self.stream("disk")
        self._heap: list[tuple[float, int, int, Any]] = []
        self._tie = 0
        self._disk_free: dict[NodeId, float] = {}
        self._disk_ms: tuple[float, float] = (0.0, 0.0)
        self._slow_disks: dict[NodeId, float] = {}
        self._wanted: set[tuple[NodeId, int, AttemptId]] = set()
        self._holds: list[Pattern] = []
        self._held: list[Record] = []
        self.disk_ms = disk_ms
        host.driver = self
        host.strict = True
        if host.launcher is None:
            host.launcher = self

    def stream(self, purpose: str) -> random.Random:
        """Return a new generator fixed by the seed and a purpose, independent of all others."""
        return random.Random(f"{self.seed}/{purpose}")

    def reseed(self, seed: int | str) -> None:
        """Let the wires and the disks have other luck from now on; what the nodes draw stays theirs."""
        self.rng = random.Random(f"{seed}/network")
        self._disk_rng = random.Random(f"{seed}/disk")

    @property
    def disk_ms(self) -> tuple[float, float]:
        """Bounds of the time a write takes to become durable."""
        return self._disk_ms

    @disk_ms.setter
    def disk_ms(self, value: float | tuple[float, float]) -> None:
        low, high = value if isinstance(value, tuple) else (value, value)
        if not 0 <= low <= high < math.inf:
            raise InvalidConfig(f"disk_ms is a time in milliseconds, or two for its bounds, not {value!r}")
        self._disk_ms = (float(low), float(high))

    def slow_disk(self, node_id: NodeId, ms: float) -> None:
        """Let every write of one node take `ms` longer; 0 ends it."""
        self._slow_disks[node_id] = ms / 1000
        self.host.fault("slow_disk", ms, node_id)

    # --- moving time ----------------------------------------------------------------------------------

    @property
    def next_time(self) -> float:
        """When the next thing happens; `inf` if nothing is left."""
        if self.host.busy:
            return self.now
        at = self._heap[0][0] if self._heap else math.inf
        return max(self.now, min(at, self.host.deadline))

    def step(self) -> bool:
        """Let the next thing happen: one message, write, end of work, scripted call or timer.

        Returns
        -------
        bool
            False if nothing was left to happen.
        """
        return self._run(math.inf, self.steps + 1)

    def run_steps(self, step: int) -> None:
        """Let things happen until there were `step` of them since the beginning, or nothing is left."""
        self._run(math.inf, step)

    def settle(self) -> None:
        """Let everything happen that was asked of the nodes at this very instant, and nothing else."""
        while self.host.busy:
            self._run(self.now, self.steps + 1)

    def run_for(self, seconds: float) -> None:
        """Let everything happen that falls within the next `seconds`, and stop at their end."""
        end = self.now + seconds
        self._run(end)
        self.now = max(self.now, end)

    def run_until(self, predicate: Callable[[], Any], limit: float = math.inf) -> bool:
        """Go step by step until `predicate()` is true, for at most `limit` seconds of virtual time.

        Returns
        -------
        bool
            Whether it became true; False if the limit came first, or nothing was left to happen.
        """
        end = self.now + limit
        while not predicate():
            if not self._run(end, self.steps + 1):
                if end < math.inf:
                    self.now = max(self.now, end)
                return bool(predicate())
        return True

    def at(self, time: float, fn: Callable[..., Any], *args: Any) -> None:
        """Call `fn(*args)` at an instant; one that is past counts as now.

        Give it a method and its arguments rather than a closure: then a copy of the driver calls the copy.
        """
        self._push(max(time, self.now), _CALL, (fn, args))

    def after(self, seconds: float, fn: Callable[..., Any], *args: Any) -> None:
        """Call `fn(*args)` in so many seconds."""
        self.at(self.now + seconds, fn, *args)

    # --- messages in the hand -------------------------------------------------------------------------

    def pending(self) -> list[tuple[float, Record]]:
        """Return the messages on the wires with their times of arrival, the next one first; then those held.

        Held ones arrive at `inf`.
        """
        entries = sorted(entry for entry in self._heap if entry[2] == _MESSAGE)
        return [(entry[0], entry[3]) for entry in entries] + [(math.inf, sent) for sent in self._held]

    def take(self, number: int) -> Record | None:
        """Take one copy of a message off its wire; None if none is under way."""
        for place, sent in enumerate(self._held):
            if sent.message == number:
                return self._held.pop(place)
        found = [entry for entry in self._heap if entry[2] == _MESSAGE and entry[3].message == number]
        if not found:
            return None
        first = min(found)
        self._heap.remove(first)
        heapify(self._heap)
        sent = first[3]
        assert isinstance(sent, Record)
        return sent

    def hold(self, source: NodeId = "", destination: NodeId = "", type: str = "") -> int:  # noqa: A002
        """Keep the messages of a kind on their wires until they are released; return how many those are now."""
        pattern = (source, destination, type)
        if pattern not in self._holds:
            self._holds.append(pattern)
        caught = sorted(entry for entry in self._heap if entry[2] == _MESSAGE and _matches(pattern, entry[3]))
        if caught:
            gone = {entry[1] for entry in caught}
            self._heap[:] = [entry for entry in self._heap if entry[1] not in gone]
            heapify(self._heap)
            self._held += [entry[3] for entry in caught]
        return sum(_matches(pattern, sent) for sent in self._held)

    def release(self, source: NodeId = "", destination: NodeId = "", type: str = "") -> int:  # noqa: A002
        """Let the held messages of a kind arrive now, in order, and hold no more of them."""
        pattern = (source, destination, type)
        self._holds = [held for held in self._holds if not _covers(pattern, held)]
        free = [sent for sent in self._held if _matches(pattern, sent)]
        self._held = [sent for sent in self._held if not _matches(pattern, sent)]
        for sent in free:
            self._push(self.now, _MESSAGE, sent)
        return len(free)

    def __deepcopy__(self, memo: dict[int, Any]) -> VirtualDriver:
        # Messages under way are records of the trace: frozen, and shared by all copies.
        memo.update((id(entry[3]), entry[3]) for entry in self._heap if entry[2] == _MESSAGE)
        memo.update((id(sent), sent) for sent in self._held)
        twin = object.__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin

    def _run(self, end: float, limit: int = _NO_LIMIT) -> bool:
        """Let things happen until `end`, or until there were `limit` of them; return whether any did."""
        host = self.host
        heap = self._heap
        queue = host.queue
        turn = host.turn
        happened = False
        while self.steps < limit:
            if host.busy:
                self.steps += 1
                turn(self.now)
            else:
                deadline = host.deadline
                if heap and heap[0][0] <= deadline:
                    time = heap[0][0]
                    if time > end:
                        return happened
                    self.now = time
                    self.steps += 1
                    _, _, kind, data = heappop(heap)
                    if kind == _MESSAGE:
                        queue.append(data)
                    else:
                        self._happen(kind, data)
                    if self.waves:
                        self._gather(time)
                elif deadline <= end and deadline < math.inf:
                    if deadline > self.now:
                        self.now = deadline
                    self.steps += 1
                    host.ring(self.now)
                    if self.waves:
                        self._gather(self.now)
                else:
                    return happened
                turn(self.now)
            happened = True
        return happened

    def _gather(self, time: float) -> None:
        """Add to the wave whatever else falls on this instant."""
        heap = self._heap
        last = self._tie
        while heap and heap[0][0] == time and heap[0][1] <= last:
            _, _, kind, data = heappop(heap)
            self._happen(kind, data)
        while self.host.ring(time):
            pass

    def _happen(self, kind: int, data: Any) -> None:
        if kind == _MESSAGE:
            self.host.deliver(data)
        elif kind == _SAVE:
            self.host.write(*data)
        elif kind == _WORK:
            self._finish(*data)
        else:
            fn, args = data
            fn(*args)

    def _push(self, time: float, kind: int, data: Any) -> None:
        self._tie += 1
        heappush(self._heap, (time, self._tie, kind, data))

    # --- what the host asks of its driver ---------------------------------------------------------------

    def carry(self, message: Record, delay: float) -> None:
        """Put a message on the wire."""
        if self._holds and any(_matches(pattern, message) for pattern in self._holds):
            self._held.append(message)
            return
        self._tie = tie = self._tie + 1
        heappush(self._heap, (self.now + delay, tie, _MESSAGE, message))

    def load(self, node_id: NodeId, incarnation: int, disk: Disk) -> None:
        """Read a disk; that takes no time."""
        self.host.loaded(node_id, incarnation, load(disk))

    def save(self, node_id: NodeId, incarnation: int, number: int, disk: Disk, write: Any) -> None:
        """Start a write; it is durable when its time is over, and lost with a crash before that."""
        low, high = self._disk_ms
        delay = (low + (high - low) * self._disk_rng.random() if high > low else low) / 1000
        delay += self._slow_disks.get(node_id, 0.0)
        free = self._disk_free.get(node_id, -math.inf)
        time = max(self.now + delay, free)
        # Whoever is to be done at this very instant may still be waiting for his turn.
        if time > self.now or free == self.now:
            self._disk_free[node_id] = time
            self._push(time, _SAVE, (node_id, incarnation, number, disk, write))
        else:
            self.host.write(node_id, incarnation, number, disk, write)

    def wake(self) -> None:
        """Do nothing: every step looks by itself."""

    # --- a launcher for virtual time ----------------------------------------------------------------------

    def launch(
        self, node_id: NodeId, incarnation: int, attempt: AttemptId, work: Any, done: Callable[[Any], None]
    ) -> None:
        """Let the work end after its `duration`; only then is it called."""
        key = (node_id, incarnation, attempt)
        self._wanted.add(key)
        self._push(self.now + getattr(work, "duration", 0.0), _WORK, (key, work, done))

    def abandon(self, node_id: NodeId, incarnation: int, attempt: AttemptId) -> None:
        """Let the work never end."""
        self._wanted.discard((node_id, incarnation, attempt))

    def _finish(self, key: tuple[NodeId, int, AttemptId], work: Any, done: Callable[[Any], None]) -> None:
        if key not in self._wanted:
            return
        self._wanted.discard(key)
        try:
            outcome = work() if self.perform is None else self.perform(key[0], key[2], work)
        except Exception as error:
            outcome = error
        done(outcome)


def _matches(pattern: Pattern, sent: Record) -> bool:
    source, destination, kind = pattern
    return source in ("", sent.source) and destination in ("", sent.destination) and kind in ("", sent.type)


def _covers(wide: Pattern, narrow: Pattern) -> bool:
    return all(each in ("", other) for each, other in zip(wide, narrow, strict=True))
