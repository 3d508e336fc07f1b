from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentflow.core.machine import Execute, Finished, Local, Note, Stalled
from agentflow.errors import InvalidConfig
from agentflow.runtime.virtual import VirtualDriver


def busy(kit, seed, **network):
    """Return a driver over five chattering nodes that are broken now and then."""
    host = kit.host(latency_ms=(1, 10), loss=0.05, duplicate=0.05, reorder=0.1, **network)
    driver = VirtualDriver(host, seed, disk_ms=(1, 5))
    ids = [f"n{number}" for number in range(5)]
    for number, node in enumerate(ids):
        peers = tuple(peer for peer in ids if peer != node)
        every = 0.05 + 0.01 * number
        host.add(node, lambda _id, _stored, _n, now, e=every, p=peers: kit.Ticker(e, p, now))
    chance = driver.stream("faults")
    for _ in range(20):
        node = chance.choice(ids)
        at = chance.uniform(0, 4)
        driver.at(at, host.crash, node)
        driver.at(at + 0.2, host.restart, node)
    driver.at(1.0, host.network.partition, set(ids[:2]), set(ids[2:]))
    driver.at(1.5, host.network.heal)
    return driver


def test_one_seed_gives_one_trace(kit):
    digests = set()
    for _ in range(2):
        driver = busy(kit, 11)
        driver.run_for(5)
        digests.add(driver.host.trace.digest())
    assert len(digests) == 1


def test_another_seed_gives_another_trace(kit):
    first, second = busy(kit, 11), busy(kit, 12)
    first.run_for(5)
    second.run_for(5)
    assert first.host.trace.digest() != second.host.trace.digest()


def test_steps_and_long_runs_give_the_same_trace(kit):
    stepped, run = busy(kit, 3), busy(kit, 3)
    run.run_for(2)
    while stepped.next_time <= 2:
        stepped.step()
    assert stepped.host.trace.digest() == run.host.trace.digest()


def test_a_copy_of_everything_goes_on_alike_and_alone(kit):
    driver = busy(kit, 5)
    driver.run_for(1.2)
    twin = copy.deepcopy(driver)
    before = twin.host.trace.digest()
    driver.run_for(2)
    assert twin.host.trace.digest() == before
    twin.run_for(2)
    assert twin.host.trace.digest() == driver.host.trace.digest() != before


