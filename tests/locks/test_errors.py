"""Whatever is wrong with URL, driver, server or file is said clearly, and at once where waiting cannot help."""

import asyncio
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from agentflow.errors import Closed, Disconnected, InvalidConfig, MissingExtra, TimedOut, Unknown
from agentflow.locks import DistributedLock, LockTable
from agentflow.locks.dialects import sqlite as sqlite_dialect


def fails(url, call="acquire", **settings):
    """The error of one call on a lock at `url`, and how long it took."""

    async def main():
        began = time.monotonic()
        async with DistributedLock(url, **settings) as lock:
            with pytest.raises(Exception) as caught:
                await (lock.init_schema() if call == "init_schema" else lock.acquire("k"))
            return caught.value, time.monotonic() - began

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("locks.db", "this is none"),
        ("", "this is none"),
        (None, "this is none"),
        ("oracle://host/db", "know no database 'oracle'"),
        ("postgresql+psycopg2://host/db", r"write 'postgresql\+psycopg://"),
        ("postgresql+asyncpg://host/db", "not asyncpg"),
        ("mysql+mysqldb://host/db", r"write 'mysql\+pymysql://"),
        ("sqlite+aiosqlite:///x.db", "not aiosqlite"),
        ("sqlite://", "excludes nobody"),
        ("sqlite:///:memory:", "excludes nobody"),
        ("sqlite:///file:x?mode=memory&uri=true", "excludes nobody"),
    ],
)
def test_a_url_that_cannot_work_is_refused_when_the_lock_is_made(url, says):
    with pytest.raises(InvalidConfig, match=says):
        DistributedLock(url)


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [
        ("postgresql://u@h/d", "psycopg", "postgres"),
        ("postgresql+psycopg://u@h/d", "psycopg", "postgres"),
        ("mysql://u@h/d", "pymysql", "mysql"),
        ("mariadb://u@h/d", "pymysql", "mysql"),
    ],
)
def test_a_missing_driver_names_the_pip_line(url, package, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"pip install 'agentflow\[{extra}\]'") as caught:
        DistributedLock(url)
    assert caught.value.package == package


@pytest.mark.parametrize(
    ("url", "full"),
    [
        ("postgresql://u@h/d", "postgresql+psycopg://u@h/d"),
        ("postgres://u@h/d", "postgresql+psycopg://u@h/d"),
        ("mysql://u@h/d", "mysql+pymysql://u@h/d"),
        ("mariadb+pymysql://u@h/d", "mysql+pymysql://u@h/d"),
    ],
)
def test_a_url_without_driver_gets_ours(url, full):
    assert DistributedLock(url).url == full


@pytest.mark.parametrize(
    "settings",
    [
        {"ttl_secs": 0},
        {"ttl_secs": 0.05},
        {"ttl_secs": -1},
        {"ttl_secs": float("nan")},
        {"ttl_secs": float("inf")},
        {"ttl_secs": "30"},
        {"ttl_secs": True},
        {"owner": ""},
        {"owner": "  "},
        {"owner": "x" * 191},
        {"owner": "a\0b"},
        {"timeout_secs": 0},
        {"poll_secs": 0},
    ],
)
def test_settings_that_cannot_work_are_refused(settings, tmp_path):
    with pytest.raises(InvalidConfig):
        DistributedLock(f"sqlite:///{tmp_path}/x.db", **settings)


@pytest.mark.parametrize("metadata", [{1, 2}, object(), float("nan"), {"a": b"x"}, "\ud800", "x" * 70_000])
def test_metadata_that_is_not_json_is_refused(make, run, key, metadata):
    async def main():
        lock = make()
        with pytest.raises(InvalidConfig, match="metadata"):
            await lock.acquire(key, metadata)
        assert await lock.check_lock(key) is None

    run(main())


def test_a_forgotten_init_schema_is_named(tmp_path, servers):
    error, took_s = fails(f"sqlite:///{tmp_path}/empty.db")
    assert isinstance(error, InvalidConfig)
    assert "await lock.init_schema()" in str(error)
    assert took_s < 2


def test_a_wrong_password_is_said_at_once_and_never_shown(server):
    error, took_s = fails(server.url.replace("correct", "sesame"))
    assert isinstance(error, InvalidConfig)
    assert "refused user or password" in str(error)
    assert "sesame" not in str(error)
    assert took_s < 2


def test_a_missing_database_is_said_at_once(server):
    error, took_s = fails(server.url.rsplit("/", 1)[0] + "/nowhere", "init_schema")
    assert isinstance(error, InvalidConfig)
    assert "the database does not exist" in str(error)
    assert took_s < 2


