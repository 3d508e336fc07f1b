from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentflow.core.raft.messages import Entry, HardState, Snapshot, Stored, Write
from agentflow.errors import Closed, InvalidConfig, StorageFailed
from agentflow.storage import SqliteDisk


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "m1.db"


@pytest.fixture
def open_disk(path):
    opened = []

    def at(where=path, node_id="m1"):
        disk = SqliteDisk(where, node_id)
        opened.append(disk)
        return disk

    yield at
    for disk in opened:
        disk.close()


def snapshot_files(path, to):
    """Copy the file and its log as a crash at this instant would leave them."""
    to.mkdir()
    for part in (path, path.with_name(path.name + "-wal")):
        if part.exists():
            shutil.copy(part, to / part.name)
    return to / path.name


def edit(path, *statements):
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def filled(open_disk, path):
    disk = open_disk()
    disk.save(Write(HardState(3, "m2", 1), tuple(Entry(i, 3, b"data") for i in range(1, 9)), None))
    disk.close()


def test_every_write_is_synced_before_it_is_acknowledged(open_disk):
    connection = open_disk()._connection
    settings = {p: connection.execute(f"PRAGMA {p}").fetchone()[0] for p in ("journal_mode", "synchronous")}
    assert settings == {"journal_mode": "wal", "synchronous": 2}


def test_term_vote_and_entries_are_one_transaction(open_disk, path, tmp_path):
    disk = open_disk()
    disk.save(Write(HardState(1, "m1"), (Entry(1, 1), Entry(2, 1))))
    before = disk.load()
    write = Write(HardState(2, "m2", 1), (Entry(2, 2), Entry(3, 2)), Snapshot(1, 1, data=b"s"))
    copies = []

    def copy(statement):
        copies.append((statement.split()[0], snapshot_files(path, tmp_path / f"crash-{len(copies)}")))

    disk._connection.set_trace_callback(copy)
    disk.save(write)
    disk._connection.set_trace_callback(None)
    after = disk.load()
    assert [verb for verb, _ in copies].count("BEGIN") == 1
    assert [verb for verb, _ in copies][-1] == "COMMIT"
    assert len(copies) > 5
    for _, crashed in copies:
        assert open_disk(crashed).load() == before
    assert open_disk(snapshot_files(path, tmp_path / "done")).load() == after != before


def test_a_write_that_fails_half_way_leaves_nothing(open_disk, path):
    disk = open_disk()
    disk.save(Write(HardState(1, "m1"), (Entry(1, 1),)))
    before = disk.load()
    disk._connection.execute(
        "CREATE TEMP TRIGGER half BEFORE INSERT ON main.entries WHEN new.idx = 3 BEGIN SELECT RAISE(ABORT, 'torn'); END"
    )
    with pytest.raises(StorageFailed, match="torn"):
        disk.save(Write(HardState(2, "m2"), (Entry(2, 2), Entry(3, 2))))
    with pytest.raises(StorageFailed, match="earlier write failed"):
        disk.save(Write(HardState(2, "m2")))
    disk.close()
    assert open_disk().load() == before


def test_a_full_disk_is_told_and_the_disk_goes_on_when_there_is_room(open_disk):
    disk = open_disk()
    disk.save(Write(HardState(1), (Entry(1, 1),)))
    pages = disk._connection.execute("PRAGMA page_count").fetchone()[0]
    disk._connection.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(StorageFailed, match="full"):
        disk.save(Write(HardState(2), (Entry(2, 2, b"x" * 100_000),)))
    assert disk.load() == Stored(HardState(1), entries=(Entry(1, 1),))
    disk._connection.execute("PRAGMA max_page_count = 1000000")
    disk.save(Write(HardState(2), (Entry(2, 2, b"x" * 100_000),)))
    assert disk.load().hard_state.term == 2


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_loss_at_the_end_of_the_log_leaves_some_prefix_of_the_writes(
    open_disk, slow_disk, random_writes, tmp_path_factory, data
):
    folder = tmp_path_factory.mktemp("cut")
    home = folder / "m1.db"
    disk, model = open_disk(home), slow_disk()
    states = [model.load()]
    for write in data.draw(random_writes(most=6)):
        disk.save(write)
        model.save(write)
        states.append(model.load())
    crashed = snapshot_files(home, folder / "crash")
    disk.close()
    log = crashed.with_name("m1.db-wal")
    size = log.stat().st_size
    keep = data.draw(st.integers(0, size))
    with log.open("r+b") as file:
        file.truncate(keep)
    cut = open_disk(crashed)
    stored = cut.load()
    cut.close()
    assert stored in states
    if keep == size:
        assert stored == states[-1]


