"""Waiting across threads and loops: one-shot signals, and bells that wake who waits in this process.

Law: setting a signal never blocks, whichever thread, loop or closed loop waits for it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

__all__ = ["Bell", "Doorbell", "Signal", "doorbell", "from_thread", "in_thread", "lease_clock", "settled"]

T = TypeVar("T")

_BOOT: Final = getattr(time, "CLOCK_BOOTTIME", None)


def lease_clock() -> float:
    """Seconds on a clock that never goes back and, where the system has one, counts the time a laptop slept."""
    return time.monotonic() if _BOOT is None else time.clock_gettime(_BOOT)


async def settled(future: Future[Any]) -> None:
    """Wait until the future is done, from any loop; cancelling the wait leaves the future alone."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def tell(_: Future[Any]) -> None:
        from_thread(loop, wake)

    future.add_done_callback(tell)
    await waiter


def in_thread(work: Callable[[], T]) -> Future[T]:
    """Do it in a thread of its own that never keeps the interpreter from exiting."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="agentflow-lock-close", daemon=True).start()
    return future


class Signal:
    """An event that is set once and can be awaited from any loop.

    Examples
    --------
    >>> signal = Signal()
    >>> signal.set()
    >>> signal.is_set()
    True
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self._future: Future[None] = Future()
        self._guard = threading.Lock()

    def set(self) -> None:
        """Set it; setting it again does nothing."""
        with self._guard:
            if self.event.is_set():
                return
            self.event.set()
        self._future.set_result(None)

    def is_set(self) -> bool:
        """Whether it was set."""
        return self.event.is_set()

    async def wait(self) -> bool:
        """Wait until it is set."""
        await settled(self._future)
        return True

    def __bool__(self) -> bool:
        return self.is_set()

    def __repr__(self) -> str:
        return f"<Signal {'set' if self.is_set() else 'not set'}>"


class Bell:
    """One waiter's bell: rung by whoever frees the lock in this process. It stays rung until `clear`."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._wake: Callable[[], None] | None = None

    def clear(self) -> None:
        """Forget earlier rings; call it before looking whether the lock is free."""
        self._event.clear()

    def ring(self) -> None:
        """Wake the waiter, now or when it starts to wait."""
        self._event.set()
        wake = self._wake
        if wake is not None:
            wake()

    def was_rung(self) -> bool:
        """Whether it was rung since `clear`."""
        return self._event.is_set()

    def wait(self, span_s: float) -> None:
        """Block until rung, or for `span_s`."""
        self._event.wait(span_s)

    async def listen(self, span_s: float) -> None:
        """Wait until rung, or for `span_s`, on the running loop."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not waiter.done():
                waiter.set_result(None)

        self._wake = lambda: from_thread(loop, wake)
        timer = loop.call_later(span_s, wake)
        try:
            if not self._event.is_set():
                await waiter
        finally:
            timer.cancel()
            self._wake = None


class Doorbell:
    """Who in this process waits for which lock. It only saves time: expiry and other processes ring nothing."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: dict[tuple[str, str], list[Bell]] = {}

    def join(self, place: tuple[str, str]) -> Bell:
        """Hang up a bell."""
        bell = Bell()
        with self._guard:
            self._waiting.setdefault(place, []).append(bell)
        return bell

    def leave(self, place: tuple[str, str], bell: Bell) -> None:
        """Take one's bell down."""
        with self._guard:
            bells = self._waiting.get(place, [])
            if bell in bells:
                bells.remove(bell)
            if not bells:
                self._waiting.pop(place, None)

    def ring(self, place: tuple[str, str], *, everyone: bool = False) -> None:
        """Wake the one who has waited longest, or all of them."""
        with self._guard:
            bells = list(self._waiting.get(place, ()))
        for bell in bells if everyone else bells[:1]:
            bell.ring()


doorbell: Final = Doorbell()


def from_thread(loop: asyncio.AbstractEventLoop, wake: Callable[[], None]) -> None:
    """Call `wake` on the loop soon, if the loop still is one."""
    try:
        loop.call_soon_threadsafe(wake)
    except RuntimeError:  # the loop was closed, and nobody waits on it any more
        return
