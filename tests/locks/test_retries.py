"""Lost replies, conflicts and busy databases: what is tried again, how often, and what it leads to."""

import asyncio
import contextlib
import itertools
import random
import socket
import sqlite3
import threading
import time
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from agentflow.errors import Disconnected, InvalidConfig, LockHeld, TimedOut, Unknown
from agentflow.locks import DistributedLock, LockTable
from agentflow.locks.dialects import mysql, postgres
from agentflow.locks.dialects.base import Verdict
from agentflow.locks.dialects.mysql import MySql
from agentflow.locks.dialects.postgres import Postgres
from agentflow.locks.dialects.sqlite import Sqlite


class DriverError(sqlite3.OperationalError):
    def __init__(self, *arguments, sqlstate=None, sqlite_errorcode=0):
        super().__init__(*arguments)
        self.sqlstate = sqlstate
        self.sqlite_errorcode = sqlite_errorcode


def wrapped(*, arguments=("said so",), **facts):
    return DriverError(*arguments, **facts)


@pytest.mark.parametrize(
    ("dialect", "error", "verdict"),
    [
        (Postgres, wrapped(sqlstate="40001"), Verdict.AGAIN),
        (Postgres, wrapped(sqlstate="40P01"), Verdict.AGAIN),
        (Postgres, wrapped(sqlstate="55P03"), Verdict.AGAIN),
        (Postgres, wrapped(sqlstate="57P01"), Verdict.LOST),
        (Postgres, wrapped(sqlstate="57P03"), Verdict.LOST),
        (Postgres, wrapped(sqlstate="53300"), Verdict.LOST),
        (Postgres, wrapped(arguments=("server closed the connection unexpectedly",)), Verdict.LOST),
        (MySql, wrapped(arguments=(1213, "Deadlock found")), Verdict.AGAIN),
        (MySql, wrapped(arguments=(1205, "Lock wait timeout exceeded")), Verdict.AGAIN),
        (MySql, wrapped(arguments=(1020, "Record has changed since last read")), Verdict.AGAIN),
        (MySql, wrapped(arguments=(2013, "Lost connection")), Verdict.LOST),
        (MySql, wrapped(arguments=(2006, "Server has gone away")), Verdict.LOST),
        (MySql, wrapped(arguments=(1040, "Too many connections")), Verdict.LOST),
        (MySql, wrapped(arguments=()), Verdict.LOST),
        (Sqlite, wrapped(sqlite_errorcode=sqlite3.SQLITE_BUSY), Verdict.AGAIN),
        (Sqlite, wrapped(sqlite_errorcode=sqlite3.SQLITE_BUSY | (2 << 8)), Verdict.AGAIN),
        (Sqlite, wrapped(sqlite_errorcode=sqlite3.SQLITE_LOCKED), Verdict.AGAIN),
        (Sqlite, wrapped(sqlite_errorcode=sqlite3.SQLITE_IOERR), Verdict.LOST),
    ],
)
def test_conflicts_are_told_from_lost_connections(dialect, error, verdict):
    assert dialect().classify(error, "somewhere") is verdict


@pytest.mark.parametrize(
    ("dialect", "error"),
    [
        (Postgres, wrapped(sqlstate="28P01")),
        (Postgres, wrapped(sqlstate="3D000")),
        (Postgres, wrapped(sqlstate="42P01")),
        (Postgres, wrapped(sqlstate="25006")),
        (MySql, wrapped(arguments=(1045, "Access denied"))),
        (MySql, wrapped(arguments=(1049, "Unknown database"))),
        (MySql, wrapped(arguments=(1146, "No such table"))),
        (MySql, wrapped(arguments=(1290, "running with --read-only"))),
        (Sqlite, wrapped(sqlite_errorcode=sqlite3.SQLITE_READONLY)),
        (Sqlite, wrapped(sqlite_errorcode=sqlite3.SQLITE_CANTOPEN)),
    ],
)
def test_what_no_retry_can_mend_is_refused_with_the_place_named(dialect, error):
    said = dialect().classify(error, "somewhere")
    assert isinstance(said, InvalidConfig)
    assert str(said).startswith("somewhere")


