"""What a person can do with a cluster, whichever clock moves it.

`Cluster` and `Simulation` differ in three things only: how a function gets onto the loop, how one waits,
and what a second is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from agentflow.cluster.calls import InputsLost, Workbench
from agentflow.cluster.deployment import Deployment
from agentflow.cluster.elastic import CLIENT
from agentflow.cluster.explain import diagnose, explain_task, masters_trouble
from agentflow.cluster.frames import ClusterFrames, RunFrames
from agentflow.cluster.holding import MEMORY_COLUMNS, memory_rows, order_again
from agentflow.cluster.keyvalue import KeyValueClient
from agentflow.cluster.locking import NO_LOCKS
from agentflow.cluster.membership import Membership
from agentflow.cluster.nodes import MasterHandle, Nodes, WorkerHandle
from agentflow.cluster.run import Cancelled, Run, drawn
from agentflow.cluster.settings import check_readable, checked_timeout
from agentflow.cluster.submitting import Submitting
from agentflow.cluster.waits import queue_stats
from agentflow.core.control.commands import (
    CancelRun,
    ClientCommand,
    ForgetRun,
    KeyGet,
    RetryRun,
)
from agentflow.core.control.plane import Plane
from agentflow.core.nodes.client import Command, Watch
from agentflow.core.nodes.master import Master
from agentflow.core.nodes.messages import Order, growth_of
from agentflow.core.record import Record
from agentflow.core.scheduling import QueueStats
from agentflow.errors import Closed, InvalidConfig, ObjectLost
from agentflow.ids import AttemptId, NodeId, RunId, TaskId

if TYPE_CHECKING:
    import pandas as pd

    from agentflow.cluster.agents.agent import AgentCommunication
    from agentflow.cluster.agents.bus import Bus
    from agentflow.locks import BlockingLock, LockInfo

_T = TypeVar("_T")


class Facade(Submitting, Membership):
    """The common part of `Cluster` and `Simulation`."""

    began: float
    _deployment: Deployment
    _bench: Workbench

    # --- what the two differ in ---------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds since the cluster began."""
        raise NotImplementedError

    def read(self, fn: Callable[[], _T]) -> _T:
        """Call `fn` where nothing changes meanwhile, and give what it returns."""
        raise NotImplementedError

    def _ask(self, node_id: NodeId, request: Any, callback: Callable[[Any, bool], None]) -> None:
        raise NotImplementedError

    def wait(self, condition: threading.Condition, done: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until `done()`; give whether it came true in time."""
        raise NotImplementedError

    def clock(self) -> float:
        """Seconds on the clock that `wait` goes by: the cluster's own, where waiting moves it."""
        return self.now

    @property
    def moves_time(self) -> bool:
        """Whether nothing happens unless somebody waits, as in virtual time."""
        return True

    def _setup(self) -> None:
        self._runs: dict[RunId, Run] = {}
        self._submissions = 0
        self._closed = False

    # --- nodes --------------------------------------------------------------------------------------------

    @property
    def leader(self) -> NodeId | None:
        """The master that leads, or None while there is none."""
        return self.read(self._deployment.leader)

    @property
    def masters(self) -> Mapping[NodeId, MasterHandle]:
        """The masters, by id."""
        return Nodes(self._deployment.master_ids, lambda node: MasterHandle(self, node))

    @property
    def workers(self) -> Mapping[NodeId, WorkerHandle]:
        """The workers on this host, by id."""
        return Nodes(tuple(self._deployment.worker_specs), lambda node: WorkerHandle(self, node))

    @property
    def frames(self) -> ClusterFrames:
        """The cluster's tables as DataFrames."""
        return ClusterFrames(self)

    @property
    def plot(self) -> Any:
        """Pictures with `.save()`: `panel()`, `elections(ax=)`, `queue(ax=)`, `workers()`, `node(id)`."""
        return drawn("plot", self)

    def diagram(
        self,
        *,
        start: float | None = None,
        end: float | None = None,
        nodes: Iterable[Any] | None = None,
        kinds: str | Iterable[str] | None = None,
        **look: Any,
    ) -> Any:
        """Give the space-time diagram: a line a node, an arrow a message; it has `.save()`.

        Parameters
        ----------
        start, end : float, optional
            Seconds; by default all that the trace holds.
        nodes : iterable, optional
            Whose lines, in which order.
        kinds : str or iterable of str, optional
            Messages to show: families (`election`, `append`, `heartbeat`, `client`, `work`, `agent`, `other`) or
            types; by default all but heartbeats, `"all"` for these too.
        **look
            `width` in pixels.
        """
        return drawn("diagram", self)(start=start, end=end, nodes=nodes, kinds=kinds, **look)

    def report(self, path: str) -> Any:
        """Write one self-contained HTML file about the cluster and its runs; give its path."""
        return drawn("report", self)(path)

    # --- commands -----------------------------------------------------------------------------------------

    def client(self, name: str) -> KeyValueClient:
        """Give a client of the replicated key-value store, with a session of its own."""
        self._check_open()
        if not isinstance(name, str) or not name:
            raise InvalidConfig(
                f"a client's name is a string with something in it, not {name!r}", field="name"
            )
        check_readable(KeyGet(name))
        self.read(lambda: self._deployment.add_client(name))
        return KeyValueClient(self, name)

    def lock(
        self,
        key: str,
        metadata: Any = None,
        *,
        max_duration: timedelta | float | None = 0.0,
        on_lost: Callable[[str], None] | None = None,
    ) -> BlockingLock:
        """Give a lock for `with`; it renews itself inside, and says so when it was lost.

        Parameters
        ----------
        key : str
            What it protects; tasks with `locks=[key]`, and other users of the same database, are kept out.
        metadata : Any
            Anything JSON can say; `frames.locks()` shows it.
        max_duration : timedelta or float, optional
            How long to wait for a busy lock; None: as long as it takes.
        on_lost : callable, optional
            Called with the reason, from another thread, when the lease is lost.

        Raises
        ------
        LockHeld
            On entering, if another has it until the end of `max_duration`.
        LockLost
            On leaving, if the lease was lost inside and the body raised nothing.
        """
        self._check_open()
        return self._hold(key, metadata, max_duration=max_duration, on_lost=on_lost)

    def _hold(self, key: str, metadata: Any, **settings: Any) -> BlockingLock:
        raise InvalidConfig(f"no lock {key!r}: {NO_LOCKS}", field="key", value=key)

    def _with_locks(self, order: Order, call: Callable[[], Any]) -> Callable[[], Any]:
        """The call, with its task's locks around it."""
        return call

    def agent(self, name: str, **settings: int) -> AgentCommunication:
        """Give the agent of that name, started if there is none.

        It is a node like any other, so faults are made with it too. `settings` are the `capacity` of its
        mailbox and the length of its `history`.
        """
        from agentflow.cluster.agents.agent import agent_of

        self._check_open()
        return agent_of(self._lay_bus(), name, **settings)

    def _lay_bus(self) -> Bus:
        raise NotImplementedError

    def _command(self, client: NodeId, command: ClientCommand, timeout: float | None = None) -> Any:
        """Have a command take effect, through whoever leads."""
        self._check_open()
        limit = self._deployment.raft.replication_timeout_ms / 1000 if timeout is None else timeout
        if not checked_timeout(limit):
            raise InvalidConfig(f"timeout={timeout!r} is not a positive number of seconds", field="timeout")
        answers: list[Any] = []
        changed = threading.Condition()

        def take(answer: Any, final: bool) -> None:
            with changed:
                answers.append(answer)
                changed.notify_all()

        self._ask(client, Command(command, limit), take)
        # The client itself answers at the limit; only a cluster that was closed meanwhile never does.
        self.wait(changed, lambda: bool(answers), None)
        if isinstance(answers[0], BaseException):
            raise answers[0]
        return answers[0]

    def cancel(self, run: RunId) -> Cancelled:
        """Cancel what has not settled of a run; give how many tasks that were, and which run on."""
        count = int(self._command(CLIENT, CancelRun(run)))
        return Cancelled(count, self._overdue_of(run))

    def _overdue_of(self, run: RunId) -> list[str]:
        """Name the tasks of a run that were given up and whose functions go on."""
        return []

    def retry(self, run: Run, tasks: tuple[TaskId, ...], everything: bool) -> int:
        """Run tasks of a run again; give how many."""
        version, count, tasks_back = self._command(CLIENT, RetryRun(run.id, tasks, everything))
        if count:
            was_done = run.done
            have = run._resume(version, tasks_back)
            if was_done:
                self._ask(CLIENT, Watch(run.id, len(run), have), run._hear)
        return int(count)

    def forget(self, run: RunId) -> None:
        """Drop a finished run's values and tables."""
        attempts = self.read(lambda: self._attempts_of(run))
        self._command(CLIENT, ForgetRun(run))
        gone = self._runs.pop(run, None)
        objects = self._bench.objects
        for attempt in attempts:
            objects.delete(("value", attempt))
            objects.delete(("error", attempt))
            objects.delete(("payload", growth_of(attempt)))
        if gone is not None:
            objects.delete(("payload", gone.key))

    def _attempts_of(self, run: RunId) -> set[AttemptId]:
        """The attempts whose values go with a run: its own, but for those that another run took over."""
        runs = self.plane().runs
        if run not in runs:
            return set()
        mine = {row.attempt for row in runs[run].history}
        for other in runs.values():
            if other.id != run:
                mine.difference_update(other.value)
        taken = {value for value in runs[run].value if value >= 0} - mine
        for other in runs.values():
            if taken and other.id != run:
                taken.difference_update(other.value, [row.attempt for row in other.history])
        return mine | taken

    def queue_stats(self) -> QueueStats:
        """Give the replicated queue in numbers; `frames.queue()` has its course.

        Returns
        -------
        QueueStats
            Tasks that wait by priority and by group, waits and rates. `dead_letters` are tasks that failed
            for good.
        """
        return self.read(lambda: queue_stats(self.plane(), self.now))

    def memory(self) -> pd.DataFrame:
        """Give the bytes of the values that are kept, a row a run, with how many there are and how many went."""
        import pandas as pd

        rows = self.read(lambda: list(memory_rows(self.plane())))
        return pd.DataFrame(rows, columns=list(MEMORY_COLUMNS)).astype(MEMORY_COLUMNS)

    # --- what a run asks ----------------------------------------------------------------------------------

    def value_of(self, attempt: AttemptId) -> Any:
        """Give the value that an attempt returned."""
        return self._bench.objects.get(("value", attempt))

    def discard(self, attempt: AttemptId) -> None:
        """Let go of the value that an attempt returned."""
        self._bench.objects.delete(("value", attempt))

    def perform_here(self, run: Run, at: int) -> Callable[[], Any]:
        """Give the call of a task, with its real inputs."""
        order = self.read(lambda: order_again(self.plane(), run.id, at))
        try:
            call = (
                self._bench.call_of(order)
                if self._bench.is_users(order)
                else lambda: self._bench.perform(order)
            )
            return self._with_locks(order, call) if order.locks else call
        except InputsLost as error:
            lost = ", ".join(repr(run.tasks[task]) for task in error.tasks)
            raise ObjectLost(
                f"{order.id!r} takes the values of {lost}, which are gone; run.retry(tasks=[...]) computes them again",
                key=order.id,
            ) from None

    def error_of(self, attempt: AttemptId) -> BaseException | None:
        """Give the exception that an attempt raised, if it is still kept."""
        key = ("error", attempt)
        return self._bench.objects.get(key) if key in self._bench.objects else None

    def run_frames(self, run: Run) -> RunFrames:
        """Give a run's tables."""
        return RunFrames(self, run)

    def explain(self, run: Run, task: TaskId) -> str:
        """Say why a task is where it is."""
        asking = self._asking()
        return self.read(lambda: explain_task(self.plane(), self.now, run.id, task, self._trouble(), asking))

    def _asking(self) -> Collection[AttemptId]:
        """Attempts whose worker is still asking for their locks."""
        return ()

    def _trouble(self) -> str:
        """Why nothing is decided at the moment, if nothing is."""
        return f"{self!r} is closed." if self._closed else masters_trouble(self._deployment)

    def diagnose(self) -> str:
        """Say in words what is wrong with the cluster, or that nothing is."""
        if self._closed:
            return self._trouble()
        return self.read(lambda: diagnose(self._deployment, self.now))

    # --- what the tables read -----------------------------------------------------------------------------

    def plane(self) -> Plane:
        """The control plane to read from."""
        return self._deployment.plane()

    def lock_rows(self) -> list[LockInfo]:
        """The locks that are held now."""
        return []

    def records(self) -> Iterator[Record]:
        """The trace, oldest first."""
        return iter(self._deployment.host.trace)

    def masters_up(self) -> dict[NodeId, Master | None]:
        """Every master's machine, None where it is down."""
        return {node_id: self._deployment.master(node_id) for node_id in self._deployment.master_ids}

    def heartbeat_ages(self) -> dict[NodeId, float]:
        """Seconds since the leader last heard each worker."""
        leader = self._deployment.leader()
        machine = None if leader is None else self._deployment.master(leader)
        if machine is None or machine.lead is None:
            return {}
        return {worker: max(0.0, self.now - at) for worker, at in machine.lead.heard.items()}

    def names_of(self, run: RunId) -> Mapping[TaskId, str]:
        """The names of a run's tasks, where these are not their ids."""
        known = self._runs.get(run)
        nodes = () if known is None else (node for _, node in known.flow.parts()[2])
        return {node.id: node.name for node in nodes if node.name != node.id}

    # --- helpers ------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"{self!r} is closed; make a new one")


__all__ = ["CLIENT", "Facade", "KeyValueClient"]
