"""From a workflow to what the masters are told of it, and to the table of calls that stays here.

Law: functions and arguments never enter the log. They stay in the object store under the run's payload;
the submission carries positions, options and that reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from agentflow.cluster.locking import checked_locks
from agentflow.core.control.commands import Backoff, Grown, SubmitRun, TaskOptions
from agentflow.core.scheduling import Call, MapHandle, TaskHandle, TaskNode, Workflow
from agentflow.core.scheduling.tasks import DEFAULT_DURATION_SECS
from agentflow.errors import InvalidConfig, NoSuchTask
from agentflow.ids import AttemptId, TaskId

ITEMS_SUFFIX = "/items"

KEPT_BYTES = 1 << 30
"""Of the values that no task needs any more, a run keeps this many bytes, unless `keep=` says otherwise."""

Keep = bool | None | str | TaskHandle | MapHandle | Iterable[Any]


def task_id_of(task: Any) -> TaskId:
    """Give the id that a handle or a string names."""
    if isinstance(task, TaskHandle | MapHandle):
        return task.id
    if isinstance(task, str):
        return task
    raise InvalidConfig(f"a task is named by its id or its handle, not by {task!r}", field="task")


class CallTable:
    """The calls of one run, by position.

    Attributes
    ----------
    calls : list
        A `Call`, or None for a task without a function.
    position : dict
        Task id to position.
    ends : dict
        The tasks that no other waits for, by name; a map's name has the list of its tasks.
    """

    __slots__ = ("calls", "ends", "position", "retry_on")

    def __init__(
        self,
        calls: list[Call | None],
        position: Mapping[TaskId, int],
        retry_on: dict[int, Any],
        ends: dict[TaskId, TaskId | list[TaskId]],
    ) -> None:
        self.calls = calls
        self.position = position
        self.retry_on = retry_on
        self.ends = ends


class Parts(msgspec.Struct, frozen=True):
    """A workflow, taken apart."""

    ids: tuple[TaskId, ...]
    dependencies: tuple[tuple[int, ...], ...]
    options: tuple[TaskOptions, ...]
    option_of: tuple[int, ...]
    expands: tuple[tuple[int, int], ...]
    ends: tuple[int, ...]


_PLAIN = TaskOptions(duration=DEFAULT_DURATION_SECS)


def options_of(node: TaskNode) -> TaskOptions:
    """What the control plane must know of a task's settings."""
    backoff = node.backoff
    if (
        node.priority == _PLAIN.priority
        and node.estimated_duration_secs == DEFAULT_DURATION_SECS
        and node.when == _PLAIN.when
        and node.timeout_secs is None
        and node.group is None
        and backoff is None
        and not (node.retries or node.resources or node.requires or node.locks)
    ):
        return _PLAIN
    return TaskOptions(
        priority=int(node.priority),
        group=node.group,
        retries=node.retries,
        timeout=node.timeout_secs,
        backoff=Backoff()
        if backoff is None
        else Backoff(backoff.base_secs, backoff.factor, backoff.max_secs, backoff.jitter),
        when=str(node.when),
        duration=node.estimated_duration_secs,
        resources=tuple(sorted(node.resources.items())),
        requires=tuple(sorted(node.requires.items())),
        locks=checked_locks(node.locks, node.id) if node.locks else (),
    )


