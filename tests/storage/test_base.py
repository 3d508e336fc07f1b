from __future__ import annotations

import pytest

from agentflow.core.raft.messages import Entry, HardState, Snapshot, Stored
from agentflow.errors import StorageFailed
from agentflow.storage import check_stored


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        (Stored(snapshot=Snapshot(4, 1), entries=(Entry(6, 1),)), "entry 6 where 5 belongs"),
        (Stored(entries=(Entry(1, 2), Entry(2, 1))), "of term 1 after one of term 2"),
        (Stored(snapshot=Snapshot(1, 3), entries=(Entry(2, 2),)), "of term 2 after one of term 3"),
        (Stored(HardState(1, None, 2), entries=(Entry(1, 1),)), "calls entry 2 committed"),
        (Stored(HardState(1), entries=(Entry(1, 2),)), "at term 1 but holds an entry of term 2"),
    ],
)
def test_a_disk_that_breaks_a_law_is_not_started_from(stored, why):
    with pytest.raises(StorageFailed, match=why) as refused:
        check_stored(stored, "m1.db")
    assert refused.value.path == "m1.db"
    assert "rejoin" in str(refused.value)


def test_a_node_set_up_from_a_first_snapshot_may_start():
    stored = Stored(snapshot=Snapshot(1, 1))
    assert check_stored(stored, "m1.db") is stored
