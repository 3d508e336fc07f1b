"""One contract for SQLite, PostgreSQL and MariaDB."""

import asyncio
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from agentflow.errors import InvalidConfig, LockHeld
from agentflow.locks import DistributedLock, LockInfo, LockTable


def stored(key, engine):
    return key.encode() if engine == "mariadb" else key


def test_of_two_owners_one_gets_the_lock(make, run, key):
    async def main():
        first, second = make("w1"), make("w2")
        assert await first.acquire(key)
        assert not await second.acquire(key)
        assert await first.release(key)
        assert await second.acquire(key)
        assert await second.release(key)

    run(main())


def test_a_lock_is_not_reentrant(make, run, key):
    async def main():
        lock = make()
        assert await lock.acquire(key)
        assert not await lock.acquire(key)
        with pytest.raises(LockHeld):
            await lock.acquire_blocking(key, 0.05)
        assert await lock.release(key)

    run(main())


def test_owners_of_the_same_name_are_strangers(make, run, key):
    async def main():
        first, second = make("same"), make("same")
        assert await first.acquire(key)
        assert not await second.acquire(key)
        assert not await second.release(key)
        assert not await second.renew(key)
        assert (await first.check_lock(key)).owner == "same"
        assert await first.release(key)

    run(main())


def test_tokens_grow_by_one_with_every_new_holder_and_survive_release(make, run, key):
    async def main():
        first, second = make("w1"), make("w2")
        tokens = []
        for lock in (first, second, first, first):
            assert await lock.acquire(key)
            tokens.append(lock.token(key))
            assert await lock.release(key)
        assert tokens == [1, 2, 3, 4]
        assert lock.token(key) is None

    run(main())


def test_check_lock_tells_what_the_holder_left(make, run, key):
    async def main():
        lock, other = make("w1", ttl=20), make("w2")
        assert await other.check_lock(key) is None
        metadata = {"job": 7, "path": "C:\\x", "quote": 'it\'s "so"', "ü": [1.5, None, True], "nul": "a\0b"}
        before = datetime.now(UTC)
        assert await lock.acquire(key, metadata)
        info = await other.check_lock(key)
        assert isinstance(info, LockInfo)
        assert (info.key, info.owner, info.token, info.metadata) == (key, "w1", 1, metadata)
        assert abs((info.acquired_at - before).total_seconds()) < 5
        assert abs((info.expires_at - info.acquired_at).total_seconds() - 20) < 0.01
        assert 15 < info.remaining_s <= 20
        assert await lock.release(key)
        assert await other.check_lock(key) is None

    run(main())


def test_times_are_utc_whatever_the_session_thinks(make, run, key):
    async def main():
        lock = make()
        assert await lock.acquire(key)
        info = await lock.check_lock(key)
        assert info.acquired_at.tzinfo is UTC
        assert abs(info.acquired_at - datetime.now(UTC)) < timedelta(seconds=5)
        await lock.release(key)

    run(main())


def test_an_expired_lease_is_taken_over_with_a_larger_token(make, run, key):
    async def main():
        first, second = make("w1", ttl=0.2), make("w2", ttl=30)
        assert await first.acquire(key)
        assert not await second.acquire(key)
        await asyncio.sleep(0.25)
        assert await second.check_lock(key) is None
        assert await second.acquire(key)
        assert (first.token(key), second.token(key)) == (1, 2)
        assert not await first.renew(key), "renewing after expiry must not bring it back"
        assert not await first.release(key), "releasing after expiry must not release the successor's"
        assert (await second.check_lock(key)).owner == "w2"
        assert await second.release(key)

    run(main())


def test_an_expired_lease_is_not_renewed_even_if_nobody_took_it(make, run, key):
    async def main():
        lock = make(ttl=0.15)
        assert await lock.acquire(key)
        await asyncio.sleep(0.2)
        assert not await lock.renew(key)
        assert await lock.check_lock(key) is None
        assert lock.token(key) is None

    run(main())


def test_renewing_prolongs_and_never_shortens(make, run, key):
    async def main():
        lock = make(ttl=10)
        assert await lock.acquire(key)
        assert await lock.renew(key, timedelta(seconds=60))
        assert 55 < (await lock.check_lock(key)).remaining_s <= 60
        assert lock.remaining(key) > 50
        assert await lock.renew(key, 5)
        assert 55 < (await lock.check_lock(key)).remaining_s <= 60
        assert (await lock.check_lock(key)).token == 1
        assert await lock.release(key)
        assert not await lock.renew(key)

    run(main())


