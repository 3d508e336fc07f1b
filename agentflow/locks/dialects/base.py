"""What the three engines have in common: the calls, and how their statements are run.

Law: who holds a lock is decided by the holder's name found in the row, never by a count of rows that a
driver may define in its own way; the count is believed only for updates that name holder and token.
"""

from __future__ import annotations

import enum
import json
import socket
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from agentflow.locks.info import LockInfo, info_of

if TYPE_CHECKING:
    from sqlalchemy.engine import URL
    from sqlalchemy.sql.elements import TextClause

    from agentflow.errors import AgentflowError
    from agentflow.locks.link import Runner

__all__ = ["Dialect", "Statements", "Verdict"]


class Verdict(enum.Enum):
    """What an error of the driver says about the statement that met it."""

    AGAIN = "nothing happened: a conflict, a dead-lock or a busy file"
    LOST = "the connection ended or was never made: it may have happened"


class Statements(NamedTuple):
    """The statements of one engine, with named parameters."""

    acquire: TextClause
    renew: TextClause
    release: TextClause
    released: TextClause
    look: TextClause
    rows: TextClause
    cleanup: TextClause
    force: TextClause
    enter: TextClause
    beat: TextClause
    head: TextClause
    leave: TextClause
    sweep: TextClause


class Dialect(ABC):
    """One engine's schema, statements and errors.

    Every method runs on a connection in autocommit mode, in a thread that may block.
    """

    name: ClassVar[str]
    units_per_second: ClassVar[int]
    schema: ClassVar[tuple[str, ...]]
    statements: Statements

    # --- connections ---------------------------------------------------------------------------------

    def checked_url(self, url: URL) -> URL:
        """The URL in the form that is connected to; what cannot work is refused here."""
        return url

    @abstractmethod
    def connect_args(self, timeout_s: float) -> dict[str, Any]:
        """Arguments for the driver, so that no call of it waits much longer than `timeout_s`."""

    @abstractmethod
    def prepare(self, raw: Any, timeout_s: float) -> None:
        """Set up a new connection of the driver."""

    @abstractmethod
    def classify(self, error: BaseException, where: str) -> Verdict | AgentflowError:
        """What an error means, or the clear error to raise for it."""

    def abort(self, raw: Any) -> None:
        """Make a driver that waits for a silent server give up; called from another thread."""
        with (
            suppress(Exception),
            socket.fromfd(self._fileno(raw), socket.AF_INET, socket.SOCK_STREAM) as wire,
        ):
            wire.shutdown(socket.SHUT_RDWR)

    def _fileno(self, raw: Any) -> int:
        return int(raw.fileno())

    def create(self, conn: Runner) -> None:
        """Create tables and indexes that are not there yet."""
        for statement in self.schema:
            conn.run(statement)

    # --- locks ---------------------------------------------------------------------------------------

    def acquire(
        self, conn: Runner, key: str, holder: str, ttl_s: float, metadata: str | None
    ) -> LockInfo | None:
        """Take the lock if it is free, expired or already `holder`'s; None if another has it."""
        found = conn.fetch(
            self.statements.acquire,
            key=self.key(key),
            holder=holder,
            ttl=self.units(ttl_s),
            metadata=metadata,
        )
        return self._own(key, holder, found, metadata)

    def renew(self, conn: Runner, key: str, holder: str, token: int, ttl_s: float) -> float | None:
        """Let an unexpired lease last at least `ttl_s` from now; the seconds left, or None if it is gone."""
        found = conn.fetch(
            self.statements.renew, key=self.key(key), holder=holder, token=token, ttl=self.units(ttl_s)
        )
        return found[0][0] / 1e6 if found else None

    def release(self, conn: Runner, key: str, holder: str, token: int) -> bool:
        """Blank the row if it is this holder's."""
        return conn.change(self.statements.release, key=self.key(key), holder=holder, token=token) > 0

    def was_released(self, conn: Runner, key: str, token: int) -> bool:
        """Whether the row lies as `release` leaves it, with this token: a release whose reply was lost."""
        found = conn.fetch(self.statements.released, key=self.key(key), token=token)
        return bool(found)

    def look(self, conn: Runner, key: str) -> LockInfo | None:
        """Who holds the lock now."""
        found = conn.fetch(self.statements.look, key=self.key(key))
        return _info(key, found[0]) if found else None

    def rows(self, conn: Runner) -> list[LockInfo]:
        """Every lock that is held now, by key."""
        found = conn.fetch(self.statements.rows)
        return [_info(self.unkey(row[0]), row[1:]) for row in found]

    def cleanup(self, conn: Runner) -> int:
        """Blank expired rows, keeping their tokens; how many there were."""
        conn.change(self.statements.sweep)
        return conn.change(self.statements.cleanup)

    def force(self, conn: Runner, key: str, metadata: str) -> bool:
        """Blank the row whoever has it, and make its token stale."""
        return conn.change(self.statements.force, key=self.key(key), metadata=metadata) > 0

    # --- waiting in line -----------------------------------------------------------------------------

    def stand(self, conn: Runner, key: str, holder: str, patience_s: float) -> None:
        """Keep one's place in line, or take the last one."""
        until = self.units(patience_s)
        if not conn.change(self.statements.beat, holder=holder, ttl=until):
            conn.change(self.statements.enter, key=self.key(key), holder=holder, ttl=until)

    def head(self, conn: Runner, key: str) -> str | None:
        """Who is first in line among those still waiting."""
        found = conn.fetch(self.statements.head, key=self.key(key))
        return str(found[0][0]) if found else None

    def leave(self, conn: Runner, holder: str) -> None:
        """Give up one's place."""
        conn.change(self.statements.leave, holder=holder)

    # --- values --------------------------------------------------------------------------------------

    def key(self, key: str) -> Any:
        """A key as a parameter."""
        return key

    def unkey(self, stored: Any) -> str:
        """A key as it came from the table."""
        return str(stored)

    def units(self, span_s: float) -> Any:
        """A duration as a parameter, never rounded down to nothing."""
        return max(1, round(span_s * self.units_per_second))

    def _own(self, key: str, holder: str, found: Any, metadata: str | None) -> LockInfo | None:
        if not found:
            return None
        token, acquired_us, expires_us, remaining_us = found[0]
        return info_of(key, holder, token, acquired_us, expires_us, remaining_us, _loads(metadata))


def _info(key: str, row: Any) -> LockInfo:
    holder, token, acquired_us, expires_us, remaining_us, metadata = row
    return info_of(key, holder, token, acquired_us, expires_us, remaining_us, _loads(metadata))


def _loads(metadata: Any) -> Any:
    return json.loads(metadata) if isinstance(metadata, str | bytes) else metadata
