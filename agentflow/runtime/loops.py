"""The asyncio loop of the library: one a process, in a daemon thread of its own.

Law: the thread lives exactly as long as somebody uses it. It starts with the first user and has ended,
its tasks cancelled and its descriptors closed, when the last one's `release` returns.

A loop of its own is why a busy notebook cell stops no election: the cell blocks the kernel's loop, not
this one.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from agentflow.errors import Refused

__all__ = ["LoopThread", "run_sync"]

T = TypeVar("T")

_log = logging.getLogger("agentflow")


class LoopThread:
    """A loop running in a daemon thread, shared by all who acquire it.

    Examples
    --------
    >>> loops = LoopThread.acquire()
    >>> loops.call(lambda: 6 * 7)
    42
    >>> loops.release()
    """

    _shared: LoopThread | None = None
    _lock = threading.RLock()

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._users = 0
        self._pid = os.getpid()
        self._stopping = False
        started = threading.Event()
        self._thread = threading.Thread(
            target=self._main, args=(started,), name="agentflow-loop", daemon=True
        )
        self._thread.start()
        started.wait()

    @classmethod
    def acquire(cls) -> LoopThread:
        """Return the process's loop, started if need be, as one more user of it."""
        with cls._lock:
            shared = cls._shared
            if shared is None or not shared._thread.is_alive():
                cls._shared = shared = cls()
            shared._users += 1
            return shared

    def release(self) -> None:
        """Use it no more. The last user ends it, and waits for that unless it runs on the loop itself."""
        cls = type(self)
        with cls._lock:
            self._users -= 1
            if self._users or self._pid != os.getpid():
                return
            self._stopping = True
            if cls._shared is self:
                cls._shared = None
        self.loop.call_soon_threadsafe(self.loop.stop)
        if not self.here:
            self._thread.join()

    @classmethod
    def forget(cls) -> None:
        """Begin anew in a forked child, where the parent's thread does not exist."""
        cls._shared = None
        cls._lock = threading.RLock()

    @property
    def here(self) -> bool:
        """Whether the caller runs on this loop's thread."""
        return threading.get_ident() == self._thread.ident

    def call(self, fn: Callable[[], T]) -> T:
        """Run `fn()` on the loop's thread and return its result."""
        if self.here:
            return fn()
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            try:
                future.set_result(fn())
            except BaseException as error:
                future.set_exception(error)

        self.loop.call_soon_threadsafe(run)
        return future.result()

    def run(self, awaitable: Awaitable[T]) -> T:
        """Run an awaitable on the loop and block for its result; see `run_sync`."""
        ended = threading.Event()

        async def guarded() -> tuple[T | None, BaseException | None]:
            # SystemExit out of a task would end the loop under all its other users.
            try:
                return await awaitable, None
            except (SystemExit, KeyboardInterrupt) as error:
                return None, error
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(guarded(), self.loop)
        try:
            result, error = future.result()
        except KeyboardInterrupt:
            future.cancel()
            ended.wait(1.0)
            raise
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    def _main(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(started.set)
        try:
            while not self._stopping:
                try:
                    self.loop.run_forever()
                except BaseException:
                    # A callback let SystemExit or KeyboardInterrupt through; the loop has other users.
                    _log.exception("a callback tried to end agentflow's loop")
            self.loop.run_until_complete(self._settle())
        finally:
            asyncio.set_event_loop(None)
            self.loop.close()

    async def _settle(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.loop.shutdown_asyncgens()
        await self.loop.shutdown_default_executor()


os.register_at_fork(after_in_child=LoopThread.forget)


def run_sync(awaitable: Awaitable[T]) -> T:
    """Run a coroutine on agentflow's loop and block for its result.

    It does the same in a notebook cell, a script and a worker. An interrupt cancels the coroutine.

    Parameters
    ----------
    awaitable : awaitable
        What to wait for.

    Returns
    -------
    Any
        What the coroutine returns; what it raises is raised here.

    Raises
    ------
    Refused
        If called on agentflow's loop itself, which would wait for itself for ever: use `await` there.

    Examples
    --------
    >>> import asyncio
    >>> async def answer():
    ...     await asyncio.sleep(0)
    ...     return 42
    >>> run_sync(answer())
    42
    """
    if not inspect.isawaitable(awaitable):
        raise TypeError(
            f"run_sync waits for a coroutine, not for {awaitable!r}; call the async function first"
        )
    shared = LoopThread._shared
    if shared is not None and shared.here:
        close: Any = getattr(awaitable, "close", None)
        if close is not None:
            close()
        raise Refused("run_sync was called on agentflow's own loop, which it would block; use await there")
    loops = LoopThread.acquire()
    try:
        return loops.run(awaitable)
    finally:
        loops.release()
