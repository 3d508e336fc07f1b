from __future__ import annotations

import random
from collections import Counter

import pytest

from agentflow.core.raft.messages import Entry, HardState, Write
from agentflow.errors import InvalidConfig, StorageFailed
from agentflow.storage import DiskFaults, Fault, FaultyDisk, MemoryDisk


def entry(index: int, term: int = 1) -> Write:
    return Write(HardState(term, None, 0), (Entry(index, term),))


def last(disk: FaultyDisk) -> int:
    return len(disk.load().entries)


def test_a_failed_write_leaves_nothing_and_the_next_may_work():
    disk = FaultyDisk(MemoryDisk(), plan={2: Fault.FAIL})
    disk.save(entry(1))
    with pytest.raises(StorageFailed, match="input/output"):
        disk.save(entry(2))
    assert last(disk) == 1
    disk.save(entry(2))
    assert last(disk) == 2


def test_a_full_disk_refuses_until_there_is_room():
    disk = FaultyDisk(MemoryDisk())
    disk.inject(Fault.FULL)
    for _ in range(3):
        with pytest.raises(StorageFailed, match="no space"):
            disk.save(entry(1))
    disk.crash()
    with pytest.raises(StorageFailed, match="no space"):
        disk.save_stable({"x": 1})
    disk.make_room()
    disk.save(entry(1))
    assert last(disk) == 1


def test_what_was_not_synced_is_seen_until_the_power_goes():
    disk = FaultyDisk(MemoryDisk(), plan={2: Fault.LOST, 3: Fault.LOST})
    for index in (1, 2, 3):
        disk.save(entry(index))
    assert last(disk) == 3
    disk.crash()
    assert last(disk) == 1


def test_an_honest_write_brings_what_was_not_synced_to_the_disk():
    disk = FaultyDisk(MemoryDisk(), plan={1: Fault.LOST, 2: Fault.LOST})
    disk.save(entry(1))
    disk.save_stable({"x": 1})
    disk.save(entry(2))
    disk.crash()
    assert (last(disk), disk.load_stable()) == (2, {"x": 1})


def test_a_torn_write_is_there_whole_or_not_at_all():
    seen = Counter()
    for seed in range(40):
        disk = FaultyDisk(MemoryDisk(), plan={2: Fault.TORN}, rng=random.Random(seed))
        disk.save(entry(1))
        with pytest.raises(StorageFailed, match="power"):
            disk.save(Write(HardState(2, "m1"), (Entry(2, 2), Entry(3, 2))))
        with pytest.raises(StorageFailed, match="power"):
            disk.load()
        disk.crash()
        seen[disk.load().hard_state.term, last(disk)] += 1
    assert set(seen) == {(1, 1), (2, 3)}


def test_a_disk_that_is_not_atomic_may_keep_a_part_of_a_torn_write():
    seen = Counter()
    for seed in range(40):
        disk = FaultyDisk(MemoryDisk(), plan={2: Fault.TORN}, rng=random.Random(seed), atomic=False)
        disk.save(entry(1))
        with pytest.raises(StorageFailed):
            disk.save(Write(HardState(2, "m1"), (Entry(2, 2), Entry(3, 2))))
        disk.crash()
        seen[disk.load().hard_state.term, last(disk)] += 1
    assert set(seen) == {(2, 1), (2, 2)}


def test_a_torn_write_that_can_be_seen_keeps_the_node_from_starting():
    disk = FaultyDisk(MemoryDisk("m1"), plan={1: Fault.TORN}, atomic=False)
    with pytest.raises(StorageFailed):
        disk.save(Write(HardState(1, None, 1), (Entry(1, 1),)))
    disk.crash()
    with pytest.raises(StorageFailed, match="m1 holds part of a torn write"):
        disk.load()


def test_a_stall_is_told_and_can_be_made_real():
    waits: list[float] = []
    disk = FaultyDisk(MemoryDisk(), plan={2: Fault.STALL}, wait=waits.append)
    disk.save(entry(1))
    assert disk.stalled_s == 0
    disk.save(entry(2))
    assert waits == [disk.stalled_s]
    assert 0.05 <= disk.stalled_s <= 0.5
    assert last(disk) == 2
    disk.save(entry(3))
    assert disk.stalled_s == 0


def play(disk: FaultyDisk, steps: int) -> list[str]:
    story = []
    for _ in range(steps):
        try:
            disk.save(entry(last(disk) + 1))
            story.append(f"ok {disk.stalled_s:.3f}")
        except StorageFailed as error:
            story.append(error.reason)
            disk.make_room()
            disk.crash()
    return story


def test_the_same_seed_meets_the_same_faults_and_a_copy_goes_on_alike():
    chances = DiskFaults(fail=0.1, full=0.1, torn=0.1, lost=0.1, stall=0.1)
    one, two = (FaultyDisk(MemoryDisk(), chances=chances, rng=random.Random(5)) for _ in range(2))
    assert play(one, 100) == play(two, 100)
    assert set(one.landed) == set(Fault)
    twin = one.copy()
    assert play(one, 100) == play(twin, 100)
    assert one.load() == twin.load()


def test_chance_without_a_seed_is_refused():
    with pytest.raises(InvalidConfig, match="rng"):
        FaultyDisk(MemoryDisk(), chances=DiskFaults(fail=0.5))
