"""The workers: who is there, what they have left, and who should get the next task.

Law: a worker that is suspected, offline, draining or full gets nothing. Of those that can take a task the
least loaded gets it, ties to the one with the fewest running, then by id. Groups isolate: a task with a
group goes nowhere else.

Law: silence is only judged when somebody asks; between two questions nothing happens by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from agentflow.core.scheduling.clock import Clock, default
from agentflow.core.scheduling.seats import TOLERANCE, Seat, renewed
from agentflow.core.scheduling.tasks import Attribute, TaskNode
from agentflow.core.scheduling.workers import (
    HealthCheckConfig,
    WorkerHealth,
    WorkerInfo,
    WorkerResources,
    WorkerStatus,
)
from agentflow.errors import DuplicateTask, InvalidConfig, NoSuchNode, NoSuchTask, Refused
from agentflow.ids import NodeId, TaskId
from agentflow.views import Viewable


class WorkerRegistry(Viewable):
    """Workers by id.

    Parameters
    ----------
    config : HealthCheckConfig, optional
        When silence means something.
    clock : callable, optional
        Gives the time; agentflow's monotonic clock by default.

    Examples
    --------
    >>> registry = WorkerRegistry(HealthCheckConfig(1, 3, 10), clock=lambda: 0.0)
    >>> for name, busy in [("w1", 3), ("w2", 1)]:
    ...     resources = WorkerResources(cpu_cores=4, concurrent_tasks=busy)
    ...     _ = registry.register(WorkerInfo(name, resources=resources))
    >>> registry.get_least_loaded_worker().id
    'w2'
    >>> registry.drain("w2").status.name, registry.get_least_loaded_worker().id
    ('DRAINING', 'w1')
    >>> [worker.id for worker in registry.get_healthy_workers(now=4.0)]
    []
    """

    def __init__(self, config: HealthCheckConfig | None = None, *, clock: Clock | None = None) -> None:
        self.config = HealthCheckConfig() if config is None else config
        self._clock = default if clock is None else clock
        self._seats: dict[NodeId, Seat] = {}

    # --- coming, going, being heard -----------------------------------------------------------------------

    def register(self, worker: WorkerInfo, *, now: float | None = None) -> WorkerInfo:
        """Add a worker; one of that id that is there already begins a new life, without its tasks.

        Parameters
        ----------
        worker : WorkerInfo
            What it says of itself.
        now : float, optional
            The instant, in seconds; by default the clock's.

        Returns
        -------
        WorkerInfo
            As registered.
        """
        if not isinstance(worker, WorkerInfo):
            raise InvalidConfig(f"a worker registers with its WorkerInfo, not {worker!r}", field="worker")
        at = self._now(now)
        draining = worker.status is WorkerStatus.DRAINING
        down = worker.status is WorkerStatus.OFFLINE
        info = msgspec.structs.replace(worker, registered_at=at)
        self._seats[worker.id] = Seat(info, at, draining=draining, down=down)
        return self._shown(self._seats[worker.id], at)

    def unregister(self, worker_id: NodeId) -> list[TaskId]:
        """Forget a worker; give the tasks it still ran, which must go elsewhere.

        Parameters
        ----------
        worker_id : str
            Which worker.

        Returns
        -------
        list of str
            The tasks it still ran.
        """
        seat = self._seat(worker_id)
        del self._seats[worker_id]
        return list(seat.running)

    def update_heartbeat(
        self,
        worker_id: NodeId,
        resources: WorkerResources | Mapping[str, Any] | None = None,
        *,
        now: float | None = None,
    ) -> WorkerInfo:
        """Note that a worker was heard, and what it has now.

        A worker that was offline is back, unless it drains. One that was reported offline to the
        registry's caller has lost its tasks meanwhile.

        Parameters
        ----------
        worker_id : str
            Which.
        resources : WorkerResources or dict, optional
            What it has now: all of it, or the fields that changed.

        Raises
        ------
        NoSuchNode
            If it is not registered; it must register first.
        """
        seat = self._seat(worker_id)
        info = seat.info
        if resources is not None:
            info = msgspec.structs.replace(info, resources=renewed(info.resources, resources))
        at = self._now(now)
        if self._is_down(seat, at):
            seat.down = seat.reported = False
            info = msgspec.structs.replace(info, error="")
        seat.info = info
        seat.heard_at = max(seat.heard_at, at)
        return self._shown(seat, at)

    def mark_unhealthy(self, worker_id: NodeId, error: Any) -> list[TaskId]:
        """Take a worker for offline until it is heard again; give the tasks it ran.

        Parameters
        ----------
        worker_id : str
            Which worker.
        error : Any
            Why; kept as the reason.

        Returns
        -------
        list of str
            The tasks it ran, which must go elsewhere.
        """
        seat = self._seat(worker_id)
        seat.info = msgspec.structs.replace(seat.info, error=str(error) or type(error).__name__)
        return self._take_down(seat)

    def drain(self, worker_id: NodeId, *, now: float | None = None) -> WorkerInfo:
        """Let a worker finish what it runs and give it nothing new; see `is_drained`.

        Parameters
        ----------
        worker_id : str
            Which worker.
        now : float, optional
            The instant, in seconds; by default the clock's.

        Returns
        -------
        WorkerInfo
            As it is now.
        """
        seat = self._seat(worker_id)
        seat.draining = True
        return self._shown(seat, self._now(now))

    def resume(self, worker_id: NodeId, *, now: float | None = None) -> WorkerInfo:
        """Take back a `drain`.

        Parameters
        ----------
        worker_id : str
            Which worker.
        now : float, optional
            The instant, in seconds; by default the clock's.

        Returns
        -------
        WorkerInfo
            As it is now.
        """
        seat = self._seat(worker_id)
        seat.draining = False
        return self._shown(seat, self._now(now))

    def is_drained(self, worker_id: NodeId) -> bool:
        """Whether a draining worker has finished what it ran: it can be unregistered."""
        seat = self._seat(worker_id)
        return seat.draining and not seat.count()

    def take_lost(self, *, now: float | None = None) -> dict[NodeId, list[TaskId]]:
        """Give up workers that have been silent for too long; each is told of once, with what it ran.

        Parameters
        ----------
        now : float, optional
            The instant, in seconds; by default the clock's.

        Returns
        -------
        dict
            Worker to the tasks it ran.

        Examples
        --------
        >>> registry = WorkerRegistry(HealthCheckConfig(1, 3, 10), clock=lambda: 0.0)
        >>> _ = registry.register(WorkerInfo("w1"))
        >>> _ = registry.assign("w1", "build")
        >>> registry.take_lost(now=10.5), registry.take_lost(now=11.0)
        ({'w1': ['build']}, {})
        """
        at = self._now(now)
        lost = [seat for seat in self._seats.values() if not seat.reported and self._is_down(seat, at)]
        return {seat.info.id: self._take_down(seat) for seat in lost}

    def cleanup_offline(self, timeout_secs: float, *, now: float | None = None) -> list[NodeId]:
        """Forget workers that are offline and have not been heard for so long; give their ids.

        Parameters
        ----------
        timeout_secs : float
            For how long they must not have been heard.
        now : float, optional
            The instant, in seconds; by default the clock's.

        Returns
        -------
        list of str
            Who was forgotten.
        """
        if not timeout_secs >= 0:
            raise InvalidConfig(f"timeout_secs={timeout_secs!r} is not at least 0", field="timeout_secs")
        at = self._now(now)
        gone = [
            worker
            for worker, seat in self._seats.items()
            if self._is_down(seat, at) and at - seat.heard_at >= timeout_secs
        ]
        for worker in gone:
            del self._seats[worker]
        return gone

    # --- who gets a task ----------------------------------------------------------------------------------

    def get_least_loaded_worker(
        self,
        group_name: str | None = None,
        *,
        requires: Mapping[str, Attribute] | None = None,
        resources: Mapping[str, float] | None = None,
        now: float | None = None,
    ) -> WorkerInfo | None:
        """Give the worker that should get the next task, or None if none can take it.

        Parameters
        ----------
        group_name : str, optional
            Only workers of this group; any by default.
        requires : dict, optional
            What the worker must be: custom attributes, or capabilities as `{"cuda": True}`.
        resources : dict, optional
            What it must have free: `cpu`, `gpu`, `memory_mb`, or a custom attribute that is a number.

        Examples
        --------
        >>> registry = WorkerRegistry(clock=lambda: 0.0)
        >>> _ = registry.register(WorkerInfo("plain"))
        >>> _ = registry.register(WorkerInfo("gpu", resources=WorkerResources(gpu_count=1)))
        >>> registry.assign("gpu", "train", {"gpu": 0.5}).id
        'gpu'
        >>> registry.get_least_loaded_worker(resources={"gpu": 0.5}).id
        'gpu'
        >>> registry.get_least_loaded_worker(resources={"gpu": 0.75})
        """
        at = self._now(now)
        best: tuple[float, int, NodeId] | None = None
        picky = group_name is not None or bool(requires)
        for worker, seat in self._seats.items():
            if not self._takes(seat, at) or (picky and not seat.meets(group_name, requires or {})):
                continue
            if resources and any(amount > seat.free(name) + TOLERANCE for name, amount in resources.items()):
                continue
            running = seat.count()
            rank = (seat.info.resources.load_with(running), running, worker)
            if best is None or rank < best:
                best = rank
        return None if best is None else self._shown(self._seats[best[2]], at)

    def find_worker(self, task: TaskNode, *, now: float | None = None) -> WorkerInfo | None:
        """Give the worker that should get this task, by its group, `requires` and `resources`.

        Parameters
        ----------
        task : TaskNode
            What needs a place.
        now : float, optional
            The instant, in seconds; by default the clock's.

        Returns
        -------
        WorkerInfo or None
            The least loaded of those that can take it; None if none can.
        """
        return self.get_least_loaded_worker(
            task.group, requires=task.requires, resources=task.resources, now=now
        )

    def assign(
        self,
        worker_id: NodeId,
        task: TaskNode | TaskId,
        resources: Mapping[str, float] | None = None,
        *,
        now: float | None = None,
    ) -> WorkerInfo:
        """Note that a worker got a task; what the task takes is not free until its `release`.

        Parameters
        ----------
        worker_id : str
            Which worker.
        task : TaskNode or str
            What it got.
        resources : dict, optional
            What the task takes; by default what its node says, and nothing for an id alone.
        now : float, optional
            The instant, in seconds; by default the clock's.

        Returns
        -------
        WorkerInfo
            As it is now.

        Raises
        ------
        Refused
            If the worker cannot take it now.
        DuplicateTask
            If it runs it already.
        """
        seat, at = self._seat(worker_id), self._now(now)
        name = task.id if isinstance(task, TaskNode) else task
        wanted = dict(task.resources if isinstance(task, TaskNode) and resources is None else resources or {})
        if name in seat.running:
            raise DuplicateTask(f"{worker_id} runs {name!r} already", task=name)
        if not self._takes(seat, at):
            raise Refused(
                f"{worker_id} takes no task now: it is {self._status(seat, at).name}", node=worker_id
            )
        for resource, amount in wanted.items():
            if not 0 <= amount <= seat.free(resource) + TOLERANCE:
                raise Refused(
                    f"{worker_id} has {seat.free(resource):g} of {resource!r} free, and {name!r} takes {amount:g}",
                    node=worker_id,
                    resource=resource,
                )
        seat.running[name] = wanted
        return self._shown(seat, at)

    def release(self, worker_id: NodeId, task_id: TaskId, *, now: float | None = None) -> WorkerInfo:
        """Note that a worker is done with a task.

        Parameters
        ----------
        worker_id : str
            Which worker.
        task_id : str
            What it is done with.
        now : float, optional
            The instant, in seconds; by default the clock's.

        Returns
        -------
        WorkerInfo
            As it is now.
        """
        seat = self._seat(worker_id)
        if task_id not in seat.running:
            raise NoSuchTask(f"{worker_id} does not run {task_id!r}", task=task_id)
        del seat.running[task_id]
        has = seat.info.resources
        if has.concurrent_tasks > len(seat.running):
            # What it last said of itself counted this task too.
            fewer = msgspec.structs.replace(has, concurrent_tasks=has.concurrent_tasks - 1)
            seat.info = msgspec.structs.replace(seat.info, resources=fewer)
        return self._shown(seat, self._now(now))

    def running(self, worker_id: NodeId) -> list[TaskId]:
        """Tasks that a worker was given and has not finished, in that order."""
        return list(self._seat(worker_id).running)

    # --- looking ------------------------------------------------------------------------------------------

    def get_worker(self, worker_id: NodeId, *, now: float | None = None) -> WorkerInfo:
        """Give a worker with its status as it is now.

        Parameters
        ----------
        worker_id : str
            Which worker.
        now : float, optional
            The instant, in seconds; by default the clock's.
        """
        return self._shown(self._seat(worker_id), self._now(now))

    def get_workers(self, group_name: str | None = None, *, now: float | None = None) -> list[WorkerInfo]:
        """Give all workers, or those of a group, in order of registration.

        Parameters
        ----------
        group_name : str, optional
            Only those of this group.
        now : float, optional
            The instant, in seconds; by default the clock's.
        """
        at = self._now(now)
        return [self._shown(seat, at) for seat in self._of(group_name)]

    def get_healthy_workers(
        self, group_name: str | None = None, *, now: float | None = None
    ) -> list[WorkerInfo]:
        """Give the workers that are heard of and work on: ACTIVE or BUSY, and not even suspected.

        Parameters
        ----------
        group_name : str, optional
            Only those of this group.
        now : float, optional
            The instant, in seconds; by default the clock's.
        """
        at = self._now(now)
        return [self._shown(seat, at) for seat in self._of(group_name) if self._is_well(seat, at)]

    def groups(self) -> list[str]:
        """Names of the groups that have workers."""
        return list(dict.fromkeys(seat.info.group_name for seat in self._seats.values()))

    def health(self, worker_id: NodeId, *, now: float | None = None) -> WorkerHealth:
        """Say how long ago a worker was heard, in words."""
        seat, at = self._seat(worker_id), self._now(now)
        return WorkerHealth.OFFLINE if seat.down else self.config.health_of(at - seat.heard_at)

    def heartbeat_age(self, worker_id: NodeId, *, now: float | None = None) -> float:
        """Seconds since a worker was heard."""
        return max(0.0, self._now(now) - self._seat(worker_id).heard_at)

    def __len__(self) -> int:
        return len(self._seats)

    def __bool__(self) -> bool:
        return True

    def __contains__(self, worker_id: object) -> bool:
        return worker_id in self._seats

    def __repr__(self) -> str:
        count = len(self._seats)
        return f"<WorkerRegistry: {count} worker{'' if count == 1 else 's'} in {len(self.groups())} groups>"

    # --- helpers ------------------------------------------------------------------------------------------

    def _now(self, now: float | None) -> float:
        return self._clock() if now is None else now

    def _seat(self, worker_id: NodeId) -> Seat:
        seat = self._seats.get(worker_id)
        if seat is None:
            raise NoSuchNode(f"no worker {worker_id!r} is registered", node=worker_id)
        return seat

    def _of(self, group_name: str | None) -> Iterable[Seat]:
        return (s for s in self._seats.values() if group_name is None or s.info.group_name == group_name)

    def _is_down(self, seat: Seat, at: float) -> bool:
        return seat.down or at - seat.heard_at > self.config.offline_after_secs

    def _is_well(self, seat: Seat, at: float) -> bool:
        silent = at - seat.heard_at > self.config.suspect_after_secs
        return not (seat.down or seat.draining or silent)

    def _takes(self, seat: Seat, at: float) -> bool:
        return self._is_well(seat, at) and seat.count() < seat.info.resources.max_tasks

    def _take_down(self, seat: Seat) -> list[TaskId]:
        tasks = list(seat.running)
        seat.down = seat.reported = True
        seat.running = {}
        idle = msgspec.structs.replace(seat.info.resources, concurrent_tasks=0)
        seat.info = msgspec.structs.replace(seat.info, resources=idle)
        return tasks

    def _status(self, seat: Seat, at: float) -> WorkerStatus:
        if self._is_down(seat, at):
            return WorkerStatus.OFFLINE
        if seat.draining:
            return WorkerStatus.DRAINING
        return WorkerStatus.BUSY if seat.count() >= seat.info.resources.max_tasks else WorkerStatus.ACTIVE

    def _shown(self, seat: Seat, at: float) -> WorkerInfo:
        """What is known of a worker, with the status and the number of tasks it has now."""
        info, running = seat.info, seat.count()
        if running != info.resources.concurrent_tasks:
            resources = msgspec.structs.replace(info.resources, concurrent_tasks=running)
            info = msgspec.structs.replace(info, resources=resources)
        return msgspec.structs.replace(info, status=self._status(seat, at))

    def check_invariants(self) -> None:
        """Assert what must hold between any two calls."""
        for worker, seat in self._seats.items():
            assert seat.info.id == worker, "a worker is listed under its id"
            assert not (seat.reported and seat.running), "what is given up runs nothing"
            for resource in {name for taken in seat.running.values() for name in taken} - {"memory_mb"}:
                assert seat.free(resource) >= -1e-6 or resource not in ("cpu", "gpu"), (
                    "no resource is given twice"
                )
