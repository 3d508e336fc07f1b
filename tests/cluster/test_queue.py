"""Waiting for a task: nothing is lost, whoever is cancelled and whichever loop waits."""

import asyncio
import copy
import pickle
import random
import threading
import time
from contextlib import suppress

import pytest

from agentflow.cluster.queue import PriorityTaskQueue
from agentflow.core.scheduling import Backoff, TaskNode
from agentflow.errors import InvalidConfig, NoSuchTask, QueueFull, TimedOut


def test_a_task_that_is_there_is_taken_at_once():
    queue = PriorityTaskQueue()
    queue.enqueue(TaskNode("a"))
    assert asyncio.run(queue.dequeue_blocking(timeout=0)).id == "a"


def test_a_waiter_gets_the_task_that_comes():
    queue = PriorityTaskQueue()

    async def main():
        waiting = asyncio.create_task(queue.dequeue_blocking())
        await asyncio.sleep(0)
        queue.enqueue(TaskNode("a"))
        return await waiting

    assert asyncio.run(main()).id == "a"
    assert not queue._waiters


def test_who_waits_first_is_served_first():
    queue = PriorityTaskQueue()

    async def main():
        order = []

        async def wait(name):
            task = await queue.dequeue_blocking()
            order.append((name, task.id))

        waiting = []
        for i in range(5):
            waiting.append(asyncio.create_task(wait(i)))
            await asyncio.sleep(0)
        for i in range(5):
            queue.enqueue(TaskNode(f"t{i}"))
        await asyncio.gather(*waiting)
        return order

    assert asyncio.run(main()) == [(i, f"t{i}") for i in range(5)]


def test_a_task_comes_from_another_thread():
    queue = PriorityTaskQueue()
    thread = threading.Thread(target=lambda: queue.enqueue(TaskNode("a")))

    async def main():
        waiting = asyncio.create_task(queue.dequeue_blocking(timeout=30))
        await asyncio.sleep(0)
        thread.start()
        return await waiting

    assert asyncio.run(main()).id == "a"
    thread.join()


def test_loops_in_several_threads_share_a_queue():
    queue = PriorityTaskQueue()
    taken, lock = [], threading.Lock()

    async def consume(count):
        for _ in range(count):
            task = await queue.dequeue_blocking(timeout=30)
            with lock:
                taken.append(task.id)

    threads = [threading.Thread(target=lambda: asyncio.run(consume(100))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for i in range(400):
        queue.enqueue(TaskNode(f"t{i}"))
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(f"t{i}" for i in range(400))
    assert len(queue) == 0
    queue.check_invariants()


def test_the_time_is_limited():
    queue = PriorityTaskQueue()
    with pytest.raises(TimedOut):
        asyncio.run(queue.dequeue_blocking(timeout=0.01))
    assert not queue._waiters
    for timeout in (-1, "soon", True):
        with pytest.raises(InvalidConfig):
            asyncio.run(queue.dequeue_blocking(timeout=timeout))


@pytest.mark.parametrize("seed", range(20))
def test_no_task_is_lost_however_waiters_are_cancelled(seed):
    rng = random.Random(seed)
    queue = PriorityTaskQueue()

    async def main():
        taken = []

        async def wait():
            taken.append((await queue.dequeue_blocking()).id)

        waiting, sent = [], 0
        for _ in range(200):
            match rng.randrange(4):
                case 0:
                    waiting.append(asyncio.create_task(wait()))
                case 1:
                    queue.enqueue(TaskNode(f"t{sent}"))
                    sent += 1
                case 2 if waiting:
                    rng.choice(waiting).cancel()
                case _:
                    await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        left = [task.id for task in queue.tasks()]
        assert sorted(taken + left) == sorted(f"t{i}" for i in range(sent))
        asking = [each for each in waiting if not each.done()]
        assert not (asking and left), "nobody waits while a task does"
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert not queue._waiters

    asyncio.run(main())


def test_a_waiter_whose_loop_was_closed_holds_up_nobody():
    queue = PriorityTaskQueue()
    loop = asyncio.new_event_loop()
    coroutine = queue.dequeue_blocking()
    waiting = loop.create_task(coroutine)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert len(queue._waiters) == 1
    queue.enqueue(TaskNode("a"))
    assert asyncio.run(queue.dequeue_blocking(timeout=5)).id == "a"
    # Nothing will ever run this task again; it is put to rest so that nobody warns of it.
    waiting._log_destroy_pending = False
    coroutine.close()


def test_a_waiter_wakes_when_a_backoff_is_over():
    queue = PriorityTaskQueue()
    task = TaskNode("a", retries=1, backoff=Backoff(base_secs=0.02))

    async def main():
        waiting = asyncio.create_task(queue.dequeue_blocking(timeout=30))
        await asyncio.sleep(0)
        begun = time.monotonic()
        due = queue.retry(task, "error")
        got = await waiting
        return got, time.monotonic() - begun, time.monotonic() - due

    got, waited, late = asyncio.run(main())
    assert got is task
    assert waited >= 0.019
    assert late < 5


def test_threads_do_not_break_the_queue():
    queue = PriorityTaskQueue()
    taken = []

    def work(number):
        rng = random.Random(number)
        for i in range(300):
            task = TaskNode(f"{number}-{i}", priority=rng.randint(1, 4), retries=1)
            queue.enqueue(task)
            if rng.random() < 0.3:
                with suppress(NoSuchTask):
                    queue.reprioritize(task.id, "high")
            if (got := queue.dequeue()) is not None:
                taken.append(got.id)
            queue.stats()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left = [task.id for task in queue.tasks()]
    assert sorted(taken + left) == sorted(f"{n}-{i}" for n in range(4) for i in range(300))
    queue.check_invariants()


def test_copies_leave_those_who_wait_behind():
    queue = PriorityTaskQueue(limit=2)
    queue.enqueue(TaskNode("a"))
    for twin in (copy.deepcopy(queue), pickle.loads(pickle.dumps(queue))):
        assert twin.dequeue().id == "a"
        twin.enqueue(TaskNode("b"))
        twin.enqueue(TaskNode("c"))
        with pytest.raises(QueueFull):
            twin.enqueue(TaskNode("d"))
    assert len(queue) == 1
