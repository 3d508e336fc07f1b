"""A cluster that grows and shrinks while it works."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from agentflow.cluster.deployment import WorkerSpec
from agentflow.cluster.faults import Faults
from agentflow.cluster.nodes import WorkerHandle
from agentflow.cluster.settings import checked_spec
from agentflow.core.control.commands import ClientCommand, DrainWorker, RemoveWorker
from agentflow.errors import AgentflowError, NoSuchNode
from agentflow.ids import NodeId

if TYPE_CHECKING:
    from agentflow.cluster.facade import Facade

CLIENT: NodeId = "notebook"
"""The client through which a person's own requests go."""


class Elastic(Faults):
    """Adding and taking away workers and masters."""

    def _command(self, client: NodeId, command: ClientCommand, timeout: float | None = None) -> Any:
        """Have a command take effect, through whoever leads."""
        raise NotImplementedError

    def wait(self, condition: threading.Condition, done: Any, timeout: float | None) -> bool:
        """Wait until `done()`; give whether it came true in time."""
        raise NotImplementedError

    def add_worker(
        self,
        group: str = "default",
        *,
        max_tasks: int = 4,
        cpu_cores: float = 4.0,
        gpu_count: int = 0,
        resources: Mapping[str, float] | None = None,
        attributes: Mapping[str, str | float | bool] | None = None,
    ) -> WorkerHandle:
        """Start one more worker.

        Parameters
        ----------
        group : str
            Its group: tasks of a group run only there.
        max_tasks : int
            Attempts it runs at once.
        cpu_cores : float
            Cores that its load is counted against.
        gpu_count : int
            GPUs it offers, as the resource `gpu`.
        resources, attributes : mapping, optional
            What `resources=` and `requires=` of tasks may ask for.
        """
        self._check_open()
        spec = WorkerSpec(
            group, max_tasks, cpu_cores, gpu_count, dict(resources or {}), dict(attributes or {})
        )
        checked_spec(spec)
        return WorkerHandle(cast("Facade", self), self.read(lambda: self._deployment.add_worker(spec)))

    def remove_worker(self, worker: Any, *, drain: bool = True, timeout: float | None = None) -> None:
        """Take a worker away.

        Parameters
        ----------
        worker : str or handle
            Which one.
        drain : bool
            Let it finish what it runs; otherwise that starts elsewhere.
        timeout : float, optional
            Seconds to let it finish; what is left then starts elsewhere.
        """
        worker_id = self._node(worker)
        if worker_id not in self._deployment.worker_specs:
            raise NoSuchNode(
                f"{worker_id!r} is no worker; workers are {', '.join(self._deployment.worker_specs)}",
                node=worker_id,
            )
        registered = self.read(lambda: worker_id in self._deployment.plane().workers)
        if registered and drain:
            self._command(CLIENT, DrainWorker(worker_id))
            self.wait(threading.Condition(), lambda: self.read(lambda: self._is_idle(worker_id)), timeout)
        if registered:
            self._strike_off(worker_id)

        def remove() -> None:
            self._retire(worker_id)
            self._deployment.remove_worker(worker_id)

        self.read(remove)

    def _strike_off(self, worker_id: NodeId) -> None:
        """Have the masters forget a worker, which must not hear of it: it would register again."""
        host = self._deployment.host
        was_up = self.read(lambda: host.state(worker_id)) == "up"
        self.read(lambda: host.pause(worker_id))
        try:
            self._command(CLIENT, RemoveWorker(worker_id))
        except AgentflowError:
            if was_up:
                self.read(lambda: host.resume(worker_id))
            raise

    def _is_idle(self, worker_id: NodeId) -> bool:
        worker = self._deployment.plane().workers.get(worker_id)
        return worker is None or not worker.alive or not worker.running
