"""A thread for an agent's plain handlers, so that one that blocks stops nobody else.

Law: one call at a time, in order; the thread ends when it is closed and the call under way is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["HandlerThread"]

_Job: TypeAlias = tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]]


class HandlerThread:
    """A daemon thread that calls functions for a loop.

    Parameters
    ----------
    name : str
        The thread's name.
    loop : AbstractEventLoop
        The loop that waits for its results.
    """

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    def run(self, fn: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Call `fn(*args)` in the thread; return the future of its result."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._jobs.put((future, fn, args))
        return future

    def close(self) -> None:
        """End when the call under way is over."""
        self._jobs.put(None)

    def join(self, limit_s: float) -> None:
        """Block until it has ended, for a moment at most; in the thread itself, not at all."""
        if self._thread is not threading.current_thread():
            self._thread.join(limit_s)

    def _main(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, fn, args = job
            result, error = None, None
            if not future.cancelled():
                try:
                    result = fn(*args)
                except BaseException as raised:
                    error = raised
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(_settle, future, result, error)
            del job, future, fn, args, result, error


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):
        # A future cannot hold it: it would end whoever awaits.
        future.set_exception(RuntimeError("the handler raised StopIteration"))
    else:
        future.set_exception(error)