class Flaky:
    """A SQLite lock whose acquire fails as told before it works."""

    def __init__(self, folder, monkeypatch, errors, timeout_s=5.0):
        self.lock = DistributedLock(f"sqlite:///{folder}/locks.db", timeout_secs=timeout_s)
        LockTable(self.lock).init_schema()
        self.calls = []
        real = Sqlite.acquire

        def acquire(dialect, conn, *arguments):
            self.calls.append((time.monotonic(), arguments[1]))
            error = next(errors, None)
            if error is None:
                return real(dialect, conn, *arguments)
            after, cause = error
            if after:
                real(dialect, conn, *arguments)
            raise cause

        monkeypatch.setattr(Sqlite, "acquire", acquire)


def test_conflicts_are_tried_again_with_growing_pauses(tmp_path, monkeypatch, run):
    conflict = wrapped(sqlite_errorcode=sqlite3.SQLITE_BUSY)
    flaky = Flaky(tmp_path, monkeypatch, iter([(False, conflict)] * 4))

    async def main():
        async with flaky.lock as lock:
            assert await lock.acquire("k")

    run(main())
    times = [at for at, _ in flaky.calls]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(times) == 5
    assert pauses[0] < 0.1
    assert sum(pauses[2:]) > sum(pauses[:2])


def test_retries_are_bounded_by_the_time_out(tmp_path, monkeypatch, run):
    conflict = wrapped(sqlite_errorcode=sqlite3.SQLITE_BUSY)
    flaky = Flaky(tmp_path, monkeypatch, iter([(False, conflict)] * 10_000), timeout_s=0.5)

    async def main():
        async with flaky.lock as lock:
            began = time.monotonic()
            with pytest.raises(TimedOut):
                await lock.acquire("k")
            assert time.monotonic() - began < 1.0

    run(main())
    assert 3 < len(flaky.calls) < 60, "bounded in number too"


def test_a_reply_lost_once_leads_to_ones_own_lease_not_to_a_second(tmp_path, monkeypatch, run):
    flaky = Flaky(tmp_path, monkeypatch, iter([(True, wrapped(arguments=("connection lost",)))]))

    async def main():
        async with flaky.lock as lock:
            assert await lock.acquire("k")
            assert lock.token("k") == 1
            assert await lock.release("k")

    run(main())
    assert len({holder for _, holder in flaky.calls}) == 1


def test_asking_again_settles_an_acquire_whose_outcome_is_unknown(tmp_path, monkeypatch, run):
    lost, down = (True, wrapped(arguments=("connection lost",))), [True]
    flaky = Flaky(
        tmp_path, monkeypatch, (lost if down[0] else None for _ in itertools.count()), timeout_s=0.3
    )

    async def main():
        async with flaky.lock as lock:
            for _ in range(2):
                with pytest.raises(Disconnected, match="may have happened"):
                    await lock.acquire("k")
            down[0] = False
            assert await lock.acquire("k"), "the lease that was given after all is ours"
            assert lock.token("k") == 1
            assert not await lock.acquire("k")
            assert await lock.release("k")

    run(main())


def test_an_error_nobody_expects_is_raised_at_once(tmp_path, monkeypatch, run):
    flaky = Flaky(tmp_path, monkeypatch, iter([(False, sqlite3.IntegrityError("surprise"))] * 9))

    async def main():
        async with flaky.lock as lock:
            with pytest.raises(Unknown, match="what no lock expects"):
                await lock.acquire("k")

    run(main())
    assert len(flaky.calls) == 1


