"""Broken locks, one idea each, to show that the judges would notice. Applied inside every worker."""

from __future__ import annotations

import time

from sqlalchemy import text

NOW = {
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
    "postgresql": "clock_timestamp()",
    "mariadb": "UTC_TIMESTAMP(6)",
}
CLIENT_NOW = {
    "sqlite": "CAST(:client_us / 1000 AS INTEGER)",
    "postgresql": "to_timestamp(CAST(:client_us AS double precision) / 1000000)",
    "mariadb": "TIMESTAMPADD(MICROSECOND, :client_us, '1970-01-01')",
}
UNEXPIRED = " AND expires_at > "


def dialect_class(engine):
    if engine == "sqlite":
        from agentflow.locks.dialects.sqlite import Sqlite as Dialect
    elif engine == "postgresql":
        from agentflow.locks.dialects.postgres import Postgres as Dialect
    else:
        from agentflow.locks.dialects.mysql import MySql as Dialect
    return Dialect


def edit(engine, **changes):
    """Replace statements by what a function makes of their text; at least one must really change."""
    dialect = dialect_class(engine)
    for name, change in changes.items():
        before = str(getattr(dialect.statements, name))
        after = change(before)
        assert after != before, f"the mutant left {name} as it was"
        dialect.statements = dialect.statements._replace(**{name: text(after)})


def row_deleted_on_release(engine):
    edit(
        engine,
        release=lambda _: (
            "DELETE FROM distributed_locks "
            "WHERE lock_key = :key AND owner = :holder AND fencing_token = :token"
        ),
    )


def client_clock(engine):
    """The holder's own wall clock decides about expiry."""
    dialect = dialect_class(engine)
    for name in ("acquire", "renew", "look"):
        edit(engine, **{name: lambda sql: sql.replace(NOW[engine], CLIENT_NOW[engine])})
        _through(dialect, name, lambda: {"client_us": int(time.time() * 1e6)})
    if engine == "mariadb":
        from agentflow.locks.dialects import mysql

        for name in ("OWN", "LEFT"):
            setattr(mysql, name, text(str(getattr(mysql, name)).replace(NOW[engine], CLIENT_NOW[engine])))


class _Adding:
    """A connection that adds parameters to the statements that ask for them."""

    def __init__(self, conn, more):
        self._conn, self._more = conn, more

    def _with(self, statement, parameters):
        wanted = {name: value for name, value in self._more.items() if f":{name}" in str(statement)}
        return {**wanted, **parameters}

    def fetch(self, statement, **parameters):
        return self._conn.fetch(statement, **self._with(statement, parameters))

    def change(self, statement, **parameters):
        return self._conn.change(statement, **self._with(statement, parameters))


def _through(dialect, name, more):
    real = getattr(dialect, name)
    setattr(dialect, name, lambda self, conn, *rest: real(self, _Adding(conn, more()), *rest))


def no_fencing_check(engine):
    """Applied by the worker: the resource accepts any token."""


def release_of_anothers(engine):
    edit(
        engine,
        release=lambda sql: (
            sql[: sql.index("WHERE")] + "WHERE lock_key = :key AND :holder <> '' AND :token > 0"
        ),
    )


def renew_after_expiry(engine):
    edit(engine, renew=lambda sql: sql.replace(UNEXPIRED + NOW[engine], ""))


def sequence_before_wait(engine):
    """A token is drawn when the wait begins, and used when it ends."""
    dialect = dialect_class(engine)
    drawn = {}
    if engine == "mariadb":
        sql = str(dialect.statements.acquire).replace(
            "fencing_token + 1, fencing_token)", ":token, fencing_token)"
        )
    else:
        table = "l" if engine == "postgresql" else "distributed_locks"
        sql = str(dialect.statements.acquire).replace(
            f"fencing_token = {table}.fencing_token +", "fencing_token = :token + 0 *"
        )
    sql = sql.replace("(:key, :holder, 1,", "(:key, :holder, :token,")
    assert sql.count(":token") == 2, sql
    dialect.statements = dialect.statements._replace(acquire=text(sql))
    real = dialect.acquire

    def acquire(self, conn, key, holder, ttl_s, metadata):
        if holder not in drawn:
            drawn[holder] = _draw(engine, conn)
        return real(self, _Adding(conn, {"token": drawn[holder]}), key, holder, ttl_s, metadata)

    dialect.acquire = acquire


def _draw(engine, conn):
    if engine == "postgresql":
        return conn.run("SELECT nextval('lock_sequence')")[0][0]
    conn.run("INSERT INTO lock_sequence (drawn) VALUES (0)")
    last = "last_insert_rowid()" if engine == "sqlite" else "LAST_INSERT_ID()"
    return conn.run(f"SELECT {last}")[0][0]


def steal_of_the_living(engine):
    """The upsert forgets to look at the expiry; waiters do not look first either."""
    dialect = dialect_class(engine)
    conditions = {
        "sqlite": "distributed_locks.expires_at <=",
        "postgresql": "l.expires_at <=",
        "mariadb": "expires_at <=",
    }
    edit(engine, acquire=lambda sql: sql.replace(conditions[engine] + f" {NOW[engine]}", "1 = 1"))
    dialect.look = lambda self, conn, key: None


def cleanup_deletes(engine):
    edit(engine, cleanup=lambda sql: "DELETE FROM distributed_locks WHERE " + sql.split("WHERE")[1])


def rowcount_decides(engine):
    """With CLIENT.FOUND_ROWS, which SQLAlchemy sets, a busy row counts as changed."""
    from agentflow.locks.info import info_of

    dialect = dialect_class(engine)

    def acquire(self, conn, key, holder, ttl_s, metadata):
        stored, ttl = self.key(key), self.units(ttl_s)
        taken = self.statements.acquire
        if conn.change(taken, key=stored, holder=holder, ttl=ttl, metadata=metadata) == 0:
            return None
        row = text(
            "SELECT fencing_token, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', acquired_at), "
            "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', expires_at), "
            "TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(6), expires_at) "
            "FROM distributed_locks WHERE lock_key = :key"
        )
        token, acquired, expires, left = conn.fetch(row, key=stored)[0]
        return info_of(key, holder, token, acquired or 0, expires, left, None)

    dialect.acquire = acquire
    dialect.look = lambda self, conn, key: None


def unlogged_table(engine):
    """Applied by the parent: PostgreSQL empties an unlogged table after a crash."""


EVERYWHERE = ("sqlite", "postgresql", "mariadb")
MUTANTS = {
    "row-deleted-on-release": (row_deleted_on_release, EVERYWHERE),
    "client-clock": (client_clock, EVERYWHERE),
    "no-fencing-check": (no_fencing_check, EVERYWHERE),
    "release-of-anothers": (release_of_anothers, EVERYWHERE),
    "renew-after-expiry": (renew_after_expiry, EVERYWHERE),
    "sequence-before-wait": (sequence_before_wait, EVERYWHERE),
    "steal-of-the-living": (steal_of_the_living, EVERYWHERE),
    "cleanup-deletes": (cleanup_deletes, EVERYWHERE),
    "rowcount-decides": (rowcount_decides, ("mariadb",)),
    "unlogged-table": (unlogged_table, ("postgresql",)),
}


def apply(name, engine):
    """Break the lock in this process."""
    mutate, engines = MUTANTS[name]
    assert engine in engines, f"{name} is no mutant of {engine}"
    mutate(engine)
