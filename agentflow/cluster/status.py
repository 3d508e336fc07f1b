"""What a cluster and a run show of themselves at one instant: plain data, ready to be drawn.

Law: a status is read in one turn of the loop and never changes. Whoever draws one asks nobody anything.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from agentflow.cluster.elections import candidacies
from agentflow.core.control.runs import RunState, State
from agentflow.core.nodes.master import QueueSample
from agentflow.core.raft.events import Role, RoleChanged
from agentflow.core.record import Record

if TYPE_CHECKING:
    from agentflow.cluster.facade import Facade
    from agentflow.cluster.run import Run

_T = TypeVar("_T")

LOG_TAIL: Final = 12
"""Entries of a master's log that a picture shows."""

PATIENCE_SECS: Final = 1.0
"""How long a display waits for the loop before it shows what was known last."""


class MasterStatus(msgspec.Struct, frozen=True):
    """One master: its role, its log, and the votes it holds while it stands.

    `tail` lists (index, term) of the log's last entries; `fuse` is the share of its election time-out that
    has passed, from 0 to 1.
    """

    id: str
    state: str = "up"
    role: str = "follower"
    term: int = 0
    leader: str | None = None
    commit: int = 0
    applied: int = 0
    last: int = 0
    tail: tuple[tuple[int, int], ...] = ()
    votes: tuple[str, ...] = ()
    fuse: float = 0.0


class WorkerStatus(msgspec.Struct, frozen=True):
    """One worker; `status` is that of the table `workers`, or the host's `down` and `paused`."""

    id: str
    group: str = "default"
    status: str = "ACTIVE"
    running: int = 0
    slots: int = 1
    load: float = 0.0
    heartbeat_age_s: float | None = None
    reason: str = ""


class Reign(msgspec.Struct, frozen=True):
    """One leader's time in office; `ended` is None while it lasts."""

    term: int
    leader: str
    started: float
    ended: float | None = None


class Stand(msgspec.Struct, frozen=True):
    """One candidacy."""

    term: int
    candidate: str
    outcome: str
    votes: int
    voters: int
    started: float
    decided: float | None
    cause: str = ""


class QueuePoint(msgspec.Struct, frozen=True):
    """The queue at one moment, by priority."""

    time: float
    low: int = 0
    medium: int = 0
    high: int = 0
    urgent: int = 0
    oldest_s: float | None = None

    @property
    def depth(self) -> int:
        """How many tasks waited."""
        return self.low + self.medium + self.high + self.urgent


class RunBrief(msgspec.Struct, frozen=True):
    """A run in one line: tasks by state, in the order of `State`."""

    id: str
    name: str
    counts: tuple[int, ...]
    submitted: float = 0.0
    finished: float | None = None


class ClusterStatus(msgspec.Struct, frozen=True):
    """A cluster at one instant."""

    title: str
    now: float
    closed: bool = False
    leader: str | None = None
    masters: tuple[MasterStatus, ...] = ()
    workers: tuple[WorkerStatus, ...] = ()
    reigns: tuple[Reign, ...] = ()
    stands: tuple[Stand, ...] = ()
    queue: tuple[QueuePoint, ...] = ()
    waiting: QueuePoint = QueuePoint(0.0)
    runs: tuple[RunBrief, ...] = ()
    cuts: tuple[tuple[str, str], ...] = ()
    alerts: tuple[str, ...] = ()
    stale: bool = False

    @property
    def term(self) -> int:
        """The highest term that any master is in."""
        return max((master.term for master in self.masters), default=0)

    @property
    def commit(self) -> int:
        """The highest commit index that any master knows."""
        return max((master.commit for master in self.masters), default=0)

    @property
    def up(self) -> int:
        """How many masters are up."""
        return sum(1 for master in self.masters if master.state == "up")


class Try(msgspec.Struct, frozen=True, gc=False):
    """One attempt at a task, by the task's position; `finished` is None while it runs."""

    task: int
    number: int
    worker: str
    state: str
    started: float
    finished: float | None = None
    assigned: float = 0.0
    error: str = ""


