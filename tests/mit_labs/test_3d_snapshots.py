"""Lab 3D: snapshots, and logs that do not grow."""

from itertools import count

import pytest

from agentflow.core.raft import MessageType

LIMIT = 2_000


def others(lab, *without):
    return [name for name in lab.names if name not in without]


def snapshots_sent(lab):
    return sum(record.kind == "send" and record.type == MessageType.SNAP for record in lab.host.trace)


def test_snapshot_basic(lab):
    lab = lab(3, snapshots=True)
    for number in range(31):
        lab.one(number, 3)
    assert all(lab.server(name).raft.log.base >= 20 for name in lab.names)
    assert lab.log_bytes() < LIMIT


@pytest.mark.parametrize(
    ("crash", "unreliable"),
    [(False, False), (False, True), (True, False), (True, True)],
    ids=["install", "install_unreliable", "install_crash", "install_unreliable_crash"],
)
def test_snapshot_install(lab, crash, unreliable):
    lab = lab(3, snapshots=True, unreliable=unreliable)
    numbers = count()
    lab.one(next(numbers), 3)
    leader = lab.check_one_leader()
    for turn in range(30):
        victim, sender = others(lab, leader)[0], leader
        if turn % 3 == 1:
            victim, sender = leader, others(lab, leader)[0]
        if crash:
            lab.crash(victim)
        else:
            lab.disconnect(victim)
        lab.one(next(numbers), 2)
        for _ in range(15):
            lab.start(sender, next(numbers))
        lab.one(next(numbers), 2)
        assert lab.log_bytes() < LIMIT, "the log was not cut"
        if crash:
            lab.restart(victim)
        else:
            lab.connect(victim)
        lab.one(next(numbers), 3)
        leader = lab.check_one_leader()
    assert snapshots_sent(lab) > 10


def test_snapshot_all_crash(lab):
    lab = lab(3, snapshots=True)
    numbers = count()
    lab.one(next(numbers), 3)
    for _ in range(5):
        for _ in range(lab.rng.randint(10, 20)):
            lab.one(next(numbers), 3)
        before = lab.one(next(numbers), 3)
        lab.crash(*lab.names)
        lab.restart(*lab.names)
        assert lab.one(next(numbers), 3) > before


def test_snapshot_init(lab):
    lab = lab(3, snapshots=True)
    numbers = count()
    for _ in range(14):
        lab.one(next(numbers), 3)
    lab.crash(*lab.names)
    lab.restart(*lab.names)
    lab.one(next(numbers), 3)
    # A snapshot that was read and not yet taken anew must be there for the next start.
    lab.crash(*lab.names)
    lab.restart(*lab.names)
    lab.one(next(numbers), 3)
    assert lab.commands() == list(range(16))
