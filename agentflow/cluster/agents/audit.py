"""An audit that outlives the trace: what happened to every message, in a SQLite file.

Law: rows are written in order and numbered without gaps. The trace is bounded; if it forgot events before
they were read, a row says how many.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from agentflow.cluster.agents.tables import as_row, digest, written
from agentflow.core.agents.audit import AuditTrail
from agentflow.errors import Closed

if TYPE_CHECKING:
    from agentflow.cluster.agents.bus import Bus

__all__ = ["AuditLog"]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS agent_audit (
  seq INTEGER PRIMARY KEY, event_seq INTEGER, unix_time REAL NOT NULL, time_s REAL NOT NULL,
  agent TEXT NOT NULL, event TEXT NOT NULL, id TEXT NOT NULL, msg_type TEXT, from_agent TEXT, to_agent TEXT,
  subject TEXT, correlation_id TEXT, reason TEXT, content TEXT, content_sha256 TEXT
);
CREATE INDEX IF NOT EXISTS idx_agent_audit_id ON agent_audit (id);
CREATE INDEX IF NOT EXISTS idx_agent_audit_correlation ON agent_audit (correlation_id);
"""
_INSERT: Final = f"INSERT INTO agent_audit VALUES ({', '.join('?' * 15)})"

PAUSE_S: Final = 0.1
"""How often a live bus's trace is read."""


class AuditLog:
    """Writes what happens from now on to a SQLite file; made by `agent.audit_to(path)`.

    Parameters
    ----------
    bus : Bus
        Whose messages.
    path : str or Path
        The file; rows are added to those that are there.
    redact : callable, optional
        Gets a message's content, returns what may be written of it. The hash is of the whole content.
    content : bool
        Whether to write the content at all, beside its hash.
    """

    def __init__(
        self,
        bus: Bus,
        path: str | Path,
        *,
        redact: Callable[[Any], Any] | None = None,
        content: bool = True,
    ) -> None:
        self.path = Path(path)
        self.missed = 0
        self._bus = bus
        self._redact = redact
        self._content = content
        self._trail = AuditTrail()
        self._seen = bus.read(self._catch_up)
        self._guard = threading.Lock()
        self._closed = False
        self._stop = threading.Event()
        self._database = sqlite3.connect(self.path, check_same_thread=False)
        self._database.executescript(_SCHEMA)
        (self._offset,) = self._database.execute("SELECT coalesce(max(seq), 0) FROM agent_audit").fetchone()
        self._thread: threading.Thread | None = None
        if not bus.virtual:
            self._thread = threading.Thread(target=self._follow, name="agentflow-audit", daemon=True)
            self._thread.start()

    def _catch_up(self) -> int:
        """Learn which messages are under way; what happened to them before is not written."""
        for record in self._bus.records():
            self._trail.feed(record)
        self._trail.next = 1
        return self._bus.host.trace.next

    def flush(self) -> int:
        """Write what happened since the last time; return how many rows were added."""
        with self._guard:
            if self._closed:
                raise Closed(f"the audit in {self.path} is closed")
            return self._write()

    def close(self) -> None:
        """Write the rest and end; a second time does nothing."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with self._guard:
            if self._closed:
                return
            self._write()
            self._closed = True
            self._database.close()

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _follow(self) -> None:
        while not self._stop.wait(PAUSE_S):
            with self._guard:
                self._write()

    def _write(self) -> int:
        records = self._bus.host.trace.since(self._seen)
        rows: list[tuple[Any, ...]] = []
        for record in records:
            if record.seq > self._seen:
                gap = record.seq - self._seen
                self.missed += gap
                self._offset += 1
                rows.append(self._gap(record.seq, record.time, gap))
            self._seen = record.seq + 1
            rows += [self._row(row) for row in self._trail.feed(record)]
        if rows:
            last = rows[-1][0]
            self._database.executemany(_INSERT, rows)
            self._database.commit()
            assert last == self._last_written(), "the audit's numbers have a gap"
        return len(rows)

    def _last_written(self) -> int:
        (last,) = self._database.execute("SELECT max(seq) FROM agent_audit").fetchone()
        return int(last)

    def _row(self, row: Any) -> tuple[Any, ...]:
        seq, record, time, _, agent, event, name, *rest, content = as_row(row)
        text = sha = None
        if row.message is not None:
            sha = digest(content)
            text = written(content, self._redact) if self._content else None
        return (
            seq + self._offset,
            record,
            self._bus.began + time,
            time,
            agent,
            event,
            name,
            *rest,
            text,
            sha,
        )

    def _gap(self, seq: int, time: float, gap: int) -> tuple[Any, ...]:
        # The trail's own numbers go on from here, so the offset has grown by this row.
        number = self._trail.next - 1 + self._offset
        reason = f"{gap} events were forgotten before they were read"
        nothing = (None,) * 5
        return (number, seq, self._bus.began + time, time, "", "gap", "", *nothing, reason, None, None)
