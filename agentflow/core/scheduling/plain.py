"""A workflow as plain data, and back.

Law: `from_dict(to_dict(flow))` has the same tasks, calls and maps. Where arguments are such as JSON has, the
data also pass through JSON unharmed; what JSON has not (tuples, sets, handles, functions that can be
imported) is written as a dict with one key that begins with `$`. Anything else stays the object it is.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from agentflow.core.scheduling.handles import Handle, MapHandle, TaskHandle, call_of
from agentflow.core.scheduling.tasks import Backoff, TaskNode, TaskPriority
from agentflow.core.scheduling.workflow import Workflow
from agentflow.errors import DuplicateTask, InvalidConfig, MissingDependency

Functions = Mapping[str, Callable[..., Any]]

_DEFAULTS: Final = TaskNode("default")
_FIELDS: Final = tuple(name for name in TaskNode.__struct_fields__ if name != "id")
_SEQUENCES: Final[dict[str, type]] = {"$tuple": tuple, "$set": set, "$frozenset": frozenset}
_NAMES: Final = {kind: name for name, kind in _SEQUENCES.items()}


def to_dict(flow: Workflow) -> dict[str, Any]:
    """Give a workflow as plain data; see `Workflow.to_dict`."""
    tasks = []
    for task, node in flow.tasks.items():
        entry = _fields_of(node)
        if (call := flow.calls.get(task)) is not None:
            entry["call"] = {"fn": pack(call.fn)}
            if call.args:
                entry["call"]["args"] = [pack(value) for value in call.args]
            if call.kwargs:
                entry["call"]["kwargs"] = pack(call.kwargs)
        tasks.append(entry)
    found: dict[str, Any] = {"name": flow.name, "tasks": tasks}
    if flow.maps:
        found["maps"] = [_told(handle, flow) for handle in flow.maps.values()]
    return found


def _told(handle: MapHandle, flow: Workflow) -> dict[str, Any]:
    if not handle.static:
        return {"id": handle.id, "over": pack(handle.source)}
    told: dict[str, Any] = {"id": handle.id, "items": [each.id for each in handle]}
    # An empty map leaves no trace in the dependencies of who waits for it.
    if not handle.items and flow.is_used(handle):
        told["used"] = True
    return told


def _fields_of(node: TaskNode) -> dict[str, Any]:
    """A task's settings, those that are not the default ones."""
    entry: dict[str, Any] = {"id": node.id}
    for field in _FIELDS:
        value = getattr(node, field)
        if value == (node.id if field == "name" else getattr(_DEFAULTS, field)):
            continue
        match field:
            case "priority":
                value = value.name.lower()
            case "when" | "state":
                value = str(value)
            case "dependencies" | "locks":
                value = list(value)
            case "backoff":
                value = msgspec.structs.asdict(value)
            case "retry_on" | "metadata" | "resources" | "requires":
                value = pack(value)
        entry[field] = value
    return entry


def from_dict(data: Mapping[str, Any], *, functions: Functions | None = None) -> Workflow:
    """Make a workflow of plain data; see `Workflow.from_dict`."""
    if not isinstance(data, Mapping) or not isinstance(data.get("tasks"), list | tuple):
        raise InvalidConfig("a workflow is a dict with 'name' and a list of 'tasks'", field="data")
    flow = Workflow(data.get("name", "workflow"))
    known = functions or {}
    calls: list[tuple[str, Any]] = []
    for entry in data["tasks"]:
        if not isinstance(entry, Mapping) or "id" not in entry:
            raise InvalidConfig(f"a task is a dict with an 'id', not {entry!r}", field="tasks")
        settings = dict(entry)
        call = settings.pop("call", None)
        if unknown := settings.keys() - set(TaskNode.__struct_fields__):
            raise InvalidConfig(f"task {entry['id']!r} has no field {min(unknown)!r}", field=min(unknown))
        flow.add_task(_node_of(settings, flow, known))
        if call is not None:
            calls.append((entry["id"], call))
    for entry in data.get("maps", ()):
        _restore_map(flow, entry, known)
    for task, call in calls:
        fn = unpack(call["fn"], flow, known)
        args = tuple(unpack(value, flow, known) for value in call.get("args", ()))
        flow.calls[task] = call_of(fn, args, unpack(call.get("kwargs", {}), flow, known))
    return flow


