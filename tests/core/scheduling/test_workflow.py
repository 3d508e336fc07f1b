"""Building workflows: what depends on what, and what is refused before anything changed."""

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.core.scheduling import Backoff, MapHandle, TaskNode, TaskPriority, TriggerRule, Workflow
from agentflow.errors import (
    CycleInWorkflow,
    DuplicateTask,
    InvalidConfig,
    MissingDependency,
    NoSuchTask,
)


def load(path):
    return path


def clean(rows, strict=False):
    return rows


def fetch(url, timeout=3, *, retries=0):
    return url


async def download(url):
    return url


def dependencies(flow):
    return {task: node.dependencies for task, node in flow.tasks.items()}


def test_handles_among_the_arguments_are_dependencies_wherever_they_stand():
    flow = Workflow("nested")
    a, b, c, d, e = (flow.add(load, str(i), id=name) for i, name in enumerate("abcde"))
    flow.add(clean, [a, (b, {"x": c})], strict={d: {e}}, id="all")
    assert set(flow.tasks["all"].dependencies) == set("abcde")


def test_a_handle_given_twice_is_one_dependency():
    flow = Workflow()
    a = flow.add(load, "x")
    assert flow.add(clean, [a, a], a).node.dependencies == ("load",)


def test_after_takes_handles_ids_and_maps():
    flow = Workflow()
    a, m = flow.add(load, "x"), flow.map(clean, [1, 2])
    late = flow.map(clean, a, id="late")
    last = flow.add(load, "y", after=[a, "clean[1]", m, late], id="last")
    assert last.node.dependencies == ("load", "clean[1]", "clean[0]", "late")
    assert flow.add(load, "z", after="clean", id="by-name").node.dependencies == ("clean[0]", "clean[1]")
    assert flow.add(load, "z", after=a, id="one").node.dependencies == ("load",)


def test_ids_come_from_the_function_and_a_counter():
    flow = Workflow()
    ids = [flow.add(clean, i).id for i in range(3)]
    assert ids == ["clean", "clean-2", "clean-3"]
    assert flow.add(lambda: 0).id == "lambda"
    assert flow.add(functools.partial(clean, 1)).id == "clean-4"
    assert flow.add(str.upper, "x").id == "upper"
    assert flow.map(clean, [1]).id == "clean-5"


def test_a_made_up_id_avoids_one_that_was_given():
    flow = Workflow()
    flow.add(load, "x", id="clean")
    flow.add(load, "x", id="clean-2")
    assert flow.add(clean, 1).id == "clean-3"


def test_an_id_given_twice_is_refused():
    flow = Workflow()
    flow.add(load, "x", id="a")
    with pytest.raises(DuplicateTask) as refused:
        flow.add(load, "y", id="a")
    assert refused.value.task == "a"
    with pytest.raises(DuplicateTask):
        Workflow(tasks=[("a", []), ("a", [])])
    flow.map(clean, [1], id="m")
    with pytest.raises(DuplicateTask):
        flow.add(load, "x", id="m")
    with pytest.raises(DuplicateTask):
        flow.add(load, "x", id="m[0]")


@pytest.mark.parametrize(
    "call",
    [
        lambda flow, other: flow.add("no function"),
        lambda flow, other: flow.add(None),
        lambda flow, other: flow.add(flow["a"]),
        lambda flow, other: flow.add(clean, other["a"]),
        lambda flow, other: flow.add(clean, [{"x": (other["a"],)}]),
        lambda flow, other: flow.add(load, "x", after=other["a"]),
        lambda flow, other: flow.add(load, "x", after=7),
        lambda flow, other: flow.add(load, "x", after=[7]),
        lambda flow, other: flow.add(load, "x", retries=-1),
        lambda flow, other: flow.add(load, "x", priority="soon"),
        lambda flow, other: flow.add(load, "x", timeout=0),
        lambda flow, other: flow.add(load, "x", id=""),
        lambda flow, other: flow.add(load, kwargs=["path"]),
        lambda flow, other: flow.add(load, path="x", kwargs={"path": "y"}),
        lambda flow, other: flow.map(clean, 7),
        lambda flow, other: flow.map(clean, "text"),
        lambda flow, other: flow.map(clean, [1, other["a"]]),
        lambda flow, other: flow.map(clean, [], retries=-1),
        lambda flow, other: flow.map(clean, other["a"]),
    ],
)
def test_what_cannot_be_a_task_is_refused_and_changes_nothing(call):
    flow, other = Workflow("mine"), Workflow("other")
    flow.add(load, "x", id="a")
    other.add(load, "x", id="a")
    before = flow.to_dict()
    with pytest.raises(InvalidConfig):
        call(flow, other)
    assert flow.to_dict() == before
    assert flow.add(load, "x").id == "load"


