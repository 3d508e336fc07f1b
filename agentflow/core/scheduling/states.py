"""What may become of a task in each state, and how many are where.

Law: the table below is the only one; a task that has come to its end stays there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from agentflow.core.scheduling.tasks import TaskState

STATES: Final = tuple(TaskState)
CODE: Final = {state: code for code, state in enumerate(STATES)}
PENDING, READY, RUNNING, COMPLETED, FAILED, RETRYING, CANCELLED, SKIPPED = range(8)

NEXT_STATES: Final[Mapping[TaskState, frozenset[TaskState]]] = {
    TaskState.PENDING: frozenset({TaskState.CANCELLED, TaskState.SKIPPED}),
    TaskState.READY: frozenset(set(TaskState) - {TaskState.PENDING}),
    TaskState.RUNNING: frozenset(set(TaskState) - {TaskState.PENDING, TaskState.SKIPPED}),
    TaskState.RETRYING: frozenset(
        {TaskState.READY, TaskState.RUNNING, TaskState.FAILED, TaskState.CANCELLED}
    ),
    TaskState.COMPLETED: frozenset(),
    TaskState.FAILED: frozenset(),
    TaskState.CANCELLED: frozenset(),
    TaskState.SKIPPED: frozenset(),
}
"""What may be told of a task in each state. That a task becomes READY for the first time is never told: it
follows from its dependencies."""

ALLOWED: Final = tuple(frozenset(CODE[after] for after in NEXT_STATES[state]) for state in STATES)
ENDS: Final = frozenset({COMPLETED, FAILED, CANCELLED, SKIPPED})
FAILURES: Final = frozenset({FAILED, CANCELLED})


class Progress(msgspec.Struct, frozen=True):
    """How many tasks of a workflow are in each state.

    Examples
    --------
    >>> Progress(total=4, completed=2, running=2)
    <Progress 2/4 (50 %): 2 completed, 2 running>
    """

    total: int = 0
    pending: int = 0
    ready: int = 0
    running: int = 0
    completed: int = 0
    failed: int = 0
    retrying: int = 0
    cancelled: int = 0
    skipped: int = 0

    @property
    def settled(self) -> int:
        """Tasks that came to their end, whichever."""
        return self.completed + self.failed + self.cancelled + self.skipped

    @property
    def fraction(self) -> float:
        """The settled share; an empty workflow is done."""
        return self.settled / self.total if self.total else 1.0

    @property
    def percent(self) -> float:
        """The same in percent."""
        return 100.0 * self.fraction

    def __repr__(self) -> str:
        names = ("completed", "failed", "cancelled", "skipped", "running", "retrying", "ready", "pending")
        parts = [f"{count} {name}" for name in names if (count := getattr(self, name))]
        head = f"{self.settled}/{self.total} ({self.percent:.0f} %)"
        return f"<Progress {head}{': ' if parts else ''}{', '.join(parts)}>"


class Tally(msgspec.Struct):
    """How a task's settled dependencies ended; kept where its trigger rule is not the default."""

    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
