"""What the registry keeps of a worker: what it runs, and what it has left.

Law: what a task takes is not free until the task is released, whatever the worker says meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from agentflow.core.scheduling.tasks import Attribute
from agentflow.core.scheduling.workers import WorkerInfo, WorkerResources
from agentflow.errors import InvalidConfig
from agentflow.ids import TaskId

TOLERANCE: Final = 1e-9
"""Ten tenths of a GPU are a whole one."""


class Seat(msgspec.Struct):
    """What the registry keeps of a worker beside what it says of itself."""

    info: WorkerInfo
    heard_at: float
    draining: bool = False
    down: bool = False
    reported: bool = False
    running: dict[TaskId, dict[str, float]] = {}

    def count(self) -> int:
        """Tasks it runs: as many as it was given or says it has, whichever is more."""
        return max(len(self.running), self.info.resources.concurrent_tasks)

    def total(self, resource: str) -> float:
        """How much it has of a resource, were it idle."""
        has = self.info.resources
        match resource:
            case "cpu":
                return float(has.cpu_cores)
            case "gpu":
                return float(has.gpu_count)
            case "memory_mb":
                return float(has.total_memory_mb)
        value = has.custom_attributes.get(resource, 0.0)
        return 0.0 if isinstance(value, str | bool) else float(value)

    def free(self, resource: str) -> float:
        """How much of a resource its tasks have left."""
        left = self.total(resource) - sum(taken.get(resource, 0.0) for taken in self.running.values())
        return min(left, self.info.resources.available_memory_mb) if resource == "memory_mb" else left

    def meets(self, group: str | None, requires: Mapping[str, Attribute]) -> bool:
        """Whether it is what a task requires."""
        if group is not None and group != self.info.group_name:
            return False
        has = self.info.resources.custom_attributes
        able = self.info.capabilities
        for name, wanted in requires.items():
            value = has.get(name, name in able)
            if value != wanted or isinstance(value, bool) != isinstance(wanted, bool):
                return False
        return True


def renewed(old: WorkerResources, new: WorkerResources | Mapping[str, Any]) -> WorkerResources:
    """What a worker has, after its word on it."""
    if isinstance(new, WorkerResources):
        return new
    unknown = [name for name in new if name not in WorkerResources.__struct_fields__]
    if unknown:
        raise InvalidConfig(f"a worker's resources have no field {unknown[0]!r}", field=unknown[0])
    return msgspec.structs.replace(old, **new)