def test_an_option_that_is_a_parameter_too_is_refused_with_the_way_out():
    flow = Workflow()
    with pytest.raises(InvalidConfig, match=r"kwargs=\{'timeout': 30\}") as refused:
        flow.add(fetch, "u", timeout=30)
    assert refused.value.field == "timeout"
    with pytest.raises(InvalidConfig, match="retries"):
        flow.add(fetch, "u", retries=0)
    with pytest.raises(InvalidConfig, match="timeout"):
        flow.map(fetch, ["u"], timeout=30)
    task = flow.add(fetch, "u", timeout=60, kwargs={"timeout": 30})
    assert flow.calls[task.id].kwargs == {"timeout": 30}
    assert task.node.timeout_secs == 60


def test_options_reach_the_task():
    flow = Workflow()
    backoff = Backoff(base_secs=1)
    task = flow.add(
        load,
        "x",
        id="a",
        name="A",
        priority="urgent",
        group="gpu",
        retries=2,
        timeout=5,
        backoff=backoff,
        when="all_done",
        resources={"gpu": 1},
        requires={"arch": "x86_64"},
        duration=7,
        locks="key",
        retry_on=OSError,
    ).node
    assert task == TaskNode(
        "a",
        name="A",
        priority=TaskPriority.URGENT,
        group="gpu",
        retries=2,
        timeout_secs=5,
        backoff=backoff,
        when=TriggerRule.ALL_DONE,
        resources={"gpu": 1},
        requires={"arch": "x86_64"},
        estimated_duration_secs=7,
        locks=("key",),
        retry_on=OSError,
    )


def test_coroutine_functions_are_marked():
    flow = Workflow()
    assert flow.calls[flow.add(download, "u").id].is_async
    assert not flow.calls[flow.add(load, "u").id].is_async
    assert flow.calls[flow.map(download, ["u"])[0].id].is_async


def test_a_map_adds_a_task_an_item():
    flow = Workflow()
    a = flow.add(load, "x")
    parts = flow.map(clean, [1, a, [a]], True, priority="high")
    assert dependencies(flow) == {"load": (), "clean[0]": (), "clean[1]": ("load",), "clean[2]": ("load",)}
    assert flow.calls["clean[0]"].args == (1, True)
    assert [flow.calls[each.id].has_handles for each in parts] == [False, True, True]
    assert {each.node.priority for each in parts} == {TaskPriority.HIGH}


def test_a_map_over_a_static_map_follows_it_item_by_item():
    flow = Workflow()
    second = flow.map(clean, flow.map(load, ["x", "y"]))
    assert [each.node.dependencies for each in second] == [("load[0]",), ("load[1]",)]


def test_a_map_over_a_handle_is_one_task_that_expands_later():
    flow = Workflow()
    a = flow.add(load, "x")
    strict = flow.add(load, "y", id="strict")
    late = flow.map(clean, a, strict)
    assert flow.expansions == {"clean": a}
    assert late.source == a
    assert flow.tasks["clean"].dependencies == ("load", "strict")
    assert flow.calls["clean"].args == (a, strict)
    later = flow.map(clean, late)
    assert flow.expansions["clean-2"] == late
    assert flow.add(load, later).node.dependencies == ("clean-2",)


def test_an_empty_map_is_an_empty_list():
    flow = Workflow()
    empty = flow.map(clean, [])
    assert len(empty) == 0
    assert flow.ends() == [empty]
    assert flow.add(load, empty).node.dependencies == ()
    assert flow.ends() == ["load"]


def test_ends_are_what_nobody_waits_for():
    flow = Workflow()
    a, b = flow.add(load, "x", id="a"), flow.add(load, "y", id="b")
    parts = flow.map(clean, [a, 2])
    assert flow.ends() == ["b", parts]
    flow.add(load, parts[0], id="c")
    assert flow.ends() == ["b", "clean[1]", "c"]
    flow.add(load, [b, parts], id="d")
    assert flow.ends() == ["c", "d"]


def test_the_decorator_leaves_a_handle_that_can_be_called():
    flow = Workflow()

    @flow.task
    def numbers():
        return [1, 2]

    @flow.task(numbers, id="sum", priority="high")
    def total(values, start=0):
        return sum(values, start)

    @flow.task(after=[total])
    def publish():
        """Say so."""

    assert dependencies(flow) == {"numbers": (), "sum": ("numbers",), "publish": ("sum",)}
    assert total([3], start=1) == 4
    assert flow["sum"] == total


