"""What the Raft log carries: the commands that change the control plane, and their answers.

A log entry holds one `Batch`: everything one turn of the leader's loop had to say. Each batch carries
`at`, the leader's time, which is the only time the plane knows.

Law: a command is plain data. Functions, arguments and results stay in the object store; what travels is
a reference and a size.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import Any, TypeAlias

import msgspec

from agentflow.ids import AttemptId, NodeId, RunId, TaskId


class Settlement(IntEnum):
    """How one attempt ended, as its worker reports it."""

    COMPLETED = 0
    FAILED = 1
    CANCELLED = 2
    """Given back: it was never begun."""
    DECLINED = 3
    """It never began: somebody else has a lock that it wants. The task waits its turn again."""


class AttemptState(IntEnum):
    """The life of one attempt, as the plane's tables keep it."""

    RUNNING = 0
    COMPLETED = 1
    FAILED = 2
    CANCELLED = 3
    LOST = 4
    TIMED_OUT = 5


class ErrorReport(msgspec.Struct, frozen=True, array_like=True):
    """An exception as plain text: what may travel and be kept without pinning any data.

    `retry` is the worker's word on whether this kind of error is worth another try (`retry_on=`).
    """

    type: str
    message: str
    traceback: str = ""
    retry: bool = True


class Backoff(msgspec.Struct, frozen=True, array_like=True):
    """Seconds to wait before the n-th retry: `min(max, base * factor**(n-1))`, less up to `jitter` of it."""

    base: float = 0.0
    factor: float = 2.0
    maximum: float = 60.0
    jitter: float = 0.0


