"""The live cluster: real masters, workers and locks in this process, on a loop and threads of their own.

Law: what is left behind after `close` is nothing: no thread of ours, no port, no file. Only a user's
function that will not end keeps its thread, and is reported by name.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Collection
from contextvars import Context
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from agentflow.cluster.adapting import Adaptive
from agentflow.cluster.calls import Workbench
from agentflow.cluster.current import CurrentTask, InTask, current_task
from agentflow.cluster.deployment import Deployment
from agentflow.cluster.facade import CLIENT, Facade
from agentflow.cluster.launch import RunnerLauncher
from agentflow.cluster.locking import ClusterLocks
from agentflow.cluster.reuse import Reusing
from agentflow.cluster.settings import (
    checked_bytes,
    checked_masters,
    checked_seed,
    checked_speed,
    checked_type,
    worker_specs,
)
from agentflow.core.control.commands import ClientCommand
from agentflow.core.nodes.messages import Order
from agentflow.core.nodes.worker import Worker
from agentflow.core.raft import RaftConfig
from agentflow.core.scheduling import HealthCheckConfig
from agentflow.errors import InvalidConfig, Refused, TimedOut
from agentflow.executors import Runner, runner_for
from agentflow.executors.threads import Brigade
from agentflow.ids import AttemptId, NodeId, RunId
from agentflow.objects.memory import MemoryStore
from agentflow.runtime.host import Host
from agentflow.runtime.realtime import RealtimeDriver
from agentflow.runtime.trace import Trace
from agentflow.transport.codec import MessageCodec
from agentflow.transport.memory import Network
from agentflow.views import ended

if TYPE_CHECKING:
    from agentflow.cluster.agents.bus import Bus
    from agentflow.locks import BlockingLock, LockInfo

_T = TypeVar("_T")

AHEAD = 3
"""Threads whose tasks are brief are given this many times what they run at once, to wait there."""

GOODBYE_SECS = 1.0
"""How long `close` waits for functions that still run."""


class LeftRunning(UserWarning):
    """A closed cluster could not end a user's function; its thread ends when the function does."""


