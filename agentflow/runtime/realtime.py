"""Real time: the host's turns on agentflow's loop, which sleeps until something is due.

Law: between two turns the loop is free. A burst of posts costs one wake-up; a long run of turns is cut
so that other coroutines get their share; and when the loop itself stood still, the nodes hear so before
any of their timers is rung.

All nodes of a process share the loop, so one long C call that keeps the GIL stops them all alike: the
silence it makes proves nothing about any of them.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import math
import os
import random
import threading
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Protocol, TypeVar

from agentflow.core.machine import Event
from agentflow.core.record import Record
from agentflow.errors import InvalidConfig
from agentflow.ids import NodeId
from agentflow.runtime.host import Host
from agentflow.runtime.loops import LoopThread, run_sync
from agentflow.runtime.ports import Disk, load

__all__ = ["LoopThread", "RealtimeDriver", "run_sync"]

T = TypeVar("T")

_log = logging.getLogger("agentflow")


class Loops(Protocol):
    """What the driver needs of a `LoopThread`."""

    loop: AbstractEventLoop

    @property
    def here(self) -> bool:
        """Whether the caller runs on the loop's thread."""
        ...

    def release(self) -> None:
        """Use it no more."""
        ...


class RealtimeDriver:
    """Moves a host along the clock on the wall.

    Every method may be called from any thread. To use the host itself, `call` a function: it then runs
    between two turns.

    Parameters
    ----------
    host : Host
        The host to drive; give it nodes with `driver.call(host.add, ...)`.
    speed : float
        Seconds of the host's in one second of the wall's; 0 stops time and everything with it.
    stall_ms : float
        How late the loop must be, on the wall, to count as having stood still.
    budget_ms : float
        After how long a run of turns lets other coroutines of the loop go first. Well above Python's switch
        interval of 5 ms: a loop that polls its sockets more often than that gives up the GIL for so short a
        time that a waiting thread starts its own wait anew each time, and may starve for seconds.
    seed : int or str, optional
        Fixes the wires' chance, though not the order of events.
    loops : Loops, optional
        Where to run; by default the process's `LoopThread`.
    """

    def __init__(
        self,
        host: Host,
        *,
        speed: float = 1.0,
        stall_ms: float = 20.0,
        budget_ms: float = 12.0,
        seed: int | str | None = None,
        loops: Loops | None = None,
    ) -> None:
        self.host = host
        self.rng = random.Random(None if seed is None else f"{seed}/network")
        self._speed = _checked_speed(speed)
        self._stall = stall_ms / 1000
        self._budget = budget_ms / 1000
        self._loops: Loops = LoopThread.acquire() if loops is None else loops
        self._loop = self._loops.loop
        self._mark = self._loop.time()
        self._base = 0.0
        self._wires: list[tuple[float, int, Record]] = []
        self._tie = 0
        self._planned = math.inf
        self._looked = 0.0
        self._timer: TimerHandle | None = None
        self._signalled = False
        self._closed = False
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._disks: dict[NodeId, concurrent.futures.ThreadPoolExecutor] = {}
        host.driver = self

    # --- time -----------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds of the host's time since the driver was made."""
        return self._base + (self._loop.time() - self._mark) * self._speed

    @property
    def speed(self) -> float:
        """Seconds of the host's in one of the wall's; may be set, to 0 too."""
        return self._speed

    @speed.setter
    def speed(self, value: float) -> None:
        speed = _checked_speed(value)

        def change() -> None:
            now = self.now
            self._base, self._mark, self._speed = now, self._loop.time(), speed
            self.host.fault("speed", speed)
            self._plan(now, anew=True)
            if self.host.busy:
                self._signal()

        self.call(change)

    # --- from any thread --------------------------------------------------------------------------------

    def post(self, node_id: NodeId, event: Event) -> None:
        """Give the node an event."""
        self.host.post(node_id, event)

    def ask(self, node_id: NodeId, request: Any, callback: Callable[[Any, bool], None]) -> int:
        """Ask a node something; see `Host.ask`. The callback runs on the loop, or here if it is at once."""
        with self._lock:
            token = self.host.token()
        return self.host.ask(node_id, request, callback, token)

    def call(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run `fn` between two turns and return its result; after `close`, run it here."""
        with self._lock:
            if self._closed or self._loops.here:
                return fn(*args, **kwargs)
            future: concurrent.futures.Future[T] = concurrent.futures.Future()

            def run() -> None:
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as error:
                    future.set_exception(error)

            self._loop.call_soon_threadsafe(run)
        return future.result()

    def later(self, seconds: float, fn: Callable[[], None]) -> None:
        """Call `fn` on the loop in so many of the wall's seconds; to be called there."""
        self._loop.call_later(seconds, fn)

    def close(self) -> None:
        """Stop all nodes and leave nothing behind; a second time does nothing."""
        with self._lock:
            if self._closed or os.getpid() != self._pid:
                return  # in a forked child there is no loop to stop
            # Whoever got the lock before has its call on the loop already, in front of this one.
            if self._loops.here:
                self._end()
                ended = None
            else:
                ended = threading.Event()
                self._loop.call_soon_threadsafe(self._end, ended)
            self._closed = True
        if ended is not None:
            ended.wait()
        for disk in self._disks.values():
            disk.shutdown(wait=ended is not None)
        self._loops.release()

    def _end(self, ended: threading.Event | None = None) -> None:
        try:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._wires.clear()
            self._signalled = True  # nothing wakes it any more
            self.host.close()
        finally:
            if ended is not None:
                ended.set()

    # --- the loop ---------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Have a turn taken soon; only the first call of a burst costs anything."""
        if not self._signalled:
            self._signalled = True
            self._signal()

    def _signal(self) -> None:
        if self._loops.here:
            self._loop.call_soon(self._run)
        else:
            with contextlib.suppress(RuntimeError):  # the loop was closed in the meantime
                self._loop.call_soon_threadsafe(self._run)

    def _ring(self) -> None:
        self._timer = None
        self._run()

    def _run(self) -> None:
        """Take turns until nothing is due, or for as long as the budget lasts."""
        if self._closed:
            return
        # Posts made from now on need no signal: the last lines look again.
        self._signalled = True
        if self._speed == 0.0:
            self._signalled = False
            return
        now = self.now
        try:
            idle = self._turns(now)
        except Exception:
            _log.exception("a turn of the host failed")
            idle = not self.host.busy
        now = self.now
        self._looked = now
        if not idle:
            self._planned = now
            self._loop.call_soon(self._run)
            return
        self._plan(now)
        self._signalled = False
        if self.host.busy:
            self.wake()

    def _turns(self, now: float) -> bool:
        host, loop, wires = self.host, self._loop, self._wires
        stall = self._stall * self._speed
        self._compensate(self._planned, self._looked, now)
        end = loop.time() + self._budget
        while True:
            while wires and wires[0][0] <= now:
                host.queue.append(heappop(wires)[2])
            while host.ring(now):
                pass
            if not host.busy:
                return True
            host.turn(now)
            before, now = now, self.now
            if now - before > stall:
                # The turn itself kept every node from its timers, as a long pause would.
                self._compensate(min(host.deadline, wires[0][0] if wires else math.inf), before, now)
            if loop.time() > end:
                return False

    def _compensate(self, due: float, looked: float, now: float) -> None:
        """Tell the nodes of a stall if something was due long ago and nobody looked since."""
        late = now - max(due, looked)
        if late > self._stall * self._speed:
            self.host.stall(late)
            self.host.turn(now)

    def _plan(self, now: float, anew: bool = False) -> None:
        """Set the timer for what is due next; one that is set for earlier may stay."""
        due = min(self.host.deadline, self._wires[0][0] if self._wires else math.inf)
        self._planned = due = max(due, now)
        timer = self._timer
        if anew and timer is not None:
            timer.cancel()
            self._timer = timer = None
        if due == math.inf or self._speed == 0.0:
            self._planned = math.inf
            return
        when = self._mark + (due - self._base) / self._speed
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._timer = self._loop.call_at(when, self._ring)

    def pending(self) -> list[tuple[float, Record]]:
        """Return the messages on the wires with their times of arrival, the next one first."""
        return [(at, sent) for at, _, sent in sorted(self._wires, key=lambda wire: wire[:2])]

    # --- what the host asks of its driver ---------------------------------------------------------------

    def carry(self, message: Record, delay: float) -> None:
        """Put a message on the wire; without latency it is in the next turn."""
        if delay <= 0.0:
            self.host.deliver(message)
        else:
            # Counted from the turn's now, as the plan did: a clock read again could let it be overtaken.
            self._tie += 1
            heappush(self._wires, (message.time + delay, self._tie, message))

    def load(self, node_id: NodeId, incarnation: int, disk: Disk) -> None:
        """Read a disk: here, or in the disk's thread after the writes that are under way."""
        if not disk.blocking:
            self.host.loaded(node_id, incarnation, load(disk))
            return

        def read() -> None:
            stored = load(disk)
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self.host.loaded, node_id, incarnation, stored)

        self._thread_of(node_id).submit(read)

    def save(self, node_id: NodeId, incarnation: int, number: int, disk: Disk, write: Any) -> None:
        """Write to a disk: here, or in the disk's thread."""
        if disk.blocking:
            self._thread_of(node_id).submit(self.host.write, node_id, incarnation, number, disk, write)
        else:
            self.host.write(node_id, incarnation, number, disk, write)

    def _thread_of(self, node_id: NodeId) -> concurrent.futures.ThreadPoolExecutor:
        thread = self._disks.get(node_id)
        if thread is None:
            name = f"agentflow-disk-{node_id}"
            thread = self._disks[node_id] = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix=name)
        return thread


def _checked_speed(speed: float) -> float:
    if isinstance(speed, bool) or not 0.0 <= speed < math.inf:
        raise InvalidConfig(f"speed is a number from 0 up, not {speed!r}", field="speed")
    return float(speed)
