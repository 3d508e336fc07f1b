"""From a workflow to a submission, and from an order back to a call.

Law: functions and arguments never enter the log. They stay in the object store under the run's payload;
the submission carries positions, options and that reference.
"""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from agentflow.core.control.commands import (
    Backoff,
    Completion,
    ErrorReport,
    Settlement,
    SubmitRun,
    TaskKind,
    TaskOptions,
)
from agentflow.core.control.runs import State
from agentflow.core.nodes.messages import Order, sendable
from agentflow.core.scheduling import Call, MapHandle, TaskHandle, TaskNode, Workflow, substitute
from agentflow.errors import InvalidConfig
from agentflow.executors.base import Outcome
from agentflow.ids import TaskId
from agentflow.objects.base import ObjectStore
from agentflow.objects.sizes import is_pandas

MAX_ERROR_CHARACTERS = 20_000
"""How much of an exception's text is kept; the middle of a longer one is cut out."""

ITEMS_SUFFIX = "/items"

OWNED_AT_MOST = 64
"""Longer arguments are not searched for pandas objects."""


class Missing(msgspec.Struct, frozen=True):
    """Stands in an argument's place for a task that has no value: it failed, was cancelled or skipped.

    Only tasks whose trigger rule lets them run all the same (`when="all_done"`, ...) ever see one. It is
    false, so that `[part for part in parts if part]` leaves it out.
    """

    task: TaskId
    state: str = ""

    def __bool__(self) -> bool:
        return False


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
    """

    __slots__ = ("calls", "position", "retry_on")

    def __init__(
        self, calls: list[Call | None], position: Mapping[TaskId, int], retry_on: dict[int, Any]
    ) -> None:
        self.calls = calls
        self.position = position
        self.retry_on = retry_on


def options_of(node: TaskNode) -> TaskOptions:
    """What the control plane must know of a task's settings."""
    backoff = node.backoff
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
        locks=tuple(node.locks),
    )


def compile_flow(flow: Workflow, *, key: str, payload: str) -> tuple[SubmitRun, CallTable]:
    """Turn a workflow into what the masters are told and what stays in the object store.

    Parameters
    ----------
    flow : Workflow
        What to run; it is validated here, before anything is sent.
    key : str
        Idempotency key.
    payload : str
        Under what the calls will be kept.
    """
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
    submission = SubmitRun(
        key=key,
        name=flow.name,
        ids=tuple(ids),
        dependencies=tuple(tuple(position[d] for d in each) for each in dependencies),
        options=options,
        option_of=option_of,
        payload=payload,
        expands=tuple((position[expander], position[gather]) for expander, gather in expands),
    )
    retry_on = {i: node.retry_on for i, node in enumerate(nodes) if node.retry_on is not None}
    return submission, CallTable(calls, position, retry_on)


def _share(options: list[TaskOptions]) -> tuple[tuple[TaskOptions, ...], tuple[int, ...]]:
    """List each set of options once."""
    seen: dict[TaskOptions, int] = {}
    option_of = tuple(seen.setdefault(each, len(seen)) for each in options)
    return tuple(seen) or (TaskOptions(),), option_of if len(seen) > 1 else ()