def test_a_lease_whose_reply_took_as_long_as_the_lease_is_not_believed(tmp_path, monkeypatch, run):
    real = Sqlite.acquire

    def slow(*arguments):
        info = real(*arguments)
        time.sleep(0.3)
        return info

    monkeypatch.setattr(Sqlite, "acquire", slow)

    async def main():
        async with DistributedLock(f"sqlite:///{tmp_path}/locks.db", ttl_secs=0.3) as lock:
            await lock.init_schema()
            assert not await lock.acquire("k")
            assert lock.token("k") is None

    run(main())


def test_a_release_of_what_was_not_believed_ends_nothing_that_was_acknowledged(tmp_path, monkeypatch, run):
    real_acquire, real_release = Sqlite.acquire, Sqlite.release
    slow, acknowledged, released = iter([0.4]), threading.Event(), threading.Event()

    def acquire(*arguments):
        info = real_acquire(*arguments)
        time.sleep(next(slow, 0))
        return info

    def release(*arguments):
        assert acknowledged.wait(20)
        answer = real_release(*arguments)
        released.set()
        return answer

    monkeypatch.setattr(Sqlite, "acquire", acquire)
    monkeypatch.setattr(Sqlite, "release", release)

    async def main():
        async with DistributedLock(f"sqlite:///{tmp_path}/locks.db", ttl_secs=0.4) as lock:
            await lock.init_schema()
            info = await lock.acquire_blocking("k", 20)
            assert await lock.renew("k", 60)
            acknowledged.set()
            assert await asyncio.to_thread(released.wait, 20)
            assert (await lock.check_lock("k")).holder == info.holder

    run(main())


def test_the_limit_of_a_wait_counts_while_the_database_is_away(tmp_path, monkeypatch, run):
    flaky = Flaky(tmp_path, monkeypatch, iter([(False, wrapped(arguments=("gone",)))] * 10_000), timeout_s=5)

    async def main():
        async with flaky.lock as lock:
            began = time.monotonic()
            with pytest.raises(Disconnected):
                await lock.acquire_blocking("k", 0.5)
            assert time.monotonic() - began < 1.5

    run(main())


# --- real conflicts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["serializable", "repeatable read", "read committed"])
@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_every_isolation_level_is_coped_with(kind, level, servers, monkeypatch, run, key):
    conflicts = []
    if kind == "postgresql":
        monkeypatch.setattr(postgres, "SETTINGS", (f"SET default_transaction_isolation = '{level}'",))
    else:
        real_prepare = MySql.prepare

        def prepare(dialect, raw, timeout_s):
            real_prepare(dialect, raw, timeout_s)
            with raw.cursor() as cursor:
                cursor.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {level}")

        monkeypatch.setattr(MySql, "prepare", prepare)
    dialect = Postgres if kind == "postgresql" else MySql
    real = dialect.classify

    def classify(self, error, where):
        conflicts.append(str(error))
        return real(self, error, where)

    monkeypatch.setattr(dialect, "classify", classify)
    tokens = []

    async def contend(lock):
        for _ in range(6):
            info = await lock.acquire_blocking(key, 60)
            tokens.append(info.token)
            assert await lock.renew(key)
            assert await lock.release(key)

    async def main():
        locks = [DistributedLock(servers.url(kind), owner=f"w{n}") for n in range(6)]
        await locks[0].init_schema()
        await asyncio.gather(*(contend(lock) for lock in locks))
        for lock in locks:
            await lock.close()

    run(main())
    assert tokens == list(range(1, 37))


