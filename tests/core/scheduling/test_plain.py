"""Workflows as plain data: nothing is lost on the way there and back, nor through JSON."""

import json
import os.path
from collections import namedtuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.core.scheduling import (
    Backoff,
    MapHandle,
    TaskHandle,
    TaskNode,
    TaskPriority,
    TaskState,
    TriggerRule,
    Workflow,
)
from agentflow.core.scheduling.plain import pack, reference, resolve
from agentflow.errors import AgentflowError, DuplicateTask, InvalidConfig, MissingDependency

Pair = namedtuple("Pair", "left right")

FUNCTIONS = [len, str.upper, os.path.join, json.dumps, sorted]

keys = st.one_of(st.text(max_size=3), st.sampled_from(["$task", "$tuple", "$", "$dict"]))
plain = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**40), 2**40),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=4),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.sets(st.integers(), max_size=3),
        st.frozensets(st.text(max_size=2), max_size=3),
        st.dictionaries(keys, inner, max_size=3),
        st.dictionaries(st.integers(), inner, max_size=2),
        st.sampled_from(FUNCTIONS),
    ),
    max_leaves=8,
)
settings_of = st.fixed_dictionaries(
    {},
    optional={
        "priority": st.sampled_from(TaskPriority),
        "group": st.sampled_from([None, "gpu"]),
        "retries": st.integers(0, 3),
        "timeout": st.one_of(st.none(), st.floats(0.1, 100)),
        "backoff": st.one_of(
            st.none(), st.builds(Backoff, base_secs=st.floats(0, 5), jitter=st.floats(0, 1))
        ),
        "when": st.sampled_from(TriggerRule),
        "resources": st.dictionaries(st.sampled_from(["cpu", "gpu"]), st.floats(0, 4)),
        "requires": st.dictionaries(st.sampled_from(["arch", "ssd"]), st.sampled_from(["x86_64", True, 2.5])),
        "duration": st.floats(0, 1000),
        "locks": st.lists(st.sampled_from(["k1", "k2"]), unique=True),
        "retry_on": st.sampled_from([None, ValueError, (OSError, KeyError), callable]),
        "name": st.text(min_size=1, max_size=5),
    },
)


@st.composite
def workflows(draw):
    flow = Workflow(draw(st.text(min_size=1, max_size=5)))
    for i in range(draw(st.integers(0, 5))):
        handles = [flow[name] for name in [*flow, *flow.maps]]
        value = st.one_of(plain, st.sampled_from(handles)) if handles else plain
        nested = st.one_of(
            value, st.lists(value, max_size=3), st.dictionaries(keys, value, max_size=2), st.tuples(value)
        )
        options = draw(settings_of)
        if handles:
            options["after"] = draw(st.lists(st.sampled_from(handles), max_size=2))
        fn, args = draw(st.sampled_from(FUNCTIONS)), draw(st.lists(nested, max_size=3))
        kind = draw(st.sampled_from(["add", "map", "late", "node"]))
        extra = {"kwargs": draw(st.dictionaries(st.sampled_from(["a", "b"]), nested, max_size=2))}
        if kind == "add":
            flow.add(fn, *args, id=f"t{i}", **options, **extra)
        elif kind == "map":
            flow.map(fn, args, id=f"t{i}", **options, **extra)
        elif kind == "late" and handles:
            late = [h for h in handles if isinstance(h, TaskHandle) or not h.static]
            if late:
                flow.map(fn, draw(st.sampled_from(late)), *args, id=f"t{i}", **options, **extra)
        else:
            metadata = draw(st.dictionaries(keys, plain, max_size=2))
            state, count = draw(st.sampled_from(TaskState)), draw(st.integers(0, 2))
            flow.add_task(TaskNode(f"t{i}", metadata=metadata, state=state, retry_count=count))
    return flow


def same(one, two):
    """Whether two workflows are equal, comparing handles by what they stand for."""

    def bare(value):
        if isinstance(value, TaskHandle | MapHandle):
            return (type(value).__name__, value.id)
        if isinstance(value, dict):
            return ("dict", [(bare(k), bare(v)) for k, v in value.items()])
        if isinstance(value, set | frozenset):
            return (type(value).__name__, sorted(map(repr, map(bare, value))))
        if isinstance(value, list | tuple):
            return (type(value).__name__, [bare(part) for part in value])
        return (type(value).__name__, value)

    def calls(flow):
        return {
            task: (call.fn, bare(call.args), bare(call.kwargs), call.has_handles, call.is_async)
            for task, call in flow.calls.items()
        }

    def maps(flow):
        return {
            stem: (bare(handle.source), [item.id for item in handle] if handle.static else None)
            for stem, handle in flow.maps.items()
        }

    assert two.name == one.name
    assert list(two.tasks.items()) == list(one.tasks.items())
    assert calls(two) == calls(one)
    assert maps(two) == maps(one)
    assert bare(two.expansions) == bare(one.expansions)
    assert bare(two.ends()) == bare(one.ends())