def take_apart(flow: Workflow) -> tuple[Parts, CallTable]:
    """Take a workflow apart into what the masters are told and what stays in the object store."""
    flow.validate()
    ids: list[TaskId] = []
    dependencies: list[tuple[TaskId, ...]] = []
    expands: list[tuple[TaskId, TaskId]] = []
    calls: list[Call | None] = []
    nodes: list[TaskNode] = []
    for task, node in flow.tasks.items():
        source = flow.expansions.get(task)
        if source is not None:
            # A map over a value that is not there yet is two tasks: one that lists the items when it is,
            # and one, of the map's own name, that gathers the results of the tasks added for them.
            expands.append((task + ITEMS_SUFFIX, task))
            ids.append(task + ITEMS_SUFFIX)
            nodes.append(node)
            dependencies.append(tuple(node.dependencies))
            calls.append(flow.calls.get(task))
            dependencies.append((task + ITEMS_SUFFIX,))
            calls.append(None)
        else:
            dependencies.append(tuple(node.dependencies))
            calls.append(flow.calls.get(task))
        ids.append(task)
        nodes.append(node)
    position = {task: i for i, task in enumerate(ids)}
    options, option_of = _share([options_of(node) for node in nodes])
    ends: dict[TaskId, TaskId | list[TaskId]] = {
        task_id_of(end): [each.id for each in end] if isinstance(end, MapHandle) else end
        for end in flow.ends()
    }
    parts = Parts(
        ids=tuple(ids),
        dependencies=tuple(tuple([position[d] for d in each]) for each in dependencies),
        options=options,
        option_of=option_of,
        expands=tuple((position[expander], position[gather]) for expander, gather in expands),
        ends=tuple(
            position[each] for end in ends.values() for each in (end if isinstance(end, list) else [end])
        ),
    )
    retry_on = {i: node.retry_on for i, node in enumerate(nodes) if node.retry_on is not None}
    return parts, CallTable(calls, position, retry_on, ends)


def compile_flow(
    flow: Workflow,
    *,
    key: str,
    payload: str,
    keep: Keep = None,
    taken: Mapping[TaskId, AttemptId] | None = None,
) -> tuple[SubmitRun, CallTable]:
    """Turn a workflow into a submission and the calls that it refers to.

    Parameters
    ----------
    flow : Workflow
        What to run; it is validated here, before anything is sent.
    key : str
        Idempotency key.
    payload : str
        Under what the calls will be kept.
    keep : bool, task, list of tasks, optional
        Whose values stay when no task needs them any more.
    taken : mapping, optional
        Tasks whose values attempts of another run made.
    """
    parts, table = take_apart(flow)
    kept, budget = _kept(table.position, parts, keep)
    submission = SubmitRun(
        key=key,
        name=flow.name,
        ids=parts.ids,
        dependencies=parts.dependencies,
        options=parts.options,
        option_of=parts.option_of,
        payload=payload,
        expands=parts.expands,
        keep=kept,
        budget=budget,
        taken=tuple((table.position[task], attempt) for task, attempt in (taken or {}).items()),
        sources=tuple((table.position[task], out.run, out.task) for task, out in flow.sources.items()),
    )
    return submission, table


def compile_growth(flow: Workflow) -> tuple[Grown, CallTable]:
    """Turn a workflow that a task returned into what its run gets of it."""
    if flow.sources:
        raise InvalidConfig(
            f"{flow.name!r} takes values of another run; only a workflow that is submitted can", field="flow"
        )
    parts, table = take_apart(flow)
    grown = Grown(parts.ids, parts.dependencies, parts.options, parts.option_of, parts.expands, parts.ends)
    return grown, table


def _kept(position: Mapping[TaskId, int], parts: Parts, keep: Keep) -> tuple[tuple[int, ...], int]:
    """Say which values stay in any case, and how many bytes of the others'."""
    if keep is None:
        return parts.ends, KEPT_BYTES
    if isinstance(keep, bool):
        return parts.ends, (-1 if keep else 0)
    if isinstance(keep, str | TaskHandle | MapHandle):
        keep = [keep]
    if not isinstance(keep, Iterable):
        raise InvalidConfig(f"keep={keep!r}: write True, False, or a list of tasks", field="keep")
    kept = dict.fromkeys(parts.ends)
    for task in keep:
        each = (
            [item.id for item in task] if isinstance(task, MapHandle) and task.static else [task_id_of(task)]
        )
        for name in each:
            if name not in position:
                raise NoSuchTask(f"keep names {name!r}, and the workflow has no such task", task=name)
            kept[position[name]] = None
    return tuple(kept), 0


def _share(options: list[TaskOptions]) -> tuple[tuple[TaskOptions, ...], tuple[int, ...]]:
    """List each set of options once."""
    seen: dict[TaskOptions, int] = {}
    option_of = tuple([seen.setdefault(each, len(seen)) for each in options])
    return tuple(seen) or (TaskOptions(),), option_of if len(seen) > 1 else ()