def test_a_serialization_failure_is_tried_again(servers, monkeypatch, run, key):
    """Another session holds the row, changes it and commits while our upsert waits for it: 40001 is certain."""
    monkeypatch.setattr(postgres, "SETTINGS", ("SET default_transaction_isolation = 'repeatable read'",))
    seen = []
    real = Postgres.classify
    monkeypatch.setattr(
        Postgres, "classify", lambda self, e, where: seen.append(e.sqlstate) or real(self, e, where)
    )
    url = servers.url("postgresql")
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)

    async def main():
        async with DistributedLock(url) as lock:
            await lock.init_schema()
            assert await lock.acquire(key)
            with engine.connect() as conn:
                conn.execute(
                    sa.text("UPDATE distributed_locks SET metadata = '1' WHERE lock_key = :k"), {"k": key}
                )
                renewing = asyncio.create_task(lock.renew(key))
                await asyncio.sleep(0.3)
                conn.commit()
                assert await renewing
            assert await lock.release(key)

    run(main())
    engine.dispose()
    assert "40001" in seen


def test_a_dead_lock_and_a_lock_wait_time_out_are_tried_again(servers, monkeypatch, run, key):
    """Two sessions take two rows in opposite order; InnoDB ends one of them, and 1205 ends a long wait."""
    seen = []
    real = MySql.classify
    monkeypatch.setattr(
        MySql, "classify", lambda self, e, where: seen.append(e.args[0]) or real(self, e, where)
    )
    url = servers.url("mariadb")
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    update = sa.text("UPDATE distributed_locks SET metadata = '1' WHERE lock_key = :k")

    async def main():
        async with DistributedLock(url, timeout_secs=4) as lock:
            await lock.init_schema()
            for end in "ab":
                assert await lock.acquire(f"{key}-{end}")

            def opposite(dialect, conn, doubtful):
                if doubtful or seen:
                    return "again"
                conn.run("BEGIN")
                conn.change(update, k=f"{key}-a".encode())
                time.sleep(0.4)
                try:
                    conn.change(update, k=f"{key}-b".encode())
                finally:
                    conn.run("ROLLBACK")
                return "first time"

            with engine.connect() as other:
                # The heavier transaction survives, so the job is the victim.
                for _ in range(30):
                    other.execute(
                        sa.text(
                            "INSERT INTO distributed_lock_waiters (lock_key, owner, expires_at) "
                            "VALUES ('x', 'x', '1971-01-01')"
                        )
                    )
                other.execute(update, {"k": f"{key}-b".encode()})
                job = lock._calls.submit("crossing", opposite, 5)
                await asyncio.sleep(0.2)
                await asyncio.to_thread(other.execute, update, {"k": f"{key}-a".encode()})
                assert await job.result() == "again"
                assert seen == [1213]
                renewing = asyncio.create_task(lock.renew(f"{key}-a"))
                await asyncio.sleep(2.3)  # the session's innodb_lock_wait_timeout is 2 s
                other.rollback()
                assert await renewing
            assert 1205 in seen
            for end in "ab":
                assert await lock.release(f"{key}-{end}")

    run(main())
    engine.dispose()


# --- replies that never arrive ------------------------------------------------------------------------