def test_the_decorator_refuses_a_function_that_lacks_arguments():
    flow = Workflow()
    with pytest.raises(InvalidConfig, match="rows"):
        flow.task(retries=2)(clean)
    assert len(flow) == 0


def test_a_workflow_of_ids_needs_no_functions_and_may_refer_forward():
    flow = Workflow("plan", tasks=[("test", ["build"]), TaskNode("build", priority=3), "lint"])
    flow.add_task("ship", ["test", "lint"])
    flow.validate()
    assert list(flow) == list(flow.tasks) == ["test", "build", "lint", "ship"]
    assert flow.calls == {}
    assert flow.tasks["test"] is flow.tasks["test"]
    with pytest.raises(TypeError, match="no function"):
        flow["ship"]()


@pytest.mark.parametrize(
    "task", [7, ("a",), ("a", [], 3), ("", []), (7, []), ("a", "b"), ("a", [7]), ("a", None), {"id": "a"}]
)
def test_an_odd_task_is_refused(task):
    flow = Workflow()
    if task == ("a", [7]):
        with pytest.raises((InvalidConfig, MissingDependency)):
            Workflow(tasks=[task]).validate()
        return
    with pytest.raises(InvalidConfig):
        Workflow(tasks=[task])
    assert len(flow) == 0


@pytest.mark.parametrize("name", ["", 7, None])
def test_a_workflow_has_a_name(name):
    with pytest.raises(InvalidConfig):
        Workflow(name)


def test_a_missing_dependency_is_named_with_who_asked():
    with pytest.raises(MissingDependency) as refused:
        Workflow(tasks=["a", ("b", ["a", "nope"])]).validate()
    assert (refused.value.task, refused.value.dependency) == ("b", "nope")


def test_a_task_that_waits_for_itself_is_a_circle_of_one():
    with pytest.raises(CycleInWorkflow) as refused:
        Workflow(tasks=[("a", ["a"])]).validate()
    assert refused.value.cycle == ("a",)


def test_a_circle_is_named_in_order():
    with pytest.raises(CycleInWorkflow) as refused:
        Workflow(tasks=["x", ("a", ["x", "c"]), ("b", ["a"]), ("c", ["b"]), ("d", ["c"])]).validate()
    assert refused.value.cycle == ("a", "b", "c")
    assert "a -> b -> c -> a" in str(refused.value)


@given(st.integers(1, 8), st.data())
def test_a_circle_named_is_a_circle_and_none_is_missed(size, data):
    names = [f"t{i}" for i in range(size)]
    edges = data.draw(st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)), max_size=16))
    before = {name: [] for name in names}
    for one, two in edges:
        before[names[two]].append(names[one])
    flow = Workflow(tasks=list(before.items()))
    reach = {name: set(before[name]) for name in names}
    for middle in names:
        for name in names:
            if middle in reach[name]:
                reach[name] |= reach[middle]
    if not any(name in reach[name] for name in names):
        flow.validate()
        return
    with pytest.raises(CycleInWorkflow) as refused:
        flow.validate()
    cycle = refused.value.cycle
    assert len(set(cycle)) == len(cycle)
    for one, two in zip(cycle, (*cycle[1:], cycle[0]), strict=True):
        assert one in before[two]


def test_a_chain_of_ten_thousand_is_no_recursion():
    chain = [("t0", []), *((f"t{i}", [f"t{i - 1}"]) for i in range(1, 10_000))]
    Workflow(tasks=reversed(chain)).validate()
    chain[0] = ("t0", ["t9999"])
    with pytest.raises(CycleInWorkflow) as refused:
        Workflow(tasks=chain).validate()
    assert len(refused.value.cycle) == 10_000
    assert len(str(refused.value)) < 400


def test_looking_things_up():
    flow = Workflow("looking")
    parts = flow.map(clean, [1, 2])
    assert flow["clean"] is parts
    assert isinstance(flow["clean"], MapHandle)
    assert flow["clean[1]"] == parts[1]
    assert "clean[1]" in flow
    assert len(flow) == len(flow.tasks) == 2
    assert flow
    assert repr(flow) == "<Workflow 'looking': 2 tasks>"
    with pytest.raises(NoSuchTask):
        flow["nope"]
    with pytest.raises(KeyError):
        flow.tasks["nope"]
