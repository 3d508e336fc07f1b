"""A lock that renews itself: it outlives its ttl, and a loss is never silent."""

import asyncio
import contextlib
import gc
import logging
import os
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import InvalidConfig, LockHeld, LockLost
from agentflow.locks import AutoRenewLock
from agentflow.locks.renewal import TrustWindow
from agentflow.locks.waiting import margin

of_any_engine = pytest.mark.parametrize("engine", ["sqlite"])
"""For claims about our own threads, which no engine changes."""


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="agentflow")


def test_it_outlives_its_ttl_and_is_free_after_the_scope(make, run, key):
    async def main():
        lock, other = make("w1", ttl=1.8), make("w2")
        async with await AutoRenewLock.acquire(lock, key, {"n": 1}) as held:
            await asyncio.sleep(2.2)
            held.ensure_held()
            assert not await other.acquire(key)
            info = await other.check_lock(key)
            assert (info.token, info.owner, info.metadata) == (held.token, "w1", {"n": 1})
            assert 0 < held.remaining() < 1.8
        assert await other.check_lock(key) is None
        with pytest.raises(LockLost, match="was released"):
            held.ensure_held()
        assert not held.lost.is_set()

    run(main())


@of_any_engine
def test_a_body_that_blocks_the_loop_does_not_lose_it(make, run, key):
    async def main():
        lock = make(ttl=1.8)
        async with await AutoRenewLock.acquire(lock, key) as held:
            time.sleep(2.2)  # noqa: ASYNC251 - the point
            held.ensure_held()

    run(main())


def test_a_busy_lock_is_refused_with_its_holder_unless_one_waits(make, run, key):
    async def main():
        lock, other = make("w1", ttl=5), make("w2")
        async with await AutoRenewLock.acquire(lock, key):
            with pytest.raises(LockHeld, match="max_duration=") as caught:
                await AutoRenewLock.acquire(other, key)
            assert caught.value.owner == "w1"
            assert caught.value.expires_at is not None
            waiting = asyncio.create_task(AutoRenewLock.acquire(other, key, max_duration=5))
            await asyncio.sleep(0.05)
        async with await waiting as held:
            assert (held.owner, held.token) == ("w2", 2)

    run(main())


def test_a_bad_key_is_refused_before_anything_is_sent(make, run):
    async def main():
        with pytest.raises(InvalidConfig):
            await AutoRenewLock.acquire(make(), "")

    run(main())


def test_a_loss_sets_the_event_calls_back_and_cancels_the_body(make, run, key):
    reasons = []

    async def main():
        lock, operator = make("w1", ttl=2), make("ops")
        held = await AutoRenewLock.acquire(lock, key, on_lost=reasons.append)
        ends = []

        async def body():
            async with held:
                assert await operator.force_release(key)
                await asyncio.sleep(10)
                ends.append("reached")

        with pytest.raises(LockLost, match="taken away") as caught:
            await body()
        assert ends == []
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        assert (caught.value.key, caught.value.token) == (key, 1)
        assert held.lost.is_set()
        assert held.token == 1, "the token stays readable"
        with pytest.raises(LockLost):
            held.ensure_held()
        assert asyncio.current_task().cancelling() == 0
        await asyncio.sleep(0)  # nothing of the cancellation is left over
        assert len(reasons) == 1

    run(main())


def test_a_loss_is_not_repaired_by_taking_the_free_lock_again(make, run, key):
    async def main():
        lock, operator = make("w1", ttl=2), make("ops")
        held = await AutoRenewLock.acquire(lock, key)
        assert await operator.force_release(key)
        await asyncio.wait_for(held.lost.wait(), 5)
        await asyncio.sleep(0.4)
        assert await operator.check_lock(key) is None
        assert held.remaining() == 0.0
        assert not await held.release()

    run(main())


@of_any_engine
def test_the_bodys_own_error_is_not_masked_by_the_loss(make, run, key):
    async def main():
        lock, operator = make("w1", ttl=2), make("ops")

        async def body():
            async with await AutoRenewLock.acquire(lock, key) as held:
                assert await operator.force_release(key)
                try:
                    await held.lost.wait()
                    await asyncio.sleep(5)
                except asyncio.CancelledError:
                    raise ValueError("mine") from None

        with pytest.raises(ValueError, match="mine") as caught:
            await body()
        assert any("had been lost" in note for note in caught.value.__notes__)
        assert asyncio.current_task().cancelling() == 0

    run(main())


@of_any_engine
def test_a_body_that_swallows_the_cancellation_still_learns_of_the_loss(make, run, key):
    async def main():
        lock, operator = make("w1", ttl=2), make("ops")

        async def body():
            async with await AutoRenewLock.acquire(lock, key):
                assert await operator.force_release(key)
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(5)

        with pytest.raises(LockLost):
            await body()
        assert asyncio.current_task().cancelling() == 0

    run(main())


