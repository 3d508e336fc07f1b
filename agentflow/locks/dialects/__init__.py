"""One module an engine: its schema, its statements, its traps and what its errors mean.

Law: every engine answers the same calls with the same rows, in integer microseconds by its own clock.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from agentflow.errors import InvalidConfig, MissingExtra

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from agentflow.locks.dialects.base import Dialect

__all__ = ["dialect_for"]

# backend of the URL -> (our module, class, SQLAlchemy's name with driver, package to import, our extra)
BACKENDS: Final = {
    "sqlite": ("sqlite", "Sqlite", "sqlite+pysqlite", "sqlite3", ""),
    "postgresql": ("postgres", "Postgres", "postgresql+psycopg", "psycopg", "postgres"),
    "postgres": ("postgres", "Postgres", "postgresql+psycopg", "psycopg", "postgres"),
    "mysql": ("mysql", "MySql", "mysql+pymysql", "pymysql", "mysql"),
    "mariadb": ("mysql", "MySql", "mysql+pymysql", "pymysql", "mysql"),
}
EXAMPLES: Final = (
    "'sqlite:///locks.db', 'postgresql+psycopg://user@host/db' or 'mysql+pymysql://user@host/db'"
)


def dialect_for(url: str | URL) -> tuple[Dialect, URL]:
    """The engine's dialect, and the URL with the driver named.

    Raises
    ------
    InvalidConfig
        The URL cannot be read, or names a database or driver that is none of ours.
    MissingExtra
        The driver's package is not installed.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise InvalidConfig(
            f"the database of a lock is named by a URL such as {EXAMPLES}; this is none", field="url"
        ) from error
    backend, _, driver = parsed.drivername.partition("+")
    if backend not in BACKENDS:
        raise InvalidConfig(f"locks know no database {backend!r}; use {EXAMPLES}", field="url", value=backend)
    module, name, full, package, extra = BACKENDS[backend]
    ours = full.partition("+")[2]
    if driver and driver != ours:
        raise InvalidConfig(
            f"locks speak to {backend} through {ours}, not {driver}; write '{full}://...'",
            field="url",
            value=driver,
        )
    if not _installed(package):
        raise MissingExtra.of(package, extra, f"a lock on '{full}://...'")
    dialect: Dialect = getattr(import_module(f"{__name__}.{module}"), name)()
    return dialect, dialect.checked_url(parsed.set(drivername=full))


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # a half-removed package, or one a test has hidden
        return False
