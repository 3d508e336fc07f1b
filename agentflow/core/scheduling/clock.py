"""Where the classes of this package get the time when nobody gives them a clock.

Law: the core reads no clock of its own. Whoever lives above it and has one lends it here, once, with
`install`. `PROVIDER` is who does so by default: a name, imported when the time is first asked for, so that
with a `clock=` or `now=` of one's own no clock is ever touched.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Final, TypeAlias

Clock: TypeAlias = Callable[[], float]
"""Gives the seconds since some instant; it never goes back."""

Sleep: TypeAlias = Callable[[float], None]
"""Waits for some seconds."""

PROVIDER: Final = "agentflow.cluster.queue"

_lent: list[tuple[Clock, Sleep]] = []


def install(clock: Clock, sleep: Sleep) -> None:
    """Lend the core a clock, and a way to wait for the tasks that do nothing else.

    It serves objects that were made before, too.

    Examples
    --------
    >>> import time
    >>> install(time.monotonic, time.sleep)
    >>> default() > 0.0
    True
    """
    _lent[:] = [(clock, sleep)]


def default() -> float:
    """Read the clock that was lent."""
    return _borrow()[0]()


def sleeper() -> Sleep:
    """Give the function that waits."""
    return _borrow()[1]


def _borrow() -> tuple[Clock, Sleep]:
    if not _lent:
        importlib.import_module(PROVIDER)
        assert _lent, "the provider lends a clock"
    return _lent[0]
