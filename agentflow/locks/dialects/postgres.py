"""Locks in PostgreSQL, through psycopg 3.

Law: time is `clock_timestamp()`; `now()` is the start of the transaction, which may have waited for a row. The token
is counted up in the row that is locked, never drawn from a sequence before the wait for it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sqlalchemy import text

from agentflow.errors import AgentflowError, InvalidConfig
from agentflow.locks.dialects.base import Dialect, Statements, Verdict

if TYPE_CHECKING:
    from agentflow.locks.link import Runner

__all__ = ["Postgres"]

NOW: Final = "clock_timestamp()"
RETURNED: Final = f"""fencing_token,
    CAST(EXTRACT(EPOCH FROM acquired_at) * 1000000 AS bigint),
    CAST(EXTRACT(EPOCH FROM expires_at) * 1000000 AS bigint),
    CAST(EXTRACT(EPOCH FROM expires_at - {NOW}) * 1000000 AS bigint)"""
# Serialization failure, dead-lock, lock_not_available and query_canceled by our own time-outs.
CONFLICTS: Final = frozenset({"40001", "40P01", "55P03", "57014"})
# Two sessions that create the same table or index at once meet one of these.
CREATED_BY_ANOTHER: Final = frozenset({"23505", "42P07", "42710", "XX000"})
SETTINGS: Final = (
    # Raised, never lowered: a commit that a crash takes back would let a token be given twice.
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
    "SET default_transaction_isolation = 'read committed'",
)


class Postgres(Dialect):
    """PostgreSQL 10 or newer."""

    name = "postgresql"
    units_per_second: ClassVar[int] = 1
    schema: ClassVar[tuple[str, ...]] = (
        """CREATE TABLE IF NOT EXISTS distributed_locks (
             lock_key text COLLATE "C" PRIMARY KEY, owner text, fencing_token bigint NOT NULL,
             acquired_at timestamptz, expires_at timestamptz NOT NULL, metadata json)""",
        "CREATE INDEX IF NOT EXISTS idx_distributed_locks_owner ON distributed_locks (owner)",
        "CREATE INDEX IF NOT EXISTS idx_distributed_locks_expires_at ON distributed_locks (expires_at)",
        """CREATE TABLE IF NOT EXISTS distributed_lock_waiters (
             id bigserial PRIMARY KEY, lock_key text COLLATE "C" NOT NULL, owner text NOT NULL,
             expires_at timestamptz NOT NULL)""",
        "CREATE INDEX IF NOT EXISTS idx_distributed_lock_waiters_key ON distributed_lock_waiters (lock_key, id)",
    )
    statements = Statements(
        acquire=text(f"""
            INSERT INTO distributed_locks AS l (lock_key, owner, fencing_token, acquired_at, expires_at, metadata)
            VALUES (:key, :holder, 1, {NOW}, {NOW} + make_interval(secs => :ttl), CAST(:metadata AS json))
            ON CONFLICT (lock_key) DO UPDATE SET
              fencing_token = l.fencing_token + CAST(l.owner IS DISTINCT FROM EXCLUDED.owner AS int),
              owner = EXCLUDED.owner, acquired_at = {NOW},
              expires_at = {NOW} + make_interval(secs => :ttl), metadata = EXCLUDED.metadata
            WHERE l.expires_at <= {NOW} OR l.owner = EXCLUDED.owner
            RETURNING {RETURNED}"""),
        renew=text(f"""
            UPDATE distributed_locks
            SET expires_at = GREATEST(expires_at, {NOW} + make_interval(secs => :ttl))
            WHERE lock_key = :key AND owner = :holder AND fencing_token = :token AND expires_at > {NOW}
            RETURNING CAST(EXTRACT(EPOCH FROM expires_at - {NOW}) * 1000000 AS bigint)"""),
        release=text("""
            UPDATE distributed_locks SET owner = NULL, acquired_at = NULL, expires_at = 'epoch', metadata = NULL
            WHERE lock_key = :key AND owner = :holder AND fencing_token = :token"""),
        released=text("""
            SELECT 1 FROM distributed_locks
            WHERE lock_key = :key AND owner IS NULL AND fencing_token = :token AND expires_at = 'epoch'"""),
        look=text(f"""
            SELECT owner, {RETURNED}, CAST(metadata AS text) FROM distributed_locks
            WHERE lock_key = :key AND owner IS NOT NULL AND expires_at > {NOW}"""),
        rows=text(f"""
            SELECT lock_key, owner, {RETURNED}, CAST(metadata AS text) FROM distributed_locks
            WHERE owner IS NOT NULL AND expires_at > {NOW} ORDER BY lock_key"""),
        cleanup=text(f"""
            UPDATE distributed_locks SET owner = NULL, acquired_at = NULL, metadata = NULL
            WHERE owner IS NOT NULL AND expires_at <= {NOW}"""),
        force=text("""
            UPDATE distributed_locks SET owner = NULL, acquired_at = NULL, expires_at = 'epoch',
              fencing_token = fencing_token + 1, metadata = CAST(:metadata AS json)
            WHERE lock_key = :key AND owner IS NOT NULL"""),
        enter=text(f"""
            INSERT INTO distributed_lock_waiters (lock_key, owner, expires_at)
            VALUES (:key, :holder, {NOW} + make_interval(secs => :ttl))"""),
        beat=text(f"""
            UPDATE distributed_lock_waiters SET expires_at = {NOW} + make_interval(secs => :ttl)
            WHERE owner = :holder AND expires_at > {NOW}"""),
        head=text(f"""
            SELECT owner FROM distributed_lock_waiters
            WHERE lock_key = :key AND expires_at > {NOW} ORDER BY id LIMIT 1"""),
        leave=text("DELETE FROM distributed_lock_waiters WHERE owner = :holder"),
        sweep=text(f"DELETE FROM distributed_lock_waiters WHERE expires_at <= {NOW}"),
    )

    def connect_args(self, timeout_s: float) -> dict[str, Any]:
        """Libpq counts whole seconds, and takes anything below two for two."""
        return {"connect_timeout": max(2, math.ceil(timeout_s)), "application_name": "agentflow locks"}

    def prepare(self, raw: Any, timeout_s: float) -> None:
        """One connection's settings; the server gives up a statement that waits longer than we do."""
        millis = max(1, round(timeout_s * 1000))
        with raw.cursor() as cursor:
            for setting in (*SETTINGS, f"SET lock_timeout = {millis}", f"SET statement_timeout = {millis}"):
                cursor.execute(setting)

    def create(self, conn: Runner) -> None:
        """Create what is missing; an index that exists is not asked for again, which would lock out writers."""
        wanted = {s.split("NOT EXISTS ")[1].split()[0]: s for s in self.schema}
        there = {row[0] for row in conn.run("SELECT relname FROM pg_class WHERE pg_table_is_visible(oid)")}
        for name, statement in wanted.items():
            if name not in there:
                conn.run(statement)

    def units(self, span_s: float) -> Any:
        """`make_interval` takes seconds with a fraction."""
        return float(span_s)

    def classify(self, error: BaseException, where: str) -> Verdict | AgentflowError:
        """SQLSTATE where there is one; a refused connection often has only words."""
        state = getattr(error, "sqlstate", None) or ""
        said = " ".join(str(error).split())
        if state in CONFLICTS or state in CREATED_BY_ANOTHER:
            return Verdict.AGAIN
        if state in ("28P01", "28000") or "authentication failed" in said or "pg_hba.conf" in said:
            return InvalidConfig(f"{where} refused user or password: {said}", field="url")
        if state == "3D000" or ('database "' in said and "does not exist" in said):
            return InvalidConfig(
                f"{where}: the database does not exist; create it first (createdb)", field="url"
            )
        if state == "42P01":
            return InvalidConfig(
                f"{where} has no table of locks yet; await lock.init_schema() once", field="url"
            )
        if state in ("25006", "42501", "3F000"):
            return InvalidConfig(f"{where} does not let us write: {said}", field="url")
        return Verdict.LOST