def test_a_cancellation_from_outside_stays_one_and_releases(make, run, key):
    async def main():
        lock = make("w1", ttl=5)

        async def body():
            async with await AutoRenewLock.acquire(lock, key):
                await asyncio.sleep(10)

        task = asyncio.create_task(body())
        while await lock.check_lock(key) is None:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # If the cancellation came before the grant's reply, what undoes the grant is still under way.
        await asyncio.wait_for(until_free(lock, key), 5)

    run(main())


async def until_free(lock, key):
    while await lock.check_lock(key) is not None:
        await asyncio.sleep(0.01)


def test_a_loss_found_only_at_the_release_is_told_too(make, run, key):
    async def main():
        lock, operator = make("w1", ttl=30), make("ops")
        with pytest.raises(LockLost, match="when it was to be released"):
            async with await AutoRenewLock.acquire(lock, key):
                assert await operator.force_release(key)

    run(main())


def test_an_error_of_the_body_releases(make, run, key):
    async def main():
        lock = make("w1", ttl=30)
        with pytest.raises(ZeroDivisionError):
            async with await AutoRenewLock.acquire(lock, key):
                raise ZeroDivisionError
        assert await lock.check_lock(key) is None

    run(main())


def test_a_lock_that_is_dropped_stops_renewing_and_is_released(make, run, key, eventually):
    async def main():
        lock = make("w1", ttl=0.5)
        held = await AutoRenewLock.acquire(lock, key)
        assert held.token == 1
        del held
        gc.collect()
        ends = time.monotonic() + 3
        while await lock.check_lock(key) is not None:
            assert time.monotonic() < ends
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.6)
        assert await lock.check_lock(key) is None

    run(main())
    eventually(lambda: not any(t.name.startswith("agentflow-renew") for t in threading.enumerate()))


def test_closing_the_lock_releases_what_renews_itself(make, run, key):
    async def main():
        lock, other = make("w1", ttl=30), make("w2")
        held = await AutoRenewLock.acquire(lock, key)
        await lock.close()
        assert await other.check_lock(key) is None
        with pytest.raises(LockLost):
            held.ensure_held()

    run(main())


def test_trust_ends_by_the_clock_even_if_no_thread_ever_runs(make, run, key):
    async def main():
        skip = 0.0
        lock = make("w1", ttl=20, clock=lambda: time.monotonic() + skip)
        held = await AutoRenewLock.acquire(lock, key)
        held.ensure_held()
        skip = 17.9
        held.ensure_held()
        skip = 18.1  # ttl less a tenth
        with pytest.raises(LockLost, match="in time"):
            held.ensure_held()
        assert held.lost.is_set()
        skip = 0.0
        with pytest.raises(LockLost):
            held.ensure_held()
        await held.release()

    run(main())


@of_any_engine
def test_a_crowd_of_waiters_does_not_stand_before_renewals(make, run, key):
    async def main():
        lock = make("w1", ttl=1.8)
        held = await AutoRenewLock.acquire(lock, key)
        blocked = [lock._calls.submit("nap", lambda *_: time.sleep(2.4), 5) for _ in range(4)]
        await asyncio.sleep(2.1)
        held.ensure_held()
        assert await held.release()
        for job in blocked:
            job.wait()

    run(main())


@of_any_engine
def test_the_loss_can_be_awaited_from_another_loop(make, run, key):
    async def main():
        lock, operator = make("w1", ttl=2), make("ops")
        held = await AutoRenewLock.acquire(lock, key)
        seen = []
        thread = threading.Thread(target=lambda: seen.append(asyncio.run(held.lost.wait())))
        thread.start()
        await operator.force_release(key)
        while thread.is_alive():
            await asyncio.sleep(0.01)
        assert seen == [True]
        await held.release()

    run(main())


@of_any_engine
def test_a_loss_after_its_loop_has_closed_harms_nobody(make, run, key, eventually):
    lock, operator = make("w1", ttl=2), make("ops")
    kept = []

    async def main():
        held = await AutoRenewLock.acquire(lock, key)
        await held.__aenter__()
        kept.append(held)
        assert await operator.force_release(key)

    run(main())
    eventually(kept[0].lost.is_set)


def test_a_fork_does_not_hold_its_parents_lock(make, run, key):
    lock = make("w1", ttl=1)

    async def main():
        async with await AutoRenewLock.acquire(lock, key) as held:
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    held.ensure_held()
                except LockLost as error:
                    held._renewal.stop().result(1)
                    code = 0 if error.reason == "forked" and lock.token(key) is None else 2
                finally:
                    os._exit(code)
            _, status = os.waitpid(child, 0)  # noqa: ASYNC222
            assert os.waitstatus_to_exitcode(status) == 0
            await asyncio.sleep(0.5)
            held.ensure_held()
            assert (await lock.check_lock(key)).token == held.token

    run(main())


FORKED = """
import asyncio, os, sys
from agentflow.locks import DistributedLock, LockTable
lock = DistributedLock(sys.argv[1], owner="w")
LockTable(lock).init_schema()
async def turn(key):
    assert await lock.acquire(key), key
    assert await lock.release(key), key
asyncio.run(turn("parent"))
child = os.fork()
asyncio.run(turn(f"fork-{child == 0}"))
asyncio.run(lock.close())
if child == 0:
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print("both")
"""


