"""A runner that runs at once, where it is asked: for tests, and for looking at one task by hand."""

from __future__ import annotations

import time

from agentflow.errors import Closed
from agentflow.executors.base import Call, Clock, Done, perform


class InlineRunner:
    """Runs each call within `start`, in the caller's thread.

    Parameters
    ----------
    name : str
        What outcomes call it.
    clock : callable
        Gives the seconds that outcomes are stamped with.

    Examples
    --------
    >>> runner = InlineRunner()
    >>> runner.start(1, lambda: 2 + 2, lambda key, outcome: print(key, outcome.value))
    1 4
    >>> runner.abandon(1)
    False
    """

    def __init__(self, name: str = "inline", *, clock: Clock = time.monotonic) -> None:
        self.name = name
        self._clock = clock
        self._closed = False

    def start(self, key: int, call: Call, done: Done) -> None:
        """Run `call()`, then `done(key, outcome)`."""
        if self._closed:
            raise Closed(f"{self.name} is closed")
        done(key, perform(call, self._clock, thread=self.name))

    def abandon(self, key: int) -> bool:
        """Return False: whatever was started has run."""
        return False

    def replace(self, key: int) -> str | None:
        """Return None: nothing runs."""
        return None

    def close(self, timeout_secs: float = 1.0) -> list[str]:
        """Refuse further work."""
        self._closed = True
        return []
