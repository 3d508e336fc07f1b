"""What an object should do when nobody else touches it: sequential specifications.

Law: a model is a pure function from a state and a question to an answer and a new state. States are
values: hashable, never changed in place.

A model of your own is a class with `initial` and `apply`; say in `reads` which functions never change the
state, and checking gets faster:

>>> class Counter:
...     initial = 0
...     reads = frozenset({"get"})
...     def apply(self, state, function, argument):
...         return (state, state) if function == "get" else (ANY, state + argument)
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final, Protocol, runtime_checkable

from agentflow.errors import InvalidConfig


class _Any:
    def __repr__(self) -> str:
        return "ANY"

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


ANY: Final = _Any()
"""An answer that says nothing: whatever the client was told is right."""


@runtime_checkable
class Model(Protocol):
    """A sequential object.

    `reads`, an optional attribute, is the set of functions that never change the state.
    """

    @property
    def initial(self) -> Hashable:
        """The state before the first operation."""
        ...

    def apply(self, state: Any, function: str, argument: Any) -> tuple[Any, Hashable]:
        """Return the answer and the new state."""
        ...


def reads_of(model: Model) -> frozenset[str]:
    """Return the functions that a model says never change the state.

    Examples
    --------
    >>> sorted(reads_of(KeyValue()))
    ['get', 'read']
    """
    return frozenset(getattr(model, "reads", ()))


class KeyValue:
    """The value behind one key: `get`, `put` (or `set`), `append`, `cas`.

    `cas` takes a pair (expected, new) and answers whether it wrote. `append` concatenates strings; to a
    key without a value it writes. `read` and `write` are other words for `get` and `put`.

    Parameters
    ----------
    initial : Any
        The value of a key never written: None, or "" for stores that say so.

    Examples
    --------
    >>> KeyValue(initial="").apply("ab", "append", "c")
    (ANY, 'abc')
    >>> KeyValue().apply("ab", "cas", ("x", "y"))
    (False, 'ab')
    """

    reads = frozenset({"get", "read"})
    writes = frozenset({"put", "set", "write"})

    def __init__(self, initial: Any = None) -> None:
        self.initial = initial

    def apply(self, state: Any, function: str, argument: Any) -> tuple[Any, Any]:
        """Return the answer and the new value."""
        if function in self.reads:
            return state, state
        if function in self.writes:
            return ANY, argument
        if function == "append":
            return ANY, argument if state is None else state + argument
        if function == "cas":
            expected, new = argument
            return (True, new) if state == expected else (False, state)
        raise InvalidConfig(
            f"a key-value object has no function {function!r}; it has get, put, append and cas",
            field="function",
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(initial={self.initial!r})"


class Register(KeyValue):
    """One register: `read`, `write`, `cas`. The same as a key without `append`.

    Examples
    --------
    >>> Register(0).apply(0, "cas", (0, 5))
    (True, 5)
    """
