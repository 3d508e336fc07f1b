from __future__ import annotations

import asyncio
import contextvars
import heapq
import logging
import os
import signal
import threading
import time
import warnings

import pytest

from agentflow.core.machine import Answer, Local, Note, Received, Stalled, Woken
from agentflow.errors import Closed, InvalidConfig, Refused
from agentflow.runtime.loops import LoopThread, run_sync
from agentflow.runtime.realtime import RealtimeDriver


@pytest.fixture(autouse=True)
def nothing_left_behind():
    before = set(threading.enumerate())
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    yield
    assert set(threading.enumerate()) == before
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.fixture
def live(kit):
    drivers = []

    def make(network=None, **options):
        driver = RealtimeDriver(kit.host(**(network or {})), **options)
        drivers.append(driver)
        return driver

    yield make
    for driver in drivers:
        driver.close()


def until(predicate, limit=10.0):
    """Wait for something another thread brings about."""
    end = time.monotonic() + limit
    while not predicate():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


def answered(driver, node, request):
    """Ask and wait for the answer."""
    box, event = [], threading.Event()
    driver.ask(node, request, lambda result, final: (box.append(result), event.set()))
    assert event.wait(10)
    return box[0]


@pytest.mark.parametrize("network", [{}, {"latency_ms": (0, 1)}])
def test_two_nodes_play_ping_pong(kit, live, network):
    driver = live(network)
    for node, peer in (("a", "b"), ("b", "a")):
        driver.call(driver.host.add, node, lambda *_, peer=peer: kit.Echo(peer, limit=500))
    assert answered(driver, "a", "go") == "sent"
    until(lambda: len(kit.kinds(driver.host, "deliver")) == 501)
    numbers = [record.payload.number for record in kit.kinds(driver.host, "deliver")]
    assert numbers == list(range(501))


def test_a_link_keeps_its_order_under_random_latency(kit, live):
    driver = live({"latency_ms": (0, 3)}, seed=1)
    driver.call(driver.host.add, "sink", lambda *_: kit.Scripted(lambda *_: None))
    driver.call(driver.host.add, "a", lambda _id, _s, _n, now: kit.Ticker(0.0005, ("sink",), now))
    until(lambda: len(driver.host.machine("sink").seen) >= 200)
    numbers = [record.message for record in kit.kinds(driver.host, "deliver")]
    assert numbers == sorted(numbers)


def test_timers_ring_at_their_time(kit, live):
    driver = live()
    driver.call(driver.host.add, "a", lambda _id, _s, _n, now: kit.Ticker(0.02, now=now))
    until(lambda: len(kit.kinds(driver.host, "timer")) >= 5)
    started = kit.kinds(driver.host, "start")[0].time
    for number, record in enumerate(kit.kinds(driver.host, "timer")[:5], 1):
        assert record.time >= started + 0.02 * number