class RunStatus(msgspec.Struct, frozen=True):
    """A run at one instant. Tasks are positions in `ids`; `needs` lists what each waits for."""

    id: str
    name: str
    now: float
    ids: tuple[str, ...] = ()
    states: bytes = b""
    needs: tuple[tuple[int, ...], ...] = ()
    tries: tuple[Try, ...] = ()
    errors: tuple[tuple[str, str, str], ...] = ()
    submitted: float = 0.0
    finished: float | None = None
    done: bool = False
    critical: tuple[int, ...] = ()
    note: str = ""

    @property
    def counts(self) -> tuple[int, ...]:
        """Tasks by state, in the order of `State`."""
        return tuple(self.states.count(state) for state in State)

    @property
    def elapsed(self) -> float:
        """Seconds since it was submitted, to its end or to now."""
        return max(0.0, (self.now if self.finished is None else self.finished) - self.submitted)


# --- a cluster ---------------------------------------------------------------------------------------------

_last: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def cluster_status(cluster: Facade) -> ClusterStatus:
    """Read a cluster in one turn of its loop."""
    parts = cluster.read(lambda: parts_of(cluster))
    records = list(cluster.records())  # the trace may be read from any thread, so the loop need not wait
    stands = tuple(
        Stand(c.term, c.candidate, c.outcome, c.votes, c.voters, c.started, c.decided, c.cause)
        for c in candidacies(records)
    )
    return ClusterStatus(
        title=getattr(cluster, "name", None) or type(cluster).__name__,
        closed=cluster.closed,
        reigns=tuple(reigns_of(records)),
        stands=stands,
        queue=tuple(queue_of(records)),
        **parts,
    )


def published(cluster: Facade, patience: float = PATIENCE_SECS) -> ClusterStatus:
    """Give the cluster's status, or the last one known if its loop does not answer in time.

    This is what displays use: a loop that stands still must not keep a cell from ending.
    """
    if cluster.moves_time or cluster.closed:
        status: ClusterStatus | None = cluster_status(cluster)
    else:
        status = within(patience, lambda: cluster_status(cluster))
    if status is None:
        last = _last.get(cluster) or ClusterStatus(title=type(cluster).__name__, now=0.0)
        return msgspec.structs.replace(last, stale=True)
    _last[cluster] = status
    return status


def within(seconds: float, fn: Callable[[], _T]) -> _T | None:
    """Give what `fn` returns or raise what it raises; None if it has not ended in time."""
    found: list[_T] = []
    errors: list[Exception] = []

    def look() -> None:
        try:
            found.append(fn())
        except Exception as error:
            errors.append(error)

    reader = threading.Thread(target=look, name="agentflow-status", daemon=True)
    reader.start()
    reader.join(seconds)
    if errors:
        raise errors[0]
    return found[0] if found else None


def parts_of(cluster: Facade) -> dict[str, Any]:
    """What must agree with one another, read where nothing changes meanwhile."""
    deployment, now, plane = cluster._deployment, cluster.now, cluster.plane()
    hosted = deployment.host.nodes
    state_of = {} if cluster.closed else {node: deployment.host.state(node) for node in hosted}
    masters = tuple(
        _master(node_id, machine, "down" if machine is None else state_of.get(node_id, "up"), now)
        for node_id, machine in cluster.masters_up().items()
    )
    ages = cluster.heartbeat_ages()
    workers = tuple(
        _worker(worker, ages.get(worker.id), state_of.get(worker.id, "up"))
        for worker in plane.workers.values()
    )
    names = [master.id for master in masters]
    blocked = deployment.host.network.blocked
    cuts = tuple(
        (a, b) for i, a in enumerate(names) for b in names[i + 1 :] if blocked(a, b) or blocked(b, a)
    )
    _, low, medium, high, urgent = plane.queue.depth
    oldest = plane.queue.oldest()
    waiting = QueuePoint(now, low, medium, high, urgent, now - oldest if oldest <= now else None)
    runs = tuple(
        RunBrief(run.id, run.name, tuple(run.counts), run.submitted_at, _end(run.finished_at))
        for run in plane.runs.values()
    )
    leading = [m for m in masters if m.role == "leader" and m.state == "up"]
    leader = max(leading, key=lambda m: m.term).id if leading else None
    return {
        "now": now,
        "leader": leader,
        "masters": masters,
        "workers": workers,
        "cuts": cuts,
        "waiting": waiting,
        "runs": runs,
        "alerts": _alerts(cluster, masters),
    }


