"""A connection as the dialects use it: SQLAlchemy makes and compiles, the driver's own cursor runs.

Law: one thread, autocommit, and every result fetched to its end, so that no statement stays open.

SQLAlchemy's result machinery costs 50 µs a statement, several times what SQLite needs for it; these few statements of
fixed shape go from the compiled text straight to the cursor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.sql.elements import TextClause

__all__ = ["Link", "Runner", "Statement"]


class Runner(Protocol):
    """What a dialect asks of a connection; tests put themselves between."""

    def fetch(self, statement: TextClause, **parameters: Any) -> list[Any]:
        """The rows of a statement."""

    def change(self, statement: TextClause, **parameters: Any) -> int:
        """The count of rows a statement matched."""

    def run(self, sql: str) -> list[Any]:
        """The rows of a statement in the driver's words, if it has any."""


class Statement:
    """A statement as the driver takes it, and how its named parameters are handed over."""

    def __init__(self, engine: Engine, text: TextClause) -> None:
        made = text.compile(dialect=engine.dialect)
        self.sql = str(made)
        order = getattr(made, "positiontup", None)
        self.bind: Callable[[Mapping[str, Any]], Any] = (
            dict if order is None else lambda named: tuple(named[name] for name in order)
        )


class Link:
    """One connection and its cursor."""

    def __init__(self, engine: Engine, statements: dict[TextClause, Statement]) -> None:
        self._engine = engine
        self._statements = statements
        self._conn = engine.connect()
        raw: Any = self._conn.connection.dbapi_connection
        self.raw = raw
        self._cursor: Any = self.raw.cursor()

    def fetch(self, statement: TextClause, **parameters: Any) -> list[Any]:
        """The rows of a statement."""
        self._execute(statement, parameters)
        return list(self._cursor.fetchall())

    def change(self, statement: TextClause, **parameters: Any) -> int:
        """The count of rows a statement matched."""
        self._execute(statement, parameters)
        return int(self._cursor.rowcount)

    def run(self, sql: str) -> list[Any]:
        """The rows of a statement in the driver's words, if it has any."""
        self._cursor.execute(sql)
        return list(self._cursor.fetchall()) if self._cursor.description else []

    def close(self) -> None:
        """Hang up; a connection that is gone is no error."""
        with suppress(Exception):
            self._conn.close()

    def _execute(self, statement: TextClause, parameters: dict[str, Any]) -> None:
        found = self._statements.get(statement)
        if found is None:
            found = self._statements[statement] = Statement(self._engine, statement)
        self._cursor.execute(found.sql, found.bind(parameters))
