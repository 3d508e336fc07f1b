"""Functions, arguments and results as bytes, for work that leaves this process.

Law: what cannot travel is named. "cannot pickle '_thread.lock' object" helps nobody; "the variable
'cache' of load() is a lock" does.
"""

from __future__ import annotations

import dis
import functools
import pickle
import types
from collections.abc import Iterator
from itertools import islice
from typing import Any

from agentflow.errors import Unpicklable

_DEPTH = 6
_WIDTH = 1000
_ADVICE = "make it inside the task, or run the task with executor='threads'"


def pack(value: Any, subject: str) -> bytes:
    """Return the bytes of `value`, or raise `Unpicklable` naming the part of it that fails.

    Parameters
    ----------
    value : Any
        A call, its arguments included, or a result.
    subject : str
        What it is, for the message: "the result".

    Examples
    --------
    >>> from threading import Lock
    >>> cache = Lock()
    >>> pack(functools.partial(print, [1, cache]), "the call")
    Traceback (most recent call last):
    ...
    agentflow.errors.Unpicklable: the call cannot be sent to another process: argument 1 of print(), item 1
    (a lock) cannot be pickled (...); make it inside the task, or run the task with executor='threads'
    """
    try:
        return _dumps(value)
    except Exception as error:
        culprit = find_culprit(value)
        part = f"{culprit} cannot be pickled" if culprit else f"{_kind(value)} cannot be pickled"
        reason = f"{type(error).__name__}: {error}"
        raise Unpicklable(
            f"{subject} cannot be sent to another process: {part} ({reason}); {_ADVICE}", culprit=culprit
        ) from None


def unpack(data: bytes) -> Any:
    """Return what `pack` packed."""
    return pickle.loads(data)


def find_culprit(value: Any) -> str:
    """Return the way to the innermost part of `value` that cannot be pickled, "" if no part is to blame.

    Examples
    --------
    >>> from threading import Lock
    >>> def outer():
    ...     guard = {"lock": Lock()}
    ...     def task(): return guard
    ...     return task
    >>> find_culprit(outer())
    "variable 'guard' of task(), item 'lock' (a lock)"
    """
    steps: list[str] = []
    been = {id(value)}
    for _ in range(_DEPTH):
        for step, part in islice(_parts(value), _WIDTH):
            if id(part) not in been and not _can_travel(part):
                been.add(id(part))
                steps.append(step)
                value = part
                break
        else:
            break
    return f"{', '.join(steps)} ({_kind(value)})" if steps else ""


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Name the parts that a pickle of `value` contains."""
    if isinstance(value, functools.partial):
        name = _name(value.func)
        yield f"function {name}", value.func
        for number, part in enumerate(value.args):
            yield f"argument {number + 1} of {name}", part
        for key, part in value.keywords.items():
            yield f"argument {key!r} of {name}", part
    elif isinstance(value, types.MethodType):
        yield f"the object of method {_name(value.__func__)}", value.__self__
    elif isinstance(value, types.FunctionType):
        yield from _function_parts(value)
    elif isinstance(value, dict):
        for key, part in value.items():
            yield f"key {key!r}", key
            yield f"item {key!r}", part
    elif isinstance(value, (list, tuple, set, frozenset)):
        for number, part in enumerate(value):
            yield f"item {number}", part
    else:
        for key, part in getattr(value, "__dict__", {}).items():
            yield f"attribute {key!r} of {_kind(value)}", part


def _function_parts(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    name, code = _name(function), function.__code__
    for variable, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"variable {variable!r} of {name}", cell.cell_contents
        except ValueError:  # the cell is still empty
            continue
    for number, part in enumerate(function.__defaults__ or ()):
        yield f"default {number + 1} of {name}", part
    for key, part in (function.__kwdefaults__ or {}).items():
        yield f"default {key!r} of {name}", part
    for variable in dict.fromkeys(_globals_of(code)):
        if variable in function.__globals__:
            yield f"global variable {variable!r} of {name}", function.__globals__[variable]


def _globals_of(code: types.CodeType) -> Iterator[str]:
    """Name the globals that code reads, also within its inner functions.

    Not `co_names`: that has attributes too, and `file.read()` is not about a global `read`.
    """
    for step in dis.get_instructions(code):
        if step.opname == "LOAD_GLOBAL":
            yield step.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals_of(constant)


def _can_travel(value: Any) -> bool:
    try:
        _dumps(value)
    except Exception:
        return False
    return True


def _dumps(value: Any) -> bytes:
    import cloudpickle

    data: bytes = cloudpickle.dumps(value)
    return data


def _name(function: Any) -> str:
    return f"{getattr(function, '__name__', type(function).__name__)}()"


def _kind(value: Any) -> str:
    word = type(value).__name__
    return f"{'an' if word[:1].lower() in 'aeiou' else 'a'} {word}"
