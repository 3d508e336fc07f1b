import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.check import ddmin
from agentflow.errors import Refused


@given(st.integers(1, 60), st.data())
def test_what_is_left_fails_and_nothing_of_it_can_be_left_out(size, data):
    groups = data.draw(
        st.lists(st.sets(st.integers(0, size - 1), min_size=1, max_size=5), min_size=1, max_size=3)
    )

    def fails(kept):
        return any(group <= set(kept) for group in groups)

    left = ddmin(range(size), fails)
    assert fails(left)
    assert left == sorted(left)
    for at in range(len(left)):
        assert not fails(left[:at] + left[at + 1 :])


def test_no_schedule_is_tried_twice():
    tried = []

    def fails(kept):
        tried.append(tuple(kept))
        return {5, 50, 95} <= set(kept)

    assert ddmin(range(100), fails) == [5, 50, 95]
    assert len(tried) == len(set(tried)) < 200


def test_the_limit_is_kept_and_the_best_so_far_returned():
    calls = []

    def fails(kept):
        calls.append(1)
        return {0, 99} <= set(kept)

    left = ddmin(range(100), fails, limit=10)
    assert len(calls) == 10
    assert {0, 99} <= set(left)


def test_equal_elements_are_told_apart():
    assert ddmin("aaaa", lambda kept: len(kept) >= 2) == ["a", "a"]


def test_a_schedule_that_does_not_fail_is_refused():
    with pytest.raises(Refused, match="nothing to shrink"):
        ddmin([1, 2], lambda kept: False)