def _alerts(cluster: Facade, masters: Sequence[MasterStatus]) -> tuple[str, ...]:
    if cluster.closed:
        return ()
    said = cluster.diagnose().splitlines()
    found = [
        f"{master.id} is {master.state}; cluster.{'resume' if master.state == 'paused' else 'restart'}({master.id!r}) brings it back"
        for master in masters
        if master.state in ("down", "paused")
        and not any(line.startswith(f"{master.id} is {master.state}") for line in said)
    ]
    if cluster.network.severed:
        found.append("the network is cut; cluster.heal() mends it")
    return (*found, *(line for line in said if line and not line.startswith("All is well")))


def _end(instant: float) -> float | None:
    return None if instant < 0 else instant


def _master(node_id: str, machine: Any, state: str, now: float) -> MasterStatus:
    if machine is None:
        return MasterStatus(node_id, state)
    raft = machine.raft
    first = max(raft.log.first, raft.last_index - LOG_TAIL + 1)
    tail = tuple((i, raft.log.term(i) or 0) for i in range(first, raft.last_index + 1))
    votes = tuple(voter for voter, granted in raft.tracker.votes.items() if granted)
    timeout = raft.election_timeout
    fuse = (now - raft.election_base) / timeout if 0 < timeout < float("inf") else 0.0
    return MasterStatus(
        node_id,
        state,
        str(raft.role),
        raft.term,
        raft.leader,
        raft.commit,
        raft.applied,
        raft.last_index,
        tail,
        votes if raft.role in (Role.CANDIDATE, Role.PRE_CANDIDATE) else (),
        min(1.0, max(0.0, fuse)),
    )


def _worker(worker: Any, age: float | None, hosted: str) -> WorkerStatus:
    running = len(worker.running)
    if not worker.alive:
        status = "OFFLINE"
    elif hosted in ("down", "paused"):
        status = hosted.upper()
    elif worker.draining:
        status = "DRAINING"
    else:
        status = "BUSY" if running >= worker.slots else "ACTIVE"
    return WorkerStatus(
        worker.id, worker.group, status, running, worker.slots, worker.load, age, worker.reason or ""
    )


# --- what the trace tells ------------------------------------------------------------------------------------


def reigns_of(records: Iterable[Record]) -> list[Reign]:
    """Every leader's time in office, in order; one ends with its leader's role, its crash, or a successor."""
    found: list[Reign] = []
    open_at: dict[str, int] = {}

    def end(node: str, at: float) -> None:
        if (i := open_at.pop(node, None)) is not None:
            found[i] = msgspec.structs.replace(found[i], ended=at)

    for record in records:
        fact = record.payload
        if isinstance(fact, RoleChanged):
            end(record.node, record.time)
            if fact.role is Role.LEADER:
                for other in list(open_at):
                    end(other, record.time)
                open_at[record.node] = len(found)
                found.append(Reign(fact.term, record.node, record.time))
        elif record.kind in ("crash", "pause"):
            end(record.node, record.time)
    return found


def queue_of(records: Iterable[Record]) -> list[QueuePoint]:
    """The samples of the queue that leaders took."""
    return [
        QueuePoint(
            record.time,
            sample.low,
            sample.medium,
            sample.high,
            sample.urgent,
            None if sample.oldest_at is None else record.time - sample.oldest_at,
        )
        for record in records
        if isinstance(sample := record.payload, QueueSample)
    ]


# --- a run -------------------------------------------------------------------------------------------------


def run_status(run: Run) -> RunStatus:
    """Read a run in one turn of the loop; one that no master knows any more shows what it knows itself."""
    home: Any = run._home
    now, parts = home.read(lambda: (home.now, _run_parts(home.plane(), run.id)))
    errors = tuple(
        (run.tasks[task], failure.report.type, failure.report.message)
        for task, failure in list(run._errors.items())
        if task < len(run.tasks)
    )
    if parts is None:
        parts = _own_parts(run)
    elif run.done and not parts["done"]:
        # The masters that are up lag behind what the run was told already.
        parts = {**parts, **_own_parts(run), "note": ""}
    status = RunStatus(id=run.id, name=run.flow.name, now=now, errors=errors, **parts)
    return msgspec.structs.replace(status, critical=critical_of(status))