def _node_of(settings: dict[str, Any], flow: Workflow, functions: Functions) -> TaskNode:
    for field in ("retry_on", "metadata", "resources", "requires"):
        if field in settings:
            settings[field] = unpack(settings[field], flow, functions)
    if isinstance(settings.get("backoff"), Mapping):
        settings["backoff"] = Backoff(**settings["backoff"])
    if "priority" in settings:
        settings["priority"] = TaskPriority.of(settings["priority"])
    return TaskNode(**settings)


def _restore_map(flow: Workflow, entry: Mapping[str, Any], functions: Functions) -> None:
    stem = entry["id"]
    if stem in flow.maps:
        raise DuplicateTask(f"there are two maps {stem!r}", task=stem)
    if "over" in entry:
        source = unpack(entry["over"], flow, functions)
        flow.expansions[stem] = source
        flow.maps[stem] = MapHandle(flow, stem, (), source)
        return
    for item in entry["items"]:
        if item not in flow:
            raise MissingDependency(f"map {stem!r} has no item {item!r}", task=stem, dependency=item)
    handle = flow.maps[stem] = MapHandle(flow, stem, [TaskHandle(flow, item) for item in entry["items"]])
    if entry.get("used"):
        flow.use(handle)


# --- values -----------------------------------------------------------------------------------------------


def pack(value: Any) -> Any:
    """Write a value so that JSON can have it, as far as that goes.

    Examples
    --------
    >>> pack({"size": (1, 2), 3: len})
    {'$dict': [['size', {'$tuple': [1, 2]}], [3, {'$ref': 'builtins:len'}]]}
    """
    kind = type(value)
    if kind is list:
        return [pack(part) for part in value]
    if kind is dict:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: pack(part) for key, part in value.items()}
        return {"$dict": [[pack(key), pack(part)] for key, part in value.items()]}
    if kind in _NAMES:
        parts = [pack(part) for part in value]
        # A set has no order of its own; the data should not change from one run to the next.
        return {_NAMES[kind]: parts if kind is tuple else sorted(parts, key=repr)}
    if isinstance(value, TaskHandle):
        return {"$task": value.id}
    if isinstance(value, MapHandle):
        return {"$map": value.id}
    if isinstance(value, tuple) and hasattr(kind, "_make"):
        return {"$make": [pack(kind), [pack(part) for part in value]]}
    if callable(value) and (name := reference(value)) is not None:
        return {"$ref": name}
    return value


def unpack(value: Any, flow: Workflow, functions: Functions) -> Any:
    """Read what `pack` wrote."""
    if isinstance(value, list):
        return [unpack(part, flow, functions) for part in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1 or not (name := next(iter(value))).startswith("$"):
        return {key: unpack(part, flow, functions) for key, part in value.items()}
    inner = value[name]
    if name == "$task":
        return _handle(flow, inner, TaskHandle)
    if name == "$map":
        return _handle(flow, inner, MapHandle)
    if name == "$ref":
        return resolve(inner, functions)
    parts = [unpack(part, flow, functions) for part in inner]
    if name == "$dict":
        return {key: part for key, part in parts}  # noqa: C416
    if name == "$make":
        return parts[0]._make(parts[1])
    if name in _SEQUENCES:
        return _SEQUENCES[name](parts)
    raise InvalidConfig(f"{name!r} is no kind of value that a workflow is written with", field=name)


def _handle(flow: Workflow, task: str, kind: type[Handle]) -> Handle:
    if task in flow.maps and kind is MapHandle:
        return flow.use(flow.maps[task])
    if task not in flow or kind is MapHandle:
        raise MissingDependency(
            f"an argument stands for {task!r}, and there is no such task", dependency=task
        )
    return TaskHandle(flow, task)


def reference(value: Any) -> str | None:
    """Give `module:name` of what can be found again under it, else None.

    Examples
    --------
    >>> reference(str.upper), reference(lambda: 0)
    ('builtins:str.upper', None)
    """
    module = getattr(value, "__module__", None) or "builtins"
    name = getattr(value, "__qualname__", None)
    if not isinstance(name, str) or not isinstance(module, str) or module == "__main__":
        return None
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is value else None


def resolve(name: str, functions: Functions) -> Any:
    """Find what `reference` named, importing its module if need be."""
    if name in functions:
        return functions[name]
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidConfig(
            f"{name!r} cannot be found ({error}); install its module, or give functions={{{name!r}: ...}}",
            field="functions",
            reference=name,
        ) from error
    return found