def test_a_fork_uses_the_lock_on_connections_of_its_own(url):
    done = subprocess.run(
        [sys.executable, "-c", FORKED, url], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "both\n", done.stderr


EXITING = """
import sys
from agentflow.locks import BlockingLock, DistributedLock, LockTable
lock = DistributedLock(sys.argv[1], ttl_secs=60)
LockTable(lock).init_schema()
held = BlockingLock(lock, sys.argv[2])
held.__enter__()
print(held.token)
"""


def test_a_program_that_ends_with_the_lock_held_gives_it_back(make, url, key, run):
    lock = make()
    done = subprocess.run(
        [sys.executable, "-c", EXITING, url, key], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "1\n", done.stderr
    assert run(lock.check_lock(key)) is None


# --- the server goes away ---------------------------------------------------------------------------


def test_it_survives_a_restart_of_the_server_within_its_ttl(servers, run, key):
    """Both servers at the same time: it is mostly waiting."""
    from agentflow.locks import DistributedLock

    async def survive(server):
        async with DistributedLock(server.url, ttl_secs=9, timeout_secs=5) as lock:
            await lock.init_schema()
            async with await AutoRenewLock.acquire(lock, key) as held:
                began = time.monotonic()
                await asyncio.to_thread(server.kill)
                await asyncio.sleep(3.2)  # at least one renewal has met a server that is not there
                held.ensure_held()
                await asyncio.to_thread(server.start)
                await asyncio.sleep(began + 9.2 - time.monotonic())  # past the lease as it was first granted
                held.ensure_held()
                assert (await lock.check_lock(key)).token == held.token == 1

    async def main():
        await asyncio.gather(*(survive(servers.get(engine)) for engine in ("postgresql", "mariadb")))

    run(main())


def test_it_is_lost_in_time_when_the_server_stays_away_and_stays_lost(server, run, key):
    from agentflow.locks import DistributedLock

    async def main():
        async with DistributedLock(server.url, ttl_secs=1.5, timeout_secs=3) as lock:
            await lock.init_schema()
            held = await AutoRenewLock.acquire(lock, key)
            await asyncio.to_thread(server.kill)
            began = time.monotonic()
            await asyncio.wait_for(held.lost.wait(), 5)
            assert time.monotonic() - began <= 1.5, "trust must end before the lease does"
            await asyncio.to_thread(server.start)
            assert "no renewal" in held.lost_reason
            with pytest.raises(LockLost):
                held.ensure_held()
            await asyncio.sleep(1.0)
            assert await lock.check_lock(key) is None
            await held.release()

    run(main())


def test_it_is_lost_in_time_when_the_server_only_falls_silent(server, run, key):
    from agentflow.locks import DistributedLock

    async def main():
        async with DistributedLock(server.url, ttl_secs=1.5, timeout_secs=30) as lock:
            await lock.init_schema()

            async def body():
                async with await AutoRenewLock.acquire(lock, key):
                    server.freeze()
                    began = time.monotonic()
                    try:
                        await asyncio.sleep(10)
                    finally:
                        server.thaw()
                        assert time.monotonic() - began <= 1.6

            with pytest.raises(LockLost):
                await body()

    run(main())


# --- the arithmetic of trust --------------------------------------------------------------------------


@given(
    ttl=st.floats(0.1, 100),
    offset=st.floats(-1000, 1000),
    turns=st.lists(
        st.tuples(st.floats(0, 40), st.floats(0, 40), st.floats(0, 40), st.booleans()), max_size=12
    ),
)
def test_trust_never_outlives_the_lease_however_slow_the_replies(ttl, offset, turns):
    """The model keeps the database's own expiry, on its own clock; each turn waits, is under way, is replied to."""
    now = 0.0
    expires = now + offset + ttl
    window = TrustWindow(ttl, trusted_until=now + ttl - margin(ttl), now=now)
    for wait_s, out_s, back_s, fails in turns:
        now += wait_s
        sent, done = now, now + out_s
        now = done + back_s
        if fails or done + offset >= expires:
            window.failed(now, 1.0)
        else:
            expires = max(expires, done + offset + ttl)
            window.renewed(sent=sent, left_s=expires - (done + offset))
        assert window.trusted_until + offset <= expires + 1e-6
        assert window.renew_at <= max(sent + ttl / 3, now + max(ttl / 6, 1.0))


@given(ttl=st.floats(0.1, 1000), left=st.floats(-10, 1000))
def test_one_try_never_takes_longer_than_trust_lasts(ttl, left):
    window = TrustWindow(ttl, trusted_until=left, now=0.0)
    assert 0 < window.try_for_s(0.0) <= max(0.01, left)


def test_a_failed_renewal_is_tried_again_soon_and_less_and_less_often():
    window = TrustWindow(30.0, trusted_until=27.0, now=0.0)
    pauses = []
    for _ in range(8):
        window.failed(10.0, 1.0)
        pauses.append(window.renew_at - 10.0)
    assert pauses == sorted(pauses)
    assert pauses[0] < 0.05
    assert pauses[-1] <= 0.5
