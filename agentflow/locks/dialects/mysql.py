"""Locks in MySQL and MariaDB, through PyMySQL.

Law: `expires_at` is assigned last, because SET runs from left to right and later columns see new values; who won is
read back by the holder's name, because the count of changed rows means two things (CLIENT.FOUND_ROWS).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sqlalchemy import text

from agentflow.errors import AgentflowError, InvalidConfig
from agentflow.locks.dialects.base import Dialect, Statements, Verdict
from agentflow.locks.info import LockInfo

if TYPE_CHECKING:
    from agentflow.locks.link import Runner

__all__ = ["MySql"]

NOW: Final = "UTC_TIMESTAMP(6)"  # NOW() and TIMESTAMP columns follow the session's time zone
RETURNED: Final = f"""fencing_token,
    TIMESTAMPDIFF(MICROSECOND, '1970-01-01', acquired_at),
    TIMESTAMPDIFF(MICROSECOND, '1970-01-01', expires_at),
    TIMESTAMPDIFF(MICROSECOND, {NOW}, expires_at)"""
# Lock wait time-out, dead-lock, MariaDB's snapshot conflict, and XA's dead-lock.
CONFLICTS: Final = frozenset({1205, 1213, 1020, 1614})
OWN: Final = text(f"""
    SELECT {RETURNED} FROM distributed_locks
    WHERE lock_key = :key AND owner = :holder AND expires_at > {NOW}""")
LEFT: Final = text(f"""
    SELECT TIMESTAMPDIFF(MICROSECOND, {NOW}, expires_at) FROM distributed_locks
    WHERE lock_key = :key AND owner = :holder AND fencing_token = :token AND expires_at > {NOW}""")


class MySql(Dialect):
    """MySQL 5.7 or MariaDB 10.3, or newer, with InnoDB."""

    name = "mysql"
    units_per_second: ClassVar[int] = 1_000_000
    schema: ClassVar[tuple[str, ...]] = (
        """CREATE TABLE IF NOT EXISTS distributed_locks (
             lock_key VARBINARY(255) PRIMARY KEY,
             owner VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
             fencing_token BIGINT NOT NULL, acquired_at DATETIME(6), expires_at DATETIME(6) NOT NULL, metadata JSON,
             INDEX idx_distributed_locks_owner (owner(191)),
             INDEX idx_distributed_locks_expires_at (expires_at)) ENGINE=InnoDB""",
        """CREATE TABLE IF NOT EXISTS distributed_lock_waiters (
             id BIGINT AUTO_INCREMENT PRIMARY KEY, lock_key VARBINARY(255) NOT NULL,
             owner VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
             expires_at DATETIME(6) NOT NULL,
             INDEX idx_distributed_lock_waiters_key (lock_key, id),
             INDEX idx_distributed_lock_waiters_owner (owner(191))) ENGINE=InnoDB""",
    )
    statements = Statements(
        acquire=text(f"""
            INSERT INTO distributed_locks (lock_key, owner, fencing_token, acquired_at, expires_at, metadata)
            VALUES (:key, :holder, 1, {NOW}, {NOW} + INTERVAL :ttl MICROSECOND, :metadata)
            ON DUPLICATE KEY UPDATE
              fencing_token = IF(expires_at <= {NOW} AND NOT (owner <=> VALUES(owner)),
                                 fencing_token + 1, fencing_token),
              owner = IF(expires_at <= {NOW}, VALUES(owner), owner),
              acquired_at = IF(owner <=> VALUES(owner), VALUES(acquired_at), acquired_at),
              metadata = IF(owner <=> VALUES(owner), VALUES(metadata), metadata),
              expires_at = IF(owner <=> VALUES(owner), VALUES(expires_at), expires_at)"""),
        renew=text(f"""
            UPDATE distributed_locks SET expires_at = GREATEST(expires_at, {NOW} + INTERVAL :ttl MICROSECOND)
            WHERE lock_key = :key AND owner = :holder AND fencing_token = :token AND expires_at > {NOW}"""),
        release=text("""
            UPDATE distributed_locks SET owner = NULL, acquired_at = NULL, expires_at = '1970-01-01', metadata = NULL
            WHERE lock_key = :key AND owner = :holder AND fencing_token = :token"""),
        released=text("""
            SELECT 1 FROM distributed_locks
            WHERE lock_key = :key AND owner IS NULL AND fencing_token = :token AND expires_at = '1970-01-01'"""),
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
            UPDATE distributed_locks SET owner = NULL, acquired_at = NULL, expires_at = '1970-01-01',
              fencing_token = fencing_token + 1, metadata = :metadata
            WHERE lock_key = :key AND owner IS NOT NULL"""),
        enter=text(f"""
            INSERT INTO distributed_lock_waiters (lock_key, owner, expires_at)
            VALUES (:key, :holder, {NOW} + INTERVAL :ttl MICROSECOND)"""),
        beat=text(f"""
            UPDATE distributed_lock_waiters SET expires_at = {NOW} + INTERVAL :ttl MICROSECOND
            WHERE owner = :holder AND expires_at > {NOW}"""),
        head=text(f"""
            SELECT owner FROM distributed_lock_waiters
            WHERE lock_key = :key AND expires_at > {NOW} ORDER BY id LIMIT 1"""),
        leave=text("DELETE FROM distributed_lock_waiters WHERE owner = :holder"),
        sweep=text(f"DELETE FROM distributed_lock_waiters WHERE expires_at <= {NOW}"),
    )

    def connect_args(self, timeout_s: float) -> dict[str, Any]:
        """The socket's own time-outs end every wait for a silent server."""
        return {
            "connect_timeout": timeout_s,
            "read_timeout": timeout_s,
            "write_timeout": timeout_s,
            "charset": "utf8mb4",
        }

    def prepare(self, raw: Any, timeout_s: float) -> None:
        """One connection's settings. InnoDB waits 50 s for a row unless told otherwise."""
        with raw.cursor() as cursor:
            cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {max(1, int(timeout_s / 2))}")
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            cursor.execute("SET SESSION sql_mode = CONCAT(@@SESSION.sql_mode, ',STRICT_TRANS_TABLES')")

    def create(self, conn: Runner) -> None:
        """Create the tables, and warn of a server that may forget a commit."""
        super().create(conn)
        flush = conn.run("SELECT @@GLOBAL.innodb_flush_log_at_trx_commit")[0][0]
        if flush != 1:
            logging.getLogger("agentflow").warning(
                "innodb_flush_log_at_trx_commit is %s: a crash of the server can take tokens back; set it to 1",
                flush,
                extra={"setting": "innodb_flush_log_at_trx_commit", "value": flush},
            )

    def acquire(
        self, conn: Runner, key: str, holder: str, ttl_s: float, metadata: str | None
    ) -> LockInfo | None:
        """Two statements: MySQL has no RETURNING. The holder's name in the row says who won."""
        stored = self.key(key)
        conn.change(
            self.statements.acquire, key=stored, holder=holder, ttl=self.units(ttl_s), metadata=metadata
        )
        found = conn.fetch(OWN, key=stored, holder=holder)
        return self._own(key, holder, found, metadata)

    def renew(self, conn: Runner, key: str, holder: str, token: int, ttl_s: float) -> float | None:
        """An update that leaves a longer lease as it is counts no changed row; the row itself is asked."""
        named = {"key": self.key(key), "holder": holder, "token": token}
        conn.change(self.statements.renew, **named, ttl=self.units(ttl_s))
        found = conn.fetch(LEFT, **named)
        return found[0][0] / 1e6 if found else None

    def key(self, key: str) -> Any:
        """Bytes: text would be compared without case and without trailing blanks."""
        return key.encode()

    def unkey(self, stored: Any) -> str:
        """A key as it came from the table."""
        return bytes(stored).decode()

    def _fileno(self, raw: Any) -> int:
        return int(raw._sock.fileno())

    def classify(self, error: BaseException, where: str) -> Verdict | AgentflowError:
        """Error numbers of server and client."""
        arguments: tuple[Any, ...] = getattr(error, "args", ())
        code = arguments[0] if arguments and isinstance(arguments[0], int) else 0
        said = str(arguments[1]) if len(arguments) > 1 else str(error)
        if code in CONFLICTS:
            return Verdict.AGAIN
        if code in (1045, 1044, 1698, 1130):
            return InvalidConfig(f"{where} refused user or password: {said}", field="url")
        if code in (1049, 1046):
            return InvalidConfig(f"{where}: the database does not exist; create it first", field="url")
        if code == 1146:
            return InvalidConfig(
                f"{where} has no table of locks yet; await lock.init_schema() once", field="url"
            )
        if code in (1142, 1143, 1290, 1792, 1836):
            return InvalidConfig(f"{where} does not let us write: {said}", field="url")
        return Verdict.LOST