def test_release_of_what_one_does_not_hold_is_false_and_changes_nothing(make, run, key):
    async def main():
        first, second = make("w1"), make("w2")
        assert not await first.release(key)
        assert await first.acquire(key)
        assert not await second.release(key)
        assert (await second.check_lock(key)).owner == "w1"
        assert await first.release(key)
        assert not await first.release(key)

    run(main())


def test_rows_are_blanked_and_keep_their_token(make, run, key, sql, engine):
    async def main():
        lock = make()
        assert await lock.acquire(key, {"a": 1})
        assert await lock.release(key)

    run(main())
    rows = sql(
        "SELECT owner, fencing_token, acquired_at, metadata FROM distributed_locks WHERE lock_key = :k",
        k=stored(key, engine),
    )
    assert [tuple(row) for row in rows] == [(None, 1, None, None)]


def test_cleanup_blanks_the_expired_and_only_those(make, run, key):
    async def main():
        short, long = make("w1", ttl=0.1), make("w2")
        await long.cleanup_expired_locks()
        for n in range(3):
            assert await short.acquire(f"{key}-{n}")
        assert await long.acquire(f"{key}-long")
        await asyncio.sleep(0.15)
        assert await long.cleanup_expired_locks() == 3
        assert await long.cleanup_expired_locks() == 0
        assert (await long.check_lock(f"{key}-long")).owner == "w2"
        assert await long.acquire(f"{key}-0")
        assert long.token(f"{key}-0") == 2, "cleanup must not take tokens back"
        for end in ("0", "long"):
            assert await long.release(f"{key}-{end}")

    run(main())


def test_force_release_makes_the_old_token_stale(make, run, key, sql, engine):
    async def main():
        holder, operator, third = make("w1"), make("ops"), make("w3")
        assert not await operator.force_release(key)
        assert await holder.acquire(key)
        assert await operator.force_release(key, reason="stuck since noon")
        assert not await operator.force_release(key)
        assert not await holder.renew(key)
        assert not await holder.release(key)
        note = sql(
            "SELECT metadata, fencing_token FROM distributed_locks WHERE lock_key = :k", k=stored(key, engine)
        )[0]
        assert "stuck since noon" in str(note[0])
        assert note[1] == 2
        assert await third.acquire(key)
        assert third.token(key) == 3
        assert await third.release(key)

    run(main())


def test_a_waiter_gets_the_lock_when_it_is_released(make, run, key):
    async def main():
        first, second = make("w1"), make("w2")
        assert await first.acquire(key)
        waiting = asyncio.create_task(second.acquire_blocking(key, 10, {"n": 1}))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        assert await first.release(key)
        info = await asyncio.wait_for(waiting, 2)
        assert (info.owner, info.token, info.metadata) == ("w2", 2, {"n": 1})
        assert await second.release(key)

    run(main())


def test_a_waiter_gets_the_lock_when_the_lease_runs_out(make, run, key):
    async def main():
        first, second = make("w1", ttl=0.3), make("w2", poll_secs=5)
        assert await first.acquire(key)
        began = time.monotonic()
        await second.acquire_blocking(key)
        assert 0.2 < time.monotonic() - began < 1.5
        assert await second.release(key)

    run(main())


def test_a_waiter_gives_up_at_its_limit_and_names_the_holder(make, run, key):
    async def main():
        first, second = make("w1"), make("w2")
        assert await first.acquire(key)
        began = time.monotonic()
        with pytest.raises(LockHeld, match="is held by w1 until") as caught:
            await second.acquire_blocking(key, timedelta(seconds=0.3))
        assert 0.29 < time.monotonic() - began < 1.0
        assert caught.value.owner == "w1"
        assert caught.value.key == key
        expires = (await second.check_lock(key)).expires_at
        assert caught.value.expires_at == expires
        assert await first.release(key)

    run(main())


def test_a_cancelled_waiter_leaves_no_lock_behind(make, run, key, eventually):
    async def main():
        first, second = make("w1"), make("w2")
        for pause in (0.0, 0.001, 0.003, 0.01):
            task = asyncio.create_task(first.acquire(key))
            await asyncio.sleep(pause)
            task.cancel()
            try:
                if await task:
                    assert await first.release(key)
            except asyncio.CancelledError:
                pass
            info = await second.acquire_blocking(key, 5)
            assert info.owner == "w2"
            assert await second.release(key)

    run(main())


