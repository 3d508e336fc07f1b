"""What the code of a task can learn of itself: which task it is, and the tokens of its locks.

Law: the tokens are those of the locks that this attempt holds. They stay readable after a loss, because what the lock
protects must see them to refuse them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from agentflow.core.nodes.messages import Order
from agentflow.errors import InvalidConfig
from agentflow.ids import AttemptId, NodeId, RunId, TaskId

if TYPE_CHECKING:
    from agentflow.locks import BlockingLock

__all__ = ["CurrentTask", "InTask", "current_task", "enter"]


class CurrentTask:
    """The task that is running here.

    Attributes
    ----------
    run, task : str
        Which task of which run.
    attempt : int
        The number of this try, unique in the cluster.
    number : int
        The how-many-eth try at the task it is, from 1.
    worker : str
        Where it runs.
    tokens : dict
        Fencing token of each lock that the task declares, by key.
    """

    __slots__ = ("_held", "attempt", "number", "run", "task", "tokens", "worker")

    def __init__(self, order: Order, worker: NodeId, held: Mapping[str, BlockingLock]) -> None:
        self.run: RunId = order.run
        self.task: TaskId = order.id
        self.attempt: AttemptId = order.attempt
        self.number = order.number
        self.worker = worker
        self.tokens = {key: each.token for key, each in held.items()}
        self._held: Mapping[str, BlockingLock] = held

    @property
    def token(self) -> int:
        """The fencing token of the task's lock, to be shown to whatever it protects.

        Raises
        ------
        InvalidConfig
            If the task declares no lock, or several: `tokens` has them by key.
        """
        if len(self.tokens) != 1:
            named = ", ".join(map(repr, self.tokens)) or "none"
            raise InvalidConfig(
                f"{self.task!r} declares {len(self.tokens)} locks ({named}), so there is not one token; "
                "declare it with locks=['key'], or take it from current_task().tokens['key']",
                field="locks",
            )
        return next(iter(self.tokens.values()))

    def ensure_held(self) -> None:
        """Raise `LockLost` unless every lock of the task may be believed now. Call it before every write.

        In another process it does nothing: a task that loses its lock is ended there from outside.
        """
        for each in self._held.values():
            each.ensure_held()

    def __reduce__(self) -> tuple[Any, ...]:
        return _elsewhere, (self.run, self.task, self.attempt, self.number, self.worker, self.tokens)

    def __repr__(self) -> str:
        held = "".join(f", {key!r} token {token}" for key, token in self.tokens.items())
        return f"<task {self.task!r} of {self.run}, try {self.number} on {self.worker}{held}>"


def _elsewhere(
    run: RunId, task: TaskId, attempt: AttemptId, number: int, worker: NodeId, tokens: dict[str, int]
) -> CurrentTask:
    order = Order(attempt, run, 0, task, number, "")
    current = CurrentTask(order, worker, {})
    current.tokens = tokens
    return current


_running: ContextVar[CurrentTask | tuple[Order, NodeId] | None] = ContextVar("agentflow_task", default=None)


def enter(order: Order, worker: NodeId) -> None:
    """Note, in the task's own context, which task without locks runs here: nearly all never ask."""
    _running.set((order, worker))


class InTask:
    """A call that knows which task it is, also in another process."""

    def __init__(self, current: CurrentTask, call: Callable[[], Any]) -> None:
        self.current = current
        self.call = call
        self.__name__ = getattr(call, "__name__", None) or "task"

    def __call__(self) -> Any:
        """Call it; the context that this is set in is the task's own."""
        _running.set(self.current)
        return self.call()


def current_task() -> CurrentTask | None:
    """The task whose code is running; None outside of one.

    In another process (`executor="processes"` and the like) only a task with locks knows itself.

    Examples
    --------
    >>> import agentflow as af
    >>> with af.Cluster(masters=1, workers=1) as cluster:
    ...     flow = af.Workflow("nightly")
    ...     load = flow.add(lambda: af.current_task().token, id="load", locks=["warehouse"])
    ...     cluster.submit(flow).result("load", timeout=20)
    1
    """
    running = _running.get()
    return CurrentTask(*running, {}) if isinstance(running, tuple) else running
