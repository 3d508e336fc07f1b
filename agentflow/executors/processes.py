"""Processes of our own, by loky and cloudpickle: for work that holds the GIL, or may have to be killed.

Law: one slot is one process with a pool of its own. A pool that loses a process fails everything that it
holds; here that is one task, so that nobody's crash or time-out is blamed on a neighbour.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import weakref
from concurrent.futures import BrokenExecutor, Executor
from functools import partial
from typing import Any

from agentflow.errors import MissingExtra, PeerDown, TaskCancelled
from agentflow.executors import streams
from agentflow.executors.base import Call, Clock, Done, Outcome, perform
from agentflow.executors.pickling import pack, unpack
from agentflow.executors.remote import pack_outcome, unpack_outcome
from agentflow.executors.threads import ThreadRunner


class _Job:
    """One call on its way through a process."""

    __slots__ = ("is_killed", "pool")

    def __init__(self) -> None:
        self.pool: Executor | None = None
        self.is_killed = False


class ProcessRunner:
    """Runs calls in processes, which start as they are needed and are used again.

    Parameters
    ----------
    name : str
        What messages call it.
    slots : int
        How many calls run at once, each in a process of its own.
    clock : callable
        Gives the seconds that outcomes are stamped with.
    capture : int
        How many characters of a task's output are kept.

    Raises
    ------
    MissingExtra
        loky is not installed.

    Notes
    -----
    Functions, arguments and results travel by cloudpickle; what cannot is named in an `Unpicklable`. A
    process that dies during a call ends it with `PeerDown`, one that was killed by `replace` with
    `TaskCancelled`. Interrupting the kernel does not interrupt the processes.

    loky and Python each start a `resource_tracker`, a small process that holds no work. They serve later
    pools of anybody's and end with the interpreter: stopped before, they would unlink others' semaphores.
    """

    def __init__(
        self, name: str, slots: int, *, clock: Clock = time.monotonic, capture: int = streams.LIMIT
    ) -> None:
        try:
            import loky
        except ImportError as error:
            raise MissingExtra.of("loky", "processes", "executor='processes'") from error
        self._loky: Any = loky
        self.name = name
        self.slots = slots
        self._capture = capture
        # Each slot has a thread that packs, waits and unpacks, so that large values hold up nobody else.
        self._threads = ThreadRunner(name, slots, clock=clock, capture=0)
        self._lock = threading.Lock()
        self._idle: list[Executor] = []
        self._jobs: dict[int, _Job] = {}
        self._is_closed = False
        _runners.add(self)

    def __repr__(self) -> str:
        return f"<ProcessRunner {self.name}: {len(self._jobs)} of {self.slots} slots busy>"

    def start(self, key: int, call: Call, done: Done) -> None:
        """Run `call()` in a free process, then `done(key, outcome)` in a thread of this one."""
        self._threads.start(key, partial(self._carry, key, call), partial(_report, done))

    def abandon(self, key: int) -> bool:
        """Take back a call that no process has been given."""
        return self._threads.abandon(key)

    def replace(self, key: int) -> str | None:
        """Kill the process that runs `key`, and the processes that it started. Nothing goes on running."""
        with self._lock:
            job = self._jobs.get(key)
            if job is None:
                return None
            job.is_killed = True
            pool = job.pool
        if pool is not None:
            _kill(pool)
        return None

    def close(self, timeout_secs: float = 1.0) -> list[str]:
        """Forget what has not begun, wait for what runs, then kill it; no process is left."""
        left = self._threads.close(timeout_secs)
        self._end()
        if left:
            left = self._threads.close(5.0)
        _runners.discard(self)
        return left

    # --- how --------------------------------------------------------------------------------------------

    def _carry(self, key: int, call: Call) -> Outcome:
        """Run in a thread: send the call, wait, and read what comes back."""
        data = pack(call, "the call")
        job = _Job()
        with self._lock:
            self._jobs[key] = job
        try:
            packed = self._run(job, data)
        finally:
            with self._lock:
                self._jobs.pop(key, None)
                is_spent = job.is_killed or self._is_closed
                if job.pool is not None and not is_spent:
                    self._idle.append(job.pool)
            if job.pool is not None and is_spent:
                _shut(job.pool)
        return unpack_outcome(*packed)

    def _run(self, job: _Job, data: bytes) -> tuple[bytes, bytes | None, tuple[Any, ...]]:
        try:
            future = self._submit(job, data)
            packed: tuple[bytes, bytes | None, tuple[Any, ...]] = future.result()
            return packed
        except (BrokenExecutor, self._loky.process_executor.ShutdownExecutorError) as error:
            pool, job.pool = job.pool, None
            if pool is not None:
                _shut(pool)
            if job.is_killed:
                raise TaskCancelled(f"the process of {self.name} that ran this was killed") from None
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise PeerDown(
                f"the process of {self.name} that ran this died: {first}", node=self.name
            ) from None

    def _submit(self, job: _Job, data: bytes) -> Any:
        while True:
            with self._lock:
                if job.is_killed or self._is_closed:
                    job.is_killed = True
                    raise BrokenExecutor("killed before it began")
                is_new = not self._idle
                job.pool = self._new_pool() if is_new else self._idle.pop()
                pool = job.pool
            try:
                future = pool.submit(_work, data, self._capture)
            except BrokenExecutor:
                # It died while it was idle: no task's fault.
                if is_new:
                    raise
                _shut(pool)
                continue
            if is_new:
                _be_asked_before_loky()
            if job.is_killed:  # by someone who came before there was a process to kill
                _kill(pool)
            return future

    def _new_pool(self) -> Executor:
        pool: Executor = self._loky.process_executor.ProcessPoolExecutor(
            max_workers=1, initializer=_ignore_interrupts
        )
        return pool

    def _end(self) -> None:
        """Kill every process."""
        with self._lock:
            self._is_closed = True
            jobs, self._jobs = list(self._jobs.values()), {}
            idle, self._idle = self._idle, []
        for job in jobs:
            job.is_killed = True
            if job.pool is not None:
                _kill(job.pool)
        while idle:
            _shut(idle.pop())


def _kill(pool: Executor) -> None:
    """Kill the process and those that it started; whoever waits for it sees the pool broken.

    `shutdown(kill_workers=True)` would do it too, but forgets the pool's thread, so that nobody could
    wait for that to let go of its semaphores.
    """
    from loky.backend.utils import kill_process_tree

    for process in list(pool._processes.values()):  # type: ignore[attr-defined]
        with contextlib.suppress(Exception):
            kill_process_tree(process)


def _shut(pool: Executor) -> None:
    """End the pool, its process and its threads; loky leaves one of them to end by itself."""
    queue = getattr(pool, "_call_queue", None)
    pool.shutdown(wait=True, kill_workers=True)  # type: ignore[call-arg]
    feeder = getattr(queue, "_thread", None)
    if feeder is not None:
        queue.close()  # type: ignore[union-attr]
        feeder.join(5.0)


def _report(done: Done, key: int, outer: Outcome) -> None:
    """Pass on the process's outcome, on this side's clock."""
    inner = outer.value
    if isinstance(inner, Outcome):
        started = outer.finished - (inner.finished - inner.started)
        outer = Outcome(
            inner.value, inner.error, started, outer.finished, inner.cpu_s, inner.stdout, inner.thread
        )
    done(key, outer)


# --- in the process ---------------------------------------------------------------------------------------


def _work(data: bytes, limit: int) -> tuple[bytes, bytes | None, tuple[Any, ...]]:
    """Read the call, run it, and pack what came of it."""
    import os

    capture = streams.Capture(limit) if limit else None
    if capture is not None:
        streams.begin(capture)
    try:
        name = f"process {os.getpid()}"
        outcome = perform(lambda: unpack(data)(), capture=capture, thread=name, cpu_clock=time.process_time)
    finally:
        if capture is not None:
            streams.end()
    return pack_outcome(outcome)


def _ignore_interrupts() -> None:
    # Jupyter sends an interrupt to the kernel's whole process group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


# --- at exit ----------------------------------------------------------------------------------------------

_runners: weakref.WeakSet[ProcessRunner] = weakref.WeakSet()


def _end_all() -> None:
    for runner in list(_runners):
        runner._threads.close(0)
        runner._end()


def _be_asked_before_loky() -> None:
    """See to it that at exit our processes are killed before loky begins to wait for them.

    The last to register is asked first, and loky registers with every pool.
    """
    with contextlib.suppress(AttributeError, RuntimeError):
        threading._register_atexit(_end_all)  # type: ignore[attr-defined]
