"""Lab 3B: the log."""

from itertools import count


def others(lab, *without):
    return [name for name in lab.names if name not in without]


def test_basic_agree(lab):
    lab = lab(3)
    lab.check_one_leader()
    for number in range(1, 4):
        assert lab.n_committed(number + 1)[0] == 0, "committed before it was asked for"
        # The leader's own entry of the term is the first of the log.
        assert lab.one(number * 100, 3, retry=False) == number + 1


def test_rpc_bytes(lab):
    lab = lab(3)
    lab.one(99, 3, retry=False)
    began = lab.driver.now
    total = 0
    for number in range(10):
        command = f"{number}" + "x" * 5_000
        lab.one(command, 3, retry=False)
        total += len(command) + 2
    assert lab.sent_bytes(began) <= 2 * total + 50_000, "a command goes to each follower once"


def test_follower_failure(lab):
    lab = lab(3)
    lab.one(101, 3, retry=False)
    leader = lab.check_one_leader()
    follower = others(lab, leader)[0]
    lab.disconnect(follower)
    lab.one(102, 2, retry=False)
    lab.wait(1)
    lab.one(103, 2, retry=False)
    leader = lab.check_one_leader()
    lab.disconnect(*others(lab, leader))
    given = lab.start(leader, 104)
    lab.wait(2)
    assert given is not None
    assert lab.n_committed(given[0])[0] == 0, "committed without a majority"


def test_leader_failure(lab):
    lab = lab(3)
    lab.one(101, 3, retry=False)
    first = lab.check_one_leader()
    lab.disconnect(first)
    lab.one(102, 2)
    lab.one(103, 2)
    second = lab.check_one_leader()
    lab.disconnect(second)
    lost = [lab.start(name, 104) for name in lab.names]
    lab.wait(2)
    for given in lost:
        assert given is None or lab.n_committed(given[0])[1] != 104, "committed without a majority"


def test_fail_agree(lab):
    lab = lab(3)
    lab.one(101, 3, retry=False)
    follower = others(lab, lab.check_one_leader())[0]
    lab.disconnect(follower)
    lab.one(102, 2, retry=False)
    lab.one(103, 2, retry=False)
    lab.wait(1)
    lab.one(104, 2, retry=False)
    lab.one(105, 2, retry=False)
    lab.connect(follower)
    lab.one(106, 3)
    lab.wait(1)
    lab.one(107, 3)


def test_fail_no_agree(lab):
    lab = lab(5)
    lab.one(10, 5, retry=False)
    leader = lab.check_one_leader()
    three = others(lab, leader)[:3]
    lab.disconnect(*three)
    index, _ = lab.start(leader, 20)
    lab.wait(2)
    assert lab.n_committed(index)[0] == 0, "committed without a majority"
    lab.connect(*three)
    second = lab.check_one_leader()
    index2, _ = lab.start(second, 30)
    assert index2 in range(2, index + 3)
    lab.one(1000, 5)


def test_concurrent_starts(lab):
    lab = lab(3)
    leader = lab.check_one_leader()
    given = [lab.start(leader, 100 + number) for number in range(5)]
    assert len({term for _, term in given}) == 1
    lab.wait(1)
    found = [lab.n_committed(index) for index, _ in given]
    assert found == [(3, 100 + number) for number in range(5)]


def test_rejoin(lab):
    lab = lab(3)
    lab.one(101, 3)
    first = lab.check_one_leader()
    lab.disconnect(first)
    for command in (102, 103, 104):
        lab.start(first, command)
    lab.one(103, 2)
    second = lab.check_one_leader()
    lab.disconnect(second)
    lab.connect(first)
    lab.one(104, 2)
    lab.connect(second)
    lab.one(105, 3)


def test_backup(lab):
    lab = lab(5)
    numbers = count()
    lab.one(next(numbers), 5)
    first = lab.check_one_leader()
    ally, *three = others(lab, first)
    lab.disconnect(*three)
    for _ in range(50):
        lab.start(first, next(numbers))
    lab.wait(0.3)
    lab.disconnect(first, ally)
    lab.connect(*three)
    for _ in range(50):
        lab.one(next(numbers), 3)
    second = lab.check_one_leader()
    other = next(name for name in three if name != second)
    lab.disconnect(other)
    for _ in range(50):
        lab.start(second, next(numbers))
    lab.wait(0.3)
    lab.disconnect(*lab.names)
    lab.connect(first, ally, other)
    for _ in range(50):
        lab.one(next(numbers), 3)
    lab.check_one_leader()
    began, calls = lab.driver.now, lab.calls()
    lab.connect(*lab.names)
    lab.one(next(numbers), 5)
    # A log is brought back in a few steps, however many entries of how many terms are wrong in it.
    assert lab.calls() - calls <= 30 + 10 * 4 * (lab.driver.now - began + 1)


def test_count(lab):
    lab = lab(3)
    assert lab.calls() <= 30
    leader = lab.check_one_leader()
    assert lab.calls() <= 30, "calls to elect the first leader"
    began = lab.driver.now
    agreements = 10
    for number in range(agreements + 2):
        assert lab.start(leader, number) is not None
    lab.wait(0.05)
    assert lab.commands()[-1] == agreements + 1
    assert lab.calls(since=began) <= (agreements + 1 + 3) * 3, "calls for ten agreements"
    began = lab.driver.now
    lab.wait(1)
    assert lab.calls(since=began) <= 3 * 20, "calls in a second without work"
