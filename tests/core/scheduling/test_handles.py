"""Handles among the arguments, and values in their places."""

from collections import OrderedDict, namedtuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.core.scheduling import MapHandle, TaskHandle, Workflow, substitute
from agentflow.core.scheduling.handles import find_handles
from agentflow.errors import InvalidConfig

Pair = namedtuple("Pair", "left right")

FLOW = Workflow("handles")
TASKS = [FLOW.add(abs, id=f"t{i}") for i in range(5)]
MAP = FLOW.map(abs, [1, 2])

leaves = st.one_of(st.integers(), st.text(max_size=3), st.none(), st.sampled_from(TASKS), st.just(MAP))
hashable = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple),
        st.frozensets(inner, max_size=3),
        st.tuples(inner, inner).map(lambda pair: Pair(*pair)),
    ),
    max_leaves=6,
)
nested = st.recursive(
    st.one_of(leaves, hashable),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.sets(hashable, max_size=3),
        st.dictionaries(hashable, inner, max_size=3),
    ),
    max_leaves=12,
)


def walk(value):
    """Every leaf, the slow way."""
    if isinstance(value, TaskHandle | MapHandle):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from walk(key)
            yield from walk(part)
    elif isinstance(value, list | tuple | set | frozenset):
        for part in value:
            yield from walk(part)


@given(nested)
def test_every_handle_is_found_once_however_deep(value):
    found = find_handles(value)
    assert set(found) == set(walk(value))
    assert len(set(found)) == len(found)


@given(nested)
def test_after_substitution_no_handle_is_left_and_nothing_else_changed(value):
    names = substitute(value, lambda handle: ("value of", handle.id))
    assert not list(walk(names))
    back = substitute(names, lambda handle: pytest.fail("there is none"))
    assert back is names
    if not list(walk(value)):
        assert names is value
    assert type(names) is (tuple if isinstance(value, TaskHandle | MapHandle) else type(value))


def test_only_what_holds_a_handle_is_made_anew():
    untouched, touched = [1, [2]], [TASKS[0]]
    made = substitute({"a": untouched, "b": touched}, lambda handle: 7)
    assert made == {"a": [1, [2]], "b": [7]}
    assert made["a"] is untouched
    assert touched == [TASKS[0]]


def test_a_map_stands_for_the_list_of_results():
    assert substitute([MAP], lambda handle: [each.id for each in handle]) == [["abs[0]", "abs[1]"]]


def test_a_list_that_contains_itself_is_passed_on():
    loop = [1]
    loop.append(loop)
    assert find_handles(loop) == []
    assert substitute(loop, lambda handle: pytest.fail("there is none")) is loop


def test_deep_nesting_is_searched_without_recursion():
    deep = TASKS[0]
    for _ in range(100_000):
        deep = [deep]
    assert find_handles(deep) == [TASKS[0]]
    while isinstance(deep, list):
        deep = deep[0]


def test_a_handle_where_no_value_could_be_put_is_refused():
    with pytest.raises(InvalidConfig, match="OrderedDict"):
        find_handles([OrderedDict(a=[TASKS[0]])])
    assert find_handles(OrderedDict(a=[1])) == []


def test_handles_of_one_task_are_equal_and_of_two_workflows_are_not():
    other = Workflow("other")
    assert FLOW["t0"] == TASKS[0]
    assert hash(FLOW["t0"]) == hash(TASKS[0])
    assert other.add(abs, id="t0") != TASKS[0]
    assert len({FLOW["t1"], TASKS[1], TASKS[2]}) == 2


def test_a_static_map_is_a_sequence_and_a_late_one_says_why_it_is_not():
    assert [each.id for each in MAP] == ["abs[0]", "abs[1]"]
    assert MAP[-1].id == "abs[1]"
    assert [each.id for each in MAP[:1]] == ["abs[0]"]
    late = FLOW.map(abs, TASKS[0])
    assert late
    assert not late.static
    for ask in (len, list, lambda handle: handle[0]):
        with pytest.raises(InvalidConfig, match="expands when the value of 't0' is there"):
            ask(late)


def test_reprs_are_one_line():
    assert repr(TASKS[0]) == "<TaskHandle 't0' of 'handles'>"
    assert repr(MAP) == "<MapHandle 'abs' of 'handles': 2 tasks>"
