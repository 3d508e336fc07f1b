"""The same for code that blocks."""

import _thread
import asyncio
import logging
import threading
import time

import pytest

from agentflow.errors import InvalidConfig, LockHeld, LockLost
from agentflow.locks import BlockingLock, hold_all


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="agentflow")


@pytest.mark.parametrize("engine", ["sqlite"])  # the thread and the scope are ours, whatever the engine
def test_it_is_held_inside_and_free_afterwards(make, run, key):
    lock, other = make("w1", ttl=1.8), make("w2")
    with BlockingLock(lock, key, {"n": 1}) as held:
        time.sleep(2.2)
        held.ensure_held()
        assert (held.key, held.owner, held.token, held.info.metadata) == (key, "w1", 1, {"n": 1})
        with pytest.raises(LockHeld, match="is held by w1"), BlockingLock(other, key):
            pass
        assert "1" in repr(held)
    assert run(lock.check_lock(key)) is None
    assert not held.lost.is_set()


def test_it_works_inside_a_running_loop(make, run, key):
    lock = make()

    async def cell():
        with BlockingLock(lock, key) as held:
            return held.token

    assert run(cell()) == 1


def test_it_waits_as_long_as_told(make, key):
    lock, other = make("w1"), make("w2")
    with BlockingLock(lock, key):
        began = time.monotonic()
        with (
            pytest.raises(LockHeld, match=r"not had within 0\.2 s"),
            BlockingLock(other, key, max_duration=0.2),
        ):
            pass
        assert 0.19 < time.monotonic() - began < 5
        entered = []

        def wait():
            with BlockingLock(other, key, max_duration=None) as held:
                entered.append(held.token)

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.1)
        assert entered == []
    thread.join(5)
    assert entered == [2]


def test_waiting_can_be_given_up(make, key):
    lock, other, enough = make("w1"), make("w2"), threading.Event()
    with BlockingLock(lock, key):
        threading.Timer(0.1, enough.set).start()
        with (
            pytest.raises(LockHeld, match="given up"),
            BlockingLock(other, key, max_duration=None, give_up=enough),
        ):
            pass


def test_an_interrupt_while_waiting_leaves_no_lock_behind(make, run, key):
    lock, other = make("w1"), make("w2")
    with BlockingLock(lock, key):
        timer = threading.Timer(0.15, _thread.interrupt_main)
        timer.start()
        with pytest.raises(KeyboardInterrupt), BlockingLock(other, key, max_duration=None):
            pass
        timer.join()
    time.sleep(0.3)
    assert run(lock.check_lock(key)) is None


def test_a_loss_is_raised_on_leaving_but_does_not_mask_the_bodys_error(make, run, key):
    lock, operator, reasons = make("w1", ttl=2), make("ops"), []

    def body(after, **settings):
        with BlockingLock(lock, key, **settings) as held:
            run(operator.force_release(key))
            assert held.lost.wait(5)
            with pytest.raises(LockLost):
                held.ensure_held()
            after()

    with pytest.raises(LockLost, match="taken away"):
        body(lambda: None, on_lost=reasons.append)
    assert len(reasons) == 1
    with pytest.raises(ZeroDivisionError) as caught:
        body(lambda: 1 // 0)
    assert "had been lost" in caught.value.__notes__[0]


def test_the_same_object_can_be_entered_again(make, key):
    again = BlockingLock(make(), key)
    assert "not held" in repr(again)
    tokens = []
    for _ in range(3):
        with again as held:
            tokens.append(held.token)
    assert tokens == [1, 2, 3]


def test_several_locks_are_taken_all_or_none(make, run, key):
    lock, other = make("w1"), make("w2")
    keys = [f"{key}-{n}" for n in range(3)]
    with hold_all(lock, keys) as held:
        assert sorted(held) == keys
        for one in held.values():
            one.ensure_held()
        with pytest.raises(LockHeld), hold_all(other, [f"{key}-", keys[2], keys[2]]):
            pass
        assert run(lock.check_lock(f"{key}-")) is None
    assert [info for info in run(lock.list_locks()) if info.key.startswith(key)] == []
    with pytest.raises(InvalidConfig), hold_all(lock, ["a", ""]):
        pass
    with hold_all(lock, []) as held:
        assert held == {}


def test_holders_of_the_same_two_locks_never_wait_for_each_other(make, key):
    first, second = f"{key}-a", f"{key}-b"
    done = []

    def worker(lock, keys):
        for _ in range(5):
            with hold_all(lock, keys, max_duration=30):
                done.append(1)

    threads = [
        threading.Thread(target=worker, args=(make("w1"), [first, second])),
        threading.Thread(target=worker, args=(make("w2"), [second, first])),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(done) == 10


def test_blocking_and_async_holders_exclude_each_other(make, run, key):
    lock, other = make("w1"), make("w2")

    async def main():
        with BlockingLock(lock, key):
            assert not await other.acquire(key)
        assert await other.acquire(key)
        with pytest.raises(LockHeld), BlockingLock(lock, key):
            pass
        await asyncio.sleep(0)
        assert await other.release(key)

    run(main())
