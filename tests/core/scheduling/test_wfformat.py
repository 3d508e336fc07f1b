"""Recorded workflows: what the file says is what the workflow has."""

import copy
import json
import time

import pytest

from agentflow.core.scheduling import TaskDependencyGraph, Workflow
from agentflow.core.scheduling.wfformat import read_trace
from agentflow.errors import CycleInWorkflow, DuplicateTask, InvalidConfig, MissingDependency

TRACE = {
    "name": "small",
    "schemaVersion": "1.5",
    "workflow": {
        "specification": {
            "tasks": [
                {"id": "c", "name": "join", "parents": ["a", "b"], "children": [], "inputFiles": ["f"]},
                {"id": "a", "name": "left", "parents": [], "children": ["c"]},
                {"id": "b", "name": "right", "parents": [], "children": ["c"]},
            ],
            "files": [{"id": "f", "sizeInBytes": 3}],
        },
        "execution": {
            "makespanInSeconds": 9,
            "executedAt": "2020",
            "tasks": [
                {"id": "a", "runtimeInSeconds": 2, "coreCount": 8, "memoryInBytes": 10**9, "priority": 5},
                {"id": "b", "runtimeInSeconds": 0.5},
                {"id": "c", "runtimeInSeconds": 1, "command": {"program": "join"}},
            ],
        },
    },
}


def trace(change):
    made = copy.deepcopy(TRACE)
    change(made)
    return made


def specified(made):
    return made["workflow"]["specification"]["tasks"]


def test_ids_dependencies_and_runtimes_are_the_file_s():
    flow = Workflow.from_wfformat(TRACE, scale=0)
    assert {task: node.dependencies for task, node in flow.tasks.items()} == {
        "c": ("a", "b"),
        "a": (),
        "b": (),
    }
    assert [node.estimated_duration_secs for node in flow.tasks.values()] == [1, 2, 0.5]
    assert [node.name for node in flow.tasks.values()] == ["join", "left", "right"]
    assert TaskDependencyGraph.from_workflow(flow).critical_path().tasks == ["a", "c"]


def test_what_was_recorded_of_another_machine_is_no_demand():
    node = Workflow.from_wfformat(TRACE, scale=0).tasks["a"]
    assert node.metadata == {"coreCount": 8, "memoryInBytes": 10**9, "priority": 5}
    assert (node.resources, node.requires, node.priority.name) == ({}, {}, "MEDIUM")


def test_a_task_sleeps_its_seconds_times_the_scale():
    slept = []
    flow = read_trace(TRACE, scale=0.5, sleep=slept.append)
    for call in flow.calls.values():
        call.fn(*call.args)
    assert slept == [0.5, 1.0, 0.25]
    assert Workflow.from_wfformat(TRACE, scale=0).calls == {}
    assert Workflow.from_wfformat(TRACE).calls["a"].fn is time.sleep
    assert Workflow.from_wfformat(TRACE).calls["a"].args == (0.002,)


def test_a_task_that_took_no_time_does_nothing():
    made = trace(lambda t: t["workflow"]["execution"]["tasks"][0].update(runtimeInSeconds=0))
    assert list(read_trace(made, scale=1, sleep=print).calls) == ["c", "b"]


def test_a_trace_without_an_execution_has_no_durations():
    made = trace(lambda t: t["workflow"].pop("execution"))
    assert {n.estimated_duration_secs for n in read_trace(made, scale=1, sleep=print).tasks.values()} == {0.0}


@pytest.mark.parametrize("keep", ["parents", "children"])
def test_either_direction_of_the_edges_is_enough(keep):
    drop = {"parents": "children", "children": "parents"}[keep]
    made = trace(lambda t: [task.pop(drop) for task in specified(t)])
    assert read_trace(made, scale=0).tasks["c"].dependencies == ("a", "b")


def test_a_file_is_read_and_named(tmp_path):
    path = tmp_path / "trace-001.json"
    path.write_text(json.dumps(trace(lambda t: t.pop("name"))))
    assert Workflow.from_wfformat(path, scale=0).name == "trace-001"
    assert Workflow.from_wfformat(str(path), scale=0, name="mine").name == "mine"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda t: t.pop("workflow"), InvalidConfig),
        (lambda t: t["workflow"].pop("specification"), InvalidConfig),
        (lambda t: t["workflow"].update(specification=[]), InvalidConfig),
        (lambda t: specified(t).append({"name": "no id"}), InvalidConfig),
        (lambda t: specified(t).append({"id": 7}), InvalidConfig),
        (lambda t: specified(t)[1].update(children=["nobody"]), InvalidConfig),
        (lambda t: specified(t)[1].update(parents=["nobody"]), MissingDependency),
        (lambda t: specified(t)[1].update(parents=["c"]), CycleInWorkflow),
        (lambda t: specified(t).append(specified(t)[0]), DuplicateTask),
        (lambda t: t["workflow"]["execution"]["tasks"][0].update(runtimeInSeconds=-1), InvalidConfig),
        (lambda t: t["workflow"]["execution"]["tasks"][0].update(runtimeInSeconds="2"), InvalidConfig),
    ],
)
def test_a_trace_that_cannot_be_is_refused(change, error):
    with pytest.raises(error):
        read_trace(trace(change), scale=0)


def test_a_file_that_is_no_trace_is_refused_by_name(tmp_path):
    for text in ("no json", "[]", "{}"):
        path = tmp_path / "odd.json"
        path.write_text(text)
        with pytest.raises(InvalidConfig, match="odd"):
            Workflow.from_wfformat(path)
    with pytest.raises(FileNotFoundError):
        Workflow.from_wfformat(tmp_path / "absent.json")


@pytest.mark.parametrize("scale", [-1, float("nan"), float("inf"), "fast", True])
def test_a_scale_is_a_number_from_zero(scale):
    with pytest.raises(InvalidConfig):
        Workflow.from_wfformat(TRACE, scale=scale)


def test_every_recorded_workflow_passes_through_plain_data(wfinstances):
    for path in sorted(wfinstances.glob("*.json")):
        flow = Workflow.from_wfformat(path)
        again = Workflow.from_dict(json.loads(json.dumps(flow.to_dict())))
        assert again.to_dict() == flow.to_dict(), path.name