@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_another_process_with_another_hash_seed_gives_the_same_trace(kit, hash_seed):
    driver = busy(kit, 11)
    driver.run_for(5)
    here = Path(__file__).resolve()
    program = (
        "import importlib.util, sys\n"
        "def load(name, path):\n"
        "    spec = importlib.util.spec_from_file_location(name, path)\n"
        "    module = importlib.util.module_from_spec(spec)\n"
        "    sys.modules[name] = module\n"
        "    spec.loader.exec_module(module)\n"
        "    return module\n"
        f"kit = load('kit', {str(here.parent / 'conftest.py')!r})\n"
        f"case = load('case', {str(here)!r})\n"
        "from agentflow.runtime.host import Host\n"
        "from agentflow.runtime.trace import Trace\n"
        "from agentflow.transport.memory import Network\n"
        "kit.host = lambda **network: Host(trace=Trace(), network=Network(**network))\n"
        "driver = case.busy(kit, 11)\n"
        "driver.run_for(5)\n"
        "print(driver.host.trace.digest())\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(here.parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == driver.host.trace.digest()


def test_time_jumps_to_the_next_deadline(kit):
    host = kit.host()
    driver = VirtualDriver(host)
    host.add("a", lambda *_: kit.Ticker(3600.0))
    driver.run_for(3 * 3600.0)
    assert [record.time for record in kit.kinds(host, "tick")] == [3600.0, 7200.0, 10800.0]
    assert driver.now == 10800.0


def test_a_message_waits_for_the_write_it_depends_on(kit):
    host = kit.host(latency_ms=1)
    driver = VirtualDriver(host, disk_ms=20)
    disk = kit.ListDisk()
    host.add("keeper", lambda _id, stored, *_: kit.Keeper(stored, "other"), disk)
    host.add("other", lambda *_: kit.Scripted(lambda *_: None))
    host.ask("keeper", 1, lambda *_: None)
    driver.run_for(0.019)
    assert disk.writes == []
    assert kit.kinds(host, "send") == []
    driver.run_for(1)
    written, said = kit.kinds(host, "persisted", "send")
    assert (written.kind, said.kind, said.cause) == ("persisted", "send", written.seq)
    assert said.time == pytest.approx(0.020)


def test_a_crash_loses_what_is_not_durable_and_keeps_what_is(kit):
    host = kit.host()
    driver = VirtualDriver(host, disk_ms=20)
    disk = kit.ListDisk()
    host.add("keeper", lambda _id, stored, *_: kit.Keeper(stored, "keeper"), disk)
    host.ask("keeper", 1, lambda *_: None)
    driver.run_for(0.03)
    host.ask("keeper", 2, lambda *_: None)
    driver.run_for(0.01)
    host.crash("keeper")
    host.restart("keeper")
    driver.run_for(1)
    assert disk.writes == [1]
    assert host.machine("keeper").kept == [1]
    assert host.incarnation("keeper") == 2


def test_writes_of_one_node_keep_their_order(kit):
    host = kit.host()
    driver = VirtualDriver(host, seed=3, disk_ms=(1, 50))
    disk = kit.ListDisk()
    host.add("keeper", lambda _id, stored, *_: kit.Keeper(stored, "keeper"), disk)
    for number in range(20):
        host.ask("keeper", number, lambda *_: None)
    driver.run_for(5)
    assert disk.writes == list(range(20))


def test_a_write_made_at_the_very_instant_another_ends_comes_after_it(kit):
    host = kit.host()
    driver = VirtualDriver(host, disk_ms=5)
    disk = kit.ListDisk()
    host.add("keeper", lambda _id, stored, *_: kit.Keeper(stored, "keeper"), disk)

    def second():
        driver.disk_ms = 0
        host.ask("keeper", 2, lambda *_: None)

    driver.at(0.005, second)
    host.ask("keeper", 1, lambda *_: None)
    driver.run_for(1)
    assert disk.writes == [1, 2]


def test_a_disk_that_fails_says_so_to_its_machine(kit):
    host = kit.host()
    driver = VirtualDriver(host, disk_ms=1)
    disk = kit.ListDisk()
    disk.broken = "no space left"
    host.add("keeper", lambda _id, stored, *_: kit.Keeper(stored, "keeper"), disk)
    host.ask("keeper", 1, lambda *_: None)
    driver.run_for(1)
    assert [record.payload for record in kit.kinds(host, "persist_failed")] == ["OSError: no space left"]
    assert kit.kinds(host, "send") == []


@pytest.mark.parametrize("disk_ms", [0, 5])
def test_writes_behind_one_that_failed_fail_too_and_nothing_speaks_for_them(kit, disk_ms):
    class Hiccup(kit.ListDisk):
        def save(self, write):
            super().save(write)
            if write == 1:
                self.writes.pop()
                raise OSError("input/output error")

    host = kit.host()
    driver = VirtualDriver(host, disk_ms=disk_ms)
    disk = Hiccup()
    host.add("keeper", lambda _id, stored, *_: kit.Keeper(stored, "keeper"), disk)
    for number in (0, 1, 2, 3):
        host.ask("keeper", number, lambda *_: None)
    driver.run_for(1)
    assert disk.writes == [0]
    assert [record.type for record in kit.kinds(host, "persist_failed")] == ["2", "3", "4"]
    assert [record.payload.number for record in kit.kinds(host, "send")] == [0]
    host.restart("keeper")
    host.ask("keeper", 4, lambda *_: None)
    driver.run_for(1)
    assert disk.writes == [0, 4]


class Job:
    def __init__(self, duration, value):
        self.duration = duration
        self.value = value

    def __call__(self):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


def worker(kit):
    def react(machine, event, now):
        if isinstance(event, Local):
            machine.effects.append(Execute(event.token, event.request))
        elif isinstance(event, Finished):
            machine.effects.append(Note("outcome", event.outcome))

    return lambda *_: kit.Scripted(react)


def test_work_takes_its_estimated_time(kit):
    host = kit.host()
    driver = VirtualDriver(host)
    host.add("w", worker(kit))
    host.ask("w", Job(300, "built"), lambda *_: None)
    host.ask("w", Job(2, ValueError("no")), lambda *_: None)
    driver.run_for(1000)
    outcomes = [(record.time, str(record.payload)) for record in kit.kinds(host, "outcome")]
    assert outcomes == [(2.0, "no"), (300.0, "built")]


def test_work_of_a_crashed_worker_never_ends(kit):
    host = kit.host()
    driver = VirtualDriver(host)
    host.add("w", worker(kit))
    host.ask("w", Job(10, "built"), lambda *_: None)
    driver.at(5, host.restart, "w")
    driver.run_for(100)
    assert kit.kinds(host, "outcome") == []


def test_what_a_wave_brings_is_handled_before_anything_is_done(kit):
    host = kit.host(latency_ms=5)
    driver = VirtualDriver(host, waves=True)
    for node in ("a", "b"):
        host.add(node, lambda *_: kit.Ticker(1.0, ("c",)))
    host.add("c", lambda *_: kit.Scripted(lambda *_: None))
    driver.run_for(1.5)
    assert len(host.machine("c").seen) == 2
    assert host.machine("c").turns == 2  # its start, and both messages at once


def test_run_until_stops_at_the_step_that_made_it_true(kit):
    host = kit.host(latency_ms=10)
    driver = VirtualDriver(host)
    host.add("a", lambda *_: kit.Echo("b"))
    host.add("b", lambda *_: kit.Echo("a"))
    host.ask("a", "go", lambda *_: None)
    assert driver.run_until(lambda: len(host.machine("b").seen) == 3, limit=1)
    assert driver.now == pytest.approx(0.05)
    assert not driver.run_until(lambda: False, limit=0.5)
    assert driver.now == pytest.approx(0.55)


def test_messages_under_way_can_be_listed(kit):
    host = kit.host(latency_ms=10)
    driver = VirtualDriver(host)
    host.add("a", lambda *_: kit.Ticker(1.0, ("b", "c")))
    driver.run_for(1.005)
    assert [(time, message.destination) for time, message in driver.pending()] == [(1.01, "b"), (1.01, "c")]


def test_a_skewed_clock_runs_and_wakes_by_itself(kit):
    host = kit.host()
    driver = VirtualDriver(host)
    host.add("fast", lambda *_: kit.Ticker(1.0))
    host.skew("fast", rate=4.0)
    driver.run_for(1.0)
    assert [(r.time, r.payload) for r in kit.kinds(host, "tick")] == [
        (0.25, 1),
        (0.5, 2),
        (0.75, 3),
        (1.0, 4),
    ]


def test_a_clock_set_back_stands_still_but_never_goes_back(kit):
    host = kit.host()
    driver = VirtualDriver(host)
    host.add("a", lambda *_: kit.Ticker(0.3))
    driver.run_for(1.0)
    host.skew("a", offset=-0.5)
    driver.run_for(1.0)
    times = [record.payload for record in kit.kinds(host, "tick")]
    assert times == sorted(times)
    assert [record.time for record in kit.kinds(host, "tick")][3] == pytest.approx(1.7)


def test_a_stall_is_heard_before_anything_else(kit):
    host = kit.host()
    VirtualDriver(host)
    host.add("a", lambda *_: kit.Echo("a"))
    host.turn(0.0)
    host.ask("a", "go", lambda *_: None)
    host.stall(0.7)
    host.turn(0.0)
    assert [event for _, event in host.machine("a").seen][:1] == [Stalled(0.7)]


def test_nonsense_for_a_disk_is_refused(kit):
    with pytest.raises(InvalidConfig):
        VirtualDriver(kit.host(), disk_ms=(5, 1))