def test_posts_of_many_threads_all_arrive_in_each_ones_order(kit, live):
    driver = live()
    driver.call(driver.host.add, "sink", lambda *_: kit.Scripted(lambda *_: None))

    def post(name):
        for number in range(500):
            driver.post("sink", Received(name, kit.Ping(number)))

    threads = [threading.Thread(target=post, args=(f"t{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: len(driver.host.machine("sink").seen) == 3000)
    seen = driver.call(lambda: list(driver.host.machine("sink").seen))
    for name in (f"t{number}" for number in range(6)):
        numbers = [event.message.number for _, event in seen if event.source == name]
        assert numbers == list(range(500))


def test_requests_of_many_threads_each_get_their_own_answer(kit, live):
    driver = live()

    def double(machine, event, now):
        if isinstance(event, Local):
            machine.effects.append(Answer(event.token, 2 * event.request))

    driver.call(driver.host.add, "a", lambda *_: kit.Scripted(double))
    results = {}

    def ask(start):
        for number in range(start, start + 100):
            results[number] = answered(driver, "a", number)

    threads = [threading.Thread(target=ask, args=(100 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: 2 * number for number in range(400)}


def test_a_burst_of_posts_is_one_wake_up(kit, live):
    driver = live()
    driver.call(driver.host.add, "sink", lambda *_: kit.Scripted(lambda *_: None))

    def burst():
        for number in range(100):
            driver.post("sink", Received("x", kit.Ping(number)))

    driver.call(burst)
    until(lambda: len(driver.host.machine("sink").seen) == 100)
    assert driver.host.machine("sink").turns <= 2  # its start, and the whole burst


def test_other_coroutines_run_while_nodes_chatter_without_end(kit, live):
    driver = live()
    for node, peer in (("a", "b"), ("b", "a")):
        driver.call(driver.host.add, node, lambda *_, peer=peer: kit.Echo(peer))
    driver.ask("a", "go", lambda *_: None)
    began = time.monotonic()
    run_sync(asyncio.sleep(0.01))
    assert time.monotonic() - began < 1.0
    assert driver.call(lambda: "answered") == "answered"


def test_a_disk_that_blocks_does_not_stop_the_loop(kit, live):
    gate = threading.Event()

    class Slow(kit.ListDisk):
        blocking = True

        def save(self, write):
            assert gate.wait(10)
            super().save(write)

    driver = live()
    disk = Slow()
    driver.call(driver.host.add, "keeper", lambda _i, stored, *_: kit.Keeper(stored, "keeper"), disk)
    until(lambda: driver.host.state("keeper") == "up")
    assert answered(driver, "keeper", 1) == "taken"
    assert answered(driver, "keeper", 2) == "taken"
    assert kit.kinds(driver.host, "send") == []
    gate.set()
    until(lambda: len(kit.kinds(driver.host, "send")) == 2)
    assert disk.writes == [1, 2]


def test_a_restart_reads_the_disk_after_the_write_under_way(kit, live):
    begun, gate = threading.Event(), threading.Event()

    class Slow(kit.ListDisk):
        blocking = True

        def save(self, write):
            begun.set()
            assert gate.wait(10)
            super().save(write)

    driver = live()
    driver.call(driver.host.add, "keeper", lambda _i, stored, *_: kit.Keeper(stored, "keeper"), Slow())
    until(lambda: driver.host.state("keeper") == "up")
    driver.ask("keeper", 1, lambda *_: None)
    driver.ask("keeper", 2, lambda *_: None)
    assert begun.wait(10)
    driver.call(driver.host.restart, "keeper")
    assert driver.host.state("keeper") == "starting"
    gate.set()
    until(lambda: driver.host.state("keeper") == "up")
    assert driver.host.machine("keeper").kept == [1]  # the second had not begun: it died with the node
    assert kit.kinds(driver.host, "send") == []


def test_a_machine_that_raises_takes_nobody_with_it(kit, live, caplog):
    def fail(machine, event, now):
        raise ValueError("no such luck")

    driver = live()
    driver.call(driver.host.add, "bad", lambda *_: kit.Scripted(fail))
    driver.call(driver.host.add, "good", lambda *_: kit.Echo("good", limit=3))
    with caplog.at_level(logging.CRITICAL, logger="agentflow"):
        assert "down" in str(answered(driver, "bad", 1))
    assert answered(driver, "good", 1) == "sent"
    assert driver.host.state("bad") == "down"


def test_speed_stretches_time_and_nought_stops_it(kit, live):
    driver = live(speed=0.0)
    driver.call(driver.host.add, "a", lambda _id, _s, _n, now: kit.Ticker(1.0, now=now))
    assert driver.now == 0.0
    driver.speed = 1000.0
    until(lambda: kit.kinds(driver.host, "tick"))
    driver.speed = 0.0
    count = len(kit.kinds(driver.host, "tick"))
    now = driver.now
    time.sleep(0.02)
    assert (driver.now, len(kit.kinds(driver.host, "tick"))) == (now, count)
    with pytest.raises(InvalidConfig):
        driver.speed = -1


def test_after_close_calls_run_here_and_questions_are_answered(kit, live):
    driver = live()
    driver.call(driver.host.add, "a", lambda *_: kit.Scripted(lambda *_: None))
    open_question = []
    driver.ask("a", "silence", lambda result, final: open_question.append((type(result), final)))
    driver.close()
    driver.close()
    assert open_question == [(Closed, True)]
    assert driver.call(threading.get_ident) == threading.get_ident()
    assert isinstance(answered(driver, "a", "more"), Closed)
    driver.post("a", Woken())
    with pytest.raises(Closed):
        driver.call(driver.host.restart, "a")


def test_a_callback_may_close_the_driver(kit, live):
    driver = live()
    driver.call(driver.host.add, "a", lambda *_: kit.Echo("a", limit=3))
    closed = threading.Event()
    driver.ask("a", "go", lambda *_: (driver.close(), closed.set()))
    assert closed.wait(10)
    until(lambda: not any(thread.name == "agentflow-loop" for thread in threading.enumerate()))


# --- stalls, by a clock of our own -----------------------------------------------------------------------


class FakeLoop:
    """An event loop whose clock is moved by hand."""

    def __init__(self):
        self.clock = 0.0
        self.soon = []
        self.timers = []
        self.tie = 0

    def time(self):
        return self.clock

    def call_soon(self, fn, *args):
        self.soon.append((fn, args))

    call_soon_threadsafe = call_soon

    def call_at(self, when, fn):
        self.tie += 1
        handle = FakeHandle(when)
        heapq.heappush(self.timers, (when, self.tie, handle, fn))
        return handle

    def run(self, to, late=0.0):
        """Go to an instant, running everything due, `late` seconds after it was due."""
        while True:
            while self.soon:
                fn, args = self.soon.pop(0)
                fn(*args)
            if not self.timers or self.timers[0][0] > to:
                break
            when, _, handle, fn = heapq.heappop(self.timers)
            self.clock = max(self.clock, when + late)
            if not handle.off:
                fn()
        self.clock = max(self.clock, to)


class FakeHandle:
    def __init__(self, when):
        self.at = when
        self.off = False

    def when(self):
        return self.at

    def cancel(self):
        self.off = True


class FakeLoops:
    def __init__(self):
        self.loop = FakeLoop()
        self.here = True
        self.released = 0

    def release(self):
        self.released += 1


class Election:
    """Would hold an election after 300 ms of silence; a stall is no silence."""

    def __init__(self, now):
        self.deadline = now + 0.3
        self.elections = 0
        self.noted = []

    def handle(self, event, now):
        if isinstance(event, Stalled):
            self.deadline += event.seconds
        elif isinstance(event, Woken) and now >= self.deadline:
            self.elections += 1
            self.deadline = now + 0.3
            self.noted.append(Note("election", now))

    def ready(self):
        noted, self.noted = self.noted, []
        return noted


def staged(kit, **options):
    loops = FakeLoops()
    driver = RealtimeDriver(kit.host(), loops=loops, **options)
    driver.host.add("follower", lambda _id, _s, _n, now: Election(now))
    driver.host.add("leader", lambda _id, _s, _n, now: kit.Ticker(0.05, now=now))
    return driver, loops.loop


def test_a_loop_that_stood_still_moves_deadlines_instead_of_electing(kit):
    driver, loop = staged(kit)
    loop.run(0.21)
    loop.run(0.25, late=1.0)
    stalls = kit.kinds(driver.host, "stall")
    assert [(record.time, record.payload) for record in stalls] == [(1.25, pytest.approx(1.0))]
    assert driver.host.machine("follower").elections == 0
    stalled = kit.kinds(driver.host, "stalled", "timer")
    assert [record.kind for record in stalled if record.time == 1.25][:2] == ["stalled", "stalled"]
    loop.run(1.29)
    assert driver.host.machine("follower").elections == 0
    loop.run(1.31)
    assert driver.host.machine("follower").elections == 1
    driver.close()


def test_being_a_little_late_is_no_stall(kit):
    driver, loop = staged(kit)
    for end in range(1, 20):
        loop.run(end * 0.05, late=0.015)
    assert kit.kinds(driver.host, "stall") == []
    driver.close()


def test_a_turn_that_takes_long_is_a_stall_too(kit):
    driver, loop = staged(kit)

    def think(machine, event, now):
        if isinstance(event, Local):
            loop.clock += 0.5

    driver.host.add("busy", lambda *_: kit.Scripted(think))
    loop.run(0.01)
    driver.ask("busy", "think", lambda *_: None)
    loop.run(0.01)
    assert [record.payload for record in kit.kinds(driver.host, "stall")] == [pytest.approx(0.46)]
    assert driver.host.machine("follower").elections == 0
    driver.close()


def test_a_node_that_resumes_is_no_stall(kit):
    driver, loop = staged(kit)
    driver.host.pause("follower")
    loop.run(1.02)
    driver.host.resume("follower")
    loop.run(1.03)
    assert kit.kinds(driver.host, "stall") == []
    assert driver.host.machine("follower").elections == 1
    driver.close()


def test_the_threshold_of_a_stall_is_wall_time_whatever_the_speed(kit):
    driver, loop = staged(kit, speed=0.1)
    loop.run(0.5, late=0.015)
    assert kit.kinds(driver.host, "stall") == []
    loop.run(1.0, late=0.1)
    assert [record.payload for record in kit.kinds(driver.host, "stall")] == [pytest.approx(0.01)]
    driver.close()


def test_closing_leaves_no_timer_and_lets_the_loop_go(kit):
    loops = FakeLoops()
    driver = RealtimeDriver(kit.host(), loops=loops)
    driver.host.add("a", lambda _id, _s, _n, now: kit.Ticker(0.05, now=now))
    loops.loop.run(0.12)
    driver.close()
    assert loops.released == 1
    assert all(handle.off for _, _, handle, _ in loops.loop.timers)
    loops.loop.run(5.0)
    assert kit.kinds(driver.host, "timer")[-1].time == pytest.approx(0.1)


# --- the loop's thread -----------------------------------------------------------------------------------


def test_all_users_share_one_loop_and_the_last_one_ends_it():
    first, second = LoopThread.acquire(), LoopThread.acquire()
    assert first is second
    first.release()
    assert second.call(lambda: "alive") == "alive"
    second.release()
    assert second.loop.is_closed()
    third = LoopThread.acquire()
    assert third is not first
    third.release()


def test_ending_the_loop_cancels_what_still_runs_on_it():
    loops = LoopThread.acquire()
    ended = []

    async def forever():
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(True)

    async def spawn():
        ended.append(asyncio.create_task(forever()))
        await asyncio.sleep(0)

    loops.run(spawn())
    loops.release()
    assert ended[1:] == [True]


def test_run_sync_returns_raises_and_keeps_the_context():
    variable = contextvars.ContextVar("variable", default="theirs")
    variable.set("ours")

    async def read():
        return variable.get()

    async def fail():
        raise LookupError("nothing there")

    assert run_sync(read()) == "ours"
    with pytest.raises(LookupError, match="nothing there"):
        run_sync(fail())
    with pytest.raises(TypeError):
        run_sync(42)  # type: ignore[arg-type]


def test_run_sync_on_the_loop_itself_is_refused():
    async def inner():
        return 1

    async def outer():
        return run_sync(inner())

    with pytest.raises(Refused, match="await"):
        run_sync(outer())


def test_system_exit_in_a_coroutine_reaches_its_caller_and_spares_the_loop():
    loops = LoopThread.acquire()

    async def leave():
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        run_sync(leave())
    assert loops.call(lambda: 1) == 1
    loops.release()


def test_an_interrupt_cancels_the_coroutine():
    ended = threading.Event()
    begun = threading.Event()

    async def forever():
        try:
            begun.set()
            await asyncio.sleep(3600)
        finally:
            ended.set()

    def interrupt():
        assert begun.wait(10)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_sync(forever())
    thread.join()
    assert ended.is_set()


def test_a_forked_child_gets_a_loop_of_its_own():
    loops = LoopThread.acquire()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: that is the point
        child = os.fork()
    if child == 0:
        try:
            os._exit(run_sync(asyncio.sleep(0, 7)))
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert loops.call(lambda: "alive") == "alive"
    loops.release()