CHILD = """
import os, sys
from agentflow.core.raft.messages import Entry, HardState, Snapshot, Write
from agentflow.storage import SqliteDisk
disk = SqliteDisk(sys.argv[1], "m1")
for n in range(1, 100_000):
    snapshot = Snapshot(n - 10, n - 10) if n % 50 == 0 else None
    disk.save(Write(HardState(n, f"m{n}", n - 1), (Entry(n, n, b"a" * 500),), snapshot))
    os.write(1, b".")
"""


@pytest.mark.parametrize("acknowledged", [1, 7, 60, 333])
def test_after_kill_9_exactly_the_acknowledged_writes_are_there(open_disk, path, acknowledged):
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE)
    with child.stdout:
        seen = len(child.stdout.read(acknowledged))
        child.send_signal(signal.SIGKILL)
        seen += len(child.stdout.read())
    assert child.wait() == -signal.SIGKILL
    stored = open_disk().load()
    count = stored.hard_state.term
    # The write under way when the process died was not acknowledged: it is there whole or not at all.
    assert seen >= acknowledged
    assert count in (seen, seen + 1)
    base = count // 50 * 50 - 10 if count >= 50 else 0
    assert stored.hard_state == HardState(count, f"m{count}", count - 1)
    assert stored.snapshot.index == base
    assert [(e.index, e.term) for e in stored.entries] == [(n, n) for n in range(base + 1, count + 1)]


def test_a_second_disk_on_the_same_file_is_refused(open_disk, path):
    open_disk()
    with pytest.raises(StorageFailed, match="in use"):
        open_disk()


def test_another_process_on_the_same_file_is_refused(open_disk, path):
    open_disk()
    code = "import sys; from agentflow.storage import SqliteDisk; SqliteDisk(sys.argv[1], 'm1')"
    child = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert "in use" in child.stderr.splitlines()[-1]


def test_another_nodes_disk_is_refused(open_disk, path):
    filled(open_disk, path)
    with pytest.raises(InvalidConfig, match="disk of m1, not of m2") as refused:
        open_disk(node_id="m2")
    assert refused.value.owner == "m1"


def test_another_programs_database_is_refused_and_left_alone(open_disk, tmp_path):
    foreign = tmp_path / "photos.db"
    edit(foreign, "CREATE TABLE photos (id)")
    before = foreign.read_bytes()
    with pytest.raises(InvalidConfig, match="another program"):
        open_disk(foreign)
    assert foreign.read_bytes() == before


def test_a_newer_format_is_refused(open_disk, path):
    filled(open_disk, path)
    edit(path, "PRAGMA user_version = 7")
    with pytest.raises(InvalidConfig, match="format 7"):
        open_disk()


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        ("UPDATE entries SET body = zeroblob(length(body)) WHERE idx = 4", "damaged entry 4"),
        (
            "UPDATE entries SET body = (SELECT body FROM entries WHERE idx = 5) WHERE idx = 4",
            "checksum|in the place",
        ),
        ("DELETE FROM entries WHERE idx = 4", "entry 5 where 4 belongs"),
        ("DELETE FROM entries", "calls entry 1 committed"),
        ("UPDATE state SET body = zeroblob(3) WHERE name = 'hard_state'", "damaged record 'hard_state'"),
        ("DELETE FROM state WHERE name = 'node'", "does not say whose it is"),
    ],
)
def test_a_damaged_store_refuses_to_start_and_says_why(open_disk, path, damage, why):
    filled(open_disk, path)
    edit(path, damage)
    with pytest.raises(StorageFailed, match=why):
        open_disk()


def test_a_flipped_bit_in_an_entry_is_noticed(open_disk, path):
    filled(open_disk, path)
    content = path.read_bytes()
    at = content.rindex(b"data")
    path.write_bytes(content[:at] + b"dat`" + content[at + 4 :])
    with pytest.raises(StorageFailed, match="checksum"):
        open_disk()


@pytest.mark.parametrize("content", [b"not a database, but long enough to be mistaken for one" * 40, None])
def test_a_file_that_is_no_database_refuses_to_start(open_disk, path, content):
    if content is None:
        filled(open_disk, path)
        content = path.read_bytes()[:-4096]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(StorageFailed, match="rejoin"):
        open_disk()


def test_a_file_that_was_never_written_counts_as_new(open_disk, path):
    path.parent.mkdir()
    path.touch()
    assert open_disk().load() == Stored()


def test_a_path_that_cannot_be_opened_is_told(open_disk, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailed, match="cannot be opened"):
        open_disk(tmp_path / "file" / "m1.db")
    with pytest.raises(StorageFailed, match="cannot be opened"):
        open_disk(tmp_path)


def test_a_closed_disk_says_so(open_disk):
    disk = open_disk()
    disk.close()
    disk.close()
    with pytest.raises(Closed):
        disk.save(Write(HardState(1)))


def test_calls_may_come_from_different_threads(open_disk):
    disk = open_disk()
    worker = threading.Thread(target=disk.save, args=(Write(HardState(4)),))
    worker.start()
    worker.join()
    assert disk.load().hard_state.term == 4
