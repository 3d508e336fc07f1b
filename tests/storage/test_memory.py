from __future__ import annotations

import pytest

from agentflow.core.raft.messages import Entry, HardState, Snapshot, Write
from agentflow.errors import StorageFailed
from agentflow.storage import MemoryDisk


def test_a_copy_and_its_original_go_their_own_ways():
    disk = MemoryDisk("m1")
    disk.save(Write(HardState(1), (Entry(1, 1), Entry(2, 1))))
    disk.save_stable({"x": 1})
    then, twin = disk.load(), disk.copy()
    disk.save(Write(HardState(2), (Entry(2, 2), Entry(3, 2))))
    disk.save_stable({"x": 2})
    assert (twin.load(), twin.load_stable(), twin.name) == (then, {"x": 1}, "m1")
    twin.save(Write(snapshot=Snapshot(2, 1)))
    assert [e.term for e in disk.load().entries] == [1, 2, 2]


def test_terms_that_fall_within_one_write_are_noticed_when_read():
    disk = MemoryDisk("m1")
    disk.save(Write(entries=(Entry(1, 2), Entry(2, 1))))
    with pytest.raises(StorageFailed, match="of term 1 after one of term 2"):
        disk.load()
