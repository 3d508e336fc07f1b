"""A disk in one SQLite file, for clusters that outlive their kernel.

Law: one `save` is one transaction, synced before it returns (write-ahead log, synchronous=FULL). Term,
vote and entries become durable together or not at all: a vote that outlived the entries it was cast
with, or the other way round, could elect two leaders (thesis 3.8).

SQLite's pages carry no checksums, so each record does. A file that is another program's, another node's,
a newer version's, damaged or in use is refused, and nothing in it is changed.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from agentflow.core.raft.messages import Entry, HardState, Snapshot, Stored, Write
from agentflow.errors import Closed, InvalidConfig, StorageFailed
from agentflow.ids import NodeId, Term
from agentflow.storage.base import check_stored, check_write, damaged, failed, pack, unpack

_APPLICATION = 0x61664453  # "afDS", in the file's header
_VERSION = 1
_SCHEMA = (
    "CREATE TABLE state (name TEXT PRIMARY KEY, body BLOB NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE entries (idx INTEGER PRIMARY KEY, body BLOB NOT NULL, crc INTEGER NOT NULL)",
)
_PUT_STATE = "INSERT OR REPLACE INTO state VALUES (?, ?, ?)"
_PUT_ENTRY = "INSERT INTO entries VALUES (?, ?, ?)"

_T = TypeVar("_T")
_encode = msgspec.msgpack.Encoder().encode


class SqliteDisk:
    """One node's disk in one SQLite file.

    Parameters
    ----------
    path : str or Path
        The file; it and its folders are made if they do not exist.
    node_id : str
        Whose disk it is. A file made for one node is refused to another.

    Raises
    ------
    InvalidConfig
        The file is another program's, another node's, or of a newer agentflow.
    StorageFailed
        The file is damaged, in use by another process, or cannot be opened.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> disk = SqliteDisk(f"{folder.name}/master-1.db", "master-1")
    >>> disk.save(Write(hard_state=HardState(term=2, vote="master-3")))
    >>> disk.close()
    >>> disk = SqliteDisk(f"{folder.name}/master-1.db", "master-1")
    >>> disk.load().hard_state
    HardState(term=2, vote='master-3', commit=0)
    >>> disk.close(); folder.cleanup()
    """

    blocking = True

    def __init__(self, path: str | os.PathLike[str], node_id: NodeId) -> None:
        self.path = Path(path)
        self.node_id = node_id
        self._lock = threading.Lock()
        self._broken = ""
        self._connection: sqlite3.Connection | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            is_new = not self.path.exists()
            # The calls of one disk come one at a time but not from one thread; the lock keeps that honest.
            connection = sqlite3.connect(
                self.path, timeout=0.2, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise failed(str(self.path), f"cannot be opened ({error})") from error
        try:
            self._open(connection)
            if is_new:
                _sync_folder(self.path.parent)
            self._base, self._base_term, self._last = 0, 0, 0
            self._connection = connection
            self._read()
        except BaseException:
            self._connection = None
            connection.close()
            raise

    def __repr__(self) -> str:
        return f"<SqliteDisk {self.path} of {self.node_id}>"

    def load(self) -> Stored:
        """Read everything back, checking every record."""
        with self._lock:
            return self._read()

    def save(self, write: Write) -> None:
        """Make one write durable in one transaction."""
        with self._lock:
            connection = self._usable()
            try:
                follows = write.snapshot is not None and self._follows(connection, write.snapshot)
                last = check_write(write, self._base, self._last, follows)
                connection.execute("BEGIN IMMEDIATE")
                if write.snapshot is not None:
                    up_to = write.snapshot.index if follows else self._last
                    connection.execute("DELETE FROM entries WHERE idx <= ?", (up_to,))
                    self._put(connection, "snapshot", _encode(write.snapshot))
                if write.entries:
                    self._put_entries(connection, write)
                if write.hard_state is not None:
                    self._put(connection, "hard_state", _encode(write.hard_state))
                connection.execute("COMMIT")
            except BaseException as error:
                self._undo(connection, error)
                raise
            if write.snapshot is not None:
                self._base, self._base_term = write.snapshot.index, write.snapshot.term
            self._last = last

    def load_stable(self) -> dict[str, Any]:
        """Return the values kept last."""
        with self._lock:
            body = self._get(self._usable(), "stable")
        return {} if body is None else unpack(body)

    def save_stable(self, values: Mapping[str, Any]) -> None:
        """Keep these values in the place of the last ones."""
        body = pack(values)
        with self._lock:
            connection = self._usable()
            try:
                self._put(connection, "stable", body)
            except BaseException as error:
                self._undo(connection, error)
                raise

    def close(self) -> None:
        """Close the file. Closing twice is fine."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    # --- opening --------------------------------------------------------------------------------------

    def _open(self, connection: sqlite3.Connection) -> None:
        """Recognise the file, or make it ours if it is empty."""
        name = str(self.path)
        try:
            # Exclusive before the first read: two nodes on one file would vote twice.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if application != _APPLICATION and (application or version or tables):
                raise InvalidConfig(f"{name} is another program's database; name another file", path=name)
            if version > _VERSION:
                fact = f"{name} has format {version}, this agentflow knows up to {_VERSION}"
                raise InvalidConfig(f"{fact}; use the agentflow that wrote it", path=name)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA fullfsync = ON")
            connection.execute("PRAGMA checkpoint_fullfsync = ON")
            if application == _APPLICATION:
                self._recognise(connection)
            else:
                self._create(connection)
        except sqlite3.OperationalError as error:
            raise _refusal(name, error) from error
        except sqlite3.DatabaseError as error:
            raise damaged(name, f"is not a readable database ({error})") from error

    def _create(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {_VERSION}")
        for statement in _SCHEMA:
            connection.execute(statement)
        self._put(connection, "node", _encode(self.node_id))
        connection.execute("COMMIT")

    def _recognise(self, connection: sqlite3.Connection) -> None:
        name = str(self.path)
        problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise damaged(name, f"is a damaged database ({problem})")
        # Taken now, by a write that changes nothing, rather than at the first vote.
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
        body = self._get(connection, "node")
        if body is None:
            raise damaged(name, "does not say whose it is")
        owner = self._decode(body, str, "node")
        if owner != self.node_id:
            fact = f"{name} is the disk of {owner}, not of {self.node_id}"
            raise InvalidConfig(f"{fact}; give each node a file of its own", path=name, owner=owner)

    # --- reading --------------------------------------------------------------------------------------

    def _read(self) -> Stored:
        connection = self._usable()
        try:
            state = self._state(connection, "hard_state", HardState, HardState())
            snapshot = self._state(connection, "snapshot", Snapshot, Snapshot())
            rows = connection.execute("SELECT idx, body, crc FROM entries ORDER BY idx").fetchall()
        except sqlite3.DatabaseError as error:
            raise damaged(str(self.path), f"cannot be read ({error})") from error
        decoder = msgspec.msgpack.Decoder(Entry)
        entries = []
        for index, body, crc in rows:
            if zlib.crc32(body) != crc:
                raise damaged(str(self.path), f"holds a damaged entry {index} (wrong checksum)")
            entry = decoder.decode(body)
            if entry.index != index:
                raise damaged(str(self.path), f"holds entry {entry.index} in the place of {index}")
            entries.append(entry)
        stored = check_stored(Stored(state, snapshot, tuple(entries)), str(self.path))
        self._base, self._base_term = snapshot.index, snapshot.term
        self._last = snapshot.index + len(entries)
        return stored

    def _state(self, connection: sqlite3.Connection, name: str, kind: type[_T], default: _T) -> _T:
        body = self._get(connection, name)
        return default if body is None else self._decode(body, kind, name)

    def _get(self, connection: sqlite3.Connection, name: str) -> bytes | None:
        row = connection.execute("SELECT body, crc FROM state WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None
        body: bytes = row[0]
        if zlib.crc32(body) != row[1]:
            raise damaged(str(self.path), f"holds a damaged record {name!r} (wrong checksum)")
        return body

    def _decode(self, body: bytes, kind: type[_T], name: str) -> _T:
        try:
            return msgspec.msgpack.decode(body, type=kind)
        except msgspec.MsgspecError as error:
            raise damaged(str(self.path), f"holds a record {name!r} that makes no sense ({error})") from error

    def _follows(self, connection: sqlite3.Connection, snapshot: Snapshot) -> bool:
        if snapshot.index == self._base:
            return snapshot.term == self._base_term
        row = connection.execute("SELECT body FROM entries WHERE idx = ?", (snapshot.index,)).fetchone()
        return row is not None and _term_of(row[0]) == snapshot.term

    # --- writing --------------------------------------------------------------------------------------

    def _put(self, connection: sqlite3.Connection, name: str, body: bytes) -> None:
        connection.execute(_PUT_STATE, (name, body, zlib.crc32(body)))

    def _put_entries(self, connection: sqlite3.Connection, write: Write) -> None:
        base = self._base if write.snapshot is None else write.snapshot.index
        if write.entries[0].index <= self._last:
            connection.execute("DELETE FROM entries WHERE idx >= ?", (write.entries[0].index,))
        rows = []
        for entry in write.entries:
            if entry.index > base:
                body = _encode(entry)
                rows.append((entry.index, body, zlib.crc32(body)))
        connection.executemany(_PUT_ENTRY, rows)

    def _usable(self) -> sqlite3.Connection:
        if self._connection is None:
            raise Closed(f"{self!r} is closed")
        if self._broken:
            raise failed(str(self.path), f"an earlier write failed ({self._broken})")
        return self._connection

    def _undo(self, connection: sqlite3.Connection, error: BaseException) -> None:
        """Take back a failed transaction, and say what SQLite said.

        After a failed sync the kernel may have thrown the pages away and call the next sync a success
        (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020), so only a full disk,
        which is noticed before anything is synced, leaves this disk usable.
        """
        is_clean = not isinstance(error, sqlite3.Error) or _code(error) == sqlite3.SQLITE_FULL
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            is_clean = False
        if not is_clean:
            self._broken = str(error)
        if isinstance(error, sqlite3.Error):
            raise failed(str(self.path), f"cannot write ({error})") from error


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code; extended ones carry detail in their upper bytes."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _term_of(body: bytes) -> Term:
    return msgspec.msgpack.decode(body, type=Entry).term


def _refusal(name: str, error: sqlite3.OperationalError) -> StorageFailed:
    if _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        fact = "in use by another process or another disk of this one"
        return StorageFailed(f"{name} is {fact}; one file serves one node", path=name, reason=fact)
    return failed(name, f"cannot be opened ({error})")


def _sync_folder(folder: Path) -> None:
    """Make the new file's name durable too; Windows does not let a folder be synced."""
    if os.name != "nt":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