class Workbench:
    """Turns orders into calls, and what comes of them into completions.

    Parameters
    ----------
    objects : ObjectStore
        Where payloads, values and exceptions are kept.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self.objects = objects

    def perform(self, order: Order) -> Any:
        """Do what an order says, on the thread that calls."""
        if order.kind is TaskKind.GATHER:
            return self._gather(order)
        if order.kind is TaskKind.EXPAND:
            table = self._table(order)
            call = table.calls[order.call]
            assert call is not None, "an expander has the call of its map"
            return list(substitute(call.args[0], self._lookup(order, table)))
        fn, args, kwargs = self._resolve(order)
        return None if fn is None else fn(*args, **kwargs)

    def call_of(self, order: Order) -> Callable[[], Any]:
        """Give the user's call with every argument in its place, fit to be carried out elsewhere."""
        fn, args, kwargs = self._resolve(order)
        assert fn is not None, "only calls of the user's are carried out elsewhere"
        return functools.partial(fn, *args, **kwargs)

    def is_users(self, order: Order) -> bool:
        """Whether the order is a call of a function of the user's."""
        if order.kind is TaskKind.GATHER or order.kind is TaskKind.EXPAND:
            return False
        return self._table(order).calls[order.call] is not None

    def _table(self, order: Order) -> CallTable:
        table: CallTable = self.objects.get(("payload", order.payload))
        return table

    def _resolve(self, order: Order) -> tuple[Callable[..., Any] | None, tuple[Any, ...], dict[str, Any]]:
        """The function of an order, and its arguments with values in the handles' places."""
        table = self._table(order)
        call = table.calls[order.call]
        if call is None:
            return None, (), {}
        if order.kind is TaskKind.ITEM:
            lookup = self._lookup(order, table)
            items = self.objects.get(("value", order.inputs[0][1]))
            rest, kwargs = substitute(call.args[1:], lookup), substitute(call.kwargs, lookup)
            return call.fn, own((items[order.item], *rest)), own(kwargs)
        if not call.has_handles:
            return call.fn, own(call.args), own(call.kwargs)
        lookup = self._lookup(order, table)
        return call.fn, own(substitute(call.args, lookup)), own(substitute(call.kwargs, lookup))

    def _gather(self, order: Order) -> list[Any]:
        found = dict(order.inputs[1:])
        return [self.objects.get(("value", found[task])) for task in sorted(found)]

    def _lookup(self, order: Order, table: CallTable) -> Callable[[TaskHandle | MapHandle], Any]:
        made_by = dict(order.inputs)
        objects, position = self.objects, table.position

        def value_of(name: TaskId) -> Any:
            at = position[name]
            attempt = made_by.get(at)
            if attempt is None:
                return Missing(name, State(dict(order.missing).get(at, State.PENDING)).name)
            return objects.get(("value", attempt))

        def lookup(handle: TaskHandle | MapHandle) -> Any:
            if isinstance(handle, MapHandle) and handle.static:
                return [value_of(each.id) for each in handle]
            return value_of(handle.id)

        return lookup

    def complete(self, order: Order, outcome: Outcome, *, keep: bool = True) -> Completion:
        """Keep what an attempt made, and say in the log's words how it ended."""
        try:
            return self._completion(order, outcome, keep)
        except Exception as error:
            # Whatever it is that cannot even be reported, its worker must not wait for it for ever.
            failed = Outcome(None, error, outcome.started, outcome.finished, outcome.cpu_s)
            return self._completion(order, failed, False)

    def _completion(self, order: Order, outcome: Outcome, keep: bool) -> Completion:
        error, stdout = outcome.error, sendable(outcome.stdout)
        if error is None:
            size = self.objects.put(("value", order.attempt), outcome.value) if keep else 0
            items = len(outcome.value) if order.kind is TaskKind.EXPAND else -1
            return Completion(
                order.attempt,
                Settlement.COMPLETED,
                outcome.started,
                outcome.finished,
                outcome.cpu_s,
                size,
                None,
                stdout,
                items,
            )
        report = report_of(error, self._worth_retrying(order, error))
        if keep:
            let_go(error)
            self.objects.put(("error", order.attempt), error)
        return Completion(
            order.attempt,
            Settlement.FAILED,
            outcome.started,
            outcome.finished,
            outcome.cpu_s,
            0,
            report,
            stdout,
        )

    def _worth_retrying(self, order: Order, error: BaseException) -> bool:
        payload = ("payload", order.payload)
        if payload not in self.objects:
            return False  # the run was released: there is nothing left to try again
        wanted = self._table(order).retry_on.get(order.call if order.kind is TaskKind.ITEM else order.task)
        if wanted is None:
            return isinstance(error, Exception)
        if isinstance(wanted, type | tuple):
            return isinstance(error, wanted)
        try:
            return bool(wanted(error))
        except Exception as own:
            error.add_note(f"retry_on itself raised {type(own).__name__}: {own}; the task is not tried again")
            return False


def report_of(error: BaseException, retry: bool) -> ErrorReport:
    """Put an exception into words that may travel, however large or broken it is."""
    try:
        message = str(error)
    except Exception as own:
        message = f"(its __str__ raised {type(own).__name__})"
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith("agentflow."):
        frames = frames.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, frames))
    except Exception as own:
        text = f"(its traceback could not be formatted: {type(own).__name__}: {own})"
    name = sendable(type(error).__qualname__)
    return ErrorReport(name, sendable(shorten(message)), sendable(shorten(text)), retry)


def let_go(error: BaseException) -> None:
    """Make an exception hold no data but its own: its text has been taken, the frames may go.

    A traceback keeps every local variable of every frame alive, and so do those of the exceptions before it.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        each.__traceback__ = None
        if isinstance(each, AttributeError):
            each.obj = None
        waiting += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions


def own(value: Any) -> Any:
    """Give an argument with pandas objects of the caller's own: changes made in place stay the task's.

    With copy-on-write a shallow copy is enough. Lists, tuples and dicts are looked into, one level deep.
    """
    if "pandas" not in sys.modules:
        return value
    if type(value) is tuple:
        return tuple([_own(part) for part in value])
    return {name: _own(part) for name, part in value.items()} if value else value


def _own(value: Any) -> Any:
    if type(value) in (list, tuple) and len(value) <= OWNED_AT_MOST:
        return type(value)(map(_own_frame, value)) if any(map(is_pandas, value)) else value
    if type(value) is dict and len(value) <= OWNED_AT_MOST:
        found = any(map(is_pandas, value.values()))
        return {key: _own_frame(part) for key, part in value.items()} if found else value
    return _own_frame(value)


def _own_frame(value: Any) -> Any:
    return value.copy(deep=False) if is_pandas(value) else value


def shorten(text: str, limit: int = MAX_ERROR_CHARACTERS) -> str:
    r"""Cut the middle out of a text that is too long.

    Examples
    --------
    >>> shorten("abcdefgh", limit=4)
    'ab\n... 4 characters left out ...\ngh'
    """
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
