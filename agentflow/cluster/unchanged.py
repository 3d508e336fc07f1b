"""Which tasks of a workflow are those of an earlier one: same function, same arguments, same inputs.

Law: in doubt a task has changed. It is then computed again, which costs time; a value taken over wrongly
would cost the truth.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

from agentflow.core.scheduling import Call, MapHandle, TaskHandle, Workflow, substitute
from agentflow.ids import TaskId


def unchanged(old: Workflow, new: Workflow) -> Iterator[TaskId]:
    """Yield the tasks of `new` that would compute again what they did in `old`, those they wait for first.

    Maps that expand late are computed anew, and so is what stands for another run.

    Examples
    --------
    >>> def flow(second):
    ...     made = Workflow("sums")
    ...     made.add(sum, [made.add(abs, -1, id="one"), second], id="total")
    ...     return made
    >>> list(unchanged(flow(2), flow(3))), list(unchanged(flow(2), flow(2)))
    (['one'], ['one', 'total'])
    """
    new.validate()
    same: set[TaskId] = set()
    late = {*old.expansions, *new.expansions, *old.sources, *new.sources}
    for task in _in_order(new):
        if task not in old or task in late or task not in old.calls or task not in new.calls:
            continue
        before = new.tasks[task].dependencies
        if set(before) != set(old.tasks[task].dependencies) or not same.issuperset(before):
            continue
        if old.calls[task] is new.calls[task] or _marks(old.calls[task]) == _marks(new.calls[task]) != b"":
            same.add(task)
            yield task


def _in_order(flow: Workflow) -> list[TaskId]:
    from agentflow.core.scheduling import TaskDependencyGraph

    return TaskDependencyGraph.from_workflow(flow).get_execution_order()


def _marks(call: Call) -> bytes:
    """What tells one call from another; empty if that cannot be said."""
    import cloudpickle

    def named(handle: TaskHandle | MapHandle) -> Any:
        return ("the value of", handle.id)

    try:
        code = _code_of(call.fn)
        parts = (code, call.fn, substitute(call.args, named), substitute(call.kwargs, named))
        return bytes(cloudpickle.dumps(parts))
    except Exception:
        return b""


def _code_of(fn: Any) -> Any:
    """A function's code, as plain data: one of an imported module pickles by its name alone."""
    code = getattr(fn, "__code__", None)
    return None if code is None else _plain(code)


def _plain(code: types.CodeType) -> tuple[Any, ...]:
    constants = tuple(
        _plain(each) if isinstance(each, types.CodeType) else repr(each) for each in code.co_consts
    )
    return (code.co_code, constants, code.co_names, code.co_varnames)
