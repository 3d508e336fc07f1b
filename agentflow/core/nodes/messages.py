"""What clients, masters and workers say to one another. Masters among themselves speak Raft."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from agentflow.core.control.commands import (
    ClientCommand,
    Denied,
    ErrorReport,
    RegisterWorker,
    Report,
    TaskKind,
)
from agentflow.ids import AttemptId, NodeId, RunId, TaskId, Term


class Ask(msgspec.Struct, frozen=True, tag="ask", array_like=True):
    """A client's numbered command, sent to whom it believes to lead."""

    number: int
    floor: int
    command: ClientCommand


class Tell(msgspec.Struct, frozen=True, tag="tell", array_like=True):
    """The command was applied, and this is its answer; `denied` says that the plane refused it."""

    number: int
    result: Any = None
    denied: Denied | None = None


class Redirect(msgspec.Struct, frozen=True, tag="redirect", array_like=True):
    """Nothing was done: this master does not lead. `leader` is whom it follows."""

    number: int
    leader: NodeId | None


class Unsure(msgspec.Struct, frozen=True, tag="unsure", array_like=True):
    """The command was appended, and its fate is not known here: ask again under the same number."""

    number: int


class Follow(msgspec.Struct, frozen=True, tag="follow", array_like=True):
    """Tell me how the run goes on, from the `have`-th change and the `known`-th task id."""

    run: RunId
    have: int
    known: int


class Unfollow(msgspec.Struct, frozen=True, tag="unfollow", array_like=True):
    """No more of this run."""

    run: RunId


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """Why a task failed: its last attempt, the worker of that, and what was raised there."""

    attempt: AttemptId
    worker: NodeId
    report: ErrorReport


class Progress(msgspec.Struct, frozen=True, tag="progress", array_like=True):
    """Tasks of a run that changed, in order, from position `start` of its list of changes.

    `released` are those of them whose values may go. `states` and `values` run parallel to `tasks`; `errors` and `roots` hold only what failed.
    `added` are ids from position `known` on, of tasks that were added while the run went on.
    """

    run: RunId
    start: int
    tasks: tuple[int, ...]
    states: bytes
    values: tuple[AttemptId, ...]
    errors: dict[int, Failure]
    roots: dict[int, int]
    known: int
    added: tuple[TaskId, ...]
    done: bool
    released: tuple[int, ...] = ()


class Gone(msgspec.Struct, frozen=True, tag="gone", array_like=True):
    """There is no such run."""

    run: RunId


class Enrol(msgspec.Struct, frozen=True, tag="enrol", array_like=True):
    """A worker asks to be registered."""

    registration: RegisterWorker


class Pulse(msgspec.Struct, frozen=True, tag="pulse", array_like=True):
    """A worker's heartbeat: it lives, and these attempts it runs or has finished unacknowledged."""

    epoch: int
    attempts: tuple[AttemptId, ...]


def growth_of(attempt: AttemptId) -> str:
    """Under what the calls of the workflow are kept that an attempt returned."""
    return f"//attempt/{attempt}"


class Order(msgspec.Struct, frozen=True, array_like=True):
    """One attempt to start.

    `inputs` pairs each completed dependency with the attempt that made its value; `missing` pairs each other
    one with its state, for tasks whose trigger rule lets them run all the same. Positions count from `base`,
    where the workflow begins that the task came with. `locks` are to be held around the attempt.
    """

    attempt: AttemptId
    run: RunId
    task: int
    id: TaskId
    number: int
    payload: str
    kind: TaskKind = TaskKind.CALL
    call: int = -1
    item: int = -1
    duration: float = 0.0
    inputs: tuple[tuple[int, AttemptId], ...] = ()
    missing: tuple[tuple[int, int], ...] = ()
    base: int = 0
    locks: tuple[str, ...] = ()


class Orders(msgspec.Struct, frozen=True, tag="orders", array_like=True):
    """What a leader tells a worker: attempts to start, to stop, and reports it need not repeat.

    They are for one life of the worker; one that comes late must not make the next life start again what
    the last one ran.
    """

    term: Term
    epoch: int
    start: tuple[Order, ...] = ()
    stop: tuple[AttemptId, ...] = ()
    acknowledge: tuple[AttemptId, ...] = ()


class Greet(msgspec.Struct, frozen=True, tag="greet", array_like=True):
    """I lead in this term: report to me, and say what you are running."""

    term: Term


class Stranger(msgspec.Struct, frozen=True, tag="stranger", array_like=True):
    """You are not registered in this life: drop what you run and enrol again."""

    term: Term
    epoch: int


NodeMessage: TypeAlias = (
    Ask
    | Tell
    | Redirect
    | Unsure
    | Follow
    | Unfollow
    | Progress
    | Gone
    | Enrol
    | Pulse
    | Report
    | Orders
    | Greet
    | Stranger
)


def sendable(text: str) -> str:
    r"""Give a text that can be sent and kept: what is no Unicode is spelled out.

    Examples
    --------
    >>> sendable("naïve"), sendable("file \udcff")
    ('naïve', 'file \\udcff')
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")
