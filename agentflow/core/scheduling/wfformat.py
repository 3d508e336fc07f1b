"""Recorded scientific workflows, in WfCommons' WfFormat (schema 1.5).

Law: ids, dependencies and runtimes are the file's. Recorded cores, memory and priority are metadata, never
demands: they tell of another machine.

Ferreira da Silva et al., "WfCommons: a framework for enabling scientific workflow research and development",
FGCS 128, 2022; https://github.com/wfcommons/WfFormat.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from agentflow.core.scheduling.clock import Sleep, sleeper
from agentflow.core.scheduling.handles import Call
from agentflow.core.scheduling.tasks import TaskNode
from agentflow.core.scheduling.workflow import Workflow
from agentflow.errors import InvalidConfig

RECORDED: Final[tuple[str, ...]] = ("coreCount", "avgCPU", "memoryInBytes", "priority", "machines", "command")
"""What is kept of a task's execution beside its runtime."""


def read_trace(
    source: str | Path | Mapping[str, Any],
    *,
    scale: float = 0.001,
    name: str | None = None,
    sleep: Sleep | None = None,
) -> Workflow:
    """Read a trace; see `Workflow.from_wfformat`.

    Parameters
    ----------
    source : path or dict
        The JSON file, or what is in it.
    scale : float
        A task sleeps its recorded seconds times this.
    name : str, optional
        The workflow's name; the trace's by default.
    sleep : callable, optional
        What a task calls with its seconds.

    Raises
    ------
    InvalidConfig
        If it is no such trace.
    MissingDependency, CycleInWorkflow, DuplicateTask
        If its tasks make no graph that can be run.
    """
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 <= scale < math.inf:
        raise InvalidConfig(f"scale={scale!r} is no finite number from 0", field="scale")
    wait = sleep if sleep is not None or not scale else sleeper()
    trace, label = _load(source)
    specification, execution = _parts(trace, label)
    flow = Workflow(name or str(trace.get("name") or label))
    after = _parents(specification, label)
    for task in specification:
        node = _node(task, after[task["id"]], execution.get(task["id"], {}), label)
        flow.add_task(node)
        if wait is not None and node.estimated_duration_secs * scale > 0:
            flow.calls[node.id] = Call(wait, (node.estimated_duration_secs * scale,))
    flow.validate()
    return flow


def _load(source: str | Path | Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    if isinstance(source, Mapping):
        return source, str(source.get("name") or "the trace")
    path = Path(source)
    try:
        trace = msgspec.json.decode(path.read_bytes())
    except msgspec.DecodeError as error:
        raise InvalidConfig(f"{path.name} is no JSON file: {error}", field="path") from None
    if not isinstance(trace, Mapping):
        raise InvalidConfig(f"{path.name} is no WfFormat file: it holds no object", field="path")
    return trace, path.stem


def _parts(trace: Mapping[str, Any], label: str) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """The specified tasks, and what was recorded of each."""
    try:
        workflow = trace["workflow"]
        specified = workflow["specification"]["tasks"]
        recorded = (workflow.get("execution") or {}).get("tasks") or []
        ids = [task["id"] for task in specified]
        execution = {task["id"]: task for task in recorded}
    except (KeyError, TypeError, AttributeError) as error:
        version = trace.get("schemaVersion", "unknown")
        raise InvalidConfig(
            f"{label} is no WfFormat trace of schema 1.5 (its version is {version}): {error!r} is missing or of "
            f"another kind",
            field="path",
        ) from None
    if not all(isinstance(task, str) and task for task in ids):
        raise InvalidConfig(f"{label} has a task whose id is no text", field="path")
    return specified, execution


def _parents(specified: list[dict[str, Any]], label: str) -> dict[str, tuple[str, ...]]:
    """What each task waits for: its parents, and whoever names it as a child."""
    after: dict[str, dict[str, None]] = {task["id"]: {} for task in specified}
    for task in specified:
        after[task["id"]].update(dict.fromkeys(task.get("parents") or ()))
    for task in specified:
        for child in task.get("children") or ():
            if child not in after:
                raise InvalidConfig(
                    f"{label}: {task['id']!r} has a child {child!r}, which is not there", field="path"
                )
            after[child][task["id"]] = None
    return {task: tuple(parents) for task, parents in after.items()}


def _node(task: dict[str, Any], after: tuple[str, ...], run: dict[str, Any], label: str) -> TaskNode:
    seconds = run.get("runtimeInSeconds", 0.0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        raise InvalidConfig(f"{label}: {task['id']!r} took {seconds!r} s, which cannot be", field="path")
    metadata = {key: run[key] for key in RECORDED if key in run}
    for key in ("inputFiles", "outputFiles"):
        if task.get(key):
            metadata[key] = task[key]
    return TaskNode(
        task["id"],
        name=str(task.get("name") or ""),
        dependencies=after,
        estimated_duration_secs=float(seconds),
        metadata=metadata,
    )