class CuttingProxy:
    """Stands between client and server, and hangs up after the server did what a chosen statement asks."""

    def __init__(self, host, port):
        self.target = (host, port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.cut_after = None
        self.cuts = 0
        self.threads = []
        self.open = []
        self.start(self.accept)

    def start(self, work, *arguments):
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self.threads.append(thread)
        thread.start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(self.target)
            self.open += [client, server]
            link = SimpleNamespace(client=client, server=server, doomed=False)
            self.start(self.forward, link)
            self.start(self.backward, link)

    def forward(self, link):
        self.pump(link, link.client, link.server, self.watch)

    def backward(self, link):
        self.pump(link, link.server, link.client, self.drop)

    def pump(self, link, source, target, judge):
        try:
            while data := source.recv(65536):
                if judge(link, data):
                    break
                target.sendall(data)
        except OSError:
            pass
        for side in (link.client, link.server):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def watch(self, link, data):
        if self.cut_after is not None and self.cut_after in data:
            self.cut_after, link.doomed = None, True
        return False

    def drop(self, link, data):
        if link.doomed:
            time.sleep(0.05)
            self.cuts += 1
        return link.doomed

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        # Shut down first, closed last: closing a socket wakes nobody who already waits for it.
        for side in self.open:
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(5)
        for side in self.open:
            side.close()


@pytest.fixture
def cut(server):
    proxy = CuttingProxy("127.0.0.1", server.port)
    yield SimpleNamespace(proxy=proxy, url=server.url.replace(str(server.port), str(proxy.port)))
    proxy.close()


STATEMENTS = {
    "acquire": b"INSERT INTO distributed_locks",
    "renew": b"SET expires_at = GREATEST",
    "release": b"SET owner = NULL",
}


@pytest.mark.parametrize("lost", STATEMENTS)
def test_a_reply_lost_after_the_commit_changes_nothing_for_the_caller(cut, run, key, lost):
    async def main():
        async with DistributedLock(cut.url, owner="w1") as lock:
            await lock.init_schema()

            def doom(step):
                cut.proxy.cut_after = STATEMENTS[lost] if step == lost else None

            doom("acquire")
            assert await lock.acquire(key)
            assert lock.token(key) == 1, "the retry adopted the lease that was given"
            doom("renew")
            assert await lock.renew(key, 60)
            assert (await lock.check_lock(key)).token == 1
            doom("release")
            assert await lock.release(key), "the release that took effect is told as one"
            assert await lock.check_lock(key) is None
            assert await lock.acquire(key)
            assert lock.token(key) == 2
            assert await lock.release(key)

    run(main())
    assert cut.proxy.cuts == 1, "the fault must have landed"


def test_a_session_sees_fresh_rows_and_sane_settings(server, run):
    async def main():
        async with DistributedLock(server.url) as lock:
            await lock.init_schema()

            def ask(dialect, conn, doubtful):
                if dialect.name == "postgresql":
                    return [
                        conn.run(f"SHOW {name}")[0][0]
                        for name in ("default_transaction_isolation", "synchronous_commit")
                    ]
                return [conn.run(f"SELECT @@SESSION.{name}")[0][0] for name in ("tx_isolation", "autocommit")]

            return await lock._calls.submit("settings", ask, 5).result()

    assert run(main()) in (["read committed", "on"], ["READ-COMMITTED", 1])


def test_asynchronous_commit_is_switched_on_and_a_stronger_setting_kept():
    assert "WHERE current_setting('synchronous_commit') = 'off'" in postgres.SETTINGS[0]


def test_the_order_of_assignments_in_mysqls_upsert_ends_with_the_expiry():
    assignments = str(mysql.MySql.statements.acquire).split("UPDATE")[1]
    order = [
        assignments.index(f"{name} = IF") for name in ("fencing_token", "owner", "acquired_at", "expires_at")
    ]
    assert order == sorted(order)


def test_of_contenders_in_threads_and_loops_each_gets_its_turn(make, key):
    """Waiters in one process wake each other: hand-over does not wait for a poll."""
    locks = [make(f"w{n}", poll_secs=30) for n in range(4)]
    turns = []

    async def one(lock):
        rng = random.Random(lock.owner)
        for _ in range(3):
            info = await lock.acquire_blocking(key, 50)
            turns.append(info.owner)
            await asyncio.sleep(rng.uniform(0, 0.01))
            assert await lock.release(key)

    threads = [threading.Thread(target=lambda lock=lock: asyncio.run(one(lock))) for lock in locks]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(turns) == sorted(f"w{n}" for n in range(4) for _ in range(3))
    assert time.monotonic() - began < 20


def test_lock_held_tells_program_and_person_the_same(make, run, key):
    async def main():
        lock, other = make("w1"), make("w2")
        assert await lock.acquire(key)
        with pytest.raises(LockHeld) as caught:
            await other.acquire_blocking(key, 0)
        error = caught.value
        assert (error.key, error.owner, error.token) == (key, "w1", 1)
        assert f"{error.expires_at:%H:%M:%S}" in str(error)
        assert await lock.release(key)

    run(main())