class TaskOptions(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """What a task asks for. Many tasks share one; a submission lists each once."""

    priority: int = 2
    group: str | None = None
    retries: int = 0
    timeout: float | None = None
    backoff: Backoff = Backoff()
    when: str = "all_success"
    duration: float = 0.0
    resources: tuple[tuple[str, float], ...] = ()
    requires: tuple[tuple[str, str | float | bool], ...] = ()
    locks: tuple[str, ...] = ()


class TaskKind(IntEnum):
    """What a worker does for a task."""

    CALL = 0
    """Call the task's own function."""
    EXPAND = 1
    """List the items of a value; one task an item is then added."""
    ITEM = 2
    """Call the expander's function on one of its items."""
    GATHER = 3
    """Collect the results of the items into a list."""
    JOIN = 4
    """Take over the value of the tasks that it grew into."""
    INPUT = 5
    """Stand for a task of another run; no worker sees it."""


class SubmitRun(msgspec.Struct, frozen=True, tag="submit", array_like=True):
    """Start a run. Tasks are numbered by their position in `ids`.

    `key` makes the submission idempotent: a second one with the same key answers with the first's run.
    `payload` refers to the functions and arguments in the object store. `expands` pairs an expander task
    with the task that gathers its items' results.

    `keep` lists tasks whose values stay; of the others' values, when no task needs them any more, as many
    bytes stay as `budget` says (-1: all). `taken` gives tasks the values of attempts of other runs, and
    `sources` names the other runs' tasks whose ends are to be theirs.
    """

    key: str
    name: str
    ids: tuple[TaskId, ...]
    dependencies: tuple[tuple[int, ...], ...]
    options: tuple[TaskOptions, ...]
    option_of: tuple[int, ...] = ()
    payload: str = ""
    expands: tuple[tuple[int, int], ...] = ()
    keep: tuple[int, ...] = ()
    budget: int = -1
    taken: tuple[tuple[int, AttemptId], ...] = ()
    sources: tuple[tuple[int, RunId, TaskId], ...] = ()


class CancelRun(msgspec.Struct, frozen=True, tag="cancel", array_like=True):
    """Cancel every task of a run that is not settled."""

    run: RunId


class RetryRun(msgspec.Struct, frozen=True, tag="retry", array_like=True):
    """Run tasks of a run again: those named, or all that did not complete, or every one.

    The answer is how many changes of the run there are then, how many tasks were asked for, and every task
    that changed.
    """

    run: RunId
    tasks: tuple[TaskId, ...] = ()
    everything: bool = False


class ForgetRun(msgspec.Struct, frozen=True, tag="forget", array_like=True):
    """Drop a finished run from the tables; its values may be released."""

    run: RunId


class RegisterWorker(msgspec.Struct, frozen=True, tag="register", array_like=True):
    """A worker offers its slots. A higher `epoch` is a new life: what the old one ran is lost.

    While its tasks are brief it may be given `ahead` more than it runs at once; it gives back what it does not
    get to.
    """

    worker: NodeId
    epoch: int
    group: str = "default"
    slots: int = 4
    cpu_cores: float = 1.0
    memory_load: float = 0.0
    resources: tuple[tuple[str, float], ...] = ()
    attributes: tuple[tuple[str, str | float | bool], ...] = ()
    ahead: int = 0


class WorkerLost(msgspec.Struct, frozen=True, tag="lost", array_like=True):
    """The leader declares a worker dead: its heartbeats stopped, or it left."""

    worker: NodeId
    epoch: int
    reason: str = ""


class DrainWorker(msgspec.Struct, frozen=True, tag="drain", array_like=True):
    """The worker finishes what it runs and takes nothing new."""

    worker: NodeId


class RemoveWorker(msgspec.Struct, frozen=True, tag="remove", array_like=True):
    """Forget a worker; what it still runs goes elsewhere."""

    worker: NodeId


class Grown(msgspec.Struct, frozen=True, array_like=True):
    """Tasks that a task added while it ran: a workflow that it returned in the place of a value.

    Positions are the workflow's own; the value of its `ends` becomes the task's.
    """

    ids: tuple[TaskId, ...]
    dependencies: tuple[tuple[int, ...], ...]
    options: tuple[TaskOptions, ...]
    option_of: tuple[int, ...]
    expands: tuple[tuple[int, int], ...]
    ends: tuple[int, ...]


class Completion(msgspec.Struct, frozen=True, array_like=True, gc=False, omit_defaults=True):
    """A worker's report on one attempt.

    `items` is the number of items an expander found, -1 for every other task. `lost` names dependencies
    whose values were not there; the attempt failed for no other reason. `grown` are tasks that it added.
    """

    attempt: AttemptId
    settlement: Settlement
    started: float
    finished: float
    cpu: float = 0.0
    bytes: int = 0
    error: ErrorReport | None = None
    stdout: str = ""
    items: int = -1
    lost: tuple[int, ...] = ()
    grown: Grown | None = None


class Report(msgspec.Struct, frozen=True, tag="report", array_like=True):
    """What a worker finished since it last heard an acknowledgement."""

    worker: NodeId
    epoch: int
    completions: tuple[Completion, ...]


class KeySet(msgspec.Struct, frozen=True, tag="set", array_like=True):
    """Write a key."""

    key: str
    value: Any


class KeyGet(msgspec.Struct, frozen=True, tag="get", array_like=True):
    """Read a key, in the order of the log: what is read is what a majority agreed on."""

    key: str


class KeyCas(msgspec.Struct, frozen=True, tag="cas", array_like=True):
    """Write a key if it holds `expected` (None: if it does not exist)."""

    key: str
    expected: Any
    value: Any


ClientCommand: TypeAlias = (
    SubmitRun | CancelRun | RetryRun | ForgetRun | DrainWorker | RemoveWorker | KeySet | KeyGet | KeyCas
)


class ClientOp(msgspec.Struct, frozen=True, tag="client", array_like=True):
    """A client's numbered command; it takes effect once however often it is sent (thesis 6.3).

    Answers to numbers below `floor` will not be asked for again and may be forgotten.
    """

    client: NodeId
    number: int
    floor: int
    command: ClientCommand


Op: TypeAlias = ClientOp | RegisterWorker | WorkerLost | Report


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """One log entry: the leader's time, and what happened by then."""

    at: float
    ops: tuple[Op, ...] = ()


class Denied(msgspec.Struct, frozen=True, array_like=True):
    """A command was refused by the plane: the error's class name, its message and its facts."""

    error: str
    message: str
    facts: dict[str, Any] = {}


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Batch)


def encode(batch: Batch) -> bytes:
    """Give the bytes that go into the log.

    Examples
    --------
    >>> decode(encode(Batch(at=1.5, ops=(WorkerLost("worker-1", 1),)))).ops[0].worker
    'worker-1'
    """
    return _encoder.encode(batch)


_read: deque[tuple[bytes, Batch]] = deque(maxlen=8)


def decode(data: bytes) -> Batch:
    """Read a log entry's bytes back.

    The masters of one process apply the same bytes soon one after the other, and a batch cannot be changed:
    what was read for one serves all.
    """
    for known, batch in tuple(_read):
        if known is data:
            return batch
    batch = _decoder.decode(data)
    _read.append((data, batch))
    return batch
