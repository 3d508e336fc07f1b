"""What a worker says of itself, and when its silence means something.

Law: numbers that cannot be are refused when they are said; zero of everything is allowed and means that
nothing fits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any, Final

import msgspec

from agentflow.core.scheduling.tasks import Attribute, check_name
from agentflow.errors import InvalidConfig
from agentflow.ids import NodeId

DEFAULT_GROUP: Final = "default"


class WorkerStatus(StrEnum):
    """What a worker is up to."""

    ACTIVE = "ACTIVE"
    """It takes tasks."""
    BUSY = "BUSY"
    """It runs as many tasks as it can, and takes no more for now."""
    OFFLINE = "OFFLINE"
    """Nothing has been heard of it for too long, or it was reported unhealthy."""
    DRAINING = "DRAINING"
    """It finishes what it runs and takes nothing new."""

    @classmethod
    def _missing_(cls, value: object) -> WorkerStatus | None:
        return cls.__members__.get(value.upper()) if isinstance(value, str) else None


class WorkerHealth(StrEnum):
    """How long ago a worker was last heard of."""

    ALIVE = "alive"
    LATE = "late"
    """A heartbeat is overdue."""
    SUSPECTED = "suspected"
    """It gets no new tasks until it is heard again."""
    OFFLINE = "offline"
    """It is given up: what it ran goes elsewhere."""


class WorkerResources(msgspec.Struct, frozen=True):
    """What a worker has.

    Parameters
    ----------
    cpu_cores : float
        Cores; a share of one is allowed.
    total_memory_mb, available_memory_mb : float
        Memory, and how much of it is free; all of it unless said otherwise.
    gpu_count : float
        GPUs; a share of one is allowed.
    concurrent_tasks : int
        Tasks it runs now.
    max_tasks : int
        Tasks it runs at most.
    custom_attributes : dict
        Whatever else it says of itself: a number is a resource that tasks take from, anything may be
        required by a task.

    Raises
    ------
    InvalidConfig
        With the offending `field`.

    Examples
    --------
    >>> WorkerResources(cpu_cores=4, total_memory_mb=8000, available_memory_mb=4000, concurrent_tasks=2).load
    0.5
    """

    cpu_cores: float = 1.0
    total_memory_mb: float = 0.0
    available_memory_mb: float = -1.0
    gpu_count: float = 0.0
    concurrent_tasks: int = 0
    max_tasks: int = 4
    custom_attributes: dict[str, Attribute] = {}

    def __post_init__(self) -> None:
        if self.available_memory_mb == -1.0:
            msgspec.structs.force_setattr(self, "available_memory_mb", self.total_memory_mb)
        for field in ("cpu_cores", "total_memory_mb", "available_memory_mb", "gpu_count"):
            value: Any = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InvalidConfig(f"{field}={value!r}: a worker has a finite number of it", field=field)
        for field in ("concurrent_tasks", "max_tasks"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int):
                raise InvalidConfig(f"{field}={value!r}: tasks are counted in whole numbers", field=field)
        for field in RESOURCE_FIELDS:
            if (value := getattr(self, field)) < 0:
                raise InvalidConfig(f"{field}={value!r} is negative; 0 says that there is none", field=field)
        if self.available_memory_mb > self.total_memory_mb:
            raise InvalidConfig(
                f"available_memory_mb={self.available_memory_mb!r} is more than "
                f"total_memory_mb={self.total_memory_mb!r}",
                field="available_memory_mb",
            )
        given: dict[Any, Any] = self.custom_attributes
        for name, value in given.items():
            absurd = not math.isfinite(value) or value < 0 if isinstance(value, int | float) else False
            if not isinstance(name, str) or not isinstance(value, str | int | float | bool) or absurd:
                raise InvalidConfig(
                    f"custom_attributes[{name!r}]={value!r}: an attribute is a text, a truth value or a number "
                    f"from 0",
                    field="custom_attributes",
                )

    @property
    def load(self) -> float:
        """Load score, lower is better: 0.6 of the share of memory used, 0.4 of the tasks a core.

        A worker without memory figures counts as having all of it free; one without cores as
        overloaded as soon as it runs anything.
        """
        return self.load_with(self.concurrent_tasks)

    def load_with(self, running: int) -> float:
        """The load score it would have if it ran so many tasks."""
        total, cores = self.total_memory_mb, self.cpu_cores
        memory = 1.0 - self.available_memory_mb / total if total else 0.0
        if cores:
            return 0.6 * memory + 0.4 * running / cores
        return math.inf if running else 0.6 * memory


RESOURCE_FIELDS: Final = (
    "cpu_cores",
    "total_memory_mb",
    "available_memory_mb",
    "gpu_count",
    "concurrent_tasks",
    "max_tasks",
)


class WorkerInfo(msgspec.Struct, frozen=True):
    """A worker, as the registry knows it.

    Parameters
    ----------
    id : str
        Its name.
    name : str, optional
        What people see; the id by default.
    group_name : str
        The group it belongs to.
    status : WorkerStatus
        What it is up to.
    resources : WorkerResources
        What it has.
    capabilities : iterable of str
        What it can do; a task requires one as `requires={"cuda": True}`.
    registered_at : float, optional
        When it registered; the registry fills it in.
    error : str
        Why it was reported unhealthy.
    """

    id: NodeId
    name: str = ""
    group_name: str = DEFAULT_GROUP
    status: WorkerStatus = WorkerStatus.ACTIVE
    resources: WorkerResources = WorkerResources()
    capabilities: tuple[str, ...] = ()
    registered_at: float | None = None
    error: str = ""

    def __post_init__(self) -> None:
        check_name("a worker's id", self.id, field="id")
        check_name("a worker's group", self.group_name, field="group_name")
        fix = msgspec.structs.force_setattr
        if not self.name:
            fix(self, "name", self.id)
        given: Any = self.resources
        if not isinstance(given, WorkerResources):
            raise InvalidConfig(f"resources={given!r} are no WorkerResources", field="resources")
        given = self.capabilities
        if isinstance(given, str):
            raise InvalidConfig(
                f"capabilities={given!r} is a list of names; write [{given!r}]", field="capabilities"
            )
        fix(self, "capabilities", tuple(given))
        try:
            fix(self, "status", WorkerStatus(self.status))
        except ValueError:
            raise InvalidConfig(f"status={self.status!r} is no WorkerStatus", field="status") from None

    @property
    def load(self) -> float:
        """Its load score; see `WorkerResources.load`."""
        return self.resources.load


@dataclass(frozen=True)
class HealthCheckConfig:
    """How often workers beat, and when silence means something.

    Parameters
    ----------
    heartbeat_interval_secs : float
        Workers beat this often; one whose beat is half an interval overdue is late.
    suspect_after_secs : float
        After this much silence a worker gets no new tasks.
    offline_after_secs : float
        After this much silence it is given up.

    Raises
    ------
    InvalidConfig
        If one is not above 0, or they are not in ascending order.

    Examples
    --------
    >>> HealthCheckConfig(heartbeat_interval_secs=1, suspect_after_secs=3, offline_after_secs=10).health_of(4)
    <WorkerHealth.SUSPECTED: 'suspected'>
    """

    heartbeat_interval_secs: float = 1.0
    suspect_after_secs: float = 3.0
    offline_after_secs: float = 10.0

    def __post_init__(self) -> None:
        fields = ("heartbeat_interval_secs", "suspect_after_secs", "offline_after_secs")
        for field in fields:
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise InvalidConfig(f"{field}={value!r}: a time is a finite number above 0", field=field)
        for shorter, longer in pairwise(fields):
            if getattr(self, shorter) > getattr(self, longer):
                raise InvalidConfig(
                    f"{longer}={getattr(self, longer)!r} is shorter than {shorter}={getattr(self, shorter)!r}",
                    field=longer,
                )

    def health_of(self, silence_secs: float) -> WorkerHealth:
        """Say what it means not to have heard of a worker for so long."""
        if silence_secs > self.offline_after_secs:
            return WorkerHealth.OFFLINE
        if silence_secs > self.suspect_after_secs:
            return WorkerHealth.SUSPECTED
        if silence_secs > 1.5 * self.heartbeat_interval_secs:
            return WorkerHealth.LATE
        return WorkerHealth.ALIVE
