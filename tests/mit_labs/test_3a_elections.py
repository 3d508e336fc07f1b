"""Lab 3A: leader election."""


def test_initial_election(lab):
    lab = lab(3)
    lab.check_one_leader()
    assert lab.calls() <= 30
    lab.wait(0.05)
    term = lab.check_terms()
    assert term >= 1
    lab.wait(2)
    assert lab.check_terms() == term, "the term changes though nothing fails"
    lab.check_one_leader()


def test_re_election(lab):
    lab = lab(3)
    first = lab.check_one_leader()
    lab.disconnect(first)
    second = lab.check_one_leader()
    assert second != first
    lab.connect(first)
    assert lab.check_one_leader() == second, "the old leader disturbs the new one"
    other = next(name for name in lab.names if name not in (first, second))
    lab.disconnect(second, other)
    lab.wait(2)
    lab.check_no_leader()
    lab.connect(other)
    lab.check_one_leader()
    lab.connect(second)
    lab.check_one_leader()


def test_many_elections(lab):
    lab = lab(7)
    lab.check_one_leader()
    for _ in range(10):
        three = lab.rng.sample(lab.names, 3)
        lab.disconnect(*three)
        # Four of seven are left: either the leader is among them or they elect one.
        lab.check_one_leader()
        lab.connect(*three)
    lab.check_one_leader()
