"""Making a cluster again in the same cell gives the cluster that is there.

Law: at most one live cluster has a name, or belongs to one place in one cell. With the same arguments it
is handed back; with others it is replaced if it is idle, and kept, with `Refused`, if it is not.
"""

from __future__ import annotations

import inspect
import sys
import weakref
from typing import Any, TypeAlias

from agentflow.errors import Refused

Place: TypeAlias = tuple[str, ...]

_made: weakref.WeakValueDictionary[Place, Any] = weakref.WeakValueDictionary()
_arguments: dict[Place, Any] = {}
_counting: dict[str, tuple[int, int]] = {}


class Reusing(type):
    """Metaclass whose classes are made once a place."""

    def __call__(cls, *args: Any, replace: bool = False, **kwargs: Any) -> Any:
        """Give the living object of this place, or make one."""
        place = place_of(kwargs.get("name"))
        if place is None:
            return super().__call__(*args, **kwargs)
        place = (cls.__qualname__, *place)
        arguments = _arguments_of(cls, args, kwargs)
        known = _made.get(place)
        if known is not None and not known.closed:
            if _equal(_arguments.get(place), arguments) and not replace:
                return known
            busy = [run.id for run in known.runs.values() if not run.done]
            if busy and not replace:
                raise Refused(
                    f"{known!r} is here already and still works on {', '.join(busy)}; "
                    "wait for it, close it, or pass replace=True",
                )
        # The new one first: arguments that cannot work must not cost the old one.
        made = super().__call__(*args, **kwargs)
        if known is not None:
            known.close()
        _made[place] = made
        _arguments[place] = arguments
        return made


def _arguments_of(cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The arguments by name, defaults included: `Cluster(3)` and `Cluster(masters=3)` are the same."""
    try:
        bound = inspect.signature(cls.__init__).bind(None, *args, **kwargs)
    except TypeError:
        return args, kwargs  # the class itself will say what is wrong with them
    bound.apply_defaults()
    return bound.arguments


def place_of(name: str | None) -> Place | None:
    """What a cluster made now is known by; None in a script without a name."""
    if isinstance(name, str) and name:
        return ("name", name)
    cell = current_cell()
    if cell is None:
        return None
    cell_id, execution = cell
    last, count = _counting.get(cell_id, (-1, 0))
    count = count + 1 if last == execution else 0
    _counting[cell_id] = (execution, count)
    return ("cell", cell_id, str(count))


def current_cell() -> tuple[str, int] | None:
    """The running notebook cell and how often cells were run, if the front end tells the cell's id."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    if shell is None or getattr(shell, "kernel", None) is None:
        return None
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    cell_id = parent.get("metadata", {}).get("cellId") if isinstance(parent, dict) else None
    return (cell_id, shell.execution_count) if cell_id else None


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:
        # Arguments that cannot be compared (arrays, say) are not known to be the same.
        return False
