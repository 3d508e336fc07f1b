"""Small views, a table each: queue, workers, locks, agents and messages of a cluster.

Law: a database is asked for locks once a second at most, whatever is shown.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from agentflow.cluster.parts import leases, mailboxes, waiting_in_cluster
from agentflow.core.scheduling.tasks import TaskPriority
from agentflow.errors import AgentflowError
from agentflow.notebook.live.scene import Frame, Scene, short

ROWS: Final = 60
MESSAGES: Final = 200
ASK_SECS: Final = 1.0


class TableScene(Scene):
    """A view that is a table."""

    module: ClassVar[str] = "small.js"
    columns: ClassVar[tuple[str, ...]] = ()
    title: ClassVar[str] = ""

    def __init__(self, subject: Any) -> None:
        super().__init__(subject)
        self._told = False

    def fixed(self, frame: Frame) -> dict[str, Any] | None:
        """Title and columns, once."""
        if self._told:
            return None
        self._told = True
        return {"title": self.title, "columns": list(self.columns)}

    def refix(self) -> None:
        """Send them again."""
        self._told = False

    def rows(self, frame: Frame) -> tuple[str, Sequence[Sequence[Any]]]:
        """What to say above the table, and its rows."""
        raise NotImplementedError

    def snapshot(self, frame: Frame) -> dict[str, Any]:
        """The table at one instant."""
        said, rows = self.rows(frame)
        return {"now": round(frame.home.now, 2), "said": said, "rows": [list(row) for row in rows]}


class QueueScene(TableScene):
    """Who waits, by priority, with the scores that serve."""

    title = "queue"
    columns = ("priority", "waiting", "highest score", "oldest, s")

    def rows(self, frame: Frame) -> tuple[str, Sequence[Sequence[Any]]]:
        """A row a priority, the most urgent first."""
        found = waiting_in_cluster(frame.home).tasks
        rows = []
        for priority in sorted(TaskPriority, reverse=True):
            mine = [task for task in found if task[0] == priority]
            best = max((score for _, score, _ in mine), default=None)
            oldest = max((waited for *_, waited in mine), default=None)
            rows.append((priority.name.lower(), len(mine), _short(best), _short(oldest)))
        return f"{len(found):,} waiting", rows


class WorkersScene(TableScene):
    """The workers, each with what it runs."""

    title = "workers"
    columns = ("worker", "group", "status", "running", "slots", "load", "heartbeat, s ago")

    def rows(self, frame: Frame) -> tuple[str, Sequence[Sequence[Any]]]:
        """A row a worker."""
        found = frame.parts["workers"]
        up = sum(worker.status not in ("OFFLINE", "DOWN") for worker in found)
        return f"{up} of {len(found)} up", [
            (
                *(short(w.id), short(w.group), w.status.lower(), w.running, w.slots, _short(w.load)),
                _short(w.heartbeat_age_s),
            )
            for w in found[:ROWS]
        ]


class LocksScene(TableScene):
    """Who holds which lock, and for how long yet."""

    title = "locks"
    columns = ("key", "owner", "token", "left, s")

    def __init__(self, subject: Any) -> None:
        super().__init__(subject)
        self._asked_at = -ASK_SECS
        self._known: tuple[str, Sequence[Sequence[Any]]] = ("none held", ())

    def rows(self, frame: Frame) -> tuple[str, Sequence[Sequence[Any]]]:
        """A row a lease."""
        now = time.monotonic()
        if now - self._asked_at >= ASK_SECS:
            self._asked_at = now
            self._known = self._ask(frame.home)
        return self._known

    def _ask(self, cluster: Any) -> tuple[str, Sequence[Sequence[Any]]]:
        try:
            found = leases(cluster.lock_rows())
        except (AgentflowError, AttributeError) as error:
            return f"not known: {type(error).__name__}", ()
        rows = [
            (short(each.key), short(each.owner), each.token, _short(each.left_s)) for each in found[:ROWS]
        ]
        return f"{len(found)} held", rows


class AgentsScene(TableScene):
    """The agents and their mailboxes."""

    title = "agents"
    columns = ("agent", "state", "mailbox", "room", "sent", "received", "handled", "failed", "dead letters")

    def rows(self, frame: Frame) -> tuple[str, Sequence[Sequence[Any]]]:
        """A row an agent."""
        found = mailboxes(frame.home)
        return f"{len(found)} open", [
            (
                *(short(each.id), each.state, each.waiting, each.capacity, each.sent, each.received),
                *(each.handled, each.failed, sum(count for _, count in each.dead)),
            )
            for each in found[:ROWS]
        ]


class MessagesScene(TableScene):
    """The newest messages, to be filtered where they are shown."""

    title = "messages"
    columns = ("time, s", "what", "from", "to", "type")

    def rows(self, frame: Frame) -> tuple[str, Sequence[Sequence[Any]]]:
        """A row a sending, an arrival or a loss; the newest first."""
        newest = list(frame.tail.messages)[-MESSAGES:][::-1]
        return f"the newest {len(newest)}", [
            (
                f"{record.time:.4f}",
                record.kind if record.kind != "drop" else f"lost: {record.payload}"[:40],
                record.source or record.node,
                record.destination,
                str(record.type),
            )
            for record in newest
        ]


PARTS: Final[Mapping[str, type[TableScene]]] = {
    "queue": QueueScene,
    "workers": WorkersScene,
    "locks": LocksScene,
    "agents": AgentsScene,
    "messages": MessagesScene,
}


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
