"""How a worker gets its work done, and what it hears of it.

Law: work that was started ends in exactly one call of `done`, whatever the user's function does, unless
`abandon` said that it never ran, or the runner was closed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from contextvars import Context
from threading import Thread
from types import CoroutineType
from typing import Any, Protocol, TypeAlias, runtime_checkable

import msgspec

from agentflow.executors.streams import Capture

Call: TypeAlias = Callable[[], Any]
Clock: TypeAlias = Callable[[], float]


class Outcome(msgspec.Struct, frozen=True):
    """How one piece of work ended.

    Parameters
    ----------
    value : Any
        What the call returned; None if it raised.
    error : BaseException or None
        What it raised, `SystemExit` and its like included.
    started, finished : float
        Seconds of the runner's clock.
    cpu_s : float
        Processor time the work itself took.
    stdout : str
        What it printed, standard error included, as a terminal would show it; long text loses its middle.
    thread : str
        The thread or process that ran it.
    """

    value: Any
    error: BaseException | None
    started: float
    finished: float
    cpu_s: float = 0.0
    stdout: str = ""
    thread: str = ""

    @property
    def ok(self) -> bool:
        """Whether the call returned."""
        return self.error is None


Done: TypeAlias = Callable[[int, Outcome], None]


@runtime_checkable
class Runner(Protocol):
    """What runs a worker's attempts. Keys are the caller's names for them and may be used once at a time."""

    def start(self, key: int, call: Call, done: Done) -> None:
        """Run `call()` when a slot is free, then `done(key, outcome)` from the runner's own thread.

        A coroutine that `call` returns is run to its end as well, on an event loop of its own.
        """
        ...

    def abandon(self, key: int) -> bool:
        """Take back work that has not begun: True if it did not run and will not, and `done` will not come.

        False if it runs or has run.
        """
        ...

    def replace(self, key: int) -> str | None:
        """Free the slot of work that runs too long, by killing it where that can be done.

        Returns the name of what still runs all the same (a Python thread cannot be killed), or None.
        `done` is still called when the work ends.
        """
        ...

    def close(self, timeout_secs: float) -> list[str]:
        """Forget what has not begun, wait a moment for what runs, name what still runs after it."""
        ...


def perform(
    call: Call,
    clock: Clock = time.monotonic,
    capture: Capture | None = None,
    thread: str = "",
    cpu_clock: Clock = time.thread_time,
) -> Outcome:
    """Call, and report how it went; nothing that the call raises gets past.

    The call has a context of its own, so that what one task sets in a `ContextVar` (NumPy's error state,
    the decimal context) is not seen by the next one on the same thread.

    Examples
    --------
    >>> perform(lambda: 6 * 7).value
    42
    >>> perform(lambda: exit(3)).error
    SystemExit(3)
    """
    value = error = None
    context = Context()
    started, cpu = clock(), cpu_clock()
    try:
        value = context.run(call)
        if value.__class__ is CoroutineType:
            value = context.run(_complete, value)
    except BaseException as caught:
        # Our own frame says nothing to the user, and would keep the call's arguments alive.
        error = caught
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
    cpu = cpu_clock() - cpu
    stdout = capture.take() if capture is not None and capture.size else ""
    try:
        return Outcome(value, error, started, clock(), cpu, stdout, thread)
    finally:
        del error


def _complete(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end; beside a loop that already runs in this thread, in another thread."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with asyncio.Runner() as runner:
            return runner.run(coroutine)
    outcomes: list[Outcome] = []
    thread = Thread(target=lambda: outcomes.append(perform(lambda: _complete(coroutine))), daemon=True)
    thread.start()
    thread.join()
    if outcomes[0].error is not None:
        raise outcomes[0].error
    return outcomes[0].value
