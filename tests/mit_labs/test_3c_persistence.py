"""Lab 3C: what survives a crash."""

from itertools import count

import pytest


def others(lab, *without):
    return [name for name in lab.names if name not in without]


def test_persist_1(lab):
    lab = lab(3)
    lab.one(11, 3)
    lab.crash(*lab.names)
    lab.restart(*lab.names)
    lab.one(12, 3)
    first = lab.check_one_leader()
    lab.crash(first)
    lab.restart(first)
    lab.one(13, 3)
    second = lab.check_one_leader()
    lab.crash(second)
    lab.one(14, 2)
    lab.restart(second)
    lab.wait(0.5)
    third = others(lab, lab.check_one_leader())[0]
    lab.crash(third)
    lab.one(15, 2)
    lab.restart(third)
    lab.one(16, 3)
    assert lab.commands() == [11, 12, 13, 14, 15, 16]


def test_persist_2(lab):
    lab = lab(5)
    numbers = count()
    for _ in range(5):
        lab.one(next(numbers), 5)
        leader = lab.names.index(lab.check_one_leader())
        ring = [lab.names[(leader + step) % 5] for step in range(5)]
        lab.crash(ring[1], ring[2])
        lab.one(next(numbers), 3)
        lab.crash(ring[0], ring[3], ring[4])
        lab.restart(ring[1], ring[2])
        lab.wait(0.5)
        lab.restart(ring[3])
        lab.one(next(numbers), 3)
        lab.restart(ring[4], ring[0])
    lab.one(1000, 5)


def test_persist_3(lab):
    lab = lab(3)
    lab.one(101, 3)
    leader = lab.check_one_leader()
    second, third = others(lab, leader)
    lab.disconnect(third)
    lab.one(102, 2)
    lab.crash(leader, second)
    lab.connect(third)
    lab.restart(leader)
    lab.one(103, 2)
    lab.restart(second)
    lab.one(104, 3)
    assert lab.commands() == [101, 102, 103, 104]


@pytest.mark.parametrize("unreliable", [False, True], ids=["figure_8", "figure_8_unreliable"])
def test_figure_8(lab, unreliable):
    lab = lab(5)
    lab.one(0, 1)
    up = set(lab.names)
    for number in range(1, 300):
        if unreliable and number == 100:
            lab.unreliable(True, long_reordering=True)
        leaders = [name for name in lab.names if name in up and lab.start(name, number) is not None]
        long = lab.rng.random() < 0.1
        lab.wait(lab.rng.uniform(0, 0.25) if long else lab.rng.uniform(0, 0.013))
        if leaders and (not unreliable or lab.rng.random() < 0.5):
            lost = leaders[0]
            if unreliable:
                lab.disconnect(lost)
            else:
                lab.crash(lost)
            up.discard(lost)
        if len(up) < 3:
            back = lab.rng.choice([name for name in lab.names if name not in up])
            if unreliable:
                lab.connect(back)
            else:
                lab.restart(back)
            up.add(back)
    lab.connect(*lab.names)
    lab.restart(*[name for name in lab.names if lab.server(name) is None])
    lab.one(1000, 5)


def test_unreliable_agree(lab):
    lab = lab(5, unreliable=True)
    for number in range(50):
        for more in range(4):
            for name in lab.names:
                lab.start(name, 100 * number + more)
        lab.one(number, 1)
    lab.unreliable(False)
    lab.one(-1, 5)
    assert {*range(50)} <= {*lab.commands()}


@pytest.mark.parametrize("unreliable", [False, True], ids=["reliable_churn", "unreliable_churn"])
def test_churn(lab, unreliable):
    lab = lab(5, unreliable=unreliable)
    numbers, known = count(), []

    def clients():
        for _ in range(3):
            number = next(numbers)
            for name in lab.rng.sample(lab.names, 5):
                if lab.server(name) is not None and (given := lab.start(name, number)):
                    waited = 0.0
                    while waited < 0.4:
                        if lab.committed.get(given[0]) == number:
                            known.append(number)
                            break
                        lab.wait(0.02)
                        waited += 0.02
                    break

    for _ in range(20):
        if lab.rng.random() < 0.2:
            lab.disconnect(lab.rng.choice(lab.names))
        if lab.rng.random() < 0.5:
            name = lab.rng.choice(lab.names)
            if lab.server(name) is None:
                lab.restart(name)
            lab.connect(name)
        if lab.rng.random() < 0.2:
            lab.crash(lab.rng.choice(lab.names))
        clients()
        lab.wait(0.35)
    lab.unreliable(False)
    lab.restart(*[name for name in lab.names if lab.server(name) is None])
    lab.connect(*lab.names)
    last = lab.one(10_000, 5)
    assert len(known) > 5
    assert {*known} <= {lab.committed[index] for index in lab.committed if index <= last}
