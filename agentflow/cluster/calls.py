"""From an order back to a call, and from what came of it to a report.

Law: an attempt whose inputs are not there fails for that reason alone, and names them; nothing stands in
for a value that is gone.
"""

from __future__ import annotations

import functools
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import msgspec

from agentflow.cluster.compiling import CallTable, compile_growth
from agentflow.core.control.commands import Completion, ErrorReport, Settlement, TaskKind
from agentflow.core.control.runs import State
from agentflow.core.nodes.messages import Order, growth_of, sendable
from agentflow.core.scheduling import MapHandle, TaskHandle, Workflow, substitute
from agentflow.errors import AgentflowError, ObjectLost, ResultTooLarge
from agentflow.executors.base import Outcome
from agentflow.ids import AttemptId, TaskId
from agentflow.objects.base import ObjectStore
from agentflow.objects.sizes import is_pandas

MAX_ERROR_CHARACTERS = 20_000
"""How much of an exception's text is kept; the middle of a longer one is cut out."""

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


class InputsLost(Exception):
    """Values that an attempt takes are not in the store; `tasks` are the positions of those who made them."""

    def __init__(self, tasks: tuple[int, ...]) -> None:
        super().__init__(tasks)
        self.tasks = tasks


class GivenBack(Exception):
    """An order that was taken ahead and not begun, because those before it take long."""


class Workbench:
    """Turns orders into calls, and what comes of them into completions.

    Parameters
    ----------
    objects : ObjectStore
        Where payloads, values and exceptions are kept.
    max_result_bytes : int, optional
        A task whose value is larger fails.
    clock : callable
        Gives the seconds of the cluster.
    """

    def __init__(
        self,
        objects: ObjectStore,
        max_result_bytes: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.objects = objects
        self.clock = clock
        self.max_result_bytes = max_result_bytes

    def perform(self, order: Order) -> Any:
        """Do what an order says, on the thread that calls."""
        kind = order.kind
        if kind is TaskKind.GATHER:
            return self._gather(order)
        if kind is TaskKind.EXPAND:
            return self._expand(order)
        if kind is TaskKind.JOIN:
            return self._join(order)
        fn, args, kwargs = self._resolve(order)
        return None if fn is None else fn(*args, **kwargs)

    def inputs_of(self, order: Order) -> tuple[Callable[..., Any] | None, tuple[Any, ...], dict[str, Any]]:
        """The function of an order with its arguments, every value in its place."""
        return self._resolve(order)

    def call_of(self, order: Order) -> Callable[[], Any]:
        """Give the user's call with every argument in its place, fit to be carried out elsewhere."""
        fn, args, kwargs = self._resolve(order)
        assert fn is not None, "only calls of the user's are carried out elsewhere"
        return functools.partial(fn, *args, **kwargs)

    def is_users(self, order: Order) -> bool:
        """Whether the order is a call of a function of the user's."""
        if order.kind in (TaskKind.GATHER, TaskKind.EXPAND, TaskKind.JOIN):
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
            items = self._value(order, *order.inputs[0])
            rest, kwargs = substitute(call.args[1:], lookup), substitute(call.kwargs, lookup)
            return call.fn, own((items[order.item], *rest)), own(kwargs)
        if not call.has_handles:
            return call.fn, own(call.args), own(call.kwargs)
        lookup = self._lookup(order, table)
        return call.fn, own(substitute(call.args, lookup)), own(substitute(call.kwargs, lookup))

    def _expand(self, order: Order) -> list[Any]:
        table = self._table(order)
        call = table.calls[order.call]
        assert call is not None, "an expander has the call of its map"
        return list(substitute(call.args[0], self._lookup(order, table)))

    def _gather(self, order: Order) -> list[Any]:
        found = dict(order.inputs[1:])
        return [self._value(order, task, found[task]) for task in sorted(found)]

    def _join(self, order: Order) -> Any:
        """The value of the workflow that a task returned: that of its only end, or of each by name."""
        made_by, table = dict(order.inputs), self._table(order)

        def value_of(name: TaskId) -> Any:
            at = table.position[name]
            return self._value(order, at, made_by[at])

        values = {
            name: [value_of(each) for each in end] if isinstance(end, list) else value_of(end)
            for name, end in table.ends.items()
        }
        return next(iter(values.values())) if len(values) == 1 else values or None

    def _value(self, order: Order, task: int, attempt: AttemptId) -> Any:
        try:
            return self.objects.get(("value", attempt))
        except ObjectLost:
            lost = [each for each, maker in order.inputs if ("value", maker) not in self.objects]
            raise InputsLost(tuple(each + order.base for each in lost or [task])) from None

    def _lookup(self, order: Order, table: CallTable) -> Callable[[TaskHandle | MapHandle], Any]:
        made_by = dict(order.inputs)
        position = table.position

        def value_of(name: TaskId) -> Any:
            at = position[name]
            attempt = made_by.get(at)
            if attempt is None:
                return Missing(name, State(dict(order.missing).get(at, State.PENDING)).name)
            return self._value(order, at, attempt)

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
            return self._completion(order, failed, keep and isinstance(error, AgentflowError))

    def _completion(self, order: Order, outcome: Outcome, keep: bool) -> Completion:
        error, stdout = outcome.error, sendable(outcome.stdout)
        if error is None:
            grown = None
            if isinstance(outcome.value, Workflow) and order.kind in (TaskKind.CALL, TaskKind.ITEM):
                grown, table = compile_growth(outcome.value)
                size = self.objects.put(("payload", growth_of(order.attempt)), table) if keep else 0
            else:
                size = self.objects.put(("value", order.attempt), outcome.value) if keep else 0
                if self.max_result_bytes is not None and size > self.max_result_bytes:
                    self.objects.delete(("value", order.attempt))
                    raise _too_large(order, size, self.max_result_bytes)
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
                (),
                grown,
            )
        if isinstance(error, GivenBack):
            return Completion(order.attempt, Settlement.CANCELLED, outcome.started, outcome.finished)
        if isinstance(error, InputsLost):
            report = ErrorReport(
                "ObjectLost", "values that it takes had left the store; they are computed again"
            )
            return Completion(
                order.attempt,
                Settlement.FAILED,
                outcome.started,
                outcome.finished,
                error=report,
                lost=error.tasks,
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
        wanted = self._table(order).retry_on.get(order.call)
        if wanted is None:
            return isinstance(error, Exception)
        if isinstance(wanted, type | tuple):
            return isinstance(error, wanted)
        try:
            return bool(wanted(error))
        except Exception as own:
            error.add_note(f"retry_on itself raised {type(own).__name__}: {own}; the task is not tried again")
            return False


def _too_large(order: Order, size: int, limit: int) -> Exception:
    return ResultTooLarge(
        f"{order.id!r} returned {size:,} bytes, and max_result_bytes is {limit:,}; return less, or write it "
        "to a file and return its name",
        task=order.id,
        size=size,
        limit=limit,
    )


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