def test_a_server_that_is_not_there_is_given_up_within_the_time_out(server):
    error, took_s = fails(server.url.replace(str(server.port), "1"), timeout_secs=0.5)
    assert isinstance(error, Disconnected)
    assert "nothing was changed" in str(error)
    assert took_s < 3


def test_a_server_that_answers_nothing_is_given_up_within_the_time_out(server, run, key):
    async def main():
        async with DistributedLock(server.url, timeout_secs=1.0) as lock:
            await lock.init_schema()
            assert await lock.acquire(key)
            server.freeze()
            try:
                began = time.monotonic()
                with pytest.raises(Unknown):
                    await lock.renew(key)
                assert time.monotonic() - began < 2.5
            finally:
                server.thaw()
            assert await lock.renew(key)
            assert await lock.release(key)

    run(main())


def test_a_folder_that_is_missing_and_a_file_that_is_no_database_are_named(tmp_path, servers):
    error, _ = fails(f"sqlite:///{tmp_path}/no/such/locks.db", "init_schema")
    assert isinstance(error, InvalidConfig)
    assert "cannot be opened" in str(error)
    (tmp_path / "letter.txt").write_text("Dear lock, " * 500)
    error, _ = fails(f"sqlite:///{tmp_path}/letter.txt", "init_schema")
    assert isinstance(error, InvalidConfig)
    assert "not a SQLite database" in str(error)


def test_a_connection_that_may_only_read_is_named(tmp_path, servers):
    path = tmp_path / "locks.db"
    lock = DistributedLock(f"sqlite:///{path}")
    LockTable(lock).init_schema()
    lock.shutdown()
    error, took_s = fails(f"sqlite:///file:{path}?mode=ro&uri=true")
    assert isinstance(error, InvalidConfig)
    assert "read-only" in str(error)
    assert took_s < 2


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_a_file_that_may_only_be_read_is_named(servers):
    folder = Path(tempfile.mkdtemp(prefix="agentflow-read-only-"))
    try:
        lock = DistributedLock(f"sqlite:///{folder}/locks.db")
        LockTable(lock).init_schema()
        lock.shutdown()
        (folder / "locks.db").chmod(0o444)
        folder.chmod(0o555)
        root = os.geteuid() == 0
        if root:  # may write anything, so it becomes nobody for a moment
            os.seteuid(pwd.getpwnam("nobody").pw_uid)
        try:
            error, took_s = fails(f"sqlite:///{folder}/locks.db")
        finally:
            if root:
                os.seteuid(0)
        assert isinstance(error, InvalidConfig)
        assert "is read-only" in str(error) or "cannot be opened" in str(error)
        assert took_s < 2
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_network_file_system_is_refused(monkeypatch):
    monkeypatch.setattr(sqlite_dialect, "file_system", lambda path: "nfs4")
    with pytest.raises(InvalidConfig, match="lies on nfs4"):
        DistributedLock("sqlite:////mnt/share/locks.db")


def test_the_innermost_mount_decides_and_blanks_in_its_name_are_read():
    mounts = textwrap.dedent("""\
        /dev/sda1 / ext4 rw 0 0
        server:/home /home nfs4 rw 0 0
        /dev/sdb1 /home/local\\040disk xfs rw 0 0
    """)
    kinds = [
        sqlite_dialect.file_system(Path(path), mounts)
        for path in ("/etc/x", "/home/me/x", "/home/local disk/x", "/homestead/x")
    ]
    assert kinds == ["ext4", "nfs4", "xfs", "ext4"]


def test_a_later_change_of_folder_does_not_lead_to_another_lock(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lock = DistributedLock("sqlite:///locks.db")
    assert lock.url.endswith(f"{tmp_path}/locks.db")


def test_a_closed_lock_says_so(make, run, key):
    async def main():
        lock = make()
        await lock.close()
        await lock.close()
        with pytest.raises(Closed):
            await lock.acquire(key)

    run(main())


def test_a_busy_file_is_waited_for_and_then_given_up(tmp_path, servers):
    import sqlite3

    url = f"sqlite:///{tmp_path}/locks.db"
    lock = DistributedLock(url)
    LockTable(lock).init_schema()
    lock.shutdown()
    writer = sqlite3.connect(tmp_path / "locks.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    error, took_s = fails(url, timeout_secs=0.4)
    writer.execute("ROLLBACK")
    writer.close()
    assert isinstance(error, TimedOut)
    assert took_s < 2.5


def test_importing_locks_loads_no_database_library():
    code = "import sys, agentflow.locks; from agentflow.locks import DistributedLock, AutoRenewLock, FencedResource;"
    code += "print([m for m in ('sqlalchemy', 'psycopg', 'pymysql', 'sqlite3') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
