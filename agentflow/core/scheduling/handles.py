"""What stands for a task's result before there is one: handles, and calls that have them as arguments.

Law: a handle among a call's arguments, however deep in lists, tuples, dicts and sets, is a dependency; when
the call is made its value stands in its place, and whatever holds no handle is passed on as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, overload

import msgspec

from agentflow.errors import InvalidConfig
from agentflow.ids import RunId, TaskId

if TYPE_CHECKING:
    from agentflow.core.scheduling.tasks import TaskNode
    from agentflow.core.scheduling.workflow import Workflow


class TaskHandle:
    """Stands for a task of a workflow, and for its result among the arguments of another.

    Made by `Workflow.add`, `Workflow.task` and `workflow["id"]`. A task made by the decorator can be called
    like the function it was made from; the call runs here and now and is no part of the workflow.

    Examples
    --------
    >>> from agentflow.core.scheduling import Workflow
    >>> flow = Workflow("sums")
    >>> three = flow.add(sum, [1, 2])
    >>> total = flow.add(sum, [three, 4], id="total")
    >>> total, total.node.dependencies
    (<TaskHandle 'total' of 'sums'>, ('sum',))
    """

    __slots__ = ("__weakref__", "flow", "id")

    def __init__(self, flow: Workflow, task: TaskId) -> None:
        self.flow = flow
        self.id = task

    @property
    def node(self) -> TaskNode:
        """The task's settings."""
        return self.flow.tasks[self.id]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the task's function here and now, outside any run."""
        call = self.flow.calls.get(self.id)
        if call is None:
            raise TypeError(f"task {self.id!r} has no function to call")
        return call.fn(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TaskHandle) and other.id == self.id and other.flow is self.flow

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<TaskHandle {self.id!r} of {self.flow.name!r}>"


class MapHandle:
    """Stands for a map, one task an item; as an argument, for the list of their results.

    A map over things that are there is `static`: it has a length, can be iterated and indexed, and gives
    the items' `TaskHandle`s. A map over another task's result expands when that result is there; until
    then it only knows its `source`.

    Examples
    --------
    >>> from agentflow.core.scheduling import Workflow
    >>> flow = Workflow("lengths")
    >>> lengths = flow.map(len, ["a", "bc"])
    >>> len(lengths), lengths[1].id
    (2, 'len[1]')
    >>> late = flow.map(abs, flow.add(sorted, lengths))
    >>> late.static, late.source.id
    (False, 'sorted')
    """

    __slots__ = ("__weakref__", "_items", "flow", "id", "source")

    def __init__(
        self, flow: Workflow, task: TaskId, items: Sequence[TaskHandle], source: Handle | None = None
    ) -> None:
        self.flow = flow
        self.id = task
        self.source = source
        self._items = tuple(items)

    @property
    def static(self) -> bool:
        """Whether its items are known already."""
        return self.source is None

    @property
    def items(self) -> tuple[TaskHandle, ...]:
        """The items' tasks."""
        if self.source is not None:
            raise InvalidConfig(
                f"{self.id!r} has no items yet: it expands when the value of {self.source.id!r} is there; "
                f"pass the handle itself to a task to give it the list of results",
                task=self.id,
            )
        return self._items

    def __len__(self) -> int:
        return len(self.items)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[TaskHandle]:
        return iter(self.items)

    @overload
    def __getitem__(self, index: int) -> TaskHandle: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[TaskHandle, ...]: ...
    def __getitem__(self, index: int | slice) -> TaskHandle | tuple[TaskHandle, ...]:
        return self.items[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MapHandle) and other.id == self.id and other.flow is self.flow

    def __hash__(self) -> int:
        return hash(("map", self.id))

    def __repr__(self) -> str:
        what = f"{len(self._items)} tasks" if self.source is None else f"over {self.source.id!r}"
        return f"<MapHandle {self.id!r} of {self.flow.name!r}: {what}>"


class RunOutput:
    """Stands for the result of a task of a run, among the arguments of a task of another.

    Parameters
    ----------
    home : object
        The cluster on which that run is.
    run, task : str
        Which.
    """

    __slots__ = ("home", "run", "task")

    def __init__(self, home: object, run: RunId, task: TaskId) -> None:
        self.home = home
        self.run = run
        self.task = task

    def __repr__(self) -> str:
        return f"<RunOutput {self.task!r} of {self.run}>"


class HasOutput:
    """What may stand among a task's arguments for the result that it will have: a run."""

    __slots__ = ()

    def output(self, task: Any = None) -> RunOutput | list[RunOutput]:
        """Give what stands for its result."""
        raise NotImplementedError


Handle: TypeAlias = TaskHandle | MapHandle


class Call(msgspec.Struct, frozen=True):
    """A function and its arguments, handles left in place.

    For a map over a handle the first argument is that handle; the function is called with each of its
    items and the remaining arguments. `is_async` marks a coroutine function: what it returns is awaited.
    """

    fn: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    has_handles: bool = False
    is_async: bool = False


