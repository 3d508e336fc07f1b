"""What a run of the lock's fault test leaves behind, and where it is written down.

Three witnesses: the database's own log of every change of a lock's row, written by triggers in the transaction of the
change; the resource's log of accepted writes; and each worker's notes, appended before and after what it does. Workers'
notes are compared as sets, or with their own order: between processes only the database and the resource order events.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

COLUMNS = (
    "old_owner",
    "old_token",
    "old_acquired",
    "old_expires",
    "new_owner",
    "new_token",
    "new_acquired",
    "new_expires",
)

SQLITE_NOW = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"


def sqlite_audit():
    yield f"""CREATE TABLE lock_audit (seq INTEGER PRIMARY KEY AUTOINCREMENT, op TEXT, lock_key TEXT, at INTEGER,
      {", ".join(f"{name} {'TEXT' if name.endswith('owner') else 'INTEGER'}" for name in COLUMNS)})"""
    for op in ("INSERT", "UPDATE", "DELETE"):
        old = [_sqlite_value("old", name, op != "INSERT") for name in COLUMNS[:4]]
        new = [_sqlite_value("new", name, op != "DELETE") for name in COLUMNS[4:]]
        key = "old.lock_key" if op == "DELETE" else "new.lock_key"
        yield f"""CREATE TRIGGER lock_audit_{op.lower()} AFTER {op} ON distributed_locks BEGIN
          INSERT INTO lock_audit (op, lock_key, at, {", ".join(COLUMNS)})
          VALUES ('{op}', {key}, {SQLITE_NOW} * 1000, {", ".join(old + new)}); END"""


def _sqlite_value(row, name, there):
    column = {"owner": "owner", "token": "fencing_token", "acquired": "acquired_at", "expires": "expires_at"}
    stored = column[name.split("_")[1]]
    if not there:
        return "NULL"
    return f"{row}.{stored} * 1000" if stored.endswith("_at") else f"{row}.{stored}"


def postgresql_audit():
    yield f"""CREATE TABLE lock_audit (seq bigserial PRIMARY KEY, op text, lock_key text, at bigint,
      {", ".join(f"{name} {'text' if name.endswith('owner') else 'bigint'}" for name in COLUMNS)})"""
    micros = "CAST(EXTRACT(EPOCH FROM {}) * 1000000 AS bigint)"
    row = (
        "{0}.owner, {0}.fencing_token, "
        + micros.format("{0}.acquired_at")
        + ", "
        + micros.format("{0}.expires_at")
    )
    nothing = "NULL, NULL, NULL, NULL"
    values = {
        "INSERT": f"{nothing}, {row.format('NEW')}",
        "UPDATE": f"{row.format('OLD')}, {row.format('NEW')}",
        "DELETE": f"{row.format('OLD')}, {nothing}",
    }
    branches = "".join(
        f"""IF TG_OP = '{op}' THEN INSERT INTO lock_audit (op, lock_key, at, {", ".join(COLUMNS)})
            SELECT TG_OP, {"OLD" if op == "DELETE" else "NEW"}.lock_key,
                   {micros.format("clock_timestamp()")}, {listed}; END IF; """
        for op, listed in values.items()
    )
    yield f"""CREATE FUNCTION lock_audit() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN {branches} RETURN NULL; END $$"""
    yield """CREATE TRIGGER lock_audit AFTER INSERT OR UPDATE OR DELETE ON distributed_locks
      FOR EACH ROW EXECUTE FUNCTION lock_audit()"""


def mariadb_audit():
    yield f"""CREATE TABLE lock_audit (seq BIGINT AUTO_INCREMENT PRIMARY KEY, op TEXT, lock_key VARBINARY(255), at BIGINT,
      {", ".join(f"{name} {'VARCHAR(255)' if name.endswith('owner') else 'BIGINT'}" for name in COLUMNS)})"""
    micros = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {})"
    row = (
        "{0}.owner, {0}.fencing_token, "
        + micros.format("{0}.acquired_at")
        + ", "
        + micros.format("{0}.expires_at")
    )
    nothing = "NULL, NULL, NULL, NULL"
    values = {
        "INSERT": f"{nothing}, {row.format('NEW')}",
        "UPDATE": f"{row.format('OLD')}, {row.format('NEW')}",
        "DELETE": f"{row.format('OLD')}, {nothing}",
    }
    for op, listed in values.items():
        yield f"""CREATE TRIGGER lock_audit_{op.lower()} AFTER {op} ON distributed_locks FOR EACH ROW
          INSERT INTO lock_audit (op, lock_key, at, {", ".join(COLUMNS)})
          VALUES ('{op}', {"OLD" if op == "DELETE" else "NEW"}.lock_key, {micros.format("UTC_TIMESTAMP(6)")}, {listed})"""


AUDITS = {"sqlite": sqlite_audit, "postgresql": postgresql_audit, "mariadb": mariadb_audit}


@dataclass(frozen=True)
class Change:
    """One change of one row, as the database saw it; instants in microseconds of its clock."""

    seq: int
    op: str
    key: str
    at: int
    old_owner: str | None
    old_token: int | None
    old_acquired: int | None
    old_expires: int | None
    new_owner: str | None
    new_token: int | None
    new_acquired: int | None
    new_expires: int | None

    @property
    def is_grant(self) -> bool:
        return self.new_owner is not None and self.new_owner != self.old_owner


@dataclass(frozen=True)
class Write:
    """One write the resource accepted, in its order."""

    seq: int
    key: str
    token: int
    holder: str


@dataclass
class Evidence:
    """All that the judges look at."""

    changes: list[Change] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    notes: list[dict] = field(default_factory=list)

    def noted(self, what: str) -> list[dict]:
        return [note for note in self.notes if note["what"] == what]


def true_time() -> float:
    """The clock nobody has skewed."""
    return time.clock_gettime(time.CLOCK_REALTIME)


class Notebook:
    """A worker's notes: one JSON line each, appended by one write, so that a kill loses none that was made."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(self, what: str, **facts: object) -> None:
        line = json.dumps({"what": what, "at": true_time(), **facts}) + "\n"
        os.write(self._file, line.encode())


def read_notes(folder: Path) -> list[dict]:
    """Every worker's notes; the name of the file says whose."""
    notes = []
    for path in sorted(folder.glob("*.notes")):
        lines = path.read_text().splitlines()
        notes += [{"worker": path.stem, **json.loads(line)} for line in lines]
    return notes