class Cluster(Facade, metaclass=Reusing):
    """A cluster you can hold in a notebook: it starts, elects a leader and returns.

    Parameters
    ----------
    masters : int
        How many masters; 3 survive the loss of one, 5 of two.
    workers : int or mapping
        How many workers, of four tasks at once each; or how many per group. A group may name an executor in the
        place of a number: `{"default": 4, "gpu": client.get_executor()}`.
    config : RaftConfig, optional
        Settings of the masters; by default `RaftConfig.fast()`.
    executor : str, Executor or callable
        What runs the tasks: "threads", "processes", any `concurrent.futures.Executor`, or a function that
        gives one for a worker's id.
    name : str, optional
        A name to be known by. Without one, a cluster made in a notebook is known by its cell.
    health : HealthCheckConfig, optional
        How often workers beat, and when silence means death.
    network : Network, optional
        The wires between the nodes.
    seed : int
        Fixes the election time-outs and the network's chance; the order of real events it cannot fix.
    trace_limit : int
        How many of the newest events the trace keeps.
    speed : float
        Cluster seconds in one of the wall's: 0.05 slows it for an audience, 0 stops it.
    max_result_bytes : int, optional
        A task whose value is larger fails with `ResultTooLarge`.
    codec_check : bool
        Send every message through its bytes and back.
    locks : str, optional
        The database of the locks, to share them with others: "sqlite:///locks.db",
        "postgresql+psycopg://...", "mysql+pymysql://..."; by default a file of the cluster's own.
    lock_ttl_secs : timedelta or float
        How long a lock outlives its holder: a worker that was killed, a kernel that died.
    replace : bool
        Close a busy cluster of the same name or cell, and take its place.

    Examples
    --------
    >>> with Cluster(masters=3, workers=2) as cluster:
    ...     run = cluster.submit(pow, 2, 10)
    ...     run.result(timeout=10)
    1024
    """

    def __init__(
        self,
        masters: int = 3,
        workers: int | dict[str, Any] = 4,
        *,
        config: RaftConfig | None = None,
        executor: Any = "threads",
        name: str | None = None,
        health: HealthCheckConfig | None = None,
        network: Network | None = None,
        seed: int = 0,
        trace_limit: int | None = 1_000_000,
        speed: float = 1.0,
        max_result_bytes: int | None = None,
        codec_check: bool = False,
        locks: str | None = None,
        lock_ttl_secs: timedelta | float = 10.0,
        replace: bool = False,
    ) -> None:
        checked_masters(masters, stacklevel=4)
        checked_seed(seed)
        checked_speed(speed)
        specs = worker_specs(workers, engines=True)
        checked_type("config", config, RaftConfig, "RaftConfig.fast()")
        checked_type("health", health, HealthCheckConfig, "HealthCheckConfig()")
        checked_type("network", network, Network, "Network()")
        if name is not None and (not isinstance(name, str) or not name):
            raise InvalidConfig(f"name={name!r}: a name is a string with something in it", field="name")
        self._setup()
        self.name = name
        self._bus: Bus | None = None
        self.began = time.time()
        host = Host(
            trace=Trace(trace_limit),
            network=network or Network(),
            codec=MessageCodec() if codec_check else None,
        )
        self._bench = Workbench(
            MemoryStore(), checked_bytes("max_result_bytes", max_result_bytes), clock=lambda: self._driver.now
        )
        self._executor = executor
        self._adapting: list[Adaptive] = []
        self._locks = ClusterLocks(locks, lock_ttl_secs)
        self._brigade = Brigade()
        self._launcher = RunnerLauncher(
            self._bench,
            self._make_runner,
            self._locks,
            later=lambda seconds, fn: self._driver.later(seconds, fn),
        )
        host.launcher = self._launcher
        # An audience need not wait for the first election at its own speed.
        self._driver = RealtimeDriver(host, seed=seed)
        try:
            for each in (executor, *(spec.executor for spec in specs if spec.executor is not None)):
                self._check_executor(each)
            self._deployment = self._driver.call(
                Deployment,
                host,
                raft=config or RaftConfig.fast(),
                health=health
                or HealthCheckConfig(
                    heartbeat_interval_secs=0.2, suspect_after_secs=0.6, offline_after_secs=1.0
                ),
                masters=masters,
                seed=seed,
                # What threads do not get to can be taken back for certain.
                ahead=AHEAD if isinstance(executor, str) and executor == "threads" else 0,
            )
            self._driver.call(self._populate, specs)
            self._await_leader()
            if speed != 1.0:
                self._driver.speed = speed
        except BaseException:
            self._closed = True
            self._driver.close()
            raise
        _open.add(self)

    _has_locks = True

    def _populate(self, specs: list[Any]) -> None:
        self._deployment.add_client(CLIENT)
        for spec in specs:
            self._deployment.add_worker(spec)

    def _check_executor(self, executor: Any) -> None:
        """Refuse an executor that cannot work now, rather than at the first task."""
        if isinstance(executor, str) or not (callable(executor) or isinstance(executor, Runner)):
            runner_for(executor, name="check", slots=1).close(0.0)

    def _make_runner(self, worker_id: NodeId) -> tuple[Runner, bool]:
        spec = self._deployment.worker_specs[worker_id]
        executor = self._executor if spec.executor is None else spec.executor
        runner = runner_for(
            executor,
            name=worker_id,
            slots=spec.max_tasks,
            clock=lambda: self._driver.now,
            brigade=self._brigade,
        )
        return runner, runner is not executor

    def _retire(self, node_id: NodeId) -> None:
        self._launcher.retire(node_id)

    def diagnose(self) -> str:
        """Say in words what is wrong with the cluster, or that nothing is."""
        said = super().diagnose()
        left = [] if self._closed else self._launcher.overdue
        if not left:
            return said
        return f"{said}\nGiven up, and running on in threads that cannot be stopped: {', '.join(left)}."

    def adapt(
        self, least: int = 0, most: int = 8, *, group: str = "default", idle_secs: float = 5.0
    ) -> Adaptive:
        """Let workers of a group come when tasks wait and go when they are idle.

        Parameters
        ----------
        least, most : int
            Limits to their number; 0 to 8 by default.
        group : str
            Of which group.
        idle_secs : float
            How long a worker is idle before it goes.

        Returns
        -------
        Adaptive
            Its `stop()` leaves the workers as they are then.
        """
        self._check_open()
        for other in self._adapting:
            if other.group == group:
                other.stop()
        self._adapting = [other for other in self._adapting if other.group != group]
        self._adapting.append(made := Adaptive(self, least, most, group, idle_secs))
        return made

    def _overdue_of(self, run: RunId) -> list[str]:
        # The workers are told while the answer is on its way here.
        self.wait(threading.Condition(), lambda: not self.read(lambda: self._is_run_by_workers(run)), 0.5)
        return self._launcher.overdue_of(run)

    def _is_run_by_workers(self, run: RunId) -> bool:
        machines = map(self._deployment.host.machine, self._deployment.worker_specs)
        up = [machine for machine in machines if isinstance(machine, Worker)]
        return any(order.run == run for worker in up for order in worker.running.values())

    def _await_leader(self) -> None:
        limit = time.monotonic() + 4 * self._deployment.raft.election_timeout_ms / 1000 + 2.0
        while self.leader is None:
            if time.monotonic() > limit:
                raise TimedOut(f"no leader was elected; {self.diagnose()}")
            time.sleep(0.002)

    # --- time ---------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds since the cluster began; it stops with the cluster."""
        return self._last[3] if self._closed else self._driver.now

    @property
    def speed(self) -> float:
        """Cluster seconds in one of the wall's; may be set, 0 stops it."""
        return self._driver.speed

    @speed.setter
    def speed(self, value: float) -> None:
        self._driver.speed = value

    # --- what the facade asks -----------------------------------------------------------------------------

    def clock(self) -> float:
        """Seconds on the wall's clock."""
        return time.monotonic()

    @property
    def moves_time(self) -> bool:
        """No: time passes by itself."""
        return False

    def read(self, fn: Callable[[], _T]) -> _T:
        """Call `fn` between two turns of the loop."""
        return self._driver.call(fn)

    def _command(self, client: NodeId, command: ClientCommand, timeout: float | None = None) -> Any:
        if not self._closed and self._driver.speed == 0.0:
            raise Refused(
                "the cluster's time stands still, so no master can answer; set cluster.speed above 0"
            )
        return super()._command(client, command, timeout)

    def _lay_bus(self) -> Bus:
        from agentflow.cluster.agents.live import LiveBus

        def lay() -> Bus:
            if self._bus is None:
                label = "the cluster" if self.name is None else f"cluster {self.name!r}"
                self._bus = LiveBus(self._driver, self.began, label)
            return self._bus

        return self._bus or self.read(lay)

    def _ask(self, node_id: NodeId, request: Any, callback: Callable[[Any, bool], None]) -> None:
        self._driver.ask(node_id, request, callback)

    def wait(self, condition: threading.Condition, done: Callable[[], bool], timeout: float | None) -> bool:
        """Block until `done()`, for at most `timeout` seconds."""
        limit = None if timeout is None else time.monotonic() + timeout
        with condition:
            while not done():
                left = None if limit is None else limit - time.monotonic()
                if left is not None and left <= 0:
                    return False
                # In slices: some waits are for what no notification tells, such as a worker that drains.
                condition.wait(0.05 if left is None else min(left, 0.05))
        return True

    # --- the end ------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End every node, thread and timer; runs that are not done stay as they are.

        A second time does nothing. A function of yours that is still running is waited for a moment, then
        reported by name in a `LeftRunning` warning.
        """
        self._close(stacklevel=3)

    def _close(self, stacklevel: int) -> None:
        if self._closed:
            return
        for adaptive in self._adapting:
            adaptive.stop()
        self._freeze()
        self._launcher.is_closing = True
        self._closed = True
        _open.discard(self)
        self._driver.close()
        left = self._launcher.close(GOODBYE_SECS)
        self._locks.close()
        for run in self._runs.values():
            run._end()
        ended(self)
        if left:
            warnings.warn(
                f"{self!r} left {len(left)} functions running, which cannot be stopped from outside: {', '.join(left[:8])}",
                LeftRunning,
                stacklevel=stacklevel,
            )

    def _freeze(self) -> None:
        """Keep the state to be read after the end: the tables of a closed cluster stay true."""
        self._last = self.read(
            lambda: (
                super(Cluster, self).plane(),
                super(Cluster, self).masters_up(),
                super(Cluster, self).heartbeat_ages(),
                self._driver.now,
            )
        )

    # --- locks --------------------------------------------------------------------------------------------

    def _hold(self, key: str, metadata: Any, **settings: Any) -> BlockingLock:
        task = current_task()
        return self._locks.hold(CLIENT if task is None else task.worker, key, metadata, **settings)

    def _with_locks(self, order: Order, call: Callable[[], Any]) -> Callable[[], Any]:
        def held_call() -> Any:
            with self._locks.hold_all(CLIENT, order) as held:
                context = Context()
                value = context.run(InTask(CurrentTask(order, CLIENT, held), call))
                return context.run(asyncio.run, value) if asyncio.iscoroutine(value) else value

        return held_call

    def lock_rows(self) -> list[LockInfo]:
        """The locks that are held now; of a closed cluster, those that it left behind are not looked for."""
        return [] if self._closed else self._locks.rows()

    def _asking(self) -> Collection[AttemptId]:
        return () if self._closed else self._launcher.asking

    def plane(self) -> Any:
        """The control plane to read from; after the end, as it was then."""
        return self._last[0] if self._closed else super().plane()

    def masters_up(self) -> Any:
        """Every master's machine; after the end, as they were then."""
        return self._last[1] if self._closed else super().masters_up()

    def heartbeat_ages(self) -> dict[NodeId, float]:
        """Seconds since the leader last heard each worker; after the end, as it was then."""
        return self._last[2] if self._closed else super().heartbeat_ages()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(stacklevel=3)

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        if self._closed:
            return f"<Cluster{name} closed, {len(self._runs)} runs>"
        masters, workers = len(self._deployment.master_ids), len(self._deployment.worker_specs)
        return f"<Cluster{name} {masters} masters, {workers} workers, leader {self.leader}, {len(self._runs)} runs>"


_open: weakref.WeakSet[Cluster] = weakref.WeakSet()


def open_clusters() -> list[Cluster]:
    """The clusters of this process that are not closed, oldest first."""
    return sorted(_open, key=lambda cluster: cluster.began)


def _close_all() -> None:
    """At the interpreter's end: leave nothing that would keep it."""
    for cluster in list(_open):
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cluster.close()


atexit.register(_close_all)