def call_of(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """Make a call of its parts, with its marks."""
    found = any(find_handles(value) for value in (*args, *kwargs.values()))
    return Call(fn, args, kwargs, found, inspect.iscoroutinefunction(fn))


ATOMS: Final = frozenset({int, float, str, bool, bytes, type(None), complex, bytearray})
_CONTAINERS: Final = (list, tuple, set, frozenset, dict)


def find_handles(value: Any) -> list[Handle]:
    """List the handles in an argument, each once, in the order in which they stand; runs among them.

    Raises
    ------
    InvalidConfig
        If one is inside a container of a kind that cannot be made anew with a value in its place.

    Examples
    --------
    >>> from agentflow.core.scheduling import Workflow
    >>> flow = Workflow("nested")
    >>> a, b = flow.add(int, id="a"), flow.add(int, id="b")
    >>> [handle.id for handle in find_handles({"x": [b, (1, a)], "y": {b}})]
    ['b', 'a']
    """
    if type(value) in ATOMS:
        return []
    found: dict[Handle, None] = {}
    seen: set[int] = set()
    stack: list[tuple[Any, Any]] = [(value, None)]
    while stack:
        each, inside = stack.pop()
        kind = type(each)
        if kind in ATOMS:
            continue
        if isinstance(each, TaskHandle | MapHandle):
            if inside is not None:
                raise InvalidConfig(
                    f"a handle inside a {type(inside).__name__} cannot be replaced by its value; "
                    f"use a list, tuple, dict or set",
                    field="args",
                    task=each.id,
                )
            found[each] = None
        elif isinstance(each, RunOutput | HasOutput):
            found[each] = None  # type: ignore[index]
        elif isinstance(each, _CONTAINERS) and id(each) not in seen:
            # By identity, so that a list that contains itself ends; `value` keeps them all alive.
            seen.add(id(each))
            inner = (part for pair in each.items() for part in pair) if isinstance(each, dict) else each
            parts = [part for part in inner if type(part) not in ATOMS]
            odd = inside if inside is not None or _can_rebuild(each) else each
            if odd is None and all(type(part) is TaskHandle for part in parts):
                found.update(dict.fromkeys(parts))
            else:
                stack += [(part, odd) for part in reversed(parts)]
    return list(found)


def replace_outputs(value: Any, handle_of: Callable[[RunOutput], Handle]) -> Any:
    """Give the same argument with handles in the places of other runs' results."""
    if any(isinstance(each, RunOutput | HasOutput) for each in find_handles(value)):
        return _replace_outputs(value, handle_of)
    return value


def _replace_outputs(value: Any, handle_of: Callable[[RunOutput], Handle]) -> Any:
    kind = type(value)
    if isinstance(value, HasOutput):
        value = value.output()
        kind = type(value)
    if isinstance(value, RunOutput):
        return handle_of(value)
    if kind in (list, tuple, set, frozenset):
        return kind([_replace_outputs(part, handle_of) for part in value])
    if kind is dict:
        return {key: _replace_outputs(part, handle_of) for key, part in value.items()}
    return value


def _can_rebuild(container: Any) -> bool:
    kind = type(container)
    return kind in _CONTAINERS or hasattr(kind, "_make")


def substitute(value: Any, lookup: Callable[[Handle], Any]) -> Any:
    """Give the same argument with values in the handles' places.

    Parameters
    ----------
    value : Any
        An argument, or all of them.
    lookup : callable
        Gives the value for a `TaskHandle`, and the list of values for a `MapHandle`.

    Returns
    -------
    Any
        A new container where a handle was inside; else the very object given.

    Examples
    --------
    >>> from agentflow.core.scheduling import Workflow
    >>> flow = Workflow("nested")
    >>> a = flow.add(int, id="a")
    >>> substitute({"x": [a, 2]}, lambda handle: 1)
    {'x': [1, 2]}
    """
    return _substitute(value, lookup, set())


def _substitute(value: Any, lookup: Callable[[Handle], Any], path: set[int]) -> Any:
    kind = type(value)
    if kind in ATOMS:
        return value
    if isinstance(value, TaskHandle | MapHandle):
        return lookup(value)
    if not isinstance(value, _CONTAINERS) or id(value) in path or not _can_rebuild(value):
        return value
    path.add(id(value))
    try:
        if isinstance(value, dict):
            pairs = [(_substitute(k, lookup, path), _substitute(v, lookup, path)) for k, v in value.items()]
            same = all(k is a and v is b for (k, v), (a, b) in zip(value.items(), pairs, strict=True))
            return value if same else dict(pairs)
        parts = [_substitute(part, lookup, path) for part in value]
        if all(part is old for part, old in zip(parts, value, strict=True)):
            return value
        return kind._make(parts) if hasattr(kind, "_make") else kind(parts)
    finally:
        path.discard(id(value))