def test_many_contenders_never_hold_it_together(make, run, key):
    inside, worst, turns = 0, 0, []

    async def contend(lock, n):
        nonlocal inside, worst
        for _ in range(4):
            info = await lock.acquire_blocking(key, 60)
            inside += 1
            worst = max(worst, inside)
            turns.append(info.token)
            await asyncio.sleep(0.001)
            inside -= 1
            assert await lock.release(key)

    async def main():
        await asyncio.gather(*(contend(make(f"w{n}"), n) for n in range(8)))

    run(main())
    assert worst == 1
    assert turns == list(range(1, 33)), "tokens are given in the order of the grants, none twice"


def test_different_keys_do_not_wait_for_each_other(make, run, key):
    async def main():
        lock = make()
        got = await asyncio.gather(*(lock.acquire(f"{key}-{n}") for n in range(20)))
        assert all(got)
        assert all(await asyncio.gather(*(lock.release(f"{key}-{n}") for n in range(20))))

    run(main())


@pytest.mark.parametrize(
    "names",
    [
        ("Job", "job", "JOB"),
        ("job", "job ", "job  ", " job"),
        ("é", "e\u0301", "e"),
        ("ß", "ss", "SS"),
        ("任务", "任務", "🔒", "🔓"),
        ("a\tb", "a b", "a\nb", "a%b", "a_b", "a'b", 'a"b', "a\\b", "a:b"),
    ],
)
def test_keys_are_compared_byte_by_byte(make, run, key, names):
    async def main():
        lock = make()
        keys = [f"{key}{name}" for name in names]
        for one in keys:
            assert await lock.acquire(one), one
        shown = {info.key for info in await lock.list_locks()}
        assert set(keys) <= shown
        for one in keys:
            assert (await lock.check_lock(one)).token == 1
            assert await lock.release(one)

    run(main())


def test_a_key_may_have_255_bytes_and_no_more(make, run):
    async def main():
        lock = make()
        for longest in ("k" * 255, "é" * 127 + "k"):
            assert await lock.acquire(longest)
            assert (await lock.check_lock(longest)).key == longest
            assert await lock.release(longest)
        for refused in ("", "k" * 256, "é" * 128, "a\0b", "\ud800", None, 7, b"k"):
            for call in (lock.acquire, lock.release, lock.renew, lock.check_lock, lock.force_release):
                with pytest.raises(InvalidConfig):
                    await call(refused)

    run(main())


def test_owners_are_shown_as_they_were_typed(make, run, key):
    async def main():
        for n, owner in enumerate(("w 1", "a/b/c", "Ünï 🔒", "x" * 190)):
            lock = make(owner)
            assert await lock.acquire(f"{key}-{n}")
            assert (await lock.check_lock(f"{key}-{n}")).owner == owner
            assert await lock.release(f"{key}-{n}")

    run(main())


def test_listing_shows_what_is_held_by_key(make, run, key):
    async def main():
        lock, brief = make("w1"), make("w2", ttl=0.1)
        for end in ("b", "a"):
            assert await lock.acquire(f"{key}-{end}", {"at": end})
        assert await brief.acquire(f"{key}-expired")
        assert await lock.acquire(f"{key}-released")
        assert await lock.release(f"{key}-released")
        await asyncio.sleep(0.15)
        shown = [info for info in await lock.list_locks() if info.key.startswith(key)]
        assert [(i.key, i.owner, i.token, i.metadata) for i in shown] == [
            (f"{key}-a", "w1", 1, {"at": "a"}),
            (f"{key}-b", "w1", 1, {"at": "b"}),
        ]
        rows = [row for row in LockTable(lock).rows() if row["key"].startswith(key)]
        assert [tuple(row) for row in rows] == [LockTable.columns] * 2
        assert rows[0]["expires_at"] == shown[0].expires_at
        for end in ("a", "b"):
            await lock.release(f"{key}-{end}")

    run(main())


def test_init_schema_may_be_called_again_and_keeps_the_locks(make, run, key):
    async def main():
        lock = make()
        assert await lock.acquire(key)
        await lock.init_schema()
        assert (await lock.check_lock(key)).token == 1
        assert await lock.release(key)

    run(main())


def test_the_table_has_the_promised_columns_and_indexes(make, url, sql):
    import sqlalchemy as sa

    make()
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    looked = sa.inspect(engine)
    columns = [column["name"] for column in looked.get_columns("distributed_locks")]
    indexes = {index["name"] for index in looked.get_indexes("distributed_locks")}
    assert columns == ["lock_key", "owner", "fencing_token", "acquired_at", "expires_at", "metadata"]
    assert {"idx_distributed_locks_owner", "idx_distributed_locks_expires_at"} <= indexes
    assert looked.get_pk_constraint("distributed_locks")["constrained_columns"] == ["lock_key"]
    engine.dispose()


