"""What a lock protects must look at tokens too: these refuse a holder who was paused and does not know it.

Law: the tokens accepted for one name never decrease. A paused holder's write is accepted only if no later holder's
came before it: fencing orders writes, it does not tell the time (Kleppmann, "How to do distributed locking", 2016).
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from agentflow.errors import InvalidConfig, StaleToken

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["FencedFile", "FencedResource", "FencedTable"]

T = TypeVar("T")

DIGITS: Final = 20


class FencedResource(Generic[T]):
    """A value in memory that only the newest holder may change.

    Parameters
    ----------
    value
        What it holds at first.
    name : str
        How errors call it.

    Examples
    --------
    >>> account = FencedResource(100, name="account")
    >>> account.write(90, token=7)
    >>> account.write(80, token=6)
    Traceback (most recent call last):
    agentflow.errors.StaleToken: account has seen token 7 and refuses token 6; its lock went to a later holder
    >>> account.read(), account.token, account.rejected
    (90, 7, 1)
    """

    def __init__(self, value: T, *, name: str = "the resource") -> None:
        self.name = name
        self.token = 0
        self.accepted = 0
        self.rejected = 0
        self._value = value
        self._guard = threading.Lock()

    def read(self) -> T:
        """The value; reading asks for no token."""
        with self._guard:
            return self._value

    def write(self, value: T, token: int) -> None:
        """Replace the value, unless a later token has been seen."""
        self.change(lambda _: value, token)

    def change(self, edit: Callable[[T], T], token: int) -> T:
        """Replace the value by `edit(value)`, unless a later token has been seen; returns the new value."""
        _check_token(token)
        with self._guard:
            if token < self.token:
                self.rejected += 1
                raise _stale(self.name, token, self.token)
            self._value = edit(self._value)
            self.token = token
            self.accepted += 1
            return self._value

    def __repr__(self) -> str:
        return f"<FencedResource {self.name} token={self.token} {self.accepted} accepted {self.rejected} refused>"


class FencedFile:
    """A file that only the newest holder may replace; for the processes of one machine.

    The token lies beside it in `<path>.token`, the two are changed under a file lock, and the token first: a crash
    between them leaves the old content behind a newer token, never new content behind an older one.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = FencedFile(Path(folder) / "report.txt")
    ...     report.write("by the seventh holder", token=7)
    ...     try:
    ...         report.write("by the sixth, late", token=6)
    ...     except StaleToken as error:
    ...         print(error.token, error.current, report.read())
    6 7 by the seventh holder
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._token_path = self.path.with_name(self.path.name + ".token")

    @property
    def token(self) -> int:
        """The newest token seen."""
        try:
            return int(self._token_path.read_text(encoding="ascii") or "0")
        except FileNotFoundError:
            return 0

    def read(self) -> str:
        """The content."""
        return self.path.read_text(encoding="utf-8")

    def write(self, content: str, token: int) -> None:
        """Replace the content, unless a later token has been seen."""
        _check_token(token)
        with self._locked() as seen:
            current = int(os.pread(seen, DIGITS, 0) or b"0")
            if token < current:
                raise _stale(str(self.path), token, current)
            # Overwritten in place and of one width: there is no instant at which the file is empty.
            os.pwrite(seen, b"%0*d" % (DIGITS, token), 0)
            os.fsync(seen)
            self._replace(content)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        import fcntl

        seen = os.open(self._token_path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(seen, fcntl.LOCK_EX)
            yield seen
        finally:
            os.close(seen)

    def _replace(self, content: str) -> None:
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as new:
                new.write(content)
                new.flush()
                os.fsync(new.fileno())
            os.replace(name, self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


class FencedTable:
    """The same rule in SQL, for a resource that lives in a database: admit a token inside one's own transaction.

    `admit` counts the token up in the statement that checks it, so whatever is written in the same transaction is
    written by the newest holder or not at all.

    Parameters
    ----------
    table : str
        A table of this shape, which `create` makes: `name` (primary key), `token`.

    Examples
    --------
    >>> from sqlalchemy import create_engine
    >>> from sqlalchemy.pool import StaticPool
    >>> engine = create_engine("sqlite://", poolclass=StaticPool)
    >>> fence = FencedTable()
    >>> with engine.begin() as conn:
    ...     fence.create(conn)
    ...     fence.admit(conn, "orders", token=7)
    ...     # conn.execute(what the lock protects)
    >>> with engine.begin() as conn:
    ...     fence.admit(conn, "orders", token=6)
    Traceback (most recent call last):
    agentflow.errors.StaleToken: orders has seen token 7 and refuses token 6; its lock went to a later holder
    >>> engine.dispose()
    """

    def __init__(self, table: str = "fenced_resources") -> None:
        if not table.replace("_", "").isalnum() or not table.isascii():
            raise InvalidConfig(
                f"{table!r} cannot name a table here; use letters, digits and _", field="table", value=table
            )
        self.table: Final = table

    def create(self, conn: Connection) -> None:
        """Create the table where it is missing."""
        conn.exec_driver_sql(
            f"CREATE TABLE IF NOT EXISTS {self.table} (name VARCHAR(255) PRIMARY KEY, token BIGINT NOT NULL)"
        )

    def token(self, conn: Connection, name: str) -> int:
        """The newest token seen for `name`."""
        from sqlalchemy import text

        found = conn.execute(text(f"SELECT token FROM {self.table} WHERE name = :name"), {"name": name})
        return int(found.scalar() or 0)

    def admit(self, conn: Connection, name: str, token: int) -> None:
        """Raise `StaleToken` if a later token has been seen, else remember this one."""
        from sqlalchemy import text

        _check_token(token)
        values = {"name": name, "token": token}
        raised = conn.execute(
            text(f"UPDATE {self.table} SET token = :token WHERE name = :name AND token <= :token"), values
        )
        # A count of 0 may also mean that the token stood there already, or that the name is new.
        if raised.rowcount == 0:
            current = self.token(conn, name)
            if current > token:
                raise _stale(name, token, current)
            if current < token:
                conn.execute(text(f"INSERT INTO {self.table} (name, token) VALUES (:name, :token)"), values)


def _check_token(token: int) -> None:
    if type(token) is not int or token < 1:
        raise InvalidConfig(
            f"a fencing token is a positive whole number, not {token!r}; pass held.token",
            field="token",
            value=token,
        )


def _stale(name: str, token: int, current: int) -> StaleToken:
    return StaleToken(
        f"{name} has seen token {current} and refuses token {token}; its lock went to a later holder",
        token=token,
        current=current,
    )
