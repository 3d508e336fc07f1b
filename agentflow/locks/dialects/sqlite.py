"""Locks in a SQLite file: the default, for the processes of one machine.

Law: a statement is alone and in autocommit mode. A transaction that reads before it writes meets
SQLITE_BUSY_SNAPSHOT at once, and no busy time-out helps it.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sqlalchemy import text

from agentflow.errors import AgentflowError, InvalidConfig
from agentflow.locks.dialects.base import Dialect, Statements, Verdict

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

__all__ = ["Sqlite"]

# unixepoch('now', 'subsec') needs SQLite 3.42 and is NULL, silently, before. 'now' is one value per statement,
# read once the write lock is had.
NOW: Final = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
NETWORKED: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "afs", "ceph", "fuse.glusterfs", "lustre"}
)
RETURNED: Final = f"fencing_token, acquired_at * 1000, expires_at * 1000, (expires_at - {NOW}) * 1000"


class Sqlite(Dialect):
    """SQLite 3.35 or newer, through the standard library's driver."""

    name = "sqlite"
    units_per_second: ClassVar[int] = 1000
    schema: ClassVar[tuple[str, ...]] = (
        "PRAGMA journal_mode = WAL",
        """CREATE TABLE IF NOT EXISTS distributed_locks (
             lock_key TEXT PRIMARY KEY NOT NULL, owner TEXT, fencing_token INTEGER NOT NULL,
             acquired_at INTEGER, expires_at INTEGER NOT NULL, metadata TEXT) WITHOUT ROWID""",
        "CREATE INDEX IF NOT EXISTS idx_distributed_locks_owner ON distributed_locks (owner)",
        "CREATE INDEX IF NOT EXISTS idx_distributed_locks_expires_at ON distributed_locks (expires_at)",
        """CREATE TABLE IF NOT EXISTS distributed_lock_waiters (
             id INTEGER PRIMARY KEY AUTOINCREMENT, lock_key TEXT NOT NULL, owner TEXT NOT NULL,
             expires_at INTEGER NOT NULL)""",
        "CREATE INDEX IF NOT EXISTS idx_distributed_lock_waiters_key ON distributed_lock_waiters (lock_key, id)",
    )
    statements = Statements(
        acquire=text(f"""
            INSERT INTO distributed_locks (lock_key, owner, fencing_token, acquired_at, expires_at, metadata)
            VALUES (:key, :holder, 1, {NOW}, {NOW} + :ttl, :metadata)
            ON CONFLICT (lock_key) DO UPDATE SET
              fencing_token = distributed_locks.fencing_token + (distributed_locks.owner IS NOT excluded.owner),
              owner = excluded.owner, acquired_at = excluded.acquired_at,
              expires_at = excluded.expires_at, metadata = excluded.metadata
            WHERE distributed_locks.expires_at <= {NOW} OR distributed_locks.owner IS excluded.owner
            RETURNING {RETURNED}"""),
        renew=text(f"""
            UPDATE distributed_locks SET expires_at = max(expires_at, {NOW} + :ttl)
            WHERE lock_key = :key AND owner = :holder AND fencing_token = :token AND expires_at > {NOW}
            RETURNING (expires_at - {NOW}) * 1000"""),
        release=text("""
            UPDATE distributed_locks SET owner = NULL, acquired_at = NULL, expires_at = 0, metadata = NULL
            WHERE lock_key = :key AND owner = :holder AND fencing_token = :token"""),
        released=text("""
            SELECT 1 FROM distributed_locks
            WHERE lock_key = :key AND owner IS NULL AND fencing_token = :token AND expires_at = 0"""),
        look=text(f"""
            SELECT owner, {RETURNED}, metadata FROM distributed_locks
            WHERE lock_key = :key AND owner IS NOT NULL AND expires_at > {NOW}"""),
        rows=text(f"""
            SELECT lock_key, owner, {RETURNED}, metadata FROM distributed_locks
            WHERE owner IS NOT NULL AND expires_at > {NOW} ORDER BY lock_key"""),
        cleanup=text(f"""
            UPDATE distributed_locks SET owner = NULL, acquired_at = NULL, metadata = NULL
            WHERE owner IS NOT NULL AND expires_at <= {NOW}"""),
        force=text("""
            UPDATE distributed_locks SET owner = NULL, acquired_at = NULL, expires_at = 0,
              fencing_token = fencing_token + 1, metadata = :metadata
            WHERE lock_key = :key AND owner IS NOT NULL"""),
        enter=text(f"""
            INSERT INTO distributed_lock_waiters (lock_key, owner, expires_at)
            VALUES (:key, :holder, {NOW} + :ttl)"""),
        beat=text(f"""
            UPDATE distributed_lock_waiters SET expires_at = {NOW} + :ttl
            WHERE owner = :holder AND expires_at > {NOW}"""),
        head=text(f"""
            SELECT owner FROM distributed_lock_waiters
            WHERE lock_key = :key AND expires_at > {NOW} ORDER BY id LIMIT 1"""),
        leave=text("DELETE FROM distributed_lock_waiters WHERE owner = :holder"),
        sweep=text(f"DELETE FROM distributed_lock_waiters WHERE expires_at <= {NOW}"),
    )

    def checked_url(self, url: URL) -> URL:
        """The URL with an absolute path: a later `chdir` must not lead to another lock."""
        if sqlite3.sqlite_version_info < (3, 35):
            raise InvalidConfig(
                f"locks need SQLite 3.35 (RETURNING), this Python has {sqlite3.sqlite_version}", field="url"
            )
        path = url.database or ""
        if path in ("", ":memory:") or "mode=memory" in path or url.query.get("mode") == "memory":
            raise InvalidConfig(
                "a SQLite database in memory is seen by one connection and excludes nobody; "
                "name a file, 'sqlite:///locks.db'",
                field="url",
            )
        if path.startswith("file:"):
            return url
        absolute = os.path.abspath(path)
        kind = file_system(Path(absolute))
        if kind in NETWORKED:
            raise InvalidConfig(
                f"{absolute} lies on {kind}, where SQLite's file locks cannot be trusted; "
                "use a local disk, PostgreSQL or MariaDB",
                field="url",
            )
        return url.set(database=absolute)

    def connect_args(self, timeout_s: float) -> dict[str, Any]:
        """Let SQLite wait for the file; what is still busy then is tried again."""
        return {"timeout": min(timeout_s, 1.0)}

    def prepare(self, raw: Any, timeout_s: float) -> None:
        """Make every commit durable: a token that a crash takes back would be given twice."""
        raw.execute("PRAGMA synchronous = FULL").close()

    def abort(self, raw: Any) -> None:
        """Interrupt a running statement; the wait for the file ends by its own time-out."""
        raw.interrupt()

    def classify(self, error: BaseException, where: str) -> Verdict | AgentflowError:
        """SQLite's words are stable, its extended codes need Python 3.11."""
        said = str(error)
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_INTERRUPT):
            return Verdict.AGAIN
        if code == sqlite3.SQLITE_READONLY:
            return InvalidConfig(
                f"{where} is read-only and a lock must be written; give write access to the file and its folder",
                field="url",
            )
        if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
            return InvalidConfig(
                f"{where} cannot be opened ({said}); does its folder exist, and may you write there?",
                field="url",
            )
        if code == sqlite3.SQLITE_NOTADB:
            return InvalidConfig(f"{where} is not a SQLite database; name another file", field="url")
        if "no such table" in said:
            return InvalidConfig(
                f"{where} has no table of locks yet; await lock.init_schema() once", field="url"
            )
        return Verdict.LOST


def file_system(path: Path, mounts: str | None = None) -> str:
    """The kind of file system a path lies on, where the system tells (Linux); otherwise ''.

    Examples
    --------
    >>> file_system(Path("/mnt/share/x"), "server:/s /mnt/share nfs4 rw 0 0")
    'nfs4'
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mounts").read_text(errors="replace")
        except OSError:
            return ""
    best, kind = "", ""
    for line in mounts.splitlines():
        parts = line.split()
        if len(parts) < 3:
            continue
        point = parts[1].replace("\\040", " ")
        inside = path == Path(point) or Path(point) in path.parents
        if inside and len(point) >= len(best):
            best, kind = point, parts[2]
    return kind
