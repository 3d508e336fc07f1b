"""What every disk promises, over memory, SQLite and a faulty disk without faults."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentflow.core.raft.messages import ConfState, Entry, EntryKind, HardState, Snapshot, Stored, Write
from agentflow.errors import InvalidConfig, InvariantViolated
from agentflow.storage import Disk

relaxed = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def entries(*terms: int, first: int = 1) -> tuple[Entry, ...]:
    return tuple(Entry(first + i, term, f"{first + i}/{term}".encode()) for i, term in enumerate(terms))


def test_an_empty_disk_holds_nothing(box):
    disk = box().disk
    assert isinstance(disk, Disk)
    assert disk.load() == Stored()
    assert disk.load_stable() == {}


def test_what_was_saved_is_there_after_a_restart(box):
    home = box()
    snapshot = Snapshot(3, 1, ConfState(voters=("m1", "m2"), learners=("m3",), auto_leave=True), b"\x00state")
    log = (Entry(4, 1, b"x", EntryKind.CONF_CHANGE_V2), Entry(5, 2))
    home.disk.save(Write(HardState(2, "m2", 4), log, snapshot))
    assert home.reopen().load() == Stored(HardState(2, "m2", 4), snapshot, log)


def test_entries_replace_the_log_from_their_first_index_on(box):
    home = box()
    home.disk.save(Write(entries=entries(1, 1, 1, 1)))
    home.disk.save(Write(entries=entries(2, first=3)))
    assert home.reopen().load().entries == entries(1, 1) + entries(2, first=3)


def test_entries_that_a_snapshot_covers_are_passed_over(box):
    home = box()
    home.disk.save(Write(snapshot=Snapshot(3, 1)))
    home.disk.save(Write(entries=entries(1, 1, 1, 1, first=2)))
    assert home.reopen().load().entries == entries(1, 1, first=4)


def test_a_snapshot_of_the_log_keeps_what_comes_after_it(box):
    home = box()
    home.disk.save(Write(entries=entries(1, 1, 2, 2)))
    home.disk.save(Write(snapshot=Snapshot(2, 1)))
    assert home.reopen().load().entries == entries(2, 2, first=3)


def test_a_snapshot_of_another_log_leaves_nothing_of_this_one(box):
    home = box()
    home.disk.save(Write(entries=entries(1, 1, 1, 1)))
    home.disk.save(Write(HardState(3), snapshot=Snapshot(2, 3)))
    assert home.reopen().load() == Stored(HardState(3), Snapshot(2, 3), ())


def test_compaction_below_the_snapshot_changes_nothing(box):
    home = box()
    home.disk.save(Write(entries=entries(1, 1, 1)))
    home.disk.save(Write(snapshot=Snapshot(2, 1)))
    home.disk.save(Write(compact_to=2))
    assert home.reopen().load().entries == entries(1, first=3)


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (Write(entries=entries(1, first=6)), "gap"),
        (Write(entries=entries(1, first=4) + entries(1, first=6)), "not contiguous"),
        (Write(HardState(1, None, 4)), "commit 4"),
        (Write(compact_to=3), "covers only 1"),
        (Write(snapshot=Snapshot(0, 1)), "older"),
        (Write(HardState(9), entries(9, first=4), Snapshot(2, 9)), "gap"),
        (Write(HardState(9, None, 3), (), Snapshot(2, 9)), "commit 3"),
    ],
)
def test_a_write_that_would_break_the_log_is_refused_before_anything_changes(box, write, why):
    home = box()
    home.disk.save(Write(HardState(1, "m1", 2), entries(1, 1, first=2), Snapshot(1, 1)))
    before = home.disk.load()
    with pytest.raises(InvariantViolated, match=why):
        home.disk.save(write)
    assert home.disk.load() == before
    assert home.reopen().load() == before


def test_stable_values_replace_one_another_and_survive(box):
    home = box()
    home.disk.save_stable({"term": 3, "log": [["a", 1], None, 2.5], "raw": b"\x00"})
    home.disk.save_stable({"term": 4, "nested": {"x": [True]}})
    assert home.reopen().load_stable() == {"term": 4, "nested": {"x": [True]}}


def test_stable_values_are_kept_as_they_were_when_saved(box):
    home, log = box(), [1]
    home.disk.save_stable({"log": log})
    log.append(2)
    home.disk.load_stable()["log"].append(3)
    assert home.disk.load_stable() == {"log": [1]}


@pytest.mark.parametrize("value", [object(), 2**80, lambda: None, float])
def test_a_stable_value_that_is_not_plain_data_is_refused_by_name(box, value):
    home = box()
    home.disk.save_stable({"fine": 1})
    with pytest.raises(InvalidConfig, match="'odd'") as refused:
        home.disk.save_stable({"fine": 2, "odd": value})
    assert refused.value.field == "odd"
    assert home.disk.load_stable() == {"fine": 1}


@relaxed
@given(data=st.data())
def test_any_sequence_of_writes_leaves_what_the_slow_model_says(box, slow_disk, random_writes, data):
    home, model = box(), slow_disk()
    for write in data.draw(random_writes()):
        home.disk.save(write)
        model.save(write)
        if data.draw(st.booleans()):
            assert home.disk.load() == model.load()
        if data.draw(st.integers(0, 3)) == 0:
            home.reopen()
    assert home.reopen().load() == model.load()
