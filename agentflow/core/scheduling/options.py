"""The keywords of `Workflow.add`, and what a task becomes by them.

Law: an option that was not given is not the same as one that was given as None; only what was given can be
mistaken for an argument of the function.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from agentflow.core.scheduling.handles import Handle, MapHandle
from agentflow.core.scheduling.tasks import TaskNode
from agentflow.ids import TaskId

UNSET: Final[Any] = msgspec.UNSET
"""The default of every option: not given, which is not the same as None."""

OPTIONS: Final = {
    "id": "id",
    "name": "name",
    "priority": "priority",
    "group": "group",
    "retries": "retries",
    "timeout": "timeout_secs",
    "backoff": "backoff",
    "when": "when",
    "after": "after",
    "resources": "resources",
    "requires": "requires",
    "duration": "estimated_duration_secs",
    "locks": "locks",
    "retry_on": "retry_on",
    "kwargs": "kwargs",
}
"""The keywords that are ours, and what a `TaskNode` calls them."""


class Tasks(Mapping[TaskId, TaskNode]):
    """A workflow's tasks by id, in order of submission.

    A task given as a mere pair becomes a `TaskNode` when it is first asked for: a graph of a million
    pairs never holds a million nodes.
    """

    __slots__ = ("_nodes",)

    def __init__(self, nodes: dict[TaskId, TaskNode | tuple[TaskId, ...]]) -> None:
        self._nodes = nodes

    def __getitem__(self, task: TaskId) -> TaskNode:
        node = self._nodes[task]
        if isinstance(node, tuple):
            node = self._nodes[task] = TaskNode(task, dependencies=node)
        return node

    def __iter__(self) -> Iterator[TaskId]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, task: object) -> bool:
        return task in self._nodes

    def __repr__(self) -> str:
        return f"<Tasks: {', '.join(list(self._nodes)[:8])}{', ...' if len(self._nodes) > 8 else ''}>"


def given_options(frame: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, among a method's arguments."""
    return {option: frame[option] for option in OPTIONS if frame[option] is not UNSET}


def node_of(task: TaskId, given: dict[str, Any], dependencies: tuple[TaskId, ...]) -> TaskNode:
    """Make a task of the options given."""
    if not given:
        return TaskNode(task, dependencies=dependencies)
    settings = {OPTIONS[option]: value for option, value in given.items()}
    for option in ("resources", "requires"):
        if option in settings:
            settings[option] = dict(settings[option] or {})
    if isinstance(settings.get("locks"), str):
        settings["locks"] = (settings["locks"],)
    return TaskNode(task, dependencies=dependencies, **settings)


def ids_of(handles: Iterable[Handle]) -> tuple[TaskId, ...]:
    """The tasks that handles stand for, each once."""
    ids: list[TaskId] = []
    for handle in handles:
        if isinstance(handle, MapHandle) and handle.static:
            ids += [each.id for each in handle.items]
        else:
            ids.append(handle.id)
    return tuple(dict.fromkeys(ids)) if len(ids) > 1 else tuple(ids)


def name_of(fn: Any) -> str:
    """What to call a task of this function.

    Examples
    --------
    >>> import functools
    >>> name_of(functools.partial(max, 1)), name_of(lambda: 0)
    ('max', 'lambda')
    """
    while isinstance(fn, functools.partial):
        fn = fn.func
    name: str = getattr(fn, "__name__", None) or type(fn).__name__
    return name.strip("<>")


def keywords_of(fn: Any) -> frozenset[str]:
    """The names of a function's parameters that can be given by name."""
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return frozenset()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return frozenset(each.name for each in parameters if each.kind in named)