@settings(max_examples=150, deadline=None)
@given(workflows())
def test_nothing_is_lost_there_and_back(flow):
    data = flow.to_dict()
    again = Workflow.from_dict(data)
    same(flow, again)
    assert again.to_dict() == data


@settings(max_examples=150, deadline=None)
@given(workflows())
def test_nothing_is_lost_through_json(flow):
    text = json.dumps(flow.to_dict())
    same(flow, Workflow.from_dict(json.loads(text)))
    same(flow, Workflow.from_dict(msgspec.json.decode(msgspec.json.encode(flow.to_dict()))))


def test_what_cannot_be_imported_stays_the_object_it_is():
    flow = Workflow("objects")
    thing = object()
    flow.add(lambda x: x, thing, id="a")
    data = flow.to_dict()
    assert data["tasks"][0]["call"]["args"] == [thing]
    again = Workflow.from_dict(data)
    assert again.calls["a"].fn is flow.calls["a"].fn
    assert again.calls["a"].args == (thing,)


def test_a_named_tuple_keeps_its_kind_and_its_handles():
    flow = Workflow("named")
    a = flow.add(len, "x", id="a")
    flow.add(len, Pair(a, 1), id="b")
    again = Workflow.from_dict(flow.to_dict())
    (pair,) = again.calls["b"].args
    assert type(pair) is Pair
    assert pair == Pair(again["a"], 1)


def test_defaults_are_left_out():
    flow = Workflow("short", tasks=["a", ("b", ["a"])])
    flow.add(len, [flow["a"]], priority="high")
    assert flow.to_dict()["tasks"] == [
        {"id": "a"},
        {"id": "b", "dependencies": ["a"]},
        {
            "id": "len",
            "dependencies": ["a"],
            "priority": "high",
            "call": {"fn": {"$ref": "builtins:len"}, "args": [[{"$task": "a"}]]},
        },
    ]


def test_functions_may_be_given_instead_of_imported():
    data = {"name": "f", "tasks": [{"id": "a", "call": {"fn": {"$ref": "no.such.module:fn"}}}]}
    with pytest.raises(InvalidConfig, match=r"no\.such\.module:fn"):
        Workflow.from_dict(data)
    assert Workflow.from_dict(data, functions={"no.such.module:fn": len}).calls["a"].fn is len


@pytest.mark.parametrize(
    "data",
    [
        [],
        {},
        {"tasks": 7},
        {"tasks": [7]},
        {"tasks": [{"name": "a"}]},
        {"tasks": [{"id": "a"}, {"id": "a"}]},
        {"tasks": [{"id": "a", "colour": "red"}]},
        {"tasks": [{"id": "a", "priority": "soon"}]},
        {"tasks": [{"id": "a", "call": {"fn": {"$ref": "builtins:nope"}}}]},
        {"tasks": [{"id": "a", "call": {"fn": {"$ref": "builtins:len"}, "args": [{"$task": "b"}]}}]},
        {"tasks": [{"id": "a", "call": {"fn": {"$ref": "builtins:len"}, "args": [{"$odd": []}]}}]},
        {"tasks": [], "maps": [{"id": "m", "items": ["m[0]"]}]},
        {"tasks": [], "maps": [{"id": "m", "items": []}, {"id": "m", "items": []}]},
    ],
)
def test_data_that_tell_of_no_workflow_are_refused(data):
    with pytest.raises(AgentflowError) as refused:
        Workflow.from_dict(data)
    assert isinstance(refused.value, InvalidConfig | DuplicateTask | MissingDependency)


def test_references_lead_back_to_what_they_name():
    for fn in FUNCTIONS:
        assert resolve(reference(fn), {}) is fn
    assert reference(lambda: 0) is None
    assert reference(Workflow("x").add) is None
    assert pack({"$task": 1}) == {"$dict": [["$task", 1]]}
