"""Something asked of an agent that may take a while: to be awaited, waited for, or listened to.

Law: a call is settled once, on the loop of its bus; whoever waits learns of it wherever he waits. It has
begun when it is made: awaiting it sends nothing, and forgetting to await it loses nothing but the answer.

On a simulation, waiting moves virtual time; inside a handler there it only waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from agentflow.errors import Refused, TimedOut

if TYPE_CHECKING:
    from agentflow.cluster.agents.bus import Bus

__all__ = ["Call"]

T = TypeVar("T")

_log = logging.getLogger("agentflow")
_lock = threading.Lock()


class Call(Coroutine[Any, Any, T]):
    """A call under way, or one that has ended.

    `await call` gives its value, in any loop; `call.result(timeout)` blocks for it; `call.done` says whether
    it has ended. It is made by the methods of `AgentCommunication`.
    """

    __slots__ = (
        "_bus",
        "_done",
        "_error",
        "_forget",
        "_ignored",
        "_listeners",
        "_steps",
        "_unheard",
        "_value",
        "message",
    )

    def __init__(self, bus: Bus, forget: Callable[[], None] | None = None) -> None:
        self._bus = bus
        self._done = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self._forget = forget
        self._listeners: list[Callable[[Call[T]], None]] | None = None
        self._steps: Generator[Any, Any, T] | None = None
        self._unheard: _Unheard | None = None
        self._ignored = False
        self.message: Any = None

    @classmethod
    def ended(cls, bus: Bus, value: T) -> Call[T]:
        """Make a call that has its value already."""
        # One is made for every message sent, so what only waiting needs is left out.
        call: Call[T] = object.__new__(cls)
        call._bus = bus
        call._done = True
        call._value = value
        call._error = call._steps = call._unheard = call.message = None
        return call

    @classmethod
    def failed(cls, bus: Bus, error: BaseException) -> Call[T]:
        """Make a call that has failed already."""
        call = cls(bus)
        call.settle(error=error)
        return call

    # --- for those who wait -------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._done

    def result(self, timeout: float | None = None) -> T:
        """Block until it has ended, and return its value or raise its error.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait; on a simulation, virtual ones.

        Raises
        ------
        TimedOut
            If it has not ended by then. It goes on.
        Refused
            On agentflow's own loop, which this would block: use `await` there.
        """
        if not self._done and not self._bus.wait(self, timeout):
            raise TimedOut(f"no answer within {timeout} s; the call goes on, ask it again")
        return self._outcome()

    def add_done_callback(self, fn: Callable[[Call[T]], None]) -> None:
        """Call `fn(call)` when it has ended; at once if it has."""
        with _lock:
            if not self._done:
                self._listeners = [*(self._listeners or ()), fn]
                return
        fn(self)

    def ignore(self) -> None:
        """Do not care how it ends: a failure that nobody looks at is not reported."""
        with _lock:
            self._ignored = True
            if self._unheard is not None:
                self._unheard.heard = True

    def cancel(self) -> None:
        """Wait no more; what was sent is sent."""
        if self.settle(error=asyncio.CancelledError()) and self._forget is not None:
            self._forget()

    def __await__(self) -> Generator[Any, Any, T]:
        if not self._done:
            if self._bus.virtual and not self._bus.here:
                if not self._bus.wait(self, None):
                    raise TimedOut("there was no answer within an hour of virtual time; the call goes on")
            else:
                yield from self._wait_on(asyncio.get_running_loop())
        return self._outcome()

    def _wait_on(self, loop: asyncio.AbstractEventLoop) -> Generator[Any, Any, None]:
        future: asyncio.Future[None] = loop.create_future()
        home = loop is self._bus.loop

        def wake() -> None:
            if not future.done():
                future.set_result(None)

        def heard(call: Call[T]) -> None:
            if home and self._bus.here:
                wake()
            else:
                with contextlib.suppress(RuntimeError):  # that loop was closed in the meantime
                    loop.call_soon_threadsafe(wake)

        self.add_done_callback(heard)
        try:
            yield from future
        except BaseException:
            self.cancel()
            raise

    def _outcome(self) -> T:
        if self._error is not None:
            if self._unheard is not None:
                self._unheard.heard = True
            raise self._error
        return cast("T", self._value)

    # --- for those who settle it --------------------------------------------------------------------------

    def settle(self, value: Any = None, error: BaseException | None = None) -> bool:
        """End it; False if it had ended before."""
        with _lock:
            if self._done:
                return False
            self._value, self._error = value, error
            if error is not None and not self._ignored and not isinstance(error, asyncio.CancelledError):
                self._unheard = _Unheard(error)
            self._done = True
            listeners, self._listeners = self._listeners, None
        for fn in listeners or ():
            fn(self)
        return True

    # --- what makes it a coroutine, for `asyncio.run` and `asyncio.create_task` ---------------------------

    def send(self, value: Any) -> Any:
        """Go on; for event loops."""
        if self._steps is None:
            self._steps = self.__await__()
        return self._steps.send(value)

    def throw(self, *error: Any) -> Any:
        """Raise inside; for event loops."""
        if self._steps is None:
            self._steps = self.__await__()
        return self._steps.throw(*error)

    def close(self) -> None:
        """Wait no more; for event loops."""
        if self._steps is not None:
            self._steps.close()

    def __repr__(self) -> str:
        if not self._done:
            return "<call under way>"
        if self._error is not None:
            return f"<call failed: {type(self._error).__name__}: {self._error}>"
        return f"<call done: {self._value!r}>"


class _Unheard:
    """Says so if nobody ever looks at a failure."""

    __slots__ = ("error", "heard")

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.heard = False

    def __del__(self) -> None:
        if not self.heard:
            _log.warning(
                "nobody looked at the answer of a call, which was %s",
                f"{type(self.error).__name__}: {self.error}",
            )


def refuse_here() -> Refused:
    """Say that blocking on the loop itself would be for ever."""
    return Refused(
        "this would block the loop that is to bring the answer; make the handler async, and await it"
    )