INIT = """
import os, sys
from agentflow.locks import DistributedLock, LockTable
lock = DistributedLock(sys.argv[1])
gate, start = os.pipe()
children = []
for _ in range(10):
    child = os.fork()
    if child == 0:
        os.close(start)
        os.read(gate, 1)  # until the parent closes its end
        code = 1
        try:
            LockTable(lock).init_schema()
            lock.shutdown()
            code = 0
        finally:
            os._exit(code)
    children.append(child)
os.close(start)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


def test_ten_processes_may_create_the_schema_at_once(url, sql, engine):
    if engine != "sqlite":
        sql("DROP TABLE IF EXISTS distributed_locks")
        sql("DROP TABLE IF EXISTS distributed_lock_waiters")
    done = subprocess.run(
        [sys.executable, "-c", INIT, url], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.strip() == str([0] * 10), done.stderr
    assert sql("SELECT count(*) FROM distributed_locks")[0][0] == 0


def test_one_lock_object_serves_two_loops(make, key):
    lock, results = make(), []

    async def turn(n):
        for _ in range(5):
            await lock.acquire_blocking(key, 20)
            results.append(n)
            assert await lock.release(key)

    threads = [threading.Thread(target=lambda n=n: asyncio.run(turn(n))) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == [0] * 5 + [1] * 5


def test_no_call_blocks_the_loop(make, run, key, url, engine):
    """A row that another session has locked stops the statement, not the loop."""
    import sqlalchemy as sa

    async def main():
        lock = make(timeout_secs=3)
        assert await lock.acquire(key)
        blocker = sa.create_engine(url, poolclass=sa.pool.NullPool)
        with blocker.connect() as conn:
            if engine == "sqlite":
                conn.exec_driver_sql("BEGIN IMMEDIATE")
            conn.execute(
                sa.text("UPDATE distributed_locks SET metadata = NULL WHERE lock_key = :k"),
                {"k": stored(key, engine)},
            )
            task = asyncio.create_task(lock.renew(key))
            worst, last = 0.0, time.monotonic()
            for _ in range(30):
                await asyncio.sleep(0.01)
                now = time.monotonic()
                worst, last = max(worst, now - last), now
            assert not task.done()
            conn.rollback()
        assert await task
        assert worst < 0.25
        blocker.dispose()
        assert await lock.release(key)

    run(main())


def test_waiters_of_a_fair_lock_are_served_in_the_order_in_which_they_came(make, run, key, sql, engine):
    order = []

    async def wait(n):
        lock = make(f"w{n}", fair=True)
        await lock.acquire_blocking(key, 30)
        order.append(n)
        assert await lock.release(key)

    def standing():
        return sql("SELECT id FROM distributed_lock_waiters WHERE lock_key = :k", k=stored(key, engine))

    async def main():
        holder = make("holder", fair=True)
        assert await holder.acquire(key)
        tasks = []
        for n in range(6):
            tasks.append(asyncio.create_task(wait(n)))
            while len(await asyncio.to_thread(standing)) <= n:
                await asyncio.sleep(0.01)
        assert not await make("pusher", fair=True).acquire(key)
        assert await holder.release(key)
        assert not await make("late", fair=True).acquire(key) or order == list(range(6))
        await asyncio.gather(*tasks)

    run(main())
    assert order == list(range(6))


def test_whoever_leaves_a_fair_line_does_not_hold_it_up(make, run, key):
    async def main():
        holder, quitter, patient = (make(name, fair=True) for name in ("holder", "quitter", "patient"))
        assert await holder.acquire(key)
        first = asyncio.create_task(quitter.acquire_blocking(key, 30))
        await asyncio.sleep(0.15)
        second = asyncio.create_task(patient.acquire_blocking(key, 30))
        await asyncio.sleep(0.15)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert await holder.release(key)
        await asyncio.wait_for(second, 2)
        assert await patient.release(key)

    run(main())


def test_a_lock_that_is_dropped_ends_its_threads(url, key, eventually):
    lock = DistributedLock(url)
    LockTable(lock).init_schema()
    assert any(t.name == "agentflow-lock" for t in threading.enumerate())
    del lock
    eventually(lambda: not any(t.name == "agentflow-lock" for t in threading.enumerate()))
