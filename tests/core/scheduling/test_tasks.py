"""A task's settings are checked when it is made."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.core.scheduling import Backoff, TaskNode, TaskPriority, TaskState, TriggerRule
from agentflow.errors import InvalidConfig


def test_every_field_but_the_id_has_a_default():
    task = TaskNode("a")
    assert (task.name, task.priority, task.dependencies, task.state) == (
        "a",
        TaskPriority.MEDIUM,
        (),
        TaskState.PENDING,
    )
    assert (task.retries, task.retry_count, task.timeout_secs, task.backoff) == (0, 0, None, None)
    assert task.when is TriggerRule.ALL_SUCCESS


def test_two_tasks_share_no_defaults():
    one, two = TaskNode("a"), TaskNode("b")
    one.metadata["x"] = 1
    assert two.metadata == {}


@pytest.mark.parametrize("given_", [3, "high", "HIGH", TaskPriority.HIGH])
def test_a_priority_is_a_member_a_number_or_a_name(given_):
    assert TaskNode("a", priority=given_).priority is TaskPriority.HIGH


@pytest.mark.parametrize("state", TaskState)
def test_a_state_is_found_by_its_name_in_any_case(state):
    assert TaskState(state.name.lower()) is state
    assert str(state) == state.name


def test_base_scores_are_those_of_the_specification():
    assert [each.base_score for each in TaskPriority] == [250, 500, 750, 1000]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", ""),
        ("id", 7),
        ("priority", 5),
        ("priority", "soon"),
        ("dependencies", "build"),
        ("dependencies", [1]),
        ("dependencies", 3),
        ("estimated_duration_secs", -1),
        ("estimated_duration_secs", math.nan),
        ("estimated_duration_secs", math.inf),
        ("estimated_duration_secs", "long"),
        ("resources", {"gpu": -1}),
        ("resources", {"gpu": "one"}),
        ("retries", -1),
        ("retries", 1.5),
        ("retry_count", -1),
        ("timeout_secs", 0),
        ("timeout_secs", -3),
        ("backoff", 5),
        ("when", "sometimes"),
        ("locks", "key"),
        ("retry_on", 7),
        ("retry_on", int),
        ("retry_on", (ValueError, 3)),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_name(field, value):
    settings = {"id": "a", field: value}
    with pytest.raises(InvalidConfig) as refused:
        TaskNode(**settings)
    assert refused.value.field.startswith(field)
    assert "a" in str(refused.value)


def test_a_dependency_named_twice_counts_once():
    assert TaskNode("a", dependencies=["b", "c", "b"]).dependencies == ("b", "c")


@pytest.mark.parametrize("retry_on", [ValueError, (ValueError, OSError), lambda error: True])
def test_retry_on_is_types_or_a_predicate(retry_on):
    assert TaskNode("a", retry_on=retry_on).retry_on is retry_on


@given(
    base=st.floats(0, 100),
    factor=st.floats(1, 10),
    cap=st.floats(0, 1000),
    jitter=st.floats(0, 1),
    retry=st.integers(1, 5000),
    seed=st.integers(),
)
def test_backoff_is_exact_without_jitter_and_bounded_with_it(base, factor, cap, jitter, retry, seed):
    backoff = Backoff(base_secs=base, factor=factor, max_secs=cap, jitter=jitter)
    try:
        plain = min(cap, base * factor ** (retry - 1))
    except OverflowError:
        plain = cap if base else 0.0
    assert backoff.delay(retry) == plain
    drawn = backoff.delay(retry, random.Random(seed))
    assert plain * (1 - jitter) - 1e-9 <= drawn <= plain
    assert drawn == backoff.delay(retry, random.Random(seed))


@pytest.mark.parametrize(
    "settings",
    [
        {"base_secs": -1},
        {"factor": 0.5},
        {"max_secs": -1},
        {"jitter": 1.5},
        {"jitter": -0.1},
        {"factor": math.nan},
    ],
)
def test_a_backoff_that_cannot_work_is_refused(settings):
    with pytest.raises(InvalidConfig) as refused:
        Backoff(**settings)
    assert refused.value.field == next(iter(settings))


def test_retries_are_numbered_from_one():
    with pytest.raises(InvalidConfig):
        Backoff().delay(0)
