"""What can go wrong, sorted by whose fault it is and whether it happened.

::

    AgentflowError
    ├── Refused          definite: nothing took place
    ├── Unknown          it may have happened, or may yet
    ├── RemoteError      the other side's handler raised; its report is attached
    ├── TaskFailed       the user's function raised; its exception is __cause__
    ├── TaskCancelled, UpstreamFailed
    ├── Unpicklable      a function, argument or result cannot go to another process
    ├── LockLost         renewal failed; the work under the lock must stop
    ├── StorageFailed    a disk failed, or holds what cannot be trusted
    ├── ObjectLost       a value has left the object store
    ├── ResultTooLarge   a task returned more than `max_result_bytes`
    ├── Closed           you closed it
    └── MissingExtra     names the pip line
    InvariantViolated    our bug

In doubt an operation says `Unknown`: a caller who retries with the same key is then always right.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AgentflowError",
    "Closed",
    "CycleInWorkflow",
    "Disconnected",
    "DuplicateTask",
    "Expired",
    "InvalidConfig",
    "InvalidTransition",
    "InvariantViolated",
    "LockHeld",
    "LockLost",
    "MailboxFull",
    "MissingDependency",
    "MissingExtra",
    "NoQuorum",
    "NoResponders",
    "NoSuchNode",
    "NoSuchTask",
    "NotLeader",
    "ObjectLost",
    "PeerDown",
    "QueueFull",
    "Refused",
    "RemoteError",
    "RequestTimeout",
    "ResultTooLarge",
    "StaleToken",
    "StorageFailed",
    "TaskCancelled",
    "TaskFailed",
    "TimedOut",
    "Unknown",
    "Unpicklable",
    "UpstreamFailed",
]


class AgentflowError(Exception):
    """Root of everything agentflow raises on purpose.

    Parameters
    ----------
    message : str
        Subject, fact and next step, in one or two sentences.
    **facts
        The same facts as attributes, for programs.

    Examples
    --------
    >>> error = NotLeader("master-2 follows master-1; ask that one", leader="master-1")
    >>> error.leader
    'master-1'
    """

    def __init__(self, message: str = "", **facts: Any) -> None:
        super().__init__(message)
        self.__dict__.update(facts)


class Refused(AgentflowError):
    """Nothing took place; the same request may be made again after the reason is gone."""


class NotLeader(Refused):
    """The node asked does not lead; `leader` names the one it follows, if it knows one."""

    leader: str | None = None


class NoQuorum(Refused):
    """No majority of masters can be reached, and nothing was appended anywhere."""


class QueueFull(Refused):
    """A bounded queue is at its limit."""

    limit: int | None = None


class LockHeld(Refused):
    """Somebody else holds the lock until `expires_at`."""

    key: str | None = None
    owner: str | None = None
    expires_at: Any = None


class StaleToken(Refused):
    """A fencing token older than one already seen was shown to a resource."""

    token: int | None = None
    current: int | None = None


class CycleInWorkflow(Refused):
    """Tasks wait for one another in a circle; `cycle` names them in order."""

    cycle: tuple[str, ...] = ()


class MissingDependency(Refused):
    """A task names a dependency that the workflow does not contain."""

    task: str | None = None
    dependency: str | None = None


class DuplicateTask(Refused):
    """Two tasks of one workflow have the same id."""

    task: str | None = None


class NoSuchTask(Refused):
    """No task has this id."""

    task: str | None = None


class NoSuchNode(Refused):
    """No node has this id."""

    node: str | None = None


class NoResponders(Refused):
    """Nobody is there to answer the request."""


class MailboxFull(Refused):
    """The receiver's mailbox is full and its policy is to reject."""

    agent: str | None = None


class Expired(Refused):
    """The message outlived its time to live before anyone handled it."""


class InvalidConfig(Refused, ValueError):
    """An argument or setting cannot work; nothing was changed."""


class InvalidTransition(Refused):
    """A state machine was asked for a step that its table does not contain."""


class Unknown(AgentflowError):
    """It may have happened, or may yet; asking again with the same key settles it."""


class TimedOut(Unknown, TimeoutError):
    """No answer within the time allowed."""


class RequestTimeout(Unknown, TimeoutError):
    """The agent asked did not answer within the time allowed."""


class Disconnected(Unknown, ConnectionError):
    """The connection ended while a request was outstanding."""


class PeerDown(Unknown):
    """The node asked went down while a request was outstanding."""

    node: str | None = None


class RemoteError(AgentflowError):
    """The other side's handler raised; `report` is what it said."""

    report: Any = None


class TaskFailed(AgentflowError):
    """The user's function raised; its exception is `__cause__`."""

    task: str | None = None
    attempt: int | None = None
    worker: str | None = None
    traceback: str = ""


class TaskCancelled(AgentflowError):
    """The task was cancelled before it finished."""

    task: str | None = None


class UpstreamFailed(AgentflowError):
    """The task never ran because a task before it failed; `root` names the first one."""

    task: str | None = None
    root: str | None = None


class Unpicklable(AgentflowError, TypeError):
    """A function, an argument or a result cannot travel between processes; `culprit` is the part that fails."""

    culprit: str = ""


class LockLost(AgentflowError):
    """The lock could not be renewed in time; the work under it must stop."""

    key: str | None = None
    token: int | None = None
    reason: str = ""


class StorageFailed(AgentflowError):
    """A disk could not do what was asked, or holds what cannot be trusted.

    A write that failed is there as a whole or not at all; which of the two shows when it is read again.
    """

    path: str | None = None
    reason: str = ""


class ObjectLost(AgentflowError):
    """The object store no longer holds this value; it must be computed again."""

    key: Any = None


class ResultTooLarge(AgentflowError):
    """A task returned more than the cluster's `max_result_bytes`; the value was not kept."""

    task: str | None = None
    size: int | None = None
    limit: int | None = None


class Closed(AgentflowError):
    """The object was closed by its owner."""


class MissingExtra(AgentflowError, ImportError):
    """An optional package is not installed; the message names the pip line."""

    extra: str | None = None
    package: str | None = None

    @classmethod
    def of(cls, package: str, extra: str, purpose: str) -> MissingExtra:
        """Say which pip line brings `package`, and what it is needed for.

        Parameters
        ----------
        package : str
            The import name that was not found.
        extra : str
            The extra of agentflow that installs it.
        purpose : str
            What needs it, as the subject of a sentence: "processes as executors".

        Examples
        --------
        >>> str(MissingExtra.of("loky", "processes", "executor='processes'"))
        "executor='processes' needs the package 'loky': pip install 'agentflow[processes]'"
        """
        return cls(
            f"{purpose} needs the package {package!r}: pip install 'agentflow[{extra}]'",
            package=package,
            extra=extra,
        )


class InvariantViolated(AssertionError):
    """A promise of agentflow's own was broken: our bug, with what reproduces it.

    Parameters
    ----------
    message : str
        Which promise, where, and what was seen instead.
    **facts
        `seed`, `trace` and whatever else reproduces it.
    """

    seed: int | None = None
    trace: Any = None

    def __init__(self, message: str = "", **facts: Any) -> None:
        super().__init__(message)
        self.__dict__.update(facts)
