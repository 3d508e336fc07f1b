"""Which tasks that want locks may go to a worker.

Law: this decides what is worth a slot, never who holds a lock. A lock is taken by the worker around the attempt, from
the locks' own database; what is known here is only which attempts of this cluster want the same one, and which
workers came back because somebody else has it. So a task that waits for a lock waits in the queue, not in a slot.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from agentflow.ids import AttemptId

__all__ = ["ASK_AGAIN_SECS", "Gate", "HeldUp"]

ASK_AGAIN_SECS = 0.5
"""How long after a worker was turned away the lock is asked for again, by one of the tasks that want it."""

FORGET_SECS = 60.0


class HeldUp(msgspec.Struct, frozen=True, array_like=True):
    """Locks that somebody outside has: since when we know, when to ask again, and what the worker was told."""

    since: float
    until: float
    reason: str


class Gate:
    """What attempts under way want, and what turned others away.

    Attributes
    ----------
    wanted : dict
        Key of a lock to the attempt under way that takes it.
    held_up : dict
        Locks of a task, all it wants together, to what its worker was told.
    """

    __slots__ = ("held_up", "wanted")

    def __init__(self) -> None:
        self.wanted: dict[str, AttemptId] = {}
        self.held_up: dict[tuple[str, ...], HeldUp] = {}

    def is_open(self, locks: tuple[str, ...], at: float) -> bool:
        """Whether an attempt that wants these locks may be placed."""
        held = self.held_up.get(locks)
        return (held is None or held.until <= at) and not any(key in self.wanted for key in locks)

    def enter(self, locks: tuple[str, ...], attempt: AttemptId) -> None:
        """Count an attempt in that was placed."""
        for key in locks:
            self.wanted[key] = attempt

    def leave(self, locks: tuple[str, ...]) -> None:
        """Count an attempt out."""
        for key in locks:
            self.wanted.pop(key, None)

    def served(self, locks: tuple[str, ...]) -> None:
        """Forget what such a task had to wait for: one of them has run."""
        self.held_up.pop(locks, None)

    def turn_away(self, locks: tuple[str, ...], at: float, reason: str) -> None:
        """Let nobody ask for these locks for a while."""
        known = self.held_up.get(locks)
        since = at if known is None else known.since
        self.held_up[locks] = HeldUp(since, at + ASK_AGAIN_SECS, reason)

    def due(self, at: float) -> Iterable[float]:
        """When locks may be asked for again."""
        return [held.until for held in self.held_up.values() if held.until > at]

    def tidy(self, at: float) -> None:
        """Forget what nobody asked for again: the tasks that wanted it were cancelled."""
        for locks in [each for each, held in self.held_up.items() if held.until + FORGET_SECS <= at]:
            del self.held_up[locks]
