"""What a task is: its settings, its states, and how it waits between two tries.

Law: a bad setting is refused when the task is made, before any graph, queue or cluster has seen it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

import msgspec

from agentflow.core.control.triggers import RULES
from agentflow.errors import InvalidConfig
from agentflow.ids import TaskId

if TYPE_CHECKING:
    from random import Random

BASE_SCORE: Final = (0, 250, 500, 750, 1000)
"""Base scores by priority; position 0 is unused."""

DEFAULT_DURATION_SECS: Final = 1.0
"""The estimate of a task that has none: a critical path then counts tasks."""


class TaskPriority(IntEnum):
    """How much a task matters; see `PriorityTaskQueue` for what it does to the order.

    Examples
    --------
    >>> TaskPriority.of("high"), TaskPriority.of(4)
    (<TaskPriority.HIGH: 3>, <TaskPriority.URGENT: 4>)
    >>> TaskPriority.LOW.base_score
    250
    """

    LOW = 1
    MEDIUM = 2
    HIGH = 3
    URGENT = 4

    @property
    def base_score(self) -> int:
        """The score of such a task when it enters the queue."""
        return BASE_SCORE[self]

    @classmethod
    def of(cls, value: PriorityLike) -> TaskPriority:
        """Read a priority, its number or its name.

        Raises
        ------
        InvalidConfig
            If it is none of these.
        """
        if type(value) is cls:
            return value
        try:
            return cls[value.upper()] if isinstance(value, str) else cls(value)
        except (KeyError, ValueError):
            names = ", ".join(each.name.lower() for each in cls)
            raise InvalidConfig(
                f"{value!r} is no priority; take one of {names}, or 1 to 4", field="priority", value=value
            ) from None


PriorityLike: TypeAlias = TaskPriority | int | str
"""A priority, its number, or its name in any case."""


class TaskState(StrEnum):
    """The life of a task.

    Examples
    --------
    >>> TaskState("completed")
    <TaskState.COMPLETED: 'COMPLETED'>
    >>> TaskState.SKIPPED.is_final, TaskState.RETRYING.is_final
    (True, False)
    """

    PENDING = "PENDING"
    READY = "READY"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    RETRYING = "RETRYING"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"

    @property
    def is_final(self) -> bool:
        """Whether the task has come to its end."""
        return self in FINAL_STATES

    @classmethod
    def _missing_(cls, value: object) -> TaskState | None:
        return cls.__members__.get(value.upper()) if isinstance(value, str) else None


FINAL_STATES: Final = frozenset(
    {TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED, TaskState.SKIPPED}
)


class TriggerRule(StrEnum):
    """When a task may run, given how its dependencies ended.

    A rule that can no longer be met skips the task. A dependency that never ran because something before
    it failed counts as failed; one that a rule skipped without any failure counts as skipped.
    """

    ALL_SUCCESS = "all_success"
    """Every dependency completed (the default)."""
    ALL_DONE = "all_done"
    """Every dependency came to its end, whichever."""
    ALL_FAILED = "all_failed"
    """Every dependency failed."""
    ONE_SUCCESS = "one_success"
    """As soon as one completed."""
    ONE_FAILED = "one_failed"
    """As soon as one failed."""
    NONE_FAILED = "none_failed"
    """Every dependency came to its end and none failed; some may have been skipped."""
    ALWAYS = "always"
    """At once; the dependencies are not waited for."""

    @classmethod
    def of(cls, value: TriggerRule | str) -> TriggerRule:
        """Read a rule or its name.

        Raises
        ------
        InvalidConfig
            If there is no such rule.

        Examples
        --------
        >>> TriggerRule.of("all_done")
        <TriggerRule.ALL_DONE: 'all_done'>
        """
        if type(value) is cls:
            return value
        try:
            return cls(value)
        except ValueError:
            raise InvalidConfig(
                f"{value!r} is no trigger rule; `when` is one of {', '.join(cls)}", field="when", value=value
            ) from None


assert tuple(TriggerRule) == RULES, "the rules offered are the rules that are kept"


class Backoff(msgspec.Struct, frozen=True):
    """Seconds to wait before the n-th retry: `min(max_secs, base_secs * factor**(n - 1))`, less some jitter.

    Parameters
    ----------
    base_secs : float
        The wait before the first retry.
    factor : float
        By how much each further wait is longer; at least 1.
    max_secs : float
        No wait is longer than this.
    jitter : float
        From 0 to 1: the share of the wait that is drawn at random, so that tasks that failed together do
        not come back together.

    Examples
    --------
    >>> backoff = Backoff(base_secs=1, factor=2, max_secs=10)
    >>> [backoff.delay(n) for n in (1, 2, 3, 4, 5)]
    [1.0, 2.0, 4.0, 8.0, 10.0]
    """

    base_secs: float = 1.0
    factor: float = 2.0
    max_secs: float = 60.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        _check_number("base_secs", self.base_secs, "a wait is never negative")
        _check_number("max_secs", self.max_secs, "a wait is never negative", infinite=True)
        _check_number("factor", self.factor, "waits do not get shorter", least=1.0)
        _check_number("jitter", self.jitter, "it is a share of the wait")
        if self.jitter > 1:
            _refuse("jitter", self.jitter, "is at most 1: it is a share of the wait")

    def delay(self, retry: int, rng: Random | None = None) -> float:
        """Say how long to wait before a retry.

        Parameters
        ----------
        retry : int
            Which one, from 1.
        rng : random.Random, optional
            Where the jitter comes from; without one there is none.
        """
        if retry < 1:
            raise InvalidConfig(f"retries are numbered from 1, so there is no retry {retry}", field="retry")
        try:
            wait = min(self.max_secs, self.base_secs * self.factor ** (retry - 1))
        except OverflowError:
            wait = self.max_secs if self.base_secs else 0.0
        return wait * (1.0 - self.jitter * rng.random()) if rng is not None else float(wait)


RetryOn: TypeAlias = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]
"""Which exceptions are worth another try: types, or a function that says so."""

Attribute: TypeAlias = str | float | bool
"""What a worker says of itself, and a task may require."""


class TaskNode(msgspec.Struct):
    """A task: a node of a workflow.

    Parameters
    ----------
    id : str
        Its name within the workflow.
    name : str, optional
        What people see; the id by default.
    priority : TaskPriority, int or str
        MEDIUM by default; `3` and `"high"` mean `TaskPriority.HIGH`.
    dependencies : iterable of str
        Ids of the tasks it waits for; each counts once.
    estimated_duration_secs : float
        For the critical path, and how long it takes in virtual time.
    group : str, optional
        The only worker group in which it may run.
    resources : dict
        What it takes of its worker while it runs: `{"gpu": 1, "cpu": 0.5}`.
    requires : dict
        What its worker must be: `{"arch": "x86_64"}`.
    retries : int
        How many times it is tried again.
    timeout_secs : float, optional
        How long one try may take.
    backoff : Backoff, optional
        How long to wait between two tries; not at all by default.
    when : TriggerRule or str
        When it may run, given how its dependencies ended.
    locks : iterable of str
        Locks held around each try, by key: of all who ask for one, in every cluster that names the
        same database, one has it at a time. Its token is `af.current_task().token` inside.
    retry_on : exception type, tuple of types, or callable, optional
        Which exceptions are worth another try; every `Exception` by default.
    retry_count : int
        How many times it has been tried again so far.
    state : TaskState
        Where it stands.
    metadata : dict
        Whatever its owner wants to keep with it.

    Raises
    ------
    InvalidConfig
        With the offending `field`.

    Examples
    --------
    >>> task = TaskNode("build", priority="high", dependencies=["fetch"], estimated_duration_secs=300)
    >>> task.name, task.priority.name, task.dependencies, task.state.name
    ('build', 'HIGH', ('fetch',), 'PENDING')
    """

    id: TaskId
    name: str = ""
    priority: TaskPriority = TaskPriority.MEDIUM
    dependencies: tuple[TaskId, ...] = ()
    estimated_duration_secs: float = DEFAULT_DURATION_SECS
    group: str | None = None
    resources: dict[str, float] = {}
    requires: dict[str, Attribute] = {}
    retries: int = 0
    timeout_secs: float | None = None
    backoff: Backoff | None = None
    when: TriggerRule = TriggerRule.ALL_SUCCESS
    locks: tuple[str, ...] = ()
    retry_on: RetryOn | None = None
    retry_count: int = 0
    state: TaskState = TaskState.PENDING
    metadata: dict[str, Any] = {}

    if TYPE_CHECKING:
        # What may be given is wider than what is kept.
        def __init__(
            self,
            id: TaskId,  # noqa: A002
            name: str = "",
            priority: PriorityLike = TaskPriority.MEDIUM,
            dependencies: Iterable[TaskId] = (),
            estimated_duration_secs: float = DEFAULT_DURATION_SECS,
            group: str | None = None,
            resources: Mapping[str, float] = ...,
            requires: Mapping[str, Attribute] = ...,
            retries: int = 0,
            timeout_secs: float | None = None,
            backoff: Backoff | None = None,
            when: TriggerRule | str = TriggerRule.ALL_SUCCESS,
            locks: Iterable[str] = (),
            retry_on: RetryOn | None = None,
            retry_count: int = 0,
            state: TaskState | str = TaskState.PENDING,
            metadata: Mapping[str, Any] = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        check_id(self.id)
        if not self.name:
            self.name = self.id
        if type(self.priority) is not TaskPriority:
            self.priority = TaskPriority.of(self.priority)
        if self.dependencies != ():
            self.dependencies = _names("dependencies", self.dependencies)
        if self.locks != ():
            self.locks = _names("locks", self.locks)
        if type(self.when) is not TriggerRule:
            self.when = TriggerRule.of(self.when)
        if type(self.state) is not TaskState:
            self.state = TaskState(self.state)
        if self.estimated_duration_secs is not DEFAULT_DURATION_SECS:
            _check_number(
                "estimated_duration_secs", self.estimated_duration_secs, "no task takes less than 0 s"
            )
        if self.resources:
            self._check_resources()
        if (
            self.timeout_secs is not None
            or self.retries != 0
            or self.retry_count != 0
            or self.backoff is not None
            or self.retry_on is not None
        ):
            self._check_retries()

    def _check_resources(self) -> None:
        for resource, amount in self.resources.items():
            _check_number(f"resources[{resource!r}]", amount, "a task takes something or nothing")

    def _check_retries(self) -> None:
        if self.timeout_secs is not None:
            _check_number("timeout_secs", self.timeout_secs, "leave it out for no limit")
            if not self.timeout_secs:
                _refuse("timeout_secs", self.timeout_secs, "is above 0; leave it out for no limit")
        for field in ("retries", "retry_count"):
            count = getattr(self, field)
            if not isinstance(count, int) or count < 0:
                _refuse(field, count, "is a whole number from 0")
        if self.backoff is not None and not isinstance(self.backoff, Backoff):
            _refuse("backoff", self.backoff, "is a Backoff: Backoff(base_secs=1, factor=2)")
        wanted = self.retry_on
        types = wanted if isinstance(wanted, tuple) else (wanted,)
        if wanted is not None and not (
            all(isinstance(each, type) and issubclass(each, BaseException) for each in types)
            or (callable(wanted) and not isinstance(wanted, type))
        ):
            _refuse("retry_on", wanted, "is exception types, or a function of the exception")


def check_id(task: Any) -> TaskId:
    """Refuse what cannot be a task's id."""
    return check_name("a task's id", task, field="id")


def check_name(what: str, name: Any, field: str = "name") -> str:
    """Refuse what cannot be a name."""
    if not isinstance(name, str) or not name:
        raise InvalidConfig(f"{what} is a text that is not empty, not {name!r}", field=field, value=name)
    return name


def _names(field: str, given: Any) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        _refuse(field, given, f"is a list of names; write [{given!r}]")
    names = tuple(given)
    if len(names) > 1 and len(set(names)) != len(names):
        names = tuple(dict.fromkeys(names))
    for name in names:
        if type(name) is not str and not isinstance(name, str):
            _refuse(field, name, "is a list of names")
    return names


def _check_number(field: str, value: Any, reason: str, *, least: float = 0.0, infinite: bool = False) -> None:
    """Refuse what is no number, not a number, infinite unless that is meant, or too small."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(field, value, "is a number")
    if math.isnan(value) or (math.isinf(value) and not infinite):
        _refuse(field, value, "is a finite number")
    if value < least:
        _refuse(field, value, f"is at least {least:g}: {reason}")


def _refuse(field: str, value: Any, why: str) -> NoReturn:
    raise InvalidConfig(f"{field}={value!r}: {field.partition('[')[0]} {why}", field=field, value=value)