def published_run(run: Run, patience: float = PATIENCE_SECS) -> RunStatus:
    """Give the run's status, or what the run knows itself if the loop does not answer in time."""
    home: Any = run._home
    if getattr(home, "moves_time", True) or getattr(home, "closed", True):
        return run_status(run)
    status = within(patience, lambda: run_status(run))
    if status is not None:
        return status
    own = {**_own_parts(run), "note": "the cluster does not answer"}
    return RunStatus(id=run.id, name=run.flow.name, now=0.0, **own)


def _run_parts(plane: Any, run_id: str) -> dict[str, Any] | None:
    run: RunState | None = plane.runs.get(run_id)
    if run is None:
        return None
    return {
        "ids": tuple(run.ids),
        "states": bytes(run.state),
        "needs": tuple(map(tuple, run.dependencies)),
        "tries": (*_tries(run), *_live_tries(plane, run)),
        "submitted": run.submitted_at,
        "finished": _end(run.finished_at),
        "done": run.done,
    }


def _tries(run: RunState) -> Iterable[Try]:
    for row in run.history:
        error = f"{row.error.type}: {row.error.message}" if row.error else ""
        yield Try(
            row.task, row.number, row.worker, row.state.name, row.started, row.finished, row.assigned, error
        )


def _live_tries(plane: Any, run: RunState) -> Iterable[Try]:
    for live in plane.live.values():
        if live.run is run:
            yield Try(live.task, live.number, live.worker.id, "RUNNING", live.assigned, None, live.assigned)


def _own_parts(run: Run) -> dict[str, Any]:
    """What a run knows without the masters: its tasks and how those that settled ended."""
    ids, needs, _ = run.flow.parts()
    position = {task: i for i, task in enumerate(run.tasks)}
    by_id: Mapping[str, Sequence[str]] = dict(zip(ids, needs, strict=False))
    return {
        "ids": run.tasks,
        "states": bytes(run._state),
        "needs": tuple(
            tuple(position[need] for need in by_id.get(task, ()) if need in position) for task in run.tasks
        ),
        "done": run.done,
        "note": "the masters no longer keep its tables" if run.done else "",
    }


def critical_of(run: RunStatus) -> tuple[int, ...]:
    """The chain of tasks that took longest, by the time their last attempts took so far."""
    took = [0.0] * len(run.ids)
    for each in run.tries:
        took[each.task] = max(0.0, (run.now if each.finished is None else each.finished) - each.started)
    return longest_chain(run.needs, took)


def longest_chain(needs: Sequence[Sequence[int]], took: Sequence[float]) -> tuple[int, ...]:
    """The chain of tasks, each waiting for the one before, that takes longest.

    Examples
    --------
    >>> longest_chain([(), (0,), (0,), (1, 2)], [1.0, 5.0, 2.0, 1.0])
    (0, 1, 3)
    """
    size = len(needs)
    left = [len(before) for before in needs]
    after: list[list[int]] = [[] for _ in range(size)]
    for task, before in enumerate(needs):
        for need in before:
            after[need].append(task)
    end, via = list(took), [-1] * size
    ready = [task for task in range(size) if not left[task]]
    while ready:
        task = ready.pop()
        for other in after[task]:
            if end[task] + took[other] > end[other] or via[other] < 0:
                end[other], via[other] = end[task] + took[other], task
            left[other] -= 1
            if not left[other]:
                ready.append(other)
    if not size or max(end) <= 0.0:
        return ()
    at = end.index(max(end))
    chain = [at]
    while (at := via[at]) >= 0:
        chain.append(at)
    return tuple(reversed(chain))


__all__ = [
    "ClusterStatus",
    "MasterStatus",
    "QueuePoint",
    "Reign",
    "RunBrief",
    "RunStatus",
    "Stand",
    "Try",
    "WorkerStatus",
    "cluster_status",
    "critical_of",
    "longest_chain",
    "parts_of",
    "published",
    "published_run",
    "run_status",
]
