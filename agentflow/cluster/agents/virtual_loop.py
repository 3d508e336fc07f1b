"""An asyncio loop in virtual time, so that handlers written with asyncio run in a simulation unchanged.

Law: it owns no time. What is due is an entry of the driver's heap like any message, so `asyncio.sleep`,
time-outs, queues and gathered tasks fall into the one order that the seed fixes.

It has no threads, sockets or child processes: those live in real time, and asking for them is refused.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from agentflow.errors import Refused
from agentflow.runtime.virtual import VirtualDriver

__all__ = ["VirtualLoop"]

_log = logging.getLogger("agentflow")


class VirtualLoop(asyncio.AbstractEventLoop):
    """The loop on which handlers of a simulation run.

    Parameters
    ----------
    driver : VirtualDriver
        What moves time.

    Examples
    --------
    >>> from agentflow.runtime.host import Host
    >>> from agentflow.runtime.trace import Trace
    >>> from agentflow.transport.memory import Network
    >>> driver = VirtualDriver(Host(trace=Trace(), network=Network()))
    >>> loop = VirtualLoop(driver)
    >>> async def nap():
    ...     await asyncio.sleep(30)
    ...     print("slept until", driver.now)
    >>> task = loop.create_task(nap())
    >>> driver.run_for(60)
    slept until 30.0
    """

    def __init__(self, driver: VirtualDriver) -> None:
        self._driver = driver
        self._ready: deque[asyncio.Handle] = deque()
        self._due = False
        self._timers: set[asyncio.TimerHandle] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._running = False

    def time(self) -> float:
        """Return the virtual time."""
        return self._driver.now

    # --- scheduling -----------------------------------------------------------------------------------------

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Call it at this instant, after what is due before."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        if not self._due:
            self._due = True
            self._driver.after(0.0, self._drain)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Do as `call_soon`: there is but one thread here."""
        return self.call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call it in so many virtual seconds."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call it at an instant of virtual time."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        timer._scheduled = True  # type: ignore[attr-defined]
        self._timers.add(timer)
        self._driver.at(when, self._ring, timer)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self._timers.discard(handle)

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, **options: Any
    ) -> asyncio.Task[Any]:
        """Start a task."""
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, **options)
        # A simulation that is dropped in the middle of things is no mistake.
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- running --------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        self._due = False
        for _ in range(len(self._ready)):
            self._run(self._ready.popleft())

    def _ring(self, timer: asyncio.TimerHandle) -> None:
        self._timers.discard(timer)
        self._run(timer)

    def _run(self, handle: asyncio.Handle) -> None:
        """Run one callback with this loop as the running one, whichever loop the caller is on."""
        if handle.cancelled():
            return
        outer = asyncio._get_running_loop()
        task = _set_aside(outer)
        asyncio._set_running_loop(self)
        before, self._running = self._running, True
        try:
            handle._run()
        finally:
            self._running = before
            asyncio._set_running_loop(outer)
            _set_back(outer, task)

    def is_running(self) -> bool:
        """Whether a callback of this loop runs at this moment."""
        return self._running

    def is_closed(self) -> bool:
        """Whether it was closed: it never is."""
        return False

    def get_debug(self) -> bool:
        """Whether asyncio's debug mode is on: it never is."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Report what went wrong where nobody waits."""
        _log.error("%s", context.get("message", "a callback failed"), exc_info=context.get("exception"))

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Report what went wrong where nobody waits."""
        self.call_exception_handler(context)

    async def shutdown_asyncgens(self) -> None:
        """Do nothing."""

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        """Refuse: a thread has no virtual time."""
        raise Refused("a simulation has no threads, whose time is real; call the function directly")


def _set_aside(loop: asyncio.AbstractEventLoop | None) -> asyncio.Task[Any] | None:
    """Take the task that runs on the caller's loop out of its place: newer Pythons allow but one a thread."""
    swap = getattr(asyncio.tasks, "_swap_current_task", None)
    return None if swap is None or loop is None else swap(loop, None)


def _set_back(loop: asyncio.AbstractEventLoop | None, task: asyncio.Task[Any] | None) -> None:
    swap = getattr(asyncio.tasks, "_swap_current_task", None)
    if swap is not None and loop is not None:
        swap(loop, task)
